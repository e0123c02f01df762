"""The verbs that look after an archive: info, delete, prune, optimize, restore."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsir.cli.filters import Bbox, Classes, From, Taken, Where, Within, filter_of, unknown_names
from rsir.cli.options import Folder, Json, print_json
from rsir.cli.printing import confirm, say
from rsir.errors import ArchiveError, UsageError

if TYPE_CHECKING:
    from rsir.archive.archive import Archive

app = typer.Typer()

_LOOKED_AT = 20
"""Images of which the properties are named to whom another name was wrong. Our choice."""


@app.command()
def info(
    archive: Folder,
    sources: Annotated[
        bool, typer.Option("--sources", help="Also each file and scene that was indexed.")
    ] = False,
    versions: Annotated[
        bool, typer.Option("--versions", help="Also the earlier versions that are kept.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what an archive holds, and which model it belongs to."""
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
        place = "" if source["bounds"] is None else f"  {_degrees(source['bounds'])}"
        what = "tiles " if source["tiled"] else "images"
        typer.echo(f"{source['tiles']:8d} {what}  {source['source']}{place}")


@app.command()
def delete(
    archive: Folder,
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of images; or say which by the options.")
    ] = None,
    bbox: Bbox = None,
    within: Within = None,
    taken: Taken = None,
    where: Where = None,
    classes: Classes = None,
    sources: From = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Forget images, by their ids or by what they have in common. Files are left alone."""
    from rsir.archive import Archive

    opened = Archive.open(archive)
    filter = filter_of(bbox, within, taken, where, classes, sources)
    if bool(ids) == (filter is not None):
        raise UsageError("say what to delete: either ids, or options such as --source or --where")
    unknown = unknown_names(opened, filter)
    if unknown:
        raise UsageError(
            f"--where: no image has a property {', '.join(unknown)}; there are "
            f"{', '.join(_some_names(opened))} …"
        )
    if ids:
        found = [record.id for record in opened.get(list(dict.fromkeys(ids)))]
    else:
        found = [record.id for record in opened.records(filter)]
    before = opened.info()["version"]
    if found and not yes:
        confirm(f"forget {len(found)} of the {len(opened)} images in {archive}?")
    count = opened.delete(found)
    if as_json:
        print_json({"deleted": count})
    else:
        typer.echo(f"{count} images forgotten")
    if count and before is not None:
        say(f"to undo it: rsir restore {archive} {before}")


@app.command()
def prune(
    archive: Folder,
    everything: Annotated[
        bool, typer.Option("--everything", help="Even if the files of all images are gone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Forget the images whose files are gone."""
    from rsir.archive import Archive
    from rsir.archive.indexing.pruning import AllGoneError

    try:
        gone = Archive.open(archive).prune(everything=everything)
    except AllGoneError as error:
        advice = f"To forget them all: rsir prune {archive} --everything"
        raise ArchiveError(f"{error.finding} {advice}") from error
    if as_json:
        print_json({"deleted": len(gone), "ids": gone})
    else:
        typer.echo(f"{len(gone)} images forgotten")


@app.command()
def optimize(
    archive: Folder,
    keep_days: Annotated[
        float, typer.Option(help="Versions older than this are forgotten; the latest stays.")
    ] = 7.0,
) -> None:
    """Merge the small files that many additions leave, and forget old versions."""
    from rsir.archive import Archive

    opened = Archive.open(archive)
    before = opened.info()["bytes"]
    opened.optimize(keep_days=keep_days)
    about = opened.info()
    if before is None:
        typer.echo(f"{about['store']}: optimized")
    else:
        typer.echo(f"{before / 1e6:.1f} MB before, {about['bytes'] / 1e6:.1f} MB now")


@app.command()
def restore(
    archive: Folder,
    version: Annotated[int, typer.Argument(help="A version, see `rsir info --versions`.")],
) -> None:
    """Make an earlier version the latest again; those in between are kept."""
    from rsir.archive import Archive

    opened = Archive.open(archive)
    opened.restore(version)
    typer.echo(f"{archive} is as it was at version {version}: {len(opened)} images")


def _some_names(archive: Archive) -> list[str]:
    """Names of properties that the first images have."""
    from rsir.store.filters.filter import Filter

    first = islice(archive.records(Filter()), _LOOKED_AT)
    return sorted({name for record in first for name in record.properties})


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _degrees(bounds: tuple[float, float, float, float]) -> str:
    return "[" + ", ".join(f"{value:.5f}" for value in bounds) + "]"
