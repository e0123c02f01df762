"""The columns of one version of a LanceDB table, which filters compare."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache
from numpy.typing import NDArray

from rsir.store.filters.fields import BOOLEAN, NULL, NUMBER, TEXT, Field, FieldColumn
from rsir.store.filters.json_fields import parsed
from rsir.store.lance.rows import BOUND_COLUMNS
from rsir.store.lance.table import TableVersion

_CACHED_FIELDS = 16
"""The most recently used fields stay in memory, up to this number; some 9 MB per million records
and field. Our choice."""


class TableColumns:
    """The `rsir.store.filters.fields.FieldColumns` of a table; reads each column on first use.

    Not safe for several threads.
    """

    def __init__(self, table: TableVersion) -> None:
        self._table = table
        self._fields: LRUCache[Field, FieldColumn] = LRUCache(_CACHED_FIELDS)

    def __len__(self) -> int:
        return len(self._table)

    def field(self, field: Field) -> FieldColumn:
        """A field of the record or a property."""
        if field not in self._fields:
            self._fields[field] = self._read(field)
        return self._fields[field]

    def times(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Microseconds since the epoch (N,), and which of them are known (N,)."""
        return self._times

    def bounds(self) -> NDArray[np.float64]:
        """West, south, east, north of the footprints, (4, N); NaN without a footprint."""
        return self._bounds

    def footprints(self, rows: NDArray[np.int64]) -> Sequence[str]:
        """The footprints at `rows` as GeoJSON text."""
        texts: Sequence[str] = self._table.read(rows, ["footprint"])["footprint"].to_pylist()
        return texts

    @cached_property
    def _times(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        return self._integers("datetime")

    @cached_property
    def _bounds(self) -> NDArray[np.float64]:
        bounds = np.empty((4, len(self)))
        for rows, batch in self._table.scan(BOUND_COLUMNS):
            for side, name in enumerate(BOUND_COLUMNS):
                bounds[side, rows] = pc.fill_null(batch[name], np.nan).to_numpy()
        return bounds

    def _read(self, field: Field) -> FieldColumn:
        if field.is_property:
            return self._property(field.name)
        if field.name in ("size", "mtime_ns", "datetime"):
            return FieldColumn.of_numbers(*self._integers(field.name))
        parts, order = [], []
        for rows, batch in self._table.scan([field.name]):
            parts.append(batch[field.name])
            order.append(rows)
        return FieldColumn.of_texts(_in_order(parts, order))

    def _property(self, name: str) -> FieldColumn:
        kind = np.zeros(len(self), np.uint8)
        number = np.full(len(self), np.nan)
        parts, order = [], []
        likely = NUMBER
        for rows, batch in self._table.scan(["properties"]):
            column = parsed(batch["properties"].to_pylist(), name, likely)
            kind[rows] = column.kind
            if column.number is not None:
                number[rows] = column.number
            likely = int(column.kind.max(initial=NULL)) or likely
            codes = np.full(len(rows), -1, np.int32) if column.codes is None else column.codes
            texts = pa.array([], pa.string()) if column.texts is None else column.texts
            parts.append(texts.take(pa.array(codes, mask=codes < 0)))
            order.append(rows)
        if not (kind == TEXT).any():
            return FieldColumn(kind, number)
        texts = FieldColumn.of_texts(_in_order(parts, order))
        numeric = ((kind == NUMBER) | (kind == BOOLEAN)).any()
        return FieldColumn(kind, number if numeric else None, texts.codes, texts.texts)

    def _integers(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """An integer column (N,), 0 where it is null, and where it is not null (N,)."""
        values = np.zeros(len(self), np.int64)
        known = np.zeros(len(self), np.bool_)
        for rows, batch in self._table.scan([name]):
            column = batch[name]
            known[rows] = column.is_valid().to_numpy(zero_copy_only=False)
            values[rows] = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
        return values, known


def _in_order(parts: list[Any], rows: list[NDArray[np.int64]]) -> Any:
    """Arrow arrays whose elements belong to `rows`, as one array in the order of the rows."""
    if not parts:
        return pa.array([], pa.string())
    return pa.chunked_array(parts).take(pa.array(np.argsort(np.concatenate(rows))))
