"""Read, write and search a Milvus collection, in parts that each fit into one answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ArchiveError
from rsir.store.milvus.connection import Connection, TooMuchError
from rsir.store.milvus.rows import KEY, SLOTS, VECTOR, CollectionRow, Layout, all_of, slots

VALUE = "value"
"""The field of a found row with Milvus' distance, smaller is nearer ("IP": 1 - inner product)."""

_ROWS = 16_384
"""Maximum rows of one answer (Milvus' quotaAndLimits.limits.topK and maxQueryResultWindow)."""

_ANSWER_BYTES = 16 << 20
"""Approximate bytes of one answer. Our choice: a quarter of what Milvus' proxy may send
(proxy.grpc)."""

_REQUEST_BYTES = 4 << 20
"""Approximate bytes of one write. Our choice: less than a message of Pulsar (5 MiB), so that Milvus
writes it to its log in one piece."""

_KEYS_AT_ONCE = 1_000
"""Keys in one expression. Our choice."""

EVENTUALLY = "Eventually"


class Collection:
    """Reads, writes and searches the rows of the collection of `connection`.

    Reading takes several calls, and may or may not see changes that others make in between.
    """

    def __init__(self, connection: Connection, layout: Layout) -> None:
        self.connection = connection
        self.layout = layout
        self._level = connection.address.consistency.capitalize()

    def most(self, fields: Sequence[str]) -> int:
        """The number of rows with `fields` that one answer can hold."""
        return max(1, min(_ROWS, _ANSWER_BYTES // self.layout.row_bytes(fields)))

    def count(self, where: str = "") -> int:
        """Number of rows that meet an expression."""
        found = self._query(where, ["count(*)"])
        return int(found[0]["count(*)"])

    def pages(self, where: str, fields: Sequence[str]) -> Iterator[list[CollectionRow]]:
        """All rows that meet an expression, with `fields`, in no particular order."""
        most = self.most(fields)

        def read(part: str) -> list[CollectionRow]:
            return self._query(part, fields, limit=most)

        return self._parts(where, most, read, lambda: math.ceil(1.25 * self.count(where) / most))

    def by_keys(
        self, keys: Sequence[str], fields: Sequence[str], level: str | None = None
    ) -> dict[str, CollectionRow]:
        """The rows of `keys`, by key; unknown keys are left out."""
        found: dict[str, CollectionRow] = {}
        step = min(_KEYS_AT_ONCE, self.most(fields))
        waiting = [keys[start : start + step] for start in range(0, len(keys), step)]
        while waiting:
            part = waiting.pop()
            names = ", ".join(f'"{key}"' for key in part)
            try:
                rows = self._query(f"{KEY} in [{names}]", [KEY, *fields], level)
            except TooMuchError:
                waiting += _halves(part)
                continue
            found |= {row[KEY]: row for row in rows}
        return found

    def top(
        self, queries: NDArray[Any], count: int, where: str, fields: Sequence[str]
    ) -> list[list[CollectionRow] | None]:
        """The `count` rows nearest to each compared query by Milvus' distance, nearest first.

        None for a query whose rows do not fit into an answer. `count` is at most `most(fields)`.
        """
        step = max(1, self.most(fields) // count)
        found: list[list[CollectionRow] | None] = []
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            try:
                found += self._search(part, count, where, fields, {})
            except TooMuchError:
                if len(part) == 1:
                    found.append(None)
                else:
                    found += [self.top(query[None], count, where, fields)[0] for query in part]
        return found

    def ball(
        self, query: NDArray[Any], bounds: dict[str, float], where: str, fields: Sequence[str]
    ) -> list[CollectionRow]:
        """All rows in a range around a compared query; bounds: Milvus' range parameters."""
        most = self.most(fields)

        def read(part: str) -> list[CollectionRow]:
            return self._search(query[None], most, part, fields, bounds)[0]

        return [row for part in self._parts(where, most, read, lambda: 2) for row in part]

    def upsert(self, rows: list[dict[str, Any]]) -> None:
        """Write rows in several requests, each all or nothing."""
        size = self.layout.row_bytes([VECTOR])
        start = 0
        while start < len(rows):
            end, total = start, 0
            while end < len(rows) and (end == start or total < _REQUEST_BYTES):
                total += size + sum(len(v) for v in rows[end].values() if isinstance(v, str))
                end += 1
            self.connection.call("upsert", data=rows[start:end])
            start = end

    def delete(self, keys: Sequence[str]) -> None:
        """Delete the rows of `keys`."""
        for start in range(0, len(keys), _ROWS):
            self.connection.call("delete", ids=list(keys[start : start + _ROWS]))

    def _parts(
        self,
        where: str,
        most: int,
        read: Callable[[str], list[CollectionRow]],
        pieces: Callable[[], int],
    ) -> Iterator[list[CollectionRow]]:
        """The rows that `read` returns for all slots, in parts of fewer than `most` rows.

        pieces: returns the number of parts into which to cut all slots, if one answer is too small.
        """
        waiting = [(0, SLOTS)]
        while waiting:
            first, end = waiting.pop()
            try:
                rows = read(all_of(where, slots(first, end)))
                if len(rows) < most:
                    yield rows
                    continue
            except TooMuchError:
                pass
            if end - first < 2:
                raise ArchiveError(f"{self.connection.address}: the rows do not fit into an answer")
            count = max(2, pieces()) if (first, end) == (0, SLOTS) else 2
            edges = [first + (end - first) * n // count for n in range(count + 1)]
            waiting += itertools.pairwise(edges)

    def _query(
        self, where: str, fields: Sequence[str], level: str | None = None, **more: Any
    ) -> list[CollectionRow]:
        rows: list[CollectionRow] = self.connection.call(
            "query",
            filter=where,
            output_fields=list(fields),
            consistency_level=level or self._level,
            **more,
        )
        return rows

    def _search(
        self,
        queries: NDArray[Any],
        count: int,
        where: str,
        fields: Sequence[str],
        bounds: dict[str, float],
    ) -> list[list[CollectionRow]]:
        found = self.connection.call(
            "search",
            data=self.layout.sent(queries),
            anns_field=VECTOR,
            limit=count,
            filter=where,
            output_fields=[KEY, *fields],
            search_params={"metric_type": self.layout.compared_by, "params": bounds},
            consistency_level=self._level,
        )
        similar = self.layout.compared_by == "IP"
        return [
            [
                {**hit["entity"], VALUE: 1.0 - hit["distance"] if similar else hit["distance"]}
                for hit in hits
            ]
            for hits in found
        ]


def _halves(keys: Sequence[str]) -> list[Sequence[str]]:
    if len(keys) < 2:
        raise ArchiveError("a record of the collection does not fit into an answer of the server")
    middle = len(keys) // 2
    return [keys[:middle], keys[middle:]]


def values_of(rows: Sequence[CollectionRow]) -> NDArray[np.float64]:
    """Milvus' distances of found rows, (N,) float64."""
    return np.array([row[VALUE] for row in rows], np.float64)
