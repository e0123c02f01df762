"""Arguments of `reproduce` that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.errors import DataError, UsageError
from rsir.reproduce.conditions import Conditions
from rsir.reproduce.runs import reproduce
from rsir.reproduce.table import PaperTable


def test_settings_that_rows_cannot_share(table: PaperTable, root: Path, tmp_path: Path) -> None:
    for name, alternative in (
        ("image_size", "--size"),
        ("epochs", "--epochs"),
        ("backbone", "--backbone"),
        ("weights", "--weights"),
        ("seed", "--seeds"),
        ("ranking", "--ranking"),
        ("batch_size", "the field batch_size"),
        ("workers", "the field workers"),
    ):
        with pytest.raises(UsageError, match=alternative):
            Conditions(settings={name: 1})
    for values in ({"bogus": 1}, {"lr": "high"}, {"bits": "many"}):
        conditions = Conditions("test_resnet", "none", 32, settings=values)
        with pytest.raises(UsageError, match=next(iter(values))):
            reproduce(table, root, tmp_path, conditions=conditions)
    with pytest.raises(UsageError, match="leave out --quick"):
        reproduce(table, root, tmp_path, conditions=Conditions(), quick=True)
    assert not list(tmp_path.iterdir())
    # An option of a single method is allowed.
    conditions = Conditions("nonsense", "none", 32, settings={"bits": 8})
    with pytest.raises(UsageError, match="nonsense"):
        reproduce(table, root, tmp_path, conditions=conditions)


def test_out_must_be_a_folder(table: PaperTable, root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="cannot be written to"):
            reproduce(table, root, out, quick=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_backbone_that_does_not_exist(table: PaperTable, root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        reproduce(table, root, tmp_path, conditions=Conditions("nonsense", "none", 32))


@pytest.mark.parametrize("methods", [["dah", "nonsense"], ["jsrt"], []])
def test_unknown_methods(table: PaperTable, root: Path, out: Path, methods: list[str]) -> None:
    with pytest.raises(UsageError, match="its methods are: pooled, dah, eara"):
        reproduce(table, root, out, methods=methods, quick=True)


def test_other_mistakes(table: PaperTable, root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seeds must be"):
        reproduce(table, root, tmp_path, seeds=())
    with pytest.raises(UsageError, match="seeds must be"):
        reproduce(table, root, tmp_path, seeds=(1, 1))
    with pytest.raises(DataError, match="no such folder"):
        reproduce(table, root / "gone", tmp_path)
    with pytest.raises(UsageError, match="there is no table 'nonsense'"):
        reproduce("nonsense", root, tmp_path)
    assert not list(tmp_path.iterdir())
