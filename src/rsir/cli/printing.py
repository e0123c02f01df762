"""Output of the shell: messages, progress, tables."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rsir.evaluation.metrics.names import measure_name

if TYPE_CHECKING:
    from rich.table import Table

    from rsir.archive.indexing.report import IndexReport
    from rsir.cost.timing import Measured
    from rsir.evaluation.evaluate import Report
    from rsir.evaluation.statistics import Difference

PIPE_WIDTH = 140
"""Width in characters of a table that does not go to a terminal; our choice: room for a path."""
_MOST_MASKS = 20
"""Masks that `rsir index` names; our choice: last-index.json names all."""
WIDEST = 1 << 16
"""Width of a table of hits that does not go to a terminal: no path is folded."""


def say(message: str) -> None:
    """Print a message on stderr; stdout is for results."""
    typer.echo(message, err=True)


def confirm(question: str) -> None:
    """Ask a question on stderr, and end the command with status 1 unless the answer is yes."""
    # typer's own function also writes to stdout.
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        say("nothing was changed")
        raise typer.Exit(1)


@contextmanager
def waiting(activity: str) -> Iterator[None]:
    """Show on a terminal that something of a few seconds is done, such as loading a model."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{activity} …"):
        yield


@contextmanager
def progress(activity: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress: on a terminal a bar with the time left, else a line every ten seconds."""
    if not sys.stderr.isatty():
        yield _Lines(activity)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn(activity), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(activity, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Progress as text, a line every ten seconds."""

    def __init__(self, activity: str) -> None:
        self.activity = activity
        self.started = self.last = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done - 1  # what an interrupted run had done took no time now
        if now - self.last < 10:
            return
        self.last = now
        rate = (done - self.first) / (now - self.started)
        say(f"{self.activity}: {done} of {total}, {rate:.3g} a second")


COLUMNS = (
    *("map", "anmrr", "r_at_1", "r_at_2", "r_at_4", "r_at_8"),
    *("p_at_5", "p_at_10", "p_at_50", "p_at_100"),
)
"""Measures in the table of an evaluation; lines below the table show the others."""


def print_report(report: Report, *, per_class: bool) -> None:
    """Print the measures as a table on stdout, and notes on stderr.

    per_class: whether to add a row for each class.
    """
    from rich.table import Table
    from rich.text import Text

    title: str | None = (
        f"{report.queries} queries, {report.gallery} in the gallery, {report.protocol}, "
        f"{report.ranking}"
    )
    names = max([len(name) for name in report.per_class] if per_class else [3])
    for columns in _columns_that_fit(names + (10 if per_class else 0)):
        table = Table(title=title)
        table.add_column("class" if per_class else "")
        if per_class:
            table.add_column("queries", justify="right")
        for key in columns:
            table.add_column(measure_name(key), justify="right", no_wrap=True)
        if per_class:
            for name, values in report.per_class.items():
                cells = [f"{values[key]:.3f}" for key in columns]
                table.add_row(Text(name), str(int(values["queries"])), *cells)
            table.add_section()
        cells = [f"{report.metrics[key]:.4f}" for key in columns]
        table.add_row("all", *([str(report.queries)] if per_class else []), *cells)
        _print(table)
        title = None
    low, high = report.intervals["map"]
    print(f"mAP, 95 % interval for other queries like these: {low:.4f} … {high:.4f}")
    if report.best:
        print(
            f"mAP, worst and best order of equal distances: {report.worst['map']:.4f} … "
            f"{report.best['map']:.4f}"
        )
    for by, meaning in (("found", "found among them"), ("min", "min(R, k)"), ("all", "R")):
        # Other papers' mAP: the AP of a short list.
        cells = [
            f"@{key.removeprefix('map_at_').removesuffix(by).rstrip('_')} {value:.4f}"
            for key, value in report.metrics.items()
            if key.startswith("map_at_") and key.endswith(by)
        ]
        print(f"mAP of the first k, AP divided by {meaning}: " + "  ".join(cells))
    graded = [k for k in report.metrics if k.startswith(("wmap", "acg", "ndcg"))]
    radius = [k for k in report.metrics if "_within_" in k]
    for keys in (graded, radius):
        if keys:
            print("  ".join(f"{measure_name(key)} {report.metrics[key]:.4f}" for key in keys))
    if report.queries_without_relevant:
        effect = "are left out" if report.dropped else "count 0"
        say(f"{report.queries_without_relevant} queries have no relevant image and {effect}")
    for line in report.leakage.lines:
        say(line)
    if report.near_duplicates is not None:
        say(str(report.near_duplicates))
    for path, reason in report.skipped:
        say(f"skipped {path}: {reason}")


def print_comparison(found: Mapping[str, Difference], first: str, second: str) -> None:
    """Print two models side by side on stdout, with a row for each measure.

    first, second: their names. An arrow beside a measure points to where it is better.
    """
    from rsir.evaluation.statistics import SMALLER_IS_BETTER

    heads = (first, second, "difference", "95 %", "p", "p (Holm)", "better", "equal", "worse")
    rows = {}
    for name, d in found.items():
        shares = (f"{100 * share:.1f} %" for share in (d.better, d.ties, d.worse))
        low, high = d.interval
        rows[measure_name(name) + (" ↓" if name in SMALLER_IS_BETTER else " ↑")] = (
            *(f"{d.mean_a:.4f}", f"{d.mean_b:.4f}", f"{d.difference:+.4f}"),
            *(f"{low:+.4f} … {high:+.4f}", f"{d.p_value:.4f}", f"{d.p_adjusted:.4f}"),
            *shares,
        )
    whole, *parts = (_part(heads, rows, columns) for columns in (range(9), range(4), range(4, 9)))
    for table in [whole] if needed(whole) <= width() else parts:
        _print(table)
    say(f"difference: {second} − {first}; better, equal, worse: {second}")
    queries = {d.queries for d in found.values()}
    say(f"{max(queries)} queries; p: sign-flip permutation test of the mean difference")


def _part(heads: Sequence[str], rows: Mapping[str, Sequence[str]], columns: range) -> Table:
    """A table of some columns of `rows`, whose keys are the first column."""
    from rich.table import Column, Table

    table = Table("", *(Column(heads[column], justify="right") for column in columns))
    for name, cells in rows.items():
        table.add_row(name, *(cells[column] for column in columns))
    return table


def width() -> int:
    """The width of the terminal in characters, or that of a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def _columns_that_fit(first: int) -> Iterator[tuple[str, ...]]:
    """The measures in groups whose columns fit beside a first column of `first` characters."""
    group: list[str] = []
    used = first + 4
    for key in COLUMNS:
        wide = max(len(measure_name(key)), 6) + 3
        if group and used + wide > width():
            yield tuple(group)
            group, used = [], first + 4
        group.append(key)
        used += wide
    yield tuple(group)


def _print(table: Table) -> None:
    """Print a table at its own width if the terminal is narrower: numbers are never cut."""
    from rich.console import Console

    Console(width=max(width(), needed(table))).print(table)


def needed(table: Table) -> int:
    """The width in characters at which nothing in a table is cut."""
    from rich.console import Console

    return Console(width=WIDEST).measure(table).maximum


def print_timing(timed: Measured) -> None:
    """Print the times of encoding and searching, with percentiles, and the storage."""
    from rich.table import Table

    table = Table(
        title=f"{timed.device}, {timed.threads} threads; {timed.cpu}; torch {timed.torch}, "
        f"{timed.precision}"
    )
    table.add_column("")
    for head in ("median", "5 %", "95 %"):
        table.add_column(head, justify="right")
    searched = f"of {timed.gallery:,}, {timed.k} hits, {timed.ranking}"
    for name, duration in (
        ("ms per image, alone", timed.ms_per_image),
        (f"ms per image, {timed.batch} at once", timed.ms_per_image_batched),
        (f"ms per query {searched}", timed.ms_per_query),
        ("… with the hits' records", timed.ms_per_search),
    ):
        ends = (duration.median, duration.p5, duration.p95)
        table.add_row(name, *(f"{value:.3g}" for value in ends))
    table.add_row("bytes per image, vector", str(timed.bytes_per_image))
    table.add_row("bytes per image, table on disk", f"{timed.table_bytes_per_image:.0f}")
    _print(table)


def print_indexed(report: IndexReport, archive: Path, count: int) -> None:
    """Print the report of `rsir index` on stdout, and the skipped files on stderr.

    count: images in the archive.
    """
    print(
        f"{report.added} added, {report.replaced} replaced, {report.unchanged} unchanged, "
        f"{len(report.skipped)} skipped, {sum(report.ignored.values())} other files ignored"
        + (f", {len(report.masks)} masks left out" if report.masks else "")
    )
    left_out = sum(report.left_out.values())
    reasons = ", ".join(f"{number} {reason}" for reason, number in report.left_out.items())
    print(
        f"{report.tiles} images and tiles encoded"
        + (f", {left_out} windows left out: {reasons}" if left_out else "")
    )
    print(f"{count} in {archive}")
    for skipped in report.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    for mask in report.masks[:_MOST_MASKS]:
        say(f"left out {mask.path}: {mask.reason}")
    if len(report.masks) > _MOST_MASKS:
        say(f"… and {len(report.masks) - _MOST_MASKS} more masks")
    seen = report.added + report.replaced + report.unchanged + len(report.skipped) + left_out
    if not seen:
        kinds = ", ".join(
            f"{number} {kind or 'without a suffix'}" for kind, number in report.ignored.items()
        )
        say(f"nothing to index there: no image or scene; other files: {kinds or 'none'}")
