"""Exact search of codes by Hamming distance."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from rsir.store.knn.rows import NO_ROWS, NearestRows


class FlatCodes:
    """Exact Hamming search over codes (N, ceil(bits / 8)) uint8; the row number breaks ties.

    FAISS keeps a heap of (distance, row) with the largest pair on top, and replaces the top only
    by a smaller distance. Rows come in ascending order, so the lowest of the rows at an equal
    distance stay, in order (tests/store/knn/test_flat.py checks it).
    """

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def nearest(self, queries: NDArray[np.uint8], k: int) -> list[NearestRows]:
        """The min(k, N) rows nearest to each query."""
        k = min(k, len(self.codes))
        if not k or not len(queries):
            return [NO_ROWS] * len(queries)
        distances, rows = faiss.knn_hamming(queries, self.codes, k)
        return list(map(NearestRows, rows, distances.astype(np.float64)))

    def subset(self, rows: NDArray[np.int64]) -> FlatCodes:
        """A search of a copy of the codes at `rows` (ascending), numbered from 0."""
        return FlatCodes(self.codes[rows])
