"""Import embeddings from Parquet files, of rsir or of other programs, into an archive."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rsir.archive.exchange import geoarrow, geoparquet
from rsir.archive.exchange.arrow_columns import (
    fits_json,
    json_values,
    matrix_of,
    storage_of,
    utc_times,
)
from rsir.archive.exchange.batches import batch_size
from rsir.archive.exchange.columns import Columns, resolve_columns, vector_column
from rsir.archive.exchange.geoparquet import PROBABILITIES
from rsir.archive.exchange.reproject import FootprintReader
from rsir.archive.exchange.skipped import SkipCounter, SkipSummary
from rsir.archive.folder.external import is_external
from rsir.archive.folder.failures import translate_store_errors
from rsir.documents import parse_object
from rsir.errors import DataError, UsageError
from rsir.ranking import metric_named, packed
from rsir.sources.folders import source_name
from rsir.sources.gate import reason
from rsir.store.records.record import Record
from rsir.types import Geometry

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.archive.folder.encoder import ImageEncoder

_SUFFIXES = (".parquet", ".geoparquet")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of one `import_parquet`, in rows.

    read: rows of all files. added: new records. replaced: records whose id was there already.
    skipped: rows without a valid vector, with an id of an earlier row, and the like.
    incomplete: rows imported without their date or footprint, which could not be read.
    ignored: columns left out because JSON cannot hold their values. seconds: duration.
    """

    read: int = 0
    added: int = 0
    replaced: int = 0
    skipped: SkipSummary = field(default_factory=SkipSummary)
    incomplete: SkipSummary = field(default_factory=SkipSummary)
    ignored: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Target:
    """What the rows of an import must fit: the archive's path, metric, dimension and model."""

    path: str | Path
    metric: str
    dimension: int
    fingerprint: str


def check_parquet(
    path: str | Path,
    encoder: ImageEncoder,
    paths: str | Path | Sequence[str | Path],
    columns: Columns | None = None,
    *,
    fingerprint: str | None = None,
    crs: str | None = None,
) -> None:
    """Check files before the archive for them is created, at `path` for the model of `encoder`.

    Reads what describes the files, and no row. The other arguments and the errors are those of
    `import_parquet`.
    """
    target = Target(path, encoder.ranking, encoder.dimension, encoder.fingerprint)
    for file in _parquet_paths(paths):
        _ParquetFile(file, columns or Columns(), target, fingerprint, crs)


