"""The windows of a tiling, against an array that counts how often each pixel is covered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir.errors import DataError, UsageError
from rsir.scenes.tiling import Tiling, grid


@dataclass
class Extent:
    width: int
    height: int
    gsd: tuple[float, float] | None = None
    uri: str = "scene.tif"


sides = st.integers(1, 60)


@given(sides, sides, st.integers(1, 70), st.integers(1, 70), st.sampled_from(["shift", "pad"]))
def test_every_pixel_is_in_a_window(width, height, size, stride, edges):
    stride = min(stride, size)
    windows = grid(Extent(width, height), Tiling(size=size, stride=stride, edges=edges))
    count = np.zeros((height + 200, width + 200), int)
    seen = []
    for column, row, w, h in windows:
        assert column >= 0
        assert row >= 0
        assert column < width
        assert row < height
        if edges == "shift":
            assert (w, h) == (min(size, width), min(size, height))
            assert column + w <= width
            assert row + h <= height
        else:
            assert (w, h) == (size, size)
        assert column % stride == 0 or (edges == "shift" and column + w == width)
        assert row % stride == 0 or (edges == "shift" and row + h == height)
        count[row : row + h, column : column + w] += 1
        seen.append((row, column))
    assert (count[:height, :width] >= 1).all()
    assert len(set(seen)) == len(seen) == len(windows)
    assert seen == sorted(seen)
    # No window is superfluous: each row and each column of windows covers pixels of its own.
    for axis, length in ((0, height), (1, width)):
        starts = sorted({window[axis] for window in seen})
        reach = min(size, length)
        for first, third in zip(starts, starts[2:], strict=False):
            assert third - first > stride - 1 or first + reach < length
        assert len(starts) == (1 if length <= size else -(-(length - size) // stride) + 1)
    assert windows.size == ((size, size) if edges == "pad" else (min(size, height),
                                                                  min(size, width)))  # fmt: skip


def test_metres_and_resampling():
    ten = Extent(1000, 800, (10.0, 10.0))
    metres = grid(ten, Tiling(size=2560, stride=1280, unit="metres"))
    assert (metres.window, metres.step, metres.size) == ((256, 256), (128, 128), (256, 256))
    # 224 pixels of 20 m are 4480 m are 448 pixels of 10 m
    coarser = grid(ten, Tiling(size=224, gsd=20))
    assert (coarser.window, coarser.size) == ((448, 448), (224, 224))
    finer = grid(ten, Tiling(size=224, gsd=2.5))
    assert (finer.window, finer.size) == ((56, 56), (224, 224))
    both = grid(ten, Tiling(size=1000, unit="metres", gsd=5))
    assert (both.window, both.size) == ((100, 100), (200, 200))
    # Pixels in degrees are not square on the ground; the tile is.
    degrees = grid(Extent(1000, 800, (5.0, 10.0)), Tiling(size=1000, unit="metres", gsd=10))
    assert (degrees.window, degrees.size) == ((200, 100), (100, 100))
    small = grid(Extent(100, 800, (10.0, 10.0)), Tiling(size=224, gsd=20))
    assert next(iter(small)) == (0, 0, 100, 448)
    assert small.size == (224, 50)


@given(st.floats(0.3, 60), st.floats(0.3, 60), st.integers(32, 512))
def test_the_true_gsd_is_off_by_half_a_pixel_at_most(own, wanted, size):
    scene = Extent(10**6, 10**6, (own, own))
    if size * wanted / own < 1:
        return
    windows = grid(scene, Tiling(size=size, gsd=wanted))
    assert abs(windows.window[0] * own - size * wanted) <= own / 2 * (1 + 1e-9)
    assert windows.size == (size, size)


def test_metres_without_a_georeference_say_what_to_do():
    for tiling in (Tiling(size=500, unit="metres"), Tiling(size=224, gsd=10)):
        with pytest.raises(DataError, match=r"no georeference.*in pixels"):
            grid(Extent(100, 100), tiling)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size"), ({"size": -5}, "size"), ({"size": float("nan")}, "size"),
        ({"size": 10.5}, "whole"), ({"stride": 0}, "stride"), ({"stride": 300}, "stride 300"),
        ({"gsd": -1}, "gsd"), ({"gsd": 0}, "gsd"), ({"unit": "feet"}, "feet"),
        ({"edges": "drop"}, "drop"),
        ({"resampling": "best"}, "best"), ({"min_valid": 1.5}, "min_valid"),
        ({"max_cloud": -0.1}, "max_cloud"),
    ],
)  # fmt: skip
def test_impossible_values(values, message):
    with pytest.raises(UsageError, match=message):
        Tiling(**values)


def test_impossible_on_this_scene():
    with pytest.raises(UsageError, match="smaller than its pixels"):
        grid(Extent(10, 10, (30.0, 30.0)), Tiling(size=5, unit="metres"))
    with pytest.raises(UsageError, match="16384"):
        grid(Extent(10, 10, (0.1, 0.1)), Tiling(size=10_000, unit="metres"))


def test_gsd_model_is_replaced_by_the_models():
    tiling = Tiling(size=224, gsd="model")
    assert tiling.with_model_gsd(0.3) == Tiling(size=224, gsd=0.3)
    assert Tiling(gsd=2).with_model_gsd(0.3) == Tiling(gsd=2)
    assert Tiling().with_model_gsd(None) == Tiling()
    with pytest.raises(UsageError, match="gsd in metres"):
        tiling.with_model_gsd(None)
    with pytest.raises(UsageError, match="no model is given"):
        grid(Extent(100, 100, (1.0, 1.0)), tiling)
    with pytest.raises(UsageError, match="give metres, or model"):
        Tiling(gsd="teacher")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 1e9},
        {"size": 1e9, "stride": 1.0},
        {"size": 1e9, "unit": "metres"},
        {"size": 1000.0, "unit": "metres", "gsd": 0.01},
        {"size": 1000.0, "unit": "metres", "gsd": 5e-324},
        {"size": 1.0, "unit": "metres", "gsd": 10.0},
        {"gsd": 1.7e308},
        {"bands": ()},
        {"bands": ("", "")},
        {"bands": ("red", " ", "blue")},
        {"bands": ("red=", "green", "blue")},
        {"bands": ("red", "red", "red")},
        {"bands": ("B04", "b04")},
        {"bands": ("red=4", "green", "red=5")},
    ],
)
def test_invalid_tilings_are_refused_before_a_scene_is_opened(wrong):
    with pytest.raises(UsageError):
        Tiling(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        {"size": 16_384},
        {"size": 16_384.0, "unit": "metres", "gsd": 1.0},
        {"size": 1e6, "unit": "metres"},
        {"size": 1e6, "unit": "metres", "gsd": "model"},
        {"bands": ("red=1", "green=1", "blue=1")},
        {"bands": ("visual:1", "visual:2", "3")},
    ],
)
def test_tilings_that_only_a_scene_can_refuse(right):
    assert Tiling(**right).size >= 1


def test_the_models_gsd_is_checked_too():
    with pytest.raises(UsageError, match="pixels a side"):
        Tiling(size=1e6, unit="metres", gsd="model").with_model_gsd(0.1)
