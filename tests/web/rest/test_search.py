"""A search by REST returns the same hits as `Archive.search`."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from rsir.archive.search.hits import Hits
from rsir.archive.search.query import ById, ByWindow, Examples
from rsir.images.read import read_pixels
from rsir.store.filters.filter import Filter
from rsir.web.service.scenes import scene_id
from tests.web.served import World, png, problem, search, upload

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
"""From affine 3, caused by rasterio 1.4."""

LAND = "/api/archives/land"


def same(answer: dict[str, Any], hits: Hits) -> None:
    """Assert that the hits of a response equal `hits`, field by field."""
    assert answer["total"] == len(hits)
    assert answer["searched"] == hits.searched
    found = [{n: v for n, v in h.items() if n not in ("rank", "scene")} for h in answer["hits"]]
    expected = [json.loads(json.dumps(hit.to_dict())) for hit in hits]
    for hit in (*found, *expected):
        hit["datetime"] = hit["datetime"] and hit["datetime"].replace("+00:00", "Z")
    assert found == expected
    assert [h["scene"] for h in answer["hits"]] == [scene_id(hit.source) for hit in hits]
    assert [h["rank"] for h in answer["hits"]] == list(range(1, len(hits) + 1))


def test_by_id(http: TestClient, world: World, ids: list[str]) -> None:
    answer = search(http, query={"id": ids[3]}, k=5)
    same(answer, world.land.search(ById(ids[3]), 5))
    assert ids[3] not in [hit["id"] for hit in answer["hits"]]


@pytest.mark.parametrize("archive", ["land", "codes"])
def test_by_vector(http: TestClient, world: World, archive: str) -> None:
    local = getattr(world, archive)
    record = next(local.records())
    vector = local.vectors([record.id])[0]
    answer = search(http, archive, query={"vector": vector.tolist()}, k=4)
    same(answer, local.search(vector, 4))
    assert answer["hits"][0]["distance"] == pytest.approx(0, abs=1e-6)


def test_by_uploaded_image(http: TestClient, world: World) -> None:
    file = next(world.images.rglob("*.tif"))
    answer = upload(http, file.read_bytes(), name="x.tif", kind="image/tiff", k=3)
    assert answer.status_code == 200
    same(answer.json(), world.land.search(file, 3))
    assert answer.json()["hits"][0]["source"] == str(file)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_by_uploads_of_all_formats(http: TestClient, world: World, kind: str) -> None:
    pixels = read_pixels(next(world.images.rglob("*.tif"))).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    answer = upload(http, buffer.getvalue(), name="a", kind="application/octet-stream", k=2)
    assert answer.status_code == 200
    assert answer.json()["hits"][0]["distance"] < 0.01


@pytest.mark.parametrize(
    "where",
    [
        {"window": [100, 100, 200, 150]},
        {"bbox": [16.30, 45.11, 16.32, 45.13]},
        {"point": [16.31, 45.12], "size": 900},
    ],
)
def test_by_window_of_a_scene(http: TestClient, world: World, where: dict[str, Any]) -> None:
    source = str(world.scene)
    answer = search(http, query={"scene": scene_id(source), **where}, k=3)
    same(answer, world.land.search(ByWindow(source, **where), 3))


def test_by_positives_and_negatives(http: TestClient, world: World, ids: list[str]) -> None:
    like, unlike = ids[2:4], ids[6:7]
    examples = [{"id": id} for id in like]
    answer = search(http, like=examples, unlike=[{"id": unlike[0]}], k=4)
    query = Examples([ById(id) for id in like], [ById(id) for id in unlike])
    same(answer, world.land.search(query, 4))
    with_query = search(http, query={"id": ids[0]}, like=examples, k=4)
    same(with_query, world.land.search(Examples([ById(id) for id in like], (), ById(ids[0])), 4))


def test_by_uploaded_examples_and_ids(http: TestClient, world: World, ids: list[str]) -> None:
    files = sorted(world.images.rglob("*.tif"))[:3]
    answer = http.post(
        f"{LAND}/search/images",
        files=[
            ("image", ("q", files[0].read_bytes(), "image/tiff")),
            ("like", ("a", files[1].read_bytes(), "image/tiff")),
            ("unlike", ("b", files[2].read_bytes(), "image/tiff")),
        ],
        data={"options": json.dumps({"k": 3, "like": [{"id": ids[4]}]})},
    )
    query = Examples([ById(ids[4]), files[1]], [files[2]], files[0])
    same(answer.json(), world.land.search(query, 3))


def test_a_search_without_a_query_is_refused(http: TestClient) -> None:
    problem(http.post(f"{LAND}/search", json={}), 422, "usage")
    problem(http.post(f"{LAND}/search", json={"unlike": [{"vector": [1] * 16}]}), 422, "usage")
    answer = http.post(f"{LAND}/search/images", files={"unlike": ("a", b"", "image/png")})
    problem(answer, 422, "image")
    both = upload(http, png(np.zeros((8, 8, 3), np.uint8)), query={"vector": [1] * 16})
    assert "not both" in problem(both, 422, "usage")["detail"]


FILTERS = [
    {"bbox": [9.81, 48.56, 9.82, 48.567]},
    {"start": "2020-01-01T00:00:00Z"},
    {"end": "2019-12-31T00:00:00Z", "start": None},
    {"classes": ["forest", "water"]},
    {"where": "width > 100 AND NOT folder = 'forest'"},
    {"geometry": {"type": "Polygon", "coordinates": [[[16, 45], [17, 45], [17, 46], [16, 45]]]}},
    {"bbox": [0, 0, 90, 90], "where": "folder LIKE '%r%'", "classes": ["forest", "airport"]},
]


@pytest.mark.parametrize("given", FILTERS)
def test_filters(http: TestClient, world: World, ids: list[str], given: dict[str, Any]) -> None:
    from datetime import datetime

    times = {
        n: given[n] and datetime.fromisoformat(given[n]) for n in ("start", "end") if n in given
    }
    filter = Filter(**{**given, **times})
    answer = search(http, query={"id": ids[0]}, k=50, filter=given)
    same(answer, world.land.search(ById(ids[0]), 50, filter=filter))
    assert 0 < world.land.count(filter) < len(ids)
    parameters: dict[str, Any] = {n: v for n, v in given.items() if n in ("where", "classes")}
    if "bbox" in given:
        parameters["bbox"] = ",".join(map(str, given["bbox"]))
    if "geometry" in given:
        parameters["geometry"] = json.dumps(given["geometry"])
    if times:
        parameters["datetime"] = f"{given.get('start') or '..'}/{given.get('end') or '..'}"
    listed = http.get(f"{LAND}/items", params=parameters).json()
    assert [item["id"] for item in listed["items"]] == [r.id for r in world.land.records(filter)]
    assert listed["total"] == world.land.count(filter)


def test_rankings_diversity_and_least_percentile(http: TestClient, world: World) -> None:
    record = next(world.codes.records())
    query, by_id = {"id": record.id}, ById(record.id)
    for options in (
        {"ranking": "hamming"},
        {"diverse": True},
        {"min_percentile": 50},
        {"ranking": "hamming", "diverse": True, "min_percentile": 20},
    ):
        answer = search(http, "codes", query=query, k=12, **options)
        same(answer, world.codes.search(by_id, 12, **options))
    adaptive = search(http, "codes", query=query, k=12)["hits"]
    plain = search(http, "codes", query=query, k=12, ranking="hamming")["hits"]
    assert [h["distance"] for h in adaptive] != [h["distance"] for h in plain]
    unknown = http.post("/api/archives/codes/search", json={"query": query, "ranking": "nonsense"})
    problem(unknown, 422, "usage")


def test_pages_of_hits_join_to_all_of_them(http: TestClient, ids: list[str]) -> None:
    whole = search(http, query={"id": ids[0]}, k=20)["hits"]
    assert len(whole) == 20
    pages = [
        search(http, query={"id": ids[0]}, k=20, offset=start, limit=7)["hits"]
        for start in (0, 7, 14, 21)
    ]
    assert [len(page) for page in pages] == [7, 7, 6, 0]
    assert [hit for page in pages for hit in page] == whole


def test_only_the_records_of_a_page_are_read(
    http: TestClient, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = Hits.__getitem__

    def counted(self: Hits, index: Any) -> Any:
        if isinstance(index, int):
            read.append("hit")
        return real(self, index)

    monkeypatch.setattr(Hits, "__getitem__", counted)
    search(http, query={"id": ids[0]}, k=20, offset=4, limit=3)
    assert len(read) == 6  # three from the store, in a thread, and again from memory


def test_geojson_of_hits(http: TestClient, world: World, ids: list[str]) -> None:
    body = {"query": {"id": ids[0]}, "k": 4}
    answer = http.post(f"{LAND}/search", params={"format": "geojson"}, json=body)
    assert answer.headers["content-type"] == "application/geo+json"
    collection = answer.json()
    hits = world.land.search(ById(ids[0]), 4)
    assert collection["type"] == "FeatureCollection"
    assert [f["id"] for f in collection["features"]] == [hit.id for hit in hits]
    for feature, hit in zip(collection["features"], hits, strict=True):
        assert feature["type"] == "Feature"
        assert feature["geometry"] == json.loads(json.dumps(hit.footprint))
        assert feature["properties"]["score"] == hit.score
        assert feature["properties"]["folder"] == hit.properties["folder"]
