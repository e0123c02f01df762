"""The result tables of the five papers as data: each row, column and value as printed.

A table is one TOML file in tables/, named like the table:

    title, source         what the table compares, in our words; authors, venue, year, table number
    paper                 the paper's letter, see `PAPERS`
    protocol              the paper's statements on split, queries, gallery, measure, training
    note                  doubtful values, and our interpretation of an unclear measure
    backbone              timm's name of the paper's backbone; omitted if the paper names none
    common                values of every [[column]] that does not give its own
    [[column]]            in the order of the values, see `TableColumn`
    [[row]]               see `TableRow`

A row is always a method or a variant of a method, and a column is a measure on a set. If a paper
transposes its table, or prints one set below the other, the note says so.

`load` also reads a table of your own from a path; paper, source, protocol and values are optional.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rsir.data.catalog import entries as catalog
from rsir.errors import DataError, UsageError
from rsir.methods import METHODS

PAPERS: Mapping[str, str] = MappingProxyType(
    {"A": "dual-attention", "B": "eara", "C": "dah", "D": "jsrt", "E": "mlrsir-net"}
)
"""The letter of each paper and the name of its own system, which its tables begin with."""
UNITS = ("percent", "share", "ms", "minutes")
SEARCHES = ("leave-one-out", "query-gallery")
LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "dual-attention-table1": "describes the image sets, without measures; see `rsir datasets`",
    }
)
"""Tables of the papers that are not here, and why."""


@dataclass(frozen=True)
class TableColumn:
    """A column: a measure on an image set, and how it is measured.

    name: set and measure, in the paper's words. unit: unit of the values, one of `UNITS`.
    measure: rsir's key ("map", "r_at_1", "ms_per_query" …); None if rsir has no such measure. If it
    is unclear which measure the paper uses, the table's note says which we use, and why.
    data: the set, by its name in the catalogue. train: share of each class to train on; None with
    `unseen`, because then all of `data` is for training.
    unseen: a set that is searched in place of `data`; training uses no image of it.
    search: in "leave-one-out", the images that are not for training search each other; in
    "query-gallery", they search the training images. If the paper does not say, we use the first.
    labels: whether images have several labels; two images that share a label are relevant.
    class_name: a class, as the catalogue spells it; only its queries count.
    settings: options and settings that the column adds to those of each row.
    """

    name: str
    unit: str
    measure: str | None = None
    data: str | None = None
    train: float | None = None
    unseen: str | None = None
    search: str = "leave-one-out"
    labels: bool = False
    class_name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TableRow:
    """A row: a method or a variant of a method, and the paper's values.

    name: as printed. values: one for each column, nan if the paper gives none.
    method: rsir's name, or None for a method that rsir lacks. absent: for a method that rsir lacks,
    "name: explanation", with the name that rsir reserves for it.
    backbone: timm's name, if it differs from the table's backbone; the row is run on it.
    """

    name: str
    values: tuple[float, ...] = ()
    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    absent: str = ""
    backbone: str | None = None

    def settings_for(self, column: TableColumn) -> dict[str, Any]:
        """Options and settings of the row in a column."""
        return {**self.settings, **column.settings}


@dataclass(frozen=True)
class PaperTable:
    """A table, with the fields of the module's docstring. paper: "" in a table of your own."""

    name: str
    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    paper: str = ""
    source: str = ""
    protocol: str = ""
    note: str = ""
    backbone: str | None = None


def no_method(row: TableRow) -> str | None:
    """Why rsir cannot run the row; None if it can."""
    if row.absent:
        return row.absent
    if row.method is None:
        return "not in rsir yet"
    if row.method not in METHODS:
        return f"{row.method} is not in rsir yet"
    return None


def names() -> tuple[str, ...]:
    """The names of all tables, in the order of the papers and of their numbers."""
    files = [file.name for file in _folder().iterdir()]
    tables = sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))
    systems = [*PAPERS.values()]
    return tuple(sorted(tables, key=lambda name: systems.index(name.rpartition("-table")[0])))


