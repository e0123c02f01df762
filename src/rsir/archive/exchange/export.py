"""An archive, or some of its records, as a file for other programs.

- geoparquet (.parquet): everything, embeddings too; what `rsir.archive.exchange.geoparquet` says;
- geojson (.geojson), geojsonl (.geojsonl, one feature a line): RFC 7946, geometry null where there
  is no footprint; properties of the record and those of the image beside each other;
- csv (.csv): always the same columns, `CSV_COLUMNS`;
- stac (.json): STAC 1.1 items in one ItemCollection; an item needs a date, so records without one
  are left out and counted.
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
from numpy.typing import NDArray

from rsir.archive.exchange.features import feature, free
from rsir.archive.exchange.skipped import NO_GEOMETRY, SkipCounter, Summary
from rsir.archive.folder.failures import translate_store_errors
from rsir.atomic import replacing
from rsir.errors import DataError, UsageError
from rsir.ranking import metric_named
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
decimals; properties: JSON; datetime: ISO 8601 in UTC. Empty where there is none."""

STAC_VERSION = "1.1.0"

_RANGE = ("start_datetime", "end_datetime")
_STAC_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("title", "description", "created", "updated", *_RANGE), (str,)),
    **dict.fromkeys(("license", "platform", "constellation", "mission"), (str,)),
    "gsd": (int, float),
}
"""Fields of STAC's common metadata, and what they have to be. Our choice of those that a scene's
item brings along."""

