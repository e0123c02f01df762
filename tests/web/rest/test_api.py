"""The REST interface returns what the archive returns."""

from __future__ import annotations

import io
import json
import math
import time
from typing import Any

import numpy as np
import pytest
import rasterio
from fastapi import FastAPI
from PIL import Image
from rasterio.warp import transform
from starlette.testclient import TestClient

from rsir.archive.search.hits import Hits
from rsir.archive.search.query import ById, ByWindow, Examples
from rsir.images.read import read_pixels
from rsir.store.filters.filter import Filter
from rsir.web.app import create_app
from rsir.web.problems import KINDS
from rsir.web.service.scenes import scene_id
from tests.web.served import World, png, problem, search, settings, upload

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


@pytest.fixture(scope="module")
def ids(world: World) -> list[str]:
    return [record.id for record in world.land.records()]


# Searches


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
    asked = Examples([ById(ids[4]), files[1]], [files[2]], files[0])
    same(answer.json(), world.land.search(asked, 3))


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


# Items, thumbnails, scenes


def test_items_by_page(http: TestClient, world: World, ids: list[str]) -> None:
    first = http.get(f"{LAND}/items", params={"limit": 9}).json()
    assert first["total"] == len(ids)
    found = [item["id"] for item in first["items"]]
    after = first["next"]
    while after:
        page = http.get(f"{LAND}/items", params={"limit": 9, "after": after}).json()
        found += [item["id"] for item in page["items"]]
        after = page["next"]
    assert found == ids
    rest = http.get(f"{LAND}/items", params={"offset": 9, "limit": 1000}).json()["items"]
    assert [item["id"] for item in rest] == ids[9:]
    narrowed = http.get(
        f"{LAND}/items", params={"where": "folder = 'forest' OR folder = 'water'", "after": ids[5]}
    ).json()
    records = world.land.records(Filter(where="folder = 'forest' OR folder = 'water'"))
    assert [item["id"] for item in narrowed["items"]] == [r.id for r in records if r.id > ids[5]]
    shapes = http.get(f"{LAND}/items", params={"format": "geojson"})
    assert shapes.headers["content-type"] == "application/geo+json"
    assert [f["id"] for f in shapes.json()["features"]] == ids


@pytest.mark.parametrize(
    ("datetime", "expected"),
    [
        ("2020-01-01/..", {"start": "2020-01-01"}),
        ("../2020-01-01T00:00:00Z", {"end": "2020-01-01T00:00:00+00:00"}),
        ("2000-01-01/2030-01-01", {"start": "2000-01-01", "end": "2030-01-01T23:59:59.999999"}),
        ("2024", {"start": "2024-01-01", "end": "2024-12-31T23:59:59.999999"}),
    ],
)
def test_intervals_of_time(
    http: TestClient, world: World, datetime: str, expected: dict[str, str]
) -> None:
    from datetime import datetime as time

    filter = Filter(**{name: time.fromisoformat(text) for name, text in expected.items()})
    listed = http.get(f"{LAND}/items", params={"datetime": datetime, "limit": 1000}).json()
    assert [i["id"] for i in listed["items"]] == [r.id for r in world.land.records(filter)]


@pytest.mark.parametrize(
    "parameters",
    [
        {"bbox": "1,2,3"},
        {"bbox": "a,b,c,d"},
        {"bbox": "nan,0,1,1"},
        {"datetime": "yesterday"},
        {"datetime": ""},
        {"datetime": "../.."},
        {"classes": ""},
        {"where": ""},
        {"bbox": ""},
        {"where": "folder = "},
        {"geometry": "{"},
        {"geometry": '{"type": "Point", "coordinates": [1, 2]}'},
        {"limit": 0},
        {"offset": -1},
        {"format": "xml"},
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    http: TestClient, parameters: dict[str, Any]
) -> None:
    problem(http.get(f"{LAND}/items", params=parameters), 422, "usage")


def test_one_item(http: TestClient, world: World, ids: list[str]) -> None:
    (record,) = world.land.get([ids[0]])
    item = http.get(f"{LAND}/items/{ids[0]}").json()
    assert (item["id"], item["source"], item["content"]) == (ids[0], record.source, record.content)
    assert (item["size"], item["mtime_ns"]) == (record.size, record.mtime_ns)
    problem(http.get(f"{LAND}/items/nothing"), 404, "unknown-id")
    some = http.post(f"{LAND}/items/get", json={"ids": ids[:2], "vectors": True}).json()["items"]
    np.testing.assert_array_equal(
        np.array([item["vector"] for item in some], np.float32), world.land.vectors(ids[:2])
    )
    problem(http.post(f"{LAND}/items/get", json={"ids": ["nothing"]}), 404, "unknown-id")


def test_a_thumbnail_is_made_once(http: TestClient, app: FastAPI, ids: list[str]) -> None:
    made = app.state.service.metrics.thumbnails.labels("made")
    kept = app.state.service.metrics.thumbnails.labels("kept")
    before = made._value.get(), kept._value.get()
    answers = [http.get(f"{LAND}/items/{ids[1]}/thumbnail", params={"size": 60}) for _ in "abc"]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].headers["content-type"] == "image/jpeg"
    assert "immutable" in answers[0].headers["cache-control"]
    assert (made._value.get(), kept._value.get()) == (before[0] + 1, before[1] + 2)
    with Image.open(io.BytesIO(answers[0].content)) as picture:
        assert max(picture.size) == 60
    problem(http.get(f"{LAND}/items/nothing/thumbnail"), 404, "unknown-id")
    for size in (0, 15, 5000, "x"):
        answer = http.get(f"{LAND}/items/{ids[1]}/thumbnail", params={"size": size})
        problem(answer, 422, "usage")


