"""Exact search of codes and class probabilities by "adaptive-hamming:K"."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rsir.ranking import adapted, unpacked
from rsir.store.knn.hamming import FlatCodes
from rsir.store.knn.rows import NO_ROWS, NearestRows, first_rows
from rsir.store.knn.vectors import blocks

_CANDIDATES = 3
"""The search takes this many times k rows that are nearest by Hamming distance; their k-th smallest
adaptive distance bounds it. Our choice: among only k rows, some always have a low probability, and
the bound then admits nearly the whole class. The factors 2 to 4 cost about the same; larger factors
only cost time."""

_PARALLEL_QUERIES = 4
_PARALLEL_CODES = 500_000
"""From this many queries and codes on, queries are searched in parallel. Our choice: with fewer
codes a search is so short that threads wait for each other longer than they search."""


class FlatAdaptive:
    """Exact search over vectors of "adaptive-hamming:K"; the row number breaks ties.

    D_h ≤ D_a ≤ e·D_h. If k rows are within τ, no row of the answer is beyond τ, and a row with
    D_a ≤ τ has D_h ≤ τ / e^(1 - p) for any upper bound p of its probability of the query's class.
    Codes are sorted by their most probable class. The k nearest rows of the query's class, whose p
    is high, give a τ. Rows of the answer in that class lie in the Hamming ball of radius ⌊τ⌋. In
    all other classes p is at most the highest probability that is not a row's first, so their rows
    lie in a smaller ball.

    A row's number is its position in `vectors`; its position in the sorted codes is its slot.
    """

    def __init__(self, vectors: NDArray[np.uint8], classes: int) -> None:
        self._classes = classes
        codes, self._probabilities = unpacked(vectors, classes)
        likeliest = np.empty(len(codes), np.int32)
        self._runner_up = np.zeros(classes)
        for start, block in blocks(self._probabilities):
            top = block.argmax(axis=1)
            likeliest[start : start + len(block)] = top
            others = block.copy()
            others[np.arange(len(block)), top] = 0
            np.maximum(self._runner_up, others.max(axis=0), out=self._runner_up)
        order = np.argsort(likeliest, kind="stable")
        small = np.int32 if len(codes) <= np.iinfo(np.int32).max else np.int64
        self._codes = codes[order]
        self._rows = order.astype(small)
        counts = np.bincount(likeliest, minlength=classes)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        # In a subset: the number of each slot's row within the subset.
        self._numbers: NDArray[Any] | None = None
        self._plain: FlatCodes | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def nearest(self, queries: NDArray[np.uint8], k: int) -> list[NearestRows]:
        """The min(k, N) rows nearest to each query."""
        k = min(k, len(self))
        if not k or not len(queries):
            return [NO_ROWS] * len(queries)
        codes, probabilities = unpacked(queries, self._classes)
        codes, likeliest = np.ascontiguousarray(codes), probabilities.argmax(axis=1).tolist()

        def search(query: int) -> NearestRows:
            return self._nearest(codes[query], likeliest[query], k)

        threads = min(faiss.omp_get_max_threads(), len(queries))
        if threads == 1 or len(queries) < _PARALLEL_QUERIES or len(self) < _PARALLEL_CODES:
            return list(map(search, range(len(queries))))
        # One thread per query is faster than all threads on each of a query's steps, of which
        # FAISS's are the longest. OpenMP's number of threads is set per thread.
        with ThreadPoolExecutor(threads, "rsir-adaptive", faiss.omp_set_num_threads, (1,)) as pool:
            return list(pool.map(search, range(len(queries))))

    def plain(self) -> FlatCodes:
        """A search of the same codes by Hamming distance; copies them on the first call."""
        if self._plain is None:
            codes = np.empty_like(self._codes)
            codes[self._numbers_at(np.arange(len(self)))] = self._codes
            self._plain = FlatCodes(codes)
        return self._plain

    def subset(self, rows: NDArray[np.int64]) -> FlatAdaptive:
        """A search of the vectors at `rows` (ascending), numbered from 0."""
        number = np.full(len(self._probabilities), -1, np.int64)
        number[rows] = np.arange(len(rows))
        slots = np.flatnonzero(number[self._rows] >= 0)
        part = FlatAdaptive.__new__(FlatAdaptive)
        part._classes, part._runner_up = self._classes, self._runner_up
        part._probabilities = self._probabilities
        part._codes, part._rows = self._codes[slots], self._rows[slots]
        part._starts = np.searchsorted(slots, self._starts)
        part._numbers = number[part._rows].astype(self._rows.dtype)
        part._plain = None
        return part

    def _numbers_at(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers = self._rows if self._numbers is None else self._numbers
        rows: NDArray[np.int64] = numbers[slots].astype(np.int64)
        return rows

    def _nearest(self, code: NDArray[np.uint8], likeliest: int, k: int) -> NearestRows:
        start, stop = (int(n) for n in self._starts[likeliest : likeliest + 2])
        first, last = (start, stop) if stop - start >= k else (0, len(self))
        candidates = min(_CANDIDATES * k, last - first)
        hamming, slots = faiss.knn_hamming(code[None], self._codes[first:last], candidates)
        distances = self._adapted(hamming[0], slots[0] + first, likeliest)
        bound = float(np.partition(distances, k - 1)[k - 1])
        # A little more than the quotient, for the rounding of exp, product and quotient.
        elsewhere = bound / math.exp(1 - self._runner_up[likeliest]) * (1 + 1e-12)
        balls = [
            _ball(self._codes, code, first, last, math.floor(radius))
            for first, last, radius in (
                (0, start, elsewhere),
                (start, stop, bound),
                (stop, len(self), elsewhere),
            )
            if first < last
        ]
        found, near = (np.concatenate(parts) for parts in zip(*balls, strict=True))
        return first_rows(self._numbers_at(found), self._adapted(near, found, likeliest), k)

    def _adapted(
        self, hamming: NDArray[Any], slots: NDArray[np.int64], likeliest: int
    ) -> NDArray[np.float64]:
        return adapted(hamming, self._probabilities[self._rows[slots], likeliest])


def _ball(
    codes: NDArray[np.uint8], query: NDArray[np.uint8], first: int, last: int, radius: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The slots from `first` to `last` within `radius` of `query` (bytes,), and their distances."""
    result = faiss.RangeSearchResult(1)
    search: Any = faiss.hamming_range_search  # type: ignore[attr-defined]  # only in SWIG
    search(
        faiss.swig_ptr(query),
        faiss.swig_ptr(codes[first:last]),
        1,
        last - first,
        radius + 1,  # FAISS's radius is exclusive
        codes.shape[1],
        result,
    )
    count = int(faiss.rev_swig_ptr(result.lims, 2)[1])
    slots = faiss.rev_swig_ptr(result.labels, count).astype(np.int64) + first
    return slots, faiss.rev_swig_ptr(result.distances, count).astype(np.float64)
