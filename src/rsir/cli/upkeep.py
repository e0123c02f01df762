"""The commands that maintain an archive: info, delete, prune, optimize, restore."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsir.cli.filters import Bbox, Classes, From, Taken, Where, Within, filter_of, unknown_names
from rsir.cli.options import Folder, Json, full_ids, print_json
from rsir.cli.printing import confirm, say
from rsir.errors import ArchiveError, UsageError

if TYPE_CHECKING:
    from rsir.archive.archive import Archive

app = typer.Typer()

_SAMPLE = 20
"""Number of images whose property names an error message lists; our choice."""


@app.command()
def info(
    archive: Folder,
    sources: Annotated[
        bool, typer.Option("--sources", help="Also list each indexed file and scene.")
    ] = False,
    versions: Annotated[
        bool, typer.Option("--versions", help="Also list the earlier versions.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what an archive contains, and its model."""
    from rsir.archive import Archive

    opened = Archive.open(archive)
    found = opened.info()
    if versions:
        found["versions"] = [
            {"version": v.version, "time": v.time.isoformat(timespec="seconds"), "count": v.rows}
            for v in opened.versions()
        ]
    if sources:
        found["sources"] = [asdict(source) for source in opened.sources()]
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        if key not in ("versions", "sources") and value is not None:
            typer.echo(f"{key:12s}{_line(value)}")
    for version in found.get("versions", ()):
        typer.echo("version {version:6d}  {time}  {count:8d} images".format(**version))
    for source in found.get("sources", ()):
        bounds = "" if source["bounds"] is None else f"  {_degrees(source['bounds'])}"
        kind = "tiles " if source["tiled"] else "images"
        typer.echo(f"{source['tiles']:8d} {kind}  {source['source']}{bounds}")


@app.command()
def delete(
    archive: Folder,
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of images, or their beginnings; or select images by the options."),
    ] = None,
    bbox: Bbox = None,
    within: Within = None,
    taken: Taken = None,
    where: Where = None,
    classes: Classes = None,
    sources: From = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Delete images from an archive, by id or by a filter. Image files stay untouched."""
    from rsir.archive import Archive

    opened = Archive.open(archive)
    filter = filter_of(bbox, within, taken, where, classes, sources)
    if bool(ids) == (filter is not None):
        raise UsageError("give either ids, or options such as --source or --where")
    unknown = unknown_names(opened, filter)
    if unknown:
        raise UsageError(
            f"--where: no image has a property {', '.join(unknown)}; there are "
            f"{', '.join(_some_names(opened))} …"
        )
    if ids:
        whole = full_ids(opened, ids)
        found = [record.id for record in opened.get(list(dict.fromkeys(whole)))]
    else:
        found = [record.id for record in opened.records(filter)]
    before = opened.info()["version"]
    if found and not yes:
        confirm(f"delete {len(found)} of the {len(opened)} images in {archive}?")
    count = opened.delete(found)
    if as_json:
        print_json({"deleted": count})
    else:
        typer.echo(f"{count} images deleted")
    if count and before is not None:
        say(f"to undo this: rsir restore {archive} {before}")


@app.command()
def prune(
    archive: Folder,
    everything: Annotated[
        bool, typer.Option("--everything", help="Delete even if the files of all images are gone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete the images whose files are gone."""
    from rsir.archive import Archive
    from rsir.archive.indexing.pruning import AllGoneError

    try:
        gone = Archive.open(archive).prune(everything=everything)
    except AllGoneError as error:
        advice = f"To delete them all: rsir prune {archive} --everything"
        raise ArchiveError(f"{error.finding} {advice}") from error
    if as_json:
        print_json({"deleted": len(gone), "ids": gone})
    else:
        typer.echo(f"{len(gone)} images deleted")


@app.command()
def optimize(
    archive: Folder,
    keep_days: Annotated[
        float, typer.Option(help="Delete versions older than this; the latest stays.")
    ] = 7.0,
    as_json: Json = False,
) -> None:
    """Merge the small files that many additions leave, and delete old versions."""
    from rsir.archive import Archive

    opened = Archive.open(archive)
    before = opened.info()["bytes"]
    opened.optimize(keep_days=keep_days)
    after = opened.info()
    if as_json:
        print_json({"bytes_before": before, "bytes": after["bytes"], "version": after["version"]})
    elif before is None:
        typer.echo(f"{after['store']}: optimized")
    else:
        typer.echo(f"{before / 1e6:.1f} MB before, {after['bytes'] / 1e6:.1f} MB now")


@app.command()
def restore(
    archive: Folder,
    version: Annotated[
        int, typer.Argument(help="Number of a version, see `rsir info --versions`.")
    ],
    as_json: Json = False,
) -> None:
    """Make an earlier version the latest again. The versions in between stay."""
    from rsir.archive import Archive

    opened = Archive.open(archive)
    opened.restore(version)
    if as_json:
        print_json({"restored": version, "version": opened.info()["version"], "count": len(opened)})
        return
    typer.echo(f"{archive} is at version {version} again: {len(opened)} images")


def _some_names(archive: Archive) -> list[str]:
    """The property names of the first images."""
    from rsir.store.filters.filter import Filter

    first = islice(archive.records(Filter()), _SAMPLE)
    return sorted({name for record in first for name in record.properties})


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _degrees(bounds: tuple[float, float, float, float]) -> str:
    return "[" + ", ".join(f"{value:.5f}" for value in bounds) + "]"
