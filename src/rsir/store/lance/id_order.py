"""Sort ids; rows, and records at equal distance, are in the order of their ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def order_of(ids: Any) -> NDArray[np.int64]:
    """The row numbers (N,) that sort a column of N texts by code point, as Python sorts them.

    Compares the first eight bytes, and all bytes only of texts whose first eight bytes are equal:
    Arrow's sort takes six times as long for ten million ids. UTF-8 bytes sort like code points.
    """
    keys = np.zeros((len(ids), 8), np.uint8)
    start = 0
    for chunk in ids.chunks:
        keys[start : start + len(chunk)] = _first_bytes(chunk.cast(pa.large_string()))
        start += len(chunk)
    number = keys.view(">u8").astype(np.uint64).ravel()
    order = np.argsort(number, kind="stable")
    number = number[order]
    equal = np.zeros(len(order) + 1, np.bool_)
    equal[1:-1] = number[1:] == number[:-1]
    tied = np.flatnonzero(equal[1:] | equal[:-1])
    if len(tied):
        rows = order[tied]
        texts = ids.cast(pa.large_string()).take(pa.array(rows))
        order[tied] = rows[pc.sort_indices(texts).to_numpy()]
    return order


def _first_bytes(texts: Any) -> NDArray[np.uint8]:
    """The first eight UTF-8 bytes of N large strings without nulls, (N, 8); 0 after the end."""
    if not len(texts):
        return np.zeros((0, 8), np.uint8)
    _, starts, data = texts.buffers()
    ends = np.frombuffer(starts, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    text = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    text = np.concatenate([text[: ends[-1]], np.zeros(8, np.uint8)])
    at = ends[:-1, None] + np.arange(8)
    return np.where(at < ends[1:, None], text[at], np.uint8(0))
