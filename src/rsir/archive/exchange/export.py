"""Write an archive, or some of its records, to a file for other programs.

- geoparquet (.parquet): everything including the embeddings; the columns are those of
  `rsir.archive.exchange.geoparquet`;
- geojson (.geojson), geojsonl (.geojsonl, one feature a line): RFC 7946, geometry null without a
  footprint; the record's fields and the image's properties side by side;
- csv (.csv): always the same columns, `CSV_COLUMNS`;
- stac (.json): STAC 1.1 items in one ItemCollection. An item needs a date: records without one are
  skipped and counted.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsir.archive.exchange.batches import batch_size
from rsir.archive.exchange.features import feature, unused_name
from rsir.archive.exchange.skipped import NO_GEOMETRY, SkipCounter, SkipSummary
from rsir.archive.folder.failures import translate_store_errors
from rsir.atomic import replacing
from rsir.errors import DataError, UsageError
from rsir.geo.antimeridian import bbox
from rsir.geo.parse import import_shapely
from rsir.store.records.record import Record

if TYPE_CHECKING:
    from rsir.archive.archive import Archive

SUFFIXES: Mapping[str, str] = {
    ".parquet": "geoparquet",
    ".geoparquet": "geoparquet",
    ".geojson": "geojson",
    ".geojsonl": "geojsonl",
    ".csv": "csv",
    ".json": "stac",
}
"""The format of a file by its suffix, in lower case."""

FORMATS: tuple[str, ...] = tuple(dict.fromkeys(SUFFIXES.values()))

CSV_COLUMNS: tuple[str, ...] = (
    "id",
    "source",
    "content",
    "size",
    "mtime_ns",
    "datetime",
    "longitude",
    "latitude",
    "footprint",
    "properties",
)
"""longitude, latitude: a point within the footprint; footprint: WKT in WGS 84, to 16
decimals; properties: JSON; datetime: ISO 8601 in UTC. A missing value is empty."""

STAC_VERSION = "1.1.0"

_RANGE = ("start_datetime", "end_datetime")
_STAC_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("title", "description", "created", "updated", *_RANGE), (str,)),
    **dict.fromkeys(("license", "platform", "constellation", "mission"), (str,)),
    "gsd": (int, float),
}
"""Fields of STAC's common metadata and their types. Our choice: the fields that the STAC items of
scenes often have."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The result of one `export`.

    written: records in the file. without_footprint: written records that have no footprint.
    skipped: records that the format cannot hold. seconds: duration.
    """

    path: str
    format: str
    written: int = 0
    without_footprint: int = 0
    skipped: SkipSummary = field(default_factory=SkipSummary)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def export(
    archive: Archive,
    path: str | Path,
    records: Iterable[Record] | None = None,
    *,
    format: str | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> ExportReport:
    """Write records of `archive` to the file `path`, whole or not at all.

    records: of this archive, in the order of the file; None: all. Only one batch at a time is in
    memory. format: one of `FORMATS`; None: by the suffix of `path`. overwrite: replace an existing
    file. on_progress: called with the number of records done so far.

    Raises UsageError for an existing file and an unknown format or suffix, ArchiveError for a
    record that is not (or no longer) in the archive, DataError if the file cannot be written,
    MissingExtraError without shapely (except for GeoJSON).
    """
    path = Path(path)
    format = _checked_format(path, format)
    write = _WRITERS[format]
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already; choose another name, or overwrite it")
    start = time.monotonic()
    counts = _ExportCounts(batch_size(archive.metric, archive.dimension), on_progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            write(archive, archive.records() if records is None else records, draft, counts)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    return ExportReport(
        path=str(path),
        format=format,
        written=counts.written,
        without_footprint=counts.without_footprint,
        skipped=counts.skipped.summary(),
        seconds=time.monotonic() - start,
    )


def _checked_format(path: Path, format: str | None) -> str:
    if format is None:
        format = SUFFIXES.get(path.suffix.lower())
        if format is None:
            raise UsageError(
                f"{path.name}: give the format ({', '.join(FORMATS)}), or end the name in one of "
                f"{', '.join(SUFFIXES)}"
            )
    if format not in FORMATS:
        raise UsageError(f"there is no format {format!r}; there are: {', '.join(FORMATS)}")
    return format


class _ExportCounts:
    """Counts the records of one export and reports progress."""

    def __init__(self, batch_size: int, on_progress: Callable[[int], None] | None) -> None:
        self.written = 0
        self.without_footprint = 0
        self.skipped = SkipCounter()
        self._batch_size = batch_size
        self._done = 0
        self._on_progress = on_progress

    def batches(self, records: Iterable[Record]) -> Iterator[list[Record]]:
        """`records` in batches; a batch counts as done when the next one is requested."""
        remaining = iter(records)
        while batch := list(islice(remaining, self._batch_size)):
            yield batch
            self._done += len(batch)
            if self._on_progress is not None:
                self._on_progress(self._done)

    def add_written(self, record: Record) -> None:
        self.written += 1
        self.without_footprint += record.footprint is None


def _write_geoparquet(
    archive: Archive, records: Iterable[Record], path: Path, counts: _ExportCounts
) -> None:
    from rsir.archive.exchange.geoparquet import GeoParquetWriter

    metadata = {"fingerprint": archive.fingerprint, "bands": list(archive.bands)}
    writer = GeoParquetWriter(path, archive.metric, archive.dimension, metadata)
    try:
        for batch in counts.batches(records):
            with translate_store_errors(archive.path):
                # Read each record again, together with its vector, so that the two belong together.
                rows = archive.store.get([record.id for record in batch])
            vectors = np.stack([vector for _, vector in rows])
            written = writer.write([record for record, _ in rows], vectors, counts.skipped)
            for record in written:
                counts.add_written(record)
    except BaseException:
        writer.abandon()
        raise
    writer.close()


def _write_geojson(
    _: Archive, records: Iterable[Record], path: Path, counts: _ExportCounts
) -> None:
    _write_collection(path, _features(records, counts))


def _write_geojsonl(
    _: Archive, records: Iterable[Record], path: Path, counts: _ExportCounts
) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_json(feature) + "\n" for feature in _features(records, counts))


def _write_stac(_: Archive, records: Iterable[Record], path: Path, counts: _ExportCounts) -> None:
    _write_collection(path, _stac_items(records, counts))


def _write_collection(path: Path, features: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for index, feature in enumerate(features):
            file.write((",\n" if index else "\n") + _json(feature))
        file.write("\n]}\n")


def _features(records: Iterable[Record], counts: _ExportCounts) -> Iterator[dict[str, Any]]:
    for batch in counts.batches(records):
        for record in batch:
            fields = {
                "source": record.source,
                "content": record.content,
                "datetime": _iso_time(record),
            }
            yield feature(record.id, record.footprint, fields, record.properties)
            counts.add_written(record)


def _stac_items(records: Iterable[Record], counts: _ExportCounts) -> Iterator[dict[str, Any]]:
    from rsir.archive.exchange.shapes import shapes_of

    for batch in counts.batches(records):
        shapes = shapes_of([record.footprint for record in batch])
        for record, shape in zip(batch, shapes, strict=True):
            properties = _stac_properties(record)
            if not record.id:
                counts.skipped.add(record.id, "a STAC item needs an id that is not empty")
            elif properties["datetime"] is None and "start_datetime" not in properties:
                counts.skipped.add(record.id, "a STAC item needs a date")
            elif shape is None and record.footprint is not None:
                counts.skipped.add(record.id, NO_GEOMETRY)
            else:
                has_shape = shape is not None and not shape.is_empty
                parts = import_shapely().get_parts(shape) if has_shape else None
                yield {
                    "type": "Feature",
                    "stac_version": STAC_VERSION,
                    "id": record.id,
                    "geometry": record.footprint if has_shape else None,
                    **({"bbox": list(bbox(import_shapely().bounds(parts)))} if has_shape else {}),
                    "properties": properties,
                    "links": [],
                    "assets": _stac_assets(record),
                }
                counts.add_written(record)


def _stac_assets(record: Record) -> dict[str, Any]:
    return {"image": {"href": record.source, "roles": ["data"]}} if record.source else {}


def _stac_properties(record: Record) -> dict[str, Any]:
    """The properties of an item: fields of STAC under their names, others as "rsir:NAME"."""
    has_range = all(type(record.properties.get(end)) is str for end in _RANGE)
    properties: dict[str, Any] = {"datetime": _iso_time(record)}
    for name, value in record.properties.items():
        is_stac = bool(value) and type(value) in _STAC_FIELDS.get(name, ())
        if ":" not in name and not (is_stac and (has_range or name not in _RANGE)):
            name = f"rsir:{name}"
        properties[unused_name(name, properties, "rsir:")] = value
    return properties


def _iso_time(record: Record) -> str | None:
    return None if record.datetime is None else record.datetime.astimezone(UTC).isoformat()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_csv(_: Archive, records: Iterable[Record], path: Path, counts: _ExportCounts) -> None:
    from rsir.archive.exchange.shapes import shapes_of, wkt_of

    with path.open("w", encoding="utf-8", newline="") as file:
        # The default line end \r\n follows RFC 4180, and makes csv quote values with \r or \n.
        rows = csv.writer(file)
        rows.writerow(CSV_COLUMNS)
        for batch in counts.batches(records):
            shapes = shapes_of([record.footprint for record in batch])
            points = import_shapely().point_on_surface(shapes)
            xs, ys = (
                import_shapely().get_x(points).tolist(),
                import_shapely().get_y(points).tolist(),
            )
            for record, shape, wkt, x, y in zip(batch, shapes, wkt_of(shapes), xs, ys, strict=True):
                if shape is None and record.footprint is not None:
                    counts.skipped.add(record.id, NO_GEOMETRY)
                    continue
                # The coordinates of a missing or empty geometry are NaN.
                point = (x, y) if x == x else (None, None)
                file_state = (record.source, record.content, record.size, record.mtime_ns)
                properties = _json(record.properties)
                rows.writerow([record.id, *file_state, _iso_time(record), *point, wkt, properties])
                counts.add_written(record)


_WRITERS: dict[str, Callable[[Archive, Iterable[Record], Path, _ExportCounts], None]] = {
    "geoparquet": _write_geoparquet,
    "geojson": _write_geojson,
    "geojsonl": _write_geojsonl,
    "csv": _write_csv,
    "stac": _write_stac,
}
