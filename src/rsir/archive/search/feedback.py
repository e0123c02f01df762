"""A query from several examples: what looks like these, and not like those (Rocchio)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.ranking import Metric, metric_named, packed, unpacked

QUERY, LIKE, UNLIKE = 1.0, 0.75, 0.15
"""Weights of the query, of the mean positive and of the mean negative example: the usual ones
(Manning, Raghavan & Schütze, "Introduction to information retrieval", 9.1.1)."""

_NOTHING = 1e-6
"""What is left of directions, or of class probabilities, that cancel each other out is rounding up
to here. Our choice, some ten times the rounding of float32."""


def refined(
    metric: str | Metric,
    dimension: int,
    query: NDArray[Any] | None,
    like: NDArray[Any],
    unlike: NDArray[Any],
) -> NDArray[Any]:
    """(width,) vector: 1 · query + 0.75 · mean of `like` - 0.15 · mean of `unlike`.

    query: (width,) or None; like, unlike: (P, width), (N, width), any number, of one archive's
    metric. After Rocchio, "Relevance feedback in information retrieval" (1971). Where only
    directions count (cosine, ncc) the vectors are brought to length 1 first, so that long ones
    have no more to say.
    Codes are taken as ±1: the result has the signs of the sum, and where it is 0 the bit of the
    first vector given. Class probabilities are summed alike, set to 0 where negative, and brought
    to the sum 1 again.

    Raises UsageError without query and `like`, and where nothing is left of the sum.
    """
    metric = metric_named(metric)
    if query is None and not len(like):
        raise UsageError("a search needs a query or an example of what is wanted")
    parts = [] if query is None else [(QUERY, query[None])]
    parts += [(weight, rows) for weight, rows in ((LIKE, like), (-UNLIKE, unlike)) if len(rows)]
    if len(parts) == 1 and len(parts[0][1]) == 1:
        alone: NDArray[Any] = parts[0][1][0]
        return alone
    if metric.kind == "float":
        means = [weight * _directions(metric, rows).mean(axis=0) for weight, rows in parts]
        summed: NDArray[np.float32] = np.sum(means, axis=0).astype(np.float32)
        nothing = metric.name != "euclidean" and np.linalg.norm(summed) <= _NOTHING
        if nothing or metric.faults(summed[None]):
            raise UsageError("the examples cancel each other out; leave some of them out")
        return summed
    codes = [(weight, _parted(metric, rows)) for weight, rows in parts]
    signs = np.sum(
        [
            weight * (2.0 * np.unpackbits(code, axis=1, count=dimension) - 1).mean(axis=0)
            for weight, (code, _) in codes
        ],
        axis=0,
    )
    first = np.unpackbits(codes[0][1][0][0], count=dimension)
    # Sums of a few thirds and quarters: what is nearly 0 is 0.
    bits = np.where(np.abs(signs) < 1e-9, first, signs > 0)
    code: NDArray[np.uint8] = np.packbits(bits.astype(np.uint8))[None]
    if not metric.classes:
        plain: NDArray[np.uint8] = code[0]
        return plain
    means = [weight * rows.astype(np.float64).mean(axis=0) for weight, (_, rows) in codes]
    chances = np.sum(means, axis=0).clip(min=0)
    if chances.sum() <= _NOTHING:
        raise UsageError("the examples cancel each other out; leave some of them out")
    both: NDArray[np.uint8] = packed(code, (chances / chances.sum()).astype(np.float32)[None])[0]
    return both


def _directions(metric: Metric, rows: NDArray[Any]) -> NDArray[np.float64]:
    values = rows.astype(np.float64)
    if metric.name == "ncc":
        values = values - values.mean(axis=1, keepdims=True)
    if metric.name in ("cosine", "ncc"):
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
    return values


def _parted(metric: Metric, rows: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes and class probabilities, none of them for plain Hamming."""
    if metric.classes:
        return unpacked(rows, metric.classes)
    return rows, np.empty((len(rows), 0), np.float32)
