"""Exact search of a Milvus collection: Milvus proposes, `rsir.ranking` computes, ties go by id.

Milvus compares a query with every vector (FLAT, BIN_FLAT), in float32. Of its first candidates the
distances are computed in float64; let t be the k-th smallest of them. If Milvus' value of the last
candidate is so large that no other row can be within t, the answer is among the candidates.
Otherwise a range search brings all rows that can be, in as many parts as it takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ArchiveError
from rsir.ranking import Metric, adapted, pairwise, unpacked
from rsir.store.filters.filter import Filter
from rsir.store.knn.rounding import UNIT_TOLERANCE, rounding_error
from rsir.store.milvus.collection import Collection, by_value
from rsir.store.milvus.rows import (
    KEY,
    NAME,
    RECORD,
    REST,
    SEVERAL,
    SURE,
    VECTOR,
    Layout,
    Row,
    all_of,
    expression,
    meeting,
)

_SLACK = 32
"""Candidates asked for beyond k, so that near ties at the k-th place rarely need a second search.
Our choice, as in `rsir.store.knn.floats`."""

_CANDIDATES = 3
"""So many times k rows of the query's class are asked for to bound an adaptive search, where the
first candidates are mostly of others. Our choice, as in `rsir.store.knn.adaptive`."""

_HAIR = 1 + 1e-12
"""More than float64 rounding can take from a quotient or an exponential."""


class Found(NamedTuple):
    """A row of the answer; tuples of them sort as answers do."""

    distance: float
    id: str
    key: str


class Ball(NamedTuple):
    """A range search: an expression, and Milvus' parameters for the range of its distance."""

    where: str
    bounds: dict[str, float]


class Ranking(Protocol):
    """One distance, as far as Milvus' differs from it."""

    fields: Sequence[str]
    """Of a row, that the distance is computed from."""

    overflows: bool
    """Whether Milvus may leave out rows, whose values are beyond float32."""

    def distances(self, place: int, rows: Sequence[Row]) -> NDArray[np.float64]:
        """The distances of the query at `place` to found rows, (N,)."""

    def limit(self, place: int, farthest: float) -> float:
        """No row whose Milvus value is above this is within `farthest`; inf if nothing is known."""

    def balls(self, place: int, farthest: float) -> list[Ball]:
        """Range searches that bring all rows within `farthest`."""

    def closer(self, place: int, rows: Sequence[Row], k: int) -> str:
        """An expression for rows of which k may be much nearer than k of the found ones, or ""."""