def test_a_thumbnail_shows_the_item(http: TestClient, world: World) -> None:
    for record in world.land.records():
        answer = http.get(f"{LAND}/items/{record.id}/thumbnail", params={"size": 64})
        with Image.open(io.BytesIO(answer.content)) as picture:
            shown = np.asarray(picture.convert("RGB"), np.float64).transpose(2, 0, 1)
        expected = world.land.thumbnail(record.id, 64).astype(np.float64)
        assert np.abs(shown - expected).mean() < 12  # JPEG


def test_scenes(http: TestClient, world: World) -> None:
    response = http.get(f"{LAND}/scenes").json()
    local = world.land.sources()
    assert response["total"] == len(local)
    assert [(s["source"], s["tiles"], s["tiled"]) for s in response["scenes"]] == [
        (s.source, s.tiles, s.tiled) for s in local
    ]
    page = http.get(f"{LAND}/scenes", params={"offset": 2, "limit": 3}).json()["scenes"]
    assert page == response["scenes"][2:5]


def address(scene: str, z: int, x: int, y: int, format: str = "png") -> str:
    return f"{LAND}/scenes/{scene}/tiles/{z}/{x}/{y}.{format}"


@pytest.mark.parametrize("format", ["png", "webp"])
def test_map_tiles_show_the_scene_where_it_lies(
    http: TestClient, world: World, format: str
) -> None:
    """Compare map tiles with the scene's pixels at the projected middle of each of its blocks."""
    scene = scene_id(str(world.scene))
    about = http.get(f"{LAND}/scenes/{scene}").json()
    assert about["tilejson"] == "3.0.0"
    assert about["tiles"] == [f"{LAND}/scenes/{scene}/tiles/{{z}}/{{x}}/{{y}}.png"]
    z = about["maxzoom"]
    record = next(r for r in world.land.records() if r.source == str(world.scene))
    low_high = np.array(record.properties["stretch"].split(":")[1].split(","), float).reshape(3, 2)
    pictures: dict[tuple[int, int], np.ndarray] = {}
    compared = 0
    with rasterio.open(world.scene) as dataset:
        pixels = dataset.read().astype(float)
        for row in range(50, 500, 100):
            for column in range(50, 600, 100):
                x, y = dataset.xy(row, column)
                (lon,), (lat,) = transform("EPSG:32633", "EPSG:4326", [x], [y])
                across = (lon + 180) / 360 * 2**z
                down = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2 * 2**z
                tile = int(across), int(down)
                if tile not in pictures:
                    answer = http.get(address(scene, z, *tile, format))
                    assert answer.headers["content-type"] == f"image/{format}"
                    with Image.open(io.BytesIO(answer.content)) as picture:
                        pictures[tile] = np.asarray(picture.convert("RGBA"))
                shown = pictures[tile][int(down % 1 * 256), int(across % 1 * 256)]
                low, high = low_high.T
                expected = (255 * (pixels[:, row, column] - low) / (high - low)).clip(0, 255)
                assert shown[3] == 255
                assert np.abs(shown[:3] - expected).max() < (3 if format == "png" else 40)
                compared += 1
    assert compared == 30
    # The parts of map tiles outside the scene are transparent.
    assert {0, 255} == set(np.unique([picture[..., 3] for picture in pictures.values()]))


def test_map_tiles_that_do_not_exist(http: TestClient, world: World) -> None:
    scene = scene_id(str(world.scene))
    problem(http.get(address(scene, 13, 0, 0)), 404, "not-found")
    problem(http.get(address(scene, 3, 99, 0)), 404, "not-found")
    problem(http.get(address("0" * 16, 3, 0, 0)), 404, "not-found")
    problem(http.get(address(scene, 3, 0, 0, "gif")), 422, "usage")
    problem(http.get(address(scene, 99, 0, 0)), 422, "usage")


def test_a_picture_without_georeference_has_no_tiles(world: World, tmp_path: Any) -> None:
    from rsir.archive import Archive
    from tests.support.colour_encoder import ColourEncoder

    file = tmp_path / "plain.png"
    file.write_bytes(png(np.full((20, 20, 3), 99, np.uint8)))
    archive = Archive.create(tmp_path / "plain", ColourEncoder())
    archive.add(file)
    with TestClient(create_app({"plain": archive}, page=False)) as http:
        answer = http.get(f"/api/archives/plain/scenes/{scene_id(str(file))}")
        assert "georeference" in problem(answer, 404, "not-found")["detail"]


