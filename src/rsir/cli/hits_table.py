"""The table of hits on a terminal and in a pipe."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rsir.cli.printing import WIDEST, needed, width
from rsir.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsir.types import Hit

_OURS = re.compile("[0-9a-f]{24}")
_SHORT = 12
"""Hex digits of an id on a terminal. Our choice: of 500 archives of 10^6 images, one has two ids
that begin alike."""


def hits_table(hits: Sequence[Hit], *, short: bool) -> str:
    """The hits as a table with a line for each; columns that are empty for all hits are left out.

    short: for a terminal: the beginnings of ids, which `full_ids` of `rsir.cli.options` takes, and
    paths relative to the current folder. An id or a path is never broken, so that it can be copied;
    the distance and the percentile are left out if they do not fit.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns: dict[str, list[str]] = {
        "rank": [str(rank) for rank in range(1, len(hits) + 1)],
        "score": [f"{hit.score:.4f}" for hit in hits],
        "distance": [f"{hit.distance:.4f}" for hit in hits],
        "percentile": ["" if h.percentile is None else f"{h.percentile:.3f}" for h in hits],
        "class": [str(hit.properties.get("class", "")) for hit in hits],
        "date": ["" if hit.datetime is None else f"{hit.datetime:%Y-%m-%d}" for hit in hits],
        "latitude,longitude": [_place(hit) for hit in hits],
        "id": [hit.id[:_SHORT] if short and _OURS.fullmatch(hit.id) else hit.id for hit in hits],
        "image": [(_near(hit.source) if short else hit.source) + _in_scene(hit) for hit in hits],
    }

    def table() -> Table:
        made = Table(box=SIMPLE_HEAD)
        for name in columns:
            right = name in ("rank", "score", "distance", "percentile")
            made.add_column(name, justify="right" if right else "left", no_wrap=True)
        for row in zip(*columns.values(), strict=True):
            # Text, because rich would read a part of a path such as [red] as markup.
            made.add_row(*map(Text, row))
        return made

    for name in ("percentile", "class", "date", "latitude,longitude"):
        if not any(columns[name]):
            del columns[name]
    for name in ("distance", "percentile"):
        if short and needed(table()) > width():
            columns.pop(name, None)
    text = io.StringIO()
    Console(file=text, width=WIDEST).print(table())
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def _in_scene(hit: Hit) -> str:
    window = hit.properties.get("window")
    return f" [{','.join(map(str, window))}]" if isinstance(window, list) else ""


def _place(hit: Hit) -> str:
    from rsir.geo.geometry import bbox_of, middle_of

    try:
        bounds = bbox_of(hit.footprint)
    except UsageError:  # an archive of somebody else may hold anything
        return ""
    if bounds is None:
        return ""
    longitude, latitude = middle_of(bounds)
    return f"{latitude:.4f},{longitude:.4f}"


def _near(source: str) -> str:
    """A path, relative to the current folder if it lies below that."""
    here = Path.cwd()
    return str(Path(source).relative_to(here)) if Path(source).is_relative_to(here) else source
