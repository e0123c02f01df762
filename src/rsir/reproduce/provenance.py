"""Where, when and with what something was made."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rsir.models.model import file_sha256
from rsir.version import VERSION

KNOWN = ("rsir", "torch", "commit", "cpu", "cores", "gpu")
"""What is said of where something was made."""


def provenance() -> dict[str, Any]:
    """Where and when something was made: rsir, torch, commit (None outside a checkout), machine."""
    from rsir.cost.timing import cpu_name

    return {
        "rsir": VERSION,
        "torch": torch.__version__,
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine(made: Mapping[str, Any] | None) -> str:
    """Of a provenance, in words: the machine and what ran on it; "not known" of none."""
    if made is None:
        return "not known"
    where = f"{made['cpu']}, {made['cores']} cores, {made['gpu'] or 'no GPU'}"
    return f"{where}; {version(made)}"


def version(made: Mapping[str, Any]) -> str:
    """Of a provenance, in words: rsir, torch and the commit."""
    of_commit = f", commit {made['commit']}" if made["commit"] else ""
    return f"rsir {made['rsir']}, torch {made['torch']}{of_commit}"


def is_old(made: Mapping[str, Any]) -> bool:
    """Whether another rsir made it: another version or commit, what was changed since aside."""
    then, now = (str(one).removesuffix("-dirty") for one in (made["commit"], commit()))
    return (made["rsir"], then) != (VERSION, now)


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that this file belongs to, "-dirty" if anything was changed."""
    here = Path(__file__).resolve()
    # An installed rsir may lie inside another project's checkout, whose commit says nothing.
    for command in (
        ["ls-files", "--error-unmatch", __file__],
        ["describe", "--always", "--dirty"],
    ):
        try:
            done = subprocess.run(
                ["git", *command], cwd=here.parent, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
    return done.stdout.strip()


@functools.cache
def named(weights: str) -> str:
    """Weights by what is in the file, so that it may lie anywhere."""
    file = Path(weights)
    return f"{file.name} {file_sha256(file)[:16]}" if file.is_file() else weights
