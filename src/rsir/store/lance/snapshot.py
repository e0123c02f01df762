"""One version of a LanceDB table, ready for search.

Memory holds, in the order of the ids, the vectors and the row ids (16 MB for a million 64-bit
codes), and the columns and results of the latest filters (`rsir.store.lance.columns`; 32 MB per
million records for the bounds of footprints).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
from cachetools import LRUCache
from numpy.typing import NDArray

from rsir.ranking import Metric, metric_named
from rsir.store.base import Neighbour, lazy_neighbours
from rsir.store.filters.filter import Filter, select
from rsir.store.knn.adaptive import FlatAdaptive
from rsir.store.knn.flat import Flat, flat_index
from rsir.store.knn.floats import FlatFloats
from rsir.store.knn.ivf_search import Index, IndexView, SearchScope
from rsir.store.knn.rows import NearestRows
from rsir.store.lance.columns import TableColumns
from rsir.store.lance.table import TableVersion
from rsir.store.records.record import Record

_CACHED_FILTERS = 8
"""The results of the most recently used filters stay in memory, up to this number. Our choice. A
filter takes 4 bytes and a copy of the code for each record that meets it (of floats: at most 16
MiB)."""


class Snapshot:
    """The records and vectors of one version; a row is a rank in the order of the ids.

    handle: a LanceDB table pinned to the version. identity: of the store. Threads may share it.
    """

    def __init__(
        self, handle: Any, identity: str, version: int, metric: str, dimension: int
    ) -> None:
        self.identity = identity
        self.version = version
        self._metric = metric_named(metric)
        self.table = TableVersion(handle, self._metric, self._metric.width(dimension))
        _release_memory()
        self.view: IndexView | None = None
        """The index for "approximate", after `attach`."""
        self._lock = threading.RLock()
        self._gallery: Flat | None = None
        self._columns = TableColumns(self.table)
        self._matches: LRUCache[str, _Matches] = LRUCache(_CACHED_FILTERS)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def gallery(self) -> Flat:
        """All vectors, read when first searched."""
        with self._lock:
            if self._gallery is None:
                self._gallery = flat_index(self._metric, self.table.vectors())
                _release_memory()
            return self._gallery

    def rows(self, filter: Filter) -> NDArray[Any]:
        """The rows of the records that meet `filter`, ascending."""
        return self._matching(filter).rows

    def count(self, filter: Filter | None) -> int:
        """The number of records that meet `filter`; None: of all records."""
        return len(self) if filter is None else len(self.rows(filter))

    def nearest(
        self, queries: NDArray[Any], k: int, filter: Filter | None, metric: Metric
    ) -> list[list[Neighbour]]:
        """The neighbours of each checked query, by `metric` (see `rsir.store.base.searched`)."""
        if filter is None:
            gallery, chosen = self.gallery, None
        else:
            matches = self._matching(filter)
            with self._lock:
                gallery, chosen = matches.gallery(self.gallery), matches.rows
        if metric is not self._metric and isinstance(gallery, FlatAdaptive):
            with self._lock:
                gallery = gallery.plain()
        found = gallery.nearest(queries, k)
        if chosen is not None:
            found = [
                NearestRows(chosen[rows].astype(np.int64), distances) for rows, distances in found
            ]
        return self._neighbours(found)

    def approximate(
        self, queries: NDArray[np.float32], k: int, filter: Filter | None
    ) -> list[list[Neighbour]]:
        """The neighbours of each query by "approximate"; call `attach` first."""
        view = self.view
        assert view is not None
        scope = view.whole
        if filter is not None:
            matches = self._matching(filter)
            if len(matches.rows) < len(self):
                with self._lock:
                    scope = matches.scope(view)
        return self._neighbours(view.nearest(queries, k, scope))

    def attach(self, index: Index) -> None:
        """Search the rows that `index` shares with this version by it, and all others exactly."""
        row_ids = self.table.row_ids
        order = np.argsort(row_ids)
        ascending = row_ids[order]
        slots = np.minimum(np.searchsorted(ascending, index.row_ids), max(0, len(self) - 1))
        exists = ascending[slots] == index.row_ids if len(self) else np.zeros(len(index), np.bool_)
        row_of = np.where(exists, order[slots] if len(self) else -1, -1)
        missing = np.ones(len(self), np.bool_)
        missing[row_of[exists]] = False
        rows = np.flatnonzero(missing)
        fresh = FlatFloats(self.table.vectors(rows), self._metric.name)
        self.view = IndexView(index, self._metric.name, row_of, rows, fresh)

    def shared_rows(self, index: Index) -> int:
        """The number of rows of this version that `index` has."""
        return int(np.isin(self.table.row_ids, index.row_ids, assume_unique=True).sum())

    def _neighbours(self, found: Sequence[NearestRows]) -> list[list[Neighbour]]:
        pairs = [zip(rows.tolist(), distances.tolist(), strict=True) for rows, distances in found]
        return lazy_neighbours(pairs, self._records)

    def _records(self, rows: Sequence[int]) -> dict[int, Record]:
        ascending = np.unique(np.array(rows, np.int64))
        return dict(zip(ascending.tolist(), self.table.records(ascending), strict=True))

    def _matching(self, filter: Filter) -> _Matches:
        with self._lock:
            if filter.key not in self._matches:
                self._matches[filter.key] = _Matches(select(filter, self._columns))
            return self._matches[filter.key]


class _Matches:
    """The rows that meet a filter, with the vectors and the index scope of these rows.

    chosen: (N,), whether each row meets the filter.
    """

    def __init__(self, chosen: NDArray[np.bool_]) -> None:
        small = np.int32 if len(chosen) <= np.iinfo(np.int32).max else np.int64
        self.rows: NDArray[Any] = np.flatnonzero(chosen).astype(small)
        self._gallery: Flat | None = None
        self._scope: tuple[IndexView, SearchScope] | None = None

    def gallery(self, whole: Flat) -> Flat:
        """The vectors of these rows."""
        if self._gallery is None:
            has_all = len(self.rows) == len(whole)
            self._gallery = whole if has_all else whole.subset(self.rows.astype(np.int64))
        return self._gallery

    def scope(self, view: IndexView) -> SearchScope:
        """The scope of these rows in an index."""
        if self._scope is None or self._scope[0] is not view:
            self._scope = (view, view.among(self.rows))
        return self._scope[1]


def _release_memory() -> None:
    """Return freed memory to the system: allocators keep about as much as a read of vectors took.

    For Arrow's allocator and glibc; other C libraries lack the call or do not need it.
    """
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
