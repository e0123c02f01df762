"""Embeddings that lie in Parquet files – GeoParquet or not, of rsir or not – into an archive."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rsir.archive.exchange import geoparquet
from rsir.archive.exchange.arrow_columns import (
    fits_json,
    is_bytes,
    is_geometry,
    is_numbers,
    is_text,
    is_time,
    matrix_of,
    times_of,
    values_of,
)
from rsir.archive.exchange.reproject import FootprintReader
from rsir.archive.exchange.skipped import SkipCounter, Summary
from rsir.archive.folder.external import is_external
from rsir.archive.folder.failures import translate_store_errors
from rsir.errors import DataError, UsageError
from rsir.ranking import metric_named, packed
from rsir.store.records.record import Record
from rsir.types import Geometry

if TYPE_CHECKING:
    from rsir.archive.archive import Archive

_COMMIT_ROWS = 10_000
_COMMIT_BYTES = 32 << 20
"""Rows in one commit: so many, or so many bytes of vectors. Our choice, as in `export`."""

_SUFFIXES = (".parquet", ".geoparquet")

# Looked for in this order, in any case of letters; the first of each are the names of rsir's own.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "vector": ("embedding", "embeddings", "vector", "vectors", "features"),
    "code": ("code", "codes"),
    "id": ("id", "item_id", "unique_id", "tile_id", "chip_id", "chips_id"),
    "source": ("source", "source_uri", "uri", "href", "path", "filename"),
    "datetime": ("datetime", "timestamp", "date", "time", "acquired"),
    "geometry": ("geometry", "geom"),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of columns; None is looked for by its usual names, "" is left alone.

    vector: lists of D numbers; or of bytes, or binary, in an archive of hash codes ("code" is
    looked for then). id: unique; without one, rows are called "FILE:ROW". source: path or uri of
    the image; without one, "FILE#ID". datetime: a timestamp, a date, or ISO 8601 text; without a
    zone it is UTC. geometry: WKB, or WKT text; by default what the file says.
    """

    vector: str | None = None
    id: str | None = None
    source: str | None = None
    datetime: str | None = None
    geometry: str | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What one `import_parquet` did, in rows.

    read: rows of all files. added: new. replaced: a record of that id was there. skipped: rows
    without a vector that the archive can rank, with an id that came before, and the like.
    incomplete: rows that were kept without a date or a footprint that could not be understood.
    ignored: columns that were not kept, because JSON cannot hold their values. seconds: duration.
    """

    read: int = 0
    added: int = 0
    replaced: int = 0
    skipped: Summary = field(default_factory=Summary)
    incomplete: Summary = field(default_factory=Summary)
    ignored: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def import_parquet(
    archive: Archive,
    paths: str | Path | Sequence[str | Path],
    columns: Columns | None = None,
    *,
    fingerprint: str | None = None,
    crs: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Keep the rows of Parquet files, and of those in folders, as records of `archive`.

    What `export` wrote comes back as it was. Of other files every column that has no part in the
    record becomes one of its properties; its `content` is "", for unknown. A known id is
    replaced; of an id that stands twice in what is imported the first counts. Committed in
    batches: interrupted and called again it comes to the same end. Memory grows by some hundred
    bytes a row, for the ids.

    columns: for files made elsewhere. fingerprint: whose embeddings they are, if the files do not
    say: the archive's own fingerprint. crs: of their geometries, if the files do not say, or say
    it wrong; WGS 84 by default. on_progress: called with (rows done, rows in all).

    Raises UsageError for embeddings of another model (or of an unknown one, unless the archive is
    one for embeddings made elsewhere), for columns that are not there and for a CRS that PROJ does
    not know, DataError for a file that is not there or cannot be read, MissingExtraError without
    shapely or pyproj. What was committed before stays.
    """
    start = time.monotonic()
    files = [_File(path, columns or Columns(), archive, fingerprint, crs) for path in _found(paths)]
    total = sum(file.count for file in files)
    before = len(archive)
    run = _Import()
    kept = 0
    for file in files:
        for records, vectors in file.rows(run):
            with translate_store_errors(archive.path):
                archive._store.add(records, vectors)
            kept += len(records)
            if on_progress is not None:
                on_progress(run.read, total)
    added = len(archive) - before
    return ImportReport(
        read=run.read,
        added=added,
        replaced=kept - added,
        skipped=run.skipped.summary(),
        incomplete=run.incomplete.summary(),
        ignored=tuple(sorted({name for file in files for name in file.ignored})),
        seconds=time.monotonic() - start,
    )


def dimension_of(path: str | Path, columns: Columns | None = None) -> int:
    """D of the embeddings in a file, for an archive that is to be made for them.

    That of its first row that has any. Raises UsageError if there is no such row or column,
    DataError if the file cannot be read.
    """
    (path, *_) = _found(path)
    with _reading(path):
        parquet = pq.ParquetFile(path)
        about = geoparquet.read_about(parquet.metadata.metadata, str(path))
        if about is not None:
            return int(about["dimension"])
        given = columns.vector if columns else None
        name = _Picker(path, parquet.schema_arrow)("vector", given, is_numbers)
        if name is None:
            raise UsageError(
                f"{path}: which column holds the embeddings (lists of numbers)? "
                f"It has: {', '.join(parquet.schema_arrow.names)}"
            )
        for batch in parquet.iter_batches(_COMMIT_ROWS, columns=[name]):
            for length in pc.list_value_length(batch.column(0)).to_pylist():
                if length:
                    return int(length)
    raise UsageError(f"{path} has no embeddings")


