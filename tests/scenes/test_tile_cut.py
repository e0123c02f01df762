"""`TileCut`: parsed from the properties of a record, or None."""

import numpy as np
import pytest

from rsir.scenes.stretch import Stretch
from rsir.scenes.tile_cut import TileCut
from rsir.scenes.tiles import tiles_of
from rsir.scenes.tiling import Tiling
from rsir.scenes.windows import read_window, tile_thumbnail

PROPERTIES = {
    "window": [10, 20, 30, 40],
    "bands": ["red=3", "nir=4"],
    "stretch": "range:0,3000",
    "width": 60,
    "height": 20,
}


def test_the_cut_of_a_record():
    cut = TileCut.of(PROPERTIES | {"folder": "Harbor", "gsd": [5, 20]})
    assert cut == TileCut(
        (10, 20, 30, 40), ("red=3", "nir=4"), Stretch("range", (0, 3000)), (20, 60)
    )
    assert cut.scale == (2, 0.5)


def test_without_a_size_the_tile_is_as_large_as_its_window():
    cut = TileCut.of({k: v for k, v in PROPERTIES.items() if k not in ("width", "height")})
    assert (cut.size, cut.scale) == (None, (1, 1))
    assert TileCut().scale == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"window": None}, {"window": [1, 2, 3]}, {"window": "0,0,9,9"}, {"window": [0, 0, 9, 9.5]},
        {"window": [0, 0, 0, 9]},
        {"bands": []}, {"bands": "red"}, {"bands": ["red", 3]}, {"bands": None},
        {"stretch": None}, {"stretch": "loud"}, {"stretch": "range:9,1"}, {"stretch": 3},
    ],
)  # fmt: skip
def test_properties_that_describe_no_cut(change):
    assert TileCut.of(PROPERTIES | change) is None


def test_an_image_kept_whole_has_no_cut():
    assert TileCut.of({"width": 256, "height": 256, "folder": "Harbor"}) is None


def test_a_window_is_read_as_its_tile_was(write):
    """Resampled tiles too: the scale comes from the tile's size."""
    pixels = np.random.default_rng(0).integers(0, 4000, (3, 90, 120)).astype(np.uint16)
    path = write(pixels, transform=None)
    tile = next(iter(tiles_of(path, Tiling(size=60, bands=("red=1", "green=2", "blue=3")))))
    size = {"width": tile.pixels.shape[2], "height": tile.pixels.shape[1]}
    cut = TileCut.of({**tile.properties, **size, "window": list(tile.window)})
    assert (read_window(str(path), cut, window=tile.window) == tile.pixels).all()
    assert (tile_thumbnail(path, cut) == tile.pixels).all()
    assert read_window(str(path), cut).shape == pixels.shape
    half = TileCut(cut.window, cut.bands, cut.stretch, (30, 30))
    assert read_window(str(path), half, window=(0, 0, 40, 20)).shape == (3, 10, 20)
