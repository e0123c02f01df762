"""The rows of a Milvus collection, and the part of a filter that Milvus can decide.

A row has these fields:

- key: the primary key, 128 bits of the SHA-256 of the id in base64. It needs no quoting in an
  expression, and ids can be as long as a text. slot: 63 bits of the same digest, evenly spread, by
  which a collection is read in parts. id: the id itself.
- record: the rest of the record as JSON.
- vector: the vector that Milvus compares: the code, or the floats, for "cosine" and "ncc" scaled to
  unit length (for "ncc" after subtracting their mean). rest: in base64, the original vector if the
  compared vector differs, or the class probabilities.
- time, class_digest, west, south, east, north: for filters. sure: the class with a probability
  above one half.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.geo.geometry import bounds_of
from rsir.ranking import metric_named, packed, unpacked
from rsir.store.filters.fields import RecordColumns, microseconds
from rsir.store.filters.filter import CLASS, Filter, select
from rsir.store.filters.time_spans import span_of
from rsir.store.knn.rounding import UNIT_TOLERANCE
from rsir.store.milvus.connection import pymilvus
from rsir.store.records.record import Record, State

CollectionRow = Mapping[str, Any]

KEY, SLOT, NAME, RECORD, VECTOR, REST = "key", "slot", "id", "record", "vector", "rest"
SURE = "sure"
_TIME, _UNTIL, _CLASS = "time", "until", "class_digest"
_BOUNDS = ("west", "south", "east", "north")

SLOTS = 1 << 63
"""Slots lie in [0, SLOTS)."""

SEVERAL, NONE = -1, -2
"""Values of `sure` where more than one class, or none, has a probability above one half."""

_LONGEST = 65_535
"""Maximum bytes of a text (Milvus' limit for VARCHAR)."""

_WIDEST = 32_768
"""Maximum floats or bits of a vector (Milvus' proxy.maxDimension)."""

_KEY_BYTES, _KEY_LENGTH = 16, 22
_NO_TIME = 1 - (1 << 63)
_NO_CLASS = 0
_NOWHERE = (1e300, 1e300, -1e300, -1e300)
"""Bounds that intersect no box."""

_TYPICAL_RECORD = 1_000
"""Estimated bytes of a record. Our choice."""


class Layout:
    """How a store of one metric and dimension lays out its rows.

    Raises UsageError for an unknown metric, or a dimension that the metric or Milvus rejects.
    """

    def __init__(self, metric: str, dimension: int) -> None:
        self.metric = metric_named(metric)
        self.dimension = dimension
        self.width = self.metric.width(dimension)
        kind, classes = self.metric.kind, self.metric.classes
        self._unit = metric in ("cosine", "ncc")
        rest_floats = classes if kind == "bits" else dimension * self._unit
        max_rest = _LONGEST // 4 * 3 // 4  # base64 holds 3 bytes in 4 letters
        if dimension > _WIDEST or rest_floats > max_rest:
            raise UsageError(
                f"Milvus stores at most {_WIDEST} floats or bits of a vector, and with '{metric}' "
                f"at most {max_rest} floats or class probabilities; not {dimension}"
                + (f" with {classes} classes" if classes else "")
            )

    @property
    def compared_by(self) -> str:
        """Milvus' name of the distance."""
        if self.metric.kind == "bits":
            return "HAMMING"
        return "IP" if self._unit else "L2"

    @property
    def index(self) -> str:
        """Milvus' name of the index that compares with every vector."""
        return "BIN_FLAT" if self.metric.kind == "bits" else "FLAT"

    def schema(self, description: str) -> Any:
        """The schema of a new collection."""
        kinds = pymilvus().DataType
        schema = pymilvus().MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=description
        )
        schema.add_field(KEY, kinds.VARCHAR, is_primary=True, max_length=_KEY_LENGTH)
        schema.add_field(SLOT, kinds.INT64)
        for name in (NAME, RECORD, REST):
            schema.add_field(name, kinds.VARCHAR, max_length=_LONGEST)
        for name in (_TIME, _UNTIL, _CLASS, SURE):
            schema.add_field(name, kinds.INT64)
        for name in _BOUNDS:
            schema.add_field(name, kinds.DOUBLE)
        if self.metric.kind == "bits":
            schema.add_field(VECTOR, kinds.BINARY_VECTOR, dim=8 * -(-self.dimension // 8))
        else:
            schema.add_field(VECTOR, kinds.FLOAT_VECTOR, dim=max(2, self.dimension))
        return schema

    def row_bytes(self, fields: Sequence[str]) -> int:
        """Approximate bytes of a row with `fields`."""
        vector = -(-self.dimension // 8) if self.metric.kind == "bits" else 4 * self.dimension
        rest = 6 * self.metric.classes if self.metric.classes else 6 * self.dimension * self._unit
        sizes = {VECTOR: vector, REST: rest, RECORD: _TYPICAL_RECORD}
        return 100 + sum(sizes.get(name, 0) for name in fields)

    def rows(self, records: Sequence[Record], vectors: NDArray[Any]) -> list[dict[str, Any]]:
        """The rows for N checked records and vectors (N, width).

        Raises UsageError for a record whose texts are too long for Milvus.
        """
        compared, rest, sure = self._parts(vectors)
        return [
            {**_columns(record), VECTOR: vector, REST: base64_rest, SURE: sure_class}
            for record, vector, base64_rest, sure_class in zip(
                records, compared, rest, sure, strict=True
            )
        ]

    def compared(self, queries: NDArray[Any]) -> NDArray[Any]:
        """The field VECTOR for checked queries (Q, width): (Q, D) float32, or codes."""
        if self.metric.kind == "bits":
            return np.ascontiguousarray(queries[:, : -(-self.dimension // 8)])
        if not self._unit:
            return queries
        values = queries.astype(np.float64)
        if self.metric.name == "ncc":
            values -= values.mean(axis=1)[:, None]
        squares = (values**2).sum(axis=1)[:, None]
        unit = (values / np.sqrt(squares)).astype(np.float32)
        is_unit = (np.abs(squares - 1) <= UNIT_TOLERANCE) & (self.metric.name == "cosine")
        compared: NDArray[np.float32] = np.where(is_unit, queries, unit)
        return compared

    def sent(self, compared: NDArray[Any]) -> list[Any]:
        """The compared vectors in the form for Milvus: at least two floats each, or bytes."""
        if self.metric.kind == "bits":
            return [row.tobytes() for row in compared]
        # Milvus since 2.4 has no vectors of one float; a zero changes no distance.
        return list(np.pad(compared, ((0, 0), (0, max(0, 2 - self.dimension)))))

    def vectors(self, rows: Sequence[CollectionRow]) -> NDArray[Any]:
        """The vectors (N, width) of rows with VECTOR and REST."""
        if self.metric.kind == "bits":
            codes = np.frombuffer(b"".join(_bytes(row[VECTOR]) for row in rows), np.uint8)
            codes = codes.reshape(len(rows), -(-self.dimension // 8))
            return packed(codes, self.probabilities(rows)) if self.metric.classes else codes
        values = np.empty((len(rows), self.dimension), np.float32)
        for value, row in zip(values, rows, strict=True):
            value[:] = _floats(row[REST]) if row[REST] else row[VECTOR][: self.dimension]
        return values

    def probabilities(self, rows: Sequence[CollectionRow]) -> NDArray[np.float32]:
        """The class probabilities (N, K) of rows with REST."""
        data = b"".join(base64.b64decode(row[REST]) for row in rows)
        return np.frombuffer(data, "<f4").reshape(len(rows), self.metric.classes)

    def _parts(self, vectors: NDArray[Any]) -> tuple[list[Any], list[str], list[int]]:
        compared = self.compared(vectors)
        rest, sure = [""] * len(vectors), [NONE] * len(vectors)
        if self.metric.classes:
            _, probabilities = unpacked(vectors, self.metric.classes)
            rest = [_base64(row) for row in probabilities]
            likely = probabilities > 0.5
            known = np.where(likely.any(axis=1), likely.argmax(axis=1), NONE)
            sure = np.where(likely.sum(axis=1) > 1, SEVERAL, known).tolist()
        elif self._unit:
            same = (compared.view(np.uint32) == vectors.view(np.uint32)).all(axis=1)
            rest = ["" if ok else _base64(row) for ok, row in zip(same, vectors, strict=True)]
        return self.sent(compared), rest, sure


def key_of(id: str) -> str:
    """The primary key of an id."""
    digest = hashlib.sha256(id.encode()).digest()[:_KEY_BYTES]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def record_of(row: CollectionRow) -> Record:
    """The record of a row with NAME and RECORD."""
    fields = json.loads(row[RECORD])
    time = fields.pop("datetime")
    return Record(
        id=row[NAME], datetime=None if time is None else datetime.fromisoformat(time), **fields
    )


def state_of(row: CollectionRow) -> State:
    """The state of a row with NAME and RECORD."""
    return State.of(record_of(row))


def meeting(filter: Filter | None, rows: Sequence[CollectionRow]) -> list[CollectionRow]:
    """Those of `rows`, with NAME and RECORD, whose records meet `filter`; None: all of them."""
    if filter is None:
        return list(rows)
    return list(compress(rows, select(filter, RecordColumns(list(map(record_of, rows))))))


def expression(filter: Filter | None) -> tuple[str, Filter | None]:
    """The expression for Milvus from a filter, and the filter if Milvus cannot decide all of it.

    Every row whose record meets the filter meets the expression; every row meets "".
    """
    if filter is None:
        return "", None
    terms = []
    if filter.start is not None:
        terms.append(f"{_UNTIL} >= {microseconds(filter.start)}")
    if filter.end is not None:
        terms.append(f"{_TIME} <= {microseconds(filter.end)} and {_TIME} > {_NO_TIME}")
    if filter.bbox is not None:
        terms.append(_within(*filter.bbox))
    around = bounds_of(filter.geometry)
    if around is not None:
        terms.append(_within(*around))
    if filter.classes is not None:
        digests = sorted({_class_digest(name) for name in filter.classes})
        terms.append(f"{_CLASS} in {digests}" if digests else f"{SLOT} < 0")
    only_time = filter == Filter(start=filter.start, end=filter.end)
    return all_of(*terms), None if only_time else filter


def all_of(*terms: str) -> str:
    """The expression for rows that meet all `terms`; every row meets ""."""
    return " and ".join(f"({term})" for term in terms if term)


def slots(first: int, end: int) -> str:
    """The expression for the slots in [first, end); "" for all slots."""
    if (first, end) == (0, SLOTS):
        return ""
    return f"{SLOT} >= {first} and {SLOT} <= {end - 1}"


def _within(west: float, south: float, east: float, north: float) -> str:
    """The expression for bounds that intersect a box; west > east crosses the antimeridian."""
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    across = " or ".join(
        f"(west <= {float(right)!r} and east >= {float(left)!r})" for left, right in spans
    )
    return f"({across}) and south <= {float(north)!r} and north >= {float(south)!r}"


def _columns(record: Record) -> dict[str, Any]:
    time = record.datetime
    span = span_of(record) or (_NO_TIME, _NO_TIME)
    fields = {
        "source": record.source,
        "content": record.content,
        "size": record.size,
        "mtime_ns": record.mtime_ns,
        "footprint": record.footprint,
        "datetime": None if time is None else time.isoformat(),
        "properties": record.properties,
    }
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    for name, value in (("id", record.id), ("record as JSON", text)):
        size = len(value.encode())
        if size > _LONGEST:
            raise UsageError(
                f"the {name} of {record.id[:80]!r} has {size} bytes; a Milvus store takes at most "
                f"{_LONGEST}. Shorten it (a footprint of fewer points, fewer properties)"
            )
    key = key_of(record.id)
    slot = int.from_bytes(hashlib.sha256(record.id.encode()).digest()[:8], "big") >> 1
    bounds = bounds_of(record.footprint) or _NOWHERE
    label = record.properties.get(CLASS)
    return {
        KEY: key,
        SLOT: slot,
        NAME: record.id,
        RECORD: text,
        _TIME: span[0],
        _UNTIL: span[1],
        _CLASS: _class_digest(label) if isinstance(label, str) else _NO_CLASS,
        **{name: float(side) for name, side in zip(_BOUNDS, bounds, strict=True)},
    }


def _class_digest(name: str) -> int:
    """63 bits of the digest of a class's name; two names with equal bits differ in the record."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _base64(values: NDArray[np.float32]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _floats(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4")


def _bytes(value: Any) -> bytes:
    """The bytes of a binary vector, which pymilvus returns as bytes or as a list of one."""
    return value if isinstance(value, bytes) else b"".join(value)
