"""The distributed store: a collection of a Milvus cluster, searched exactly."""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Collection as Names
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rsir.documents import parse_object
from rsir.errors import ArchiveError, UnknownIdError, UsageError
from rsir.store.base import (
    APPROXIMATE,
    KEPT_DAYS,
    Found,
    Vector,
    check_identity,
    checked_vectors,
    lazy_neighbours,
    searched,
)
from rsir.store.filters.filter import Filter
from rsir.store.milvus.collection import EVENTUALLY, Collection
from rsir.store.milvus.connection import PATIENCE, Address, Connection, pymilvus
from rsir.store.milvus.rows import (
    KEY,
    NAME,
    RECORD,
    REST,
    SLOT,
    SLOTS,
    VECTOR,
    Layout,
    expression,
    key_of,
    meeting,
    record_of,
    slots,
    state_of,
)
from rsir.store.milvus.search import CollectionSearch
from rsir.store.records.record import Record, State, checked_records
from rsir.types import is_unicode

_log = logging.getLogger(__name__)

FORMAT = "rsir-milvus/2"

_RECORDS_AT_ONCE = 1_000
"""Records read in one request. Our choice."""

_SPARE = 1.2
"""Slots are evenly spread, except for chance, so a sample reads this many times the slots that it
needs. Our choice."""


