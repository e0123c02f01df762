"""The commands between archives and other programs: export, import, merge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsir.cli.filters import Bbox, Classes, From, Taken, Where, Within, filter_of, say_unknown
from rsir.cli.options import Folder, Json, opened, print_json
from rsir.cli.printing import progress, say
from rsir.errors import UsageError

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.archive.exchange.columns import Columns
    from rsir.archive.exchange.skipped import SkipSummary

app = typer.Typer()

_COLUMNS = "Columns of files from other programs (default: the usual names)"
_NEW = "For a new archive of embeddings from a model that rsir cannot run"


class ExportFormat(StrEnum):
    """The formats that `rsir export` writes."""

    geoparquet = "geoparquet"
    geojson = "geojson"
    geojsonl = "geojsonl"
    csv = "csv"
    stac = "stac"


@app.command("export")
def export_(
    archive: Folder,
    file: Annotated[
        Path,
        typer.Argument(help="File to write: .parquet, .geojson, .geojsonl, .csv, .json (STAC)."),
    ],
    format: Annotated[
        ExportFormat | None, typer.Option(help="Default: by the suffix of the file.")
    ] = None,
    bbox: Bbox = None,
    within: Within = None,
    taken: Taken = None,
    where: Where = None,
    classes: Classes = None,
    sources: From = None,
    version: Annotated[
        int | None,
        typer.Option(help="Export this earlier version, see `rsir info --versions`."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write an archive, or a part of it, for other programs. GeoParquet includes embeddings."""
    from rsir.archive.exchange.export import export

    exported = opened(archive, version)
    filter = filter_of(bbox, within, taken, where, classes, sources)
    say_unknown(exported, filter)
    total = exported.count(filter)
    with progress("writing") as tick:
        report = export(
            exported,
            file,
            exported.records(filter),
            format=None if format is None else format.value,
            overwrite=overwrite,
            on_progress=lambda done: tick(done, total),
        )
    if as_json:
        print_json(report.to_dict())
        return
    typer.echo(f"{report.written} images in {file}, {report.without_footprint} without a footprint")
    _say_skipped(report.skipped, "left out")


@app.command("import")
def import_(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive; created if new.")],
    files: Annotated[list[Path], typer.Argument(help="Parquet files, and folders of them.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the model that made the embeddings; required for a new archive.",
            rich_help_panel=_NEW,
        ),
    ] = None,
    ranking: Annotated[
        str,
        typer.Option(
            help="Distance of the model: cosine, euclidean or ncc; hamming for hash codes.",
            rich_help_panel=_NEW,
        ),
    ] = "cosine",
    dimension: Annotated[
        int | None,
        typer.Option(
            help="Length of an embedding, or bits of a code. Default: from the first file.",
            rich_help_panel=_NEW,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Where the archive keeps its records, if not in its folder.",
            rich_help_panel=_NEW,
        ),
    ] = None,
    vector_column: Annotated[
        str | None, typer.Option(help="Embeddings or hash codes.", rich_help_panel=_COLUMNS)
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Unique ids.", rich_help_panel=_COLUMNS)
    ] = None,
    source_column: Annotated[
        str | None, typer.Option(help="Paths or URIs of the images.", rich_help_panel=_COLUMNS)
    ] = None,
    datetime_column: Annotated[
        str | None, typer.Option(help="Acquisition times.", rich_help_panel=_COLUMNS)
    ] = None,
    geometry_column: Annotated[
        str | None, typer.Option(help="Footprints as WKB or WKT.", rich_help_panel=_COLUMNS)
    ] = None,
    crs: Annotated[
        str | None,
        typer.Option(
            help="CRS of the footprints, if the files do not name it.", rich_help_panel=_COLUMNS
        ),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="Fingerprint of the model, if the files do not name it; it must be the archive's."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Import embeddings from Parquet files that `rsir export` or other programs wrote."""
    from rsir.archive.exchange.columns import Columns
    from rsir.archive.exchange.imports import check_parquet, dimension_of, import_parquet
    from rsir.archive.folder.external import ExternalEncoder

    columns = Columns(vector_column, id_column, source_column, datetime_column, geometry_column)
    if name is not None and not archive.exists():
        # Before the archive is created, so that a mistake leaves none behind.
        first = dimension_of(files[0], columns) if dimension is None else dimension
        encoder = ExternalEncoder(name, ranking, first)
        check_parquet(archive, encoder, list(files), columns, fingerprint=fingerprint, crs=crs)
    target = _target(archive, files, columns, name, ranking, dimension, store)
    with progress("importing") as tick:
        report = import_parquet(
            target, list(files), columns, fingerprint=fingerprint, crs=crs, on_progress=tick
        )
    if as_json:
        print_json(report.to_dict())
        return
    typer.echo(
        f"{report.read} rows read: {report.added} added, {report.replaced} replaced, "
        f"{report.skipped.count} skipped; {len(target)} images in {archive}"
    )
    _say_skipped(report.skipped, "skipped")
    _say_skipped(report.incomplete, "imported incompletely")
    if report.ignored:
        say(f"ignored columns: {', '.join(report.ignored)}")


@app.command()
def merge(
    into: Annotated[Path, typer.Argument(help="Folder of the archive that receives the images.")],
    other: Annotated[Path, typer.Argument(help="Folder of another archive with the same model.")],
    as_json: Json = False,
) -> None:
    """Copy all images of one archive into another. If both hold an image, the newer file stays."""
    from rsir.archive import Archive
    from rsir.archive.exchange.merge import merge

    target = Archive.open(into)
    with progress("merging") as tick:
        report = merge(target, Archive.open(other), on_progress=tick)
    if as_json:
        print_json(report.to_dict())
        return
    typer.echo(
        f"{report.added} added, {report.replaced} replaced, {report.unchanged} unchanged, "
        f"{report.kept} kept because they are as new or newer; {len(target)} images in {into}"
    )


def _target(
    archive: Path,
    files: list[Path],
    columns: Columns,
    name: str | None,
    ranking: str,
    dimension: int | None,
    store: str | None,
) -> Archive:
    """The archive at a path, created if it is new."""
    from rsir.archive.archive import Archive
    from rsir.archive.exchange.imports import dimension_of
    from rsir.archive.folder.external import ExternalEncoder

    if name is None:
        if not archive.exists():
            raise UsageError(
                f"{archive} is a new archive: give the --name of the model that made the "
                "embeddings; for a model of rsir, create it with `rsir index ARCHIVE --model`"
            )
        return Archive.open(archive)
    if dimension is None:
        dimension = dimension_of(files[0], columns)
    return Archive.open_or_create(archive, ExternalEncoder(name, ranking, dimension), store=store)


def _say_skipped(summary: SkipSummary, consequence: str) -> None:
    """Print how many rows were skipped for each reason, with an example, on stderr."""
    for reason, count in summary.reasons.items():
        examples = (f", e.g. {row.id}" for row in summary.first if row.reason == reason)
        say(f"{count} {consequence}: {reason}{next(examples, '')}")
