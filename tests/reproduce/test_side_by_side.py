"""The paper's numbers beside ours: differences, units, and every output format."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsir.reproduce.side_by_side import (
    QUICK_WARNING,
    Cell,
    Comparison,
    ExtraMeasure,
    Missing,
    in_unit,
)
from rsir.reproduce.table import PaperTable, parse

TABLE = """
title = "Codes on AID"
paper = "C"
source = "Zhang et al., table 9"
protocol = "80 % are trained on."
note = "One value is doubtful."
column = [
  { name = "MAP, 16 | 32 bit", unit = "percent", measure = "map", data = "aid", train = 0.8 },
  { name = "ANMRR", unit = "share", measure = "anmrr", data = "aid", train = 0.8 },
  { name = "a query", unit = "ms", measure = "ms_per_query", data = "aid", train = 0.8 },
  { name = "nothing", unit = "minutes" },
]
[[row]]
name = "DAH | A"
method = "dah"
values = [82.26, 0.0928, 0.932, nan]
[[row]]
name = "HashNet"
absent = "hashnet: not in rsir yet"
values = [70.5, nan, nan, nan]
[[row]]
name = "plain"
method = "pooled"
values = [nan, 0.5, nan, nan]
"""


def compared(table: PaperTable, cells: list[Cell], **more: object) -> Comparison:
    given = {"conditions": (("Shared", "all of it"),), "seeds": (0, 1, 2), "missing": ()} | more
    return Comparison(name=table.name, table=table, cells=tuple(cells), **given)  # type: ignore[arg-type]


@pytest.fixture
def table() -> PaperTable:
    return parse("codes", TABLE)


@pytest.fixture
def comparison(table: PaperTable) -> Comparison:
    bits, anmrr, query, nothing = (column.name for column in table.columns)
    return compared(
        table,
        [
            Cell("DAH | A", bits, 82.26, (80.0, 81.0, 85.0)),
            Cell("DAH | A", anmrr, 0.0928, (0.1, 0.2)),
            Cell("DAH | A", query, 0.932, (0.41237,)),
            Cell("DAH | A", nothing, None),
            Cell("HashNet", bits, 70.5),
            Cell("HashNet", anmrr, None),
            Cell("HashNet", query, None),
            Cell("HashNet", nothing, None),
            Cell("plain", bits, None, (90.0, 90.0, 90.0)),
            Cell("plain", anmrr, 0.5),
            Cell("plain", query, None),
            Cell("plain", nothing, None),
        ],
        missing=(
            Missing("HashNet", None, "hashnet: not in rsir yet"),
            Missing("plain", anmrr, "AID is gone"),
            Missing("DAH | A", query, "AID is gone"),
            Missing("DAH | A", anmrr, "AID is gone"),
        ),
    )


def test_numbers_of_a_cell() -> None:
    cell = Cell("a", "b", 82.26, (80.0, 81.0, 85.0))
    assert cell.mean == 82.0
    assert cell.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert cell.difference == pytest.approx(-0.26)
    single = Cell("a", "b", None, (3.0,))
    assert (single.mean, single.std, single.difference) == (3.0, None, None)
    none = Cell("a", "b", 3.0)
    assert (none.mean, none.std, none.difference) == (None, None, None)


@pytest.mark.parametrize(
    ("unit", "found"), [("percent", 50.0), ("share", 0.5), ("ms", 0.5), ("minutes", 0.5 / 60000)]
)
def test_units(unit: str, found: float) -> None:
    assert in_unit(0.5, unit) == pytest.approx(found)


def test_markdown(comparison: Comparison) -> None:
    assert (
        comparison.markdown()
        == """\
# Codes on AID

Paper C: Zhang et al., table 9

Ours: mean over the seeds 0, 1, 2 ± the sample standard deviation. Difference: ours less the \
paper's.

## MAP, 16 | 32 bit (percent; map)

| | paper | ours | difference |
|---|--:|--:|--:|
| DAH \\| A | 82.26 | 82.00 ± 2.65 | -0.26 |
| HashNet | 70.50 | – |  |
| plain | – | 90.00 ± 0.00 |  |

## ANMRR (share; anmrr, smaller is better)

| | paper | ours | difference |
|---|--:|--:|--:|
| DAH \\| A | 0.0928 | 0.1500 ± 0.0707 (2 of 3 seeds) | +0.0572 |
| HashNet | – | – |  |
| plain | 0.5000 | – |  |

## a query (ms; ms_per_query, smaller is better)

| | paper | ours | difference |
|---|--:|--:|--:|
| DAH \\| A | 0.932 | 0.4124 | -0.5196 |
| HashNet | – | – |  |
| plain | – | – |  |

## Not run

- HashNet: hashnet: not in rsir yet
- plain (ANMRR); DAH | A (a query; ANMRR): AID is gone

## Conditions

- **Shared**: all of it

## Note

