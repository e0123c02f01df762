"""Approximate search in an index: RaBitQ codes choose candidates, exact distances order them.

`rsir.store.knn.ivf_build` builds the index; its documentation has the measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from rsir.store.knn.floats import FlatFloats
from rsir.store.knn.rows import NearestRows, first_rows, selector
from rsir.store.knn.vectors import unit_vectors

JUDGED_K = 100
"""The build tunes the parameters to find this many nearest rows. Our choice."""

_NARROW = 0.1
_NARROW_CANDIDATES = 500
"""If less than this share of the rows meets a filter, a search compares at least this many
candidates. Our choice: the nearest of few rows are far away, and RaBitQ orders far rows less well.
For a filter that 2,000 of the benchmark's 100,000 rows meet, 200 candidates have 87 % of the 100
nearest, 500 have 98.5 %."""


class IvfParameters(NamedTuple):
    """The parameters of a search for k up to `JUDGED_K`; the build of the index measures them.

    probes: number of lists to scan. candidates: number of vectors to compare. recall: the share of
    the nearest rows that a search with these numbers finds.
    """

    probes: int
    candidates: int
    recall: float


@dataclass(frozen=True, eq=False)
class Index:
    """An index in memory and in mapped files. The position of a row is its number in the index.

    row_ids: the rows' addresses in the table, ascending, (N,) uint64. vectors (N, D) float32,
    mapped. lists: FAISS's IndexPreTransform that centres and rotates vectors and holds their codes
    in an IndexIVFRaBitQ. metric, scale: see `comparable`.
    """

    row_ids: NDArray[np.uint64]
    vectors: NDArray[np.float32]
    lists: Any
    metric: str
    scale: float
    parameters: IvfParameters

    def __len__(self) -> int:
        return len(self.row_ids)

    @cached_property
    def list_count(self) -> int:
        """The number of inverted lists."""
        count: int = faiss.extract_index_ivf(self.lists).nlist
        return count

    def candidate_count(self, k: int, subset: RowSubset) -> int:
        """How many rows of `subset` to compare with each query."""
        count = math.ceil(self.parameters.candidates * max(1.0, k / JUDGED_K))
        if subset.share < _NARROW:
            count = max(count, _NARROW_CANDIDATES)
        return min(count, len(subset))

    def candidates(
        self, queries: NDArray[np.float32], k: int, subset: RowSubset
    ) -> list[NDArray[np.int64]]:
        """The positions of the rows of `subset` to compare with each query (Q, D)."""
        queries = comparable(queries, self.metric, self.scale)
        count = self.candidate_count(k, subset)
        probes = math.ceil(self.parameters.probes * max(1.0, k / JUDGED_K) / subset.share)
        found = self.nearest_codes(queries, count, probes, subset)
        enough = min(k, count) if subset.selector is None else count
        for query, positions in enumerate(found):
            if len(positions) < enough:  # the scanned lists have too few rows of the subset
                single = queries[query : query + 1]
                (found[query],) = self.nearest_codes(single, count, self.list_count, subset)
        return found

    def nearest_codes(
        self, queries: NDArray[np.float32], count: int, probes: int, subset: RowSubset
    ) -> list[NDArray[np.int64]]:
        """The positions of the `count` rows nearest by their codes, for each comparable query.

        A query gets fewer rows if the scanned lists have fewer.
        """
        parameters = faiss.IVFRaBitQSearchParameters()
        parameters.nprobe = min(probes, self.list_count)
        parameters.sel = subset.selector
        transformed = faiss.SearchParametersPreTransform()
        transformed.index_params = parameters
        distances = np.empty((len(queries), count), np.float32)
        positions = np.empty((len(queries), count), np.int64)
        # `search` does not work here: faiss.contrib.torch_utils, which pytorch-metric-learning
        # imports, replaces it by a function without parameters.
        self.lists.search_c(
            len(queries),
            faiss.swig_ptr(queries),
            count,
            faiss.swig_ptr(distances),
            faiss.swig_ptr(positions),
            transformed,
        )
        return [row[row >= 0] for row in positions]


class RowSubset:
    """The rows of an index that are searched: all, or those at some positions (ascending)."""

    def __init__(self, index: Index, positions: NDArray[np.int64] | None = None) -> None:
        self._count = len(index)
        self._positions = positions

    def __len__(self) -> int:
        return self._count if self._positions is None else len(self._positions)

    @property
    def positions(self) -> NDArray[np.int64]:
        """The positions of these rows, ascending."""
        return np.arange(self._count) if self._positions is None else self._positions

    @property
    def share(self) -> float:
        """These rows' share of the index."""
        return len(self) / self._count

    @cached_property
    def selector(self) -> Any | None:
        """FAISS's selector of these rows; None for all."""
        if self._positions is None:
            return None
        return selector(self._positions, self._count)


