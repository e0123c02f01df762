"""`is_picture`: the one decision between pictures and scenes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image
from rasterio.enums import ColorInterp

from rsir.errors import DataError, ImageError, MissingExtraError
from rsir.scenes import chips
from rsir.scenes.chips import is_picture
from rsir.scenes.stretch import Stretch
from rsir.scenes.tiles import tiles_of
from rsir.scenes.tiling import Tiling
from rsir.sources.find import source
from rsir.sources.source import Asset, Source

NO_CRS = {"crs": None, "transform": None}


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(1, 250, shape).astype(dtype)


def test_by_size(write, monkeypatch):
    path = source(write(noise(3, 30, 40), "a.tif", **NO_CRS))
    assert is_picture(path)
    assert is_picture(path, Tiling(size=40))
    assert not is_picture(path, Tiling(size=39))
    monkeypatch.setattr(chips, "WHOLE_PIXELS", 30 * 40 - 1)
    assert not is_picture(path)
    assert is_picture(path, Tiling(size=40))


@pytest.mark.parametrize(
    "change",
    [{"bands": ("1", "2", "3")}, {"stretch": Stretch("percentile", (2, 98))}, {"edges": "pad"},
     {"unit": "metres"}, {"gsd": 10.0}, {"cloud_mask": "{folder}/{stem}_mask.tif"}],
)  # fmt: skip
def test_a_tiling_that_only_a_scene_can_satisfy(write, change):
    assert not is_picture(source(write(noise(3, 30, 40), **NO_CRS)), Tiling(size=40, **change))


@pytest.mark.parametrize(
    ("pixels", "picture"),
    [(noise(1, 30, 40), True), (noise(3, 30, 40), False), (noise(2, 30, 40), False),
     (noise(4, 30, 40), False), (noise(3, 30, 40, dtype=np.uint16), False)],
)  # fmt: skip
def test_tiffs_by_bands_and_depth(write, pixels, picture):
    path = source(write(pixels, photometric="minisblack", **NO_CRS))
    assert is_picture(path) == picture
    assert is_picture(path, Tiling(size=40)) == picture


def test_a_tiff_with_a_fourth_band_is_cut_as_a_scene(write):
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
    pixels = noise(4, 30, 40)
    path = write(pixels, edit=lambda d: setattr(d, "colorinterp", colours), **NO_CRS)
    (tile,) = tiles_of(path, Tiling(size=40))
    assert (tile.pixels == pixels[:3]).all()


def test_a_georeferenced_tiff_is_a_picture_only_if_the_user_names_no_tiling(write):
    path = source(write(noise(3, 30, 40)))
    assert is_picture(path)
    assert not is_picture(path, Tiling(size=40))


def test_pictures_of_all_formats(tmp_path):
    for suffix in (".png", ".jpg", ".webp"):
        path = tmp_path / f"a{suffix}"
        Image.fromarray(noise(30, 40, 3)).save(path)
        assert is_picture(source(path))
        assert is_picture(source(path), Tiling(size=40))


def test_remote_files_and_stac_items_are_scenes():
    assert not is_picture(Source("s3://bucket/a.png", (Asset("s3://bucket/a.png"),)))
    assert not is_picture(Source("/data/item.json", (Asset("/data/a.png", "visual"),)))


def test_files_that_gdal_cannot_open(tmp_path):
    """Without a tiling, `read_tile` says what is wrong with a picture."""
    for name, picture in (("a.png", True), ("a.jp2", False)):
        path = tmp_path / name
        path.write_bytes(b"no image")
        assert is_picture(source(path)) == picture
        with pytest.raises(ImageError, match="not an image of a known format"):
            is_picture(source(path), Tiling())
    gone = source(path)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        is_picture(gone, Tiling())


def test_without_rasterio(write, tmp_path, monkeypatch):
    """Only a small picture without a place needs no GDAL; any other file says so."""
    path, placed, large = tmp_path / "a.png", write(noise(3, 30, 40), "b.tif"), tmp_path / "c.png"
    Image.fromarray(noise(30, 40, 3)).save(path)
    Image.new("RGB", (1025, 1024)).save(large)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rasterio"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert is_picture(source(path))
    with pytest.raises(MissingExtraError, match="geo"):
        is_picture(source(path), Tiling())
    for file in (placed, large):
        with pytest.raises(MissingExtraError, match=rf"{file.name}: .*rsir\[geo\]"):
            is_picture(source(file))
