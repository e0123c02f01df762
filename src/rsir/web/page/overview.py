"""What an archive holds, as far as the page tells of it before anything is asked."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from rsir.types import Bounds

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.store.records.record import Record
    from rsir.web.service.scenes import Scenes
    from rsir.web.service.service import Service

EXAMPLES = 8
"""Example queries that are offered; our choice: two rows on a phone."""
LOOKED_AT = 100_000
"""Records that classes, dates and examples are taken from; our choice, about a second. A larger
archive can still be filtered by all its classes, but only those found are listed."""

REFRESH_SECONDS = 300.0


@dataclass(frozen=True)
class Overview:
    """What is told of an archive.

    count: of records. classes: with their number of records, by name. days: the first and the
    last. examples: ids, each with its class or "". scenes: bounds of the sources that have a
    place, by id.
    """

    count: int
    classes: Mapping[str, int] = field(default_factory=dict)
    days: tuple[date, date] | None = None
    examples: tuple[tuple[str, str], ...] = ()
    scenes: Mapping[str, Bounds] = field(default_factory=dict)

    def scene_of(self, window: Bounds) -> str | None:
        """The id of the smallest scene that a rectangle touches most of; None if it touches none.

        Over the antimeridian, rectangles touch nothing: no scene's bounds say so.
        """
        best: tuple[float, float, str] | None = None
        for id, (west, south, east, north) in self.scenes.items():
            width = min(east, window[2]) - max(west, window[0])
            height = min(north, window[3]) - max(south, window[1])
            if width <= 0 or height <= 0:
                continue
            fits = (-width * height, (east - west) * (north - south), id)
            best = fits if best is None else min(best, fits)
        return None if best is None else best[2]


class Overviews:
    """The overviews of a service's archives, made when first asked for.

    Anew after REFRESH_SECONDS, or when the number of records has changed.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[str, tuple[float, Overview]] = {}
        self._making = asyncio.Lock()

    async def of(self, name: str) -> Overview:
        """That of an archive; NotFoundError for an unknown one."""
        archive, scenes = self._service.archive(name), self._service.scenes[name]
        async with self._making:
            made, known = self._known.get(name, (-math.inf, Overview(0)))
            is_fresh = time.monotonic() - made < REFRESH_SECONDS
            if not is_fresh or known.count != await self._service.run(len, archive):
                known = await self._service.run(overview, archive, scenes)
                self._known[name] = (time.monotonic(), known)
        return known


def overview(archive: Archive, scenes: Scenes) -> Overview:
    """Look through the archive and its sources; blocks."""
    classes: Counter[str] = Counter()
    one_each: dict[str, str] = {}
    any_class: list[tuple[str, str]] = []
    days: list[date] = []
    for index, record in enumerate(archive.records()):
        if index == LOOKED_AT:
            break
        kind = _class(record)
        if kind:
            classes[kind] += 1
            one_each.setdefault(kind, record.id)
        if record.datetime is not None:
            day = record.datetime.date()
            days = [min([*days[:1], day]), max([*days[1:], day])]
        any_class.append((record.id, kind))
    # One of each class, else from all over the archive.
    pool = [(one_each[c], c) for c in sorted(one_each)] if len(one_each) > 1 else any_class
    step = max(1, len(pool) // EXAMPLES)
    return Overview(
        count=len(archive),
        classes=dict(sorted(classes.items())),
        days=(days[0], days[1]) if days else None,
        examples=tuple(pool[::step][:EXAMPLES]),
        scenes={id: s.bounds for id, s in scenes.all().items() if s.bounds is not None},
    )


def _class(record: Record) -> str:
    kind = record.properties.get("class")
    return kind if isinstance(kind, str) else ""