class SearchScope(NamedTuple):
    """The rows of a version to search: all, or those that meet a filter.

    indexed: the rows that the index has. fresh_rows: all other rows, numbered as in the version.
    fresh: the exact search among the fresh rows.
    """

    indexed: RowSubset
    fresh_rows: NDArray[np.int64]
    fresh: FlatFloats


class IndexView:
    """An index for one version of the table: without deleted rows, and with rows added since.

    row_of: the version's row at each position of the index, -1 if it is deleted. fresh_rows, fresh:
    the rows that the index lacks, as in `SearchScope`.
    """

    def __init__(
        self,
        index: Index,
        metric: str,
        row_of: NDArray[np.int64],
        fresh_rows: NDArray[np.int64],
        fresh: FlatFloats,
    ) -> None:
        self._index = index
        self._metric = metric
        self._row_of = row_of
        exists = row_of >= 0
        indexed = RowSubset(index, None if exists.all() else np.flatnonzero(exists))
        self.whole = SearchScope(indexed, fresh_rows, fresh)

    def among(self, rows: NDArray[Any]) -> SearchScope:
        """The scope of some of the version's rows."""
        whole = self.whole
        # The last element is for the -1 of deleted rows.
        chosen = np.zeros(len(whole.indexed) + len(whole.fresh_rows) + 1, np.bool_)
        chosen[rows] = True
        fresh = np.flatnonzero(chosen[whole.fresh_rows])
        return SearchScope(
            RowSubset(self._index, np.flatnonzero(chosen[self._row_of])),
            whole.fresh_rows[fresh],
            whole.fresh.subset(fresh),
        )

    def nearest(
        self, queries: NDArray[np.float32], k: int, scope: SearchScope
    ) -> list[NearestRows]:
        """The k rows nearest to each query, among the candidates and the fresh rows of `scope`."""
        fresh = scope.fresh.nearest(queries, k)
        subset = scope.indexed
        if self._index.candidate_count(k, subset) == len(subset):
            indexed = self._compared(queries, subset.positions, k)
        else:
            candidates = self._index.candidates(queries, k, subset)
            indexed = [
                self._compared(query[None], positions, k)[0]
                for query, positions in zip(queries, candidates, strict=True)
            ]
        return [
            _merged(some, NearestRows(scope.fresh_rows[rows], distances), k)
            for some, (rows, distances) in zip(indexed, fresh, strict=True)
        ]

    def _compared(
        self, queries: NDArray[np.float32], positions: NDArray[np.int64], k: int
    ) -> list[NearestRows]:
        """The k rows nearest to each query (Q, D) of those at `positions`, by exact distances."""
        rows = self._row_of[positions]
        order = np.argsort(rows)  # FlatFloats orders equal distances by row
        rows = rows[order]
        search = FlatFloats(self._index.vectors[positions[order]], self._metric)
        return [
            NearestRows(rows[nearest], distances)
            for nearest, distances in search.nearest(queries, k)
        ]


def _merged(first: NearestRows, second: NearestRows, k: int) -> NearestRows:
    """The k nearest rows of two answers."""
    if not len(first.rows) or not len(second.rows):
        return first if len(first.rows) else second
    rows = np.concatenate([first.rows, second.rows])
    return first_rows(rows, np.concatenate([first.distances, second.distances]), k)


def comparable(vectors: NDArray[np.float32], metric: str, scale: float) -> NDArray[np.float32]:
    """`vectors` (N, D) such that Euclidean distances order them as `metric` does, C-contiguous.

    Scales vectors of "cosine" and "ncc" to length 1, and multiplies vectors of "euclidean" by
    `scale`, so that no square overflows.
    """
    if metric == "euclidean":
        # In float64, because the smallest scales are no float32.
        return np.ascontiguousarray(vectors * np.float64(scale), np.float32)
    return np.ascontiguousarray(unit_vectors(vectors, metric == "ncc"))
