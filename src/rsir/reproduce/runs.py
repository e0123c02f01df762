"""Train and measure what a table asks for, and set paper and ours side by side."""

from __future__ import annotations

import dataclasses
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from rsir.data.catalog import entries as catalog
from rsir.errors import DataError, RsirError, UsageError
from rsir.figures.style import needed
from rsir.methods import method_type
from rsir.nn.backbone import Backbone
from rsir.reproduce.conditions import QUICK, Conditions
from rsir.reproduce.describe import described
from rsir.reproduce.experiment import Experiment, Question, Say, reason_of
from rsir.reproduce.side_by_side import ALSO, COSTS, Also, Cell, Comparison, Missing, in_unit
from rsir.reproduce.table import Column, PaperTable, Row, load, no_method
from rsir.training.settings import resolve_settings

log = logging.getLogger("rsir")

CellName = tuple[str, str]
"""The names of a cell's row and column."""


def reproduce(
    table: str | PaperTable,
    data_root: str | Path,
    out: str | Path,
    *,
    conditions: Conditions | None = None,
    methods: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    quick: bool = False,
    on_line: Say | None = None,
) -> Comparison:
    """Train and measure what a table asks for, as far as its image sets are there.

    table: a name from `rsir.reproduce.table.names()`, the path of a TOML file of that format, or a
    table. data_root: the folder of the image sets, in any layout that the catalogue knows.
    out: out/runs keeps each trained model, and each evaluation beside it as JSON. Work that is done
    there, for any table, is not repeated; an interrupted training continues. methods, rows: only
    the rows of these methods or names. sets: only the columns of these image sets. seeds: each seed
    draws the split and the training. quick: `QUICK` conditions on a few images. on_line: receives a
    line of text for each epoch and each number.

    A cell that fails stands in `Comparison.missing`, and the other cells continue. A full disk ends
    the call with its OSError. Raises UsageError for an unknown table, method or row, for conditions
    under which nothing can be trained or which `quick` would drop, and for an `out` that cannot be
    written; DataError if `data_root` is no folder; MissingExtraError if the figure of the table
    could not be drawn in the end.
    """
    needed()
    if isinstance(table, str):
        table = load(table)
    if sets is not None:
        table = _of_sets(table, sets)
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"seeds must be one or more different numbers, not {list(seeds)}")
    if not Path(data_root).is_dir():
        raise DataError(f"{data_root}: no such folder; give the one that holds the image sets")
    if quick and conditions is not None:
        raise UsageError(
            "a quick version has conditions of its own: leave out --quick, or --conditions, "
            "--backbone, --weights, --size, --epochs and -s"
        )
    chosen = _chosen(table, methods, rows)
    conditions = QUICK if quick else conditions or Conditions()
    if conditions.backbone is None:
        conditions = dataclasses.replace(conditions, backbone=table.backbone or "resnet50")
    _check(conditions, chosen)
    _check_writable(Path(out))
    say = on_line or log.info
    experiment = Experiment(Path(data_root), Path(out), conditions, quick=quick, say=say)

    plans: dict[CellName, dict[int, Question]] = {}
    ours: dict[CellName, list[float]] = {}
    missing: list[Missing] = []
    for row in chosen:
        if reason := no_method(row):
            missing.append(Missing(row.name, None, reason))
            continue
        for column in _wanted(row, table):
            cell = (row.name, column.name)
            try:
                if column.measure is None:
                    raise UsageError("rsir has no such measure")
                if column.measure in COSTS:
                    ours[cell] = [in_unit(experiment.cost(row, column), column.unit)]
                else:
                    plans[cell] = {seed: experiment.question(row, column, seed) for seed in seeds}
            except (RsirError, OSError) as error:
                missing.append(Missing(*cell, reason_of(error)))

    questions = [question for planned in plans.values() for question in planned.values()]
    if not all(experiment.run_of(question.training).exists() for question in questions):
        # A fault in what all rows share is not a failure of one row.
        size, weights = conditions.image_size, conditions.weights
        Backbone(conditions.backbone or "", image_size=size, weights=weights)

    columns = {column.name: column for column in table.columns}
    failed: dict[CellName, str] = {}
    for seed in seeds:
        for cell, planned in plans.items():
            if cell in failed:
                continue
            column = columns[cell[1]]
            label = f"{cell[0]} · {column.name} · seed {seed}"
            try:
                value = in_unit(experiment.measure(planned[seed], column, label), column.unit)
            except (RsirError, OSError, torch.OutOfMemoryError) as error:
                failed[cell] = reason_of(error)
                say(f"{label}: not run, {failed[cell]}")
            else:
                ours.setdefault(cell, []).append(value)
                say(f"{label}: {value:.4g} {column.unit}")
    missing += [Missing(*cell, reason) for cell, reason in failed.items()]
    return Comparison(
        name=table.name,
        table=table,
        cells=tuple(
            Cell(row.name, column.name, paper, tuple(ours.get((row.name, column.name), ())))
            for row in chosen
            for column, paper in _values(row, table)
        ),
        missing=tuple(missing),
        conditions=tuple(described(experiment, table, chosen, seeds)),
        seeds=tuple(seeds),
        quick=quick,
        also=tuple(_also(experiment, columns, plans)),
    )


