"""The summary of an archive that the page shows before the first search."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING

from cachetools import TTLCache

from rsir.types import Bounds, Geometry
from rsir.web.page.outlines import SceneOutline

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.store.records.record import Record
    from rsir.web.service.scenes import Scenes
    from rsir.web.service.service import Service

EXAMPLES = 8
"""Example queries on the page; our choice: two rows on a phone."""
MOST_RECORDS = 100_000
"""Records that classes, dates and examples are taken from; our choice, about a second. In a larger
archive the page lists only the classes among these records; links can name any class."""

REFRESH_SECONDS = 300.0
"""Age in seconds at which an overview is made again; our choice."""


@dataclass(frozen=True)
class Overview:
    """A summary of an archive.

    count: number of records. classes: number of records by class name. days: the first and the
    last. examples: ids, each with its class or "". scenes: by id, of the sources that have
    a georeference.
    """

    count: int
    classes: Mapping[str, int] = field(default_factory=dict)
    days: tuple[date, date] | None = None
    examples: tuple[tuple[str, str], ...] = ()
    scenes: Mapping[str, SceneOutline] = field(default_factory=dict)

    def scene_of(self, window: Bounds) -> str | None:
        """The id of the scene whose box a rectangle overlaps most, the smallest of equals.

        None if the rectangle overlaps no scene. west > east across the antimeridian.
        """
        best: tuple[float, float, str] | None = None
        left, bottom, right, top = window
        right += 360 if right < left else 0
        for id, scene in self.scenes.items():
            west, south, east, north = scene.bounds
            east += 360 if east < west else 0
            width = max(min(east, right + turn) - max(west, left + turn) for turn in (-360, 0, 360))
            height = min(north, top) - max(south, bottom)
            if width <= 0 or height <= 0:
                continue
            candidate = (-width * height, scene.size, id)
            best = candidate if best is None else min(best, candidate)
        return None if best is None else best[2]


class Overviews:
    """The overviews of a service's archives, each made when it is first needed.

    An overview is made again after REFRESH_SECONDS, or when the number of records has changed.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._made: TTLCache[tuple[str, int], Overview] = TTLCache(
            max(1, len(service.archives)), REFRESH_SECONDS
        )
        self._making = asyncio.Lock()

    async def of(self, name: str) -> Overview:
        """The overview of an archive; NotFoundError for an unknown archive."""
        archive, scenes = self._service.archive(name), self._service.scenes[name]
        async with self._making:
            key = (name, await self._service.run(len, archive))
            made = self._made.get(key)
            if made is None:
                made = await self._service.run(overview, archive, scenes)
                self._made[key] = made
        return made


def overview(archive: Archive, scenes: Scenes) -> Overview:
    """Read the archive's records and sources into an overview; blocks."""
    classes: Counter[str] = Counter()
    first_of_class: dict[str, str] = {}
    tiles: list[tuple[str, str]] = []
    footprints: defaultdict[str, list[Geometry | None]] = defaultdict(list)
    days: list[date] = []
    for record in islice(archive.records(), MOST_RECORDS):
        name = _class(record)
        if name:
            classes[name] += 1
            first_of_class.setdefault(name, record.id)
        if record.datetime is not None:
            day = record.datetime.date()
            days = [min([*days[:1], day]), max([*days[1:], day])]
        tiles.append((record.id, name))
        footprints[record.source].append(record.footprint)
    # One tile of each class; else tiles from all over the archive.
    if len(first_of_class) > 1:
        tiles = [(id, name) for name, id in sorted(first_of_class.items())]
    step = max(1, len(tiles) // EXAMPLES)
    return Overview(
        count=len(archive),
        classes=dict(sorted(classes.items())),
        days=(days[0], days[1]) if days else None,
        examples=tuple(tiles[::step][:EXAMPLES]),
        scenes={
            # Of all its tiles or of none: some of them have another outline.
            id: SceneOutline.of(
                s.bounds, footprints[s.source] if len(footprints[s.source]) == s.tiles else ()
            )
            for id, s in scenes.all().items()
            if s.bounds is not None
        },
    )


def _class(record: Record) -> str:
    name = record.properties.get("class")
    return name if isinstance(name, str) else ""
