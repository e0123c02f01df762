"""Samples in the units that a scene's STAC item states: scale · sample + offset.

Two processing baselines of a sensor may store the same ground with another offset, as Sentinel-2's
04.00 does; in these units both are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.scenes.stretch import Stretch
from rsir.sources.source import Asset, Units

_BLACK = 0.002
"""Share of a stated range that is black in 8 bits, half a step."""


def units_of(asset: Asset, index: int, dtype: str) -> Units | None:
    """The scale and the offset of a band, from 1; None without, and for 8-bit samples.

    Samples of 8 bits are made for display; catalogues give them the units of the others.
    """
    if dtype == "uint8" or not asset.units:
        return None
    units = asset.units if len(asset.units) > 1 else asset.units * index  # of the whole asset
    return units[index - 1] if index <= len(units) else None


def in_units(samples: NDArray[Any], units: Sequence[Units | None]) -> NDArray[Any]:
    """Samples (C, h, w) in their units: float32, or float64 for integers of 32 bits and more."""
    if not any(units):
        return samples
    found = samples.astype(np.result_type(samples.dtype, np.float32))
    for band, stated in zip(found, units, strict=True):
        if stated is not None:
            scale, offset = stated
            # The offset in samples first: it is often whole, so that float32 rounds once.
            band += round(offset / scale, 6)
            band *= scale
    return found


def check_range(stretch: Stretch, samples: Sequence[NDArray[Any]], uri: str) -> None:
    """UsageError for a range that was meant for other units: it would make all bands black.

    samples: of each band, 1-d.
    """
    ranges = np.array(stretch.values).reshape(-1, 2)
    pairs = zip(samples, np.resize(ranges, (len(samples), 2)), strict=True)
    tops = [(np.percentile(band, 98), low, high) for band, (low, high) in pairs if len(band)]
    if tops and all(top < low + _BLACK * (high - low) for top, low, high in tops):
        brightest = max(top for top, _, _ in tops)
        raise UsageError(
            f"stretch {stretch}: the item of {uri} states scale and offset, which give samples up "
            f"to {brightest:.4g}; give a range in these units"
        )
