"""A paper's numbers beside ours, as Markdown, CSV, JSON and a figure."""

from __future__ import annotations

import csv
import io
import math
import statistics
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsir import atomic
from rsir.evaluation.statistics import SMALLER_IS_BETTER
from rsir.reproduce.table import PaperTable, TableColumn
from rsir.version import VERSION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUICK_WARNING = (
    "QUICK SMOKE VERSION: a few images, a tiny untrained backbone, one epoch. "
    "It shows that everything runs; the numbers mean nothing."
)
FACTORS = {"percent": 100.0, "share": 1.0, "ms": 1.0, "minutes": 1 / 60_000}
"""Factors from rsir's unit, a share or ms, to the unit of the paper."""
DECIMALS = {"percent": 2, "share": 4}
"""Decimals, as the papers print them; values in other units have four significant digits."""
COSTS = ("parameters", "multiply_adds", "bytes_per_image", "ms_per_image", "ms_per_query")
"""Measures of the model alone, whatever the seed (`rsir.cost.count`, `rsir.cost.timing`)."""
EXTRA_MEASURES = (
    "map",
    *(f"map_at_{k}_found" for k in (5, 10, 20, 100)),
    "r_at_1",
    "anmrr",
)
"""Measures that are shown for every evaluation: the possible meanings of a paper's "mAP", and the
measures that papers compare most."""
NO_VALUE = "–"
EXTRA_MEANING = (
    "Shares 0 … 1 over all queries of each evaluation, means over the seeds. `map` is over the "
    "whole ranking, `map_at_k_found` over the first k; a smaller `anmrr` is better."
)
PAPER_COLOUR, OUR_COLOUR = "#D55E00", "#0072B2"
"""Vermilion and blue of Okabe and Ito's palette, which colour-blind readers can distinguish. The
markers differ too, for prints in grey."""
PANELS = 4
"""Panels side by side in the figure. Our choice: names of rows stay legible in print."""


class _Seeds:
    """Statistics of `ours`, which has one value for each seed."""

    ours: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None without values."""
        return statistics.fmean(self.ours) if self.ours else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.ours) if len(self.ours) > 1 else None


@dataclass(frozen=True)
class Cell(_Seeds):
    """A number of the paper and ours, both in the paper's unit.

    row, column: names. paper: None if the paper gives no number.
    ours: one value for each seed; empty if the cell was not run.
    """

    row: str
    column: str
    paper: float | None
    ours: tuple[float, ...] = ()

    @property
    def difference(self) -> float | None:
        """Our mean less the paper's number; None if either is missing."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper


@dataclass(frozen=True)
class ExtraMeasure(_Seeds):
    """A measure of an evaluation, whether or not the table has it.

    row: name. searched: description of what was searched. measure: rsir's key.
    ours: one value for each seed, a share 0 … 1.
    """

    row: str
    searched: str
    measure: str
    ours: tuple[float, ...]


@dataclass(frozen=True)
class Missing:
    """A cell without our number, and why. column: None for the whole row."""

    row: str
    column: str | None
    reason: str


