"""The documents agree with the results of commands, with the shell's help and with each other."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsir.evaluation.evaluate import DEFINITIONS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
TABLE = re.compile(r"<!-- table (\S+) -->\n(.*?)\n<!-- /table -->", re.DOTALL)
FENCE = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")

TEXTS = {
    file.relative_to(ROOT).as_posix(): file.read_text("utf-8")
    for file in (*ROOT.glob("*.md"), *DOCS.glob("*.md"))
}
TABLES = [table for text in TEXTS.values() for table in TABLE.findall(text)]
OF_PAPERS = [name for name, _ in TABLES if (RESULTS / f"{name}.md").exists()]
NOT_MEASURES = {"relevant", "ties", "intervals", "adaptive-hamming"}
"""Keys of DEFINITIONS that define something else."""


@pytest.fixture(scope="module")
def generate() -> dict[str, object]:
    """What is in docs/generate.py, by name."""
    return runpy.run_path(str(DOCS / "generate.py"))


def test_there_are_tables(generate: dict[str, object]) -> None:
    assert OF_PAPERS
    assert not [name for name, shown in TABLES if generate["NOT_YET"] in shown]


@pytest.mark.parametrize(("name", "shown"), TABLES, ids=[name for name, _ in TABLES])
def test_a_table_in_the_documents_is_the_one_that_was_measured(
    name: str, shown: str, generate: dict[str, object]
) -> None:
    table = generate["table"]
    assert callable(table)
    assert shown == table(name), "run: python docs/generate.py --tables"


def test_a_table_of_a_benchmark_names_its_size_command_and_machine(
    tmp_path: Path, generate: dict[str, object]
) -> None:
    found = {
        "command": "python benchmarks/evaluation.py --n 70000",
        "machine": {"cpu": "A processor", "cores": 3},
        "size": {"n": 70_000, "dim": 8, "classes": 5, "repeat": 1},
        "results": {
            "rsir": {"map": 0.25, "median_s": 2.0, "peak_gb": 0.5, "before_gb": 0.25},
            "pml": {"error": "more than 9 s"},
        },
    }
    (tmp_path / "evaluation-large.json").write_text(json.dumps(found), "utf-8")
    table = generate["table"]
    assert callable(table)
    table.__globals__["RESULTS"] = tmp_path
    try:
        text = table("evaluation-large")
        assert table("nothing") == generate["NOT_YET"]
    finally:
        table.__globals__["RESULTS"] = RESULTS
    assert "| rsir, mAP | 0.250000 | 2.00 | 1.0 | 0.50 | 0.25 |" in text
    assert "more than 9 s" in text
    assert "70,000 × 8, 5 classes" in text
    assert text.endswith("A processor, 3 cores: `python benchmarks/evaluation.py --n 70000`")


@pytest.mark.parametrize("name", OF_PAPERS)
def test_every_number_has_its_seed_commit_machine_and_time(name: str) -> None:
    results = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["results"]
    assert results
    for result in results:
        assert result["commit"]
        assert not result["commit"].endswith("-dirty")
        assert isinstance(result["seed"], int)
        assert result["train_seconds"] >= 0
        assert result["machine"]["cpu"]
        assert result["metrics"]["map"] > 0


def test_every_measure_is_explained_and_no_other() -> None:
    _, section, *_ = re.split(r"^## ", TEXTS["docs/evaluation.md"], flags=re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
    assert sorted(rows) == sorted(DEFINITIONS.keys() - NOT_MEASURES)


def test_links_lead_to_files() -> None:
    links = [(name, link) for name, text in TEXTS.items() for link in LINK.findall(text)]
    assert links
    assert [
        (name, link) for name, link in links if not (ROOT / name).parent.joinpath(link).exists()
    ] == []


def commands() -> Iterator[tuple[str, list[str]]]:
    """The location of each `rsir …` line in the documents, and its words."""
    for name, text in TEXTS.items():
        for block in FENCE.findall(text):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("rsir "):
                    yield f"{name}: {line}", shlex.split(line, comments=True)[1:]


def test_commands_in_the_documents_have_the_options_that_they_name() -> None:
    helps = dict(
        re.findall(r"^##+ `rsir ([^`]+)`\n(.*?)(?=^##|\Z)", TEXTS["docs/cli.md"], re.M | re.S)
    )
    found = list(commands())
    assert found
    for where, words in found:
        verb = " ".join(words[:2]) if words[0] == "datasets" else words[0]
        assert verb in helps, where
        known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", helps[verb]))
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, where
