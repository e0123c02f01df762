"""A paper's table and ours, number beside number: as Markdown, CSV, JSON and a figure."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsir.evaluation.statistics import SMALLER_IS_BETTER
from rsir.reproduce.table import Column, PaperTable
from rsir.version import VERSION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUICK = (
    "QUICK SMOKE VERSION: a few images, a tiny untrained backbone, one epoch. "
    "It shows that everything runs; the numbers mean nothing."
)
FACTORS = {"percent": 100.0, "share": 1.0, "ms": 1.0, "minutes": 1 / 60_000}
"""What rsir's own value, a share or ms, is multiplied by for the paper's unit."""
DECIMALS = {"percent": 2, "share": 4}
"""As the papers print them; other units show four significant digits."""
COSTS = ("parameters", "multiply_adds", "bytes_per_image", "ms_per_image", "ms_per_query")
"""Measures of the net alone, which no seed changes (`rsir.cost.count`, `rsir.cost.timing`)."""
ALSO = (
    "map",
    *(f"map_at_{k}_found" for k in (5, 10, 20, 100)),
    "r_at_1",
    "anmrr",
)
"""Printed of every evaluation: what a paper's "mAP" may have been, and what is most compared."""
NOTHING = "–"
ALSO_MEANS = (
    "Of every evaluation, over all its queries: shares 0 … 1, means over the seeds. `map` is over "
    "the whole ranking, `map_at_k_found` over the first k; of `anmrr` smaller is better."
)
PAPER_COLOUR, OUR_COLOUR = "#D55E00", "#0072B2"
"""Vermilion and blue of Okabe and Ito's palette, told apart by the colour-blind; the marks differ
too, so that they can be told apart in grey."""
PANELS = 4
"""Panels side by side in the figure; our choice: names of the rows stay legible in print."""


@dataclass(frozen=True)
class Cell:
    """One number of the paper and ours, both in the paper's unit.

    row, column: their names. paper: None where the paper gives none.
    ours: one value a seed; empty where it was not run.
    """

    row: str
    column: str
    paper: float | None
    ours: tuple[float, ...] = ()

    @property
    def mean(self) -> float | None:
        """Of ours over the seeds."""
        return statistics.fmean(self.ours) if self.ours else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.ours) if len(self.ours) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper


@dataclass(frozen=True)
class Also:
    """A measure of an evaluation, whether the table has it or not.

    row: its name. question: what was searched, in words. measure: rsir's key.
    ours: one value a seed, a share 0 … 1.
    """

    row: str
    question: str
    measure: str
    ours: tuple[float, ...]


@dataclass(frozen=True)
class Missing:
    """What was not run, and why. column: None for the whole row."""

    row: str
    column: str | None
    reason: str


