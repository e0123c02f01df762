"""The values of every query: aligned for a comparison, written to and read from a CSV file."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsir.atomic import replacing
from rsir.errors import DataError, UsageError
from rsir.evaluation.statistics import Values, checked_values, some_names

KEY_COLUMNS = ("path", "class")
"""The first columns of a file of values per query."""
NUMBER = re.compile(r"nan|[-+.0-9eE]+")
"""The allowed numbers in a cell: float() accepts more, such as "1_000" or "infinity"."""


@dataclass(frozen=True, eq=False)
class PerQuery:
    """The values of every query: paths and classes (Q,), values: measure → (Q,) float64.

    paths: the queries' unique names. classes: their classes, as text.
    Raises UsageError without queries, and for repeated paths, infinite values, unequal lengths.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    values: Mapping[str, Values]

    def __post_init__(self) -> None:
        if not self.paths:
            raise UsageError("there are no queries")
        if len(self.classes) != len(self.paths):
            raise UsageError(f"{len(self.paths)} queries but {len(self.classes)} classes")
        if twice := [path for path, n in Counter(self.paths).items() if n > 1]:
            raise UsageError(
                f"each query must occur once; these occur more often: {some_names(twice)}"
            )
        for name, values in checked_values(self.values).items():
            if len(values) != len(self.paths):
                raise UsageError(f"{len(self.paths)} queries but {len(values)} values of {name}")

    def __len__(self) -> int:
        return len(self.paths)


def paired(a: PerQuery, b: PerQuery) -> tuple[PerQuery, PerQuery]:
    """Both with the same queries in a's order and the measures in common, for `compare`.

    Raises UsageError, naming the queries, if a query is in only one of them or has different
    classes; and if they have no measure in common.
    """
    row_of = {path: row for row, path in enumerate(b.paths)}
    only_a = [path for path in a.paths if path not in row_of]
    only_b = sorted(row_of.keys() - set(a.paths))
    lone = [
        f"only in the {which}: {some_names(paths)}"
        for which, paths in (("first", only_a), ("second", only_b))
        if paths
    ]
    if lone:
        raise UsageError(
            f"the two must score the same queries; {'; '.join(lone)}. Evaluate both models on the "
            "same split"
        )
    order = np.array([row_of[path] for path in a.paths])
    classes = tuple(b.classes[row] for row in order)
    moved = [p for p, in_a, in_b in zip(a.paths, a.classes, classes, strict=True) if in_a != in_b]
    if moved:
        raise UsageError(
            "the two must score the same queries; these have different classes: "
            f"{some_names(moved)}. Evaluate both models on the same labels"
        )
    shared = [name for name in a.values if name in b.values]
    if not shared:
        raise UsageError("the two have no measure in common; evaluate both models anew")
    return (
        PerQuery(a.paths, a.classes, {name: a.values[name] for name in shared}),
        PerQuery(a.paths, classes, {name: b.values[name][order] for name in shared}),
    )


def write_per_query(
    path: str | Path, paths: Sequence[str], classes: Sequence[str], values: Mapping[str, Values]
) -> None:
    """Write a CSV file, whole or not at all: path, class, then a column per measure.

    UTF-8 with a header; text in quotes, numbers with full precision, nan where a measure does not
    apply. paths, classes, values: as in `PerQuery`, whose errors it raises; DataError if the file
    cannot be written.
    """
    table = PerQuery(tuple(paths), tuple(classes), values)
    path = Path(path)
    columns = [np.asarray(column, np.float64).tolist() for column in values.values()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            writer.writerow((*KEY_COLUMNS, *values))
            writer.writerows(zip(table.paths, table.classes, *columns, strict=True))
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}: cannot hold a name that is not UTF-8: {error.object!r}"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def read_per_query(path: str | Path) -> PerQuery:
    """The values in a file that `write_per_query` wrote, in the file's order.

    Raises DataError, naming the line, for a malformed line and for a repeated query.
    """
    path = Path(path)
    rows: list[tuple[str, str, list[float]]] = []
    lines: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                header = next(reader, [])
                measures = _measures(header, f"{path}, line 1")
                for cells in reader:
                    where = f"{path}, line {reader.line_num}"
                    if len(cells) != len(header):
                        raise DataError(f"{where}: {len(cells)} columns, not {len(header)}")
                    query, label, *numbers = cells
                    if query in lines:
                        raise DataError(f"{where}: {query} is in line {lines[query]} too")
                    lines[query] = reader.line_num
                    rows.append((query, label, [_number(cell, where) for cell in numbers]))
            except csv.Error as error:
                raise DataError(f"{path}, line {reader.line_num}: {error}") from error
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, after line {reader.line_num}: not UTF-8 ({error.reason})"
                ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not rows:
        raise DataError(f"{path}: a header but no queries")
    paths, classes, numbers_of = zip(*rows, strict=True)
    table = np.array(numbers_of, np.float64)
    return PerQuery(paths, classes, {name: table[:, i] for i, name in enumerate(measures)})


def _measures(header: list[str], where: str) -> list[str]:
    """The names of the measures in a file's header."""
    if tuple(header[: len(KEY_COLUMNS)]) != KEY_COLUMNS:
        raise DataError(f"{where}: the header must begin with {','.join(KEY_COLUMNS)}")
    measures = header[len(KEY_COLUMNS) :]
    if twice := [name for name, n in Counter(measures).items() if n > 1]:
        raise DataError(f"{where}: the column {twice[0]!r} occurs twice")
    return measures


def _number(cell: str, where: str) -> float:
    try:
        number = float(cell) if NUMBER.fullmatch(cell) else math.inf
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise DataError(f"{where}: {cell!r} is no number; write nan where a measure does not apply")
    return number
