"""Tables of your own, a start that all rows share, and files of conditions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rsir.errors import DataError, UsageError
from rsir.reproduce.conditions import Conditions, Start, read_conditions
from rsir.reproduce.experiment import Experiment
from rsir.reproduce.runs import reproduce
from rsir.reproduce.table import load, names
from tests.support.reproduced import draw_class_folders

CLASSES = {"forest": "forest", "river": "water", "runway": "airport"}
ROOT = Path(__file__).resolve().parents[2]
TABLE = """
title = "My own"
common = { data = "ucm", train = 0.5, unit = "percent" }
column = [
  { name = "mAP", measure = "map" },
  { name = "R@1", measure = "r_at_1" },
  { name = "AID", measure = "map", data = "aid" },
]
[[row]]
name = "plain"
method = "pooled"
[[row]]
name = "hashed"
method = "dah"
settings = { bits = 8 }
"""
SMALL = Conditions("test_resnet", "none", 32, epochs=0, batch_size=6, precision="32", workers=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UC Merced with a few drawn scenes of three classes."""
    folder = tmp_path_factory.mktemp("data")
    draw_class_folders(folder / "UCMerced_LandUse" / "Images", CLASSES, each=6)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> str:
    file = tmp_path / "my-own.toml"
    file.write_text(TABLE)
    return str(file)


def test_a_table_of_your_own_needs_no_paper(data: Path, table: str, tmp_path: Path) -> None:
    found = reproduce(table, data, tmp_path / "out", conditions=SMALL, seeds=(4, 2))
    assert found.name == "my-own"
    assert [len(cell.ours) for cell in found.cells] == [2, 2, 0, 2, 2, 0]
    assert {cell.paper for cell in found.cells} == {None}
    assert {cell.column for cell in found.missing} == {"AID"}
    assert "Paper" not in found.markdown().split("## Conditions")[0].partition("Ours")[0]
    folder = found.write(tmp_path / "table")
    assert json.loads((folder / "table.json").read_text())["seeds"] == [4, 2]