class Codes:
    """Hamming distance: Milvus' own, which is a whole number."""

    fields: Sequence[str] = (NAME,)
    overflows = False

    def distances(self, place: int, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Milvus' distances."""
        return by_value(rows)

    def limit(self, place: int, farthest: float) -> float:
        """The distance itself."""
        return farthest

    def balls(self, place: int, farthest: float) -> list[Ball]:
        """The Hamming ball; Milvus' radius is a whole number and does not belong to the range."""
        return [Ball("", {"radius": math.floor(farthest) + 1})]

    def closer(self, place: int, rows: Sequence[Row], k: int) -> str:
        """None: Milvus' order is the true one."""
        return ""


class AdaptedCodes:
    """D_a = e^(1 - p) · D_h, which is D_h at least.

    Rows with D_a ≤ t lie in the Hamming ball of radius t, and those of them with D_h > t / √e have
    p > 1/2: only rows that are surely of the query's class, or of several, are read out there.
    """

    fields: Sequence[str] = (NAME, REST)
    overflows = False

    def __init__(self, layout: Layout, queries: NDArray[np.uint8]) -> None:
        self._layout = layout
        self._likeliest = unpacked(queries, layout.metric.classes)[1].argmax(axis=1)

    def distances(self, place: int, rows: Sequence[Row]) -> NDArray[np.float64]:
        """From Milvus' Hamming distances and the rows' probabilities."""
        theirs = self._layout.probabilities(rows)[:, self._likeliest[place]]
        return adapted(by_value(rows), theirs)

    def limit(self, place: int, farthest: float) -> float:
        """D_h ≤ D_a."""
        return farthest

    def balls(self, place: int, farthest: float) -> list[Ball]:
        """The inner ball, and of the shell around it the rows that may have p > 1/2."""
        outer = math.floor(farthest)
        inner = math.floor(farthest / math.exp(0.5) * _HAIR)
        found = [Ball("", {"radius": inner + 1})]
        if outer > inner:
            shell = Ball(self._likely(place), {"radius": outer + 1, "range_filter": inner})
            found.append(shell)
        return found

    def closer(self, place: int, rows: Sequence[Row], k: int) -> str:
        """Those with p > 1/2, if fewer than k of the found ones have it.

        Where classes are told apart badly the balls are far smaller then, and fewer rows are
        fetched; where they are told apart the found ones do as well, and there is one request less.
        """
        theirs = self._layout.probabilities(rows)[:, self._likeliest[place]]
        return self._likely(place) if (theirs > 0.5).sum() < k else ""

    def _likely(self, place: int) -> str:
        """The rows that may have p > 1/2."""
        return f"{SURE} in [{self._likeliest[place]}, {SEVERAL}]"


class Floats:
    """The distances between floats: squared Euclidean ones in Milvus, or 1 - an inner product.

    Milvus' float32 value is within `rounding_error` of the true one; and
    a row within t of a query of length l is at most l + t long. A server that is less precise is
    noticed by the candidates, whose distances are known.
    """

    fields: Sequence[str] = (NAME, VECTOR, REST)

    def __init__(
        self, layout: Layout, queries: NDArray[np.float32], compared: NDArray[np.float32]
    ) -> None:
        self._layout = layout
        self._queries = queries
        self._euclidean = self.overflows = layout.metric.name == "euclidean"
        self._lengths = np.sqrt(np.einsum("nd,nd->n", compared, compared, dtype=np.float64))

    def distances(self, place: int, rows: Sequence[Row]) -> NDArray[np.float64]:
        """In float64, from the vectors; ArchiveError if Milvus' values cannot be float32's."""
        vectors = self._layout.vectors(rows)
        query = self._queries[place][None]
        found: NDArray[np.float64] = pairwise(self._layout.metric, query, vectors)[0]
        self._check(place, rows, found)
        return found

    def limit(self, place: int, farthest: float) -> float:
        """The value of `farthest`, and the rounding."""
        value = farthest**2 if self._euclidean else farthest
        return value + self._error(place, farthest)

    def balls(self, place: int, farthest: float) -> list[Ball]:
        """Milvus' range search at the limit, a hair beyond."""
        limit = np.float32(self.limit(place, farthest))
        if self._euclidean:
            return [Ball("", {"radius": float(np.nextafter(limit, np.float32(np.inf)))})]
        # Milvus' IP is to be large, and above its radius.
        radius = np.nextafter(np.float32(1.0 - float(limit)), np.float32(-np.inf))
        return [Ball("", {"radius": float(np.nextafter(radius, np.float32(-np.inf)))})]

    def closer(self, place: int, rows: Sequence[Row], k: int) -> str:
        """None: Milvus' order is the true one, but for rounding."""
        return ""

    def _check(self, place: int, rows: Sequence[Row], distances: NDArray[np.float64]) -> None:
        value = distances**2 if self._euclidean else distances
        bounds = np.array([self._error(place, distance) for distance in distances])
        if (np.abs(by_value(rows) - value) > bounds).any():
            raise ArchiveError(
                "the Milvus server computes distances less precisely than float32 does, so that "
                "an exact search is not possible; give the collection a FLAT index again, and "
                "switch off whatever shortens floats (e.g. to bfloat16)"
            )

    def _error(self, place: int, farthest: float) -> float:
        """A bound on the error of Milvus' value for a row within `farthest`."""
        length = float(self._lengths[place])
        reach = length + farthest if self._euclidean else 1 + UNIT_TOLERANCE
        dimension = max(2, self._layout.dimension)
        return rounding_error(dimension, length, reach, euclidean=self._euclidean)


class Search:
    """The k nearest rows of a collection to some queries, of those that meet a filter."""

    def __init__(self, collection: Collection, k: int, filter: Filter | None) -> None:
        self._collection = collection
        self._k = k
        self._where, self._filter = expression(filter)
        self._met: dict[str, bool] = {}

    def nearest(self, metric: Metric, queries: NDArray[Any]) -> list[list[Found]]:
        """For each checked query of `metric`, nearest first, ties by id."""
        if not len(queries):
            return []
        layout = self._collection.layout
        compared = layout.compared(queries)
        ranking: Ranking
        if metric.kind == "float":
            ranking = Floats(layout, queries, compared)
        else:
            ranking = AdaptedCodes(layout, queries) if metric.classes else Codes()
        fields = [*ranking.fields, *([RECORD] if self._filter else [])]
        count = self._k + _SLACK
        most = self._collection.most(fields)
        answers: list[list[Found] | None] = [None] * len(queries)
        if count <= most:
            tops = self._collection.top(compared, count, self._where, fields)
            for place, rows in enumerate(tops):
                answers[place] = self._proven(ranking, place, compared, rows, count, fields)
        rest = [place for place, answer in enumerate(answers) if answer is None]
        if rest:
            # The same columns, and the codes, which Milvus has not compared.
            for place, answer in zip(rest, self._read_all(metric, queries[rest]), strict=True):
                answers[place] = answer
        return [answer or [] for answer in answers]

    def _proven(
        self,
        ranking: Ranking,
        place: int,
        compared: NDArray[Any],
        rows: list[Row] | None,
        count: int,
        fields: Sequence[str],
    ) -> list[Found] | None:
        """The answer, if candidates and range searches can show it."""
        while rows is not None:
            if len(rows) < count:
                # These are all rows that meet the expression.
                return None if ranking.overflows else self._first(ranking, place, rows)
            found = self._first(ranking, place, rows)
            if len(found) == self._k:
                farthest = found[-1].distance
                limit = ranking.limit(place, farthest)
                if by_value(rows).max() > limit:
                    return found
                if not np.isfinite(limit):
                    return None
                where = ranking.closer(place, rows, self._k)
                if where:
                    farthest = min(farthest, self._bound(ranking, place, compared, where, fields))
                return self._first(
                    ranking, place, self._balls(ranking, place, compared, farthest, fields)
                )
            share = max(len(found), 0.5) / len(rows)
            count = math.ceil(2 * self._k / share)
            if count > self._collection.most(fields):
                return None
            rows = self._collection.top(compared[place][None], count, self._where, fields)[0]
        return None

    def _bound(
        self,
        ranking: Ranking,
        place: int,
        compared: NDArray[Any],
        where: str,
        fields: Sequence[str],
    ) -> float:
        """A distance that k rows which meet the filter are within, of those that meet `where`."""
        count = min(_CANDIDATES * self._k, self._collection.most(fields))
        where = all_of(self._where, where)
        rows = self._collection.top(compared[place][None], count, where, fields)[0]
        found = self._first(ranking, place, rows) if rows else []
        return found[-1].distance if len(found) == self._k else math.inf

    def _balls(
        self,
        ranking: Ranking,
        place: int,
        compared: NDArray[Any],
        farthest: float,
        fields: Sequence[str],
    ) -> list[Row]:
        rows: dict[str, Row] = {}
        for ball in ranking.balls(place, farthest):
            where = all_of(self._where, ball.where)
            some = self._collection.ball(compared[place], ball.bounds, where, fields)
            rows |= {row[KEY]: row for row in some}
        return list(rows.values())

    def _read_all(self, metric: Metric, queries: NDArray[Any]) -> list[list[Found]]:
        """The answers by comparing with every row that meets the filter."""
        layout = self._collection.layout
        fields = [KEY, NAME, VECTOR, REST, *([RECORD] if self._filter else [])]
        best: list[list[Found]] = [[] for _ in queries]
        for page in self._collection.pages(self._where, fields):
            rows = self._meeting(page)
            if not rows:
                continue
            vectors = layout.vectors(rows)[:, : metric.width(layout.dimension)]
            for place, far in enumerate(pairwise(metric, queries, vectors)):
                best[place] += _firsts(rows, far, self._k)
                if len(best[place]) > 4 * self._k:
                    best[place] = sorted(best[place])[: self._k]
        return [sorted(some)[: self._k] for some in best]

    def _first(self, ranking: Ranking, place: int, rows: Sequence[Row]) -> list[Found]:
        """The first k of found rows that meet the filter."""
        kept = self._meeting(rows)
        return sorted(_firsts(kept, ranking.distances(place, kept), self._k))[: self._k]

    def _meeting(self, rows: Sequence[Row]) -> Sequence[Row]:
        if self._filter is None:
            return rows
        fresh = [row for row in rows if row[KEY] not in self._met]
        self._met |= dict.fromkeys((row[KEY] for row in fresh), False)
        self._met |= dict.fromkeys((row[KEY] for row in meeting(self._filter, fresh)), True)
        return [row for row in rows if self._met[row[KEY]]]


def _firsts(rows: Sequence[Row], distances: NDArray[np.float64], k: int) -> list[Found]:
    """Those among which the first k are: all that are as near as the k-th."""
    places: Iterable[int] = range(len(rows))
    if k < len(rows):
        places = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
    return [Found(float(distances[n]), rows[n][NAME], rows[n][KEY]) for n in places]
