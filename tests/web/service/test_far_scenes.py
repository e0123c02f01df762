"""Scenes over the antimeridian, at the poles, beyond 180°, and of the whole globe.

REST, TileJSON, STAC and the page say of each where it lies, and map tiles show it there.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pyproj import Transformer
from shapely.geometry import Point, Polygon, shape
from starlette.testclient import TestClient

from rsir.archive import Archive
from rsir.archive.exchange.export import export
from rsir.geo.antimeridian import bbox
from rsir.web.app import create_app
from rsir.web.page.overview import overview
from rsir.web.service.scenes import scene_id
from rsir.web.service.service import Service
from tests.support.colour_encoder import ColourEncoder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
]


@dataclass(frozen=True)
class Scene:
    """bounds: what REST says; west > east across the antimeridian."""

    crs: str
    transform: Affine
    size: tuple[int, int]
    bounds: tuple[float, float, float, float]


def degrees(step: float, west: float, north: float) -> Affine:
    return Affine(step, 0, west, 0, -step, north)


SCENES = {
    "beyond": Scene("EPSG:4326", degrees(0.02, 170, 10), (1100, 1100), (170, -12, -168, 10)),
    "before": Scene("EPSG:4326", degrees(0.02, -190, 10), (1100, 1100), (170, -12, -168, 10)),
    "turned": Scene("EPSG:4326", degrees(0.02, 350, 10), (1100, 1100), (-10, -12, 12, 10)),
    "pacific": Scene(
        "EPSG:3832", Affine(2000, 0, 2.5e6, 0, -2000, 1.1e6), (1100, 1100),
        (172.457882, -9.897804, -167.779182, 9.897804),
    ),
    "zone60": Scene(
        "EPSG:32660", Affine(100, 0, 600_000, 0, -100, 7_000_000), (1200, 1200),
        (178.912, 61.988, -178.645, 63.115),
    ),
    "mercator": Scene(
        "EPSG:3857", Affine(2000, 0, 19.5e6, 0, -2000, 1e6), (1100, 1000),
        (175.172069, -8.946573, -165.065448, 8.946573),
    ),
    "globe360": Scene("EPSG:4326", degrees(0.25, 0, 90), (1440, 720), (-180, -90, 180, 90)),
    "globe180": Scene("EPSG:4326", degrees(10, -180, 90), (36, 18), (-180, -90, 180, 90)),
    "antarctic": Scene(
        "EPSG:3031", Affine(2000, 0, -1.1e6, 0, -2000, 1.1e6), (1100, 1100),
        (-180, -90, 180, -75.753359),
    ),
    "arctic": Scene(
        "EPSG:3413", Affine(500, 0, -1.975e6, 0, -500, 1.975e6), (1100, 1100),
        (170.811, 64.623, -170.811, 71.551),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Far:
    paths: dict[str, Path]
    archive: Archive
    http: TestClient


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("far")
    paths = {}
    for name, scene in SCENES.items():
        width, height = scene.size
        rows, columns = np.mgrid[:height, :width]
        pixels = np.stack([columns * 200 // width + 20, rows * 200 // height + 20, rows * 0 + 90])
        paths[name] = folder / f"{name}.tif"
        with rasterio.open(
            paths[name], "w", driver="GTiff", count=3, dtype="uint8", width=width, height=height,
            crs=scene.crs, transform=scene.transform, photometric="RGB",
        ) as dataset:  # fmt: skip
            dataset.write(pixels.astype(np.uint8))
            dataset.update_tags(TIFFTAG_DATETIME="2024:05:06 07:08:09")
    archive = Archive.create(folder / "archive", ColourEncoder())
    archive.add(list(paths.values()))
    with TestClient(create_app({"far": archive}, page=False)) as http:
        yield Far(paths, archive, http)


def of_rest(far: Far, name: str) -> dict[str, Any]:
    scenes = far.http.get("/api/archives/far/scenes").json()["scenes"]
    found: dict[str, Any] = next(s for s in scenes if s["source"] == str(far.paths[name]))
    return found


@pytest.mark.parametrize("name", SCENES)
def test_all_boxes_agree(far: Far, name: str, tmp_path: Path) -> None:
    wanted = SCENES[name].bounds
    # REST, and Python.
    assert of_rest(far, name)["bounds"] == pytest.approx(wanted, abs=2e-2)
    (source,) = (s for s in far.archive.sources() if s.source == str(far.paths[name]))
    assert source.bounds == pytest.approx(wanted, abs=2e-2)
    # TileJSON 3.0: "Bounds MUST NOT wrap around the ante-meridian".
    west, south, east, north = wanted
    unwrapped = wanted if west < east else (-180, south, 180, north)
    about = far.http.get(f"/api/archives/far/scenes/{scene_id(source.source)}").json()
    assert about["bounds"] == pytest.approx(unwrapped, abs=2e-2)
    # STAC: the box around the items is that of the scene.
    records = [r for r in far.archive.records() if r.source == source.source]
    export(far.archive, tmp_path / "items.json", records, format="stac")
    items = json.loads((tmp_path / "items.json").read_text())["features"]
    assert len(items) == len(records)
    assert bbox(np.array([item["bbox"] for item in items])) == pytest.approx(source.bounds)
    # The page: the outline lies in the box, and a rectangle in the box belongs to the scene.
    shown = overview(far.archive, Service({"far": far.archive}).scenes["far"])
    outline = shown.scenes[scene_id(source.source)]
    assert outline.bounds == source.bounds
    left, _, right, _ = Polygon(outline.ring).bounds
    assert (left, right) == pytest.approx((west, east if west < east else east + 360), abs=2e-2)


def places(scene: Scene) -> list[tuple[int, int, float, float]]:
    """(column, row, longitude, latitude) of some pixels' middles that Web Mercator shows."""
    back = Transformer.from_crs(scene.crs, "EPSG:4326", always_xy=True)
    width, height = scene.size
    found = []
    for column in np.linspace(0.04 * width, 0.96 * width, 9).astype(int).tolist():
        for row in np.linspace(0.1 * height, 0.9 * height, 5).astype(int).tolist():
            a, b, c, d, e, f = scene.transform[:6]
            x, y = a * (column + 0.5) + b * row + c, d * column + e * (row + 0.5) + f
            lon, lat = back.transform(x, y)
            if abs(lat) < 84:
                found.append((column, row, (lon + 180) % 360 - 180, lat))
    return found


