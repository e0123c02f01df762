"""Distances between embeddings or hash codes, and exact ranking by them.

Every distance is smaller-is-better; `score` is the one place where it is turned round.
Equal vectors have bit-equal distances wherever they stand in an array: each distance is a float64
sum along one contiguous row, never a matrix product (whose order of summation depends on the
shape). So ties are real ties, and they are ordered by id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rsir.errors import UsageError

_BLOCK_VALUES = 1 << 20
"""Values of a gallery block that are worked on at once: 8 MiB in float64. Our choice; fits caches
of server CPUs and keeps temporaries small beside the gallery."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Metric:
    """One distance: what vectors it takes, how it is computed, how it becomes a score.

    kind: "float" for real vectors (N, D), "bits" for codes (N, bits / 8) uint8 packed as by
    `numpy.packbits`.
    """

    name: str
    kind: Literal["float", "bits"]
    _prepare: Callable[[NDArray[Any]], NDArray[Any]]
    _distances: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]
    _score: Callable[[NDArray[np.float64], int | None], NDArray[np.float64]]
    _fault: Callable[[NDArray[Any]], tuple[NDArray[np.bool_], str]] | None = None

    def width(self, dimension: int) -> int:
        """Values per row of an array of vectors: D floats, or bits / 8 bytes.

        Raises UsageError if no vector of this metric has such a dimension.
        """
        if dimension < 1 or (self.kind == "bits" and dimension % 8):
            wanted = "a positive multiple of 8 bits" if self.kind == "bits" else "at least 1"
            raise UsageError(f"the dimension for '{self.name}' is {wanted}, not {dimension}")
        return dimension // 8 if self.kind == "bits" else dimension

    def faults(self, vectors: NDArray[Any]) -> dict[int, str]:
        """Why single rows of `vectors` (N, width) cannot be ranked, by row; empty if all can."""
        if self.kind == "bits":
            return {}
        values = np.asarray(vectors)
        # Written so that NaN fails it too.
        bad = ~(np.abs(values) <= _FLOAT32_MAX).all(axis=1)
        found = dict.fromkeys(
            np.flatnonzero(bad).tolist(),
            "the vector has a value that is not finite (or is beyond float32)",
        )
        if self._fault is not None:
            flat, reason = self._fault(np.where(bad[:, None], 1, values).astype(np.float64))
            found |= dict.fromkeys(np.flatnonzero(flat & ~bad).tolist(), reason)
        return dict(sorted(found.items()))

    def check(
        self, vectors: ArrayLike, dimension: int | None = None, what: str = "vectors"
    ) -> NDArray[Any]:
        """`vectors` as an (N, width) C-contiguous array of real numbers or uint8 codes.

        Raises UsageError for another shape, dtype or (if given) `dimension`, and for a row that
        the metric cannot rank: NaN or infinite values, a zero vector under "cosine", a constant
        one under "ncc". `what` names the argument in the message.
        """
        array = np.asarray(vectors)
        if array.ndim != 2:
            raise UsageError(f"{what} must be a 2-D array, one vector a row, not {array.ndim}-D")
        if self.kind == "bits" and array.dtype != np.uint8:
            raise UsageError(
                f"{what} must be uint8 codes packed by numpy.packbits for '{self.name}', "
                f"not {array.dtype}"
            )
        if self.kind == "float" and array.dtype.kind not in "fiu":
            raise UsageError(f"{what} must be real numbers for '{self.name}', not {array.dtype}")
        if dimension is not None and array.shape[1] != self.width(dimension):
            unit = " bytes" if self.kind == "bits" else ""
            raise UsageError(
                f"{what} must have {self.width(dimension)}{unit} columns, not {array.shape[1]}"
            )
        for row, reason in self.faults(array).items():
            raise UsageError(f"{what}, row {row}: {reason}")
        return np.ascontiguousarray(array)


def _same(vectors: NDArray[Any]) -> NDArray[Any]:
    return vectors


def _as_float(vectors: NDArray[Any]) -> NDArray[np.float64]:
    return np.ascontiguousarray(vectors, dtype=np.float64)


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    values = _as_float(vectors)
    unit: NDArray[np.float64] = values / np.sqrt((values * values).sum(axis=1))[:, None]
    return unit


def _centred_unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    values = _as_float(vectors)
    return _unit(values - values.mean(axis=1)[:, None])


def _l2(query: NDArray[Any], gallery: NDArray[Any]) -> NDArray[np.float64]:
    difference = gallery - query
    distances: NDArray[np.float64] = np.sqrt((difference * difference).sum(axis=1))
    return distances


def _one_minus_dot(query: NDArray[Any], gallery: NDArray[Any]) -> NDArray[np.float64]:
    # Rounding can take the dot product of two unit vectors past ±1.
    distances: NDArray[np.float64] = np.clip(1.0 - (gallery * query).sum(axis=1), 0.0, 2.0)
    return distances


