"""The time that a record covers: its datetime, or the interval in its properties."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from rsir.store.filters.fields import Field, FieldColumns, microseconds
from rsir.store.records.record import Record

ENDS = ("start_datetime", "end_datetime")
"""STAC's names of the properties with the ends of an interval, as ISO 8601 texts."""

Times = NDArray[np.int64]


def spans(columns: FieldColumns) -> tuple[Times, Times, NDArray[np.bool_]]:
    """The first and the last microsecond of N records, (N,), and which records have them.

    An end that a record lacks, or that is no time, is its datetime; without a datetime, it is the
    other end.
    """
    times, dated = columns.times()
    (first, begun), (last, ended) = (_moments(columns, name, times) for name in ENDS)
    first = np.where(~begun & ~dated, last, first)
    last = np.where(~ended & ~dated, first, last)
    return first, np.maximum(first, last), dated | begun | ended


def span_of(record: Record) -> tuple[int, int] | None:
    """The first and the last microsecond of one record, as by `spans`; None without any time."""
    own = None if record.datetime is None else microseconds(record.datetime)
    first, last = (_moment(record.properties.get(name)) for name in ENDS)
    first, last = (own if end is None else end for end in (first, last))
    ends = [end for end in (first, last) if end is not None]
    return (ends[0], max(ends)) if ends else None


def _moments(columns: FieldColumns, name: str, times: Times) -> tuple[Times, NDArray[np.bool_]]:
    """A property in microseconds (N,), and which records have it; `times` for all others."""
    column = columns.field(Field(name, True))
    has = np.zeros(len(times), np.bool_)
    if column.codes is None or column.texts is None:
        return times, has
    # A few distinct texts, of some million records.
    moments = [_moment(text) for text in column.texts.to_pylist()]
    known = np.array([moment is not None for moment in moments], np.bool_)
    values = np.array([moment or 0 for moment in moments], np.int64)
    rows = np.flatnonzero(column.codes >= 0)
    rows = rows[known[column.codes[rows]]]
    has[rows] = True
    found = times.copy()
    found[rows] = values[column.codes[rows]]
    return found, has


def _moment(text: object) -> int | None:
    if not isinstance(text, str):
        return None
    try:
        return microseconds(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None
