"""Provenance of a result: the software and machine that made it, and when."""

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

PROVENANCE_KEYS = ("rsir", "torch", "commit", "cpu", "cores", "gpu")
"""Keys of a provenance that descriptions use."""


def provenance() -> dict[str, Any]:
    """Versions of rsir and torch, the commit (None outside a checkout), the machine, the time."""
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


def machine_text(made: Mapping[str, Any] | None) -> str:
    """The machine and the versions of a provenance, in words; "not known" for None."""
    if made is None:
        return "not known"
    gpu = made["gpu"] or "no GPU"
    return f"{made['cpu']}, {made['cores']} cores, {gpu}; {version_text(made)}"


def version_text(made: Mapping[str, Any]) -> str:
    """The versions and the commit of a provenance, in words."""
    commit = f", commit {made['commit']}" if made["commit"] else ""
    return f"rsir {made['rsir']}, torch {made['torch']}{commit}"


def is_old(made: Mapping[str, Any]) -> bool:
    """Whether another version or commit of rsir made it; uncommitted changes do not count."""
    then, now = (str(name).removesuffix("-dirty") for name in (made["commit"], commit()))
    return (made["rsir"], then) != (VERSION, now)


@functools.cache
def commit() -> str | None:
    """The commit of rsir's checkout, "-dirty" if files were changed; None without a checkout."""
    here = Path(__file__).resolve()
    # An installed rsir may lie inside the checkout of another project, whose commit does not count.
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
def weights_name(weights: str) -> str:
    """Weights by name; a file by its name and content, so that its folder does not matter."""
    file = Path(weights)
    return f"{file.name} {file_sha256(file)[:16]}" if file.is_file() else weights