def import_parquet(
    archive: Archive,
    paths: str | Path | Sequence[str | Path],
    columns: Columns | None = None,
    *,
    fingerprint: str | None = None,
    crs: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Import the rows of Parquet files, and of those in folders, as records of `archive`.

    The import of an export of rsir gives exactly the same records. In files of other programs,
    every column that is not used for the record becomes a property, and `content` is "", for
    unknown. A row replaces the record with the same id; of several rows with the same id, only the
    first counts. Commits in batches: after an interruption, call this again. Memory grows by some
    hundred bytes per row, for the ids.

    columns: of files of other programs. fingerprint: of the model of the embeddings, which must be
    the archive's model; required if the files do not name the model. crs: of the geometries; None:
    the CRS that a file names, else WGS 84. on_progress: called with (rows done, total rows).

    Raises UsageError for embeddings of another model (or of an unknown one, unless the archive is
    for external embeddings), for a missing column and for a CRS that PROJ does not know; DataError
    for a file that does not exist or cannot be read; MissingExtraError without shapely or pyproj.
    Earlier commits stay.
    """
    start = time.monotonic()
    target = Target(archive.path, archive.metric, archive.dimension, archive.fingerprint)
    files = [
        _ParquetFile(path, columns or Columns(), target, fingerprint, crs)
        for path in _parquet_paths(paths)
    ]
    total = sum(file.count for file in files)
    before = len(archive)
    counts = _ImportCounts()
    imported = 0
    for file in files:
        for records, vectors in file.batches(counts):
            with translate_store_errors(archive.path):
                archive.store.add(records, vectors)
            imported += len(records)
            if on_progress is not None:
                on_progress(counts.read, total)
    added = len(archive) - before
    return ImportReport(
        read=counts.read,
        added=added,
        replaced=imported - added,
        skipped=counts.skipped.summary(),
        incomplete=counts.incomplete.summary(),
        ignored=tuple(sorted({name for file in files for name in file.ignored})),
        seconds=time.monotonic() - start,
    )


def dimension_of(path: str | Path, columns: Columns | None = None) -> int:
    """The dimension D of the first embedding in a file, to create an archive for such embeddings.

    Raises UsageError if there is no embedding or no such column, DataError if the file cannot be
    read.
    """
    (path, *_) = _parquet_paths(path)
    with _translate_read_errors(path):
        parquet = pq.ParquetFile(path)
        export = geoparquet.read_export_metadata(parquet.metadata.metadata, str(path))
        if export is not None:
            return int(export["dimension"])
        name = vector_column(path, parquet.schema_arrow, columns or Columns())
        for batch in parquet.iter_batches(columns=[name]):
            for length in pc.list_value_length(storage_of(batch.column(0))).to_pylist():
                if length:
                    return int(length)
    raise UsageError(f"{path} has no embeddings")


class _ImportCounts:
    """Counts the rows of one import, over all its files. seen: the ids so far."""

    def __init__(self) -> None:
        self.read = 0
        self.seen: set[str] = set()
        self.skipped = SkipCounter()
        self.incomplete = SkipCounter()


class _ParquetFile:
    """One Parquet file whose rows become records and vectors that fit `target`.

    count: rows. ignored: columns that JSON cannot hold.
    """

    def __init__(
        self,
        path: Path,
        columns: Columns,
        target: Target,
        fingerprint: str | None,
        crs: str | None,
    ) -> None:
        self._path = path
        self._name = source_name(path)
        self._metric = metric_named(target.metric)
        self._dimension = target.dimension
        self._batch_size = batch_size(target.metric, target.dimension)
        with _translate_read_errors(path):
            self._parquet = pq.ParquetFile(path)
        schema = self._parquet.schema_arrow
        # The schema lacks the metadata that a writer adds when it closes the file.
        metadata = self._parquet.metadata.metadata
        self.count: int = self._parquet.metadata.num_rows
        export = geoparquet.read_export_metadata(metadata, str(path))
        _check_model(path, target, export, fingerprint)
        self._is_export = export is not None
        if self._is_export:
            geoparquet.check_columns(schema, target.metric, target.dimension, str(path))
            columns = Columns()
        geo = _geo_metadata(metadata)
        self._columns = resolve_columns(
            path, schema, columns, self._metric, geo.get("primary_column")
        )
        self._footprints: FootprintReader | None = None
        self._properties: list[str] = []
        self.ignored: list[str] = []
        if self._is_export:
            return
        geometry = geo.get("columns", {}).get(self._columns.geometry, {})
        if self._columns.geometry is not None:
            own = geoarrow.column_metadata(schema.field(self._columns.geometry))
            self._footprints = FootprintReader(own | geometry, crs, str(path))
        # The column of bounding boxes repeats information of the geometries.
        used = {*astuple(self._columns), _covering(geometry)}
        if self._metric.classes:
            used.add(PROBABILITIES)
        for name in schema.names:
            if name not in used:
                fits = fits_json(schema.field(name).type)
                (self._properties if fits else self.ignored).append(name)

    def batches(self, counts: _ImportCounts) -> Iterator[tuple[list[Record], NDArray[Any]]]:
        """Records and vectors, in batches that are not empty."""
        with _translate_read_errors(self._path):
            start = 0
            for batch in self._parquet.iter_batches(self._batch_size):
                table = pa.Table.from_batches([batch])
                records, vectors = self._records(table, self._ids(table, start), counts)
                start += len(batch)
                counts.read += len(batch)
                if records:
                    yield records, vectors

    def _ids(self, table: pa.Table, start: int) -> list[str]:
        """The id of each row; for a row without an id, its file's absolute path and number."""
        defaults = [f"{self._name}:{start + row}" for row in range(table.num_rows)]
        return _texts(table, self._columns.id, defaults)

    def _records(
        self, table: pa.Table, ids: Sequence[str], counts: _ImportCounts
    ) -> tuple[list[Record], NDArray[Any]]:
        """The records of a batch that can be imported, and their vectors."""
        vectors, valid = self._vectors(table, ids, counts.skipped)
        rows: list[int] = []
        for row in valid:
            if ids[row] in counts.seen:
                counts.skipped.add(ids[row], "its id occurs twice")
            else:
                counts.seen.add(ids[row])
                rows.append(row)
        table, vectors = table.take(pa.array(rows, pa.int64())), vectors[rows]
        if not self._is_export:
            return self._described([ids[row] for row in rows], table, counts.incomplete), vectors
        records = list(geoparquet.records_of(table, counts.skipped))
        return (
            [record for record in records if record is not None],
            vectors[[record is not None for record in records]],
        )

    def _vectors(
        self, table: pa.Table, ids: Sequence[str], skipped: SkipCounter
    ) -> tuple[NDArray[Any], list[int]]:
        """The vectors (n, width) of all rows, and the rows whose vector the metric can compare."""
        metric, is_code = self._metric, self._metric.kind == "bits"
        reasons: dict[int, str] = {}
        width = -(-self._dimension // 8) if is_code else self._dimension
        dtype = np.uint8 if is_code else np.float32
        vectors = matrix_of(table[self._columns.vector], width, dtype, reasons)
        if metric.classes:
            column = table[PROBABILITIES]
            vectors = packed(vectors, matrix_of(column, metric.classes, np.float32, reasons))
        present = [row for row in range(table.num_rows) if row not in reasons]
        if present:
            faults = metric.faults(vectors[present], self._dimension)
            reasons |= {present[index]: reason for index, reason in faults.items()}
        for row in sorted(reasons):
            skipped.add(ids[row], reasons[row])
        return vectors, [row for row in present if row not in reasons]

    def _described(
        self, ids: Sequence[str], table: pa.Table, incomplete: SkipCounter
    ) -> list[Record]:
        """The records of rows that another program wrote."""
        sources = _texts(table, self._columns.source, [f"{self._name}#{id}" for id in ids])
        properties: list[dict[str, Any]] = [{} for _ in ids]
        for name in self._properties:
            for row, value in enumerate(json_values(table[name])):
                if value is not None:
                    properties[row][name] = value
        times: list[datetime | None] = [None] * len(ids)
        if (dates := self._columns.datetime) is not None:
            times = utc_times(table[dates])
            for row, value in enumerate(json_values(table[dates])):
                if value is not None and times[row] is None:
                    incomplete.add(ids[row], "its date is not understood; kept as a property")
                    properties[row][dates] = value
        footprints: list[Geometry | None] = [None] * len(ids)
        if self._footprints is not None:
            footprints, reasons = self._footprints.footprints(table[self._columns.geometry])
            for row, reason in reasons.items():
                incomplete.add(ids[row], reason)
        return [
            Record(id, source, "", footprint=footprint, datetime=time, properties=own)
            for id, source, footprint, time, own in zip(
                ids, sources, footprints, times, properties, strict=True
            )
        ]


def _texts(table: pa.Table, column: str | None, defaults: list[str]) -> list[str]:
    """The values of a column as text, with a default for each missing value."""
    if column is None:
        return defaults
    values = table[column].to_pylist()
    return [d if value is None else str(value) for value, d in zip(values, defaults, strict=True)]


def _parquet_paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files in `paths`, each once; those of a folder sorted."""
    found: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        files = [path]
        if path.is_dir():
            # Spark gives such names to folders, too; rglob also finds the files in these.
            named = (f for f in path.rglob("*") if f.suffix.lower() in _SUFFIXES)
            files = sorted(f for f in named if f.is_file())
        if not files or not path.exists():
            raise DataError(f"{path}: there is no {'Parquet file in it' if not files else 'file'}")
        found += files
    return list(dict.fromkeys(found))


@contextmanager
def _translate_read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({reason(error)})") from error


def _check_model(
    path: Path, target: Target, export: Mapping[str, Any] | None, fingerprint: str | None
) -> None:
    """UsageError unless the embeddings are of the model of `target`.

    export: the file's metadata of rsir. fingerprint: of the model, as the caller gives it.
    """
    fingerprints = [export["fingerprint"]] if export else []
    fingerprints += [] if fingerprint is None else [fingerprint]
    for model in fingerprints:
        if model != target.fingerprint:
            raise UsageError(
                f"{path} holds embeddings of the model {model}, {target.path} embeddings of "
                f"{target.fingerprint}: import them into an archive of their own model"
            )
    if not fingerprints and not is_external(target.fingerprint):
        raise UsageError(
            f"{path} does not say which model made its embeddings. If it was the model of "
            f"{target.path}, give its fingerprint, {target.fingerprint}; else import them into "
            "an archive for external embeddings"
        )
    if export and (export["metric"], export["dimension"]) != (target.metric, target.dimension):
        raise UsageError(
            f"{path} is for {export['metric']}, {export['dimension']}, and {target.path} for "
            f"{target.metric}, {target.dimension}"
        )


def _geo_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The GeoParquet metadata; {} if it is missing or damaged."""
    try:
        geo = parse_object((metadata or {})[b"geo"])
        columns = geo["columns"]
    except (KeyError, ValueError):
        return {}
    is_object = isinstance(columns, dict) and all(isinstance(c, dict) for c in columns.values())
    return geo if is_object else {}


def _covering(geometry: Mapping[str, Any]) -> str | None:
    """The column with the bounding boxes of a geometry column, from its GeoParquet metadata."""
    try:
        name: str = geometry["covering"]["bbox"]["xmin"][0]
    except (KeyError, IndexError, TypeError):
        return None
    return name
