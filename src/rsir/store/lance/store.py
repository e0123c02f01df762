"""The embedded default store: a LanceDB table of record, searched exactly by FAISS in memory.

The table holds all records and versions; a search uses one version in memory
(`rsir.store.lance.snapshot`). FAISS proposes candidates in float32, `rsir.ranking` computes their
distances, and a bound on the float32 rounding proves that no other row is among the nearest.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rsir.errors import ArchiveError, UnknownIdError, UsageError
from rsir.ranking import metric_named
from rsir.store.base import (
    APPROXIMATE,
    KEPT_DAYS,
    Neighbour,
    Vector,
    check_identity,
    checked_vectors,
    recall_of,
    searched,
)
from rsir.store.filters.filter import Filter
from rsir.store.filters.sql import one_of
from rsir.store.knn.ivf_build import find, make
from rsir.store.knn.ivf_search import Index
from rsir.store.lance.location import Location
from rsir.store.lance.rows import (
    STATE_COLUMNS,
    matrix,
    records_of,
    schema_of,
    states_of,
    to_arrow,
)
from rsir.store.lance.snapshot import Snapshot
from rsir.store.lance.table import SCAN_ROWS
from rsir.store.records.record import Record, State, checked_records
from rsir.store.records.summary import SUMMARY_COLUMNS, SourceSummary, summaries_of_columns
from rsir.types import is_unicode

FORMAT = "rsir-store/2"

_KEY = b"rsir"
_FIRST_RECORDS = 100
"""Records in the first part of a listing; each further part has twice as many. Our choice."""
_IDS_AT_ONCE = 10_000
"""Maximum records in a part of a listing, and ids in one SQL `IN` list. Our choice: LanceDB 0.40
plans the list again for every fragment of the table; measured, 10 000 ids and 100 fragments take
0.3 GB and 0.5 s, and six times the ids 1.4 GB."""

_NAMES_IN_SQL = 1_000
"""Maximum sources in one SQL `IN` list, so that LanceDB reads only the source of other rows. Our
choice: planning more of them takes longer than it saves."""

_INDEXED_FROM = 100_000
"""`optimize` indexes tables of at least so many rows. Our choice: an exact search of fewer takes a
few milliseconds."""

_BESIDE = 50_000
"""An index may always lack so many rows, which are searched exactly. Our choice."""

_SETTLED_NS = 1_000_000_000
_TRUSTED_SECONDS = 5.0
"""If the folder of versions has its old time of change, and that time is at least so many
nanoseconds past, there is no new version: the clocks of file systems tick within 10 ms (FAT's, the
coarsest in use today, every 2 s). A network file system may show an old time: after so many seconds
the store looks at the table itself in any case. Our choice."""


class Version(NamedTuple):
    """One version of a store: its number, the time of its commit (UTC), its number of records."""

    version: int
    time: datetime
    rows: int


class LanceStore:
    """A `Store` on disk: a LanceDB table with atomic commits, read by many processes.

    `path` ends in ".lance"; its folder is the LanceDB database, its name the table. It may be a uri
    on an object store, such as s3://bucket/prefix/items.lance (`Location.database` says where the
    credentials come from). The next call sees what another process has committed (within five
    seconds on an object store, or on a network file system that delays times of change). Several
    threads may search.

    "approximate" searches float vectors that stay on disk (`rsir.store.knn.ivf_build`), with an
    index beside the table, "items.index". `optimize` builds the index for large tables; otherwise
    the first such search does. Rows that the index lacks are searched exactly; deleted rows are
    never found. A search rebuilds the index if it lacks more than a quarter of its own number of
    rows. On an object store the index is temporary.
    """

    def __init__(
        self, location: Location, table: Any, pinned: int | None = None, identity: str = ""
    ) -> None:
        """Use `create`, `open` or `at`."""
        about = _about(location, table)
        self.path: str | Path = location.folder or str(location)
        self.metric: str = about["metric"]
        self.dimension: int = about["dimension"]
        self._location = location
        self.identity: str = about["id"]
        self._wanted = identity
        check_identity(self.path, self.identity, identity)
        self._table = table
        self._pinned = pinned
        self._opened = (location.state(), time.monotonic())
        self._snapshot: Snapshot | None = None
        self._seen: tuple[tuple[int, int] | None, float] | None = None
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._indexing = threading.Lock()

    @classmethod
    def create(
        cls, path: str | Path, metric: str, dimension: int, identity: str | None = None
    ) -> LanceStore:
        """An empty store at `path`; ArchiveError if anything exists there.

        identity: checked in every call, as by `open`; None draws a random one, unchecked. Raises
        UsageError for an unknown metric or a dimension that the metric rejects.
        """
        location = Location.of(path)
        about = {
            "format": FORMAT,
            "metric": metric,
            "dimension": dimension,
            "id": identity or uuid.uuid4().hex,
        }
        schema = schema_of(metric, dimension, {_KEY: json.dumps(about).encode()})
        if location.folder is not None:
            if location.folder.exists():
                raise ArchiveError(f"{path} exists already; open it, or choose another path")
            location.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            table: Any = location.database().create_table(location.name, schema=schema)
        except ValueError as error:
            if "already exists" in str(error):
                message = f"{path} exists already; open it, or choose another path"
            else:
                message = f"{path} cannot be made ({error}); check the uri and the credentials"
            raise ArchiveError(message) from error
        return cls(location, table, identity=identity or "")

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
        """The store at `path`; ArchiveError if there is none of rsir, or if it is damaged.

        identity: every call raises ArchiveError for a store of another identity, also for one that
        replaces the store later; "" accepts any.
        """
        location = Location.of(path)
        if location.folder is not None and not location.folder.is_dir():
            raise ArchiveError(f"{path} does not exist; check the path, or create an archive")
        return cls(location, _opened(location), identity=identity)

    def __len__(self) -> int:
        snapshot = self._snapshot
        if snapshot is not None and self._is_current():
            return len(snapshot)
        self._refresh()
        count: int = self._table.count_rows()
        return count

    @property
    def version(self) -> int:
        """The number of the latest commit; it grows with every change."""
        self._refresh()
        version: int = self._table.version
        return version

    def versions(self) -> list[Version]:
        """The versions that exist, oldest first; a search sees the last one."""
        return [
            Version(
                known["version"],
                known["timestamp"].astimezone(UTC),
                int(known["metadata"]["total_rows"]),
            )
            for known in sorted(self._table.list_versions(), key=lambda known: known["version"])
        ]

    def at(self, version: int) -> LanceStore:
        """The store at `version`, read-only; ArchiveError if the version no longer exists."""
        if version not in {known.version for known in self.versions()}:
            latest = ", ".join(str(known.version) for known in self.versions()[-20:])
            raise ArchiveError(
                f"{self.path} does not keep a version {version}; the latest: {latest}"
            )
        table = self._location.database().open_table(self._location.name, version=version)
        return LanceStore(self._location, table, version, self._wanted)

    def restore(self, version: int) -> None:
        """Make `version` the latest by a new commit; ArchiveError if it no longer exists."""
        self._check_writable()
        self.at(version)
        self._table.restore(version)
        self._table.checkout_latest()
        self._seen = None

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Add `records` with `vectors` (N, ...) in one commit; a known id is replaced."""
        self._check_writable()
        records = checked_records(records)
        rows = checked_vectors(self.metric, self.dimension, vectors)
        if len(records) != len(rows):
            raise UsageError(f"{len(records)} records with {len(rows)} vectors")
        if not records:
            return
        self._refresh()
        self._seen = None
        (
            self._table.merge_insert("id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute(to_arrow(records, rows, self._table.schema))
        )

    def delete(self, ids: Sequence[str]) -> int:
        """Delete `ids`, ten thousand in one commit; returns how many of them existed."""
        self._check_writable()
        ids = [id for id in dict.fromkeys(ids) if is_unicode(id)]
        self._refresh()
        self._seen = None
        return sum(
            self._table.delete(one_of("id", ids[start : start + _IDS_AT_ONCE])).num_deleted_rows
            for start in range(0, len(ids), _IDS_AT_ONCE)
        )

    def search(
        self, queries: Vector, k: int, *, filter: Filter | None = None, metric: str | None = None
    ) -> list[list[Neighbour]]:
        """The k nearest records of each query (Q, ...) that meet `filter`, ties by id.

        metric: also "approximate", of float vectors, with the store's own distances; `recall` says
        what it misses.
        """
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        if metric != APPROXIMATE:
            kind, rows = searched(self, metric, queries)
            return self._latest().nearest(rows, k, filter, kind)
        self._check_floats()
        _, rows = searched(self, None, queries)
        snapshot = self._latest()
        if not len(snapshot):
            return [[] for _ in rows]
        self._attach(snapshot)
        return snapshot.approximate(rows, k, filter)

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
        return len(self) if filter is None else len(self._latest().rows(filter))

    def get(self, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
        """The records and vectors under `ids`, in that order; ArchiveError for an unknown id."""
        self._refresh()
        found: dict[str, tuple[Record, Vector]] = {}
        wanted = [id for id in dict.fromkeys(ids) if is_unicode(id)]
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            where = one_of("id", wanted[start : start + _IDS_AT_ONCE])
            rows = self._table.search().where(where).to_arrow()
            vectors = matrix(rows["vector"])
            for record, vector in zip(records_of(rows), vectors, strict=True):
                found[record.id] = (record, vector)
        for id in ids:
            if id not in found:
                raise UnknownIdError(f"the archive has no record {id!r}")
        return [(found[id][0], found[id][1].copy()) for id in ids]

    def sample(self, count: int, seed: int = 0) -> Vector:
        """Up to `count` vectors, picked at random, (M, width)."""
        return self._latest().table.sample(count, seed)

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id; ten thousand in memory."""
        snapshot = self._latest()
        rows = np.arange(len(snapshot)) if filter is None else snapshot.rows(filter)
        # The parts grow, so that one page of records does not read thousands.
        start, size = 0, _FIRST_RECORDS
        while start < len(rows):
            yield from snapshot.table.records(rows[start : start + size])
            start, size = start + size, min(2 * size, _IDS_AT_ONCE)

    def sources(self) -> list[SourceSummary]:
        """The sources of all records, ordered by name; read by columns."""
        self._refresh()
        rows = self._table.search().select(SUMMARY_COLUMNS)
        return summaries_of_columns(rows.to_batches(SCAN_ROWS))

    def states(self, names: Collection[str] | None = None) -> Iterator[State]:
        """The states of all records, or of those whose source is one of `names`, in any order."""
        self._refresh()
        rows = self._table.search().select(STATE_COLUMNS)
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
        With a few minutes or less, processes that read or write meanwhile may fail. UsageError for
        a negative number.
        """
        self._check_writable()
        if not keep_days >= 0:
            raise UsageError(f"keep_days must be at least 0, not {keep_days}")
        self._refresh()
        # Not 0, of which LanceDB warns: see above.
        age = max(timedelta(days=keep_days), timedelta(milliseconds=1))
        self._table.optimize(cleanup_older_than=age)
        self._seen = None
        folder = self._location.index
        if folder is None or metric_named(self.metric).kind != "float":
            return
        snapshot = self._latest()
        if len(snapshot) and (len(snapshot) >= _INDEXED_FROM or folder.is_dir()):
            self._attach(snapshot, whole=True)

    def _check_floats(self) -> None:
        if metric_named(self.metric).kind != "float":
            raise UsageError(
                f"'{APPROXIMATE}' ranks float vectors, and this store keeps codes, compared by "
                f"'{self.metric}', which is exact and fast; leave the ranking out"
            )

    def _attach(self, snapshot: Snapshot, *, whole: bool = False) -> None:
        """Attach an index to `snapshot`; build one if none covers enough of its rows.

        whole: accept only an index of exactly the rows of this version.
        """
        with self._indexing:
            if snapshot.view is not None and not whole:
                return
            folder = self._location.index
            index = self._index
            if index is None or not _covers(index, snapshot, whole):
                index = None if folder is None else find(folder, self.identity)
            if index is None or not _covers(index, snapshot, whole):
                row_ids, blocks = snapshot.table.by_row_id()
                index = make(
                    folder if self._pinned is None else None,
                    row_ids,
                    blocks,
                    metric=self.metric,
                    dimension=self.dimension,
                    table=self.identity,
                    version=snapshot.version,
                )
            self._index = index
            snapshot.attach(index)

    def _check_writable(self) -> None:
        if self._pinned is not None:
            raise ArchiveError(
                f"this is version {self._pinned} of {self.path}, which cannot be changed; open the "
                "archive itself, and restore that version first if it is to be the latest"
            )

    def _refresh(self) -> None:
        """Move the handle to the latest version.

        If the folder has changed, open the table again: after a table was deleted and created
        anew, LanceDB's handle continues to show the old one.
        """
        if self._pinned is not None:
            return
        state, now = self._location.state(), time.monotonic()
        if state == self._opened[0] and (state or now - self._opened[1] < _TRUSTED_SECONDS):
            self._table.checkout_latest()
            return
        table = _opened(self._location)
        about = _about(self._location, table)
        if (about["metric"], about["dimension"]) != (self.metric, self.dimension):
            raise ArchiveError(f"{self.path} is another store than before; open it again")
        check_identity(self.path, about["id"], self._wanted)
        self._table, self.identity, self._opened = table, about["id"], (state, now)

    def _is_current(self) -> bool:
        """Whether the snapshot is certainly the latest version, without a look at the table."""
        if self._pinned is not None:
            return True
        seen = self._seen
        return (
            seen is not None
            and time.monotonic() - seen[1] < _TRUSTED_SECONDS
            and self._location.state() == seen[0]
        )

    def _latest(self) -> Snapshot:
        with self._lock:
            if self._snapshot is not None and self._is_current():
                return self._snapshot
            # Read this before the table: a commit in between changes it again.
            state, now = self._location.state(), time.time_ns()
            self._refresh()
            version = self._table.version
            snapshot = self._snapshot
            if snapshot is None or (snapshot.identity, snapshot.version) != (
                self.identity,
                version,
            ):
                # Drop the old vectors first, so that memory never holds both.
                self._snapshot = snapshot = None
                table = self._location.database().open_table(self._location.name, version=version)
                snapshot = Snapshot(table, self.identity, version, self.metric, self.dimension)
                self._snapshot = snapshot
            settled = state is None or now - state[1] > _SETTLED_NS
            self._seen = (state, time.monotonic()) if settled else None
            return snapshot


def _covers(index: Index, snapshot: Snapshot, whole: bool) -> bool:
    """Whether an index has enough rows of `snapshot`; whole: exactly its rows."""
    covered = snapshot.shared_rows(index)
    if whole:
        return covered == len(index) == len(snapshot)
    missing = len(snapshot) - covered
    return covered > 0 and missing <= max(_BESIDE, covered // 4)


def _opened(location: Location) -> Any:
    try:
        return location.database().open_table(location.name)
    except (ValueError, RuntimeError, OSError) as error:
        raise _damaged(location, error) from error


def _about(location: Location, table: Any) -> dict[str, Any]:
    """The description in the metadata of a table: metric, dimension, and id."""
    try:
        about = json.loads((table.schema.metadata or {})[_KEY])
        if about["format"] != FORMAT:
            raise ArchiveError(
                f"{location} has format {about['format']!r}, this rsir reads {FORMAT!r}; "
                "use the rsir that made it, or index into a new archive"
            )
        metric_named(about["metric"]).width(about["dimension"])
        return {"id": "", **about}
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, UsageError) as error:
        raise _damaged(location, error) from error


def _damaged(location: Location, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{location} is not a store of rsir, or it is damaged ({error}); "
        "restore it from a copy, or delete the archive and index again"
    )
