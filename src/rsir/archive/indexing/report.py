"""The report of an indexing run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from typing import Any, Self

from rsir.types import printable


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, folder or scene that was not indexed, wholly or in part, and the reason."""

    path: str
    reason: str

    @classmethod
    def of(cls, path: str, reason: str) -> Self:
        """Make both printable, and remove the path from the start of the reason."""
        path, reason = printable(path), printable(reason)
        return cls(path, reason.removeprefix(f"{path}: "))


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The result of one `Archive.add`, in files and scenes.

    added: new sources. replaced: sources with changed content, cut differently, or with new
    metadata in the STAC item (then nothing was encoded). unchanged: sources that the archive has
    already, even if their time of change is new.
    skipped: sources that were not indexed, with the reason. The archive keeps their records, with
    one exception: if a scene has changed, can be read, and has no tile left because all of it is
    nodata or cloud, its old tiles are removed. Damaged windows of indexed scenes, and windows that
    the model refuses, are listed too, in one line for each scene and reason, with their count and
    the first windows; the old tiles of a damaged window stay.
    masks: files that are masks of scenes, with the scene (`rsir.sources.masks`, and
    `rsir.scenes.tiling.Tiling.cloud_mask`). ignored: counts of the other files in the folders, by
    lower-case suffix. tiles: number of encoded tiles. left_out: counts of windows of scenes that
    were not encoded, by reason: "nodata", "cloud", "damaged". seconds: duration.
    complete: False in last-index.json if the run was interrupted.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: tuple[Skipped, ...] = ()
    masks: tuple[Skipped, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    tiles: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> IndexReport:
        """The report of `to_dict`; TypeError for other values."""
        lists = {
            name: tuple(Skipped(**entry) for entry in values[name]) for name in ("skipped", "masks")
        }
        return cls(**{**values, **lists})


def sum_reports(reports: Sequence[IndexReport], seconds: float, complete: bool) -> IndexReport:
    """The sum of the reports of several runs, with the given `seconds` and `complete`."""
    totals: dict[str, Any] = {}
    for each in fields(IndexReport):
        values = [getattr(report, each.name) for report in (IndexReport(), *reports)]
        if isinstance(values[0], tuple):
            totals[each.name] = tuple(sorted(chain(*values), key=lambda skipped: skipped.path))
        elif isinstance(values[0], Mapping):
            counts = sum(map(Counter, values), Counter[str]())
            totals[each.name] = dict(sorted(counts.items()))
        else:
            totals[each.name] = sum(values)
    return replace(IndexReport(**totals), seconds=seconds, complete=complete)
