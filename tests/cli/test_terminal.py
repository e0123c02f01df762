"""What a person sees on a narrow terminal."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from os import terminal_size
from pathlib import Path
from typing import Any

import pytest

from rsir.cli import printing
from rsir.methods import METHODS, method_type
from rsir.training.settings import TrainingSettings
from tests.cli.running import Shell


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 80, 100, 200])
@pytest.mark.parametrize("per_class", [False, True])
def test_no_number_of_an_evaluation_is_cut(
    shell: Shell, model: Path, coloured_classes: Path, monkeypatch: pytest.MonkeyPatch,
    width: int, per_class: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(printing, "_width", lambda: width)
    more = ["--per-class"] if per_class else []
    done = shell("evaluate", model, "--data", coloured_classes, "--part", "all", *more)
    assert done.status == 0, done.err
    assert "0.…" not in done.out
    assert not re.search(r"\d…", done.out)
    rows = [line for line in done.out.splitlines() if re.match(r"[│┃]\s*all\b", line)]
    numbers = [number for row in rows for number in re.findall(r"\d\.\d{4}", row)]
    assert len(numbers) == len(printing.COLUMNS)
    if width >= 80:
        assert max(map(len, done.out.splitlines()[: 8 * len(rows)])) <= max(width, 100)


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    def size(*_: Any) -> terminal_size:
        return terminal_size((77, 20))

    assert printing._width() == printing.PIPE_WIDTH
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(shutil, "get_terminal_size", size)
    assert printing._width() == 77


@pytest.mark.parametrize("command", [(), ("search",), ("datasets",), ("datasets", "list")])
def test_a_short_option_gives_help(shell: Shell, command: tuple[str, ...]) -> None:
    short, long = shell(*command, "-h"), shell(*command, "--help")
    assert short.status == long.status == 0
    assert short.out == long.out != ""


def test_a_method_explains_each_of_its_options(shell: Shell) -> None:
    kinds = {name: method_type(name).options_type for name in METHODS}
    for name, options in (kinds | {"trainer": TrainingSettings}).items():
        done = shell("methods", name)
        assert done.status == 0, done.err
        prose, _, listed = done.out.partition(f"{name:16s}")
        for option in dataclasses.fields(options):
            assert re.search(rf"\b{option.name}\b", prose), option.name
            assert f"-s {option.name}=" in listed
    wrong = shell("methods", "nothing")
    assert wrong.status == 2
    assert "dah" in wrong.err


@pytest.mark.slow
def test_a_comparison_names_the_runs_and_says_which_way_is_better(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    files = [tmp_path / run / "queries.csv" for run in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        evaluate = ("evaluate", model, "--data", coloured_classes, "--part", "all")
        assert shell(*evaluate, "--per-query", file).status == 0
    done = shell("compare", *files)
    assert done.status == 0, done.err
    assert "one/queries" in done.out
    assert "two/queries − one/queries" in done.err
    assert re.search(r"mAP ↑", done.out)
    assert re.search(r"ANMRR ↓", done.out)
    numbers = re.findall(r"\d\.\d+", done.out)
    monkeypatch.setattr(printing, "_width", lambda: 80)
    done = shell("compare", *files)
    assert max(map(len, done.out.splitlines())) <= 80
    assert sorted(re.findall(r"\d\.\d+", done.out)) == sorted(numbers)