class _Import:
    """What was done so far, over all files."""

    def __init__(self) -> None:
        self.read = 0
        self.seen: set[str] = set()
        self.skipped = SkipCounter()
        self.incomplete = SkipCounter()


class _File:
    """One Parquet file, and how its columns become records and vectors of `archive`."""

    def __init__(
        self,
        path: Path,
        columns: Columns,
        archive: Archive,
        fingerprint: str | None,
        crs: str | None,
    ) -> None:
        self.path = path
        self._metric = metric_named(archive.metric)
        self._dimension = archive.dimension
        with _reading(path):
            self._parquet = pq.ParquetFile(path)
        schema = self._parquet.schema_arrow
        # Of the file: what is added when it is closed is not in the schema.
        metadata = self._parquet.metadata.metadata
        self.count: int = self._parquet.metadata.num_rows
        about = geoparquet.read_about(metadata, str(path))
        _check_model(path, archive, about, fingerprint)
        self._ours = about is not None
        if self._ours:
            geoparquet.check_columns(schema, archive.metric, archive.dimension, str(path))
            columns = Columns()
        pick = _Picker(path, schema)
        bits = self._metric.kind == "bits"
        role, fits = ("code", is_bytes) if bits else ("vector", is_numbers)
        vector = pick(role, columns.vector, fits)
        if vector is None:
            what = "codes (binary, or lists of uint8)" if bits else "embeddings (lists of numbers)"
            raise UsageError(
                f"{path}: which column holds the {what}? It has: {', '.join(schema.names)}"
            )
        self._vector = vector
        if self._metric.classes:
            pick("probabilities", geoparquet.PROBABILITIES, is_numbers)
        self._id = pick("id", columns.id, fits_json)
        self._source = pick("source", columns.source, is_text)
        self._datetime = pick("datetime", columns.datetime, is_time)
        geo = _geo(metadata)
        main = geo.get("primary_column")
        main = main if columns.geometry is None and main in schema.names else columns.geometry
        self._geometry = pick("geometry", main, is_geometry)
        about_geometry = geo.get("columns", {}).get(self._geometry, {})
        self._placer: FootprintReader | None = None
        if self._geometry is not None and not self._ours:
            self._placer = FootprintReader(about_geometry, crs, str(path))
        used = {self._vector, self._id, self._source, self._datetime, self._geometry}
        if self._metric.classes:
            used.add(geoparquet.PROBABILITIES)
        # The boxes of the geometries say nothing that these do not.
        used.add(_covering(about_geometry))
        self._rest: list[str] = []
        self.ignored: list[str] = []
        for name in () if self._ours else schema.names:
            if name not in used:
                keep = fits_json(schema.field(name).type)
                (self._rest if keep else self.ignored).append(name)

    def rows(self, run: _Import) -> Iterator[tuple[list[Record], NDArray[Any]]]:
        """Records and vectors, in batches; none is empty."""
        each = self._metric.width(self._dimension) * (4 if self._metric.kind == "float" else 1)
        size = max(1, min(_COMMIT_ROWS, _COMMIT_BYTES // each))
        with _reading(self.path):
            start = 0
            for batch in self._parquet.iter_batches(size):
                rows = pa.Table.from_batches([batch])
                records, vectors = self._batch(rows, start, run)
                start += len(batch)
                run.read += len(batch)
                if records:
                    yield records, vectors

    def _batch(self, rows: pa.Table, start: int, run: _Import) -> tuple[list[Record], NDArray[Any]]:
        ids = self._ids(rows, start)
        fit, vectors = self._vectors(rows, ids, run.skipped)
        keep = []
        for place, row in enumerate(fit):
            if ids[row] in run.seen:
                run.skipped.add(ids[row], "its id stands twice")
            else:
                run.seen.add(ids[row])
                keep.append(place)
        rows = rows.take(pa.array([fit[place] for place in keep], pa.int64()))
        vectors = vectors[keep]
        if not self._ours:
            return self._foreign([ids[fit[place]] for place in keep], rows, run.incomplete), vectors
        found = list(geoparquet.records_of(rows, run.skipped))
        there = [place for place, record in enumerate(found) if record is not None]
        return [record for record in found if record is not None], vectors[there]

    def _ids(self, rows: pa.Table, start: int) -> list[str]:
        names = [f"{self.path.name}:{start + row}" for row in range(rows.num_rows)]
        if self._id is None:
            return names
        # A row whose id is missing is called by its place.
        ids = rows[self._id].to_pylist()
        return [name if id is None else str(id) for id, name in zip(ids, names, strict=True)]

    def _vectors(
        self, rows: pa.Table, ids: Sequence[str], skipped: SkipCounter
    ) -> tuple[list[int], NDArray[Any]]:
        """The rows that the metric can rank, and their vectors (n, width)."""
        metric, bits = self._metric, self._metric.kind == "bits"
        reasons: dict[int, str] = {}
        width = -(-self._dimension // 8) if bits else self._dimension
        matrix = matrix_of(rows[self._vector], width, np.uint8 if bits else np.float32, reasons)
        if metric.classes:
            column = rows[geoparquet.PROBABILITIES]
            chances = matrix_of(column, metric.classes, np.float32, reasons)
            matrix = packed(matrix, chances)
        good = [row for row in range(rows.num_rows) if row not in reasons]
        if good:
            faults = metric.faults(matrix[good], self._dimension)
            reasons |= {good[place]: reason for place, reason in faults.items()}
        for row in sorted(reasons):
            skipped.add(ids[row], reasons[row])
        fit = [row for row in good if row not in reasons]
        return fit, matrix[fit]

    def _foreign(self, ids: Sequence[str], rows: pa.Table, incomplete: SkipCounter) -> list[Record]:
        sources = [f"{self.path.name}#{id}" for id in ids]
        if self._source is not None:
            given = rows[self._source].to_pylist()
            sources = [s if g is None else str(g) for g, s in zip(given, sources, strict=True)]
        properties: list[dict[str, Any]] = [{} for _ in ids]
        for name in self._rest:
            for known, value in zip(properties, values_of(rows[name]), strict=True):
                if value is not None:
                    known[name] = value
        times: list[datetime | None] = [None] * len(ids)
        if self._datetime is not None:
            times = times_of(rows[self._datetime])
            for row, value in enumerate(values_of(rows[self._datetime])):
                if value is not None and times[row] is None:
                    incomplete.add(ids[row], "its date is not understood; kept as a property")
                    properties[row][self._datetime] = value
        places: list[Geometry | None] = [None] * len(ids)
        if self._placer is not None:
            places, reasons = self._placer.footprints(rows[self._geometry])
            for row, reason in reasons.items():
                incomplete.add(ids[row], reason)
        return [
            Record(id, source, "", footprint=place, datetime=when, properties=known)
            for id, source, place, when, known in zip(
                ids, sources, places, times, properties, strict=True
            )
        ]


class _Picker:
    """Finds the columns of one file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema

    def __call__(
        self, role: str, given: str | None, fits: Callable[[pa.DataType], bool]
    ) -> str | None:
        """The column called `given`, or by a usual name of its role; None if there is none."""
        if given is None:
            by_name = {name.lower(): name for name in reversed(self._schema.names)}
            usual = [by_name[name] for name in _NAMES[role] if name in by_name]
            return next((name for name in usual if fits(self._schema.field(name).type)), None)
        if not given:
            return None
        if given not in self._schema.names:
            names = ", ".join(self._schema.names)
            raise UsageError(f"{self._path} has no column {given!r}; it has: {names}")
        kind = self._schema.field(given).type
        if not fits(kind):
            raise UsageError(
                f"{self._path}: the column {given!r} cannot be its {role}: it is {kind}"
            )
        return given


def _found(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files in `paths`, those of folders sorted."""
    found: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        files = [path]
        if path.is_dir():
            # Spark calls folders so, too, whose files are found by themselves.
            named = (f for f in path.rglob("*") if f.suffix.lower() in _SUFFIXES)
            files = sorted(f for f in named if f.is_file())
        if not files or not path.exists():
            raise DataError(f"{path}: there is no {'Parquet file in it' if not files else 'file'}")
        found += files
    return list(dict.fromkeys(found))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error})") from error


def _check_model(
    path: Path, archive: Archive, about: Mapping[str, Any] | None, fingerprint: str | None
) -> None:
    said = [about["fingerprint"]] if about else []
    said += [] if fingerprint is None else [fingerprint]
    for theirs in said:
        if theirs != archive.fingerprint:
            raise UsageError(
                f"{path} holds embeddings of the model {theirs}, {archive.path} those of "
                f"{archive.fingerprint}: import them into an archive of their own model"
            )
    if not said and not is_external(archive.fingerprint):
        raise UsageError(
            f"{path} does not say which model made its embeddings. If it was that of "
            f"{archive.path}, give its fingerprint, {archive.fingerprint}; else import them into "
            "an archive for embeddings made elsewhere"
        )
    if about and (about["metric"], about["dimension"]) != (archive.metric, archive.dimension):
        raise UsageError(
            f"{path} is for {about['metric']}, {about['dimension']}, and {archive.path} for "
            f"{archive.metric}, {archive.dimension}"
        )


def _geo(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The GeoParquet metadata; {} of a file that has none, or none that can be read."""
    try:
        geo = json.loads((metadata or {})[b"geo"])
        geo["columns"].items()
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    found: dict[str, Any] = geo
    return found


def _covering(about: Mapping[str, Any]) -> str | None:
    """The column that holds the boxes of the geometries."""
    try:
        name: str = about["covering"]["bbox"]["xmin"][0]
    except (KeyError, IndexError, TypeError):
        return None
    return name
