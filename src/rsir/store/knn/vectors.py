"""Lengths and unit vectors of large arrays, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.store.knn.rounding import UNIT_TOLERANCE

BLOCK_VALUES = 1 << 22
"""Values in a block: 32 MiB in float64, little beside the vectors. Our choice."""


def blocks(rows: NDArray[Any], dimension: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Views of consecutive `rows`, each with the number of its first row.

    rows: vectors (N, D), or (N,) numbers of vectors of `dimension` values.
    """
    step = max(1, BLOCK_VALUES // (dimension or rows.shape[1]))
    for start in range(0, len(rows), step):
        yield start, rows[start : start + step]


def lengths(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The Euclidean lengths (N,) of `vectors` (N, D)."""
    squares: NDArray[np.float64] = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares)


def unit_vectors(vectors: NDArray[np.float32], centre: bool) -> NDArray[np.float32]:
    """`vectors` (N, D) at unit length, each less its own mean if `centre` (for "ncc").

    Returns `vectors` itself if all are unit vectors already.
    """
    if not centre and all(
        (np.abs(lengths(block) ** 2 - 1) <= UNIT_TOLERANCE).all() for _, block in blocks(vectors)
    ):
        return vectors
    unit = np.empty_like(vectors)
    for start, block in blocks(vectors):
        values = block.astype(np.float64)
        if centre:
            values -= values.mean(axis=1)[:, None]
        unit[start : start + len(block)] = values / np.sqrt((values**2).sum(axis=1))[:, None]
    return unit
