"""Run a reader of hostile files in another process, and check that it stays within bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MEGABYTES = 700
"""Growth of memory for one file: a block of 256 MB, twice, and what libraries load late."""

SECONDS = 15


def run_hostile(reader: str, kind: str, files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """How reading each file ends, by its name; reader: a module of tests.support."""
    run = subprocess.run(
        [sys.executable, "-m", reader],
        input="".join(f"{kind}\t{file}\n" for file in files),
        capture_output=True, text=True, check=True, timeout=560,
        env=os.environ | {"no_proxy": "127.0.0.1"},
    )  # fmt: skip
    found = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return {Path(outcome["name"]).name: outcome for outcome in found}


def check_bounds(outcome: dict[str, Any]) -> None:
    """No crash, no endless wait, and bounded memory."""
    assert "died" not in outcome, outcome
    assert outcome["megabytes"] < MEGABYTES, outcome
    assert outcome["seconds"] < SECONDS, outcome
