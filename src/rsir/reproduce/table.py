"""The result tables of the five papers as data: every row, column and value as printed.

A table is one TOML file in tables/, named like the table:

    title, source         what it compares, in our words; authors, venue, year and table number
    paper                 the paper's letter, see `PAPERS`
    protocol              what the paper says of split, queries, gallery, measure, training
    note                  doubtful values, and the measure that we take the paper's for
    backbone              timm's name of the paper's backbone; omitted if the paper names none
    common                values of every [[column]] that does not give its own
    [[column]]            in the order of the values, see `Column`
    [[row]]               see `Row`

A row is always a method or a variant of one, and a column is a measure on a set. If a paper prints
its table the other way round, or one set below the other, the note says so.

`load` also reads a table of your own from a path. It needs no paper, source, protocol or values.
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
"""The letter of a paper, and its own system: the name of its method and of its tables."""
UNITS = ("percent", "share", "ms", "minutes")
SEARCHES = ("leave-one-out", "query-gallery")
LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "dual-attention-table1": "describes the image sets, measures nothing; see `rsir datasets`",
    }
)
"""Numbered tables of the papers that are absent here, and why."""


@dataclass(frozen=True)
class Column:
    """What one column measures.

    name: set and measure, in the paper's words. unit: of the printed values, one of `UNITS`.
    measure: rsir's key ("map", "r_at_1", "ms_per_query" …); None if rsir has no such measure. If it
    is uncertain which measure the paper used, the table's note says which we take, and why.
    data: the set, by its name in the catalogue. train: share of each class to train on; None with
    `unseen`, which trains on all of `data`.
    unseen: a set that is searched in place of `data` and from which training saw nothing.
    search: "leave-one-out", in which the images not trained on search each other, or
    "query-gallery", in which they search the images trained on. We take the first if the paper does
    not say.
    labels: an image has several labels; images that share at least one are relevant.
    class_name: the measure is over the queries of this class, as the catalogue spells it.
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
class Row:
    """A method or a variant of it, and the paper's values.

    name: as printed. values: one for each column, nan where the paper has none; () for none at all.
    method: rsir's name; None for a method that rsir lacks, which `absent` then names, first by the
    name that rsir has reserved for it.
    backbone: timm's name, if the row has another backbone than the table; only a run on that
    backbone answers the row.
    """

    name: str
    values: tuple[float, ...] = ()
    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    absent: str = ""
    backbone: str | None = None

    def settings_for(self, column: Column) -> dict[str, Any]:
        """Options and settings of this row in a column."""
        return {**self.settings, **column.settings}


@dataclass(frozen=True)
class PaperTable:
    """A table; the module's docstring describes the fields. paper: "" for a table of your own."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    paper: str = ""
    source: str = ""
    protocol: str = ""
    note: str = ""
    backbone: str | None = None


def no_method(row: Row) -> str | None:
    """Why rsir cannot run the row at all; None if it can."""
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
    found = sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))
    systems = [*PAPERS.values()]
    return tuple(sorted(found, key=lambda name: systems.index(name.rpartition("-table")[0])))


def load(name: str) -> PaperTable:
    """A table of the papers by its name, or a table of your own by the path of its TOML file.

    Raises UsageError with all names for an unknown name, or with the reason if we left the table
    out; DataError for a file that cannot be read or is faulty.
    """
    if name.endswith(".toml"):
        file = Path(name)
        try:
            return parse(file.stem, file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{file}: cannot be read ({reason})") from error
    if name in LEFT_OUT:
        raise UsageError(f"table {name} is left out: it {LEFT_OUT[name]}")
    if name not in names():
        raise UsageError(
            f"there is no table {name!r}; there are: {', '.join(names())}; or give a .toml file"
        )
    return parse(name, (_folder() / f"{name}.toml").read_text("utf-8"))


def _folder() -> Traversable:
    return resources.files("rsir.reproduce") / "tables"


def parse(name: str, text: str) -> PaperTable:
    """A table from TOML, in the format that the module describes. Raises DataError for faults.

    It does not check whether the methods accept the settings: that would load torch.
    """
    try:
        given = tomllib.loads(text)
        common = given.pop("common", {})
        columns = tuple(Column(**{**common, **column}) for column in given.pop("column"))
        if "paper" not in given:
            for row in given["row"]:
                row.setdefault("values", [math.nan] * len(columns))
        rows = tuple(
            Row(**{**row, "values": tuple(map(float, row["values"]))}) for row in given.pop("row")
        )
        table = PaperTable(name=name, columns=columns, rows=rows, **given)
    except (tomllib.TOMLDecodeError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"table {name}: {error}") from error
    for part, wrong in _faults(table):
        raise DataError(f"table {name}, {part}: {wrong}")
    return table


def _faults(table: PaperTable) -> Iterator[tuple[str, str]]:
    """Each faulty part of the table, and what is wrong with it."""
    if table.paper and not (table.source and table.protocol):
        yield "source and protocol", "a paper's table gives both"
    if table.paper and table.paper not in PAPERS:
        yield "paper", f"{table.paper!r}: take one of {', '.join(PAPERS)}"
    for kind, parts in (("columns", table.columns), ("rows", table.rows)):
        if len({part.name for part in parts}) < max(1, len(parts)):
            yield kind, "there must be at least one, and all names must differ"
    for column in table.columns:
        yield from ((f"column {column.name}", wrong) for wrong in _column_faults(column))
    for row in table.rows:
        yield from ((f"row {row.name}", wrong) for wrong in _row_faults(row, len(table.columns)))


def _column_faults(column: Column) -> Iterator[str]:
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
            yield f"class_name {column.class_name!r} is no class of its set"


def _row_faults(row: Row, columns: int) -> Iterator[str]:
    if len(row.values) != columns:
        yield f"{len(row.values)} values for {columns} columns"
    if any(math.isinf(value) for value in row.values):
        yield "a value must be a number, or nan where the paper has none"
    if row.method is not None and row.method not in METHODS:
        yield f"method {row.method!r}: take one of {', '.join(METHODS)}, or none and say `absent`"
    if (row.method is None) != bool(row.absent):
        yield "give either `method`, or in `absent` the method that rsir lacks"
