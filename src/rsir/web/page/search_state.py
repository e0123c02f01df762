"""What is asked on the page, and the link that says it: one is made from the other, losslessly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from rsir.errors import UsageError
from rsir.store.filters.filter import Filter
from rsir.types import Bounds

COUNTS = (50, 200, 1000, 5000)
"""How many results can be chosen; our choice."""
COUNT = COUNTS[0]

_DECIMALS = 6
"""Of degrees in a link: about 0.1 m."""


@dataclass(frozen=True)
class SearchState:
    """All that makes a search, and nothing else.

    archive: its name; "" is the first. One of, or none: `tile`, an id; `image`, the token of an
    uploaded image; `scene`, an id, and `window`, a rectangle (west, south, east, north, degrees)
    of it. like, unlike: ids. area: footprints must touch it. start, end: days, both included.
    ranking: None is the archive's own. varied: whether near-duplicates are collapsed.
    """

    archive: str = ""
    tile: str | None = None
    image: str | None = None
    scene: str | None = None
    window: Bounds | None = None
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    area: Bounds | None = None
    start: date | None = None
    end: date | None = None
    classes: tuple[str, ...] = ()
    ranking: str | None = None
    varied: bool = False
    count: int = COUNT

    NO_FILTER: ClassVar[Mapping[str, Any]] = {
        "area": None,
        "start": None,
        "end": None,
        "classes": (),
    }

    def __bool__(self) -> bool:
        """Whether there is anything to search with."""
        return bool(self.has_query or self.like)

    @property
    def has_query(self) -> bool:
        """Whether an image, a tile or a rectangle is given."""
        return any((self.tile, self.image, self.window))

    @property
    def filtered(self) -> bool:
        """Whether not all records may be found."""
        return any((self.area, self.start, self.end, self.classes))

    @property
    def filter(self) -> Filter | None:
        """Which records may be found; None for all.

        Raises UsageError for what does not make sense, e.g. an end before the start.
        """
        if not self.filtered:
            return None
        return Filter(
            bbox=self.area,
            start=None if self.start is None else datetime.combine(self.start, time.min, UTC),
            end=None if self.end is None else datetime.combine(self.end, time.max, UTC),
            classes=self.classes or None,
        )

    def queryless(self) -> SearchState:
        """The same without its query; the ratings stay."""
        return replace(self, tile=None, image=None, scene=None, window=None)

    def by(
        self,
        *,
        tile: str | None = None,
        image: str | None = None,
        scene: str | None = None,
        window: Bounds | None = None,
    ) -> SearchState:
        """The same with another query, and without the ratings, which belonged to the old one."""
        return replace(self, tile=tile, image=image, scene=scene, window=window, like=(), unlike=())

    def rated(self, id: str, rating: int) -> SearchState:
        """The same with a tile that is wanted (1), not wanted (-1), or neither (0)."""
        like = [i for i in self.like if i != id] + [id] * (rating > 0)
        unlike = [i for i in self.unlike if i != id] + [id] * (rating < 0)
        return replace(self, like=tuple(like), unlike=tuple(unlike))

    def rating(self, id: str) -> int:
        """1 for a tile that is wanted, -1 for one that is not, 0 for any other."""
        return (id in self.like) - (id in self.unlike)

    def link(self) -> str:
        """The search as the part of a link after "?"; "" for nothing asked."""
        given = {
            "archive": self.archive,
            "tile": self.tile,
            "image": self.image,
            "scene": self.scene,
            "window": _degrees(self.window),
            "like": self.like,
            "unlike": self.unlike,
            "area": _degrees(self.area),
            "from": self.start,
            "to": self.end,
            "class": self.classes,
            "ranking": self.ranking,
            "varied": "1" if self.varied else None,
            "count": None if self.count == COUNT else self.count,
        }
        return urlencode({name: value for name, value in given.items() if value}, doseq=True)


def asked(link: str) -> SearchState:
    """What `SearchState.link` says.

    Raises UsageError for a part that does not make sense; unknown parts are left alone, as links
    that travel get some added.
    """
    parts: dict[str, list[str]] = {}
    for name, value in parse_qsl(link.removeprefix("?")):
        parts.setdefault(name, []).append(value)
    image, window = _one(parts, "image"), _one(parts, "window")
    scene = _one(parts, "scene")
    if (scene is None) != (window is None):
        raise UsageError("the link names a scene without a rectangle of it, or the reverse")
    count = _one(parts, "count")
    if count is not None and (not count.isascii() or not count.isdigit() or not int(count)):
        raise UsageError(f"the link's count {count!r} is not a number of results")
    found = SearchState(
        archive=_one(parts, "archive") or "",
        tile=_one(parts, "tile"),
        image=image,
        scene=scene,
        window=_bounds("window", window),
        like=_distinct(parts.get("like", ())),
        unlike=_distinct(parts.get("unlike", ())),
        area=_bounds("area", _one(parts, "area")),
        start=day(_one(parts, "from")),
        end=day(_one(parts, "to")),
        classes=_distinct(parts.get("class", ())),
        ranking=_one(parts, "ranking"),
        varied=_one(parts, "varied") == "1",
        count=COUNT if count is None else int(count),
    )
    if sum(map(bool, (found.tile, found.image, found.window))) > 1:
        raise UsageError("the link names more than one query; it should name one")
    return found


def day(text: str | None) -> date | None:
    """A day as "2024-05-31"; None of None and ""; UsageError for anything else."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a day such as 2024-05-31") from error


def bounds_of(corners: Iterable[object]) -> Bounds:
    """(west, south, east, north) of what a map or a link gives; UsageError if it is none.

    A map can be dragged around the globe: the west is brought into [-180, 180), and the east
    too, so that west > east is a box over the antimeridian (as `Filter` has it).
    """
    try:
        west, south, east, north = (float(str(corner)) for corner in corners)
    except ValueError as error:
        raise UsageError("a rectangle is four numbers: west, south, east, north") from error
    if not (-90 <= south <= north <= 90 and abs(west) <= 1e4 and west <= east <= 1e4):
        if not (-90 <= south <= north <= 90 and -180 <= east <= west <= 180):
            raise UsageError("a rectangle is west, south, east, north, in degrees")
        return west, south, east, north
    if east - west >= 360:
        return -180.0, south, 180.0, north
    if west >= -180 and east <= 180:
        return west, south, east, north
    return _turned(west), south, _turned(east), north


def _turned(longitude: float) -> float:
    return (longitude + 180) % 360 - 180


def _degrees(bounds: Bounds | None) -> str | None:
    return None if bounds is None else ",".join(str(round(value, _DECIMALS)) for value in bounds)


def _bounds(name: str, text: str | None) -> Bounds | None:
    if text is None:
        return None
    try:
        return bounds_of(text.split(","))
    except UsageError as error:
        raise UsageError(f"the link's {name}: {error}") from error


def _one(parts: Mapping[str, Sequence[str]], name: str) -> str | None:
    return parts[name][-1] if parts.get(name) else None


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