def test_rows_and_sets_limit_the_table(data: Path, table: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = reproduce(table, data, out, conditions=SMALL, rows=["plain"], sets=["UCM"])
    assert [(cell.row, cell.column) for cell in found.cells] == [("plain", "mAP"), ("plain", "R@1")]
    assert not found.missing
    with pytest.raises(UsageError, match="no row nothing; its rows are: plain, hashed"):
        reproduce(table, data, out, conditions=SMALL, rows=["nothing"])
    with pytest.raises(UsageError, match="no column of dlrsd"):
        reproduce(table, data, out, conditions=SMALL, sets=["dlrsd"])
    with pytest.raises(UsageError, match="no benchmark set 'mnist'"):
        reproduce(table, data, out, conditions=SMALL, sets=["mnist"])
    with pytest.raises(UsageError, match="no row with these names and these methods"):
        reproduce(table, data, out, conditions=SMALL, rows=["plain"], methods=["dah"])


def test_every_row_starts_from_the_weights_of_one_training(
    data: Path, table: str, tmp_path: Path
) -> None:
    start = Start("pooled", {"epochs": 1, "lr": 0.01, "per_class": 2})
    conditions = Conditions(**{**vars(SMALL), "start": start})
    lines: list[str] = []
    found = reproduce(
        table, data, tmp_path, conditions=conditions, sets=["ucm"], on_line=lines.append
    )
    assert not found.missing
    # The start, "plain" and "hashed": three trainings, of which only the start has an epoch.
    runs = {path.parent.name: path.parent for path in (tmp_path / "runs").glob("*/model.json")}
    assert len(runs) == 3
    assert sum("· start ·" in line for line in lines) == 1
    models = {name: load_file(run / "model.safetensors") for name, run in runs.items()}
    cards = {name: json.loads((run / "model.json").read_text()) for name, run in runs.items()}
    (first,) = (name for name, card in cards.items() if card["training"]["settings"]["epochs"] == 1)
    # Batch normalisation starts its count of batches again.
    backbone = [
        key
        for key in models[first]
        if key.startswith("backbone.") and not key.endswith("num_batches_tracked")
    ]
    assert len(backbone) > 10
    for name, weights in models.items():
        shared = [key for key in backbone if key in weights]
        assert len(shared) > 10
        assert all(np.array_equal(weights[key], models[first][key]) for key in shared), name
    shared = dict(found.conditions)["Shared by all rows"]
    assert "weights of a pooled trained first on the same images, epochs 1, lr 0.01" in shared
    # Without the start, the weights differ.
    reproduce(table, data, tmp_path, conditions=SMALL, rows=["plain"], sets=["ucm"])
    assert len(list((tmp_path / "runs").glob("*/model.json"))) == 4


def test_a_start_that_cannot_be_trained_is_refused(data: Path, table: str, tmp_path: Path) -> None:
    conditions = Conditions(**{**vars(SMALL), "start": Start("pooled", {"bits": 8})})
    with pytest.raises(UsageError, match="bits"):
        reproduce(table, data, tmp_path, conditions=conditions)


CONDITIONS = """
seeds = [1, 2]
backbone = "test_resnet"
image_size = 48
[settings]
lr = 0.5
[start]
method = "pooled"
[start.settings]
epochs = 3
"""


def test_conditions_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "conditions.toml"
    file.write_text(CONDITIONS)
    values, seeds = read_conditions(file)
    assert seeds == (1, 2)
    assert Conditions(**values) == Conditions(
        "test_resnet", image_size=48, settings={"lr": 0.5}, start=Start("pooled", {"epochs": 3})
    )
    file.write_text("epochs = 2")
    assert read_conditions(file) == ({"epochs": 2}, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("epochs = ", DataError),
        ("colour = 3", DataError),
        ("start = 3", DataError),
        ("[start]\nmethods = 'x'", DataError),
        ("seeds = 3", DataError),
        ("seeds = ['a']", DataError),
        ("[settings]\nepochs = 3", UsageError),
    ],
)
def test_faulty_files_of_conditions(tmp_path: Path, text: str, error: type[Exception]) -> None:
    file = tmp_path / "conditions.toml"
    file.write_text(text)
    with pytest.raises(error):
        read_conditions(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_conditions(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    "file", sorted((ROOT / "benchmarks" / "tables").glob("*.toml")), ids=lambda f: f.stem
)
def test_every_cell_of_the_tables_in_benchmarks_can_be_trained(file: Path) -> None:
    table = load(str(file))
    assert table.name not in names()
    experiment = Experiment(Path(), Path(), SMALL, quick=False, report=print)
    for row in table.rows:
        for column in table.columns:
            assert experiment.training(row, column, 1).method == row.method


@pytest.mark.parametrize(
    "file", sorted((ROOT / "benchmarks" / "conditions").glob("*.toml")), ids=lambda f: f.stem
)
def test_every_file_of_conditions_in_benchmarks_fits_its_method(file: Path) -> None:
    values, seeds = read_conditions(file)
    assert seeds
    assert 0 not in seeds  # settings may have been chosen on the split of seed 0
    assert "precision" not in values  # every machine has its own
    method = next(m for m in ("dual-attention", "mlrsir-net", "dah", "eara", "jsrt")
                  if file.stem.startswith(m))  # fmt: skip
    table = load("dah-table3")
    (row,) = (row for row in table.rows if row.method == "dah")
    experiment = Experiment(Path(), Path(), Conditions(**values), quick=False, report=print)
    row = type(row)(row.name, row.values, method)
    column = type(table.columns[0])("mAP", "share", "map", data="ucm", train=0.5)
    training = experiment.training(row, column, 1)
    assert (training.start is None) == (values.get("start") is None)


def test_a_missing_and_a_faulty_table(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        reproduce(str(tmp_path / "gone.toml"), data, tmp_path)
    (tmp_path / "bad.toml").write_text("title = 3")
    with pytest.raises(DataError, match="table bad"):
        reproduce(str(tmp_path / "bad.toml"), data, tmp_path)
