"""Exact search of vectors in memory: FAISS proposes, `rsir.ranking` computes, ties go by place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

_GATHERED_FROM = 8
"""From so many queries on, copying a subset's vectors to compare them by matrix products costs less
than comparing row by row. Our choice; FAISS changes over at 20 by itself."""

Found = tuple[NDArray[np.int64], NDArray[np.float64]]


class FlatCodes:
    """Exact Hamming search over codes (N, ceil(bits / 8)); the row number breaks ties.

    FAISS keeps a heap of (distance, row) whose top is the greatest of both, and lets a row in only
    if it is nearer than the top. Rows come in rising order, so of equal distances the lowest
    rows stay, in order (tests/contract holds FAISS to it).
    """

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def nearest(self, queries: NDArray[np.uint8], k: int) -> list[Found]:
        """The places and distances of each query's min(k, N) nearest."""
        k = min(k, len(self.codes))
        if not k or not len(queries):
            return [(np.empty(0, np.int64), np.empty(0))] * len(queries)
        distances, places = faiss.knn_hamming(queries, self.codes, k)
        return list(zip(places, distances.astype(np.float64), strict=True))

    def subset(self, places: NDArray[np.int64]) -> FlatCodes:
        """The same search over the codes at `places` (rising), which it copies and numbers anew."""
        return FlatCodes(self.codes[places])


_CANDIDATES = 3
"""Of so many times k nearest by Hamming distance the k-th adaptive one bounds the search. Our
choice: with k there are always a few of a low probability, whose bound lets nearly the whole class
in; from 2 to 4 there is little between them, and more only cost time."""

_QUERIES_APART = 4
_CODES_APART = 500_000
"""Adaptive searches of so many queries and codes are done side by side. Our choice: among fewer
codes a search is so short that threads wait for each other longer than they search."""


