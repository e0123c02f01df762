"""Find the columns of a Parquet file that become records and vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from rsir.archive.exchange.arrow_columns import (
    fits_json,
    is_bytes,
    is_number_list,
    is_text,
    may_be_geometry,
    may_be_time,
)
from rsir.archive.exchange.geoparquet import PROBABILITIES
from rsir.errors import UsageError
from rsir.ranking import Metric

# The usual names of columns, in order of preference and in any letter case; rsir's own come first.
_USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "vector": ("embedding", "embeddings", "vector", "vectors", "features"),
    "code": ("code", "codes"),
    "id": ("id", "item_id", "unique_id", "tile_id", "chip_id", "chips_id"),
    "source": ("source", "source_uri", "source_url", "uri", "url", "href", "path", "filename"),
    "datetime": ("datetime", "timestamp", "date", "time", "acquired"),
    "geometry": ("geometry", "geom"),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of columns; None: look for the usual names; "": do not use such a column.

    vector: lists of D numbers; in an archive of hash codes, binary or lists of bytes ("code" is
    then the usual name). id: unique; without one, the id of a row is "FILE:ROW" with the
    file's absolute path. source: path or URI of the image; without one, "FILE#ID". datetime: a
    timestamp, a date, or ISO 8601 text; UTC if it has no zone. geometry: WKB, WKT text, or the
    nested lists of GeoArrow; None: the column that the file's metadata names.
    """

    vector: str | None = None
    id: str | None = None
    source: str | None = None
    datetime: str | None = None
    geometry: str | None = None


def resolve_columns(
    path: Path, schema: pa.Schema, columns: Columns, metric: Metric, primary: str | None
) -> Columns:
    """The columns of a file that become records; None for a column that it lacks.

    primary: the geometry column in the file's metadata. Raises UsageError for a column that is
    requested or required, and missing or of the wrong type.
    """
    vector = vector_column(path, schema, columns, metric)
    if metric.classes:
        _column(path, schema, "probabilities", PROBABILITIES, is_number_list)
    geometry = columns.geometry
    if geometry is None and primary in schema.names:
        geometry = primary
    return Columns(
        vector,
        _column(path, schema, "id", columns.id, fits_json),
        _column(path, schema, "source", columns.source, is_text),
        _column(path, schema, "datetime", columns.datetime, may_be_time),
        _column(path, schema, "geometry", geometry, may_be_geometry),
    )


def vector_column(
    path: Path, schema: pa.Schema, columns: Columns, metric: Metric | None = None
) -> str:
    """The column of the vectors that `metric` compares; None: of embeddings."""
    is_code = metric is not None and metric.kind == "bits"
    role, fits = ("code", is_bytes) if is_code else ("vector", is_number_list)
    name = _column(path, schema, role, columns.vector, fits)
    if name is None:
        wanted = "codes (binary, or lists of uint8)" if is_code else "embeddings (lists of numbers)"
        raise UsageError(
            f"{path}: which column holds the {wanted}? It has: {', '.join(schema.names)}"
        )
    return name


def _column(
    path: Path,
    schema: pa.Schema,
    role: str,
    name: str | None,
    fits: Callable[[pa.DataType], bool],
) -> str | None:
    """The column called `name`, or by a usual name of its role; None if there is none."""
    if name is None:
        by_name = {name.lower(): name for name in reversed(schema.names)}
        usual = [by_name[name] for name in _USUAL_NAMES[role] if name in by_name]
        return next((name for name in usual if fits(schema.field(name).type)), None)
    if not name:
        return None
    if name not in schema.names:
        raise UsageError(f"{path} has no column {name!r}; it has: {', '.join(schema.names)}")
    kind = schema.field(name).type
    if not fits(kind):
        raise UsageError(f"{path}: the column {name!r} cannot be its {role}: it is {kind}")
    return name
