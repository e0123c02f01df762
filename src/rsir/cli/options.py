"""Options that several commands share, and their parsing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsir.cli.printing import say, waiting
from rsir.errors import UsageError

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.data.folder import LabelledSet

Folder = Annotated[Path, typer.Argument(help="Folder of the archive.")]

Data = Annotated[Path, typer.Option("--data", help="Folder of class folders with images.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Multi-label table (image name, then 0 or 1 per label) instead of class folders."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Set = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="KEY=VALUE", help="An option of method or training."),
]


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def opened(archive: Path, version: int | None) -> Archive:
    """The archive at a path, or its earlier `version` if one is given."""
    with waiting("opening the archive"):
        from rsir.archive import Archive

        found = Archive.open(archive)
    return found if version is None else found.at(version)


def full_ids(archive: Archive, texts: Sequence[str]) -> list[str]:
    """The ids that the texts are, or begin; a text that begins no id stays as it is.

    Raises UsageError for a text that begins several ids.
    """
    from rsir.store.existing import get_existing
    from rsir.store.filters.filter import Filter
    from rsir.store.filters.sql import sql_text

    known = {record.id for record, _ in get_existing(archive.store, texts)} if texts else set()
    found = []
    for text in texts:
        begun = [text]
        if text not in known and text:
            after = sql_text(text + "\U0010ffff")
            filter = Filter(where=f"id >= {sql_text(text)} AND id < {after}")
            begun = [record.id for record in islice(archive.records(filter), 3)] or begun
        if len(begun) > 1:
            raise UsageError(f"{text} begins several ids: {', '.join(begun)}; give more of it")
        found += begun
    return found


def parse_assignments(pairs: list[str]) -> dict[str, Any]:
    """{"key": value} from "key=value" texts. Values that are not JSON stay text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UsageError(f"-s {pair}: write it as key=value")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def labelled_set(data: Path, labels: Path | None) -> LabelledSet:
    """The labelled set in `data`: class folders, or images with a multi-label table."""
    from rsir.data import folder

    return folder.load(data, labels=labels)


def readable_only(images: LabelledSet) -> LabelledSet:
    """The readable images of a set; prints the unreadable files and their number."""
    from rsir.data.loading import readable

    remaining, skipped = readable(images)
    for path, reason in skipped:
        say(f"skipped {path}: {reason}")
    if skipped:
        say(f"{len(skipped)} of {len(images)} images skipped")
    return remaining
