"""Items, thumbnails, scenes and map tiles by REST."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from fastapi import FastAPI
from PIL import Image
from rasterio.warp import transform
from starlette.testclient import TestClient

from rsir.scenes.stretch import Stretch
from rsir.store.filters.filter import Filter
from rsir.web.app import create_app
from rsir.web.service import scenes
from rsir.web.service.scenes import scene_id
from tests.web.served import World, png, problem

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
"""From affine 3, caused by rasterio 1.4."""

LAND = "/api/archives/land"


@pytest.mark.slow
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
    new = app.state.service.metrics.thumbnails.labels("new")
    cached = app.state.service.metrics.thumbnails.labels("cached")
    before = new._value.get(), cached._value.get()
    answers = [http.get(f"{LAND}/items/{ids[1]}/thumbnail", params={"size": 60}) for _ in "abc"]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].headers["content-type"] == "image/jpeg"
    assert "immutable" in answers[0].headers["cache-control"]
    assert (new._value.get(), cached._value.get()) == (before[0] + 1, before[1] + 2)
    with Image.open(io.BytesIO(answers[0].content)) as picture:
        assert max(picture.size) == 60
    problem(http.get(f"{LAND}/items/nothing/thumbnail"), 404, "unknown-id")
    for size in (0, 15, 5000, "x"):
        answer = http.get(f"{LAND}/items/{ids[1]}/thumbnail", params={"size": size})
        problem(answer, 422, "usage")


@pytest.mark.slow
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
    assert about["tiles"] == [f"http://testserver{LAND}/scenes/{scene}/tiles/{{z}}/{{x}}/{{y}}.png"]
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


def test_map_tiles_outside_the_scene_are_transparent(http: TestClient, world: World) -> None:
    for z, x, y in ((13, 0, 0), (0, 0, 0), (3, 7, 7)):
        answer = http.get(address(scene_id(str(world.scene)), z, x, y))
        assert answer.status_code == 200
        with Image.open(io.BytesIO(answer.content)) as picture:
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        assert alpha.shape == (256, 256)
        assert alpha.mean() < 1
        assert (z, x, y) == (0, 0, 0) or not alpha.any()


def test_map_tiles_that_do_not_exist(http: TestClient, world: World) -> None:
    scene = scene_id(str(world.scene))
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


@pytest.mark.parametrize("kind", ["palette", "miniswhite"])
def test_map_tiles_have_the_colours_that_a_viewer_shows(tmp_path: Path, kind: str) -> None:
    """Compare a map tile of one colour with that colour, of a palette and of white as 0."""
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, width=600, height=600, dtype="uint8", tiled=True,
        photometric=kind, crs="EPSG:3857", transform=Affine(10, 0, 0, 0, -10, 6000),
    ) as dataset:  # fmt: skip
        dataset.write(np.full((1, 600, 600), 3, np.uint8))
        if kind == "palette":
            dataset.write_colormap(1, {3: (200, 30, 90, 255), 200: (1, 2, 3, 255)})
    wanted = (200, 30, 90) if kind == "palette" else (252, 252, 252)
    style = scenes.SceneStyle(str(path), None, Stretch("none"))
    (west, south, east, north), _, zoom = scenes.extent_and_zooms(style)
    middle = tile_of((west + east) / 2, (south + north) / 2, zoom)
    picture = np.asarray(Image.open(io.BytesIO(scenes.tile(style, zoom, *middle, "png"))))
    shown = picture[picture[..., 3] == 255][:, :3]
    assert len(shown)
    assert (shown == wanted).all()


def tile_of(longitude: float, latitude: float, zoom: int) -> tuple[int, int]:
    """The XYZ tile of a place in Web Mercator."""
    side = 2**zoom
    y = math.asinh(math.tan(math.radians(latitude)))
    return int((longitude / 360 + 0.5) * side), int((0.5 - y / (2 * math.pi)) * side)
