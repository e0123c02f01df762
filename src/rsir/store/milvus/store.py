"""The distributed store: a collection of a Milvus cluster, searched exactly."""

from __future__ import annotations

import json
import math
import threading
import uuid
from collections.abc import Collection as Names
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from rsir.errors import ArchiveError, UnknownIdError, UsageError
from rsir.store.base import (
    APPROXIMATE,
    KEPT_DAYS,
    Neighbour,
    Vector,
    check_identity,
    checked_vectors,
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
from rsir.store.milvus.search import Found, Search
from rsir.store.records.record import Record, State, checked_records
from rsir.types import is_unicode

FORMAT = "rsir-milvus/1"

_RECORDS_AT_ONCE = 1_000
"""Records read in one go. Our choice."""

_SPARE = 1.2
"""Slots are even but for chance: so much more of them is read than a sample needs. Our choice."""


class MilvusStore:
    """A `Store` that is a collection of a Milvus cluster; `uri` says which, without secrets.

    What an `add` or `delete` that has come back has done is seen by every later call, of any
    process, unless the uri asks for consistency=session. A search or a reading takes several
    requests: of what others change meanwhile it may see a part. A server that restarts is waited
    for, `patience` seconds at most, in every call. There are no versions. Threads may share a
    store.
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
        """An empty store in a new collection; ArchiveError if there is one of that name.

        uri: see `rsir.store.milvus.connection.Address`. identity: None to draw one; it stands in
        the collection's description. Raises UsageError for another uri, an unknown metric or a
        dimension that it or Milvus cannot have, ArchiveError if the server cannot be reached within
        `patience` seconds, MissingExtraError without pymilvus.
        """
        layout = Layout(metric, dimension)
        connection = Connection(Address.parse(uri), patience)
        if connection.call("has_collection"):
            raise ArchiveError(
                f"{connection.address} exists already; open it, or choose another collection"
            )
        identity = identity or uuid.uuid4().hex
        said = {"format": FORMAT, "metric": metric, "dimension": dimension, "id": identity}
        schema = layout.schema(json.dumps(said))
        connection.call("create_collection", schema=schema, consistency_level="Strong")
        return cls(connection, metric, dimension, identity)._ready()

    @classmethod
    def open(cls, uri: str, identity: str = "", *, patience: float = PATIENCE) -> MilvusStore:
        """The store at `uri`; ArchiveError if there is none, if it is not ours, or as `create`.

        identity: of another one it is an ArchiveError; "" takes any.
        """
        connection = Connection(Address.parse(uri), patience)
        where = str(connection.address)
        if not connection.call("has_collection"):
            raise ArchiveError(f"{where} does not exist; check the uri, or create an archive")
        try:
            said = json.loads(connection.call("describe_collection")["description"])
            if said["format"] != FORMAT:
                raise ArchiveError(
                    f"{where} has format {said['format']!r}, this rsir reads {FORMAT!r}; use the "
                    "rsir that made it, or index into a new archive"
                )
            check_identity(where, said.get("id", ""), identity)
            store = cls(connection, said["metric"], said["dimension"], said.get("id", ""))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise ArchiveError(
                f"{where} is a collection that is not a store of rsir; choose another"
            ) from error
        return store._ready()

    def __len__(self) -> int:
        return self._rows.count()

    def __repr__(self) -> str:
        return f"MilvusStore({self.uri!r}, {self.metric!r}, {self.dimension})"

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Keep `records` with `vectors` (N, ...); a known id is replaced.

        What is unfit is refused before anything is written. Milvus has no transactions: a call
        that fails in the middle, or is killed, leaves whole records of the first requests (some 4
        MiB each), never a part of one; the same call again completes it.

        Raises UsageError as every store, and for an id or a record of more than 65,535 bytes.
        """
        kept = checked_records(records)
        rows = checked_vectors(self.metric, self.dimension, vectors)
        if len(kept) != len(rows):
            raise UsageError(f"{len(kept)} records with {len(rows)} vectors")
        self._rows.upsert(self._layout.rows(kept, rows))

    def delete(self, ids: Sequence[str]) -> int:
        """Forget `ids`; returns how many there were (two that delete the same may both count it).

        A call that fails in the middle has forgotten some; the same call again completes it.
        """
        known = list(self._rows.by_keys(_keys(ids), []))
        self._rows.delete(known)
        return len(known)

    def search(
        self, queries: Vector, k: int, *, filter: Filter | None = None, metric: str | None = None
    ) -> list[list[Neighbour]]:
        """The k nearest records of each query (Q, ...) that meet `filter`, ties by id.

        The records are read from the server when the first of them is looked at: one that was
        deleted in between is an ArchiveError then.
        """
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        if metric == APPROXIMATE:
            raise UsageError(
                f"'{metric}' is for archives in a folder or on an object store; {self.uri} is "
                "searched exactly, by the cluster: leave the ranking out"
            )
        kind, rows = searched(self, metric, queries)
        found = Search(self._rows, k, filter).nearest(kind, rows)
        hits = _LazyHits(self, found)
        return [
            [Neighbour(partial(hits.record, near), near.distance) for near in some]
            for some in found
        ]

    def count(self, filter: Filter | None = None) -> int:
        """Number of records that meet `filter`; of all, if it is not given.

        Of a filter by more than time, the records that it may be met by are read.
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

        Their ids are read first, some 150 bytes of memory each, then the records.
        """
        where, rest = expression(filter)
        pages = self._rows.pages(where, [KEY, NAME, *([RECORD] if rest else [])])
        named = sorted((row[NAME], row[KEY]) for page in pages for row in meeting(rest, page))
        for start in range(0, len(named), _RECORDS_AT_ONCE):
            keys = [key for _, key in named[start : start + _RECORDS_AT_ONCE]]
            rows = self._rows.by_keys(keys, [NAME, RECORD])
            yield from (record_of(rows[key]) for key in keys if key in rows)

    def states(self, names: Names[str] | None = None) -> Iterator[State]:
        """The states of all records, or of those whose source is one of `names`, in any order.

        The server knows no sources: all records are read in any case, page by page.
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
            # Slots are digests of the ids: neighbours among them have nothing else in common.
            end = start + math.ceil(share * SLOTS)
            where = slots(start, min(end, SLOTS))
            if end > SLOTS:
                over = slots(0, min(end - SLOTS, start))
                where = f"({where}) or ({over})" if where and over else ""
            pages = self._rows.pages(where, [SLOT, VECTOR, REST])
            rows = [row for page in pages for row in page]
            if len(rows) >= count or share >= 1:
                break
            share = min(1.0, 2 * share)
        rows.sort(key=lambda row: (row[SLOT] - start) % SLOTS)
        return self._layout.vectors(rows[:count])

    def optimize(self, *, keep_days: float = KEPT_DAYS) -> None:
        """Have Milvus seal what was added lately, and merge what is small.

        It does both by itself after a while (dataCoord.segment.maxIdleTime and maxLife); what is
        sealed is searched several times as fast. There are no versions that could be forgotten.
        UsageError for a negative number of days.
        """
        if not keep_days >= 0:
            raise UsageError(f"keep_days must be at least 0, not {keep_days}")
        self._connection.call("flush")
        self._connection.call("compact")

    def drop(self) -> None:
        """Delete the collection and everything in it."""
        self._connection.call("drop_collection")

    def close(self) -> None:
        """Let the server go; the next call connects anew."""
        self._connection.close()

    def _ready(self) -> MilvusStore:
        """The store, after its collection has an index and is loaded, if it was cut off before."""
        call = self._connection.call
        if not call("list_indexes"):
            index = pymilvus().MilvusClient.prepare_index_params()
            index.add_index(
                VECTOR, index_type=self._layout.index, metric_type=self._layout.compared_by
            )
            call("create_index", index_params=index)
        call("load_collection")
        return self


class _LazyHits:
    """The records of one search, read together when the first of them is looked at."""

    def __init__(self, store: MilvusStore, found: Sequence[Sequence[Found]]) -> None:
        self._store = store
        self._keys = list(dict.fromkeys(near.key for some in found for near in some))
        self._lock = threading.Lock()
        self._records: dict[str, Record] | None = None

    def record(self, near: Found) -> Record:
        with self._lock:
            if self._records is None:
                rows = self._store._rows
                found = rows.by_keys(self._keys, [NAME, RECORD], EVENTUALLY)
                # A replica may lag behind the one that has found them.
                late = [key for key in self._keys if key not in found]
                found |= rows.by_keys(late, [NAME, RECORD])
                self._records = {key: record_of(row) for key, row in found.items()}
        if near.key not in self._records:
            raise ArchiveError(
                f"the record {near.id!r} was deleted after the search had found it; search again"
            )
        return self._records[near.key]


def _keys(ids: Sequence[str]) -> list[str]:
    return [key_of(id) for id in dict.fromkeys(ids) if is_unicode(id)]
