"""Convert records and vectors to rows of a LanceDB table, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.geo.geometry import bounds_of
from rsir.ranking import metric_named
from rsir.store.records.record import Record, State

RECORD_COLUMNS = [
    "id",
    "source",
    "content",
    "size",
    "mtime_ns",
    "footprint",
    "datetime",
    "properties",
]
STATE_COLUMNS = list(State._fields)
BOUND_COLUMNS = ["west", "south", "east", "north"]

_ROWS_AT_ONCE = 10_000
"""Rows converted to Python objects at a time. Our choice: some 10 MB."""

_PRIMARY = {b"lance-schema:unenforced-primary-key:position": b"1"}
"""Metadata of the column of ids, as Lance's `set_unenforced_primary_key` writes it in a second
commit. It makes concurrent merges of the same ids conflict, so that LanceDB retries them; otherwise
both would be inserted."""


def schema_of(metric: str, dimension: int, metadata: Mapping[bytes, bytes]) -> Any:
    """The schema of a table of records and of vectors for `metric`."""
    kind = metric_named(metric)
    value = pa.uint8() if kind.kind == "bits" else pa.float32()
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=_PRIMARY),
            pa.field("source", pa.string(), nullable=False),
            pa.field("content", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
            pa.field("footprint", pa.string()),
            pa.field("datetime", pa.timestamp("us", tz="UTC")),
            pa.field("properties", pa.string(), nullable=False),
            *(pa.field(name, pa.float64()) for name in BOUND_COLUMNS),
            pa.field("vector", pa.list_(value, kind.width(dimension)), nullable=False),
        ],
        metadata=metadata,
    )


def to_arrow(records: Sequence[Record], vectors: NDArray[Any], schema: Any) -> Any:
    """N checked records and vectors (N, width) as a table; schema: from `schema_of`."""
    bounds = [bounds_of(record.footprint) or (None,) * 4 for record in records]
    columns = {
        "id": [record.id for record in records],
        "source": [record.source for record in records],
        "content": [record.content for record in records],
        "size": [record.size for record in records],
        "mtime_ns": [record.mtime_ns for record in records],
        "footprint": [
            None if r.footprint is None else json.dumps(r.footprint, ensure_ascii=False)
            for r in records
        ],
        "datetime": [record.datetime for record in records],
        "properties": [json.dumps(r.properties, ensure_ascii=False) for r in records],
        **{name: [b[side] for b in bounds] for side, name in enumerate(BOUND_COLUMNS)},
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    }
    return pa.table(
        [
            column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
            for name, column in columns.items()
        ],
        schema=schema,
    )


def records_of(rows: Any) -> Iterator[Record]:
    """The records of a table with `RECORD_COLUMNS`."""
    columns = (rows[name].to_pylist() for name in RECORD_COLUMNS)
    for id, source, content, size, mtime_ns, footprint, time, properties in zip(
        *columns, strict=True
    ):
        yield Record(
            id=id,
            source=source,
            content=content,
            size=size,
            mtime_ns=mtime_ns,
            footprint=None if footprint is None else json.loads(footprint),
            datetime=time,
            properties=json.loads(properties),
        )


def states_of(batches: Iterable[Any], names: Sequence[str] | None = None) -> Iterator[State]:
    """The states in record batches with `STATE_COLUMNS`; names: only of these sources."""
    wanted = None if names is None else pa.array(names, pa.string())
    for batch in batches:
        if wanted is not None:
            batch = batch.filter(pc.is_in(batch["source"], value_set=wanted))
        for start in range(0, len(batch), _ROWS_AT_ONCE):
            rows = batch.slice(start, _ROWS_AT_ONCE)
            columns = (_values(rows[name]) for name in STATE_COLUMNS[:-1])
            # Parsing all properties as one JSON array takes half as long.
            properties = json.loads(f"[{','.join(rows['properties'].to_pylist())}]")
            yield from starmap(State, zip(*columns, properties, strict=True))


def _values(column: Any) -> list[Any]:
    """The values of an array; equal values, which tiles of a scene have, share one object."""
    encoded = column.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    return [None if code is None else distinct[code] for code in encoded.indices.to_pylist()]


def matrix(column: Any) -> NDArray[Any]:
    """A column of fixed-size lists as an (N, width) array."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values: NDArray[Any] = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return values
