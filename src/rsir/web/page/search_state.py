"""The state of a search on the page, and its link; each can be made from the other without loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from rsir.errors import UsageError
from rsir.store.filters.filter import Filter
from rsir.types import Bounds

COUNTS = (50, 200, 1000, 5000)
"""The numbers of results that the visitor can choose from; our choice."""
COUNT = COUNTS[0]

_DECIMALS = 6
"""Decimals of degrees in a link: about 0.1 m."""


@dataclass(frozen=True)
class SearchState:
    """Everything that determines a search.

    archive: its name; "" for the first archive. The query is at most one of `tile`, an id;
    `image`, the token of an uploaded image; `scene`, an id, with `window`, a rectangle of the
    scene (west, south, east, north, degrees). like, unlike: ids of rated tiles. area: the
    rectangle that footprints must touch. start, end: first and last day. ranking: None for the
    archive's own. diverse: whether near-duplicates are left out.
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
    diverse: bool = False
    count: int = COUNT

    NO_FILTER: ClassVar[Mapping[str, Any]] = {
        "area": None,
        "start": None,
        "end": None,
        "classes": (),
    }

    def __bool__(self) -> bool:
        """Whether there is a query or a liked tile to search with."""
        return bool(self.has_query or self.like)

    @property
    def has_query(self) -> bool:
        """Whether there is an image, a tile or a rectangle to search with."""
        return any((self.tile, self.image, self.window))

    @property
    def has_filter(self) -> bool:
        """Whether a filter excludes some records."""
        return any((self.area, self.start, self.end, self.classes))

    @property
    def filter(self) -> Filter | None:
        """The filter of the search; None if it has none.

        Raises UsageError for a filter that makes no sense, e.g. an end before the start.
        """
        if not self.has_filter:
            return None
        return Filter(
            bbox=self.area,
            start=None if self.start is None else datetime.combine(self.start, time.min, UTC),
            end=None if self.end is None else datetime.combine(self.end, time.max, UTC),
            classes=self.classes or None,
        )

    def without_query(self) -> SearchState:
        """The state without its query; the ratings stay."""
        return replace(self, tile=None, image=None, scene=None, window=None)

    def with_query(
        self,
        *,
        tile: str | None = None,
        image: str | None = None,
        scene: str | None = None,
        window: Bounds | None = None,
    ) -> SearchState:
        """The state with another query, and without the ratings, which belong to the old query."""
        return replace(self, tile=tile, image=image, scene=scene, window=window, like=(), unlike=())

    def with_rating(self, id: str, rating: int) -> SearchState:
        """The state with a tile rated as liked (1), not liked (-1), or neither (0)."""
        like = [i for i in self.like if i != id] + [id] * (rating > 0)
        unlike = [i for i in self.unlike if i != id] + [id] * (rating < 0)
        return replace(self, like=tuple(like), unlike=tuple(unlike))

    def rating(self, id: str) -> int:
        """The rating of a tile: 1 for liked, -1 for not liked, 0 for neither."""
        return (id in self.like) - (id in self.unlike)

    def to_link(self) -> str:
        """The state as the query string of a link, without "?"; "" for the default state."""
        parameters = {
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
            "diverse": "1" if self.diverse else None,
            "count": None if self.count == COUNT else self.count,
        }
        return urlencode({name: value for name, value in parameters.items() if value}, doseq=True)

    @classmethod
    def from_link(cls, link: str) -> SearchState:
        """The state that a link describes; the inverse of `to_link`.

        link: a query string, with or without "?". Unknown parameters are ignored, because links
        that are passed on collect some. Raises UsageError for a value that makes no sense.
        """
        parameters: dict[str, list[str]] = {}
        for name, value in parse_qsl(link.removeprefix("?")):
            parameters.setdefault(name, []).append(value)

        def last(name: str) -> str | None:
            return parameters[name][-1] if name in parameters else None

        def distinct(name: str) -> tuple[str, ...]:
            return tuple(dict.fromkeys(parameters.get(name, ())))

        scene, window, count = last("scene"), last("window"), last("count")
        if (scene is None) != (window is None):
            raise UsageError("the link names a scene without a rectangle of it, or the reverse")
        if count is not None and (not count.isascii() or not count.isdigit() or not int(count)):
            raise UsageError(f"the link's count {count!r} is not a number of results")
        state = cls(
            archive=last("archive") or "",
            tile=last("tile"),
            image=last("image"),
            scene=scene,
            window=_bounds("window", window),
            like=distinct("like"),
            unlike=distinct("unlike"),
            area=_bounds("area", last("area")),
            start=day_of(last("from")),
            end=day_of(last("to")),
            classes=distinct("class"),
            ranking=last("ranking"),
            diverse=last("diverse") == "1",
            count=COUNT if count is None else int(count),
        )
        if sum(map(bool, (state.tile, state.image, state.window))) > 1:
            raise UsageError("the link names more than one query; it should name one")
        return state


def day_of(text: str | None) -> date | None:
    """The day of a text such as "2024-05-31"; None for None and ""; else UsageError."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a day such as 2024-05-31") from error


def map_bounds(corners: Iterable[object]) -> Bounds:
    """(west, south, east, north) in degrees, from the corners that a map or a link gives.

    A map can be dragged around the globe, so west and east are brought into [-180, 180); a box
    over the antimeridian then has west > east, as in `Filter`. Raises UsageError for anything
    else than a rectangle.
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
    return _wrapped(west), south, _wrapped(east), north


def _wrapped(longitude: float) -> float:
    return (longitude + 180) % 360 - 180


def _degrees(bounds: Bounds | None) -> str | None:
    return None if bounds is None else ",".join(str(round(value, _DECIMALS)) for value in bounds)


def _bounds(name: str, text: str | None) -> Bounds | None:
    if text is None:
        return None
    try:
        return map_bounds(text.split(","))
    except UsageError as error:
        raise UsageError(f"the link's {name}: {error}") from error
