"""Windows given in degrees and in metres, against the pixels that are read."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine

from rsir.geo.georeference import ignore_not_georeferenced
from rsir.scenes import windows
from rsir.scenes.scene import Scene
from rsir.scenes.tile_cut import TileCut


def scene(path, transform, crs, height=200, width=400):
    ignore_not_georeferenced()
    pixels = np.random.default_rng(0).integers(1, 255, (3, height, width)).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, width=width, height=height, dtype="uint8",
        photometric="rgb", transform=transform, crs=crs,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


DEGREES = "EPSG:4326"


@pytest.mark.parametrize(
    ("transform", "crs", "bbox", "wanted"),
    [
        # 170° to 190°, and -190° to -170°: the antimeridian is in the middle, at column 200.
        (Affine(0.05, 0, 170, 0, -0.05, 5), DEGREES, (-179, -1, -178, 1), (220, 80, 20, 40)),
        (Affine(0.05, 0, 170, 0, -0.05, 5), DEGREES, (179, -1, -179, 1), (180, 80, 40, 40)),
        (Affine(0.05, 0, -190, 0, -0.05, 5), DEGREES, (178, -1, 179, 1), (160, 80, 20, 40)),
        (Affine(0.05, 0, -190, 0, -0.05, 5), DEGREES, (179, -1, -179, 1), (180, 80, 40, 40)),
        (Affine(0.05, 0, -190, 0, -0.05, 5), DEGREES, (-179, -1, -178, 1), (220, 80, 20, 40)),
        # 0° to 360°.
        (Affine(0.9, 0, 0, 0, -0.9, 90), DEGREES, (-90, 0, -81, 9), (300, 90, 10, 10)),
        (Affine(0.9, 0, 0, 0, -0.9, 90), DEGREES, (81, 0, 90, 9), (90, 90, 10, 10)),
        # Web Mercator, 100 pixels to either side of 180°.
        (Affine(4e3, 0, 20037508.342789244 - 8e5, 0, -4e3, 4e5), "EPSG:3857",
         (179, 0, -179, 1), (172, 72, 56, 28)),
        # UTM zone 1 begins there.
        (Affine(1000, 0, 0, 0, -1000, 100_000), "EPSG:32601",
         (179.5, 0, -179.5, 0.5), (110, 44, 112, 56)),
    ],
)  # fmt: skip
def test_a_box_is_found_on_either_side_of_the_antimeridian(
    tmp_path, monkeypatch, transform, crs, bbox, wanted
):
    path = scene(tmp_path / "a.tif", transform, crs)
    read = []
    real = Scene.read

    def spy(self, window, *more):
        read.append(window)
        return real(self, window, *more)

    monkeypatch.setattr(Scene, "read", spy)
    windows.read_window(str(path), TileCut(), bbox=bbox)
    assert read == [pytest.approx(wanted, abs=1)]


def test_a_square_in_metres_is_square_far_from_the_scene_s_middle(tmp_path, monkeypatch):
    # The world in degrees: at 60° a pixel is half as wide as at the equator.
    path = scene(tmp_path / "a.tif", Affine(0.9, 0, -180, 0, -0.9, 90), DEGREES)
    read = []
    real = Scene.read

    def spy(self, window, *more):
        read.append(window)
        return real(self, window, *more)

    monkeypatch.setattr(Scene, "read", spy)
    for latitude in (0, 60):
        windows.read_window(str(path), TileCut(), point=(0, latitude), size=1_000_000)
    (_, _, width, height), (_, _, wide, high) = read
    assert (width, height) == (10, 10)
    assert (wide, high) == (20, 10)