One value is doubtful.
"""
    )


def test_one_seed_and_quick(table: PaperTable) -> None:
    text = compared(table, [], seeds=(7,), quick=True).markdown()
    assert "\nOurs: seed 7. Difference" in text
    assert f"\n**{QUICK_WARNING}**\n" in text
    assert "## Not run" not in text


def test_many_columns_of_one_kind_are_listed_by_row(tmp_path: Path) -> None:
    columns = ", ".join(
        f'{{ name = "class {i}", unit = "percent", measure = "map", data = "aid", train = 0.8 }}'
        for i in range(9)
    )
    rows = '[[row]]\nname = "EARA"\nmethod = "eara"\nvalues = [' + "1, " * 9 + "]"
    head, _, _ = TABLE.partition("column =")
    table = parse("wide", f"{head}\ncolumn = [{columns}]\n{rows}")
    cells = [Cell("EARA", f"class {i}", 50.0 + i, (52.0,)) for i in range(9)]
    comparison = compared(table, cells, seeds=(0,))
    text = comparison.markdown()
    assert text.count("## EARA (percent; map)\n") == 1
    assert "| class 3 | 53.00 | 52.00 | -1.00 |" in text
    assert text.count("|---|") == 1
    comparison.figure(tmp_path / "wide.png")


def test_csv_parses_back(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(comparison.csv())))
    assert len(rows) == 12
    assert rows[0] == {
        "part": "table",
        "table": "codes",
        "quick": "False",
        "row": "DAH | A",
        "method": "dah",
        "column": "MAP, 16 | 32 bit",
        "measure": "map",
        "unit": "percent",
        "paper": "82.26",
        "mean": "82.0",
        "std": repr(math.sqrt(7)),
        "n": "3",
        "difference": repr(82.0 - 82.26),
        "ours": "80.0 81.0 85.0",
        "not_run": "",
    }
    assert {row["not_run"] for row in rows[4:8]} == {"hashnet: not in rsir yet"}
    assert rows[9]["not_run"] == "AID is gone"
    assert (rows[8]["paper"], rows[8]["difference"], rows[8]["mean"]) == ("", "", "90.0")


def test_also_measured_in_every_form(table: PaperTable) -> None:
    extra = (
        ExtraMeasure("DAH | A", "aid, bits 16", "map", (0.5, 0.25)),
        ExtraMeasure("DAH | A", "aid, bits 16", "map_at_5_found", (0.75,)),
    )
    comparison = compared(table, [Cell("plain", table.columns[0].name, 1.0)], extra=extra)
    text = comparison.markdown()
    assert "## Also measured" in text
    assert "| DAH \\| A | aid, bits 16 | 0.3750 | 0.7500 | – | – | – | – | – |" in text
    first, second = comparison.to_dict()["also_measured"]
    assert (first["method"], first["mean"], first["n"]) == ("dah", 0.375, 2)
    assert first["std"] == pytest.approx(0.25 / math.sqrt(2))
    assert (second["measure"], second["std"]) == ("map_at_5_found", None)
    lines = list(csv.DictReader(io.StringIO(comparison.csv())))
    assert [line["part"] for line in lines] == ["table", "also measured", "also measured"]
    assert (lines[1]["column"], lines[1]["ours"]) == ("aid, bits 16", "0.5 0.25")
    assert lines[1]["paper"] == ""


def test_which_way_is_better() -> None:
    text = TABLE.replace('measure = "anmrr"', 'measure = "anmrr_k_plus_1"')
    table = parse("codes", text)
    cells = [Cell("plain", column.name, 1.0) for column in table.columns]
    found = compared(table, cells).markdown()
    assert "(share; anmrr_k_plus_1, smaller is better)" in found
    assert "(ms; ms_per_query, smaller is better)" in found
    assert "(percent; map)" in found


def test_write(comparison: Comparison, tmp_path: Path) -> None:
    out = comparison.write(tmp_path / "new" / "codes")
    assert {path.name for path in out.iterdir()} == {
        "table.md", "table.csv", "table.json", "table.png"
    }  # fmt: skip
    assert (out / "table.md").read_text("utf-8") == comparison.markdown()
    plain = json.loads((out / "table.json").read_text("utf-8"))
    assert plain["seeds"] == [0, 1, 2]
    assert plain["cells"][0]["ours"] == [80.0, 81.0, 85.0]
    assert plain["cells"][3]["paper"] is None
    assert plain["missing"][0] == {
        "row": "HashNet", "column": None, "reason": "hashnet: not in rsir yet"
    }  # fmt: skip
    assert plain["conditions"] == [["Shared", "all of it"]]


def test_figure(comparison: Comparison, tmp_path: Path) -> None:
    comparison.figure(tmp_path / "table.png")
    pixels = np.asarray(Image.open(tmp_path / "table.png").convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    assert 200 < height < 2000
    assert 800 < width < 3000

    def drawn(colour: tuple[int, int, int]) -> int:
        return int((abs(pixels - colour).sum(axis=2) < 30).sum())

    # Both marks are there, ours filled, the paper's hollow; each also in the legend.
    paper, ours = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)
    assert drawn(paper) > 50
    assert drawn(ours) > 50
    no_ours = [Cell(cell.row, cell.column, cell.paper) for cell in comparison.cells]
    compared(comparison.table, no_ours).figure(tmp_path / "paper.png")
    pixels = np.asarray(Image.open(tmp_path / "paper.png").convert("RGB")).astype(int)
    assert 0 < drawn(ours) < 300


def test_a_figure_of_nothing(table: PaperTable, tmp_path: Path) -> None:
    compared(table, [Cell("plain", column.name, None) for column in table.columns]).write(tmp_path)
    with Image.open(tmp_path / "table.png") as image:
        assert image.size[0] > 300