def _differing_bits(query: NDArray[Any], gallery: NDArray[Any]) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.bitwise_count(gallery ^ query).sum(axis=1, dtype=np.float64)
    return distances


def _zero(values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
    # Squares below the smallest normal float64 have lost digits; no float32 is that small.
    tiny = (values * values).sum(axis=1) < np.finfo(np.float64).tiny
    return tiny, "the zero vector has no direction, so no cosine"


def _constant(values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
    if not values.shape[1]:
        return np.ones(len(values), dtype=np.bool_), "an empty vector has no correlation"
    centred = values - values.mean(axis=1)[:, None]
    flat = (centred * centred).sum(axis=1) < np.finfo(np.float64).tiny
    flat |= values.max(axis=1) == values.min(axis=1)
    return flat, "a constant vector has no correlation with any other"


def _complement(distance: NDArray[np.float64], _bits: int | None) -> NDArray[np.float64]:
    return 1.0 - distance


def _inverse(distance: NDArray[np.float64], _bits: int | None) -> NDArray[np.float64]:
    return 1.0 / (1.0 + distance)


def _equal_share(distance: NDArray[np.float64], bits: int | None) -> NDArray[np.float64]:
    if bits is None or bits < 1:
        raise UsageError("a score from a Hamming distance needs bits=, the length of the codes")
    return 1.0 - distance / bits


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("euclidean", "float", _as_float, _l2, _inverse),
        Metric("cosine", "float", _unit, _one_minus_dot, _complement, _zero),
        # Normalised correlation coefficient: the cosine of the mean-centred vectors.
        Metric("ncc", "float", _centred_unit, _one_minus_dot, _complement, _constant),
        Metric("hamming", "bits", _same, _differing_bits, _equal_share),
    )
}
"""The distances by name."""


def metric_named(name: str | Metric) -> Metric:
    """The metric called `name`; UsageError, listing the names, if there is none."""
    if isinstance(name, Metric):
        return name
    if name not in METRICS:
        raise UsageError(f"no metric is called '{name}'; there are: {', '.join(METRICS)}")
    return METRICS[name]


def pairwise(metric: str | Metric, queries: ArrayLike, gallery: ArrayLike) -> NDArray[np.float64]:
    """Distances (Q, N) float64 of every query to every gallery vector.

    queries (Q, D) and gallery (N, D) are real numbers, or (., bits / 8) uint8 for "hamming".
    Equal rows get bit-equal distances. Raises UsageError for what `Metric.check` refuses.
    """
    metric = metric_named(metric)
    left = metric.check(queries, what="queries")
    right = metric.check(gallery, what="gallery")
    if left.shape[1] != right.shape[1]:
        raise UsageError(
            f"queries have {left.shape[1]} columns and the gallery has {right.shape[1]}"
        )
    prepared = metric._prepare(left)
    distances = np.empty((len(left), len(right)), dtype=np.float64)
    step = max(1, _BLOCK_VALUES // max(1, right.shape[1]))
    for start in range(0, len(right), step):
        block = metric._prepare(right[start : start + step])
        for row, query in enumerate(prepared):
            distances[row, start : start + step] = metric._distances(query, block)
    return distances


@overload
def score(metric: str | Metric, distance: float, bits: int | None = None) -> float: ...
@overload
def score(
    metric: str | Metric, distance: NDArray[np.floating[Any]], bits: int | None = None
) -> NDArray[np.float64]: ...
def score(
    metric: str | Metric, distance: float | NDArray[np.floating[Any]], bits: int | None = None
) -> float | NDArray[np.float64]:
    """The larger-is-better score of a distance, or of an array of them.

    1 - d for "cosine" and "ncc" (the similarity itself, -1 to 1), 1 / (1 + d) for "euclidean"
    (0 to 1, our choice: bounded, and 1 for equal vectors), and 1 - d / bits for "hamming" (the
    share of equal bits, 0 to 1), which needs `bits`.
    """
    scores = metric_named(metric)._score(np.asarray(distance, dtype=np.float64), bits)
    return scores if isinstance(distance, np.ndarray) else float(scores)


def nearest(
    metric: str | Metric, queries: ArrayLike, gallery: ArrayLike, ids: Sequence[str], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The min(k, N) nearest gallery rows of each query, nearest first, ties ordered by id.

    Returns the rows (Q, min(k, N)) int64 and their distances, float64. `ids` names the N gallery
    rows. Raises UsageError for k < 1 or another number of ids, and as `pairwise` does.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    distances = pairwise(metric, queries, gallery)
    count = distances.shape[1]
    if len(ids) != count:
        raise UsageError(f"{len(ids)} ids for a gallery of {count} vectors")
    by_id = np.array(sorted(range(count), key=ids.__getitem__), dtype=np.int64)
    # A stable sort of columns that already stand in the order of their ids.
    order = by_id[np.argsort(distances[:, by_id], axis=1, kind="stable")[:, :k]]
    return order, np.take_along_axis(distances, order, axis=1)
