"""One version of a LanceDB table, made ready for search.

In memory, in the order of the ids: the vectors and each one's row address, 16 MB for a million
64-bit codes; and what filters have needed lately, some 9 MB per million records and field, 32 MB
for the bounds of footprints. Records are read from the table at first. Whoever goes on reading
gets a copy of all of them (`rsir.store.lance.record_cache`): LanceDB takes some 10 ms for a
hundred scattered
rows, the copy takes less than one.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.ranking import Metric, metric_named
from rsir.store.base import Neighbour
from rsir.store.filters.fields import BOOLEAN, NULL, NUMBER, TEXT, Column, Field
from rsir.store.filters.filter import Filter, select
from rsir.store.filters.json_fields import parsed
from rsir.store.knn.adaptive import FlatAdaptive
from rsir.store.knn.flat import Flat, flat_index
from rsir.store.knn.floats import FlatFloats
from rsir.store.knn.ivf_search import Index, IndexView, SearchScope
from rsir.store.knn.rows import NearestRows
from rsir.store.lance.id_order import order_of
from rsir.store.lance.record_cache import RecordCache
from rsir.store.lance.rows import BOUND_COLUMNS, RECORD_COLUMNS, matrix, records_of
from rsir.store.records.record import Record

_log = logging.getLogger(__name__)

T = TypeVar("T")

_TABLE_READS = 2
_TABLE_ROWS = 10_000
"""So many times, and up to so many rows, records are read from the table before they are copied.
Our choice: one search from the shell copies nothing, a service copies once."""

SCAN_ROWS = 1 << 15
"""Rows of a batch when all are read, at most. Our choice: 64 MiB of 512 floats."""

_FIELDS_KEPT = 16
_FILTERS_KEPT = 8
"""Of what filters have needed and found, the latest are kept. Our choice. A filter that is kept
takes, per record that meets it, 4 bytes and a copy of its code (of floats: at most 16 MiB)."""


class Snapshot:
    """The records and vectors of one version, by place: their rank in the order of the ids.

    handle: a table pinned to that version, so that a row address keeps its meaning whatever is
    committed meanwhile. table: its identity. May be used by several threads.
    """

    def __init__(self, handle: Any, table: str, version: int, metric: str, dimension: int) -> None:
        self.table = table
        self.version = version
        self._table = handle
        self._metric = metric_named(metric)
        self._width = self._metric.width(dimension)
        ids = handle.search().select(["id"]).with_row_id(True).to_arrow()
        self.row_ids: NDArray[np.uint64] = ids["_rowid"].to_numpy()[order_of(ids["id"])]
        del ids
        _give_back()
        self.attached: IndexView | None = None
        self._lock = threading.RLock()
        self._gallery: Flat | None = None
        self._reads = 0
        self._spool: RecordCache | None = None
        self._has_room = True
        self._fields: _Recent[Column] = _Recent(_FIELDS_KEPT)
        self._arrays: _Recent[Any] = _Recent(2)
        self._filters: _Recent[_Chosen] = _Recent(_FILTERS_KEPT)

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def gallery(self) -> Flat:
        """The vectors, read when first searched."""
        with self._lock:
            if self._gallery is None:
                dtype = np.uint8 if self._metric.kind == "bits" else np.float32
                vectors = np.empty((len(self), self._width), dtype)
                for places, batch in self._scan(["vector"]):
                    vectors[places] = matrix(batch["vector"])
                self._gallery = flat_index(self._metric, vectors)
                _give_back()
            return self._gallery

    def places(self, filter: Filter) -> NDArray[Any]:
        """The places of the records that meet `filter`, rising."""
        return self._chosen(filter).places

    def nearest(
        self, queries: NDArray[Any], k: int, filter: Filter | None, metric: Metric
    ) -> list[list[Neighbour]]:
        """The neighbours of each checked query, by `metric` (see `rsir.store.base.searched`)."""
        if filter is None:
            gallery, places = self.gallery, None
        else:
            chosen = self._chosen(filter)
            with self._lock:
                gallery, places = chosen.gallery(self.gallery), chosen.places
        if metric is not self._metric and isinstance(gallery, FlatAdaptive):
            with self._lock:
                gallery = gallery.plain()
        found = gallery.nearest(queries, k)
        if places is not None:
            found = [
                NearestRows(places[rows].astype(np.int64), distances) for rows, distances in found
            ]
        return self._neighbours(found)

    def nearest_of_candidates(
        self, queries: NDArray[np.float32], k: int, filter: Filter | None
    ) -> list[list[Neighbour]]:
        """The neighbours of each query by "approximate"; `attach` must come first."""
        attached = self.attached
        assert attached is not None
        scope = attached.whole
        if filter is not None:
            chosen = self._chosen(filter)
            if len(chosen.places) < len(self):
                with self._lock:
                    scope = chosen.scope(attached)
        return self._neighbours(attached.nearest(queries, k, scope))

    def attach(self, index: Index) -> IndexView:
        """Search `index` for what it has of this version, and the other rows beside it."""
        by_row = np.argsort(self.row_ids)
        rising = self.row_ids[by_row]
        at = np.minimum(np.searchsorted(rising, index.row_ids), max(0, len(self) - 1))
        there = rising[at] == index.row_ids if len(self) else np.zeros(len(index), np.bool_)
        place_of = np.where(there, by_row[at] if len(self) else -1, -1)
        missing = np.ones(len(self), np.bool_)
        missing[place_of[there]] = False
        places = np.flatnonzero(missing)
        fresh = FlatFloats(self.vectors(places), self._metric.name)
        self.attached = IndexView(index, self._metric.name, place_of, places, fresh)
        return self.attached

    def rows_of(self, index: Index) -> int:
        """How many rows of this version `index` has."""
        return int(np.isin(self.row_ids, index.row_ids, assume_unique=True).sum())

    def by_address(self) -> tuple[NDArray[np.uint64], Iterator[tuple[NDArray[np.int64], Any]]]:
        """The row addresses, rising, and all vectors in blocks with their numbers among these."""
        by_row = np.argsort(self.row_ids)
        number = np.empty(len(self), np.int64)
        number[by_row] = np.arange(len(self))
        blocks = (
            (number[places], matrix(batch["vector"])) for places, batch in self._scan(["vector"])
        )
        return self.row_ids[by_row], blocks

    def vectors(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """The vectors (N, width) at `places` (rising)."""
        if len(places) <= _TABLE_ROWS:
            dtype = np.uint8 if self._metric.kind == "bits" else np.float32
            if not len(places):
                return np.empty((0, self._width), dtype)
            return matrix(self._taken(places, ["vector"])["vector"])
        wanted = np.full(len(self), -1, np.int64)
        wanted[places] = np.arange(len(places))
        vectors: NDArray[Any] | None = None
        for found, batch in self._scan(["vector"]):
            rows = matrix(batch["vector"])
            vectors = (
                np.empty((len(places), self._width), rows.dtype) if vectors is None else vectors
            )
            kept = wanted[found] >= 0
            vectors[wanted[found[kept]]] = rows[kept]
        assert vectors is not None
        return vectors

    def _neighbours(self, found: list[NearestRows]) -> list[list[Neighbour]]:
        # Read for all at once, when the first of them is looked at.
        hits = _LazyHits(self, found)
        return [
            [
                Neighbour(partial(hits.record, place), distance)
                for place, distance in zip(near.tolist(), far.tolist(), strict=True)
            ]
            for near, far in found
        ]

    def records(self, places: NDArray[Any]) -> list[Record]:
        """The records at `places`, in that order."""
        return list(records_of(self._read(places, RECORD_COLUMNS)))

    def sample(self, count: int, seed: int) -> NDArray[Any]:
        """Up to `count` vectors, picked at random, (M, width), in the order of their ids."""
        random = np.random.default_rng(seed)
        if count >= len(self):
            return self.vectors(np.arange(len(self)))
        return self.vectors(np.sort(random.choice(len(self), count, replace=False)))

    # What filters ask for (`rsir.store.filters.fields.Columns`).

    def field(self, field: Field) -> Column:
        """A field of the record or a property, read when it is first asked for."""
        return self._fields.get(repr(field), lambda: self._column(field))

    def times(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Microseconds since the epoch (N,), and where they are known."""
        found: tuple[NDArray[np.int64], NDArray[np.bool_]]
        found = self._arrays.get("times", lambda: self._integers("datetime"))
        return found

    def bounds(self) -> NDArray[np.float64]:
        """West, south, east, north of the footprints, (4, N); NaN where there is none."""
        found: NDArray[np.float64] = self._arrays.get("bounds", self._bounds)
        return found

    def footprints(self, places: NDArray[np.int64]) -> Sequence[str]:
        """GeoJSON text of the footprints at `places`."""
        texts: Sequence[str] = self._read(places, ["footprint"])["footprint"].to_pylist()
        return texts

    def _chosen(self, filter: Filter) -> _Chosen:
        with self._lock:
            return self._filters.get(filter.key, lambda: _Chosen(select(filter, self)))

    def _column(self, field: Field) -> Column:
        if field.is_property:
            return self._property(field.name)
        if field.name in ("size", "mtime_ns", "datetime"):
            return Column.of_numbers(*self._integers(field.name))
        parts, order = [], []
        for places, batch in self._scan([field.name]):
            parts.append(batch[field.name])
            order.append(places)
        return Column.of_texts(_in_order(parts, order))

    def _property(self, name: str) -> Column:
        kind = np.zeros(len(self), np.uint8)
        number = np.full(len(self), np.nan)
        parts, order = [], []
        likely = NUMBER
        for places, batch in self._scan(["properties"]):
            column = parsed(batch["properties"].to_pylist(), name, likely)
            kind[places] = column.kind
            if column.number is not None:
                number[places] = column.number
            likely = int(column.kind.max(initial=NULL)) or likely
            codes = np.full(len(places), -1, np.int32) if column.codes is None else column.codes
            texts = pa.array([], pa.string()) if column.texts is None else column.texts
            parts.append(texts.take(pa.array(codes, mask=codes < 0)))
            order.append(places)
        if not (kind == TEXT).any():
            return Column(kind, number)
        texts = Column.of_texts(_in_order(parts, order))
        numeric = ((kind == NUMBER) | (kind == BOOLEAN)).any()
        return Column(kind, number if numeric else None, texts.codes, texts.texts)

    def _integers(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        values = np.zeros(len(self), np.int64)
        known = np.zeros(len(self), np.bool_)
        for places, batch in self._scan([name]):
            column = batch[name]
            known[places] = column.is_valid().to_numpy(zero_copy_only=False)
            values[places] = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
        return values, known

    def _bounds(self) -> NDArray[np.float64]:
        bounds = np.empty((4, len(self)))
        for places, batch in self._scan(BOUND_COLUMNS):
            for row, name in enumerate(BOUND_COLUMNS):
                bounds[row, places] = pc.fill_null(batch[name], np.nan).to_numpy()
        return bounds

    def _scan(self, columns: list[str]) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """All rows, batch by batch, and their places."""
        by_row = np.argsort(self.row_ids)
        rising = self.row_ids[by_row]
        query = self._table.search().select(columns).with_row_id(True)
        for batch in query.to_batches(SCAN_ROWS):
            yield by_row[np.searchsorted(rising, batch["_rowid"].to_numpy())], batch

    def _read(self, places: NDArray[Any], columns: list[str]) -> Any:
        """Some columns at `places`, in that order, as a table."""
        if not len(places):
            return pa.table({name: [] for name in columns})
        with self._lock:
            self._reads += 1
            few = self._reads <= _TABLE_READS and len(places) <= _TABLE_ROWS
            if not few and self._spool is None and self._has_room:
                try:
                    self._spool = RecordCache(len(self), self._scan(RECORD_COLUMNS))
                except OSError as error:
                    self._has_room = False
                    _log.warning("no temporary copy of the records, reads are slower: %s", error)
            if self._spool is None:
                return self._taken(places, columns)
        return self._spool.read(places, columns)

    def _taken(self, places: NDArray[Any], columns: list[str]) -> Any:
        addresses, back = np.unique(self.row_ids[places], return_inverse=True)
        rows = self._table.take_row_ids(addresses.tolist()).select(columns).with_row_id().to_arrow()
        rising = pc.sort_indices(rows["_rowid"]).to_numpy()
        return rows.select(columns).take(rising[back])


class _LazyHits:
    """The records of one search."""

    def __init__(self, snapshot: Snapshot, found: Sequence[NearestRows]) -> None:
        self._snapshot = snapshot
        self._found = found
        self._lock = threading.Lock()
        self._records: dict[int, Record] | None = None

    def record(self, place: int) -> Record:
        with self._lock:
            if self._records is None:
                places = np.unique(np.concatenate([near for near, _ in self._found]))
                records = self._snapshot.records(places)
                self._records = dict(zip(places.tolist(), records, strict=True))
            return self._records[place]


class _Chosen:
    """The records that meet a filter, and the search among them."""

    def __init__(self, chosen: NDArray[np.bool_]) -> None:
        small = np.int32 if len(chosen) <= np.iinfo(np.int32).max else np.int64
        self.places: NDArray[Any] = np.flatnonzero(chosen).astype(small)
        self._gallery: Flat | None = None
        self._scope: tuple[IndexView, SearchScope] | None = None

    def gallery(self, whole: Flat) -> Flat:
        if self._gallery is None:
            everything = len(self.places) == len(whole)
            self._gallery = whole if everything else whole.subset(self.places.astype(np.int64))
        return self._gallery

    def scope(self, attached: IndexView) -> SearchScope:
        if self._scope is None or self._scope[0] is not attached:
            self._scope = (attached, attached.among(self.places))
        return self._scope[1]


class _Recent(Generic[T]):  # the newer spelling needs Python 3.12
    """The last values that were made, by key."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._values: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str, make: Callable[[], T]) -> T:
        value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value
        if len(self._values) > self._kept:
            self._values.popitem(last=False)
        return value


def _give_back() -> None:
    """Return memory that was freed to the system: of reading, as much as is kept stays otherwise.

    Arrow's allocator and glibc's hold on to it; others have no such call, or need none.
    """
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _in_order(parts: list[Any], places: list[NDArray[np.int64]]) -> Any:
    """Arrow arrays whose elements belong to `places`, as one in the order of the places."""
    if not parts:
        return pa.array([], pa.string())
    return pa.chunked_array(parts).take(pa.array(np.argsort(np.concatenate(places))))
