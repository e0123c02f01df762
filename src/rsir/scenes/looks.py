"""How the samples of a file become what a viewer shows: palette, few bits, white as 0, orientation.

GDAL gives the samples as they are stored. A picture that is read whole shows the same colours,
because `rsir.images.decode` follows the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.geo.footprint import Window
from rsir.geo.georeference import rpcs_of
from rsir.images.decode import orientation_of

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# EXIF 2.3, table 6: whether the upright image has the rows of the stored one as columns, and then
# whether its rows and its columns run backwards.
_TURNS = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True),
    4: (False, True, False), 5: (True, False, False), 6: (True, False, True),
    7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """How a file is shown.

    palette: the colours, (n, 4) uint8 RGBA, of the only band; the file then has the bands red,
    green and blue. factor: for samples of few bits, which it spreads over 0..255. is_inverted: the
    greatest sample is black. orientation: of the stored image, 1 (upright) to 8, after EXIF.
    """

    palette: NDArray[np.uint8] | None = None
    factor: int = 1
    is_inverted: bool = False
    orientation: int = 1

    @classmethod
    def of(cls, dataset: DatasetReader, path: str | None) -> Look:
        """The look of an open file; path: of a local file, None for any other.

        A file with a georeference is never turned, because its transform is that of the stored
        image.
        """
        from rasterio.enums import ColorInterp

        palette = None
        if ColorInterp.palette in dataset.colorinterp and dataset.count == 1:
            colours = dataset.colormap(1)
            palette = np.zeros((max(colours) + 1, 4), np.uint8)
            for index, colour in colours.items():
                palette[index] = colour
        bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")
        has_few = palette is None and bits in ("1", "2", "4") and dataset.dtypes[0] == "uint8"
        inverted = dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        is_located = dataset.crs is not None or bool(dataset.gcps[0] or rpcs_of(dataset))
        orientation = 1 if is_located or path is None else orientation_of(path)
        return cls(palette, 255 // (2 ** int(bits) - 1) if has_few else 1, inverted, orientation)

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the upright image."""
        return (height, width) if _TURNS[self.orientation][0] else (width, height)

    def stored(self, window: Window, width: int, height: int) -> Window:
        """The window of the stored image, of width × height, that shows an upright window."""
        swap, rows, columns = _TURNS[self.orientation]
        wide, high = self.shape(width, height)
        column, row, w, h = window
        column = wide - column - w if columns else column
        row = high - row - h if rows else row
        return (row, column, h, w) if swap else (column, row, w, h)

    def stored_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the stored samples for (h, w) of upright pixels."""
        return (size[1], size[0]) if _TURNS[self.orientation][0] else size

    def upright(self, array: NDArray[Any]) -> NDArray[Any]:
        """Stored samples (..., h, w), turned upright."""
        swap, rows, columns = _TURNS[self.orientation]
        if swap:
            array = array.swapaxes(-1, -2)
        array = array[..., ::-1, :] if rows else array
        return array[..., ::-1] if columns else array

    def shown(self, samples: NDArray[Any], components: list[int | None]) -> NDArray[Any]:
        """Stored samples (C, h, w) as a viewer shows them; components: of the palette's colours."""
        if self.palette is not None:
            indexes = np.minimum(samples, len(self.palette) - 1)
            return np.stack(
                [
                    self.palette[:, part or 0][band]
                    for part, band in zip(components, indexes, strict=True)
                ]
            )
        if self.factor > 1:
            samples = samples * np.uint8(self.factor)
        if self.is_inverted and samples.dtype.kind == "u":
            samples = np.iinfo(samples.dtype).max - samples
        return samples

    def transparent(self, samples: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Which stored samples (h, w) have a transparent colour; None if no colour is that."""
        if self.palette is None or self.palette[:, 3].all():
            return None
        found: NDArray[np.bool_] = self.palette[np.minimum(samples, len(self.palette) - 1), 3] == 0
        return found
