"""Exact search of a Milvus collection: Milvus proposes rows, `rsir.ranking` compares them.

Milvus compares a query with every vector (FLAT, BIN_FLAT) in float32. The distances of its first
candidates are computed in float64; let t be the k-th smallest of them. If Milvus' value of the last
candidate is so large that no further row can be within t, the result is among the candidates.
Otherwise a range search fetches all rows that can be within t, in as many parts as needed. Ids
order the ties.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsir.ranking import Metric, pairwise
from rsir.store.filters.filter import Filter
from rsir.store.milvus.collection import Collection, values_of
from rsir.store.milvus.distances import (
    AdaptedDistance,
    ExactDistance,
    FloatDistance,
    HammingDistance,
)
from rsir.store.milvus.rows import (
    KEY,
    NAME,
    RECORD,
    REST,
    VECTOR,
    CollectionRow,
    all_of,
    expression,
    meeting,
)

_SLACK = 32
"""Candidates beyond k, so that ties around the k-th rarely need a second search. Our choice, as in
`rsir.store.knn.floats`."""

_CANDIDATES = 3
"""If the first candidates of an adaptive search mostly have other classes, the search is bounded by
this many times k rows of the query's class. Our choice, as in `rsir.store.knn.adaptive`."""


class RankedId(NamedTuple):
    """An id in the result of a search; sorting orders by distance, ties by id."""

    distance: float
    id: str


class CollectionSearch:
    """Searches a collection for the k rows nearest to each query.

    queries: checked vectors (Q, width) of `metric`. filter: condition on the records of the rows.
    """

    def __init__(
        self,
        collection: Collection,
        metric: Metric,
        queries: NDArray[Any],
        k: int,
        filter: Filter | None,
    ) -> None:
        layout = collection.layout
        self._collection = collection
        self._metric = metric
        self._queries = queries
        self._compared = layout.compared(queries)
        self._k = k
        self._where, self._filter = expression(filter)
        self._met: dict[str, bool] = {}
        self._exact: ExactDistance
        if metric.kind == "float":
            self._exact = FloatDistance(layout, queries, self._compared)
        elif metric.classes:
            self._exact = AdaptedDistance(layout, queries)
        else:
            self._exact = HammingDistance()
        self._record = [RECORD] if self._filter else []
        self._fields = [*self._exact.fields, *self._record]

    def run(self) -> list[list[RankedId]]:
        """The nearest rows of each query, nearest first, ties by id."""
        if not len(self._queries):
            return []
        count = self._k + _SLACK
        results: list[list[RankedId] | None] = [None] * len(self._queries)
        if count <= self._collection.most(self._fields):
            tops = self._collection.top(self._compared, count, self._where, self._fields)
            for query, rows in enumerate(tops):
                results[query] = self._proven(query, rows, count)
        rest = [query for query, result in enumerate(results) if result is None]
        if rest:
            for query, result in zip(rest, self._read_all(self._queries[rest]), strict=True):
                results[query] = result
        return [result or [] for result in results]

    def _proven(
        self, query: int, rows: list[CollectionRow] | None, count: int
    ) -> list[RankedId] | None:
        """The result of one query, if its `count` candidates and range searches can prove it."""
        while rows is not None:
            if len(rows) < count:
                # These are all rows that meet the expression.
                return None if self._exact.overflows else self._first(query, rows)
            found = self._first(query, rows)
            if len(found) == self._k:
                farthest = found[-1].distance
                limit = self._exact.limit(query, farthest)
                if values_of(rows).max() > limit:
                    return found
                if not np.isfinite(limit):
                    return None
                where = self._exact.closer(query, rows, self._k)
                if where:
                    farthest = min(farthest, self._bound(query, where))
                return self._first(query, self._within(query, farthest))
            share = max(len(found), 0.5) / len(rows)
            count = math.ceil(2 * self._k / share)
            if count > self._collection.most(self._fields):
                return None
            rows = self._top(query, count, self._where)
        return None

    def _bound(self, query: int, where: str) -> float:
        """A distance within which k rows meet the filter and `where`; inf if none is known."""
        count = min(_CANDIDATES * self._k, self._collection.most(self._fields))
        rows = self._top(query, count, all_of(self._where, where))
        found = self._first(query, rows) if rows else []
        return found[-1].distance if len(found) == self._k else math.inf

    def _top(self, query: int, count: int, where: str) -> list[CollectionRow] | None:
        return self._collection.top(self._compared[query][None], count, where, self._fields)[0]

    def _within(self, query: int, farthest: float) -> list[CollectionRow]:
        """All rows that can be within `farthest` of a query."""
        rows: dict[str, CollectionRow] = {}
        for ball in self._exact.balls(query, farthest):
            where = all_of(self._where, ball.where)
            part = self._collection.ball(self._compared[query], ball.bounds, where, self._fields)
            rows |= {row[KEY]: row for row in part}
        return list(rows.values())

    def _read_all(self, queries: NDArray[Any]) -> list[list[RankedId]]:
        """The results of comparing `queries` with every row that meets the filter."""
        layout = self._collection.layout
        fields = [KEY, NAME, VECTOR, REST, *self._record]
        best: list[list[RankedId]] = [[] for _ in queries]
        for page in self._collection.pages(self._where, fields):
            rows = self._meeting(page)
            if not rows:
                continue
            vectors = layout.vectors(rows)[:, : self._metric.width(layout.dimension)]
            for query, distances in enumerate(pairwise(self._metric, queries, vectors)):
                best[query] += _candidates(rows, distances, self._k)
                if len(best[query]) > 4 * self._k:
                    best[query] = sorted(best[query])[: self._k]
        return [sorted(candidates)[: self._k] for candidates in best]

    def _first(self, query: int, rows: Sequence[CollectionRow]) -> list[RankedId]:
        """The k nearest of `rows` that meet the filter."""
        rows = self._meeting(rows)
        distances = self._exact.distances(query, rows)
        return sorted(_candidates(rows, distances, self._k))[: self._k]

    def _meeting(self, rows: Sequence[CollectionRow]) -> Sequence[CollectionRow]:
        """The rows that meet the filter; each record is checked once."""
        if self._filter is None:
            return rows
        fresh = [row for row in rows if row[KEY] not in self._met]
        self._met |= dict.fromkeys((row[KEY] for row in fresh), False)
        self._met |= dict.fromkeys((row[KEY] for row in meeting(self._filter, fresh)), True)
        return [row for row in rows if self._met[row[KEY]]]


def _candidates(
    rows: Sequence[CollectionRow], distances: NDArray[np.float64], k: int
) -> Iterable[RankedId]:
    """The rows that may be among the first k: all rows that are no farther than the k-th."""
    chosen: Iterable[int] = range(len(rows))
    if k < len(rows):
        chosen = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
    return [RankedId(float(distances[n]), rows[n][NAME]) for n in chosen]