def _check(conditions: Conditions, rows: Sequence[Row]) -> None:
    """Raise UsageError for shared settings that none of the rows' methods accepts."""
    values = conditions.values()
    del values["backbone"], values["weights"]
    if conditions.start is not None:
        settings = {**values, **conditions.start.settings}
        settings.pop("backbone", None)
        resolve_settings(method_type(conditions.start.method), settings)
    refused: UsageError | None = None
    for method in dict.fromkeys(row.method for row in rows if row.method and not no_method(row)):
        try:
            resolve_settings(method_type(method), values)
        except UsageError as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


def _check_writable(out: Path) -> None:
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out / "runs"):
            pass
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written to ({error.strerror or error}); give another folder"
        ) from error


def _also(
    experiment: Experiment,
    columns: Mapping[str, Column],
    plans: Mapping[CellName, Mapping[int, Question]],
) -> list[Also]:
    """The measures of `ALSO` of each evaluation, row by row, with a value for each seed."""
    found: dict[tuple[str, str, str], dict[Question, float]] = {}
    for (row, name), planned in plans.items():
        for question in planned.values():
            metrics = experiment.results.get(question, {}).get("metrics", {})
            for key in ALSO:
                if metrics.get(key) is not None:
                    measured = (row, _in_words(columns[name]), key)
                    found.setdefault(measured, {})[question] = float(metrics[key])
    return [Also(*measured, tuple(values.values())) for measured, values in found.items()]


def _in_words(column: Column) -> str:
    """What a column searches, whatever it measures."""
    parts = [
        f"{column.data} labels" if column.labels else column.data or "",
        *([] if column.train is None else [f"{column.train:g} trained on"]),
        f"{column.unseen} searched unseen" if column.unseen else column.search,
        *(f"{name} {value}" for name, value in column.settings.items()),
    ]
    return ", ".join(parts)


def _of_sets(table: PaperTable, sets: Sequence[str]) -> PaperTable:
    """The table with only the columns that train on these sets or search them."""
    names = {catalog.get(name).name for name in sets}
    numbers = [i for i, column in enumerate(table.columns) if names & {column.data, column.unseen}]
    if not numbers:
        raise UsageError(f"{table.name} has no column of {', '.join(sets) or 'no set'}")
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[i] for i in numbers),
        rows=tuple(
            dataclasses.replace(row, values=tuple(row.values[i] for i in numbers))
            for row in table.rows
        ),
    )


def _chosen(
    table: PaperTable, methods: Sequence[str] | None, names: Sequence[str] | None
) -> list[Row]:
    """The rows of these methods and of these names; all rows for None."""
    rows = list(table.rows)
    for wanted, kind, attribute in ((methods, "method", "method"), (names, "row", "name")):
        if wanted is None:
            continue
        there = dict.fromkeys(filter(None, (getattr(row, attribute) for row in table.rows)))
        unknown = [name for name in wanted if name not in there]
        if unknown or not wanted:
            raise UsageError(
                f"{table.name} has no {kind} {', '.join(unknown) or 'of no name'}; "
                f"its {kind}s are: {', '.join(there) or 'none'}"
            )
        rows = [row for row in rows if getattr(row, attribute) in wanted]
    if not rows:
        raise UsageError(f"{table.name} has no row of these names that is of these methods")
    return rows


def _values(row: Row, table: PaperTable) -> list[tuple[Column, float | None]]:
    """Each column with the paper's value, or None if the paper gives none."""
    pairs = zip(table.columns, row.values, strict=True)
    return [(column, None if math.isnan(value) else value) for column, value in pairs]


def _wanted(row: Row, table: PaperTable) -> list[Column]:
    """The columns of a row to answer: those for which the paper has a number.

    A row or a column for which the paper has no number at all is answered whole.
    """
    given = {
        (other.name, column.name)
        for other in table.rows
        for column, value in _values(other, table)
        if value is not None
    }
    rows, columns = {name for name, _ in given}, {name for _, name in given}
    return [
        column
        for column in table.columns
        if (row.name, column.name) in given or row.name not in rows or column.name not in columns
    ]
