"""Stretches against plain loops and numpy.percentile."""

from __future__ import annotations

import numpy as np
import pytest

from rsir.errors import UsageError
from rsir.scenes.stretch import Stretch


def by_loops(pixels, ends):
    out = np.zeros(pixels.shape, np.uint8)
    for (c, i, j), x in np.ndenumerate(pixels.astype(float)):
        low, high = ends[c]
        if np.isnan(x):
            continue
        share = min(max((x - low) / (high - low), 0.0), 1.0)
        out[c, i, j] = round(share * 255)
    return out


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64, np.int32])
def test_percentiles_are_numpys_and_the_stretch_is_linear(dtype):
    rng = np.random.default_rng(0)
    pixels = rng.normal([[[900]], [[2000]], [[50]]], 300, (3, 20, 30)).astype(dtype)
    samples = [band.ravel() for band in pixels]
    settled = Stretch.parse("percentile:5,90").for_samples(samples, pixels.dtype)
    ends = [tuple(np.percentile(band, [5, 90])) for band in samples]
    assert settled.kind == "range"
    assert settled.values == tuple(np.ravel(ends))
    # float32 may round a tie the other way
    assert np.abs(settled(pixels).astype(int) - by_loops(pixels, ends)).max() <= 1
    assert (settled(pixels) == by_loops(pixels, ends)).mean() > 0.999


def test_a_range_and_its_ends():
    stretch = Stretch("range", (0, 3000)).for_samples([np.empty(0)] * 2, np.dtype(np.uint16))
    assert stretch.values == (0, 3000, 0, 3000)
    pixels = np.array([[[0, 1500, 3000, 65535]], [[6, 2994, 3001, 1]]], np.uint16)
    assert stretch(pixels).tolist() == [[[0, 128, 255, 255]], [[1, 254, 255, 0]]]


def test_nan_and_infinity():
    stretch = Stretch("range", (0.0, 1.0))
    pixels = np.array([[[np.nan, np.inf, -np.inf, 0.5, -3, 7]]], np.float32)
    assert stretch(pixels).tolist() == [[[0, 255, 0, 128, 0, 255]]]


def test_large_integers_keep_their_differences():
    stretch = Stretch("range", (2.0**30, 2.0**30 + 255))
    pixels = 2**30 + np.arange(256, dtype=np.int32).reshape(1, 16, 16)
    assert (stretch(pixels).ravel() == np.arange(256)).all()


def test_auto_is_none_for_8_bit_and_percentiles_for_the_rest():
    byte = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    settled = Stretch().for_samples([byte.ravel()], byte.dtype)
    assert str(settled) == "none"
    assert (settled(byte) == byte).all()
    wide = np.arange(10_001, dtype=np.uint16)
    assert Stretch().for_samples([wide], wide.dtype).values == (200, 9800)
    assert not Stretch().needs_samples(np.dtype(np.uint8))
    assert Stretch().needs_samples(np.dtype(np.uint16))
    with pytest.raises(UsageError, match="not 8-bit"):
        Stretch("none").for_samples([wide], wide.dtype)


def test_a_band_with_one_value_or_none():
    samples = [np.full(5, 7, np.uint16), np.empty(0, np.uint16)]
    settled = Stretch().for_samples(samples, np.dtype(np.uint16))
    assert settled.values == (7, 8, 0, 1)


@pytest.mark.parametrize("text", ["auto", "none", "percentile:2,98", "range:0,3000",
                                  "range:-0.1,0.30000000000000004,1e-300,2"])  # fmt: skip
def test_text_is_parsed_back(text):
    stretch = Stretch.parse(text)
    assert Stretch.parse(str(stretch)) == stretch
    assert str(Stretch.parse("percentile:2,98")) == "percentile:2,98"


@pytest.mark.parametrize(
    "text",
    ["", "bright", "auto:1", "none:0,1", "percentile", "percentile:98,2", "percentile:-1,50",
     "percentile:0,101", "percentile:1,2,3,4", "range", "range:1", "range:5,5", "range:0,nan",
     "range:0,inf", "range:a,b", "range:0,1,5,4"],
)  # fmt: skip
def test_invalid_text_is_refused(text):
    with pytest.raises(UsageError, match="stretch"):
        Stretch.parse(text)


def test_pairs_must_fit_the_bands():
    with pytest.raises(UsageError, match="2 pairs for 3 bands"):
        Stretch.parse("range:0,1,0,2").for_samples([np.empty(0)] * 3, np.dtype(np.uint16))
    with pytest.raises(UsageError, match="not settled"):
        Stretch()(np.zeros((1, 1, 1), np.uint16))
