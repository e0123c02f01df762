"""The verbs of archives: index, search, info, prune."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rsir.cli.options import Device, Json
from rsir.errors import DataError, UsageError
from rsir.terminal import print_hits, progress, say

app = typer.Typer()


class Format(StrEnum):
    """How `rsir search` shows its hits."""

    table = "table"
    json = "json"
    html = "html"


@app.command()
def index(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive; made if new.")],
    paths: Annotated[list[Path], typer.Argument(help="Images and folders of images.")],
    model: Annotated[
        str | None, typer.Option(help="A run folder or hf:owner/name; needed for a new one.")
    ] = None,
    as_json: Json = False,
    device: Device = "auto",
) -> None:
    """Encode images into an archive. Running it again adds only what is new or changed."""
    import rsir
    from rsir.archive.archive import MODEL, Archive

    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    if model is not None:
        opened = Archive.open_or_create(archive, rsir.load(model, device=device))
    elif not archive.exists():
        raise UsageError(f"{archive} is a new archive: say with which --model to make it")
    else:
        Archive.open(archive)  # says so if it is none, before its model is loaded
        opened = Archive.open(archive, rsir.load(archive / MODEL, device=device))
    with progress("indexing") as tick:
        report = opened.add(paths, on_progress=tick)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
        return
    ignored = sum(report.ignored.values())
    typer.echo(
        f"{report.added} added, {report.replaced} replaced, {report.unchanged} unchanged, "
        f"{len(report.skipped)} skipped, {ignored} other files ignored; "
        f"{len(opened)} images in {archive}"
    )
    for skipped in report.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")


@app.command()
def search(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive.")],
    image: Annotated[Path, typer.Argument(help="The query image.")],
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10,
    format: Annotated[Format, typer.Option(help="How to show them.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="File to write, instead of stdout.")] = None,
) -> None:
    """Find the images of an archive that are most similar to an image."""
    import rsir

    opened = rsir.open(archive)
    _ = opened.encoder  # loaded now, so that the time shown is that of the search
    hits = opened.search(image, k=k)
    if format is Format.table and out is None:
        print_hits(hits)
        return
    if format is Format.json:
        text = json.dumps([hit.to_dict() for hit in hits], indent=2, ensure_ascii=False)
    elif format is Format.html:
        from rsir import gallery

        section = gallery.Section(hits, image, took=hits.seconds, searched=hits.searched)
        text = gallery.page(section, title=f"Images like {image.name}")
    else:
        text = "\n".join(f"{hit.score:.4f}\t{hit.distance:.4f}\t{hit.source}" for hit in hits)
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text + "\n", "utf-8")
        say(f"wrote {out}")


@app.command()
def info(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive.")], as_json: Json = False
) -> None:
    """Say what an archive holds, and which model it belongs to."""
    import rsir

    found = rsir.open(archive).info()
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for key, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{k} {v}" for k, v in value.items())
        typer.echo(f"{key:12s}{shown}")


@app.command()
def prune(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive.")],
    everything: Annotated[
        bool, typer.Option("--everything", help="Even if the files of all images are gone.")
    ] = False,
) -> None:
    """Forget the images whose files are gone."""
    import rsir

    gone = rsir.open(archive).prune(everything=everything)
    typer.echo(f"{len(gone)} images forgotten")