# The service itself


def test_the_archives_and_their_description(http: TestClient, world: World) -> None:
    archives = {entry["name"]: entry for entry in http.get("/api/archives").json()["archives"]}
    assert sorted(archives) == ["codes", "land"]
    for name, archive in (("land", world.land), ("codes", world.codes)):
        info = archive.info()
        for key in ("count", "metric", "dimension", "bands", "model", "version", "created"):
            assert archives[name][key] == info[key], key
        assert http.get(f"/api/archives/{name}").json() == archives[name]
    assert "path" not in archives["land"]
    problem(http.get("/api/archives/nothing"), 404, "not-found")


def test_the_service_becomes_ready(world: World) -> None:
    app = create_app({"land": world.land}, settings(world), page=False)
    with TestClient(app) as http:
        assert http.get("/health").json()["status"] == "ok"
        for _ in range(100):
            answer = http.get("/ready")
            if answer.status_code == 200:
                break
            assert answer.status_code == 503
            time.sleep(0.05)
        assert answer.json() == {"ready": True, "waiting_for": {}}
        assert http.get(LAND).json()["ready"] is True


def test_an_archive_whose_model_is_damaged_is_never_ready(world: World, tmp_path: Any) -> None:
    import shutil

    from rsir.archive import Archive

    shutil.copytree(world.land.path, tmp_path / "damaged")
    damaged = Archive.open(tmp_path / "damaged")  # the folder of its model holds no model of rsir
    app = create_app({"damaged": damaged, "land": world.land}, page=False)
    with TestClient(app) as http:
        for _ in range(1200):  # loading torch takes some time
            waiting = http.get("/ready").json()["waiting_for"]
            if "land" not in waiting and waiting.get("damaged") != "is being opened":
                break
            time.sleep(0.05)
        assert list(waiting) == ["damaged"]
        assert http.get("/ready").status_code == 503
        # Searches without the model still work; others say why they fail.
        record = next(damaged.records())
        search(http, "damaged", query={"id": record.id}, k=1)
        problem(upload(http, png(np.zeros((9, 9, 3), np.uint8)), archive="damaged"), 503, "model")


def test_metrics(http: TestClient, ids: list[str]) -> None:
    def value(name: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)

    searches = 'rsir_searches_total{archive="land",kind="searching"}'
    route = 'rsir_requests_total{method="POST",route="/api/archives/{name}/search",status="200"}'
    before, before_route = value(searches), value(route)
    search(http, query={"id": ids[0]})
    assert value(searches) == before + 1
    assert value(route) == before_route + 1
    assert value('rsir_search_seconds_count{archive="land",kind="searching"}') == before + 1
    assert value('rsir_ready{archive="codes"}') == 1
    assert http.get("/metrics").headers["content-type"].startswith("text/plain")


def test_unknown_addresses_and_methods(http: TestClient) -> None:
    for method, path, status in (
        ("GET", "/api/nothing", 404),
        ("GET", "/nothing", 404),
        ("POST", "/api/archives", 405),
        ("PUT", f"{LAND}/search", 405),
    ):
        answer = http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
    assert http.put(f"{LAND}/search").headers["allow"] == "POST"
    assert http.put(f"{LAND}/items/x").headers["allow"] == "DELETE, GET"


def test_every_problem_has_a_page_and_one_status(http: TestClient) -> None:
    listed = http.get("/problems").json()
    assert [(p["type"], p["status"]) for p in listed] == [
        (f"/problems/{kind.name}", kind.status) for kind in KINDS
    ]
    for entry in listed:
        assert http.get(entry["type"]).json() == entry
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    problem(http.get("/problems/none"), 404, "not-found")


def test_openapi_describes_every_response(http: TestClient, app: FastAPI) -> None:
    described = http.get("/openapi.json").json()
    assert described == app.openapi()
    operations = [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 20
    for path, method, operation in operations:
        success = next(status for status in operation["responses"] if status.startswith("2"))
        content = operation["responses"][success].get("content", {})
        assert content or success == "204", (method, path)
        for kind, body in content.items():
            if kind == "application/json":
                assert body["schema"], (method, path)
        for status, answer in operation["responses"].items():
            if path.startswith("/api") and not status.startswith("2"):
                assert "application/problem+json" in answer["content"], (method, path, status)
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(set(names)) == len(names)


def test_the_documentation_needs_no_other_host(http: TestClient, app: FastAPI) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text
    for path in app.openapi()["paths"]:
        assert path in page.text.replace("&#39;", "'")


def test_security_headers(http: TestClient) -> None:
    for path in ("/health", "/api/archives", "/api/nothing", "/docs", "/metrics"):
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-request-id"]
        assert "server" not in headers
    assert (
        http.get("/api/archives")
        .headers["content-security-policy"]
        .startswith("default-src 'none'")
    )


def test_request_ids(http: TestClient) -> None:
    assert (
        http.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    )
    for invalid in ("a b", "x" * 65, "<script>", ""):
        given = http.get("/health", headers={"x-request-id": invalid}).headers["x-request-id"]
        assert given != invalid
        assert len(given) == 32
