"""What a row of a Milvus collection holds, and what Milvus can say of it in an expression.

- key: the primary key, 128 bits of the SHA-256 of the id in base64: it needs no quoting in an
  expression, and ids can be as long as a text. slot: 63 bits of the same digest, evenly spread, by
  which a collection is read in parts. id: the id itself.
- record: the rest of the record, as JSON.
- vector: what Milvus compares: the floats, at unit length for "cosine" (of the centred vector for
  "ncc"), or the code. rest: what is not in it, in base64: the vector as it was given, if another is
  compared, or the class probabilities.
- time, class, west, south, east, north: what filters ask for. sure: the class that has more than
  half of the probability.
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
from rsir.store.milvus.connection import pymilvus
from rsir.store.records.record import Record, State

Row = Mapping[str, Any]

KEY, SLOT, NAME, RECORD, VECTOR, REST = "key", "slot", "id", "record", "vector", "rest"
SURE = "sure"
_TIME, _CLASS = "time", "class_digest"
_BOUNDS = ("west", "south", "east", "north")

SLOTS = 1 << 63
"""Slots are at least 0 and below this."""

SEVERAL, NONE = -1, -2
"""Of `sure`: more than one class, or none, has a probability above one half."""

_LONGEST = 65_535
"""Bytes of a text, at most (Milvus' limit for VARCHAR)."""

_WIDEST = 32_768
"""Floats or bits of a vector, at most (Milvus' proxy.maxDimension)."""

_KEY_BYTES, _KEY_LENGTH = 16, 22
_NO_TIME = 1 - (1 << 63)
_NO_CLASS = 0
_NOWHERE = (1e300, 1e300, -1e300, -1e300)
"""Bounds that meet no box."""

_UNIT_TOLERANCE = 1e-5
"""Vectors whose squared length is this near to 1 are compared as they are, as by
`rsir.store.knn.flat`."""

_TYPICAL_RECORD = 1_000
"""Bytes of a record that are reckoned with where it is not known. Our choice."""


class Layout:
    """The rows of a store of one metric and dimension.

    Raises UsageError for an unknown metric, and for a dimension that it or Milvus cannot have.
    """

    def __init__(self, metric: str, dimension: int) -> None:
        self.metric = metric_named(metric)
        self.dimension = dimension
        self.width = self.metric.width(dimension)
        kind, classes = self.metric.kind, self.metric.classes
        self._unit = metric in ("cosine", "ncc")
        kept = classes if kind == "bits" else dimension * self._unit
        most = _LONGEST // 4 * 3 // 4  # base64 holds 3 bytes in 4 letters
        if dimension > _WIDEST or kept > most:
            raise UsageError(
                f"Milvus keeps at most {_WIDEST} floats or bits of a vector, and '{metric}' here "
                f"at most {most} floats or class probabilities; not {dimension}"
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
        for name in (_TIME, _CLASS, SURE):
            schema.add_field(name, kinds.INT64)
        for name in _BOUNDS:
            schema.add_field(name, kinds.DOUBLE)
        if self.metric.kind == "bits":
            schema.add_field(VECTOR, kinds.BINARY_VECTOR, dim=8 * -(-self.dimension // 8))
        else:
            schema.add_field(VECTOR, kinds.FLOAT_VECTOR, dim=max(2, self.dimension))
        return schema

    def row_bytes(self, fields: Sequence[str]) -> int:
        """Of a row of which `fields` are asked for, about."""
        vector = -(-self.dimension // 8) if self.metric.kind == "bits" else 4 * self.dimension
        rest = 6 * self.metric.classes if self.metric.classes else 6 * self.dimension * self._unit
        sizes = {VECTOR: vector, REST: rest, RECORD: _TYPICAL_RECORD}
        return 100 + sum(sizes.get(name, 0) for name in fields)

    def rows(self, records: Sequence[Record], vectors: NDArray[Any]) -> list[dict[str, Any]]:
        """The rows of checked records and vectors (N, width).

        Raises UsageError for a record whose texts are too long for Milvus.
        """
        compared, rest, sure = self._parts(vectors)
        return [
            {**_columns(record), VECTOR: vector, REST: more, SURE: likeliest}
            for record, vector, more, likeliest in zip(records, compared, rest, sure, strict=True)
        ]

    def compared(self, queries: NDArray[Any]) -> NDArray[Any]:
        """What of checked queries (Q, width) is compared: (Q, D) float32, or codes, as in a row."""
        if self.metric.kind == "bits":
            return np.ascontiguousarray(queries[:, : -(-self.dimension // 8)])
        if not self._unit:
            return queries
        values = queries.astype(np.float64)
        if self.metric.name == "ncc":
            values -= values.mean(axis=1)[:, None]
        squares = (values**2).sum(axis=1)[:, None]
        unit = (values / np.sqrt(squares)).astype(np.float32)
        near = (np.abs(squares - 1) <= _UNIT_TOLERANCE) & (self.metric.name == "cosine")
        compared: NDArray[np.float32] = np.where(near, queries, unit)
        return compared

    def sent(self, compared: NDArray[Any]) -> list[Any]:
        """What is compared, as Milvus takes it: at least two floats, or bytes."""
        if self.metric.kind == "bits":
            return [row.tobytes() for row in compared]
        # Milvus since 2.4 has no vectors of one float; a zero changes no distance.
        return list(np.pad(compared, ((0, 0), (0, max(0, 2 - self.dimension)))))

    def vectors(self, rows: Sequence[Row]) -> NDArray[Any]:
        """The vectors (N, width) of rows with VECTOR and REST."""
        if self.metric.kind == "bits":
            codes = np.frombuffer(b"".join(_bytes(row[VECTOR]) for row in rows), np.uint8)
            codes = codes.reshape(len(rows), -(-self.dimension // 8))
            return packed(codes, self.probabilities(rows)) if self.metric.classes else codes
        values = np.empty((len(rows), self.dimension), np.float32)
        for place, row in enumerate(rows):
            values[place] = _floats(row[REST]) if row[REST] else row[VECTOR][: self.dimension]
        return values

    def probabilities(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """The class probabilities (N, K) of rows with REST."""
        texts = b"".join(base64.b64decode(row[REST]) for row in rows)
        return np.frombuffer(texts, "<f4").reshape(len(rows), self.metric.classes)

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


def record_of(row: Row) -> Record:
    """The record of a row with NAME and RECORD."""
    said = json.loads(row[RECORD])
    time = said.pop("datetime")
    return Record(
        id=row[NAME], datetime=None if time is None else datetime.fromisoformat(time), **said
    )


def state_of(row: Row) -> State:
    """The state of a row with NAME and RECORD."""
    return State.of(record_of(row))


def meeting(filter: Filter | None, rows: Sequence[Row]) -> list[Row]:
    """Those of `rows`, with NAME and RECORD, whose records meet `filter`; None: all of them."""
    if filter is None:
        return list(rows)
    return list(compress(rows, select(filter, RecordColumns(list(map(record_of, rows))))))


def expression(filter: Filter | None) -> tuple[str, Filter | None]:
    """The part of a filter that Milvus can decide, and the filter if that is not all of it.

    Every row whose record meets the filter meets the expression; every row meets "".
    """
    if filter is None:
        return "", None
    terms = []
    if filter.start is not None:
        terms.append(f"{_TIME} >= {microseconds(filter.start)}")
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
    """The expression that is met where all of some are; "" is met by all."""
    return " and ".join(f"({term})" for term in terms if term)


def slots(first: int, end: int) -> str:
    """The expression for the slots from `first` to below `end`; "" if these are all."""
    if (first, end) == (0, SLOTS):
        return ""
    return f"{SLOT} >= {first} and {SLOT} <= {end - 1}"


def _within(west: float, south: float, east: float, north: float) -> str:
    """Bounds that meet a box; where west > east it reaches over the antimeridian."""
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    across = " or ".join(
        f"(west <= {float(right)!r} and east >= {float(left)!r})" for left, right in spans
    )
    return f"({across}) and south <= {float(north)!r} and north >= {float(south)!r}"


def _columns(record: Record) -> dict[str, Any]:
    time = record.datetime
    said = {
        "source": record.source,
        "content": record.content,
        "size": record.size,
        "mtime_ns": record.mtime_ns,
        "footprint": record.footprint,
        "datetime": None if time is None else time.isoformat(),
        "properties": record.properties,
    }
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    for what, value in (("id", record.id), ("record as JSON", text)):
        size = len(value.encode())
        if size > _LONGEST:
            raise UsageError(
                f"the {what} of {record.id[:80]!r} has {size} bytes; a Milvus store keeps at most "
                f"{_LONGEST} of each. Shorten it (a footprint of fewer points, fewer properties)"
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
        _TIME: _NO_TIME if time is None else microseconds(time),
        _CLASS: _class_digest(label) if isinstance(label, str) else _NO_CLASS,
        **{name: float(side) for name, side in zip(_BOUNDS, bounds, strict=True)},
    }


def _class_digest(name: str) -> int:
    """63 bits of a class's name: names that share one are told apart by the records."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _base64(values: NDArray[np.float32]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _floats(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4")


def _bytes(value: Any) -> bytes:
    """A binary vector as pymilvus gives it: bytes, or a list of one."""
    return value if isinstance(value, bytes) else b"".join(value)
