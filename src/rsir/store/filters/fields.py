"""The fields of many records as columns, which conditions compare."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.geo.geometry import bounds_of
from rsir.store.records.record import Record, in_utc

RECORD_FIELDS = ("id", "source", "content", "size", "mtime_ns", "datetime")
"""Names that mean a field of the record. Any other name, and properties.NAME, is a property."""

NULL, NUMBER, TEXT, BOOLEAN, OTHER = range(5)
"""Kinds of JSON values; OTHER are arrays and objects. Only values of the same kind compare."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the record: one of `RECORD_FIELDS`, or a property."""

    name: str
    is_property: bool


@dataclass(frozen=True, slots=True, eq=False)
class FieldColumn:
    """One field of N records.

    kind: (N,) uint8, NULL to OTHER. number: (N,) float64, numbers, and booleans as 0 and 1; None
    if no record has a number or boolean. codes: (N,) int32, indices into `texts` (an Arrow array of
    distinct texts), -1 without a text; None if no record has a text.
    """

    kind: NDArray[np.uint8]
    number: NDArray[np.float64] | None = None
    codes: NDArray[np.int32] | None = None
    texts: Any = None

    @classmethod
    def of_texts(cls, texts: Any) -> FieldColumn:
        """The column of an Arrow array of texts and nulls."""
        coded = pc.dictionary_encode(texts)
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.unify_dictionaries().combine_chunks()
        codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
        kind = np.where(codes < 0, NULL, TEXT).astype(np.uint8)
        return cls(kind, None, codes, coded.dictionary)

    @classmethod
    def of_numbers(
        cls, numbers: NDArray[Any], known: NDArray[np.bool_] | None = None
    ) -> FieldColumn:
        """The column of numbers (N,), NULL if not `known` (N,); None: all are known."""
        kind = np.full(len(numbers), NUMBER, np.uint8)
        if known is not None:
            kind[~known] = NULL
        return cls(kind, numbers.astype(np.float64))

    @classmethod
    def of_values(cls, values: Sequence[Any]) -> FieldColumn:
        """The column of N JSON values."""
        kind = np.array([kind_of(value) for value in values], np.uint8)
        number = np.array(
            [
                as_float(v) if k in (NUMBER, BOOLEAN) else np.nan
                for v, k in zip(values, kind, strict=True)
            ]
        )
        texts = cls.of_texts(
            pa.array([v if isinstance(v, str) else None for v in values], pa.string())
        )
        return cls(kind, number, texts.codes, texts.texts)


class FieldColumns(Protocol):
    """The fields of N records, column by column."""

    def __len__(self) -> int:
        """N."""

    def field(self, field: Field) -> FieldColumn:
        """A field of the record or a property; `datetime` as microseconds since the epoch."""

    def times(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Microseconds since the epoch (N,), and which of them are known (N,)."""

    def bounds(self) -> NDArray[np.float64]:
        """West, south, east, north of the footprints, (4, N); NaN without a footprint."""

    def footprints(self, rows: NDArray[np.int64]) -> Sequence[str]:
        """The footprints at `rows`, which all have one, as GeoJSON text."""


class RecordColumns:
    """The `FieldColumns` of records in memory."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def field(self, field: Field) -> FieldColumn:
        """A field of the record or a property."""
        if field.is_property:
            return FieldColumn.of_values([r.properties.get(field.name) for r in self._records])
        if field.name == "datetime":
            return FieldColumn.of_numbers(*self.times())
        return FieldColumn.of_values([getattr(record, field.name) for record in self._records])

    def times(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Microseconds since the epoch (N,), and which of them are known (N,)."""
        times = [record.datetime for record in self._records]
        known = np.array([time is not None for time in times], np.bool_)
        return np.array([microseconds(t) if t else 0 for t in times], np.int64), known

    def bounds(self) -> NDArray[np.float64]:
        """West, south, east, north of the footprints, (4, N); NaN without a footprint."""
        nowhere = (math.nan,) * 4
        bounds = [bounds_of(record.footprint) or nowhere for record in self._records]
        return np.array(bounds, np.float64).reshape(-1, 4).T

    def footprints(self, rows: NDArray[np.int64]) -> Sequence[str]:
        """The footprints at `rows` as GeoJSON text."""
        return [json.dumps(self._records[row].footprint) for row in rows]


def kind_of(value: Any) -> int:
    """NULL, NUMBER, TEXT, BOOLEAN or OTHER, of a JSON value."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int | float):
        return NUMBER
    return TEXT if isinstance(value, str) else OTHER


def as_float(number: float) -> float:
    """A number as float64; an integer beyond its range is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def microseconds(time: datetime) -> int:
    """Microseconds since 1970-01-01 UTC; a time without a zone is UTC."""
    since = in_utc(time) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)
