"""Two archives of one model become one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsir.archive.folder.failures import translate_store_errors
from rsir.errors import ArchiveError
from rsir.store.records.record import Record

if TYPE_CHECKING:
    from rsir.archive.archive import Archive

_COMMIT_RECORDS = 4096
"""Records in one commit. Our choice: 8 MB of 512 floats, and what an interruption costs."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What one `merge` did, in records of the other archive.

    added: new. replaced: there was one of that id, of an older file. unchanged: the same was
    there. kept: there was another of that id, of a file as new or newer, which stays. seconds:
    duration.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    kept: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def merge(
    into: Archive, other: Archive, *, on_progress: Callable[[int, int], None] | None = None
) -> MergeReport:
    """Put all of `other` into `into`; `other` stays as it is.

    Of two different records under one id, that of the newer file stays (`mtime_ns`; our choice),
    and of equally new ones that of `into`. Records go by their ids alone: a scene that the two cut
    in different ways, or read in different states, is there in both ways until it is indexed again.
    Committed in batches: interrupted and called again it comes to the same end.

    on_progress: called with (records done, records in all).

    Raises ArchiveError if the two are not of one model, metric and dimension.
    """
    for what in ("fingerprint", "metric", "dimension"):
        here, there = getattr(into, what), getattr(other, what)
        if here != there:
            raise ArchiveError(
                f"{other.path} has the {what} {there}, {into.path} has {here}: only archives of "
                "one model can be merged; index the images of one of them with the other's model"
            )
    start = time.monotonic()
    total = len(other)
    counts = dict.fromkeys(("added", "replaced", "unchanged", "kept"), 0)
    waiting: list[str] = []
    for done, (record, known) in enumerate(_side_by_side(other.records(), into.records()), 1):
        outcome = _outcome(record, known)
        counts[outcome] += 1
        if outcome in ("added", "replaced"):
            waiting.append(record.id)
        if len(waiting) == _COMMIT_RECORDS:
            _copy(other, into, waiting)
            waiting = []
        if on_progress is not None:
            on_progress(done, total)
    _copy(other, into, waiting)
    return MergeReport(**counts, seconds=time.monotonic() - start)


def _outcome(record: Record, known: Record | None) -> str:
    if known is None:
        return "added"
    if record == known:
        return "unchanged"
    return "replaced" if record.mtime_ns > known.mtime_ns else "kept"


def _side_by_side(
    records: Iterator[Record], others: Iterator[Record]
) -> Iterator[tuple[Record, Record | None]]:
    """Each of `records` with the one of `others` that has its id; both come ordered by id."""
    other = next(others, None)
    for record in records:
        while other is not None and other.id < record.id:
            other = next(others, None)
        yield record, other if other is not None and other.id == record.id else None


def _copy(source: Archive, target: Archive, ids: list[str]) -> None:
    if ids:
        # Records and vectors of one reading, so that they belong together.
        with translate_store_errors(source.path):
            rows = source._store.get(ids)
        vectors: Any = np.stack([row for _, row in rows])
        with translate_store_errors(target.path):
            target._store.add([record for record, _ in rows], vectors)
