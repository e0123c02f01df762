"""The embedded default store: a LanceDB table of record, searched exactly by FAISS in memory.

The table holds all records and versions; a search uses one version in memory
(`rsir.store.lance.snapshot`). FAISS proposes candidates in float32, `rsir.ranking` computes their
distances, and a bound on the float32 rounding proves that no other row is among the nearest.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rsir.errors import ArchiveError, UnknownIdError, UsageError
from rsir.ranking import metric_named
from rsir.store.base import (
    APPROXIMATE,
    KEPT_DAYS,
    Found,
    Vector,
    checked_vectors,
    recall_of,
    searched,
)
from rsir.store.filters.filter import Filter
from rsir.store.filters.sql import one_of
from rsir.store.knn.ivf_build import build_index, find_index
from rsir.store.knn.ivf_search import Index
from rsir.store.lance.handle import TableHandle
from rsir.store.lance.location import Location
from rsir.store.lance.rows import (
    STATE_COLUMNS,
    matrix,
    records_of,
    states_of,
    to_arrow,
)
from rsir.store.lance.snapshot import Snapshot
from rsir.store.lance.table import SCAN_ROWS
from rsir.store.records.record import Record, State, checked_records
from rsir.store.records.summary import SUMMARY_COLUMNS, SourceSummary, summaries_of_columns
from rsir.types import is_unicode

_FIRST_RECORDS = 100
"""Records in the first part of a listing; each further part has twice as many. Our choice."""
_IDS_AT_ONCE = 10_000
"""Maximum records in a part of a listing, and ids in one SQL `IN` list. Our choice: LanceDB 0.40
plans the list again for every fragment of the table; measured, 10 000 ids and 100 fragments take
0.3 GB and 0.5 s, and six times the ids 1.4 GB."""

_NAMES_IN_SQL = 1_000
"""Maximum sources in one SQL `IN` list. With such a list, LanceDB reads all columns only of the
rows that it selects. Our choice: planning a longer list takes more time than it saves."""

_INDEXED_FROM = 100_000
"""`optimize` indexes tables of at least this many rows. Our choice: an exact search of fewer rows
takes a few milliseconds."""

_MAY_LACK = 50_000
"""An index may always lack this many rows, which are searched exactly. Our choice."""


class Version(NamedTuple):
    """One version of a store: its number, the time of its commit (UTC), its number of records."""

    version: int
    time: datetime
    rows: int


class LanceStore:
    """A `Store` on disk: a LanceDB table with atomic commits, read by many processes.

    `path` ends in ".lance"; its folder is the LanceDB database, its name the table. It may be a uri
    on an object store, such as s3://bucket/prefix/items.lance (`Location.database` describes the
    credentials). The next call sees the commits of other processes (within five seconds on an
    object store, or on a network file system that delays times of change). Several threads may
    search.

    "approximate" searches float vectors that stay on disk (`rsir.store.knn.ivf_build`), with an
    index beside the table, "items.index". `optimize` builds the index for large tables; otherwise
    the first such search does. Rows that the index lacks are searched exactly; deleted rows are
    never found. A search rebuilds an index that lacks more than 50,000 rows and more than a quarter
    of the number of rows that it has. On an object store the index is temporary.
    """

    def __init__(self, handle: TableHandle) -> None:
        """Use `create`, `open` or `at`."""
        self._handle = handle
        self.path: str | Path = handle.path
        self.metric = handle.metric
        self.dimension = handle.dimension
        self._index: Index | None = None
        self._indexing = threading.Lock()

    @property
    def identity(self) -> str:
        """The identity of the store; it changes if another store replaces the store."""
        return self._handle.identity

    @classmethod
    def create(
        cls, path: str | Path, metric: str, dimension: int, identity: str | None = None
    ) -> LanceStore:
        """An empty store at `path`; ArchiveError if anything exists there.

        identity: every call checks it, as with `open`; None draws a random identity, which is not
        checked. Raises UsageError for an unknown metric or a dimension that the metric rejects.
        """
        return cls(TableHandle.create(Location.of(path), metric, dimension, identity))

    @classmethod
    def exists(cls, path: str | Path) -> bool:
        """Whether anything exists at `path`; ArchiveError if the location cannot be read."""
        location = Location.of(path)
        if location.folder is not None:
            return location.folder.exists()
        try:
            location.database().open_table(location.name)
        except (ValueError, RuntimeError, OSError) as error:
            if "was not found" in str(error):
                return False
            raise ArchiveError(
                f"{path} cannot be read ({error}); check the uri and the credentials"
            ) from error
        return True

    @classmethod
    def open(cls, path: str | Path, identity: str = "") -> LanceStore:
        """The store at `path`; ArchiveError if there is no store of rsir, or if it is damaged.

        identity: every call raises ArchiveError for a store of another identity, even if that store
        replaces this store later; "" accepts any.
        """
        return cls(TableHandle.open(Location.of(path), identity))

    def __len__(self) -> int:
        return self._handle.count()

    @property
    def version(self) -> int:
        """The number of the latest commit; it grows with every change."""
        version: int = self._handle.refresh().version
        return version

    def versions(self) -> list[Version]:
        """The versions that exist, oldest first; a search sees the last one."""
        table = self._handle.table
        return [
            Version(
                known["version"],
                known["timestamp"].astimezone(UTC),
                int(known["metadata"]["total_rows"]),
            )
            for known in sorted(table.list_versions(), key=lambda known: known["version"])
        ]

    def at(self, version: int) -> LanceStore:
        """The store at `version`, read-only; ArchiveError if the version no longer exists."""
        if version not in {known.version for known in self.versions()}:
            latest = ", ".join(str(known.version) for known in self.versions()[-20:])
            raise ArchiveError(
                f"{self.path} does not keep a version {version}; the latest: {latest}"
            )
        return LanceStore(self._handle.at(version))

    def restore(self, version: int) -> None:
        """Make `version` the latest by a new commit; ArchiveError if it no longer exists."""
        table = self._handle.refresh_to_change()
        self.at(version)
        table.restore(version)
        table.checkout_latest()

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Add `records` with `vectors` (N, ...) in one commit; replaces records of known ids."""
        records = checked_records(records)
        rows = checked_vectors(self.metric, self.dimension, vectors)
        if len(records) != len(rows):
            raise UsageError(f"{len(records)} records with {len(rows)} vectors")
        if not records:
            return
        table = self._handle.refresh_to_change()
        (
            table.merge_insert("id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute(to_arrow(records, rows, table.schema))
        )

    def delete(self, ids: Sequence[str]) -> int:
        """Delete `ids`, in commits of ten thousand; returns how many of them existed."""
        table = self._handle.refresh_to_change()
        ids = [id for id in dict.fromkeys(ids) if is_unicode(id)]
        return sum(
            table.delete(one_of("id", ids[start : start + _IDS_AT_ONCE])).num_deleted_rows
            for start in range(0, len(ids), _IDS_AT_ONCE)
        )

    def search(
        self, queries: Vector, k: int, *, filter: Filter | None = None, metric: str | None = None
    ) -> Found:
        """The k nearest records of each query (Q, ...) that meet `filter`, ties by id.

        metric: also "approximate", of float vectors, with the store's own distances; `recall`
        measures how many of the nearest it finds.
        """
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        if metric != APPROXIMATE:
            kind, rows = searched(self, metric, queries)
            snapshot = self._handle.snapshot()
            return Found(snapshot.nearest(rows, k, filter, kind), snapshot.count(filter))
        self._check_floats()
        _, rows = searched(self, None, queries)
        snapshot = self._handle.snapshot()
        if not len(snapshot):
            return Found(([] for _ in rows), 0)
        self._attach(snapshot)
        return Found(snapshot.approximate(rows, k, filter), snapshot.count(filter))

    def recall(
        self, queries: Vector, k: int, metric: str = APPROXIMATE, filter: Filter | None = None
    ) -> float:
        """Recall@k of "approximate" search (`rsir.store.base.recall_of`).

        The exact search reads all vectors into memory.
        """
        exact, found = (
            [
                [n.distance for n in near]
                for near in self.search(queries, k, filter=filter, metric=m)
            ]
            for m in (None, metric)
        )
        return recall_of(exact, found)

    def count(self, filter: Filter | None = None) -> int:
        """Number of records that meet `filter`; None: of all records."""
        return len(self) if filter is None else self._handle.snapshot().count(filter)

    def get(self, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
        """The records and vectors under `ids`, in that order; ArchiveError for an unknown id."""
        table = self._handle.refresh()
        found: dict[str, tuple[Record, Vector]] = {}
        wanted = [id for id in dict.fromkeys(ids) if is_unicode(id)]
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            where = one_of("id", wanted[start : start + _IDS_AT_ONCE])
            rows = table.search().where(where).to_arrow()
            vectors = matrix(rows["vector"])
            for record, vector in zip(records_of(rows), vectors, strict=True):
                found[record.id] = (record, vector)
        for id in ids:
            if id not in found:
                raise UnknownIdError(f"the archive has no record {id!r}")
        return [(found[id][0], found[id][1].copy()) for id in ids]

    def sample(self, count: int, seed: int = 0) -> Vector:
        """Up to `count` vectors, picked at random, (M, width)."""
        return self._handle.snapshot().table.sample(count, seed)

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id; at most 10,000 in memory."""
        snapshot = self._handle.snapshot()
        rows = np.arange(len(snapshot)) if filter is None else snapshot.rows(filter)
        # The parts grow, so that one page of records does not read thousands.
        start, size = 0, _FIRST_RECORDS
        while start < len(rows):
            yield from snapshot.table.records(rows[start : start + size])
            start, size = start + size, min(2 * size, _IDS_AT_ONCE)

    def sources(self) -> list[SourceSummary]:
        """The sources of all records, ordered by name."""
        rows = self._handle.refresh().search().select(SUMMARY_COLUMNS)
        return summaries_of_columns(rows.to_batches(SCAN_ROWS))

    def states(self, names: Collection[str] | None = None) -> Iterator[State]:
        """The states of all records, or of those whose source is one of `names`, in any order."""
        rows = self._handle.refresh().search().select(STATE_COLUMNS)
        if names is not None:
            names = [name for name in names if is_unicode(name)]
            if not names:
                return iter(())
            if len(names) <= _NAMES_IN_SQL:
                rows = rows.where(one_of("source", names))
        return states_of(rows.to_batches(SCAN_ROWS), names)

    def optimize(self, *, keep_days: float = KEPT_DAYS) -> None:
        """Merge the small files that many commits leave, so that opening is fast again.

        Removes versions older than `keep_days` with their files; the latest version always stays.
        If `keep_days` is a few minutes or less, processes that read or write at the same time may
        fail. UsageError for a negative number.
        """
        if not keep_days >= 0:
            raise UsageError(f"keep_days must be at least 0, not {keep_days}")
        table = self._handle.refresh_to_change()
        # LanceDB warns of 0, because other processes may fail.
        age = max(timedelta(days=keep_days), timedelta(milliseconds=1))
        table.optimize(cleanup_older_than=age)
        folder = self._handle.location.index
        if folder is None or metric_named(self.metric).kind != "float":
            return
        snapshot = self._handle.snapshot()
        if len(snapshot) and (len(snapshot) >= _INDEXED_FROM or folder.is_dir()):
            self._attach(snapshot, whole=True)

    def _check_floats(self) -> None:
        if metric_named(self.metric).kind != "float":
            raise UsageError(
                f"'{APPROXIMATE}' ranks float vectors, but this store has codes, and compares them "
                f"by '{self.metric}', which is exact and fast; leave the ranking out"
            )

    def _attach(self, snapshot: Snapshot, *, whole: bool = False) -> None:
        """Attach an index to `snapshot`; build one if none covers enough of its rows.

        whole: accept only an index of exactly the rows of this version.
        """
        with self._indexing:
            if snapshot.view is not None and not whole:
                return
            folder = self._handle.location.index
            index = self._index
            if index is None or not _covers(index, snapshot, whole):
                index = None if folder is None else find_index(folder, self.identity)
            if index is None or not _covers(index, snapshot, whole):
                row_ids, blocks = snapshot.table.by_row_id()
                index = build_index(
                    folder if self._handle.pinned is None else None,
                    row_ids,
                    blocks,
                    metric=self.metric,
                    dimension=self.dimension,
                    table=self.identity,
                    version=snapshot.version,
                )
            self._index = index
            snapshot.attach(index)


def _covers(index: Index, snapshot: Snapshot, whole: bool) -> bool:
    """Whether an index has enough rows of `snapshot`; whole: exactly its rows."""
    covered = snapshot.shared_rows(index)
    if whole:
        return covered == len(index) == len(snapshot)
    missing = len(snapshot) - covered
    return covered > 0 and missing <= max(_MAY_LACK, covered // 4)
