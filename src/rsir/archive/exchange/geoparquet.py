"""Records and vectors as GeoParquet 1.1: what `export` writes and `import_parquet` knows again.

Columns: id, source, content, size, mtime_ns, datetime, properties (JSON), geometry (WKB, WGS 84,
longitude first), bbox (its covering), and the vector: `embedding`, a list of D float32; or `code`,
bytes, packed as by `numpy.packbits`, with `probabilities`, a list of K float32, in an archive of
"adaptive-hamming:K". The file's metadata say under "rsir" whose embeddings they are.
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

from rsir.archive.exchange.skipped import NO_GEOMETRY, SkipCounter
from rsir.errors import MissingExtraError, UsageError
from rsir.geo.geometry import bounds_of
from rsir.ranking import metric_named, unpacked
from rsir.store.records.record import Record
from rsir.types import Geometry

KEY = "rsir"
FORMAT = "rsir-export/1"
_GEO_VERSION = "1.1.0"

EMBEDDING, CODE, PROBABILITIES = "embedding", "code", "probabilities"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class Writer:
    """Writes one file, a row group for each `write`.

    metric, dimension: of the vectors. about: what is kept under "rsir", JSON values.
    """

    def __init__(self, path: Path, metric: str, dimension: int, about: Mapping[str, Any]) -> None:
        self._metric = metric
        said = {"format": FORMAT, "metric": metric, "dimension": dimension, **about}
        text = json.dumps(said, ensure_ascii=False)
        self._schema = _schema(metric, dimension).with_metadata({KEY: text})
        self._kinds: set[str] = set()
        self._bounds: list[NDArray[np.float64]] = []
        # Vectors hardly repeat: a dictionary of them would only cost time.
        self._writer = pq.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=["source"]
        )

    def write(
        self, records: Sequence[Record], vectors: NDArray[Any], refused: SkipCounter
    ) -> list[int]:
        """Write a batch; returns the rows that were, those that cannot be are `refused`."""
        shapes = shapes_of([record.footprint for record in records])
        kept = []
        for row, (record, shape) in enumerate(zip(records, shapes, strict=True)):
            if shape is None and record.footprint is not None:
                refused.add(record.id, NO_GEOMETRY)
            else:
                kept.append(row)
        shapes = shapes[kept]
        columns = _columns([records[row] for row in kept], shapes)
        columns |= _vector_columns(self._metric, vectors[kept])
        arrays = [_array(columns[field.name], field.type) for field in self._schema]
        self._writer.write_table(pa.table(arrays, schema=self._schema))
        self._look(shapes)
        return kept

    def close(self) -> None:
        """Finish the file: only now is known what all its geometries are."""
        geometry: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._kinds),
            "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
        }
        if self._bounds:
            low, high = np.array(self._bounds)[:, :2], np.array(self._bounds)[:, 2:]
            geometry["bbox"] = [*low.min(axis=0).tolist(), *high.max(axis=0).tolist()]
        # No "crs" means OGC:CRS84: WGS 84, longitude first.
        geo = {
            "version": _GEO_VERSION,
            "primary_column": "geometry",
            "columns": {"geometry": geometry},
        }
        self._writer.add_key_value_metadata({"geo": json.dumps(geo)})
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file, which is not whole."""
        self._writer.close()

    def _look(self, shapes: NDArray[Any]) -> None:
        there = shapes[~shapely().is_missing(shapes) & ~shapely().is_empty(shapes)]
        if len(there):
            self._kinds |= {s.geom_type + (" Z" if s.has_z else "") for s in there}
            self._bounds.append(shapely().total_bounds(there))


def read_about(metadata: Mapping[bytes, bytes] | None, what: str) -> dict[str, Any] | None:
    """What an export of rsir says of itself; None of a file made elsewhere.

    Raises UsageError for an export of another format.
    """
    text = (metadata or {}).get(KEY.encode())
    if text is None:
        return None
    try:
        about = json.loads(text)
        known = about["format"] == FORMAT
        metric_named(about["metric"]).width(about["dimension"])
        str(about["fingerprint"])
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise UsageError(f"{what}: what it says of its embeddings is damaged ({error})") from error
    if not known:
        raise UsageError(f"{what} has the format {about['format']!r}; this rsir reads {FORMAT!r}")
    found: dict[str, Any] = about
    return found


