"""Count the records that an export or import skips, by reason, and list the first of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_LISTED = 1000
"""Maximum records that a report lists by id. Our choice: a report of any number of records fits a
screen and memory; the counts are complete."""

NO_GEOMETRY = "its footprint is not a GeoJSON geometry"
"""A reason that several formats share."""


@dataclass(frozen=True, slots=True)
class SkippedRecord:
    """One record and the reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SkipSummary:
    """count: records. reasons: the count of each reason. first: the first 1,000 records."""

    count: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    first: tuple[SkippedRecord, ...] = ()


class SkipCounter:
    """Counts records by reason."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._first: list[SkippedRecord] = []

    def add(self, id: str, reason: str) -> None:
        """Count the record `id`."""
        self._reasons[reason] += 1
        if len(self._first) < _LISTED:
            self._first.append(SkippedRecord(id, reason))

    def summary(self) -> SkipSummary:
        """The counts so far."""
        reasons = dict(self._reasons.most_common())
        return SkipSummary(self._reasons.total(), reasons, tuple(self._first))
