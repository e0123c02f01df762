"""Reproduce a table: train its methods, measure them, and compare the results with the paper."""

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
from rsir.reproduce.conditions import QUICK_CONDITIONS, Conditions
from rsir.reproduce.describe import describe
from rsir.reproduce.experiment import Evaluation, Experiment, ReportLine, reason_of
from rsir.reproduce.side_by_side import (
    COSTS,
    EXTRA_MEASURES,
    Cell,
    Comparison,
    ExtraMeasure,
    Missing,
    in_unit,
)
from rsir.reproduce.table import PaperTable, TableColumn, TableRow, load, no_method
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
    on_line: ReportLine | None = None,
) -> Comparison:
    """Train and measure the rows of a table, and compare the results with the paper's numbers.

    table: a name from `rsir.reproduce.table.names()`, the path of a TOML file of the same format,
    or a table. data_root: the folder of the image sets, in any layout that the catalogue knows.
    out: its subfolder "runs" keeps each trained model, and each evaluation as JSON. Work that is
    done there, for any table, is not repeated, and an interrupted training continues. methods,
    rows: only the rows of these methods or with these names. sets: only the columns of these image
    sets. seeds: each seed draws a split and trains once. quick: `QUICK_CONDITIONS` and few images.
    on_line: receives a line of text for each epoch and each number.

    A cell that fails is in `Comparison.missing`, and the other cells continue. Raises the OSError
    of a full disk; UsageError for an unknown table, method or row, for conditions under which no
    row can be trained or that contradict `quick`, and for an `out` that cannot be written;
    DataError if `data_root` is not a folder; MissingExtraError without the packages that draw the
    figure.
    """
    needed()
    if isinstance(table, str):
        table = load(table)
    if sets is not None:
        table = _of_sets(table, sets)
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"seeds must be one or more different numbers, not {list(seeds)}")
    if not Path(data_root).is_dir():
        raise DataError(f"{data_root}: no such folder; give the folder of the image sets")
    if quick and conditions is not None:
        raise UsageError(
            "a quick version has its own conditions: leave out --quick, or --conditions, "
            "--backbone, --weights, --size, --epochs and -s"
        )
    selected = _selected(table, methods, rows)
    conditions = QUICK_CONDITIONS if quick else conditions or Conditions()
    if conditions.backbone is None:
        conditions = dataclasses.replace(conditions, backbone=table.backbone or "resnet50")
    _check(conditions, selected)
    _check_writable(Path(out))
    report = on_line or log.info
    experiment = Experiment(Path(data_root), Path(out), conditions, quick=quick, report=report)

    plans: dict[CellName, dict[int, Evaluation]] = {}
    ours: dict[CellName, list[float]] = {}
    missing: list[Missing] = []
    for row in selected:
        if reason := no_method(row):
            missing.append(Missing(row.name, None, reason))
            continue
        for column in _columns_to_run(row, table):
            cell = (row.name, column.name)
            try:
                if column.measure is None:
                    raise UsageError("rsir has no such measure")
                if column.measure in COSTS:
                    ours[cell] = [in_unit(experiment.cost(row, column), column.unit)]
                else:
                    plans[cell] = {seed: experiment.evaluation(row, column, seed) for seed in seeds}
            except (RsirError, OSError) as error:
                missing.append(Missing(*cell, reason_of(error)))

    evaluations = [evaluation for planned in plans.values() for evaluation in planned.values()]
    if not all(experiment.run_folder(evaluation.training).exists() for evaluation in evaluations):
        # A fault in what all rows share raises here; it is not the failure of one row.
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
                report(f"{label}: not run, {failed[cell]}")
            else:
                ours.setdefault(cell, []).append(value)
                report(f"{label}: {value:.4g} {column.unit}")
    missing += [Missing(*cell, reason) for cell, reason in failed.items()]
    return Comparison(
        name=table.name,
        table=table,
        cells=tuple(
            Cell(row.name, column.name, paper, tuple(ours.get((row.name, column.name), ())))
            for row in selected
            for column, paper in _values(row, table)
        ),
        missing=tuple(missing),
        conditions=tuple(describe(experiment, table, selected, seeds)),
        seeds=tuple(seeds),
        quick=quick,
        extra=tuple(_extra_measures(experiment, columns, plans)),
    )


def _check(conditions: Conditions, rows: Sequence[TableRow]) -> None:
    """Raise UsageError for shared settings that the start or every method of the rows refuses."""
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


def _extra_measures(
    experiment: Experiment,
    columns: Mapping[str, TableColumn],
    plans: Mapping[CellName, Mapping[int, Evaluation]],
) -> list[ExtraMeasure]:
    """The `EXTRA_MEASURES` of each evaluation, row by row, with a value for each seed."""
    values: dict[tuple[str, str, str], dict[Evaluation, float]] = {}
    for (row, name), planned in plans.items():
        for evaluation in planned.values():
            metrics = experiment.results.get(evaluation, {}).get("metrics", {})
            for key in EXTRA_MEASURES:
                if metrics.get(key) is not None:
                    measure = (row, _searched_text(columns[name]), key)
                    values.setdefault(measure, {})[evaluation] = float(metrics[key])
    return [ExtraMeasure(*measure, tuple(of.values())) for measure, of in values.items()]


def _searched_text(column: TableColumn) -> str:
    """A description of what a column searches, without its measure."""
    parts = [
        f"{column.data} labels" if column.labels else column.data or "",
        *([] if column.train is None else [f"{column.train:g} trained on"]),
        f"{column.unseen} searched unseen" if column.unseen else column.search,
        *(f"{name} {value}" for name, value in column.settings.items()),
    ]
    return ", ".join(parts)


def _of_sets(table: PaperTable, sets: Sequence[str]) -> PaperTable:
    """The table, reduced to the columns that train on these sets or search them."""
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


def _selected(
    table: PaperTable, methods: Sequence[str] | None, names: Sequence[str] | None
) -> list[TableRow]:
    """The rows with these methods and these names; None selects all."""
    rows = list(table.rows)
    for requested, kind, attribute in ((methods, "method", "method"), (names, "row", "name")):
        if requested is None:
            continue
        known = dict.fromkeys(filter(None, (getattr(row, attribute) for row in table.rows)))
        unknown = [name for name in requested if name not in known]
        if unknown or not requested:
            raise UsageError(
                f"{table.name} has no {kind} {', '.join(unknown) or 'without a name'}; "
                f"its {kind}s are: {', '.join(known) or 'none'}"
            )
        rows = [row for row in rows if getattr(row, attribute) in requested]
    if not rows:
        raise UsageError(f"{table.name} has no row with these names and these methods")
    return rows


def _values(row: TableRow, table: PaperTable) -> list[tuple[TableColumn, float | None]]:
    """Each column and the paper's value in it, or None if the paper gives none."""
    pairs = zip(table.columns, row.values, strict=True)
    return [(column, None if math.isnan(value) else value) for column, value in pairs]


def _columns_to_run(row: TableRow, table: PaperTable) -> list[TableColumn]:
    """The columns of a row for which the paper has a number.

    A row or a column for which the paper has no number at all is run completely.
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
