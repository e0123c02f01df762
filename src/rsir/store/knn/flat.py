"""Exact search of vectors in memory, by any metric."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from rsir.ranking import Metric
from rsir.store.knn.adaptive import FlatAdaptive
from rsir.store.knn.floats import FlatFloats
from rsir.store.knn.hamming import FlatCodes

Flat = FlatFloats | FlatCodes | FlatAdaptive


def flat_index(metric: Metric, vectors: NDArray[Any]) -> Flat:
    """An exact search over `vectors` (N, width) by `metric`."""
    if metric.classes:
        return FlatAdaptive(vectors, metric.classes)
    return FlatCodes(vectors) if metric.kind == "bits" else FlatFloats(vectors, metric.name)
