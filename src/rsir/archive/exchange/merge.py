"""Merge two archives of one model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsir.archive.exchange.batches import batch_size
from rsir.archive.folder.failures import translate_store_errors
from rsir.errors import ArchiveError
from rsir.store.records.record import Record

if TYPE_CHECKING:
    from rsir.archive.archive import Archive


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The result of one `merge`, in records of the other archive.

    added: records with a new id. replaced: records that replaced a record with the same id, of an
    older file. unchanged: records that the archive already had. kept: records that were not copied,
    because the archive has a record with the same id, of a file that is not older. seconds:
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
    """Copy all records of `other` into `into`; `other` does not change.

    Of two different records with the same id, the record of the newer file stays (`mtime_ns`; our
    choice); if both files are equally new, the record of `into` stays. Only ids are compared: if
    the two archives cut a scene differently, or read it before and after a change, `into` has both
    kinds of tiles until the scene is indexed again. Commits in batches: after an interruption, call
    this again.

    on_progress: called with (records done, total records).

    Raises ArchiveError if the archives differ in model, metric or dimension.
    """
    for name in ("fingerprint", "metric", "dimension"):
        value, other_value = getattr(into, name), getattr(other, name)
        if value != other_value:
            raise ArchiveError(
                f"{other.path} has the {name} {other_value}, {into.path} has {value}: only "
                "archives of the same model can be merged; index the images of one archive with "
                "the model of the other"
            )
    start = time.monotonic()
    total = len(other)
    size = batch_size(into.metric, into.dimension)
    counts = dict.fromkeys(("added", "replaced", "unchanged", "kept"), 0)
    batch: list[str] = []
    for done, (record, known) in enumerate(_paired(other.records(), into.records()), 1):
        outcome = _outcome(record, known)
        counts[outcome] += 1
        if outcome in ("added", "replaced"):
            batch.append(record.id)
        if len(batch) == size:
            _copy(other, into, batch)
            batch = []
        if on_progress is not None:
            on_progress(done, total)
    _copy(other, into, batch)
    return MergeReport(**counts, seconds=time.monotonic() - start)


def _outcome(record: Record, known: Record | None) -> str:
    if known is None:
        return "added"
    if record == known:
        return "unchanged"
    return "replaced" if record.mtime_ns > known.mtime_ns else "kept"


def _paired(
    records: Iterator[Record], others: Iterator[Record]
) -> Iterator[tuple[Record, Record | None]]:
    """Each of `records` with the record of `others` that has its id; both are ordered by id."""
    other = next(others, None)
    for record in records:
        while other is not None and other.id < record.id:
            other = next(others, None)
        yield record, other if other is not None and other.id == record.id else None


def _copy(source: Archive, target: Archive, ids: list[str]) -> None:
    if ids:
        # Read each record again, together with its vector, so that the two belong together.
        with translate_store_errors(source.path):
            rows = source.store.get(ids)
        vectors: Any = np.stack([vector for _, vector in rows])
        with translate_store_errors(target.path):
            target.store.add([record for record, _ in rows], vectors)
