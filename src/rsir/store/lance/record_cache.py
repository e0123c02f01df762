"""A copy of all records in a temporary file, to read scattered records quickly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsir.store.lance.rows import RECORD_COLUMNS

_BATCH_ROWS = 1 << 17
"""Rows of a batch of the copy. Our choice: the hits of one search lie in few batches, and the text
of a batch stays far below the 2 GiB limit of an Arrow array."""


class RecordCache:
    """All records in a temporary file mapped into memory: the system keeps the pages in use.

    The file is in the folder for temporary files (TMPDIR), uncompressed, some 0.3 GB per million
    records. If the system can unlink an open file, the file vanishes with the process, even if the
    process is killed.

    count: N. batches: row numbers (n,), and a record batch of these rows with `RECORD_COLUMNS`.
    """

    def __init__(self, count: int, batches: Iterable[tuple[NDArray[np.int64], Any]]) -> None:
        self._position = np.empty(count, np.int64)  # of each row in the file
        self._folder = tempfile.TemporaryDirectory(prefix="rsir-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / "records.arrow"
        lengths = [0]
        writer, waiting, done = None, [], 0
        try:
            for rows, batch in batches:
                batch = batch.select(RECORD_COLUMNS)
                self._position[rows] = done + np.arange(len(rows))
                done += len(rows)
                writer = writer or pa.ipc.new_file(str(path), batch.schema)
                waiting.append(batch)
                if sum(map(len, waiting)) >= _BATCH_ROWS:
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

    def read(self, rows: NDArray[Any], columns: list[str]) -> Any:
        """Some columns at `rows`, in that order, as a table."""
        positions = self._position[rows]
        number = np.searchsorted(self._starts, positions, side="right") - 1
        order = np.argsort(number, kind="stable")
        parts = []
        for part in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
            n = number[part[0]]
            batch = self._batches[n].select(columns)
            parts.append(batch.take(pa.array(positions[part] - self._starts[n])))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        table = pa.Table.from_batches(parts)
        return table if (back == np.arange(len(back))).all() else table.take(back)


def _write(writer: Any, batches: list[Any]) -> list[int]:
    """Write `batches`, joined as far as Arrow can; returns the lengths of the written batches."""
    if not batches:
        return []
    joined = pa.Table.from_batches(batches).combine_chunks().to_batches()
    for batch in joined:
        writer.write_batch(batch)
    return [len(batch) for batch in joined]
