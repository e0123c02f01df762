"""Scale and offset of STAC items: the same ground has the same values whatever its offset."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from rsir.archive import Archive, ByWindow
from rsir.errors import UsageError
from rsir.scenes.scene import Scene
from rsir.scenes.stretch import Stretch
from rsir.scenes.tiles import tiles_of
from rsir.scenes.tiling import Tiling
from rsir.sources.find import source
from rsir.web.service.scenes import SceneStyle, tile
from tests.support.colour_encoder import ColourEncoder

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

RANGE = Tiling(size=64, stretch=Stretch.parse("range:0,0.3"))
BANDS = ("B04", "B03", "B02")
NAMES = ("red", "green", "blue")


def reflectance() -> np.ndarray:
    random = np.random.default_rng(5)
    return random.integers(100, 2900, (3, 64, 64)) / 10_000


def write_item(folder: Path, offset: float, form: str = "raster:bands", *, nodata: int = 0) -> Path:
    """An item of three files whose samples are (reflectance − offset) / 0.0001; 16 bits."""
    folder.mkdir()
    assets: dict[str, Any] = {}
    samples = np.rint((reflectance() - offset) / 1e-4).astype(np.uint16)
    samples[:, :8, :8] = nodata
    for name, common, band in zip(BANDS, NAMES, samples, strict=True):
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", count=1, width=64, height=64,
            dtype="uint16", nodata=nodata, crs="EPSG:3857", transform=Affine(10, 0, 0, 0, -10, 640),
        ) as dataset:  # fmt: skip
            dataset.write(band, 1)
        about = {"name": name, "eo:common_name": common, "common_name": common}
        assets[name] = {"href": f"{name}.tif", "type": "image/tiff", "roles": ["data"]} | {
            "raster:bands": {
                "eo:bands": [about], "raster:bands": [{"scale": 1e-4, "offset": offset}],
            },
            "bands": {"bands": [about | {"raster:scale": 1e-4, "raster:offset": offset}]},
            "asset": {"bands": [about], "raster:scale": 1e-4, "raster:offset": offset},
            "nothing": {"eo:bands": [about]},
            "damaged": {"eo:bands": [about], "raster:bands": [{"scale": "x", "offset": None}]},
        }[form]  # fmt: skip
    document = {
        "type": "Feature", "stac_version": "1.0.0", "id": folder.name, "geometry": None,
        "properties": {"datetime": "2023-06-01T10:20:30Z"}, "links": [], "assets": assets,
    }  # fmt: skip
    path = folder / "item.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("form", ["raster:bands", "bands", "asset"])
def test_two_baselines_give_the_same_values(tmp_path: Path, form: str) -> None:
    before = write_item(tmp_path / "before", 0.0, form)
    after = write_item(tmp_path / "after", -0.1, form)
    pixels = {}
    for path in (before, after):
        with Scene.open(path) as scene:
            read, valid = scene.read()
            assert scene.dtype == np.float32
            np.testing.assert_allclose(read[:, valid], reflectance()[:, valid], atol=1e-6)
            assert not valid[:8, :8].any()
            assert valid.sum() == 64 * 64 - 64
        (one,) = tiles_of(path, RANGE)
        pixels[path] = one.pixels
        assert one.properties["stretch"] == "range:0,0.3,0,0.3,0,0.3"
    np.testing.assert_array_equal(pixels[before], pixels[after])
    wanted = np.rint(reflectance() / 0.3 * 255)
    wanted[:, :8, :8] = 0
    assert np.abs(pixels[before] - wanted).max() <= 1


@pytest.mark.slow
def test_thumbnails_windows_and_map_tiles_are_in_the_same_units(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    paths = [write_item(tmp_path / name, offset) for name, offset in (("a", 0.0), ("b", -0.1))]
    archive.add(paths, tiling=RANGE)
    first, second = archive.records()
    np.testing.assert_array_equal(archive.thumbnail(first.id, 64), archive.thumbnail(second.id, 64))
    parts = [archive.pixels(ByWindow(r.source, window=(8, 8, 40, 40))) for r in (first, second)]
    np.testing.assert_array_equal(*parts)
    assert np.abs(parts[0] - np.rint(reflectance()[:, 8:48, 8:48] / 0.3 * 255)).max() <= 1
    shown = []
    for record in (first, second):
        with Image.open(io.BytesIO(tile(SceneStyle.of(record), 14, 8192, 8191, "png"))) as picture:
            shown.append(np.asarray(picture))
    np.testing.assert_array_equal(*shown)
    assert (shown[0][..., 3] == 255).any()
    assert shown[0][..., :3].max() > 200


def test_what_an_asset_states_holds_for_all_its_bands(tmp_path: Path) -> None:
    samples = np.rint((reflectance() + 0.1) / 1e-4).astype(np.uint16)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=3, width=64, height=64, dtype="uint16",
        photometric="RGB", crs="EPSG:3857", transform=Affine(10, 0, 0, 0, -10, 640),
    ) as dataset:  # fmt: skip
        dataset.write(samples)
    for number, stated in enumerate(
        ({"raster:scale": 1e-4, "raster:offset": -0.1},
         {"raster:bands": [{"scale": 1e-4, "offset": -0.1}] * 3})
    ):  # fmt: skip
        asset = {"href": "a.tif", "type": "image/tiff", "roles": ["data"]} | stated
        document = {
            "type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None,
            "properties": {"datetime": "2023-06-01T10:20:30Z"}, "links": [],
            "assets": {"image": asset},
        }  # fmt: skip
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(document))
        with Scene.open(path) as scene:
            np.testing.assert_allclose(scene.read()[0], reflectance(), atol=1e-6)


@pytest.mark.parametrize(
    "bands",
    ["x", {"a": 1}, ["x", 3], [[]], [{"scale": 0}], [{"scale": True}], [{"offset": 10**400}]],
)
def test_nonsense_in_an_item_is_no_unit(tmp_path: Path, bands: object) -> None:
    path = write_item(tmp_path / "a", 0.0, "nothing")
    document = json.loads(path.read_text())
    for asset in document["assets"].values():
        asset["raster:bands"] = bands
    path.write_text(json.dumps(document))
    assert all(asset.units == () for asset in source(path).assets)


def test_automatic_stretches_do_not_depend_on_units(tmp_path: Path) -> None:
    tiling = Tiling(size=64)
    pixels = []
    for form in ("raster:bands", "nothing"):
        (one,) = tiles_of(write_item(tmp_path / form.replace(":", ""), 0.0, form), tiling)
        pixels.append(one.pixels.astype(int))
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_a_range_in_other_units_is_refused(tmp_path: Path) -> None:
    path = write_item(tmp_path / "a", -0.1)
    with pytest.raises(UsageError, match=r"states scale and offset.* up to 0\.2\d+; give"):
        list(tiles_of(path, Tiling(size=64, stretch=Stretch.parse("range:0,3000"))))
    for text in ("range:0,1", "range:0.1,0.2", "range:0,0.05", "range:-1,1", "range:0,20"):
        assert list(tiles_of(path, Tiling(size=64, stretch=Stretch.parse(text))))


def test_nothing_stated_and_nonsense_leave_the_samples(tmp_path: Path) -> None:
    for form in ("nothing", "damaged"):
        path = write_item(tmp_path / form, 0.0, form)
        assert all(asset.units == () for asset in source(path).assets)
        with Scene.open(path) as scene:
            assert scene.dtype == np.uint16
            assert not scene.has_units
