"""The options of a method: their defaults, and the checks of their names, types and values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsir.errors import UsageError


@dataclass(frozen=True)
class Options:
    """The options of a method, each with the paper's name; every field has a default.

    Every default is a bool, int, float or str, so that the shell and `model.json` can hold any
    option. A subclass refuses impossible values in `__post_init__`, with `require`.
    """

    def require(self, name: str, holds: bool, rule: str) -> None:
        """Raise UsageError "option `name` must be `rule`, not `value`", unless `holds`."""
        if not holds:
            raise UsageError(f"option {name} must be {rule}, not {getattr(self, name)!r}")


def defaults_of(kind: type[Any]) -> dict[str, Any]:
    """The default of each field of a dataclass (options or settings), by name."""
    return {field.name: field.default for field in dataclasses.fields(kind)}


def check_types(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raise UsageError for a value of another type than its default; an int is a float, too."""
    for name, value in values.items():
        allowed = (int, float) if type(defaults[name]) is float else (type(defaults[name]),)
        if type(value) not in allowed:  # not isinstance: a bool is no number
            raise UsageError(f"{name}={value!r}: it must be a {allowed[-1].__name__}")
