"""Exact search of vectors in memory: FAISS proposes, `rsir.ranking` computes, ties go by place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rsir.ranking import Metric, adapted, pairwise, unpacked

_SLACK = 32
"""Candidates asked for beyond k, so that near ties at the k-th place rarely need the second pass
over the vectors. Our choice."""

_UNIT_ROUNDOFF = 2.0**-24
"""Of float32 (IEEE 754, round to nearest)."""

_UNIT_TOLERANCE = 1e-5
"""Vectors whose squared length is this near to 1 are searched as they are. Our choice: float32
normalisation leaves about 1e-7, half-precision encoders are beyond it and get a scaled copy."""

Found = tuple[NDArray[np.int64], NDArray[np.float64]]


class FlatCodes:
    """Exact Hamming search over codes (N, ceil(bits / 8)); the row number breaks ties."""

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self._codes = codes

    def nearest(self, queries: NDArray[np.uint8], k: int) -> list[Found]:
        """The places and distances of each query's min(k, N) nearest."""
        k = min(k, len(self._codes))
        if not k:
            return [(np.empty(0, np.int64), np.empty(0))] * len(queries)
        distances, _ = faiss.knn_hamming(queries, self._codes, k)
        # Which of the many codes at the k-th distance FAISS lists is its own affair: list them all.
        return [
            _first(*_ball(self._codes, query, int(row.max())), k)
            for query, row in zip(queries, distances, strict=True)
        ]


class FlatAdaptive:
    """Exact search over vectors of "adaptive-hamming:K"; the row number breaks ties.

    D_h ≤ D_a ≤ e·D_h. Let τ be the largest D_a among the k nearest by Hamming distance: k rows
    are within τ, so no row of the answer is beyond it, and every row with D_a ≤ τ has D_h ≤ τ.
    So the answer, all ties with its last row included, lies in the Hamming ball of radius ⌊τ⌋.
    """

    def __init__(self, vectors: NDArray[np.uint8], classes: int) -> None:
        self._classes = classes
        codes, self._probabilities = unpacked(vectors, classes)
        self._codes = np.ascontiguousarray(codes)

    def nearest(self, queries: NDArray[np.uint8], k: int) -> list[Found]:
        """The places and distances of each query's min(k, N) nearest."""
        k = min(k, len(self._codes))
        if not k or not len(queries):
            return [(np.empty(0, np.int64), np.empty(0))] * len(queries)
        codes, probabilities = unpacked(queries, self._classes)
        codes = np.ascontiguousarray(codes)
        hamming, places = faiss.knn_hamming(codes, self._codes, k)
        return [
            self._exact(codes[i], column, hamming[i], places[i], k)
            for i, column in enumerate(probabilities.argmax(axis=1))
        ]

    def _exact(
        self,
        code: NDArray[np.uint8],
        likeliest: int,
        hamming: NDArray[Any],
        places: NDArray[np.int64],
        k: int,
    ) -> Found:
        probability = self._probabilities[:, likeliest]
        bound = float(adapted(hamming, probability[places]).max())
        places, near = _ball(self._codes, code, math.floor(bound))
        return _first(places, adapted(near, probability[places]), k)


def _ball(codes: NDArray[np.uint8], query: NDArray[np.uint8], radius: int) -> Found:
    """The places and Hamming distances of all codes within `radius` of `query` (bytes,)."""
    result = faiss.RangeSearchResult(1)
    search: Any = faiss.hamming_range_search  # type: ignore[attr-defined]  # only in SWIG
    search(
        faiss.swig_ptr(query),
        faiss.swig_ptr(codes),
        1,
        len(codes),
        radius + 1,  # FAISS's radius is exclusive
        codes.shape[1],
        result,
    )
    count = int(faiss.rev_swig_ptr(result.lims, 2)[1])
    places = faiss.rev_swig_ptr(result.labels, count).astype(np.int64)
    return places, faiss.rev_swig_ptr(result.distances, count).astype(np.float64)


