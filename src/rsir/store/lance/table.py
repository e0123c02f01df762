"""The rows of one version of a LanceDB table, in the order of their ids."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.ranking import Metric
from rsir.store.lance.id_order import order_of
from rsir.store.lance.record_cache import RecordCache
from rsir.store.lance.rows import RECORD_COLUMNS, matrix, records_of
from rsir.store.records.record import Record

_log = logging.getLogger(__name__)

_TABLE_READS = 2
_TABLE_ROWS = 10_000
"""The table serves up to `_TABLE_READS` reads of up to `_TABLE_ROWS` rows before the records are
copied. Our choice: a search from the shell copies nothing, a service copies once."""

SCAN_ROWS = 1 << 15
"""Maximum rows of a batch in a scan. Our choice: 64 MiB of 512 floats."""


class TableVersion:
    """Reads one version of a table; a row is a rank in the order of the ids.

    handle: a LanceDB table pinned to the version, so that its row ids stay valid when others
    commit. width: of a vector of `metric`. The first reads go to the table; later reads go to a
    temporary copy of all records (`rsir.store.lance.record_cache`): LanceDB takes some 10 ms for a
    hundred scattered rows, the copy less than 1 ms. Threads may share it.
    """

    def __init__(self, handle: Any, metric: Metric, width: int) -> None:
        self._table = handle
        self._width = width
        self._dtype = np.uint8 if metric.kind == "bits" else np.float32
        ids = handle.search().select(["id"]).with_row_id(True).to_arrow()
        self.row_ids: NDArray[np.uint64] = ids["_rowid"].to_numpy()[order_of(ids["id"])]
        """LanceDB's id of each row, (N,)."""
        self._lock = threading.Lock()
        self._reads = 0
        self._cache: RecordCache | None = None
        self._has_room = True

    def __len__(self) -> int:
        return len(self.row_ids)

    def scan(self, columns: list[str]) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """All rows in batches: the row numbers (n,), and a record batch with `columns`."""
        order = np.argsort(self.row_ids)
        ascending = self.row_ids[order]
        query = self._table.search().select(columns).with_row_id(True)
        for batch in query.to_batches(SCAN_ROWS):
            yield order[np.searchsorted(ascending, batch["_rowid"].to_numpy())], batch

    def read(self, rows: NDArray[Any], columns: list[str]) -> Any:
        """Some of `RECORD_COLUMNS` at `rows`, in that order, as a table."""
        if not len(rows):
            return pa.table({name: [] for name in columns})
        with self._lock:
            self._reads += 1
            few = self._reads <= _TABLE_READS and len(rows) <= _TABLE_ROWS
            if not few and self._cache is None and self._has_room:
                try:
                    self._cache = RecordCache(len(self), self.scan(RECORD_COLUMNS))
                except OSError as error:
                    self._has_room = False
                    _log.warning(
                        "records cannot be copied to a temporary file, reads are slower: %s", error
                    )
            if self._cache is None:
                return self._take(rows, columns)
        return self._cache.read(rows, columns)

    def records(self, rows: NDArray[Any]) -> list[Record]:
        """The records at `rows`, in that order."""
        return list(records_of(self.read(rows, RECORD_COLUMNS)))

    def vectors(self, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """The vectors (N, width) at `rows`, which are ascending; None: at all rows."""
        count = len(self) if rows is None else len(rows)
        vectors = np.empty((count, self._width), self._dtype)
        if not count:
            return vectors
        if rows is None:
            for found, batch in self.scan(["vector"]):
                vectors[found] = matrix(batch["vector"])
            return vectors
        if count <= _TABLE_ROWS:
            return matrix(self._take(rows, ["vector"])["vector"])
        position = np.full(len(self), -1, np.int64)
        position[rows] = np.arange(len(rows))
        for found, batch in self.scan(["vector"]):
            chosen = position[found] >= 0
            vectors[position[found[chosen]]] = matrix(batch["vector"])[chosen]
        return vectors

    def sample(self, count: int, seed: int) -> NDArray[Any]:
        """Up to `count` vectors, picked at random, (M, width), in the order of their ids."""
        if count >= len(self):
            return self.vectors()
        rows = np.random.default_rng(seed).choice(len(self), count, replace=False)
        return self.vectors(np.sort(rows))

    def by_row_id(self) -> tuple[NDArray[np.uint64], Iterator[tuple[NDArray[np.int64], Any]]]:
        """The row ids (N,), ascending, and all vectors in blocks with their positions in these."""
        order = np.argsort(self.row_ids)
        position = np.empty(len(self), np.int64)
        position[order] = np.arange(len(self))
        blocks = (
            (position[rows], matrix(batch["vector"])) for rows, batch in self.scan(["vector"])
        )
        return self.row_ids[order], blocks

    def _take(self, rows: NDArray[Any], columns: list[str]) -> Any:
        """Some columns at `rows`, in that order, from the table of LanceDB."""
        row_ids, inverse = np.unique(self.row_ids[rows], return_inverse=True)
        found = self._table.take_row_ids(row_ids.tolist()).select(columns).with_row_id().to_arrow()
        order = pc.sort_indices(found["_rowid"]).to_numpy()
        return found.select(columns).take(order[inverse])
