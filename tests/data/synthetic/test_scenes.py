"""Generated scenes: repeatable, varied, not recognisable by colour alone, and georeferenced."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from rsir.data.synthetic import scenes
from rsir.data.synthetic.scenes import GSD, LAND_USES, draw, write_mosaic, write_scenes
from rsir.errors import UsageError
from rsir.images.read import read_tile


@pytest.mark.parametrize("land_use", LAND_USES)
def test_same_arguments_same_chip_other_seed_other_chip(land_use):
    chip = draw(land_use, size=48, seed=5)
    assert chip.dtype == np.uint8
    assert chip.shape == (3, 48, 48)
    assert chip.flags.c_contiguous
    np.testing.assert_array_equal(chip, draw(land_use, size=48, seed=5))
    assert (chip != draw(land_use, size=48, seed=6)).mean() > 0.5
    assert (chip != draw(land_use, size=48, seed=5, gsd=1.1)).mean() > 0.3
    assert chip.std() > 3


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 31, 97])
def test_odd_sizes(size):
    for land_use in LAND_USES:
        assert draw(land_use, size=size, seed=0).shape == (3, size, size)


@pytest.mark.parametrize(
    "options", [{"size": 7}, {"gsd": 0.0}, {"gsd": float("nan")}, {"seed": -1}]
)
def test_wrong_arguments(options):
    with pytest.raises(UsageError, match="need size"):
        draw("field", **{"seed": 0} | options)
    with pytest.raises(UsageError, match="airport, carpark"):
        draw("desert", seed=0)


@pytest.fixture(scope="module")
def chips() -> tuple[np.ndarray, np.ndarray]:
    each = 14
    pixels = [draw(use, size=64, seed=i, gsd=1.0) for use in LAND_USES for i in range(each)]
    return np.stack(pixels).astype(float), np.repeat(np.arange(len(LAND_USES)), each)


def nearest_neighbour(features: np.ndarray, labels: np.ndarray) -> float:
    """Share of chips whose nearest other chip is of the same class."""
    scaled = (features - features.mean(0)) / features.std(0)
    distances = ((scaled[:, None] - scaled[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(1)] == labels).mean())


def texture(pixels: np.ndarray) -> np.ndarray:
    """Sizes of grey steps between neighbours at four scales."""
    features = []
    for cell in (1, 2, 4, 8):
        n = pixels.shape[2] // cell
        grey = pixels.mean(1).reshape(-1, n, cell, n, cell).mean((2, 4))
        for axis in (1, 2):
            step = np.abs(np.diff(grey, axis=axis))
            features += [step.mean((1, 2)), step.std((1, 2)), step.max((1, 2))]
    return np.log1p(np.stack(features, 1))


@pytest.mark.slow
def test_colour_alone_does_not_reveal_the_class(chips):
    pixels, labels = chips
    by_colour = nearest_neighbour(pixels.mean((2, 3)), labels)
    by_texture = nearest_neighbour(texture(pixels), labels)
    assert 1.5 / len(LAND_USES) < by_colour < 0.65  # chance is 1 in 8
    assert by_texture > by_colour + 0.1
    assert by_texture > 0.5


def test_geotiffs_have_their_location_and_tags(tmp_path):
    import rasterio

    paths = write_scenes(tmp_path, per_class=3, size=32, seed=4)
    assert len(paths) == 24
    assert [p.parent.name for p in paths] == [use for use in LAND_USES for _ in range(3)]
    tiles = [read_tile(path) for path in paths]
    boxes = set()
    for path, tile in zip(paths, tiles, strict=True):
        assert path.suffix == ".tif"
        assert tile.crs == "EPSG:32632"
        west, south, east, north = tile.bounds
        assert east - west == pytest.approx(north - south)
        assert 0.6 * 32 <= round(east - west, 6) <= 1.2 * 32
        boxes.add(tile.bounds)
        for lon, lat in tile.footprint["coordinates"][0]:
            assert 9.7 < lon < 10.2
            assert 48.3 < lat < 48.6
        with rasterio.open(path) as dataset:
            tags = dataset.tags()
            assert "synthetic" in tags["TIFFTAG_IMAGEDESCRIPTION"]
            assert dataset.compression == rasterio.enums.Compression.deflate
            assert dataset.transform.e < 0  # north up
    assert len(boxes) == 24
    for a in boxes:
        for b in boxes - {a}:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    again = write_scenes(tmp_path / "again", per_class=3, size=32, seed=4)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]
    other = write_scenes(tmp_path / "other", per_class=1, size=32, seed=5)
    assert not {p.read_bytes() for p in other} & {p.read_bytes() for p in paths}


def test_the_date_fits_the_season():
    months = {"spring": {4, 5}, "summer": {6, 7, 8}, "autumn": {10, 11}, "winter": {1, 2, 3}}
    seen = set()
    for seed in range(40):
        _, season = scenes._start("field", seed)
        date = scenes._date("field", seed)
        assert date.month in months[season]
        assert isinstance(date, datetime)
        assert 9 <= date.hour < 14
        seen.add(season)
    assert seen == set(months)


def test_without_rasterio_the_chips_are_png_and_the_log_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    paths = write_scenes(tmp_path, per_class=1, size=16)
    assert {path.suffix for path in paths} == {".png"}
    assert "writing PNG" in caplog.text
    with Image.open(paths[0]) as image:
        assert "synthetic" in image.text["Description"]
    assert read_tile(Path(paths[0])).footprint is None


def test_a_mosaic_consists_of_drawn_fields_and_lies_beside_the_chips(tmp_path: Path) -> None:
    uses = write_mosaic(tmp_path / "mosaic.tif", columns=3, rows=2, size=64, seed=1)
    assert [len(row) for row in uses] == [3, 3]
    with rasterio.open(tmp_path / "mosaic.tif") as dataset:
        pixels, bounds = dataset.read(), dataset.bounds
        assert (dataset.crs.to_epsg(), dataset.res) == (32632, (GSD, GSD))
        assert "synthetic" in dataset.tags()["TIFFTAG_IMAGEDESCRIPTION"]
    for row, column in [(0, 0), (1, 2)]:
        field = draw(uses[row][column], size=64, seed=1_500_000 + row * 3 + column)
        assert (pixels[:, row * 64 :, column * 64 :][:, :64, :64] == field).all()
    write_scenes(tmp_path / "chips", per_class=1, size=16)
    for chip in (tmp_path / "chips").rglob("*.tif"):
        with rasterio.open(chip) as dataset:
            assert dataset.bounds.top < bounds.bottom
    again = write_mosaic(tmp_path / "again.tif", columns=3, rows=2, size=64, seed=1)
    assert again == uses
    assert (tmp_path / "again.tif").read_bytes() == (tmp_path / "mosaic.tif").read_bytes()
    with pytest.raises(UsageError, match="at least one field"):
        write_mosaic(tmp_path / "none.tif", columns=0)
