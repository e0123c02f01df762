"""Drawn image sets, and one quick run of a whole table for all tests of the room."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.reproduce import experiment
from rsir.reproduce.runs import reproduce
from rsir.reproduce.side_by_side import Comparison
from rsir.reproduce.table import PaperTable, parse
from rsir.training.train import train
from tests.support.reproduced import (
    AID,
    EACH,
    TABLE,
    UCM,
    draw_class_folders,
)


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UC Merced with its labels, and AID, with a few drawn scenes of four classes each."""
    folder = tmp_path_factory.mktemp("data")
    draw_class_folders(folder / "UCMerced_LandUse" / "Images", UCM)
    draw_class_folders(folder / "AID", AID)
    lines = ["IMAGE\ttrees\twater\tcars"]
    for number, name in enumerate(UCM):
        for i in range(EACH):
            lines.append(
                f"{name}{i:02d}\t{number % 2}\t{(number + i) % 2}\t{int(i == number == 0)}"
            )
    table = folder / "UCMerced_LandUse" / "LandUse_Multilabeled.txt"
    table.write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="package")
def table() -> PaperTable:
    return parse("everything", TABLE)


@pytest.fixture(scope="package")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="package")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="package")
def whole(table: PaperTable, root: Path, out: Path, lines: list[str]) -> Comparison:
    return reproduce(table, root, out, quick=True, seeds=(0, 3), on_line=lines.append)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that `train` is called for."""
    calls: list[str] = []
    real = train

    def counting(method: str, split: object, images: object, run: Path, **more: object) -> Path:
        calls.append(run.name)
        return real(method, split, images, run, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(experiment, "train", counting)
    return calls