_BATCH_RECORDS = 10_000
_BATCH_BYTES = 32 << 20
"""Records written in one go: so many, or so many bytes of vectors. Our choice: a row group of a
few ten megabytes is quick to write and to skip."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What one `export` did.

    written: records in the file. without_footprint: how many of those have none. skipped: records
    that the format cannot hold. seconds: duration.
    """

    path: str
    format: str
    written: int = 0
    without_footprint: int = 0
    skipped: Summary = field(default_factory=Summary)
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
    """Write records of `archive` into the file `path`, which appears whole or not at all.

    records: of this archive, in the order of the file; all of them by default. They are taken
    one batch at a time, so that memory does not grow with their number. format: one of `FORMATS`;
    by default what the suffix says. overwrite: replace a file that is there.
    on_progress: called with the number of records done so far.

    Raises UsageError for a path that is taken and a format or suffix that is none, ArchiveError
    for a record that is not (or no longer) in the archive, DataError if the file cannot be
    written, MissingExtraError without shapely (for all but GeoJSON).
    """
    path = Path(path)
    write = _WRITERS[_format(path, format)]
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already; choose another name, or overwrite it")
    start = time.monotonic()
    run = _Export(on_progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            write(archive, archive.records() if records is None else records, draft, run)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    return ExportReport(
        path=str(path),
        format=_format(path, format),
        written=run.written,
        without_footprint=run.without_footprint,
        skipped=run.skipped.summary(),
        seconds=time.monotonic() - start,
    )


class _Export:
    """What was done so far."""

    def __init__(self, on_progress: Callable[[int], None] | None) -> None:
        self.written = 0
        self.without_footprint = 0
        self.skipped = SkipCounter()
        self._done = 0
        self._on_progress = on_progress

    def batches(self, records: Iterable[Record], size: int) -> Iterator[list[Record]]:
        rest = iter(records)
        while batch := list(islice(rest, size)):
            yield batch
            self._done += len(batch)
            if self._on_progress is not None:
                self._on_progress(self._done)

    def wrote(self, record: Record) -> None:
        self.written += 1
        self.without_footprint += record.footprint is None


def _format(path: Path, format: str | None) -> str:
    if format is None:
        format = SUFFIXES.get(path.suffix.lower())
        if format is None:
            raise UsageError(
                f"{path.name}: say the format ({', '.join(FORMATS)}), or end the name in one of "
                f"{', '.join(SUFFIXES)}"
            )
    if format not in _WRITERS:
        raise UsageError(f"there is no format {format!r}; there are: {', '.join(FORMATS)}")
    return format


def _geoparquet(archive: Archive, records: Iterable[Record], path: Path, run: _Export) -> None:
    from rsir.archive.exchange.geoparquet import Writer

    metric = metric_named(archive.metric)
    bytes_each = metric.width(archive.dimension) * (4 if metric.kind == "float" else 1)
    size = max(1, min(_BATCH_RECORDS, _BATCH_BYTES // bytes_each))
    about = {"fingerprint": archive.fingerprint, "bands": list(archive.bands)}
    writer = Writer(path, archive.metric, archive.dimension, about)
    try:
        for batch in run.batches(records, size):
            with translate_store_errors(archive.path):
                # The records once more, so that record and vector are of one reading.
                rows = archive._store.get([record.id for record in batch])
            there = [record for record, _ in rows]
            for row in writer.write(there, np.stack([v for _, v in rows]), run.skipped):
                run.wrote(there[row])
    except BaseException:
        writer.abandon()
        raise
    writer.close()


def _geojson(_: Archive, records: Iterable[Record], path: Path, run: _Export) -> None:
    _write_collection(path, _features(records, run))


def _geojsonl(_: Archive, records: Iterable[Record], path: Path, run: _Export) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_json(feature) + "\n" for feature in _features(records, run))


def _stac(_: Archive, records: Iterable[Record], path: Path, run: _Export) -> None:
    _write_collection(path, _items(records, run))


def _write_collection(path: Path, features: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for place, feature in enumerate(features):
            file.write((",\n" if place else "\n") + _json(feature))
        file.write("\n]}\n")


def _features(records: Iterable[Record], run: _Export) -> Iterator[dict[str, Any]]:
    for batch in run.batches(records, _BATCH_RECORDS):
        for record in batch:
            fields = {
                "source": record.source,
                "content": record.content,
                "datetime": _time(record),
            }
            yield feature(record.id, record.footprint, fields, record.properties)
            run.wrote(record)


def _items(records: Iterable[Record], run: _Export) -> Iterator[dict[str, Any]]:
    from rsir.archive.exchange.geoparquet import shapely, shapes_of

    for batch in run.batches(records, _BATCH_RECORDS):
        shapes = shapes_of([record.footprint for record in batch])
        for record, shape in zip(batch, shapes, strict=True):
            properties = _stac_properties(record)
            if not record.id:
                run.skipped.add(record.id, "a STAC item needs an id that is not empty")
            elif properties["datetime"] is None and "start_datetime" not in properties:
                run.skipped.add(record.id, "a STAC item needs a date")
            elif shape is None and record.footprint is not None:
                run.skipped.add(record.id, NO_GEOMETRY)
            else:
                placed = shape is not None and not shape.is_empty
                box = (
                    {"bbox": _bbox(shapely().bounds(shapely().get_parts(shape)))} if placed else {}
                )
                asset = {"href": record.source, "roles": ["data"]}
                yield {
                    "type": "Feature",
                    "stac_version": STAC_VERSION,
                    "id": record.id,
                    "geometry": record.footprint if placed else None,
                    **box,
                    "properties": properties,
                    "links": [],
                    "assets": {"image": asset} if record.source else {},
                }
                run.wrote(record)


def _stac_properties(record: Record) -> dict[str, Any]:
    """The properties of an item: those that STAC knows under their names, others as "rsir:NAME"."""
    has_range = all(type(record.properties.get(end)) is str for end in _RANGE)
    named: dict[str, Any] = {"datetime": _time(record)}
    for name, value in record.properties.items():
        fits = bool(value) and type(value) in _STAC_FIELDS.get(name, ())
        if ":" not in name and not (fits and (has_range or name not in _RANGE)):
            name = f"rsir:{name}"
        named[free(name, named, "rsir:")] = value
    return named


def _bbox(boxes: NDArray[np.float64]) -> list[float]:
    """[west, south, east, north] of parts (N, 4); west > east if they cross the antimeridian.

    After RFC 7946, section 5.2: parts that meet at ±180° go round the back of the globe, and what
    is left out is the widest gap between them.
    """
    boxes = boxes[np.argsort(boxes[:, 0])]
    west, south = boxes[:, :2].min(axis=0).tolist()
    east, north = boxes[:, 2:].max(axis=0).tolist()
    if (west, east) == (-180, 180) and len(boxes) > 1:
        reached = np.maximum.accumulate(boxes[:, 2])
        gaps = boxes[1:, 0] - reached[:-1]
        widest = int(gaps.argmax())
        if gaps[widest] > 0:
            west, east = float(boxes[widest + 1, 0]), float(reached[widest])
    return [west, south, east, north]


def _time(record: Record) -> str | None:
    return None if record.datetime is None else record.datetime.astimezone(UTC).isoformat()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _csv(_: Archive, records: Iterable[Record], path: Path, run: _Export) -> None:
    from rsir.archive.exchange.geoparquet import shapely, shapes_of

    with path.open("w", encoding="utf-8", newline="") as file:
        # Lines end as RFC 4180 says, so that csv quotes every value that holds \r or \n.
        rows = csv.writer(file)
        rows.writerow(CSV_COLUMNS)
        for batch in run.batches(records, _BATCH_RECORDS):
            shapes = shapes_of([record.footprint for record in batch])
            # -1: as many decimals as shapely has, 16.
            texts = shapely().to_wkt(shapes, rounding_precision=-1)
            points = shapely().point_on_surface(shapes)
            xs, ys = shapely().get_x(points).tolist(), shapely().get_y(points).tolist()
            for record, shape, text, x, y in zip(batch, shapes, texts, xs, ys, strict=True):
                if shape is None and record.footprint is not None:
                    run.skipped.add(record.id, NO_GEOMETRY)
                    continue
                # Of no point, and of an empty geometry, the coordinates are NaN.
                point = (x, y) if x == x else (None, None)
                file_facts = (record.source, record.content, record.size, record.mtime_ns)
                rows.writerow(
                    [record.id, *file_facts, _time(record), *point, text, _json(record.properties)]
                )
                run.wrote(record)


_WRITERS: dict[str, Callable[[Archive, Iterable[Record], Path, _Export], None]] = {
    "geoparquet": _geoparquet,
    "geojson": _geojson,
    "geojsonl": _geojsonl,
    "csv": _csv,
    "stac": _stac,
}
