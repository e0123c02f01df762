"""Records in a temporary file, for reading scattered ones of them quickly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsir.store.lance.rows import RECORD_COLUMNS

_SPOOL_ROWS = 1 << 17
"""Rows of a batch of the copy. Our choice: the hits of one search lie in few batches, and the text
of a batch stays far below the 2 GiB of an Arrow array."""


class RecordCache:
    """All records in a temporary file, mapped into memory: the system keeps what is in use.

    The file stands where temporary files do (TMPDIR), uncompressed, some 0.3 GB per million
    records, and goes with the process, however that ends, where the system can unlink it at once.
    """

    def __init__(self, count: int, batches: Iterable[tuple[NDArray[np.int64], Any]]) -> None:
        self._row = np.empty(count, np.int64)
        self._folder = tempfile.TemporaryDirectory(prefix="rsir-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / "records.arrow"
        lengths = [0]
        writer, waiting, done = None, [], 0
        try:
            for places, batch in batches:
                batch = batch.select(RECORD_COLUMNS)
                self._row[places] = done + np.arange(len(places))
                done += len(places)
                writer = writer or pa.ipc.new_file(str(path), batch.schema)
                waiting.append(batch)
                if sum(map(len, waiting)) >= _SPOOL_ROWS:
                    lengths += _write(writer, waiting)
                    waiting = []
            lengths += _write(writer, waiting)
        finally:
            if writer is not None:
                writer.close()
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
        self._starts = np.cumsum(lengths)
        self._folder.cleanup()

    def read(self, places: NDArray[Any], columns: list[str]) -> Any:
        """Some columns at `places`, in that order, as a table."""
        rows = self._row[places]
        number = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(number, kind="stable")
        parts = []
        for part in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
            n = number[part[0]]
            batch = self._batches[n].select(columns)
            parts.append(batch.take(pa.array(rows[part] - self._starts[n])))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        table = pa.Table.from_batches(parts)
        return table if (back == np.arange(len(back))).all() else table.take(back)


def _write(writer: Any, batches: list[Any]) -> list[int]:
    """Write `batches` joined, as far as Arrow joins them; returns the rows of what was written."""
    if not batches:
        return []
    joined = pa.Table.from_batches(batches).combine_chunks().to_batches()
    for batch in joined:
        writer.write_batch(batch)
    return [len(batch) for batch in joined]
