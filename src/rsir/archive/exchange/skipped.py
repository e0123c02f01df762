"""What could not be done with single records of many: counted by reason, the first ones listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_LISTED = 1000
"""Records that are named one by one. Our choice: a report has to fit a screen and memory, however
many records there are; the counts are complete."""

NO_GEOMETRY = "its footprint is not a GeoJSON geometry"
"""A reason that several formats have."""


@dataclass(frozen=True, slots=True)
class Named:
    """One record, and what was the matter with it."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """count: records. reasons: how many for each. first: the first 1,000 of them, by id."""

    count: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    first: tuple[Named, ...] = ()


class SkipCounter:
    """Counts records by reason while they pass."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._first: list[Named] = []

    def add(self, id: str, reason: str) -> None:
        """Count the record `id`."""
        self._reasons[reason] += 1
        if len(self._first) < _LISTED:
            self._first.append(Named(id, reason))

    def summary(self) -> Summary:
        """What was counted so far."""
        return Summary(self._reasons.total(), dict(self._reasons.most_common()), tuple(self._first))
