"""Records and vectors as GeoParquet 1.1, for `export` and `import_parquet`.

Columns: id, source, content, size, mtime_ns, datetime, properties (JSON), geometry (WKB, WGS 84,
longitude first), bbox (its covering), and the vector: `embedding`, a list of D float32; or `code`,
bytes, packed as by `numpy.packbits`, with `probabilities`, a list of K float32, in an archive of
"adaptive-hamming:K". The file's metadata names the model of the embeddings under "rsir".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rsir.archive.exchange.shapes import geometry_of, shapes_of
from rsir.archive.exchange.skipped import NO_GEOMETRY, SkipCounter
from rsir.documents import parse_object
from rsir.errors import UsageError
from rsir.geo.parse import from_wkb, import_shapely
from rsir.ranking import metric_named, unpacked
from rsir.store.records.record import Record

_KEY = "rsir"
_FORMAT = "rsir-export/1"
_GEO_VERSION = "1.1.0"

EMBEDDING, CODE, PROBABILITIES = "embedding", "code", "probabilities"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class GeoParquetWriter:
    """Writes one file, with a row group for each `write`.

    metric, dimension: of the vectors. metadata: more JSON values to store under "rsir".
    """

    def __init__(
        self, path: Path, metric: str, dimension: int, metadata: Mapping[str, Any]
    ) -> None:
        self._metric = metric
        export = {"format": _FORMAT, "metric": metric, "dimension": dimension, **metadata}
        text = json.dumps(export, ensure_ascii=False)
        self._schema = _schema(metric, dimension).with_metadata({_KEY: text})
        self._geometry_types: set[str] = set()
        self._bounds: list[NDArray[np.float64]] = []
        # A dictionary of the vectors would only cost time: they hardly repeat.
        self._writer = pq.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=["source"]
        )

    def write(
        self, records: Sequence[Record], vectors: NDArray[Any], skipped: SkipCounter
    ) -> list[Record]:
        """Write a batch; returns the written records. Counts the others as `skipped`."""
        shapes = shapes_of([record.footprint for record in records])
        rows = []
        for row, (record, shape) in enumerate(zip(records, shapes, strict=True)):
            if shape is None and record.footprint is not None:
                skipped.add(record.id, NO_GEOMETRY)
            else:
                rows.append(row)
        written, shapes = [records[row] for row in rows], shapes[rows]
        columns = _record_columns(written, shapes) | _vector_columns(self._metric, vectors[rows])
        arrays = [_array(columns[field.name], field.type) for field in self._schema]
        self._writer.write_table(pa.table(arrays, schema=self._schema))
        self._summarize(shapes)
        return written

    def close(self) -> None:
        """Finish the file with the GeoParquet metadata of all its geometries."""
        geometry: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._geometry_types),
            "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
        }
        if self._bounds:
            low, high = np.array(self._bounds)[:, :2], np.array(self._bounds)[:, 2:]
            geometry["bbox"] = [*low.min(axis=0).tolist(), *high.max(axis=0).tolist()]
        # A column without "crs" is in OGC:CRS84: WGS 84, longitude first.
        geo = {
            "version": _GEO_VERSION,
            "primary_column": "geometry",
            "columns": {"geometry": geometry},
        }
        self._writer.add_key_value_metadata({"geo": json.dumps(geo)})
        self._writer.close()

    def abandon(self) -> None:
        """Close the file, which is incomplete."""
        self._writer.close()

    def _summarize(self, shapes: NDArray[Any]) -> None:
        """Collect the types and bounds of all geometries, for the metadata."""
        present = shapes[~import_shapely().is_missing(shapes) & ~import_shapely().is_empty(shapes)]
        if len(present):
            self._geometry_types |= {s.geom_type + (" Z" if s.has_z else "") for s in present}
            self._bounds.append(import_shapely().total_bounds(present))


def read_export_metadata(
    metadata: Mapping[bytes, bytes] | None, file: str
) -> dict[str, Any] | None:
    """The metadata under "rsir" of an export of rsir; None for a file of another program.

    Raises UsageError for damaged metadata and for another version of the format.
    """
    text = (metadata or {}).get(_KEY.encode())
    if text is None:
        return None
    try:
        export = parse_object(text)
        format = export["format"]
        metric_named(export["metric"]).width(export["dimension"])
        str(export["fingerprint"])
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise UsageError(f"{file}: its metadata of rsir is damaged ({error})") from error
    if format != _FORMAT:
        raise UsageError(f"{file} has the format {format!r}; this rsir reads {_FORMAT!r}")
    return export


def check_columns(schema: pa.Schema, metric: str, dimension: int, file: str) -> None:
    """UsageError if an export of rsir lacks a column that `GeoParquetWriter` gave it."""
    for field in _schema(metric, dimension):
        index = schema.get_field_index(field.name)
        if field.name != "bbox" and (index < 0 or schema.field(index).type != field.type):
            raise UsageError(
                f"{file} was changed since rsir exported it: its column {field.name} is "
                f"{'missing' if index < 0 else schema.field(index).type}"
            )


def records_of(rows: pa.Table, skipped: SkipCounter) -> Iterator[Record | None]:
    """The records of rows that `GeoParquetWriter` wrote, in order.

    None for a damaged row, which is counted as `skipped`.
    """
    shapes = from_wkb(rows["geometry"].to_pylist())
    names = ("id", "source", "content", "size", "mtime_ns", "datetime", "properties")
    has_geometry = rows["geometry"].is_valid().to_numpy()
    for row, shape, has_wkb in zip(
        rows.select(names).to_pylist(), shapes, has_geometry, strict=True
    ):
        try:
            properties = parse_object(row["properties"])
        except (ValueError, TypeError):
            properties = None
        footprint = geometry_of(shape)
        if has_wkb and footprint is None:
            skipped.add(str(row["id"]), "its geometry is not WKB")
            yield None
        elif not isinstance(properties, dict):
            skipped.add(str(row["id"]), "its properties are not a JSON object")
            yield None
        elif any(row[name] is None for name in names if name != "datetime"):
            skipped.add(str(row["id"]), "id, source, content, size or mtime_ns is missing")
            yield None
        else:
            yield Record(**{**row, "properties": properties, "footprint": footprint})


def _schema(metric: str, dimension: int) -> pa.Schema:
    compared = metric_named(metric)
    if compared.kind == "float":
        vector = [pa.field(EMBEDDING, pa.list_(pa.float32(), dimension), nullable=False)]
    else:
        vector = [pa.field(CODE, pa.binary(-(-dimension // 8)), nullable=False)]
    if compared.classes:
        probabilities = pa.list_(pa.float32(), compared.classes)
        vector.append(pa.field(PROBABILITIES, probabilities, nullable=False))
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("content", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
            pa.field("datetime", pa.timestamp("us", tz="UTC")),
            pa.field("properties", pa.string(), nullable=False),
            pa.field("geometry", pa.binary()),
            pa.field("bbox", pa.struct([(side, pa.float64()) for side in _SIDES])),
            *vector,
        ]
    )


def _record_columns(records: Sequence[Record], shapes: NDArray[Any]) -> dict[str, Iterable[Any]]:
    boxes = [
        None if np.isnan(box).any() else box.tolist() for box in import_shapely().bounds(shapes)
    ]
    return {
        "id": [record.id for record in records],
        "source": [record.source for record in records],
        "content": [record.content for record in records],
        "size": [record.size for record in records],
        "mtime_ns": [record.mtime_ns for record in records],
        "datetime": [record.datetime for record in records],
        "properties": [json.dumps(r.properties, ensure_ascii=False) for r in records],
        # GeoParquet requires ISO WKB, whose type codes for 3-D geometries differ from shapely's.
        "geometry": list(import_shapely().to_wkb(shapes, flavor="iso")),
        "bbox": [None if box is None else dict(zip(_SIDES, box, strict=True)) for box in boxes],
    }


def _vector_columns(metric: str, vectors: NDArray[Any]) -> dict[str, Iterable[Any]]:
    compared = metric_named(metric)
    if compared.kind == "float":
        return {EMBEDDING: vectors}
    if not compared.classes:
        return {CODE: [row.tobytes() for row in vectors]}
    code, probabilities = unpacked(vectors, compared.classes)
    return {CODE: [row.tobytes() for row in code], PROBABILITIES: probabilities}


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, np.ndarray):
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
    return pa.array(values, kind)
