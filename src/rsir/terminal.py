"""What a person sees in the shell: messages, progress, tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rsir.archive.hits import Hits
    from rsir.evaluate import Report

PIPE_WIDTH = 140
"""Characters of a table that does not go to a terminal: room for a path; our choice."""


def say(message: str) -> None:
    """A message on stderr; stdout is for results."""
    typer.echo(message, err=True)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left on a terminal; a plain line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Progress as text, a line every ten seconds."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.started = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last < 10:
            return
        self.last = now
        rate = done / (now - self.started)
        say(f"{self.what}: {done} of {total}, {rate:.0f} a second")


def print_report(report: Report, *, per_class: bool) -> None:
    """The measures as a table on stdout, with a row per class if wanted; what to know on stderr."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = {k: v for k, v in report.metrics.items() if k.endswith("_found")}
    shown = [key for key in report.metrics if key not in found]
    names = {k: k.replace("r_at_", "R@").replace("p_at_", "P@") for k in shown}
    names |= {"map": "mAP", "anmrr": "ANMRR"}
    table = Table(
        title=f"{report.queries} queries, {report.gallery} in the gallery, {report.protocol}, "
        f"{report.ranking}"
    )
    table.add_column("class" if per_class else "")
    if per_class:
        table.add_column("queries", justify="right")
    for key in shown:
        table.add_column(names[key], justify="right")
    if per_class:
        for name, values in report.per_class.items():
            cells = [f"{values[key]:.3f}" for key in shown]
            table.add_row(Text(name), str(values["queries"]), *cells)
        table.add_section()
    cells = [f"{report.metrics[key]:.4f}" for key in shown]
    table.add_row("all", *([str(report.queries)] if per_class else []), *cells)
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
    if found:
        # Other papers' mAP: the AP of a short list, divided by what is relevant in that list.
        cells = [
            f"@{key.removeprefix('map_at_').removesuffix('_found')} {value:.4f}"
            for key, value in found.items()
        ]
        print("mAP of the first k, denominator found: " + "  ".join(cells))
    if report.queries_without_relevant:
        say(f"{report.queries_without_relevant} queries have nothing relevant and count 0")
    for path, reason in report.skipped:
        say(f"skipped {path}: {reason}")


def print_hits(hits: Hits) -> None:
    """The hits as a table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("rank", "score", "distance"):
        table.add_column(column, justify="right")
    table.add_column("image", overflow="fold")
    for rank, hit in enumerate(hits, start=1):
        # Text, because a path may hold what rich takes for markup: [red].
        table.add_row(str(rank), f"{hit.score:.4f}", f"{hit.distance:.4f}", Text(hit.source))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
    say(f"{hits.searched} images searched in {hits.seconds * 1000:.0f} ms")