class FlatAdaptive:
    """Exact search over vectors of "adaptive-hamming:K"; the row number breaks ties.

    D_h ≤ D_a ≤ e·D_h. If k rows are within τ, no row of the answer is beyond it, and a row with
    D_a ≤ τ has D_h ≤ τ / e^(1 - p) for any bound p on its probability of the query's class. Codes
    are kept class by class (each with its own likeliest): k of the query's class, whose p is high,
    give a τ; there the answer lies in the Hamming ball of radius ⌊τ⌋, and elsewhere, where p is at
    most the highest runner-up's, in a smaller one.
    """

    def __init__(self, vectors: NDArray[np.uint8], classes: int) -> None:
        self._classes = classes
        codes, self._probabilities = unpacked(vectors, classes)
        likeliest = np.empty(len(codes), np.int32)
        self._runner_up = np.zeros(classes)
        step = max(1, _BLOCK_VALUES // classes)
        for start in range(0, len(codes), step):
            block = self._probabilities[start : start + step]
            top = block.argmax(axis=1)
            likeliest[start : start + step] = top
            others = block.copy()
            others[np.arange(len(block)), top] = 0
            np.maximum(self._runner_up, others.max(axis=0), out=self._runner_up)
        self._arrange(codes, np.argsort(likeliest, kind="stable"), likeliest)
        self._plain: FlatCodes | None = None

    def _arrange(
        self, codes: NDArray[np.uint8], order: NDArray[np.int64], likeliest: NDArray[np.int32]
    ) -> None:
        small = np.int32 if len(codes) <= np.iinfo(np.int32).max else np.int64
        self._codes = codes[order]
        self._rows = order.astype(small)
        counts = np.bincount(likeliest, minlength=self._classes)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._numbers: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def nearest(self, queries: NDArray[np.uint8], k: int) -> list[Found]:
        """The places and distances of each query's min(k, N) nearest."""
        k = min(k, len(self))
        if not k or not len(queries):
            return [(np.empty(0, np.int64), np.empty(0))] * len(queries)
        codes, probabilities = unpacked(queries, self._classes)
        codes, likeliest = np.ascontiguousarray(codes), probabilities.argmax(axis=1).tolist()

        def found(query: int) -> Found:
            return self._nearest(codes[query], likeliest[query], k)

        threads = min(faiss.omp_get_max_threads(), len(queries))
        if threads == 1 or len(queries) < _QUERIES_APART or len(self) < _CODES_APART:
            return list(map(found, range(len(queries))))
        # Several steps each, of which FAISS's are the longest: a query a thread, not all threads on
        # one step. OpenMP's number is each thread's own.
        with ThreadPoolExecutor(threads, "rsir-adaptive", faiss.omp_set_num_threads, (1,)) as pool:
            return list(pool.map(found, range(len(queries))))

    def plain(self) -> FlatCodes:
        """Search of the same codes by Hamming distance; their copy in order is made once."""
        if self._plain is None:
            codes = np.empty_like(self._codes)
            codes[self._own_places(np.arange(len(self)))] = self._codes
            self._plain = FlatCodes(codes)
        return self._plain

    def subset(self, places: NDArray[np.int64]) -> FlatAdaptive:
        """The same search over the vectors at `places` (rising), numbered anew."""
        number = np.full(len(self._probabilities), -1, np.int64)
        number[places] = np.arange(len(places))
        kept = np.flatnonzero(number[self._rows] >= 0)
        part = FlatAdaptive.__new__(FlatAdaptive)
        part._classes, part._runner_up = self._classes, self._runner_up
        part._probabilities = self._probabilities
        part._codes, part._rows = self._codes[kept], self._rows[kept]
        part._starts = np.searchsorted(kept, self._starts)
        part._numbers = number[part._rows].astype(self._rows.dtype)
        part._plain = None
        return part

    def _own_places(self, arranged: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers = self._rows if self._numbers is None else self._numbers
        places: NDArray[np.int64] = numbers[arranged].astype(np.int64)
        return places

    def _nearest(self, code: NDArray[np.uint8], likeliest: int, k: int) -> Found:
        start, stop = (int(n) for n in self._starts[likeliest : likeliest + 2])
        enough = stop - start >= k
        first, last = (start, stop) if enough else (0, len(self))
        candidates = min(_CANDIDATES * k, last - first)
        hamming, arranged = faiss.knn_hamming(code[None], self._codes[first:last], candidates)
        near = self._adapted(hamming[0], arranged[0] + first, likeliest)
        bound = float(np.partition(near, k - 1)[k - 1])
        # A hair more than the quotient, for the rounding of exp, of product and of quotient.
        beyond = bound / math.exp(1 - self._runner_up[likeliest]) * (1 + 1e-12)
        parts = []
        for first, last, radius in (
            (0, start, beyond),
            (start, stop, bound),
            (stop, len(self), beyond),
        ):
            if first < last:
                arranged_near, near = _ball(self._codes[first:last], code, math.floor(radius))
                parts.append((arranged_near + first, near))
        arranged = np.concatenate([part for part, _ in parts])
        near = np.concatenate([part for _, part in parts])
        distances = self._adapted(near, arranged, likeliest)
        return _first(self._own_places(arranged), distances, k)

    def _adapted(
        self, hamming: NDArray[Any], arranged: NDArray[np.int64], likeliest: int
    ) -> NDArray[np.float64]:
        return adapted(hamming, self._probabilities[self._rows[arranged], likeliest])


def _selected(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    count: int,
    kind: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`faiss.knn` among some rows only, whose bits select them."""
    bits = np.zeros(-(-len(vectors) // 8) * 8, np.bool_)
    bits[rows] = True
    bitmap = np.packbits(bits, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(vectors), faiss.swig_ptr(bitmap))
    values = np.empty((len(queries), count), np.float32)
    places = np.empty((len(queries), count), np.int64)
    queries = np.ascontiguousarray(queries)
    pointers = [faiss.swig_ptr(array) for array in (queries, vectors)]
    sizes = (vectors.shape[1], len(queries), len(vectors), count)
    answers = [faiss.swig_ptr(array) for array in (values, places)]
    search: Any = faiss.knn_L2sqr if kind == faiss.METRIC_L2 else faiss.knn_inner_product
    if kind == faiss.METRIC_L2:
        # The None are the vectors' squared lengths, which FAISS may be given.
        search(*pointers, *sizes, *answers, None, selector)
    else:
        search(*pointers, *sizes, *answers, selector)
    return values, places


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

    _rows: NDArray[np.int64] | None = None
    """Of a subset that is not a copy: the rows that are searched, rising."""

    def __init__(self, vectors: NDArray[np.float32], metric: str) -> None:
        self._metric = metric
        self._vectors = vectors
        self._compared = vectors if metric == "euclidean" else unit(vectors, metric == "ncc")
        self._longest = max(
            (float(_lengths(block).max()) for _, block in _blocks(self._compared)), default=0.0
        )

    def __len__(self) -> int:
        return len(self._vectors) if self._rows is None else len(self._rows)

    def subset(self, places: NDArray[np.int64]) -> FlatFloats:
        """The same search over the vectors at `places` (rising), numbered anew.

        Copied if they are small; otherwise the vectors are shared and passed over.
        """
        part = FlatFloats.__new__(FlatFloats)
        part._metric, part._longest = self._metric, self._longest
        if len(places) * self._vectors.shape[1] <= _BLOCK_VALUES:
            part._vectors = self._vectors[places]
            shared = self._compared is self._vectors
            part._compared = part._vectors if shared else self._compared[places]
        else:
            part._vectors, part._compared, part._rows = self._vectors, self._compared, places
        return part

    def nearest(self, queries: NDArray[np.float32], k: int) -> list[Found]:
        """The places and distances of each query's min(k, N) nearest."""
        k = min(k, len(self))
        if not k or not len(queries):
            return [(np.empty(0, np.int64), np.empty(0))] * len(queries)
        euclidean = self._metric == "euclidean"
        compared = queries if euclidean else unit(queries, self._metric == "ncc")
        bounds = [self._rounding(float(length)) for length in _lengths(compared)]
        values, places = self._proposed(compared, min(len(self), k + _SLACK))
        return [
            self._exact(queries[i], compared[i], values[i], places[i], bounds[i], k)
            for i in range(len(queries))
        ]

    def _proposed(
        self, compared: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """FAISS's `count` nearest of each query, (Q, count): values to be small, and places."""
        kind = faiss.METRIC_L2 if self._metric == "euclidean" else faiss.METRIC_INNER_PRODUCT
        if self._rows is None:
            nearest, places = faiss.knn(compared, self._compared, count, kind)
        elif len(compared) < _GATHERED_FROM:
            nearest, places = _selected(compared, self._compared, self._rows, count, kind)
            places = np.searchsorted(self._rows, places)
        else:
            return self._proposed_in_blocks(compared, count, kind)
        values = nearest.astype(np.float64)
        return (values if kind == faiss.METRIC_L2 else 1.0 - values), places

    def _proposed_in_blocks(
        self, compared: NDArray[np.float32], count: int, kind: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The same for many queries: rows are copied block by block, each once for all queries."""
        assert self._rows is not None
        values = np.empty((len(compared), 0))
        places = np.empty((len(compared), 0), np.int64)
        step = max(1, _BLOCK_VALUES // self._vectors.shape[1])
        for start in range(0, len(self._rows), step):
            block = self._compared[self._rows[start : start + step]]
            nearest, near = faiss.knn(compared, block, min(count, len(block)), kind)
            far = nearest.astype(np.float64)
            values = np.concatenate([values, far if kind == faiss.METRIC_L2 else 1.0 - far], axis=1)
            places = np.concatenate([places, near + start], axis=1)
            order = np.argsort(values, axis=1, kind="stable")[:, :count]
            values = np.take_along_axis(values, order, axis=1)
            places = np.take_along_axis(places, order, axis=1)
        return values, places

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
            places = np.arange(len(self))
            return _first(places, self._distances(query, places), k)
        found = _first(places, self._distances(query, places), k)
        farthest = float(found[1][-1])
        limit = (farthest**2 if self._metric == "euclidean" else farthest) + bound
        if len(places) == len(self) or values[-1] > limit:
            return found
        places = self._near(compared, limit)
        return _first(places, self._distances(query, places), k)

    def _near(self, compared: NDArray[np.float32], limit: float) -> NDArray[np.int64]:
        """The places whose float32 value is within `limit`."""
        near = []
        for start, block in _blocks(self._compared):
            if self._metric == "euclidean":
                difference = block - compared
                values = np.einsum("nd,nd->n", difference, difference)
            else:
                values = 1.0 - (block @ compared).astype(np.float64)
            near.append(np.flatnonzero(values.astype(np.float64) <= limit) + start)
        rows: NDArray[np.int64] = np.concatenate(near)
        if self._rows is None:
            return rows
        places: NDArray[np.int64] = np.searchsorted(self._rows, rows)
        chosen: NDArray[np.bool_] = self._rows[np.minimum(places, len(self) - 1)] == rows
        rows = places[chosen]
        return rows

    def _distances(
        self, query: NDArray[np.float32], places: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        rows = places if self._rows is None else self._rows[places]
        distances: NDArray[np.float64] = pairwise(self._metric, query[None], self._vectors[rows])[0]
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


def unit(vectors: NDArray[np.float32], centre: bool) -> NDArray[np.float32]:
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
