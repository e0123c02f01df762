"""The kinds of queries by which an archive can be searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.types import Bounds


class Query:
    """A query; the subclasses are its kinds. `as_query` makes a Query from paths and arrays.

    kind: one word for logs: "id", "file", "window", "image", "vector" or "examples".
    """

    __slots__ = ()
    kind: ClassVar[str]

    @property
    def parts(self) -> tuple[Query, ...]:
        """The query itself; of `Examples`, all queries in it."""
        return (self,)

    @property
    def holds_image(self) -> bool:
        """Whether the model must encode an image for this query."""
        return any(part.kind in ("file", "window", "image") for part in self.parts)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the tiles that the query names; they are not among its hits."""
        return frozenset(part.id for part in self.parts if isinstance(part, ById))

    @property
    def sources(self) -> frozenset[str]:
        """The indexed sources of which the query reads a window."""
        return frozenset(part.source for part in self.parts if isinstance(part, ByWindow))


@dataclass(frozen=True, slots=True)
class ById(Query):
    """Search by a tile of the archive; that tile is not among the hits."""

    kind = "id"
    id: str

    def __str__(self) -> str:
        return f"the tile {self.id}"


@dataclass(frozen=True, slots=True)
class ByPath(Query):
    """Search by an image file, read as a plain picture if possible, else as by `ByFile`."""

    kind = "file"
    path: str | Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ByFile(Query):
    """Search by an image file that is read like a scene: by bands, with a stretch.

    bands: as in `rsir.scenes.scene.Scene.open`; None: the archive's bands. stretch: a text for
    `rsir.scenes.stretch.Stretch.parse`. Use the bands and the stretch of the archive's tiles. An
    image of more than 2048 pixels a side is read at a smaller size; nodata is 0.
    """

    kind = "file"
    path: str | Path
    bands: Sequence[str] | None = None
    stretch: str = "auto"

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ByWindow(Query):
    """Search by a part of an indexed scene, read with the bands and the stretch of its tiles.

    source: a source of the archive, by its name or by a path to it. Give one of these: bbox, (west,
    south, east, north) in degrees, WGS 84: the scene's smallest window around this box; point,
    (longitude, latitude), with size, the side in metres of a square around the point; window,
    (column, row, width, height) in pixels of the scene. Parts outside the scene are left out.

    Raises UsageError unless exactly one of these is given, with finite numbers.
    """

    kind = "window"
    source: str
    bbox: Bounds | None = None
    point: tuple[float, float] | None = None
    size: float | None = None
    window: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        given = [self.bbox is not None, self.point is not None, self.window is not None]
        if sum(given) != 1 or (self.point is None) != (self.size is None):
            raise UsageError("a window is a bbox, a point with a size, or pixels: give one of them")
        if self.bbox is not None:
            _check_numbers("a bbox", self.bbox, "west, south, east, north in degrees")
        if self.point is not None:
            _check_numbers("a point", self.point, "longitude, latitude in degrees")
            _check_numbers("a size", (self.size,), "metres")
        if self.window is not None:
            _check_numbers(
                "a window", self.window, "column, row, width, height in pixels", Integral
            )

    def __str__(self) -> str:
        return f"a window of {self.source}"


@dataclass(frozen=True, slots=True, eq=False)
class ByPixels(Query):
    """Search by an image: pixels (C, H, W) uint8 in the archive's bands. name: for messages."""

    kind = "image"
    pixels: NDArray[Any]
    name: str = "an image"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class ByVector(Query):
    """Search by a vector: (D,) floats, or a code's row of bytes (`rsir.store.base.Vector`)."""

    kind = "vector"
    vector: NDArray[Any]

    def __str__(self) -> str:
        return "a vector"


@dataclass(frozen=True, slots=True)
class Examples(Query):
    """Search for images like some examples and unlike others (Rocchio).

    like, unlike: any number of queries. query: the query to start from, if any.
    `rsir.archive.search.feedback` computes one vector from all of them. Raises UsageError for a
    single query instead of a list, and for an `Examples` among the examples.
    """

    kind = "examples"
    like: Sequence[QueryLike] = ()
    unlike: Sequence[QueryLike] = ()
    query: QueryLike | None = None

    def __post_init__(self) -> None:
        for name in ("like", "unlike"):
            given = getattr(self, name)
            if isinstance(given, str | Path | Query):
                raise UsageError(f"'{name}' is a list of examples; put [ ] around a single one")
            object.__setattr__(self, name, tuple(given))
        if any(isinstance(part, Examples) for part in (self.query, *self.like, *self.unlike)):
            raise UsageError("examples cannot be made of examples; give their parts")

    @property
    def parts(self) -> tuple[Query, ...]:
        """All queries in it: `query`, then `like`, then `unlike`."""
        first = () if self.query is None else (self.query,)
        return tuple(map(as_query, (*first, *self.like, *self.unlike)))

    def __str__(self) -> str:
        return f"{len(self.like)} examples and {len(self.unlike)} counterexamples"


QueryLike = Query | str | Path | NDArray[Any]
"""The argument of a search: a `Query`; the path of an image file; pixels (C, H, W) uint8 in the
archive's bands; an embedding (D,) of floats, or a code's row of bytes."""


def as_query(given: QueryLike) -> Query:
    """The query for a path or an array; returns a `Query` unchanged.

    Raises UsageError for an array that is neither an image nor a vector.
    """
    if isinstance(given, Query):
        return given
    if isinstance(given, str | Path):
        return ByPath(given)
    array = np.asarray(given)
    if array.ndim == 3:
        return ByPixels(array)
    if array.ndim == 1:
        return ByVector(array)
    raise UsageError(
        "a query is an image file, pixels (C, H, W) uint8, or a vector of the archive's "
        f"dimension, not a {array.ndim}-D array"
    )


def _check_numbers(name: str, given: Any, meaning: str, kind: type = Real) -> None:
    """UsageError unless `given` holds as many finite numbers as `meaning` names, by commas."""
    count = meaning.count(",") + 1
    try:
        numbers = list(given)
    except TypeError:
        numbers = []
    right = len(numbers) == count and all(isinstance(number, kind) for number in numbers)
    if not (right and all(map(math.isfinite, numbers))):
        shown = given[0] if count == 1 else given
        raise UsageError(f"{name} is {meaning}, not {shown!r}")
