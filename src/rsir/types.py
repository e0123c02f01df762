"""The values that travel from an image to a list of hits: Tile, Encoding, Hit.

Frozen dataclasses over NumPy; this module imports neither torch nor another heavy library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bounds = tuple[float, float, float, float]
"""(west, south, east, north) = (min x, min y, max x, max y), in the units of their CRS."""

Geometry = Mapping[str, Any]
"""A GeoJSON geometry in WGS 84, longitude before latitude (RFC 7946)."""


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode `text`; Python writes other bytes of file names as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """`text` with escapes in place of the bytes of a file name that are not valid UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One image for the encoder: pixels, with the location and time of acquisition.

    pixels: (C, H, W), uint8; `bands` names the C channels, e.g. ("red", "green", "blue").
    source: path or URI of the image.
    content: hex digest of the source's bytes; the id is made from `source` and `content`.
    bounds, crs: footprint as (west, south, east, north) in `crs` ("EPSG:32632"), or None.
    footprint: the same area as a GeoJSON geometry in WGS 84, or None.
    datetime: acquisition time, or None if unknown.
    window: (column, row, width, height) of the tile in pixels of the source, or None for the whole
    source.
    """

    id: str
    pixels: NDArray[np.uint8]
    source: str
    content: str
    bands: tuple[str, ...] = ("red", "green", "blue")
    bounds: Bounds | None = None
    crs: str | None = None
    footprint: Geometry | None = None
    datetime: datetime | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """The result of encoding a batch of B images.

    embedding: (B, D) float32; for hashing methods the relaxed codes in [-1, 1].
    code: (B, ceil(bits / 8)) uint8, bits packed big-endian as by `numpy.packbits`, or None.
    probabilities: (B, K) float32 class probabilities, rows sum to 1, or None.
    """

    embedding: NDArray[np.float32]
    code: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.embedding)


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result.

    distance: smaller is better, in the archive's metric.
    score: larger is better; `rsir.ranking.score` of the distance.
    footprint: GeoJSON geometry in WGS 84, or None.
    percentile: percentage of random pairs of the archive that are farther apart than the hit and
    the query, in [0, 100); None if unknown (`rsir.archive.search.calibration`).
    """

    id: str
    score: float
    distance: float
    source: str
    footprint: Geometry | None = None
    datetime: datetime | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    percentile: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The hit as plain JSON values; times in ISO 8601."""
        return {
            "id": self.id,
            "score": self.score,
            "percentile": self.percentile,
            "distance": self.distance,
            "source": self.source,
            "footprint": None if self.footprint is None else dict(self.footprint),
            "datetime": None if self.datetime is None else self.datetime.isoformat(),
            "properties": dict(self.properties),
        }
