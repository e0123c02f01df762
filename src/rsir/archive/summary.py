"""What an archive holds, source by source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rsir.archive.regions import bounds_of
from rsir.archive.store import Record
from rsir.types import Bounds


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """A file or scene that was indexed.

    source: path or uri. tiles: how many records it has. bounds: around their footprints, WGS 84;
    these are cut at the antimeridian, so that of what crosses it they are (-180, south, 180,
    north); None without any. tiled: whether its tiles are windows of it.
    """

    source: str
    tiles: int
    bounds: Bounds | None
    tiled: bool


def summaries(records: Iterable[Record]) -> list[SourceSummary]:
    """The sources of `records`, ordered by name."""
    found: dict[str, SourceSummary] = {}
    for record in records:
        known = found.get(record.source)
        box = bounds_of(record.footprint)
        found[record.source] = SourceSummary(
            record.source,
            1 + (known.tiles if known else 0),
            _around(known.bounds if known else None, box),
            "window" in record.properties,
        )
    return [found[name] for name in sorted(found)]


def _around(one: Bounds | None, other: Bounds | None) -> Bounds | None:
    """The box around two boxes in degrees."""
    if one is None or other is None:
        return one or other
    wests, souths, easts, norths = zip(one, other, strict=True)
    return min(wests), min(souths), max(easts), max(norths)
