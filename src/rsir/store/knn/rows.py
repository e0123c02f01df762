"""Row numbers: the rows that a search finds, with distances, and the rows that it may find."""

from __future__ import annotations

from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray


class NearestRows(NamedTuple):
    """The rows nearest to one query, nearest first; equal distances are ordered by row.

    rows (K,) int64 and distances (K,) float64.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


NO_ROWS = NearestRows(np.empty(0, np.int64), np.empty(0))


def first_rows(rows: NDArray[np.int64], distances: NDArray[np.float64], k: int) -> NearestRows:
    """The k nearest of `rows` (N,), given in any order; ties are ordered by row."""
    if k < len(distances):
        near = distances <= np.partition(distances, k - 1)[k - 1]
        rows, distances = rows[near], distances[near]
    order = np.lexsort((rows, distances))[:k]
    return NearestRows(rows[order], distances[order])


def selector(rows: NDArray[np.int64], count: int) -> Any:
    """FAISS's selector of `rows`, out of `count` rows."""
    chosen = np.zeros(count, np.bool_)
    chosen[rows] = True
    # FAISS's type stubs have only the C++ constructor; in Python it takes the bits, and keeps them.
    bitmap: Any = faiss.IDSelectorBitmap
    return bitmap(np.packbits(chosen, bitorder="little"))