class FlatFloats:
    """Exact search over vectors (N, D) float32; the row number breaks ties.

    FAISS's float32 value for row y and query x, of either kind used here, is within
    `_rounding` of the true one. Let t be the k-th smallest exact distance among the candidates:
    the k-th smallest of all is not larger. Every other row has a FAISS value no better than the
    worst candidate's, so if that is beyond t by more than the bound, no other row is within t.
    """

    def __init__(self, vectors: NDArray[np.float32], metric: str) -> None:
        self._metric = metric
        self._vectors = vectors
        self._compared = vectors if metric == "euclidean" else _unit(vectors, metric == "ncc")
        self._longest = max(
            (float(_lengths(block).max()) for _, block in _blocks(self._compared)), default=0.0
        )

    def nearest(self, queries: NDArray[np.float32], k: int) -> list[Found]:
        """The places and distances of each query's min(k, N) nearest."""
        k = min(k, len(self._vectors))
        if not k:
            return [(np.empty(0, np.int64), np.empty(0))] * len(queries)
        euclidean = self._metric == "euclidean"
        compared = queries if euclidean else _unit(queries, self._metric == "ncc")
        bounds = [self._rounding(float(length)) for length in _lengths(compared)]
        count = min(len(self._vectors), k + _SLACK)
        kind = faiss.METRIC_L2 if euclidean else faiss.METRIC_INNER_PRODUCT
        nearest, places = faiss.knn(compared, self._compared, count, kind)
        values = nearest.astype(np.float64) if euclidean else 1.0 - nearest.astype(np.float64)
        return [
            self._exact(queries[i], compared[i], values[i], places[i], bounds[i], k)
            for i in range(len(queries))
        ]

    def _exact(
        self,
        query: NDArray[np.float32],
        compared: NDArray[np.float32],
        values: NDArray[Any],
        places: NDArray[np.int64],
        bound: float,
        k: int,
    ) -> Found:
        if not np.isfinite(bound):
            # FAISS would overflow: compare with everything.
            places = np.arange(len(self._vectors))
            return _first(places, self._distances(query, places), k)
        found = _first(places, self._distances(query, places), k)
        farthest = float(found[1][-1])
        limit = (farthest**2 if self._metric == "euclidean" else farthest) + bound
        if len(places) == len(self._vectors) or values[-1] > limit:
            return found
        places = self._near(compared, limit)
        return _first(places, self._distances(query, places), k)

    def _near(self, compared: NDArray[np.float32], limit: float) -> NDArray[np.int64]:
        """The rows whose float32 value is within `limit`."""
        near = []
        for start, block in _blocks(self._compared):
            if self._metric == "euclidean":
                difference = block - compared
                values = np.einsum("nd,nd->n", difference, difference)
            else:
                values = 1.0 - (block @ compared).astype(np.float64)
            near.append(np.flatnonzero(values.astype(np.float64) <= limit) + start)
        return np.concatenate(near)

    def _distances(
        self, query: NDArray[np.float32], places: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        distances: NDArray[np.float64] = pairwise(self._metric, query[None], self._vectors[places])[
            0
        ]
        return distances

    def _rounding(self, length: float) -> float:
        """How far a float32 value is from the true one, at most; inf where float32 overflows.

        A float32 inner product of D terms, in any order, is within γ_D |x||y| of the true one,
        γ_n = n u / (1 - n u) (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
        section 3.1), and the same holds for the squared distance, direct or as
        |x|² - 2xy + |y|², with (|x| + |y|)² for |x||y| and a few terms more. The 16 stand for
        these, for the rounding of the unit vectors, and for the float64 steps around them; the
        tolerance for vectors taken as unit vectors that are not quite; the last term for
        products that underflow.
        """
        steps = self._vectors.shape[1] + 16
        if steps * _UNIT_ROUNDOFF > 0.5:
            return float("inf")
        gamma = steps * _UNIT_ROUNDOFF / (1 - steps * _UNIT_ROUNDOFF)
        euclidean = self._metric == "euclidean"
        scale = (length + self._longest) ** 2 if euclidean else length * self._longest
        if scale > float(np.finfo(np.float32).max) / 4:
            return float("inf")
        slack = 0.0 if euclidean else 2 * _UNIT_TOLERANCE
        bound: float = gamma * scale + slack + steps * float(np.finfo(np.float32).tiny)
        return bound


Flat = FlatFloats | FlatCodes | FlatAdaptive


def flat_index(metric: Metric, vectors: NDArray[Any]) -> Flat:
    """Exact search over `vectors` (N, width) in memory, by a metric."""
    if metric.classes:
        return FlatAdaptive(vectors, metric.classes)
    return FlatCodes(vectors) if metric.kind == "bits" else FlatFloats(vectors, metric.name)


def _first(places: NDArray[np.int64], distances: NDArray[np.float64], k: int) -> Found:
    """The first k by distance, of equals the lower place; only they are sorted, and their ties."""
    if k < len(distances):
        near = distances <= np.partition(distances, k - 1)[k - 1]
        places, distances = places[near], distances[near]
    order = np.lexsort((places, distances))[:k]
    return places[order], distances[order]


_BLOCK_VALUES = 1 << 22
"""Values worked on at once: 32 MiB in float64, little beside the vectors. Our choice."""


def _blocks(vectors: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    step = max(1, _BLOCK_VALUES // vectors.shape[1])
    for start in range(0, len(vectors), step):
        yield start, vectors[start : start + step]


def _lengths(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(
        np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    )
    return lengths


def _unit(vectors: NDArray[np.float32], centre: bool) -> NDArray[np.float32]:
    """`vectors` at unit length (centred first for ncc); the array itself if it is so already."""
    if not centre and all(
        (np.abs(_lengths(block) ** 2 - 1) <= _UNIT_TOLERANCE).all() for _, block in _blocks(vectors)
    ):
        return vectors
    unit = np.empty_like(vectors)
    for start, block in _blocks(vectors):
        values = block.astype(np.float64)
        if centre:
            values -= values.mean(axis=1)[:, None]
        unit[start : start + len(block)] = values / np.sqrt((values**2).sum(axis=1))[:, None]
    return unit
