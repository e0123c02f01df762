"""With --json, every command that has a result prints it as JSON on stdout, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from rsir.cli import app
from tests.cli.running import TRAIN, Shell

pytestmark = pytest.mark.slow

NO_RESULT = {"serve", "demo", "reproduce", "explain"}
"""Commands without one result: they run until they are stopped, or write pictures and pages."""


def commands(
    group: Any = None, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command


def test_every_command_with_a_result_has_the_option_and_it_takes_no_value() -> None:
    for names, command in commands():
        option = next((p for p in command.params if "--json" in p.opts), None)
        assert (option is None) == (" ".join(names) in NO_RESULT), names
        assert option is None or option.is_flag


@pytest.fixture
def arguments(
    model: Path, tiles: Path, copy: Path, images: Path, query: Path, coloured_classes: Path,
    tmp_path: Path,
) -> dict[tuple[str, ...], list[Any]]:  # fmt: skip
    """Arguments of a run of each command."""
    queries, some = tmp_path / "q.csv", tmp_path / "UCMerced_LandUse" / "Images" / "beach"
    some.mkdir(parents=True)
    shutil.copy(query, some)
    return {
        ("methods",): [],
        ("train",): ["pooled", "--data", coloured_classes, "--out", tmp_path / "r", "--epochs", 1,
                     *TRAIN],
        ("cost",): ["pooled", "--backbone", "resnet10t", "--size", 32],
        ("evaluate",): [model, "--data", coloured_classes, "--per-query", queries],
        ("compare",): [queries, queries],
        ("index",): [copy, coloured_classes],
        ("search",): [images, query],
        ("info",): [tiles],
        ("delete",): [copy, "--where", "gsd > 0", "--yes"],
        ("prune",): [copy],
        ("optimize",): [copy],
        ("restore",): [copy, 1],
        ("export",): [tiles, tmp_path / "a.parquet"],
        ("merge",): [copy, images],
        ("datasets", "list"): [],
        ("datasets", "check"): ["ucm", tmp_path],
    }  # fmt: skip


def parsed(text: str) -> Any:
    """The JSON value, None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_only_json_is_printed(shell: Shell, arguments: dict[tuple[str, ...], list[Any]]) -> None:
    for names, rest in arguments.items():
        done = shell(*names, *rest, "--json")
        assert done.status == (1 if names == ("datasets", "check") else 0), (names, done.err)
        assert isinstance(parsed(done.out), dict | list), (names, done.out)
    # Not run here: adapt needs a trained jsrt, fetch a server, import its own columns.
    tested = {*arguments, ("adapt",), ("datasets", "fetch"), ("import",)}
    assert tested == {names for names, _ in commands() if " ".join(names) not in NO_RESULT}


def test_search_has_one_format(shell: Shell, images: Path, query: Path) -> None:
    done = shell("search", images, query, "--json")
    assert done.out == shell("search", images, query, "--format", "json").out
    assert shell("search", images, query, "--json", "--format", "json").out == done.out
    done = shell("search", images, query, "--json", "--format", "csv")
    assert (done.status, "two formats" in done.err) == (2, True)
