"""One property of many JSON objects as a column that filters compare."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from rsir.store.filters.fields import (
    BOOLEAN,
    NULL,
    NUMBER,
    TEXT,
    FieldColumn,
    kind_of,
)

_TYPES = {NUMBER: pa.float64(), TEXT: pa.string(), BOOLEAN: pa.bool_()}


def parsed(texts: list[str], name: str, likely: int) -> FieldColumn:
    """The property `name` of N JSON objects.

    Arrow reads a column of a single kind quickly, but refuses values of several kinds; Python reads
    these. likely: the kind to expect if the first object with the property has null.
    """
    first = next((t for t in texts if json.dumps(name, ensure_ascii=False) in t), None)
    if first is None:
        return FieldColumn(np.zeros(len(texts), np.uint8))
    value = json.loads(first).get(name)
    kind = kind_of(value) if value is not None else likely
    if kind in _TYPES and _is_identifier(name):
        options = pa.json.ParseOptions(
            explicit_schema=pa.schema([(name, _TYPES[kind])]), unexpected_field_behavior="ignore"
        )
        data = "\n".join(texts).encode()
        read = pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1)
        try:
            table = pa.json.read_json(pa.BufferReader(data), read, options)
        except pa.ArrowInvalid:
            pass
        else:
            return _column(table[name].combine_chunks(), kind)
    return FieldColumn.of_values([json.loads(text).get(name) for text in texts])


def _is_identifier(name: str) -> bool:
    return name.isidentifier() and name.isascii()


def _column(values: Any, kind: int) -> FieldColumn:
    if kind == TEXT:
        return FieldColumn.of_texts(values)
    known = values.is_valid().to_numpy(zero_copy_only=False)
    number = pc.fill_null(values.cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    return FieldColumn(np.where(known, kind, NULL).astype(np.uint8), number)
