"""One query vector from positive and negative examples (Rocchio)."""

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
"""If a sum of directions or of class probabilities is at most this, the terms cancel each other
out. Our choice, some ten times the rounding error of float32."""

_CANCELLED = "the examples cancel each other out; leave some of them out"


def refined(
    metric: str | Metric,
    dimension: int,
    query: NDArray[Any] | None,
    like: NDArray[Any],
    unlike: NDArray[Any],
) -> NDArray[Any]:
    """The vector (width,) 1 · query + 0.75 · mean of `like` - 0.15 · mean of `unlike`.

    query: (width,) or None; like, unlike: (P, width), (N, width), any number of vectors of the
    metric. After Rocchio, "Relevance feedback in information retrieval" (1971). For cosine and ncc,
    where only directions count, vectors are scaled to length 1 first, so that long vectors have no
    more weight. Bits of codes count as ±1: the result has the signs of the sum, and at 0 the bit of
    the first vector. Class probabilities are summed in the same way; negative sums become 0, and
    the sums are scaled so that they add up to 1.

    Raises UsageError without `query` and `like`, and if the vectors cancel each other out.
    """
    metric = metric_named(metric)
    if query is None and not len(like):
        raise UsageError("a search needs a query or a positive example")
    parts = [] if query is None else [(QUERY, query[None])]
    parts += [(weight, rows) for weight, rows in ((LIKE, like), (-UNLIKE, unlike)) if len(rows)]
    if len(parts) == 1 and len(parts[0][1]) == 1:
        single: NDArray[Any] = parts[0][1][0]
        return single
    if metric.kind == "float":
        return _summed_floats(metric, parts)
    return _summed_codes(metric, dimension, parts)


_Parts = list[tuple[float, NDArray[Any]]]
"""A weight, and the vectors (N, width) whose mean it applies to."""


def _summed_floats(metric: Metric, parts: _Parts) -> NDArray[np.float32]:
    means = [weight * _directions(metric, rows).mean(axis=0) for weight, rows in parts]
    summed: NDArray[np.float32] = np.sum(means, axis=0).astype(np.float32)
    nothing = metric.name != "euclidean" and np.linalg.norm(summed) <= _NOTHING
    if nothing or metric.faults(summed[None]):
        raise UsageError(_CANCELLED)
    return summed


def _summed_codes(metric: Metric, dimension: int, parts: _Parts) -> NDArray[np.uint8]:
    """A code (width,), with class probabilities if the metric has them."""
    weights = [weight for weight, _ in parts]
    # Without classes a row is only a code.
    codes, chances = zip(
        *(unpacked(rows, metric.classes) if metric.classes else (rows, None) for _, rows in parts),
        strict=True,
    )
    signs = np.sum(
        [
            weight * (2.0 * np.unpackbits(code, axis=1, count=dimension) - 1).mean(axis=0)
            for weight, code in zip(weights, codes, strict=True)
        ],
        axis=0,
    )
    first = np.unpackbits(codes[0][0], count=dimension)
    # Sums of a few fractions: a value this small is 0, except for rounding.
    bits = np.where(np.abs(signs) < 1e-9, first, signs > 0)
    code: NDArray[np.uint8] = np.packbits(bits.astype(np.uint8))
    if not metric.classes:
        return code
    means = [w * c.astype(np.float64).mean(axis=0) for w, c in zip(weights, chances, strict=True)]
    summed = np.sum(means, axis=0).clip(min=0)
    if summed.sum() <= _NOTHING:
        raise UsageError(_CANCELLED)
    combined: NDArray[np.uint8] = packed(
        code[None], (summed / summed.sum()).astype(np.float32)[None]
    )[0]
    return combined


def _directions(metric: Metric, rows: NDArray[Any]) -> NDArray[np.float64]:
    values = rows.astype(np.float64)
    if metric.name == "ncc":
        values = values - values.mean(axis=1, keepdims=True)
    if metric.name in ("cosine", "ncc"):
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
    return values
