"""What the documents say is what the commands gave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PLACE = re.compile(r"<!-- table (\S+) -->\n(.*?)\n<!-- /table -->", re.DOTALL)

PLACES = PLACE.findall((ROOT / "docs" / "results.md").read_text("utf-8"))


def test_there_are_tables() -> None:
    assert PLACES


@pytest.mark.parametrize(("name", "shown"), PLACES, ids=[name for name, _ in PLACES])
def test_a_table_in_the_documents_is_the_one_that_was_measured(name: str, shown: str) -> None:
    assert shown == (RESULTS / f"{name}.md").read_text("utf-8").strip()


@pytest.mark.parametrize("name", [name for name, _ in PLACES])
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
