"""Row numbers: those that a search finds, with their distances, and those it is limited to."""

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
    """The k nearest of `rows` (N,) in any order; sorts only those and the ties of the last."""
    if k < len(distances):
        near = distances <= np.partition(distances, k - 1)[k - 1]
        rows, distances = rows[near], distances[near]
    order = np.lexsort((rows, distances))[:k]
    return NearestRows(rows[order], distances[order])


def selector(rows: NDArray[np.int64], count: int) -> Any:
    """FAISS's selector of some `rows` of `count`."""
    chosen = np.zeros(count, np.bool_)
    chosen[rows] = True
    # In Python it takes the bits, and keeps them; FAISS's type stubs know its C++ form.
    bitmap: Any = faiss.IDSelectorBitmap
    return bitmap(np.packbits(chosen, bitorder="little"))