class MilvusStore:
    """A `Store` in a collection of a Milvus cluster; `uri`: its address, without secrets.

    After `add` or `delete` has returned, every later call of any process sees the change, unless
    the uri has consistency=session. A search takes several requests, and may see a part of the
    changes that others make at the same time; so does any other reading call. Every call waits for
    a server that restarts, for at most `patience` seconds. There are no versions. Threads may share
    a store.
    """

    def __init__(self, connection: Connection, metric: str, dimension: int, identity: str) -> None:
        """Use `create` or `open`."""
        self.uri = str(connection.address)
        self.metric = metric
        self.dimension = dimension
        self.identity = identity
        self._connection = connection
        self._layout = Layout(metric, dimension)
        self._rows = Collection(connection, self._layout)

    @classmethod
    def create(
        cls,
        uri: str,
        metric: str,
        dimension: int,
        identity: str | None = None,
        *,
        patience: float = PATIENCE,
    ) -> MilvusStore:
        """An empty store in a new collection; ArchiveError if the collection exists.

        uri: see `rsir.store.milvus.connection.Address`. identity: written into the description of
        the collection; None draws a random one. Raises UsageError for an invalid uri, an unknown
        metric or a dimension that the metric or Milvus rejects, ArchiveError if the server does not
        answer within `patience` seconds, MissingExtraError without pymilvus.
        """
        layout = Layout(metric, dimension)
        connection = Connection(Address.parse(uri), patience)
        if connection.call("has_collection"):
            raise ArchiveError(
                f"{connection.address} exists already; open it, or choose another collection"
            )
        identity = identity or uuid.uuid4().hex
        about = {"format": FORMAT, "metric": metric, "dimension": dimension, "id": identity}
        schema = layout.schema(json.dumps(about))
        connection.call("create_collection", schema=schema, consistency_level="Strong")
        return cls(connection, metric, dimension, identity)._ready()

    @classmethod
    def open(
        cls, uri: str, identity: str = "", *, by_user: bool = True, patience: float = PATIENCE
    ) -> MilvusStore:
        """The store at `uri`; errors as `create`, and ArchiveError if there is no store of rsir.

        identity: ArchiveError for a store of another identity; "" accepts any. by_user: as in
        `rsir.store.milvus.connection.Address.parse`.
        """
        connection = Connection(Address.parse(uri, by_user=by_user), patience)
        if not connection.address.is_named:
            _log.warning("the records are on another machine: asking %s", connection.address)
        address = str(connection.address)
        if not connection.call("has_collection"):
            raise ArchiveError(f"{address} does not exist; check the uri, or create an archive")
        try:
            about = parse_object(connection.call("describe_collection")["description"])
            if about["format"] != FORMAT:
                raise ArchiveError(
                    f"{address} has format {about['format']!r}, this rsir reads {FORMAT!r}; use "
                    "the rsir that made it, or index into a new archive"
                )
            check_identity(address, about.get("id", ""), identity)
            store = cls(connection, about["metric"], about["dimension"], about.get("id", ""))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise ArchiveError(
                f"{address} is a collection that is not a store of rsir; choose another"
            ) from error
        return store._ready()

    def __len__(self) -> int:
        return self._rows.count()

    def __repr__(self) -> str:
        return f"MilvusStore({self.uri!r}, {self.metric!r}, {self.dimension})"

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Add `records` with `vectors` (N, ...); replaces records of known ids.

        Invalid records are refused before anything is written. Milvus has no transactions: a call
        that fails or is killed leaves whole records of its first requests (some 4 MiB each), never
        a part of a record; the same call completes it.

        Raises UsageError like every store, and for an id or a record of more than 65,535 bytes.
        """
        records = checked_records(records)
        rows = checked_vectors(self.metric, self.dimension, vectors)
        if len(records) != len(rows):
            raise UsageError(f"{len(records)} records with {len(rows)} vectors")
        self._rows.upsert(self._layout.rows(records, rows))

    def delete(self, ids: Sequence[str]) -> int:
        """Delete `ids`; returns how many existed. Two calls at the same time may both count an id.

        A call that fails may have deleted some of them; the same call completes it.
        """
        known = list(self._rows.by_keys(_keys(ids), []))
        self._rows.delete(known)
        return len(known)

    def search(
        self, queries: Vector, k: int, *, filter: Filter | None = None, metric: str | None = None
    ) -> Found:
        """The k nearest records of each query (Q, ...) that meet `filter`, ties by id.

        The cluster counts the searched records after the search. The first use of a found record
        reads all found records from the server; a record that was deleted in between raises
        ArchiveError.
        """
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        if metric == APPROXIMATE:
            raise UsageError(
                f"'{metric}' is for archives in a folder or on an object store; the cluster of "
                f"{self.uri} searches exactly: leave the ranking out"
            )
        kind, rows = searched(self, metric, queries)
        found = CollectionSearch(self._rows, kind, rows, k, filter).run()
        pairs = [[(row.id, row.distance) for row in nearest] for nearest in found]
        return Found(lazy_neighbours(pairs, self._records), self.count(filter))

    def count(self, filter: Filter | None = None) -> int:
        """Number of records that meet `filter`; None: of all records.

        If the filter has more than an interval of time, this reads the records that may meet it.
        """
        where, rest = expression(filter)
        if rest is None:
            return self._rows.count(where)
        pages = self._rows.pages(where, [NAME, RECORD])
        return sum(len(meeting(rest, page)) for page in pages)

    def get(self, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
        """The records and vectors under `ids`, in that order; ArchiveError for an unknown id."""
        rows = self._rows.by_keys(_keys(ids), [NAME, RECORD, VECTOR, REST])
        vectors = dict(zip(rows, self._layout.vectors(list(rows.values())), strict=True))
        found = []
        for id in ids:
            key = key_of(id) if is_unicode(id) else ""
            if key not in rows:
                raise UnknownIdError(f"the archive has no record {id!r}")
            found.append((record_of(rows[key]), vectors[key].copy()))
        return found

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id.

        Reads the ids first, some 150 bytes of memory each, then the records.
        """
        where, rest = expression(filter)
        pages = self._rows.pages(where, [KEY, NAME, *([RECORD] if rest else [])])
        ids = sorted((row[NAME], row[KEY]) for page in pages for row in meeting(rest, page))
        for start in range(0, len(ids), _RECORDS_AT_ONCE):
            keys = [key for _, key in ids[start : start + _RECORDS_AT_ONCE]]
            rows = self._rows.by_keys(keys, [NAME, RECORD])
            yield from (record_of(rows[key]) for key in keys if key in rows)

    def states(self, names: Names[str] | None = None) -> Iterator[State]:
        """The states of all records, or of those whose source is one of `names`, in any order.

        The server cannot filter by source, so this reads all records, page by page.
        """
        for page in self._rows.pages("", [NAME, RECORD]):
            for state in map(state_of, page):
                if names is None or state.source in names:
                    yield state

    def sample(self, count: int, seed: int = 0) -> Vector:
        """Up to `count` vectors, picked at random, (M, width)."""
        total = len(self)
        share = min(1.0, _SPARE * (count + 10) / max(total, 1))
        random = np.random.default_rng(seed)
        start = int(random.integers(SLOTS))
        rows: list[Any] = []
        while total:
            # Slots are digests of the ids, so a range of slots is a random choice.
            end = start + math.ceil(share * SLOTS)
            where = slots(start, min(end, SLOTS))
            if end > SLOTS:
                wrapped = slots(0, min(end - SLOTS, start))
                where = f"({where}) or ({wrapped})" if where and wrapped else ""
            pages = self._rows.pages(where, [SLOT, VECTOR, REST])
            rows = [row for page in pages for row in page]
            if len(rows) >= count or share >= 1:
                break
            share = min(1.0, 2 * share)
        rows.sort(key=lambda row: (row[SLOT] - start) % SLOTS)
        return self._layout.vectors(rows[:count])

    def optimize(self, *, keep_days: float = KEPT_DAYS) -> None:
        """Let Milvus seal the latest additions and merge small segments.

        Milvus does both by itself after a while (dataCoord.segment.maxIdleTime and maxLife); sealed
        segments are searched several times as fast. There are no versions to remove. UsageError for
        a negative number of days.
        """
        if not keep_days >= 0:
            raise UsageError(f"keep_days must be at least 0, not {keep_days}")
        self._connection.call("flush")
        self._connection.call("compact")

    def drop(self) -> None:
        """Delete the collection and everything in it."""
        self._connection.call("drop_collection")

    def close(self) -> None:
        """Close the connection; the next call connects again."""
        self._connection.close()

    def _records(self, ids: Sequence[str]) -> dict[str, Record]:
        """The records under `ids`, by id; deleted records are left out."""
        keys = _keys(ids)
        rows = self._rows.by_keys(keys, [NAME, RECORD], EVENTUALLY)
        # A replica may lag behind the replica that found the rows.
        late = [key for key in keys if key not in rows]
        rows |= self._rows.by_keys(late, [NAME, RECORD])
        return {row[NAME]: record_of(row) for row in rows.values()}

    def _ready(self) -> MilvusStore:
        """The store with an index and loaded, also after an interrupted creation."""
        call = self._connection.call
        if not call("list_indexes"):
            index = pymilvus().MilvusClient.prepare_index_params()
            index.add_index(
                VECTOR, index_type=self._layout.index, metric_type=self._layout.compared_by
            )
            call("create_index", index_params=index)
        call("load_collection")
        return self


def _keys(ids: Sequence[str]) -> list[str]:
    return [key_of(id) for id in dict.fromkeys(ids) if is_unicode(id)]
