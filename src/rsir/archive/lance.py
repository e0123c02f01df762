"""The embedded default store: a LanceDB table of record, searched exactly by FAISS in memory.

The table holds everything and all its versions; what is searched is one version in memory
(`rsir.archive.snapshot`). FAISS proposes candidates with float32 arithmetic, `rsir.ranking`
computes their distances, and a bound on the float32 rounding shows that no other row can be among
the nearest.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import lancedb
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.archive.filters import Filter, bounds_of
from rsir.archive.snapshot import BOUND_COLUMNS, RECORD_COLUMNS, Snapshot, matrix, records_of
from rsir.archive.store import (
    KEPT_DAYS,
    Neighbour,
    Record,
    Vector,
    checked_records,
    checked_vectors,
    searched,
)
from rsir.errors import ArchiveError, UsageError
from rsir.ranking import metric_named

SUFFIX = ".lance"
FORMAT = "rsir-store/2"

_KEY = b"rsir"
_IDS_AT_ONCE = 10_000
"""Records made, or ids named in one SQL `IN` list, in one go. Our choice: LanceDB 0.40 plans
the list anew for every fragment of the table; measured, 10 000 ids and 100 fragments take 0.3 GB
and 0.5 s, and six times the ids 1.4 GB."""

_SETTLED_NS = 1_000_000_000
_TRUSTED_SECONDS = 5.0
"""The folder of versions that has its old time of change holds no new version, if that time is so
long past that the clock of a file system (2 s at the coarsest in use today is FAT's; others tick
within 10 ms) has gone on since. A network file system may show an old time: after so many seconds
the table itself is asked in any case. Our choice."""


class Version(NamedTuple):
    """One state of a store: its number, when it was committed (UTC), and how many records."""

    version: int
    time: datetime
    rows: int


class LanceStore:
    """A `Store` on disk: a LanceDB table, committed atomically, read by many processes.

    `path` ends in ".lance"; the folder above it is the LanceDB database, the name is the table.
    What another process has committed is seen by the next call (on a network file system that
    keeps times of change to itself for a while: within five seconds). Searches may run in several
    threads.
    """

    def __init__(
        self, path: Path, table: Any, metric: str, dimension: int, pinned: int | None = None
    ) -> None:
        """Use `create`, `open` or `at`."""
        self.path = path
        self.metric = metric
        self.dimension = dimension
        self._table = table
        self._pinned = pinned
        self._snapshot: Snapshot | None = None
        self._seen: tuple[int, float] | None = None
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: str | Path, metric: str, dimension: int) -> LanceStore:
        """An empty store at `path`; ArchiveError if something is there already.

        Raises UsageError for an unknown metric or a dimension that it cannot have.
        """
        path = _checked_path(path)
        if path.exists():
            raise ArchiveError(f"{path} exists already; open it, or choose another path")
        path.parent.mkdir(parents=True, exist_ok=True)
        database = lancedb.connect(path.parent)
        table: Any = database.create_table(path.stem, schema=_schema(metric, dimension))
        # With a primary key, concurrent merges of the same ids conflict and are retried, instead
        # of both being inserted.
        table.set_unenforced_primary_key("id")
        return cls(path, table, metric, dimension)

    @classmethod
    def open(cls, path: str | Path) -> LanceStore:
        """The store at `path`; ArchiveError if there is none, or if it is not ours or damaged."""
        path = _checked_path(path)
        if not path.is_dir():
            raise ArchiveError(f"{path} does not exist; check the path, or create an archive")
        try:
            table = lancedb.connect(path.parent).open_table(path.stem)
            metadata = (table.schema.metadata or {})[_KEY]
            about = json.loads(metadata)
            if about["format"] != FORMAT:
                raise ArchiveError(
                    f"{path} has format {about['format']!r}, this rsir reads {FORMAT!r}; "
                    "use the rsir that made it, or index into a new archive"
                )
            metric, dimension = about["metric"], about["dimension"]
            metric_named(metric).width(dimension)
        except (KeyError, TypeError, ValueError, RuntimeError, OSError, UsageError) as error:
            raise ArchiveError(
                f"{path} is not a store of rsir, or it is damaged ({error}); "
                "restore it from a copy, or delete the archive and index again"
            ) from error
        return cls(path, table, metric, dimension)

    def __len__(self) -> int:
        snapshot = self._snapshot
        if snapshot is not None and self._is_current():
            return len(snapshot)
        self._refresh()
        count: int = self._table.count_rows()
        return count

    @property
    def version(self) -> int:
        """The number of the last commit; it grows with every change."""
        self._refresh()
        version: int = self._table.version
        return version

    def versions(self) -> list[Version]:
        """The versions that are kept, oldest first; the last one is what a search sees."""
        return [
            Version(
                known["version"],
                known["timestamp"].astimezone(UTC),
                int(known["metadata"]["total_rows"]),
            )
            for known in sorted(self._table.list_versions(), key=lambda known: known["version"])
        ]

    def at(self, version: int) -> LanceStore:
        """The store as it was at `version`, to be read only; ArchiveError if it is not kept."""
        if version not in {known.version for known in self.versions()}:
            kept = ", ".join(str(known.version) for known in self.versions()[-20:])
            raise ArchiveError(f"{self.path} does not keep a version {version}; the latest: {kept}")
        table = lancedb.connect(self.path.parent).open_table(self.path.stem, version=version)
        return LanceStore(self.path, table, self.metric, self.dimension, version)

    def restore(self, version: int) -> None:
        """Make `version` the latest again, as a new commit; ArchiveError if it is not kept."""
        self._check_writable()
        self.at(version)
        self._table.restore(version)
        self._table.checkout_latest()

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Keep `records` with `vectors` (N, ...) in one commit; a known id is replaced."""
        self._check_writable()
        kept = checked_records(records)
        rows = checked_vectors(self.metric, self.dimension, vectors)
        if len(kept) != len(rows):
            raise UsageError(f"{len(kept)} records with {len(rows)} vectors")
        if not kept:
            return
        (
            self._table.merge_insert("id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute(_to_arrow(kept, rows, _schema(self.metric, self.dimension)))
        )

    def delete(self, ids: Sequence[str]) -> int:
        """Forget `ids`, ten thousand in one commit; returns how many there were."""
        self._check_writable()
        known = [id for id in dict.fromkeys(ids) if _is_unicode(id)]
        return sum(
            self._table.delete(_any_of(known[start : start + _IDS_AT_ONCE])).num_deleted_rows
            for start in range(0, len(known), _IDS_AT_ONCE)
        )

    def search(
        self, queries: Vector, k: int, *, filter: Filter | None = None, metric: str | None = None
    ) -> list[list[Neighbour]]:
        """The k nearest records of each query (Q, ...) that meet `filter`, ties by id."""
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        kind, rows = searched(self, metric, queries)
        return self._latest().nearest(rows, k, filter, kind)

    def count(self, filter: Filter | None = None) -> int:
        """Number of records that meet `filter`; of all, if it is not given."""
        return len(self) if filter is None else len(self._latest().places(filter))

    def get(self, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
        """The records and vectors under `ids`, in that order; ArchiveError for an unknown id."""
        self._refresh()
        found: dict[str, tuple[Record, Vector]] = {}
        wanted = [id for id in dict.fromkeys(ids) if _is_unicode(id)]
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            some = wanted[start : start + _IDS_AT_ONCE]
            rows = self._table.search().where(_any_of(some)).to_arrow()
            vectors = matrix(rows["vector"])
            for record, vector in zip(records_of(rows), vectors, strict=True):
                found[record.id] = (record, vector)
        for id in ids:
            if id not in found:
                raise ArchiveError(f"the archive has no record {id!r}")
        return [(found[id][0], found[id][1].copy()) for id in ids]

    def sample(self, count: int, seed: int = 0) -> Vector:
        """Up to `count` vectors, picked at random, (M, width)."""
        return self._latest().sample(count, seed)

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id."""
        if filter is not None:
            snapshot = self._latest()
            places = snapshot.places(filter)
            for start in range(0, len(places), _IDS_AT_ONCE):
                yield from snapshot.records(places[start : start + _IDS_AT_ONCE])
            return
        self._refresh()
        rows = self._table.search().select(RECORD_COLUMNS).to_arrow()
        order = pc.sort_indices(rows["id"])
        for start in range(0, rows.num_rows, _IDS_AT_ONCE):
            yield from records_of(rows.take(order[start : start + _IDS_AT_ONCE]))

    def optimize(self, *, keep_days: float = KEPT_DAYS) -> None:
        """Merge the small files that many commits leave, so that opening is quick again.

        Versions older than `keep_days` are forgotten and their files deleted; the latest version
        always stays. With a few minutes or less, whoever reads or writes meanwhile may fail.
        UsageError for a negative number.
        """
        self._check_writable()
        if not keep_days >= 0:
            raise UsageError(f"keep_days must be at least 0, not {keep_days}")
        self._refresh()
        # At least what LanceDB counts in: of 0 it warns, which is said above.
        kept = max(timedelta(days=keep_days), timedelta(milliseconds=1))
        self._table.optimize(cleanup_older_than=kept)

    def _check_writable(self) -> None:
        if self._pinned is not None:
            raise ArchiveError(
                f"this is version {self._pinned} of {self.path}, which cannot be changed; open the "
                "archive itself, and restore that version first if it is to be the latest"
            )

    def _refresh(self) -> None:
        if self._pinned is None:
            self._table.checkout_latest()

    def _is_current(self) -> bool:
        """Whether the snapshot is surely the latest version, without asking the table."""
        if self._pinned is not None:
            return True
        seen = self._seen
        return (
            seen is not None
            and time.monotonic() - seen[1] < _TRUSTED_SECONDS
            and self._changed_ns() == seen[0]
        )

    def _changed_ns(self) -> int:
        return (self.path / "_versions").stat().st_mtime_ns

    def _latest(self) -> Snapshot:
        with self._lock:
            if self._snapshot is not None and self._is_current():
                return self._snapshot
            # Taken before the table is asked: what is committed in between changes it again.
            changed, now = self._changed_ns(), time.time_ns()
            self._refresh()
            version = self._table.version
            if self._snapshot is None or self._snapshot.version != version:
                # The old vectors go before the new ones come: memory holds them once.
                self._snapshot = None
                table = lancedb.connect(self.path.parent).open_table(
                    self.path.stem, version=version
                )
                self._snapshot = Snapshot(table, version, self.metric, self.dimension)
            settled = now - changed > _SETTLED_NS
            self._seen = (changed, time.monotonic()) if settled else None
            return self._snapshot


def _schema(metric: str, dimension: int) -> Any:
    kind = metric_named(metric)
    value = pa.uint8() if kind.kind == "bits" else pa.float32()
    about = {"format": FORMAT, "metric": metric, "dimension": dimension}
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("content", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
            pa.field("footprint", pa.string()),
            pa.field("datetime", pa.timestamp("us", tz="UTC")),
            pa.field("properties", pa.string(), nullable=False),
            *(pa.field(name, pa.float64()) for name in BOUND_COLUMNS),
            pa.field("vector", pa.list_(value, kind.width(dimension)), nullable=False),
        ],
        metadata={_KEY: json.dumps(about).encode()},
    )


def _to_arrow(records: Sequence[Record], vectors: NDArray[Any], schema: Any) -> Any:
    bounds = [bounds_of(record.footprint) or (None,) * 4 for record in records]
    columns = {
        "id": [record.id for record in records],
        "source": [record.source for record in records],
        "content": [record.content for record in records],
        "size": [record.size for record in records],
        "mtime_ns": [record.mtime_ns for record in records],
        "footprint": [
            None if r.footprint is None else json.dumps(r.footprint, ensure_ascii=False)
            for r in records
        ],
        "datetime": [record.datetime for record in records],
        "properties": [json.dumps(r.properties, ensure_ascii=False) for r in records],
        **{name: [b[side] for b in bounds] for side, name in enumerate(BOUND_COLUMNS)},
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    }
    return pa.table(
        [
            column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
            for name, column in columns.items()
        ],
        schema=schema,
    )


def _any_of(ids: Iterable[str]) -> str:
    # In SQL a quote inside a string literal is doubled, and nothing else is special.
    return "id IN (" + ", ".join("'" + id.replace("'", "''") + "'" for id in ids) + ")"


def _is_unicode(id: str) -> bool:
    try:
        id.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != SUFFIX or path.stem == "":
        raise UsageError(f"the path of a store ends in '{SUFFIX}', not {path.name!r}")
    return path