@dataclass(frozen=True)
class Comparison:
    """A paper's table and our results.

    name: name of the table. cells: row by row, in the paper's order. missing: every cell without
    our number. conditions: (subject, sentence) pairs that describe our runs. quick: whether this is
    a quick version. extra: `EXTRA_MEASURES` of every evaluation.
    """

    name: str
    table: PaperTable
    cells: tuple[Cell, ...]
    missing: tuple[Missing, ...]
    conditions: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]
    quick: bool = False
    extra: tuple[ExtraMeasure, ...] = ()

    @cached_property
    def columns(self) -> dict[str, TableColumn]:
        """The columns of the table by name."""
        return {column.name: column for column in self.table.columns}

    def markdown(self) -> str:
        """Both numbers of each cell, the extra measures, the missing cells, and the conditions."""
        ours = f"seed {self.seeds[0]}"
        if len(self.seeds) > 1:
            seeds = ", ".join(map(str, self.seeds))
            ours = f"mean over the seeds {seeds} ± the sample standard deviation"
        parts = [
            f"# {self.table.title}",
            *([f"Paper {self.table.paper}: {self.table.source}"] if self.table.paper else []),
            *([f"**{QUICK_WARNING}**"] if self.quick else []),
            f"Ours: {ours}. Difference: ours less the paper's.",
        ]
        by_row = self._by_row()
        for name, cells in self._sections():
            # In sections by row, all columns are of one kind.
            kind = _kind(self.table.columns[0] if by_row else self.columns[name])
            parts += [f"## {name} ({kind})", self._rows(cells)]
        if self.extra:
            parts += ["## Also measured", EXTRA_MEANING, self._extra_rows()]
        if self.missing:
            parts += ["## Not run", "\n".join(f"- {line}" for line in self._missing_lines())]
        lines = (f"- **{subject}**: {sentence}" for subject, sentence in self.conditions)
        parts += ["## Conditions", "\n".join(lines)]
        if self.table.note:
            parts += ["## Note", self.table.note.strip()]
        return "\n\n".join(parts) + "\n"

    def _by_row(self) -> bool:
        """Whether each section is a row, not a column: if there are many columns of one kind."""
        rows = {cell.row for cell in self.cells}
        kinds = {_kind(column) for column in self.table.columns}
        return len(self.table.columns) > 2 * len(rows) and len(kinds) == 1

    def _sections(self) -> list[tuple[str, list[tuple[str, Cell]]]]:
        """Sections with any number: (column or row, [(row or column, cell)])."""
        sections: dict[str, list[tuple[str, Cell]]] = {}
        by_row = self._by_row()
        for cell in self.cells:
            outer, inner = (cell.row, cell.column) if by_row else (cell.column, cell.row)
            sections.setdefault(outer, []).append((inner, cell))
        return [
            (name, cells)
            for name, cells in sections.items()
            if any(cell.paper is not None or cell.ours for _, cell in cells)
        ]

    def _rows(self, cells: Iterable[tuple[str, Cell]]) -> str:
        lines = ["| | paper | ours | difference |", "|---|--:|--:|--:|"]
        for name, cell in cells:
            column = self.columns[cell.column]
            ours = _shown(cell.mean, column)
            if cell.std is not None:
                ours += f" ± {_shown(cell.std, column)}"
            if 0 < len(cell.ours) < len(self.seeds) and column.measure not in COSTS:
                ours += f" ({len(cell.ours)} of {len(self.seeds)} seeds)"
            difference = "" if cell.difference is None else _shown(cell.difference, column, "+")
            name = name.replace("|", "\\|")
            lines.append(f"| {name} | {_shown(cell.paper, column)} | {ours} | {difference} |")
        return "\n".join(lines)

    def _extra_rows(self) -> str:
        """A Markdown table with a row for each evaluation and a column for each measure."""
        lines = [
            f"| | searched | {' | '.join(EXTRA_MEASURES)} |",
            f"|---|---|{'--:|' * len(EXTRA_MEASURES)}",
        ]
        evaluations: dict[tuple[str, str], dict[str, float | None]] = {}
        for extra in self.extra:
            means = evaluations.setdefault((extra.row, extra.searched), {})
            means[extra.measure] = extra.mean
        for row_and_searched, means in evaluations.items():
            names = (name.replace("|", "\\|") for name in row_and_searched)
            values = (f"{means[key]:.4f}" if key in means else NO_VALUE for key in EXTRA_MEASURES)
            lines.append(f"| {' | '.join((*names, *values))} |")
        return "\n".join(lines)

    def _missing_lines(self) -> list[str]:
        """A line for each reason, with its rows and columns."""
        reasons: dict[str, dict[str, list[str]]] = {}
        for cell in self.missing:
            rows = reasons.setdefault(cell.reason, {})
            rows.setdefault(cell.row, []).extend([cell.column] if cell.column else [])
        lines = []
        for reason, rows in reasons.items():
            # Rows with the same missing columns share an entry.
            groups: dict[tuple[str, ...], list[str]] = {}
            for row, columns in rows.items():
                groups.setdefault(tuple(columns), []).append(row)
            entries = (
                "; ".join(names) + (f" ({'; '.join(columns)})" if columns else "")
                for columns, names in groups.items()
            )
            lines.append(f"{'; '.join(entries)}: {reason}")
        return lines

    def csv(self) -> str:
        """A line for each cell, then for each extra measure; unrounded, empty without a number."""
        text = io.StringIO()
        lines = [
            *({"part": "table", **cell} for cell in self._plain_cells()),
            *({"part": "also measured", **extra} for extra in self._plain_extra()),
        ]
        writer = csv.DictWriter(text, [*lines[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**line, "ours": " ".join(map(repr, line["ours"]))} for line in lines)
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "format": "rsir-comparison/1",
            "rsir": VERSION,
            "table": self.name,
            "title": self.table.title,
            "source": self.table.source,
            "quick": self.quick,
            "seeds": list(self.seeds),
            "cells": self._plain_cells(),
            "also_measured": self._plain_extra(),
            "missing": [asdict(cell) for cell in self.missing],
            "conditions": [list(pair) for pair in self.conditions],
        }

    def _plain_cells(self) -> list[dict[str, Any]]:
        methods = {row.name: row.method for row in self.table.rows}
        reasons = {(cell.row, cell.column): cell.reason for cell in self.missing}
        return [
            {
                "table": self.name,
                "quick": self.quick,
                "row": cell.row,
                "method": methods[cell.row],
                "column": cell.column,
                "measure": self.columns[cell.column].measure,
                "unit": self.columns[cell.column].unit,
                "paper": cell.paper,
                "mean": cell.mean,
                "std": cell.std,
                "n": len(cell.ours),
                "difference": cell.difference,
                "ours": list(cell.ours),
                "not_run": reasons.get((cell.row, cell.column)) or reasons.get((cell.row, None)),
            }
            for cell in self.cells
        ]

    def _plain_extra(self) -> list[dict[str, Any]]:
        methods = {row.name: row.method for row in self.table.rows}
        return [
            {
                "table": self.name,
                "quick": self.quick,
                "row": extra.row,
                "method": methods[extra.row],
                "column": extra.searched,
                "measure": extra.measure,
                "unit": "share",
                "mean": extra.mean,
                "std": extra.std,
                "n": len(extra.ours),
                "ours": list(extra.ours),
            }
            for extra in self.extra
        ]

    def figure(self, file: str | Path) -> None:
        """Draw a PNG, 150 dots per inch: the paper's numbers and ours, a panel for each section.

        Error bars are the sample standard deviation of ours.
        """
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        sections = self._sections()
        names = list(dict.fromkeys(name for _, cells in sections for name, _ in cells))
        high = max(1, math.ceil(len(sections) / PANELS))
        wide = max(1, math.ceil(len(sections) / high))
        size = (2.2 + 2.4 * wide, 1.4 + high * (0.9 + 0.27 * max(2, len(names))))
        figure = Figure(figsize=size, layout="constrained")
        by_row = self._by_row()
        panels = figure.subplots(high, wide, squeeze=False, sharex=by_row, sharey=True).flatten()
        for panel, (title, cells) in zip(panels, sections, strict=False):
            self._draw(panel, cells, names)
            panel.set_title(_wrapped(title, 26), fontsize=9)
        for panel in panels[len(sections) :]:
            panel.set_visible(False)
        panels[0].set_yticks(range(len(names)), [_wrapped(name, 28) for name in names])
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        paper = Line2D([], [], color=PAPER_COLOUR, marker="D", markerfacecolor="white", ls="")
        ours = Line2D([], [], color=OUR_COLOUR, marker="o", ls="")
        figure.legend(
            [paper, ours], ["paper", "ours"], loc="outside lower center", ncols=2, frameon=False
        )
        letters = int(12 * size[0])
        title = _wrapped(self.table.title, letters)
        if self.quick:
            title += "\n" + _wrapped(QUICK_WARNING, letters)
        figure.suptitle(title, fontsize=10, color="#A00000" if self.quick else "black")
        figure.savefig(file, dpi=150, format="png")

    def _draw(self, panel: Axes, cells: Iterable[tuple[str, Cell]], names: list[str]) -> None:
        for name, cell in cells:
            y = names.index(name)
            if cell.paper is not None and cell.mean is not None:
                panel.plot([cell.paper, cell.mean], [y, y], color="0.6", lw=1.5, zorder=1)
            if cell.mean is not None:
                panel.errorbar(cell.mean, y, xerr=cell.std, fmt="o", color=OUR_COLOUR, capsize=3)
            if cell.paper is not None:
                panel.plot(
                    cell.paper, y, "D", color=PAPER_COLOUR, markerfacecolor="white", zorder=3
                )
            panel.set_xlabel(self.columns[cell.column].unit, fontsize=8)
        panel.tick_params(labelsize=8)
        panel.margins(x=0.12)
        panel.grid(axis="x", color="0.9")
        panel.set_axisbelow(True)

    def write(self, folder: str | Path) -> Path:
        """Write table.md, table.csv, table.json and table.png into `folder`, which is returned."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(folder / "table.md", self.markdown())
        atomic.write_text(folder / "table.csv", self.csv())
        atomic.write_json(folder / "table.json", self.to_dict())
        with atomic.replacing(folder / "table.png") as draft:
            self.figure(draft)
        return folder


def in_unit(value: float, unit: str) -> float:
    """Convert a value of rsir, a share 0 … 1 or ms, to a unit of the papers."""
    return value * FACTORS[unit]


def _kind(column: TableColumn) -> str:
    """The unit and rsir's measure of a column, and whether smaller is better."""
    smaller = ", smaller is better" if column.measure in (*SMALLER_IS_BETTER, *COSTS) else ""
    return f"{column.unit}; {column.measure or 'no measure of rsir'}{smaller}"


def _wrapped(name: str, letters: int) -> str:
    return "\n".join(textwrap.wrap(name, letters))


def _shown(value: float | None, column: TableColumn, sign: str = "") -> str:
    if value is None:
        return NO_VALUE
    decimals = DECIMALS.get(column.unit)
    return f"{value:{sign}.4g}" if decimals is None else f"{value:{sign}.{decimals}f}"
