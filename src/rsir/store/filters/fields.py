"""The fields of many records, column by column, as conditions compare them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rsir.store.records.record import Record

RECORD_FIELDS = ("id", "source", "content", "size", "mtime_ns", "datetime")
"""Names that mean a field of the record; any other name, and properties.NAME, is a property."""

NULL, NUMBER, TEXT, BOOLEAN, OTHER = range(5)
"""Kinds of JSON values; OTHER are arrays and objects. Only values of one kind compare."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the record: one of `RECORD_FIELDS`, or a property."""

    name: str
    is_property: bool

    def value(self, record: Record) -> Any:
        """None if the record lacks it."""
        if self.is_property:
            return record.properties.get(self.name)
        value = getattr(record, self.name)
        return microseconds(value) if isinstance(value, datetime) else value


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One field of N records.

    kind: (N,) uint8, NULL to OTHER. number: (N,) float64, numbers, and booleans as 0 and 1; None
    if there are none. codes: (N,) int32 into `texts` (distinct, an Arrow array), -1 where there
    is no text; None if there is none at all.
    """

    kind: NDArray[np.uint8]
    number: NDArray[np.float64] | None = None
    codes: NDArray[np.int32] | None = None
    texts: Any = None

    @classmethod
    def of_texts(cls, texts: Any) -> Column:
        """Of an Arrow array of text and nulls."""
        coded = pc.dictionary_encode(texts)
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.unify_dictionaries().combine_chunks()
        codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
        kind = np.where(codes < 0, NULL, TEXT).astype(np.uint8)
        return cls(kind, None, codes, coded.dictionary)

    @classmethod
    def of_numbers(cls, numbers: NDArray[Any], known: NDArray[np.bool_] | None = None) -> Column:
        """Of numbers (N,), and where they are known (everywhere, if not given)."""
        kind = np.full(len(numbers), NUMBER, np.uint8)
        if known is not None:
            kind[~known] = NULL
        return cls(kind, numbers.astype(np.float64))


class Columns(Protocol):
    """The fields of N records, column by column."""

    def __len__(self) -> int:
        """N."""

    def field(self, field: Field) -> Column:
        """A field of the record or a property; `datetime` as microseconds since the epoch."""

    def times(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Microseconds since the epoch (N,), and where they are known."""

    def bounds(self) -> NDArray[np.float64]:
        """West, south, east, north of the footprints, (4, N); NaN where there is none."""

    def footprints(self, places: NDArray[np.int64]) -> Sequence[str]:
        """GeoJSON text of the footprints of some records, which all have one."""


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
    """Since 1970-01-01 UTC; without a time zone it is UTC."""
    since = in_utc(time) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)


def column_of_values(values: Sequence[Any]) -> Column:
    """The column of N JSON values."""
    kind = np.array([kind_of(value) for value in values], np.uint8)
    number = np.array(
        [
            as_float(v) if k in (NUMBER, BOOLEAN) else np.nan
            for v, k in zip(values, kind, strict=True)
        ]
    )
    texts = Column.of_texts(
        pa.array([v if isinstance(v, str) else None for v in values], pa.string())
    )
    return Column(kind, number, texts.codes, texts.texts)


def in_utc(time: datetime) -> datetime:
    """The same time in UTC; without a time zone it is UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
