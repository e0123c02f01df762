"""Distances between embeddings or hash codes, and exact ranking by them.

A smaller distance is better, a larger score is better; `score` alone turns distances into scores.
Equal vectors have bit-equal distances at every row of an array: each distance is a float64 sum
along one contiguous row, never a matrix product (whose order of summation depends on the shape).
So rounding makes and hides no ties, and ids order the ties.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rsir.errors import UsageError

_BLOCK_VALUES = 1 << 20
"""Values in a block of the gallery (8 MiB in float64); `pairwise` works on one block at a time. Our
choice: a block fits the caches of server CPUs, and temporary arrays stay small."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)

ADAPTIVE = "adaptive-hamming"
"""Hamming distance adapted by class probabilities (paper C, DAH). The name of the metric includes
the number of classes, "adaptive-hamming:30", because the width of its vectors depends on it."""

_PROBABILITY = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Metric:
    """A distance: the vectors that it takes, how to compute it, and how to turn it into a score.

    kind: "float" for real vectors (N, D); "bits" for rows of bytes (N, width) uint8, which begin
    with a code of ceil(bits / 8) bytes, packed as by `numpy.packbits`: its padding bits are zero.
    classes: K of "adaptive-hamming:K", whose rows continue with K probabilities (see `packed`); 0
    for all other metrics.
    """

    name: str
    kind: Literal["float", "bits"]
    _prepare: Callable[[NDArray[Any]], NDArray[Any]]
    _distances: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]
    _score: Callable[[NDArray[np.float64], int | None], NDArray[np.float64]]
    _fault: Callable[[NDArray[Any]], tuple[NDArray[np.bool_], str]] | None = None
    classes: int = 0

    def width(self, dimension: int) -> int:
        """Values per row of an array of vectors: D floats, or ceil(bits / 8) + 4 K bytes.

        Raises UsageError for a dimension below 1.
        """
        if dimension < 1:
            raise UsageError(f"the dimension for '{self.name}' is at least 1, not {dimension}")
        return -(-dimension // 8) + self._tail if self.kind == "bits" else dimension

    @property
    def _tail(self) -> int:
        """Bytes of the probabilities after the code in a row of bits."""
        return _PROBABILITY.itemsize * self.classes

    def faults(self, vectors: NDArray[Any], dimension: int | None = None) -> dict[int, str]:
        """The rows of `vectors` (N, width) that cannot be ranked, each with the reason.

        dimension: if given, a code whose padding bits are not zero counts as well.
        """
        values = np.asarray(vectors)
        found: dict[int, str]
        if self.kind == "bits":
            padding = -(dimension or 0) % 8
            # The padding is at the end of the code's last byte; a set bit would count as different.
            last = values[:, values.shape[1] - self._tail - 1] if padding else values[:, 0]
            found = _rows(
                (last & ((1 << padding) - 1)) != 0,
                f"the code has bits set beyond its {dimension}; pad with zeros, as numpy.packbits",
            )
            checked = values
        else:
            # NaN fails this comparison too.
            bad = ~(np.abs(values) <= _FLOAT32_MAX).all(axis=1)
            found = _rows(bad, "the vector has a value that is not finite (or is beyond float32)")
            checked = np.where(bad[:, None], 1, values).astype(np.float64)
        if self._fault is not None:
            found = _rows(*self._fault(checked)) | found
        return dict(sorted(found.items()))

    def check(
        self, vectors: ArrayLike, dimension: int | None = None, name: str = "vectors"
    ) -> NDArray[Any]:
        """`vectors` as an (N, width) C-contiguous array of real numbers or uint8 codes.

        Raises UsageError for another shape, dtype or (if given) `dimension`, and for a row that
        the metric cannot rank: NaN or infinite values, a zero vector under "cosine", a constant
        vector under "ncc", probabilities outside [0, 1]. name: of the argument, for the message.
        """
        array = np.asarray(vectors)
        if array.ndim != 2:
            raise UsageError(f"{name} must be a 2-D array, one vector a row, not {array.ndim}-D")
        if self.kind == "bits" and array.dtype != np.uint8:
            raise UsageError(
                f"{name} must be uint8 codes packed by numpy.packbits for '{self.name}', "
                f"not {array.dtype}"
            )
        if self.kind == "float" and array.dtype.kind not in "fiu":
            raise UsageError(f"{name} must be real numbers for '{self.name}', not {array.dtype}")
        if dimension is not None and array.shape[1] != self.width(dimension):
            unit = " bytes" if self.kind == "bits" else ""
            raise UsageError(
                f"{name} must have {self.width(dimension)}{unit} columns, not {array.shape[1]}"
            )
        if self.kind == "bits" and array.shape[1] <= self._tail:
            raise UsageError(
                f"{name} have {array.shape[1]} bytes; '{self.name}' takes a code of at least 1"
                + (f" and {self.classes} probabilities of 4" if self.classes else "")
            )
        for row, reason in self.faults(array, dimension).items():
            raise UsageError(f"{name}, row {row}: {reason}")
        return np.ascontiguousarray(array)


def packed(code: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Vectors of "adaptive-hamming:K", (N, ceil(bits / 8) + 4 K) uint8.

    A row is the code (N, ceil(bits / 8)) uint8 followed by the probabilities (N, K) as
    little-endian float32. Raises UsageError if they are not 2-D arrays of as many rows.
    """
    if code.ndim != 2 or code.dtype != np.uint8 or probabilities.ndim != 2:
        raise UsageError("packed takes codes (N, bytes) uint8 and probabilities (N, K)")
    if len(code) != len(probabilities):
        raise UsageError(f"{len(code)} codes with {len(probabilities)} rows of probabilities")
    values = np.ascontiguousarray(probabilities, dtype=_PROBABILITY)
    width = _PROBABILITY.itemsize * values.shape[1]
    return np.concatenate([code, values.view(np.uint8).reshape(len(code), width)], axis=1)


def unpacked(
    vectors: NDArray[np.uint8], classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The codes (N, ceil(bits / 8)) and the probabilities (N, K) of `packed` rows, as views.

    The views are of `vectors`, or of a contiguous copy if its rows are not contiguous.
    """
    vectors = np.ascontiguousarray(vectors)
    width = vectors.shape[1] - _PROBABILITY.itemsize * classes
    return vectors[:, :width], vectors[:, width:].view(_PROBABILITY)


def adapted(
    hamming: NDArray[np.floating[Any]], probability: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """D_a = e^(1 - p) · D_h (paper C, DAH), float64, never less than D_h.

    hamming: D_h; probability: p, the gallery item's probability of the query's class. The query's
    class is its most probable class, the first of equally probable classes. D_h ≤ D_a ≤ e · D_h.
    """
    # Contiguous, because NumPy may compute strided arrays by another routine.
    rest = np.ascontiguousarray(1.0 - probability.astype(np.float64))
    distances: NDArray[np.float64] = np.exp(rest) * hamming
    return distances


def _rows(bad: NDArray[np.bool_], reason: str) -> dict[int, str]:
    return dict.fromkeys(np.flatnonzero(bad).tolist(), reason)


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


def _adapted_bits(
    query: NDArray[Any], gallery: NDArray[Any], *, classes: int
) -> NDArray[np.float64]:
    code, probabilities = unpacked(query[None], classes)
    codes, gallery_probabilities = unpacked(gallery, classes)
    likeliest = int(probabilities[0].argmax())
    return adapted(_differing_bits(code[0], codes), gallery_probabilities[:, likeliest])


def _improbable(vectors: NDArray[np.uint8], *, classes: int) -> tuple[NDArray[np.bool_], str]:
    _, probabilities = unpacked(vectors, classes)
    # NaN fails these comparisons too.
    fit = (probabilities >= 0) & (probabilities <= 1)
    bad: NDArray[np.bool_] = ~np.logical_and.reduce(fit, axis=1)
    return bad, "a class probability is not finite or not within [0, 1]"


def _zero(values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
    # Sums below the smallest normal float64 have lost digits; squares of float32 are not so small.
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


def _adapted_share(distance: NDArray[np.float64], bits: int | None) -> NDArray[np.float64]:
    return _equal_share(distance / math.e, bits)


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
"""The metrics by name, except "adaptive-hamming:K", which `metric_named` makes."""


def metric_named(name: str | Metric) -> Metric:
    """The metric called `name`, e.g. "cosine" or "adaptive-hamming:30" (of 30 classes).

    Raises UsageError, which lists the names, if there is no such metric.
    """
    if isinstance(name, Metric):
        return name
    base, _, classes = name.partition(":")
    if base == ADAPTIVE:
        # Each metric has a single name, so there are no leading zeros and no signs.
        if not (classes.isascii() and classes.isdecimal()) or classes.startswith("0"):
            raise UsageError(
                f"'{name}' lacks the number of classes, on which the width of a vector depends: "
                f"write {ADAPTIVE}:K, e.g. {ADAPTIVE}:30"
            )
        return _adaptive(int(classes))
    if name not in METRICS:
        names = ", ".join([*METRICS, f"{ADAPTIVE}:K"])
        raise UsageError(f"no metric is called '{name}'; there are: {names}")
    return METRICS[name]


@functools.cache
def _adaptive(classes: int) -> Metric:
    return Metric(
        f"{ADAPTIVE}:{classes}",
        "bits",
        _same,
        functools.partial(_adapted_bits, classes=classes),
        _adapted_share,
        functools.partial(_improbable, classes=classes),
        classes,
    )


def name_with_classes(ranking: str, classes: int) -> str:
    """The name of the metric of a model's `ranking`, with K for "adaptive-hamming"."""
    return f"{ADAPTIVE}:{classes}" if ranking == ADAPTIVE else ranking


def pairwise(metric: str | Metric, queries: ArrayLike, gallery: ArrayLike) -> NDArray[np.float64]:
    """Distances (Q, N) float64 of every query to every gallery vector.

    queries (Q, D) and gallery (N, D) are real numbers, or (., width) uint8 for metrics of bits.
    Equal rows get bit-equal distances. Raises UsageError for what `Metric.check` refuses.
    """
    metric = metric_named(metric)
    left = metric.check(queries, name="queries")
    right = metric.check(gallery, name="gallery")
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
    (0 to 1, our choice: bounded, and 1 for equal vectors), 1 - d / bits for "hamming" (the share
    of equal bits, 0 to 1) and 1 - d / (e · bits) for "adaptive-hamming" (0 to 1, our choice: its
    distances go to e · bits). The last two need `bits`.
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
    # The columns are in the order of their ids, so a stable sort leaves ties in that order.
    order = by_id[np.argsort(distances[:, by_id], axis=1, kind="stable")[:, :k]]
    return order, np.take_along_axis(distances, order, axis=1)
