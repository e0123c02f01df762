"""Thumbnails of records: small pictures of tiles and of whole images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsir.errors import DataError, ImageError, UsageError
from rsir.images.read import read_pixels
from rsir.scenes.tile_cut import TileCut
from rsir.store.records.record import Record
from rsir.types import Hit

if TYPE_CHECKING:
    from PIL import Image

Subject = Path | Record | Hit | NDArray[np.uint8]
"""An image file, the tile or image of a record or hit, or pixels (3, H, W) uint8."""

_RGB = ("red", "green", "blue")


def thumbnail(record: Record, size: int) -> NDArray[np.uint8]:
    """(C, h, w) uint8, the longer side at most `size` pixels.

    Raises ImageError if the file cannot be read, UsageError for a size below 1.
    """
    if size < 1:
        raise UsageError(f"thumbnail size {size}: give at least 1 pixel")
    cut = TileCut.of(record.properties)
    if cut is None and not Path(record.source).is_absolute():
        raise ImageError(f"{record.source}: is not a file on this machine")
    return _read(record.source, cut, size)


def picture(subject: Subject, size: int) -> Image.Image:
    """A Pillow image of mode "RGB" of `subject`, its longer side at most `size` pixels.

    Raises ImageError if its file cannot be read.
    """
    if isinstance(subject, np.ndarray):
        return _reduced(subject, size)
    if isinstance(subject, Path):
        return _reduced(read_pixels(subject), size)
    cut = TileCut.of(subject.properties)
    if cut is None and "://" in subject.source:
        raise ImageError(f"{subject.source}: is not on this machine; open its address")
    pixels = _read(subject.source, cut, size)
    return _reduced(pixels if cut is None else visible(pixels, cut.bands or ()), size)


def _reduced(pixels: NDArray[np.uint8], size: int) -> Image.Image:
    """Pixels (C, H, W) as a Pillow image whose longer side has at most `size` pixels."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.thumbnail((size, size), Image.Resampling.BOX)
    return image


def visible(pixels: NDArray[np.uint8], bands: Sequence[str]) -> NDArray[np.uint8]:
    """Three bands (3, H, W) of pixels (C, H, W), for display.

    Red, green and blue if they exist; else the first three bands; else the first band as grey.
    bands: the names of the C bands, "red" or "red=3".
    """
    names = [band.partition("=")[0] for band in bands]
    if set(_RGB) <= set(names):
        return pixels[[names.index(name) for name in _RGB]]
    return pixels[:3] if len(pixels) >= 3 else pixels[[0, 0, 0]]


def _read(source: str, cut: TileCut | None, size: int) -> NDArray[np.uint8]:
    """The tile that `cut` describes, or the whole image without one, (C, h, w) uint8."""
    if cut is None:
        image = _reduced(read_pixels(source), size)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    from rsir.scenes import windows

    try:
        return windows.tile_thumbnail(source, cut, size)
    except (DataError, UsageError) as error:
        # The scene no longer exists, or no longer has this window or these bands.
        raise ImageError(str(error)) from error
