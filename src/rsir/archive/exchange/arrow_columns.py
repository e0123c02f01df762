"""Columns of Arrow tables that others wrote, as what records and vectors are made of."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _is_list(kind: pa.DataType) -> bool:
    known = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_one(kind) for is_one in known)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_numbers(kind: pa.DataType) -> bool:
    """Whether its values are lists of integers or floats."""
    return _is_list(kind) and _is_number(kind.value_type)


def _is_binary(kind: pa.DataType) -> bool:
    known = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(is_one(kind) for is_one in known)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether its values are bytes: binary, or lists of uint8."""
    return _is_binary(kind) or (_is_list(kind) and pa.types.is_uint8(kind.value_type))


def is_text(kind: pa.DataType) -> bool:
    """Whether its values are strings, as they are or by dictionary."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_stamp(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def is_time(kind: pa.DataType) -> bool:
    """Whether its values are times or dates, or text that may hold them."""
    return _is_stamp(kind) or is_text(kind)


def is_geometry(kind: pa.DataType) -> bool:
    """Whether its values may be WKB or WKT."""
    if isinstance(kind, pa.ExtensionType):
        kind = kind.storage_type
    return _is_binary(kind) or (is_text(kind) and not pa.types.is_dictionary(kind))


def fits_json(kind: pa.DataType, nested: bool = False) -> bool:
    """Whether JSON can hold the values of a column, after `values_of`."""
    if _is_list(kind):
        return fits_json(kind.value_type, True)
    if pa.types.is_struct(kind):
        return all(fits_json(field.type, True) for field in kind)
    if _is_stamp(kind) or pa.types.is_time(kind):
        return not nested
    plain = (pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null)
    return is_text(kind) or _is_number(kind) or any(is_one(kind) for is_one in plain)


def values_of(column: Any) -> list[Any]:
    """A column as JSON values; times as Arrow writes them, in UTC where they have a zone."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    if _is_stamp(kind) or pa.types.is_time(kind):
        column = column.cast(pa.string())
    return [_plain(value) for value in column.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float | Decimal | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def times_of(column: Any) -> list[datetime | None]:
    """The values of a column as times in UTC; None where they are no time."""
    if is_text(column.type):
        return [None if text is None else _parsed(text) for text in column.to_pylist()]
    # The numbers, whatever the zone: they count from the epoch in UTC.
    stamps = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    return [None if n is None else _moment(n) for n in stamps.cast(pa.int64()).to_pylist()]


def _parsed(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _moment(microseconds: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None


def matrix_of(
    column: Any, width: int, dtype: type[np.uint8] | type[np.float32], reasons: dict[int, str]
) -> NDArray[Any]:
    """Lists, or bytes, as an (N, width) array; rows that are none are zero and have a reason."""
    column = column.combine_chunks()
    matrix = np.zeros((len(column), width), dtype)
    binary = _is_binary(column.type)
    lengths = (pc.binary_length if binary else pc.list_value_length)(column)
    lengths = lengths.fill_null(-1).to_numpy()
    for row in np.flatnonzero(lengths != width).tolist():
        missing = "its vector is missing"
        unit = "bytes" if binary else "values"
        found = f"its vector has {lengths[row]} {unit}, not {width}"
        reasons.setdefault(row, missing if lengths[row] < 0 else found)
    good = np.flatnonzero(lengths == width)
    column = column.take(pa.array(good))
    if binary:
        flat = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
    else:
        values = pc.list_flatten(column)
        holes = values.is_null().to_numpy(zero_copy_only=False).reshape(-1, width).any(axis=1)
        for row in good[holes].tolist():
            reasons.setdefault(row, "its vector has a value that is missing")
        flat = values.fill_null(0).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which the metric refuses
        matrix[good] = flat.reshape(-1, width)
    return matrix
