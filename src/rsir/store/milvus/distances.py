"""How Milvus' distances of candidates relate to the exact distances of `rsir.ranking`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ArchiveError
from rsir.ranking import adapted, pairwise, unpacked
from rsir.store.knn.rounding import UNIT_TOLERANCE, rounding_error
from rsir.store.milvus.collection import values_of
from rsir.store.milvus.rows import NAME, REST, SEVERAL, SURE, VECTOR, CollectionRow, Layout

_HAIR = 1 + 1e-12
"""More than the float64 rounding of a quotient or an exponential."""


class Ball(NamedTuple):
    """A range search: an expression for the rows, and Milvus' parameters for their distances."""

    where: str
    bounds: dict[str, float]


class ExactDistance(Protocol):
    """An exact distance, computed from found rows. `query` is the number of a query."""

    fields: Sequence[str]
    """The fields of a row from which the distance is computed."""

    overflows: bool
    """Whether Milvus may leave out rows because their values exceed float32."""

    def distances(self, query: int, rows: Sequence[CollectionRow]) -> NDArray[np.float64]:
        """The distances between a query and found rows, (N,)."""

    def limit(self, query: int, farthest: float) -> float:
        """No row with a larger Milvus value is within `farthest`; inf if no limit is known."""

    def balls(self, query: int, farthest: float) -> list[Ball]:
        """Range searches that find all rows within `farthest`."""

    def closer(self, query: int, rows: Sequence[CollectionRow], k: int) -> str:
        """An expression for rows of which k may be much nearer than k of `rows`, or ""."""


class HammingDistance:
    """Hamming distance, which Milvus computes exactly."""

    fields: Sequence[str] = (NAME,)
    overflows = False

    def distances(self, query: int, rows: Sequence[CollectionRow]) -> NDArray[np.float64]:
        """Milvus' distances."""
        return values_of(rows)

    def limit(self, query: int, farthest: float) -> float:
        """The distance itself."""
        return farthest

    def balls(self, query: int, farthest: float) -> list[Ball]:
        """The Hamming ball; Milvus' radius is a whole number outside the range."""
        return [Ball("", {"radius": math.floor(farthest) + 1})]

    def closer(self, query: int, rows: Sequence[CollectionRow], k: int) -> str:
        """No rows: Milvus' order is exact."""
        return ""


class AdaptedDistance:
    """Distance-adaptive Hamming: D_a = e^(1 - p) · D_h, so that D_h ≤ D_a.

    Rows with D_a ≤ t lie in the Hamming ball of radius t. In the outer shell, D_h > t / √e, such
    rows have p > 1/2. So in the shell, the range search reads only rows whose field SURE is the
    query's class or SEVERAL.
    """

    fields: Sequence[str] = (NAME, REST)
    overflows = False

    def __init__(self, layout: Layout, queries: NDArray[np.uint8]) -> None:
        self._layout = layout
        self._likeliest = unpacked(queries, layout.metric.classes)[1].argmax(axis=1)

    def distances(self, query: int, rows: Sequence[CollectionRow]) -> NDArray[np.float64]:
        """From Milvus' Hamming distances and the probabilities of the rows."""
        return adapted(values_of(rows), self._probabilities(query, rows))

    def limit(self, query: int, farthest: float) -> float:
        """D_h ≤ D_a."""
        return farthest

    def balls(self, query: int, farthest: float) -> list[Ball]:
        """The inner ball, and in the shell around it the rows that may have p > 1/2."""
        outer = math.floor(farthest)
        inner = math.floor(farthest / math.exp(0.5) * _HAIR)
        found = [Ball("", {"radius": inner + 1})]
        if outer > inner:
            shell = Ball(self._likely(query), {"radius": outer + 1, "range_filter": inner})
            found.append(shell)
        return found

    def closer(self, query: int, rows: Sequence[CollectionRow], k: int) -> str:
        """Rows with p > 1/2, if fewer than k of `rows` have it.

        If classes overlap, this makes the balls far smaller, so fewer rows are fetched. If classes
        are well separated, `rows` are enough, and "" saves a request.
        """
        return self._likely(query) if (self._probabilities(query, rows) > 0.5).sum() < k else ""

    def _probabilities(self, query: int, rows: Sequence[CollectionRow]) -> NDArray[np.float32]:
        """The probabilities p of the query's class, (N,)."""
        return self._layout.probabilities(rows)[:, self._likeliest[query]]

    def _likely(self, query: int) -> str:
        """The expression for rows that may have p > 1/2."""
        return f"{SURE} in [{self._likeliest[query]}, {SEVERAL}]"


class FloatDistance:
    """The distances of floats; Milvus has squared Euclidean distances, or 1 - an inner product.

    Milvus' float32 value is within `rounding_error` of the exact one, and a row within t of a
    query of length l is at most l + t long. The candidates, whose exact distances are known,
    reveal a server that is less precise.
    """

    fields: Sequence[str] = (NAME, VECTOR, REST)

    def __init__(
        self, layout: Layout, queries: NDArray[np.float32], compared: NDArray[np.float32]
    ) -> None:
        self._layout = layout
        self._queries = queries
        self._euclidean = self.overflows = layout.metric.name == "euclidean"
        self._lengths = np.sqrt(np.einsum("nd,nd->n", compared, compared, dtype=np.float64))

    def distances(self, query: int, rows: Sequence[CollectionRow]) -> NDArray[np.float64]:
        """In float64, from the vectors; ArchiveError if Milvus' values are less than float32."""
        vectors = self._layout.vectors(rows)
        found: NDArray[np.float64]
        found = pairwise(self._layout.metric, self._queries[query][None], vectors)[0]
        exact = found**2 if self._euclidean else found
        bounds = np.array([self._error(query, distance) for distance in found])
        if (np.abs(values_of(rows) - exact) > bounds).any():
            raise ArchiveError(
                "the Milvus server computes distances less precisely than in float32, so an exact "
                "search is not possible; give the collection a FLAT index again, and switch off "
                "the shortening of floats (e.g. to bfloat16)"
            )
        return found

    def limit(self, query: int, farthest: float) -> float:
        """The value of `farthest` plus the rounding error."""
        value = farthest**2 if self._euclidean else farthest
        return value + self._error(query, farthest)

    def balls(self, query: int, farthest: float) -> list[Ball]:
        """Milvus' range search slightly beyond the limit."""
        limit = np.float32(self.limit(query, farthest))
        if self._euclidean:
            return [Ball("", {"radius": float(np.nextafter(limit, np.float32(np.inf)))})]
        # For IP, larger is nearer, and Milvus' range lies above the radius.
        radius = np.nextafter(np.float32(1.0 - float(limit)), np.float32(-np.inf))
        return [Ball("", {"radius": float(np.nextafter(radius, np.float32(-np.inf)))})]

    def closer(self, query: int, rows: Sequence[CollectionRow], k: int) -> str:
        """No rows: Milvus' order is exact but for rounding."""
        return ""

    def _error(self, query: int, farthest: float) -> float:
        """A bound on the error of Milvus' value for a row within `farthest`."""
        length = float(self._lengths[query])
        row_length = length + farthest if self._euclidean else 1 + UNIT_TOLERANCE
        dimension = max(2, self._layout.dimension)
        return rounding_error(dimension, length, row_length, euclidean=self._euclidean)
