"""What a record looks like, small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsir.errors import DataError, ImageError, UsageError
from rsir.images.read import read_pixels
from rsir.scenes.tile_cut import TileCut
from rsir.store.records.record import Record


def thumbnail(record: Record, size: int) -> NDArray[np.uint8]:
    """(C, h, w) uint8, the longer side at most `size` pixels; errors as `Archive.thumbnail`."""
    if size < 1:
        raise UsageError(f"thumbnail size {size}: give at least 1 pixel")
    cut = TileCut.of(record.properties)
    if cut is not None:
        return _of_window(record.source, cut, size)
    if not Path(record.source).is_absolute():
        raise ImageError(f"{record.source}: is not a file of this machine")
    return _reduced(read_pixels(record.source), size)


def _of_window(source: str, cut: TileCut, size: int) -> NDArray[np.uint8]:
    from rsir.scenes import windows

    try:
        return windows.thumbnail(source, cut, size)
    except (DataError, UsageError) as error:
        # Gone, or no longer what it was.
        raise ImageError(str(error)) from error


def _reduced(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(C, h, w) with its longer side at most `size`, by averaging."""
    from PIL import Image

    image = Image.fromarray(pixels.transpose(1, 2, 0))
    image.thumbnail((size, size), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