@pytest.mark.parametrize("name", SCENES)
def test_map_tiles_show_each_pixel_where_it_lies(far: Far, name: str) -> None:
    scene = SCENES[name]
    address = f"/api/archives/far/scenes/{scene_id(str(far.paths[name]))}"
    about = far.http.get(address).json()
    z = about["maxzoom"]
    width, height = scene.size
    pictures: dict[tuple[int, int], np.ndarray] = {}
    compared = 0
    for column, row, lon, lat in places(scene):
        across = (lon + 180) / 360 * 2**z
        down = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * 2**z
        tile = int(across), int(down)
        if tile not in pictures:
            answer = far.http.get(f"{address}/tiles/{z}/{tile[0]}/{tile[1]}.png")
            assert answer.status_code == 200
            with Image.open(io.BytesIO(answer.content)) as picture:
                pictures[tile] = np.asarray(picture.convert("RGBA")).astype(int)
        shown = pictures[tile][int(down % 1 * 256), int(across % 1 * 256)]
        assert shown[3] == 255, (column, row, lon, lat)
        wanted = [column * 200 // width + 20, row * 200 // height + 20, 90]
        # A pixel of a coarse grid is large, and shown smoothly.
        near = 2 + 200 / min(width, height)
        assert np.abs(shown[:3] - wanted).max() <= near, (column, row, lon, lat)
        compared += 1
    assert compared >= 20
    if scene.bounds[0] > scene.bounds[2]:
        assert {x < 2**z / 2 for x, _ in pictures} == {True, False}


@pytest.mark.parametrize("name", SCENES)
def test_a_box_finds_the_scene_on_both_sides(far: Far, name: str) -> None:
    for *_, lon, lat in places(SCENES[name])[::7]:
        around = (max(-180, lon - 0.01), lat - 0.01, min(180, lon + 0.01), lat + 0.01)
        params = {"bbox": ",".join(map(str, around)), "limit": 1000}
        items = far.http.get("/api/archives/far/items", params=params).json()["items"]
        assert str(far.paths[name]) in {item["source"] for item in items}
        over = [i["footprint"] for i in items if i["source"] == str(far.paths[name])]
        assert any(shape(footprint).buffer(1e-6).covers(Point(lon, lat)) for footprint in over)
