"""Diverse hits: of overlapping and near-duplicate tiles, only the best stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsir.geo.geometry import shape_of
from rsir.ranking import Metric, metric_named, pairwise
from rsir.types import Hit

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

OVERLAP = 0.25
"""Two tiles show the same ground if their overlap is at least this share of the smaller footprint.
Our choice: half of the usual overlap of tiles cut with a stride of half their size."""
ALIKE = 0.01
"""Two tiles are near-duplicates up to this distance, as a share of the metric's range: of the bits
of a code, or of 0 … 2 for cosine and ncc. Our choice. Euclidean distances have no range: only tiles
with equal vectors are near-duplicates."""


def near_duplicate(metric: Metric, dimension: int) -> float:
    """The distance up to which two tiles are near-duplicates."""
    if metric.name == "euclidean":
        return 0.0
    return ALIKE * (2.0 if metric.kind == "float" else dimension)


def collapsed(
    hits: Sequence[Hit], vectors: NDArray[np.generic], metric: str | Metric, dimension: int
) -> list[int]:
    """The rows of the hits that stay, best first: hits that no better hit repeats.

    hits: nearest first. vectors: (N, width), one for each hit. A hit is left out if a better hit
    that stays is a near-duplicate, or shares at least OVERLAP of the smaller of their footprints.
    Codes are compared by plain Hamming distance in every ranking. Raises MissingExtraError if there
    are footprints but shapely is missing.
    """
    metric = metric_named(metric)
    if metric.classes:
        vectors, metric = vectors[:, : -(-dimension // 8)], metric_named("hamming")
    limit = near_duplicate(metric, dimension)
    footprints = [None if hit.footprint is None else shape_of(hit.footprint) for hit in hits]
    chosen: list[int] = []
    for row, footprint in enumerate(footprints):
        if chosen:
            distances = pairwise(metric, vectors[[row]], vectors[chosen])[0]
            if (distances <= limit).any():
                continue
            if footprint is not None and _covered(footprint, (footprints[k] for k in chosen)):
                continue
        chosen.append(row)
    return chosen


def _covered(footprint: BaseGeometry, others: Iterable[BaseGeometry | None]) -> bool:
    return any(
        footprint.intersection(other).area >= OVERLAP * min(footprint.area, other.area)
        for other in others
        if other is not None and other.intersects(footprint)
    )
