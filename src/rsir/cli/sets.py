"""The commands on benchmark sets: list, check, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsir.cli.options import Json, print_json

app = typer.Typer(help="Benchmark sets: list, check, fetch.", no_args_is_help=True)


@app.command("list")
def datasets_list(as_json: Json = False) -> None:
    """List the benchmark sets: classes, images, size, licence."""
    from rsir.data.catalog import entries as catalog

    entries = catalog.ENTRIES.values()
    if as_json:
        rows = [entry.to_dict() for entry in entries]
        print_json(rows)
        return
    for entry in entries:
        height, width = entry.size
        typer.echo(
            f"{entry.name:16s}{entry.images:6d} images  {entry.class_count:2d} "
            f"{'classes' if entry.labels == 'single' else 'labels '}  {height}×{width}  "
            f"{entry.title}; licence {entry.licence}"
        )


@app.command("check")
def datasets_check(
    name: Annotated[str, typer.Argument(help="A set, see `rsir datasets list`.")],
    root: Annotated[Path, typer.Argument(help="Folder that contains the unpacked set.")],
    as_json: Json = False,
) -> None:
    """Report missing, extra and corrupt images of a set."""
    from rsir.data.catalog.check import check
    from rsir.data.catalog.entries import get

    report = check(get(name), root)
    if as_json:
        print_json({"name": name, "ok": report.ok, "lines": report.lines})
    else:
        typer.echo("\n".join(report.lines))
    if not report.ok:
        raise typer.Exit(1)


@app.command("fetch")
def datasets_fetch(
    name: Annotated[str, typer.Argument(help="A set, see `rsir datasets list`.")],
    root: Annotated[Path, typer.Argument(help="Folder to unpack the set into.")],
    as_json: Json = False,
) -> None:
    """Download and unpack a set, if it can be downloaded."""
    from rsir.data.catalog.entries import get
    from rsir.data.catalog.fetch import fetch

    folder = fetch(get(name), root)
    if as_json:
        print_json({"name": name, "folder": str(folder)})
    else:
        typer.echo(f"{name} is in {folder}")