@dataclass(frozen=True)
class Comparison:
    """A paper's table beside ours.

    name: of the table. cells: row by row, in the paper's order. missing: every cell without ours.
    conditions: what our numbers hold for, (subject, sentence) each. quick: a smoke version.
    also: `ALSO` of every evaluation.
    """

    name: str
    table: PaperTable
    cells: tuple[Cell, ...]
    missing: tuple[Missing, ...]
    conditions: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]
    quick: bool = False
    also: tuple[Also, ...] = ()

    def markdown(self) -> str:
        """The paper's numbers and ours, `ALSO`, then what was not run, then the conditions."""
        ours = f"seed {self.seeds[0]}"
        if len(self.seeds) > 1:
            seeds = ", ".join(map(str, self.seeds))
            ours = f"mean over the seeds {seeds} ± the sample standard deviation"
        parts = [
            f"# {self.table.title}",
            *([f"Paper {self.table.paper}: {self.table.source}"] if self.table.paper else []),
            *([f"**{QUICK}**"] if self.quick else []),
            f"Ours: {ours}. Difference: ours less the paper's.",
        ]
        columns, by_row = self._columns(), self._by_row()
        for name, cells in self._sections():
            # By row, all columns are of one kind.
            kind = _kind(self.table.columns[0] if by_row else columns[name])
            parts += [f"## {name} ({kind})", self._rows(cells)]
        if self.also:
            parts += ["## Also measured", ALSO_MEANS, self._also_rows()]
        if self.missing:
            parts += ["## Not run", "\n".join(f"- {line}" for line in self._missing_lines())]
        lines = (f"- **{subject}**: {sentence}" for subject, sentence in self.conditions)
        parts += ["## Conditions", "\n".join(lines)]
        if self.table.note:
            parts += ["## Note", self.table.note.strip()]
        return "\n\n".join(parts) + "\n"

    def _columns(self) -> dict[str, Column]:
        return {column.name: column for column in self.table.columns}

    def _by_row(self) -> bool:
        """Whether the rows are the sections, not the columns: where those are many and alike."""
        rows = {cell.row for cell in self.cells}
        kinds = {_kind(column) for column in self.table.columns}
        return len(self.table.columns) > 2 * len(rows) and len(kinds) == 1

    def _sections(self) -> list[tuple[str, list[tuple[str, Cell]]]]:
        """Cells with any number, by column or by row: (name, [(name in it, cell)])."""
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
        columns = self._columns()
        lines = ["| | paper | ours | difference |", "|---|--:|--:|--:|"]
        for name, cell in cells:
            column = columns[cell.column]
            ours = _shown(cell.mean, column)
            if cell.std is not None:
                ours += f" ± {_shown(cell.std, column)}"
            if 0 < len(cell.ours) < len(self.seeds) and column.measure not in COSTS:
                ours += f" ({len(cell.ours)} of {len(self.seeds)} seeds)"
            difference = "" if cell.difference is None else _shown(cell.difference, column, "+")
            name = name.replace("|", "\\|")
            lines.append(f"| {name} | {_shown(cell.paper, column)} | {ours} | {difference} |")
        return "\n".join(lines)

    def _also_rows(self) -> str:
        """A row for each evaluation, a column for each measure."""
        lines = [f"| | searched | {' | '.join(ALSO)} |", f"|---|---|{'--:|' * len(ALSO)}"]
        found: dict[tuple[str, str], dict[str, float]] = {}
        for one in self.also:
            means = found.setdefault((one.row, one.question), {})
            means[one.measure] = statistics.fmean(one.ours)
        for place, means in found.items():
            names = (name.replace("|", "\\|") for name in place)
            values = (f"{means[key]:.4f}" if key in means else NOTHING for key in ALSO)
            lines.append(f"| {' | '.join((*names, *values))} |")
        return "\n".join(lines)

    def _missing_lines(self) -> list[str]:
        """A line for each reason, with the rows and the columns that it holds for."""
        reasons: dict[str, dict[str, list[str]]] = {}
        for one in self.missing:
            rows = reasons.setdefault(one.reason, {})
            rows.setdefault(one.row, []).extend([one.column] if one.column else [])
        lines = []
        for reason, rows in reasons.items():
            # Rows that lack the same columns are named together.
            alike: dict[tuple[str, ...], list[str]] = {}
            for row, columns in rows.items():
                alike.setdefault(tuple(columns), []).append(row)
            where = (
                "; ".join(names) + (f" ({'; '.join(columns)})" if columns else "")
                for columns, names in alike.items()
            )
            lines.append(f"{'; '.join(where)}: {reason}")
        return lines

    def csv(self) -> str:
        """A line for each cell, then for each of `also`; numbers unrounded, empty where none is."""
        text = io.StringIO()
        lines = [
            *({"part": "table", **cell} for cell in self._plain_cells()),
            *({"part": "also measured", **one} for one in self._plain_also()),
        ]
        writer = csv.DictWriter(text, [*lines[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**line, "ours": " ".join(map(repr, line["ours"]))} for line in lines)
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return {
            "format": "rsir-comparison/1",
            "rsir": VERSION,
            "table": self.name,
            "title": self.table.title,
            "source": self.table.source,
            "quick": self.quick,
            "seeds": list(self.seeds),
            "cells": self._plain_cells(),
            "also_measured": self._plain_also(),
            "missing": [vars(one) for one in self.missing],
            "conditions": [list(pair) for pair in self.conditions],
        }

    def _plain_cells(self) -> list[dict[str, Any]]:
        columns = {column.name: column for column in self.table.columns}
        methods = {row.name: row.method for row in self.table.rows}
        reasons = {(one.row, one.column): one.reason for one in self.missing}
        return [
            {
                "table": self.name,
                "quick": self.quick,
                "row": cell.row,
                "method": methods[cell.row],
                "column": cell.column,
                "measure": columns[cell.column].measure,
                "unit": columns[cell.column].unit,
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

    def _plain_also(self) -> list[dict[str, Any]]:
        methods = {row.name: row.method for row in self.table.rows}
        return [
            {
                "table": self.name,
                "quick": self.quick,
                "row": one.row,
                "method": methods[one.row],
                "column": one.question,
                "measure": one.measure,
                "unit": "share",
                "mean": statistics.fmean(one.ours),
                "std": statistics.stdev(one.ours) if len(one.ours) > 1 else None,
                "n": len(one.ours),
                "ours": list(one.ours),
            }
            for one in self.also
        ]

    def figure(self, file: str | Path) -> None:
        """A PNG, 150 dots per inch: a panel for each column, in it the paper's number and ours.

        Of many columns a panel for each row. Bars on ours are the sample standard deviation.
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
            title += "\n" + _wrapped(QUICK, letters)
        figure.suptitle(title, fontsize=10, color="#A00000" if self.quick else "black")
        figure.savefig(file, dpi=150, format="png")

    def _draw(self, panel: Axes, cells: Iterable[tuple[str, Cell]], names: list[str]) -> None:
        columns = self._columns()
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
            panel.set_xlabel(columns[cell.column].unit, fontsize=8)
        panel.tick_params(labelsize=8)
        panel.margins(x=0.12)
        panel.grid(axis="x", color="0.9")
        panel.set_axisbelow(True)

    def write(self, folder: str | Path) -> Path:
        """Write table.md, table.csv, table.json and table.png into `folder`; returns it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "table.md").write_text(self.markdown(), "utf-8")
        (folder / "table.csv").write_text(self.csv(), "utf-8")
        plain = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        (folder / "table.json").write_text(plain + "\n", "utf-8")
        self.figure(folder / "table.png")
        return folder


def in_unit(value: float, unit: str) -> float:
    """A measure of rsir's (a share 0 … 1, ms) in a paper's unit."""
    return value * FACTORS[unit]


def _kind(column: Column) -> str:
    """The unit, rsir's measure, and which way is better where that is not upward."""
    smaller = ", smaller is better" if column.measure in (*SMALLER_IS_BETTER, *COSTS) else ""
    return f"{column.unit}; {column.measure or 'no measure of rsir'}{smaller}"


def _wrapped(name: str, letters: int) -> str:
    return "\n".join(textwrap.wrap(name, letters))


def _shown(value: float | None, column: Column, sign: str = "") -> str:
    if value is None:
        return NOTHING
    decimals = DECIMALS.get(column.unit)
    return f"{value:{sign}.4g}" if decimals is None else f"{value:{sign}.{decimals}f}"
