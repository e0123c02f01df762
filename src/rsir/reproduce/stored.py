"""Results that an experiment keeps as JSON files."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rsir import atomic
from rsir.errors import DataError
from rsir.reproduce.provenance import PROVENANCE_KEYS


def read(file: Path, keys: Collection[str] = ()) -> dict[str, Any] | None:
    """A JSON object with at least these keys, or None if there is no file.

    Raises DataError if the file is damaged.
    """
    try:
        values = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(file, error) from error
    if not isinstance(values, dict):
        raise _damaged(file, "it is not a JSON object")
    if missing := [key for key in keys if key not in values]:
        raise _damaged(file, f"it has no {', '.join(missing)}")
    return values


def read_evaluation(file: Path) -> dict[str, Any] | None:
    """A stored evaluation, or None if there is no file. Raises DataError if it is incomplete."""
    result = read(file, ("metrics", "per_class", "protocol", "ranking", "trained", "evaluated"))
    if result is None:
        return None
    if not (result["metrics"] and isinstance(result["metrics"], dict)):
        raise _damaged(file, "it has no metrics")
    for step in ("trained", "evaluated"):
        made = result[step]
        if step == "trained" and made is None:  # the origin of the run is unknown
            continue
        if not (isinstance(made, dict) and made.keys() >= set(PROVENANCE_KEYS)):
            raise _damaged(file, "it does not say which rsir and machine made it")
    return result


def write(file: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all; its folder is created if necessary."""
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(file, values)


def _damaged(file: Path, reason: object) -> DataError:
    return DataError(f"{file} is damaged ({reason}); delete it")
