"""Of hits that show the same, only the best one: overlapping and near-duplicate tiles collapse."""

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
"""Share of the smaller footprint from which two tiles show the same place; our choice: half of the
usual overlap of tiles cut with a stride of half their size."""
ALIKE = 0.01
"""Distance up to which two tiles are near-duplicates, as a share of the metric's range: of codes
that many of their bits, of cosine and ncc that much of 0 … 2; our choice. Euclidean distances have
no range: there only equal vectors collapse."""


def near_duplicate(metric: Metric, dimension: int) -> float:
    """The distance up to which two tiles are near-duplicates."""
    if metric.name == "euclidean":
        return 0.0
    return ALIKE * (2.0 if metric.kind == "float" else dimension)


def collapsed(
    hits: Sequence[Hit], vectors: NDArray[np.generic], metric: str | Metric, dimension: int
) -> list[int]:
    """The places of the hits that stay, best first: those that no better hit shows already.

    hits: nearest first; vectors (N, width) of them. A hit goes if a hit that stays covers OVERLAP
    of the smaller of their footprints, or lies within ALIKE of it. Between codes plain Hamming
    distance counts, whatever the ranking. Raises MissingExtraError for footprints without shapely.
    """
    named = metric_named(metric)
    compared, kind = vectors, named
    if named.classes:
        compared, kind = vectors[:, : -(-dimension // 8)], metric_named("hamming")
    limit = near_duplicate(kind, dimension)
    footprints = [None if hit.footprint is None else shape_of(hit.footprint) for hit in hits]
    kept: list[int] = []
    for place in range(len(hits)):
        if kept:
            distances = pairwise(kind, compared[place : place + 1], compared[kept])[0]
            if (distances <= limit).any() or _covered(
                footprints[place], (footprints[k] for k in kept)
            ):
                continue
        kept.append(place)
    return kept


def _covered(one: BaseGeometry | None, others: Iterable[BaseGeometry | None]) -> bool:
    if one is None:
        return False
    return any(
        one.intersection(other).area >= OVERLAP * min(one.area, other.area)
        for other in others
        if other is not None and other.intersects(one)
    )