def check_columns(schema: pa.Schema, metric: str, dimension: int, what: str) -> None:
    """UsageError if an export of rsir has not the columns that `Writer` gave it."""
    for field in _schema(metric, dimension):
        place = schema.get_field_index(field.name)
        if field.name != "bbox" and (place < 0 or schema.field(place).type != field.type):
            raise UsageError(
                f"{what} was changed since rsir exported it: its column {field.name} is "
                f"{'missing' if place < 0 else schema.field(place).type}"
            )


def records_of(rows: pa.Table, refused: SkipCounter) -> Iterator[Record | None]:
    """The records of rows that `Writer` wrote, in order; None for those that are `refused`."""
    shapes = shapely().from_wkb(rows["geometry"].to_numpy(), on_invalid="ignore")
    names = ("id", "source", "content", "size", "mtime_ns", "datetime", "properties")
    wkb = rows["geometry"].is_valid().to_numpy()
    for row, shape, placed in zip(rows.select(names).to_pylist(), shapes, wkb, strict=True):
        try:
            properties = json.loads(row["properties"])
        except (ValueError, TypeError):
            properties = None
        footprint = geometry_of(shape)
        if placed and footprint is None:
            refused.add(str(row["id"]), "its geometry is not WKB")
            yield None
        elif not isinstance(properties, dict):
            refused.add(str(row["id"]), "its properties are not a JSON object")
            yield None
        elif any(row[name] is None for name in names if name != "datetime"):
            refused.add(str(row["id"]), "id, source, content, size or mtime_ns is missing")
            yield None
        else:
            yield Record(**{**row, "properties": properties, "footprint": footprint})


def shapely() -> Any:
    """The library of that name; MissingExtraError without it."""
    try:
        import shapely
    except ImportError:
        raise MissingExtraError("writing or reading geometries", "geo") from None
    return shapely


def shapes_of(footprints: Sequence[Geometry | None]) -> NDArray[Any]:
    """(N,) shapely geometries of GeoJSON ones; None of None, and of what is no GeoJSON."""
    texts = np.array([None if f is None else json.dumps(f) for f in footprints], dtype=object)
    shapes: NDArray[Any] = shapely().from_geojson(texts, on_invalid="ignore")
    return shapes


def geometry_of(shape: Any) -> Geometry | None:
    """The GeoJSON geometry of a shapely one, coordinates bit for bit.

    None of None, and of what no store takes: coordinates that are not finite.
    """
    if shape is None:
        return None
    # By way of JSON: tuples become the lists that every other footprint has.
    plain: Geometry = json.loads(json.dumps(shapely().geometry.mapping(shape)))
    try:
        bounds_of(plain)
    except UsageError:
        return None
    return plain


def _schema(metric: str, dimension: int) -> pa.Schema:
    kind = metric_named(metric)
    if kind.kind == "float":
        vector = [pa.field(EMBEDDING, pa.list_(pa.float32(), dimension), nullable=False)]
    else:
        vector = [pa.field(CODE, pa.binary(-(-dimension // 8)), nullable=False)]
    if kind.classes:
        chances = pa.list_(pa.float32(), kind.classes)
        vector.append(pa.field(PROBABILITIES, chances, nullable=False))
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


def _columns(records: Sequence[Record], shapes: NDArray[Any]) -> dict[str, Iterable[Any]]:
    boxes = [None if np.isnan(box).any() else box.tolist() for box in shapely().bounds(shapes)]
    return {
        "id": [record.id for record in records],
        "source": [record.source for record in records],
        "content": [record.content for record in records],
        "size": [record.size for record in records],
        "mtime_ns": [record.mtime_ns for record in records],
        "datetime": [record.datetime for record in records],
        "properties": [json.dumps(r.properties, ensure_ascii=False) for r in records],
        # GeoParquet asks for ISO WKB, which says otherwise than shapely's own of a third dimension.
        "geometry": list(shapely().to_wkb(shapes, flavor="iso")),
        "bbox": [None if box is None else dict(zip(_SIDES, box, strict=True)) for box in boxes],
    }


def _vector_columns(metric: str, vectors: NDArray[Any]) -> dict[str, Iterable[Any]]:
    kind = metric_named(metric)
    if kind.kind == "float":
        return {EMBEDDING: vectors}
    if not kind.classes:
        return {CODE: [row.tobytes() for row in vectors]}
    code, probabilities = unpacked(vectors, kind.classes)
    return {CODE: [row.tobytes() for row in code], PROBABILITIES: probabilities}


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, np.ndarray):
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
    return pa.array(values, kind)