def load(name: str) -> PaperTable:
    """A table of the papers by its name, or a table of your own by the path of its TOML file.

    Raises UsageError for an unknown name, and for a table of the papers that is not here; DataError
    for a file that cannot be read or is faulty.
    """
    if name.endswith(".toml"):
        file = Path(name)
        try:
            return parse(file.stem, file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{file}: cannot be read ({reason})") from error
    if name in LEFT_OUT:
        raise UsageError(f"table {name} is left out because it {LEFT_OUT[name]}")
    if name not in names():
        raise UsageError(
            f"there is no table {name!r}; there are: {', '.join(names())}; or give a .toml file"
        )
    return parse(name, (_folder() / f"{name}.toml").read_text("utf-8"))


def _folder() -> Traversable:
    return resources.files("rsir.reproduce") / "tables"


def parse(name: str, text: str) -> PaperTable:
    """A table from TOML text in the module's format. Raises DataError for faults.

    `parse` does not check whether the methods accept the settings, because that would load torch.
    """
    try:
        fields = tomllib.loads(text)
        common = fields.pop("common", {})
        columns = tuple(TableColumn(**{**common, **column}) for column in fields.pop("column"))
        if "paper" not in fields:
            for row in fields["row"]:
                row.setdefault("values", [math.nan] * len(columns))
        rows = tuple(
            TableRow(**{**row, "values": tuple(map(float, row["values"]))})
            for row in fields.pop("row")
        )
        table = PaperTable(name=name, columns=columns, rows=rows, **fields)
    except (tomllib.TOMLDecodeError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"table {name}: {error}") from error
    for part, fault in _faults(table):
        raise DataError(f"table {name}, {part}: {fault}")
    return table


def _faults(table: PaperTable) -> Iterator[tuple[str, str]]:
    """(part of the table, fault) for each fault."""
    if table.paper and not (table.source and table.protocol):
        yield "source and protocol", "a paper's table needs both"
    if table.paper and table.paper not in PAPERS:
        yield "paper", f"{table.paper!r}: take one of {', '.join(PAPERS)}"
    for kind, parts in (("columns", table.columns), ("rows", table.rows)):
        if len({part.name for part in parts}) < max(1, len(parts)):
            yield kind, "there must be at least one, and all names must differ"
    for column in table.columns:
        yield from ((f"column {column.name}", fault) for fault in _column_faults(column))
    for row in table.rows:
        yield from ((f"row {row.name}", fault) for fault in _row_faults(row, len(table.columns)))


def _column_faults(column: TableColumn) -> Iterator[str]:
    if column.unit not in UNITS:
        yield f"unit {column.unit!r}: take one of {', '.join(UNITS)}"
    if column.search not in SEARCHES:
        yield f"search {column.search!r}: take one of {', '.join(SEARCHES)}"
    if column.train is not None and not 0 < column.train < 1:
        yield f"train must be above 0 and below 1, not {column.train}"
    for name in (column.data, column.unseen):
        if name is not None and name not in catalog.ENTRIES:
            yield f"set {name!r}: take one of {', '.join(catalog.ENTRIES)}"
    if column.class_name is not None:
        entry = catalog.ENTRIES.get(column.unseen or column.data or "")
        if entry is None or column.class_name not in entry.classes:
            yield f"class_name {column.class_name!r} is not a class of its set"


def _row_faults(row: TableRow, columns: int) -> Iterator[str]:
    if len(row.values) != columns:
        yield f"{len(row.values)} values for {columns} columns"
    if any(math.isinf(value) for value in row.values):
        yield "a value must be a number, or nan where the paper has none"
    if row.method is not None and row.method not in METHODS:
        known = ", ".join(METHODS)
        yield f"method {row.method!r}: take one of {known}, or omit it and give `absent`"
    if (row.method is None) != bool(row.absent):
        yield "give either `method`, or `absent` for a method that rsir lacks"
