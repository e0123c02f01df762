"""What a person sees on a narrow terminal."""

from __future__ import annotations

import dataclasses
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from os import terminal_size
from pathlib import Path
from typing import Any

import pytest

import rsir
from rsir.archive.search.query import ById
from rsir.cli import hits_table, printing
from rsir.methods import METHODS, method_type
from rsir.training.settings import TrainingSettings
from rsir.types import Hit
from tests.cli.running import TRAIN, Shell


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 80, 100, 200])
@pytest.mark.parametrize("per_class", [False, True])
def test_no_number_of_an_evaluation_is_cut(
    shell: Shell, model: Path, coloured_classes: Path, monkeypatch: pytest.MonkeyPatch,
    width: int, per_class: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(printing, "width", lambda: width)
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

    assert printing.width() == printing.PIPE_WIDTH
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(shutil, "get_terminal_size", size)
    assert printing.width() == 77


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
    monkeypatch.setattr(printing, "width", lambda: 80)
    done = shell("compare", *files)
    assert max(map(len, done.out.splitlines())) <= 80
    assert sorted(re.findall(r"\d\.\d+", done.out)) == sorted(numbers)


@pytest.fixture
def hits(images: Path) -> list[Hit]:
    """Hits with a class, a date and a place."""
    archive = rsir.open(images)
    ring = [[9.0, 48.0], [9.5, 48.0], [9.5, 48.5], [9.0, 48.5], [9.0, 48.0]]
    place = {"type": "Polygon", "coordinates": [ring]}
    found = archive.search(ById(next(archive.records()).id), 5)
    when = datetime(2024, 5, 6, tzinfo=UTC)
    return [dataclasses.replace(hit, footprint=place, datetime=when) for hit in found]


@pytest.mark.parametrize("width", [20, 80, 120, 300])
def test_ids_and_paths_in_the_table_of_hits_can_be_copied(
    hits: list[Hit], images: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(hits_table, "width", lambda: width)
    folder = Path(hits[0].source).parents[1]
    monkeypatch.chdir(folder)
    lines = hits_table.hits_table(hits, short=True).splitlines()
    head, rows = lines[0].split(), [line.split() for line in lines[2:]]
    for row, hit in zip(rows, hits, strict=True):
        values = dict(zip(head, row, strict=True))
        assert (folder / values["image"]) == Path(hit.source)
        assert not Path(values["image"]).is_absolute()
        assert len(values["id"]) == 12
        assert hit.id.startswith(values["id"])
        assert values["class"] == hit.properties["class"]
        assert values["date"] == "2024-05-06"
        assert values["latitude,longitude"] == "48.2500,9.2500"
        assert ("distance" in values) is (width > 100)
    long = dataclasses.replace(hits[0], source="/elsewhere/" + 300 * "x", id="an id of ours")
    text = hits_table.hits_table([long], short=True)
    assert long.source in text
    assert long.id in text


def test_the_table_of_hits_has_no_empty_columns(hits: list[Hit]) -> None:
    bare = dataclasses.replace(
        hits[0], footprint=None, datetime=None, percentile=None, properties={}
    )
    odd = dataclasses.replace(bare, footprint={"type": "Polygon", "coordinates": "x"})
    lines = hits_table.hits_table([bare, odd], short=False).splitlines()
    assert lines[0].split() == ["rank", "score", "distance", "id", "image"]
    none = hits_table.hits_table([], short=True).splitlines()
    assert none[0].split() == ["rank", "score", "distance", "id", "image"]
    assert len(none) == 2


@pytest.mark.slow
def test_the_beginning_of_an_id_suffices(shell: Shell, images: Path, copy: Path) -> None:
    archive = rsir.open(images)
    ids = [record.id for record in archive.records()]
    for id in (ids[0], ids[-1]):
        whole, short = (shell("search", images, "--id", text) for text in (id, id[:12]))
        assert whole.status == short.status == 0
        assert whole.out == short.out
        by_like = shell("search", images, "--like", f"id:{id[:12]}")
        assert by_like.out == shell("search", images, "--like", f"id:{id}").out
    common = next(a for a in "0123456789abcdef" if sum(id.startswith(a) for id in ids) > 1)
    done = shell("search", images, "--id", common)
    assert (done.status, "begins several ids" in done.err) == (2, True)
    done = shell("search", images, "--id", "nowhere")
    assert (done.status, "no record 'nowhere'" in done.err) == (1, True)
    gone = next(rsir.open(copy).records()).id
    assert shell("delete", copy, gone[:12], "--yes").status == 0
    assert gone not in {record.id for record in rsir.open(copy).records()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("search", "loading the model …"),
        ("evaluate", "loading torch …"),
        ("index", "loading the model …"),
        ("train", "training (batches)"),
        ("demo", "step 4 of 4"),
    ],
)
def test_a_terminal_shows_what_it_waits_for(
    command: str, told: str, images: Path, copy: Path, model: Path, query: Path,
    coloured_classes: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """On a pseudo-terminal; there, commands of several seconds show a line that moves."""
    arguments = {
        "search": [images, query],
        "evaluate": [model, "--data", coloured_classes],
        "index": [copy, coloured_classes],
        "train": ["pooled", "--data", coloured_classes, "--out", tmp_path / "r", "--epochs", 1,
                  *TRAIN],
        "demo": ["--out", tmp_path / "demo", "--data", coloured_classes],
    }[command]  # fmt: skip
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rsir.cli", command, *map(str, arguments)],
        stdin=slave, stdout=slave, stderr=slave, env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while select.select([master], [], [], 60)[0]:
        try:
            shown += os.read(master, 1 << 16)
        except OSError:  # Linux's end of a pseudo-terminal
            break
    os.close(master)
    assert process.wait(60) == 0, shown.decode()
    assert told in shown.decode()
