"""Read columns of Arrow tables that other programs wrote."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from rsir.store.records.record import in_utc

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    )


def _is_date(kind: pa.DataType) -> bool:
    return bool(types.is_timestamp(kind) or types.is_date(kind))


def storage_of(column: Any) -> Any:
    """A column without its extension type, such as that of fixed-shape tensors."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return column.storage


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's storage."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def is_number_list(kind: pa.DataType) -> bool:
    """Whether the values are lists of integers or floats, or tensors of a fixed shape."""
    kind = storage_type(kind)
    return _is_list(kind) and _is_number(kind.value_type)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether the values are bytes: binary, or lists of uint8."""
    kind = storage_type(kind)
    return _is_binary(kind) or (_is_list(kind) and bool(types.is_uint8(kind.value_type)))


def is_text(kind: pa.DataType) -> bool:
    """Whether the values are strings, plain or dictionary-encoded."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def may_be_time(kind: pa.DataType) -> bool:
    """Whether the values are times, dates, or text, which may hold times."""
    return _is_date(kind) or is_text(kind)


def may_be_geometry(kind: pa.DataType) -> bool:
    """Whether the values may be WKB, WKT or GeoArrow's nested lists of coordinates."""
    kind = storage_type(kind)
    if _is_binary(kind) or (is_text(kind) and not types.is_dictionary(kind)):
        return True
    while _is_list(kind):
        kind = kind.value_type
    return bool(types.is_struct(kind) or types.is_floating(kind))


def fits_json(kind: pa.DataType, nested: bool = False) -> bool:
    """Whether `json_values` can convert a column of this type. nested: inside a list or struct."""
    if _is_list(kind):
        return fits_json(kind.value_type, True)
    if types.is_struct(kind):
        return all(fits_json(field.type, True) for field in kind)
    if _is_date(kind) or types.is_time(kind):
        return not nested
    plain = types.is_boolean(kind) or types.is_decimal(kind) or types.is_null(kind)
    return bool(plain or is_text(kind) or _is_number(kind))


def json_values(column: Any) -> list[Any]:
    """The values of a column as JSON values; times as Arrow's text, in UTC if they have a zone."""
    kind = column.type
    if types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    if _is_date(kind) or types.is_time(kind):
        column = column.cast(pa.string())
    return [_json_value(value) for value in column.to_pylist()]


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json_value(inner) for inner in value]
    if isinstance(value, float | Decimal | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def utc_times(column: Any) -> list[datetime | None]:
    """The values of a column as times in UTC; None for a value that is not a time."""
    if is_text(column.type):
        return [None if text is None else _parsed(text) for text in column.to_pylist()]
    # Whatever the zone, the numbers count from the epoch in UTC.
    times = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    return [None if n is None else _from_epoch(n) for n in times.cast(pa.int64()).to_pylist()]


def _parsed(text: str) -> datetime | None:
    try:
        return in_utc(datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError):
        return None


def _from_epoch(microseconds: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None


def matrix_of(
    column: Any, width: int, dtype: type[np.uint8] | type[np.float32], reasons: dict[int, str]
) -> NDArray[Any]:
    """Lists, or bytes, as an (N, width) array.

    A row without `width` values is zero; its number and the reason are added to `reasons`.
    """
    column = storage_of(column.combine_chunks())
    matrix = np.zeros((len(column), width), dtype)
    binary = _is_binary(column.type)
    lengths = (pc.binary_length if binary else pc.list_value_length)(column)
    lengths = lengths.fill_null(-1).to_numpy()
    unit = "bytes" if binary else "values"
    for row in np.flatnonzero(lengths != width).tolist():
        wrong = f"its vector has {lengths[row]} {unit}, not {width}"
        reasons.setdefault(row, wrong if lengths[row] >= 0 else "its vector is missing")
    complete = np.flatnonzero(lengths == width)
    column = column.take(pa.array(complete))
    if binary:
        flat = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
    else:
        values = pc.list_flatten(column)
        holes = values.is_null().to_numpy(zero_copy_only=False).reshape(-1, width).any(axis=1)
        for row in complete[holes].tolist():
            reasons.setdefault(row, "its vector has a value that is missing")
        flat = values.fill_null(0).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # infinity beyond float32, which the metric refuses
        matrix[complete] = flat.reshape(-1, width)
    return matrix
