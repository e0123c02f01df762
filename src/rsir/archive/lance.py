"""The embedded default store: a LanceDB table of record, searched exactly by FAISS in memory.

The table holds everything; memory holds only the vectors, in the order of their ids, and each
one's row address: 16 MB for a million 64-bit codes. FAISS proposes candidates with float32
arithmetic, `rsir.ranking` computes their distances, and a bound on the float32 rounding shows
that no other row can be among the nearest.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from rsir.archive.flat import Flat, flat_index
from rsir.archive.store import Neighbour, Record, Vector, checked_records, checked_vectors
from rsir.errors import ArchiveError, UsageError
from rsir.ranking import metric_named

SUFFIX = ".lance"
FORMAT = "rsir-store/1"

_KEY = b"rsir"
_RECORD_COLUMNS = [
    "id",
    "source",
    "content",
    "size",
    "mtime_ns",
    "footprint",
    "datetime",
    "properties",
]

_IDS_AT_ONCE = 10_000
"""Records made, or ids named in one SQL `IN` list, in one go. Our choice: LanceDB 0.40 plans
the list anew for every fragment of the table; measured, 10 000 ids and 100 fragments take 0.3 GB
and 0.5 s, and six times the ids 1.4 GB."""


class LanceStore:
    """A `Store` on disk: a LanceDB table, committed atomically, read by many processes.

    `path` ends in ".lance"; the folder above it is the LanceDB database, the name is the table.
    What another process has committed is seen by the next call. Searches may run in several
    threads.
    """

    def __init__(self, path: Path, table: Any, metric: str, dimension: int) -> None:
        """Use `create` or `open`."""
        self.path = path
        self.metric = metric
        self.dimension = dimension
        self._table = table
        self._snapshot: _Snapshot | None = None
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
                    f"{path} has format {about['format']!r}; this rsir reads {FORMAT!r}"
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
        self._table.checkout_latest()
        count: int = self._table.count_rows()
        return count

    @property
    def version(self) -> int:
        """The number of the last commit; it grows with every change."""
        self._table.checkout_latest()
        version: int = self._table.version
        return version

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Keep `records` with `vectors` (N, ...) in one commit; a known id is replaced."""
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
        known = [id for id in dict.fromkeys(ids) if _is_unicode(id)]
        return sum(
            self._table.delete(_any_of(known[start : start + _IDS_AT_ONCE])).num_deleted_rows
            for start in range(0, len(known), _IDS_AT_ONCE)
        )

    def search(self, queries: Vector, k: int) -> list[list[Neighbour]]:
        """The min(k, len) nearest records of each query (Q, ...), nearest first, ties by id."""
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        rows = checked_vectors(self.metric, self.dimension, queries, "queries")
        snapshot = self._latest()
        found = snapshot.gallery.nearest(rows, k)
        records = snapshot.fetch(
            np.unique(np.concatenate([places for places, _ in found]))
            if found
            else np.empty(0, np.int64)
        )
        return [
            [
                Neighbour(records[place], distance)
                for place, distance in zip(places.tolist(), distances.tolist(), strict=True)
            ]
            for places, distances in found
        ]

    def get(self, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
        """The records and vectors under `ids`, in that order; ArchiveError for an unknown id."""
        self._table.checkout_latest()
        found: dict[str, tuple[Record, Vector]] = {}
        wanted = [id for id in dict.fromkeys(ids) if _is_unicode(id)]
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            some = wanted[start : start + _IDS_AT_ONCE]
            rows = self._table.search().where(_any_of(some)).to_arrow()
            matrix = _matrix(rows["vector"])
            for record, vector in zip(_from_arrow(rows), matrix, strict=True):
                found[record.id] = (record, vector)
        for id in ids:
            if id not in found:
                raise ArchiveError(f"the archive has no record {id!r}")
        return [(found[id][0], found[id][1].copy()) for id in ids]

    def records(self) -> Iterator[Record]:
        """All records, ordered by id."""
        self._table.checkout_latest()
        rows = self._table.search().select(_RECORD_COLUMNS).to_arrow()
        order = pa.compute.sort_indices(rows["id"])
        for start in range(0, rows.num_rows, _IDS_AT_ONCE):
            yield from _from_arrow(rows.take(order[start : start + _IDS_AT_ONCE]))

    def optimize(self) -> None:
        """Merge the small files that many commits leave, so that opening is quick again."""
        self._table.checkout_latest()
        self._table.optimize()

    def _latest(self) -> _Snapshot:
        with self._lock:
            self._table.checkout_latest()
            version = self._table.version
            if self._snapshot is None or self._snapshot.version != version:
                # The old vectors go before the new ones come: memory holds them once.
                self._snapshot = None
                table = lancedb.connect(self.path.parent).open_table(
                    self.path.stem, version=version
                )
                self._snapshot = _Snapshot.load(table, version, self.metric, self.dimension)
            return self._snapshot


@dataclass(frozen=True, slots=True, eq=False)
class _Snapshot:
    """One version of the table: the vectors in the order of their ids, and their row addresses.

    table: a handle pinned to that version, so that a row address keeps its meaning whatever is
    committed meanwhile.
    """

    table: Any
    version: int
    row_ids: NDArray[np.uint64]
    gallery: Flat

    @classmethod
    def load(cls, table: Any, version: int, metric: str, dimension: int) -> _Snapshot:
        ids = table.search().select(["id"]).with_row_id(True).to_arrow()
        row_ids = ids["_rowid"].to_numpy()
        # Arrow compares the UTF-8 bytes, which is the order of the code points.
        row_ids = row_ids[pa.compute.sort_indices(ids["id"]).to_numpy()]
        del ids
        by_row = np.argsort(row_ids)
        rising = row_ids[by_row]
        kind = metric_named(metric)
        dtype = np.uint8 if kind.kind == "bits" else np.float32
        vectors = np.empty((len(row_ids), kind.width(dimension)), dtype)
        for batch in table.search().select(["vector"]).with_row_id(True).to_batches():
            places = by_row[np.searchsorted(rising, batch["_rowid"].to_numpy())]
            vectors[places] = _matrix(batch["vector"])
        return cls(table, version, row_ids, flat_index(kind, vectors))

    def fetch(self, places: NDArray[np.int64]) -> dict[int, Record]:
        """The records at `places` (unique), by place."""
        if not len(places):
            return {}
        addresses = self.row_ids[places].tolist()
        rows = self.table.take_row_ids(addresses).select(_RECORD_COLUMNS).with_row_id().to_arrow()
        by_address = dict(zip(rows["_rowid"].to_pylist(), _from_arrow(rows), strict=True))
        return {
            place: by_address[address]
            for place, address in zip(places.tolist(), addresses, strict=True)
        }


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
            pa.field("vector", pa.list_(value, kind.width(dimension)), nullable=False),
        ],
        metadata={_KEY: json.dumps(about).encode()},
    )


def _to_arrow(records: Sequence[Record], vectors: NDArray[Any], schema: Any) -> Any:
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
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    }
    return pa.table(
        [
            column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
            for name, column in columns.items()
        ],
        schema=schema,
    )


def _from_arrow(rows: Any) -> Iterable[Record]:
    for row in rows.select(_RECORD_COLUMNS).to_pylist():
        footprint = row["footprint"]
        yield Record(
            id=row["id"],
            source=row["source"],
            content=row["content"],
            size=row["size"],
            mtime_ns=row["mtime_ns"],
            footprint=None if footprint is None else json.loads(footprint),
            datetime=row["datetime"],
            properties=json.loads(row["properties"]),
        )


def _matrix(column: Any) -> NDArray[Any]:
    """A fixed-size-list column as an (N, width) array."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    width = column.type.list_size
    matrix: NDArray[Any] = column.flatten().to_numpy().reshape(-1, width)
    return matrix


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
