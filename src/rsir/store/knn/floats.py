"""Exact search of float vectors: FAISS proposes rows, `rsir.ranking` computes their distances."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rsir.ranking import pairwise
from rsir.store.knn.rounding import UNIT_TOLERANCE, rounding_error
from rsir.store.knn.rows import NO_ROWS, NearestRows, first_rows, selector
from rsir.store.knn.vectors import BLOCK_VALUES, blocks, lengths, unit_vectors

_SLACK = 32
"""Candidates requested beyond k, so that near ties at rank k rarely need a second pass over the
vectors. Our choice."""

_COPIED_FROM = 8
"""From this many queries on, it costs less to copy a subset's vectors and compare them by matrix
products than to compare row by row. Our choice; FAISS itself switches at 20."""


class FlatFloats:
    """Exact search over vectors (N, D) float32; the row number breaks ties.

    FAISS's float32 value for a query and a row is within `rounding_error` of the true value. Let t
    be the k-th smallest exact distance among the candidates; the k-th smallest distance of all rows
    is not larger. Every other row has a FAISS value no better than the worst candidate. So if the
    value of the worst candidate exceeds t by more than the error, no other row is within t.
    Otherwise a second pass collects every row whose float32 value is at most t plus the error.

    "euclidean" compares the vectors themselves, by their squared distance; "cosine" and "ncc" unit
    vectors, by one minus their inner product.
    """

    def __init__(self, vectors: NDArray[np.float32], metric: str) -> None:
        self._metric = metric
        self._euclidean = metric == "euclidean"
        self._vectors = vectors
        self._compared = self._comparable(vectors)
        self._longest = 1 + UNIT_TOLERANCE
        if self._euclidean:
            self._longest = max(
                (float(lengths(block).max()) for _, block in blocks(vectors)), default=0.0
            )
        # Only in a subset that shares the vectors: the rows of the subset, ascending.
        self._rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._vectors) if self._rows is None else len(self._rows)

    def subset(self, rows: NDArray[np.int64]) -> FlatFloats:
        """A search of the vectors at `rows` (ascending), numbered from 0.

        Copies the vectors if they are small; otherwise shares them and skips the other rows.
        """
        part = FlatFloats.__new__(FlatFloats)
        part._metric, part._euclidean, part._longest = self._metric, self._euclidean, self._longest
        if len(rows) * self._vectors.shape[1] <= BLOCK_VALUES:
            part._vectors = self._vectors[rows]
            shared = self._compared is self._vectors
            part._compared = part._vectors if shared else self._compared[rows]
            part._rows = None
        else:
            part._vectors, part._compared, part._rows = self._vectors, self._compared, rows
        return part

    def nearest(self, queries: NDArray[np.float32], k: int) -> list[NearestRows]:
        """The min(k, N) rows nearest to each query."""
        k = min(k, len(self))
        if not k or not len(queries):
            return [NO_ROWS] * len(queries)
        compared = self._comparable(queries)
        errors = [
            rounding_error(
                queries.shape[1], float(length), self._longest, euclidean=self._euclidean
            )
            for length in lengths(compared)
        ]
        values, candidates = self._candidates(compared, min(len(self), k + _SLACK))
        each = zip(queries, compared, values, candidates, errors, strict=True)
        return [self._exact(*query, k) for query in each]

    def _comparable(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors if self._euclidean else unit_vectors(vectors, self._metric == "ncc")

    def _candidates(
        self, compared: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The values (smaller is nearer) and rows of FAISS's `count` nearest, both (Q, count)."""
        kind = faiss.METRIC_L2 if self._euclidean else faiss.METRIC_INNER_PRODUCT
        if self._rows is None:
            values, rows = faiss.knn(compared, self._compared, count, kind)
        elif len(compared) < _COPIED_FROM:
            values, rows = _knn_among(self._rows, compared, self._compared, count, kind)
            rows = np.searchsorted(self._rows, rows)
        else:
            # Copies the rows block by block, each once for all queries.
            heap = faiss.ResultHeap(len(compared), count, keep_max=not self._euclidean)
            for start, block in blocks(self._rows, compared.shape[1]):
                some = min(count, len(block))
                values, rows = faiss.knn(compared, self._compared[block], some, kind)
                heap.add_result(values, rows + start)
            heap.finalize()
            values, rows = heap.D, heap.I
        values64 = values.astype(np.float64)
        return (values64 if self._euclidean else 1.0 - values64), rows

    def _exact(
        self,
        query: NDArray[np.float32],
        compared: NDArray[np.float32],
        values: NDArray[np.float64],
        candidates: NDArray[np.int64],
        error: float,
        k: int,
    ) -> NearestRows:
        """The k nearest rows, given FAISS's candidates and the bound on its error."""
        if not np.isfinite(error):
            # FAISS's values may have overflowed: compare with every row.
            return self._first(query, np.arange(len(self)), k)
        nearest = self._first(query, candidates, k)
        farthest = float(nearest.distances[-1])
        limit = (farthest**2 if self._euclidean else farthest) + error
        if len(candidates) == len(self) or values[-1] > limit:
            return nearest
        return self._first(query, self._within(compared, limit), k)

    def _within(self, compared: NDArray[np.float32], limit: float) -> NDArray[np.int64]:
        """The rows whose float32 value is at most `limit`."""
        near = []
        for start, block in blocks(self._compared):
            if self._euclidean:
                difference = block - compared
                values = np.einsum("nd,nd->n", difference, difference).astype(np.float64)
            else:
                values = 1.0 - (block @ compared).astype(np.float64)
            near.append(np.flatnonzero(values <= limit) + start)
        rows: NDArray[np.int64] = np.concatenate(near)
        if self._rows is None:
            return rows
        return np.flatnonzero(np.isin(self._rows, rows, assume_unique=True))

    def _first(self, query: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> NearestRows:
        vectors = self._vectors[rows if self._rows is None else self._rows[rows]]
        return first_rows(rows, pairwise(self._metric, query[None], vectors)[0], k)


def _knn_among(
    rows: NDArray[np.int64],
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    count: int,
    kind: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`faiss.knn` among some of the rows of `vectors`; its Python form takes no selector."""
    queries = np.ascontiguousarray(queries)
    values = np.empty((len(queries), count), np.float32)
    found = np.empty((len(queries), count), np.int64)
    euclidean = kind == faiss.METRIC_L2
    knn: Any = faiss.knn_L2sqr if euclidean else faiss.knn_inner_product
    knn(
        faiss.swig_ptr(queries),
        faiss.swig_ptr(vectors),
        vectors.shape[1],
        len(queries),
        len(vectors),
        count,
        faiss.swig_ptr(values),
        faiss.swig_ptr(found),
        *([None] if euclidean else []),  # the vectors' squared lengths: FAISS computes them
        selector(rows, len(vectors)),
    )
    return values, found
