"""What can be asked of an archive, and how it becomes a vector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.search.feedback import refined
from rsir.errors import ImageError, RsirError, UsageError
from rsir.images.read import read_tile
from rsir.ranking import metric_named
from rsir.scenes.bands import RGB
from rsir.scenes.stretch import Stretch
from rsir.scenes.tile_cut import TileCut
from rsir.store.filters.filter import Filter
from rsir.store.filters.sql import sql_text
from rsir.store.records.record import Record
from rsir.types import Bounds, Tile

if TYPE_CHECKING:
    from rsir.archive.archive import Archive


@dataclass(frozen=True, slots=True)
class ById:
    """What looks like the tile of this id; that tile itself is not among the hits."""

    id: str

    def __str__(self) -> str:
        return f"the tile {self.id}"


@dataclass(frozen=True, slots=True)
class ByFile:
    """What looks like an image file that is read as scenes are: by bands, with a stretch.

    bands: as `rsir.scenes.scene.Scene.open` takes them; None: the archive's. stretch: as
    `rsir.scenes.stretch.Stretch.parse` takes it. Both should be those that the archive's tiles were
    read with. More than 2048 pixels a side are read smaller; nodata is 0.
    """

    path: str | Path
    bands: Sequence[str] | None = None
    stretch: str = "auto"

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ByWindow:
    """What looks like a part of an indexed scene, cut out and stretched as its tiles were.

    source: of the archive's sources. One of: bbox, (west, south, east, north) in degrees, WGS 84,
    the scene's smallest window around it; point, (longitude, latitude), and size, the side of a
    square around it in metres; window, (column, row, width, height) in pixels of the scene. What
    of it lies outside the scene is left out.

    Raises UsageError if it is not one of them, or not of finite numbers.
    """

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


@dataclass(frozen=True, slots=True)
class Examples:
    """What looks like the ones and not like the others.

    After Rocchio (`rsir.archive.search.feedback`).

    like, unlike: any number; query: what was asked first, if anything was. Each is a query of its
    own, but not Examples again. Raises UsageError where one stands instead of several.
    """

    like: Sequence[Single] = ()
    unlike: Sequence[Single] = ()
    query: Single | None = None

    def __post_init__(self) -> None:
        for name in ("like", "unlike"):
            given = getattr(self, name)
            if isinstance(given, str | Path | ByFile | ById | ByWindow | Examples):
                raise UsageError(f"'{name}' is a list of examples; put [ ] around the one")
            object.__setattr__(self, name, tuple(given))

    def parts(self) -> list[Single]:
        """All of them: the query, what is liked, what is not."""
        return [*([] if self.query is None else [self.query]), *self.like, *self.unlike]

    def __str__(self) -> str:
        return f"{len(self.like)} examples and {len(self.unlike)} counterexamples"


Single = str | Path | NDArray[Any] | ByFile | ById | ByWindow
"""An image file, plain or read as `ByFile` says; pixels (C, H, W) uint8 in the archive's bands; an
embedding (D,) of floats; or, in an archive of hash codes, a row of bytes as it keeps them
(`rsir.store.base.Vector`)."""

Query = Single | Examples


def named(query: Query) -> set[str]:
    """The ids of the tiles that a query names: they are not among its hits."""
    parts = query.parts() if isinstance(query, Examples) else [query]
    return {part.id for part in parts if isinstance(part, ById)}


def vectors_of(archive: Archive, queries: Sequence[Query]) -> NDArray[Any]:
    """(Q, width) vectors of `queries`; all images among them are encoded in one call.

    Raises UsageError for what is no query of this archive, ImageError for a file that cannot be
    read, ArchiveError for an unknown id.
    """
    metric = metric_named(archive.metric)
    singles = list(_singles(queries))
    vectors = np.empty((len(singles), metric.width(archive.dimension)), archive.dtype)
    images: dict[int, NDArray[np.uint8]] = {}
    ids: dict[int, str] = {}
    for place, query in enumerate(singles):
        is_image = isinstance(query, ByFile | ByWindow | str | Path) or (
            not isinstance(query, ById) and np.ndim(query) == 3
        )
        if is_image and not archive.bands:
            raise UsageError(
                f"{archive.path} holds embeddings made elsewhere: search it by id or by vector"
            )
        if isinstance(query, ById):
            ids[place] = query.id
        elif isinstance(query, ByWindow):
            images[place] = window_pixels(archive, query)
        elif isinstance(query, ByFile | str | Path):
            images[place] = image_pixels(query, archive.bands)
        else:
            array = np.asarray(query)
            if array.ndim == 3:
                images[place] = _checked_pixels(archive.bands, array)
            elif array.ndim == 1:
                vectors[place] = metric.check(array[None], archive.dimension, "the query")[0]
            else:
                raise UsageError(
                    "a query is an image file, pixels (C, H, W) uint8, or a vector "
                    f"({archive.dimension} long), not a {array.ndim}-D array"
                )
    if ids:
        vectors[list(ids)] = archive.vectors(list(ids.values()))
    if images:
        vectors[list(images)] = archive.encode(list(images.values()))
    rows = iter(vectors)
    found = []
    for asked_for in queries:
        if not isinstance(asked_for, Examples):
            found.append(next(rows))
            continue
        asked = None if asked_for.query is None else next(rows)
        like, unlike = (
            np.array([next(rows) for _ in some], vectors.dtype).reshape(-1, vectors.shape[1])
            for some in (asked_for.like, asked_for.unlike)
        )
        found.append(refined(metric, archive.dimension, asked, like, unlike))
    return np.stack(found)


def check_bands(archive: Archive, tile: Tile) -> None:
    """ImageError if a tile has other bands than the archive's model takes."""
    if tile.bands != archive.bands:
        raise _other_bands(tile, archive.bands)


def _other_bands(tile: Tile, bands: tuple[str, ...]) -> ImageError:
    return ImageError(
        f"{tile.source}: has the bands {', '.join(tile.bands)}, the archive's model takes "
        f"{', '.join(bands)}"
    )


def image_pixels(query: ByFile | str | Path, bands: tuple[str, ...]) -> NDArray[np.uint8]:
    """(C, H, W) uint8 of an image file, in the `bands` of an archive.

    A path is read as a plain image if it is one, else as `ByFile` says. Raises ImageError for one
    that is not there or is neither, UsageError for bands or a stretch that do not fit it.
    """
    path = query.path if isinstance(query, ByFile) else query
    if not Path(path).exists():
        raise ImageError(f"{path}: no such file; check the path")
    if isinstance(query, ByFile):
        return _scene_pixels(query, bands)
    try:
        tile = read_tile(path)
    except ImageError as plain:
        try:
            return _scene_pixels(ByFile(path), bands)
        except UsageError:
            raise  # it is a scene, of other bands; which, is said
        except RsirError:
            raise plain from None
    if tile.bands == bands:
        return tile.pixels
    try:
        return _scene_pixels(ByFile(path), bands)
    except RsirError:
        raise _other_bands(tile, bands) from None


def _scene_pixels(query: ByFile, bands: tuple[str, ...]) -> NDArray[np.uint8]:
    from rsir.scenes.windows import read_window

    usual = None if bands == RGB else bands
    wanted = tuple(query.bands) if query.bands else usual
    try:
        cut = TileCut(bands=wanted, stretch=Stretch.parse(query.stretch))
        pixels = read_window(str(Path(query.path).absolute()), cut)
    except UsageError as error:
        if query.bands is not None:
            raise
        raise UsageError(f"{error}: by --bands, or ByFile in Python") from error
    return _checked_pixels(bands, pixels)


def window_pixels(archive: Archive, query: ByWindow) -> NDArray[np.uint8]:
    """(C, h, w) uint8 of a window, read with the bands, the stretch and the scale of its tiles.

    Raises UsageError for a source that the archive has not, and for a window outside of it or, in
    degrees, of a picture without a georeference; ImageError if it cannot be read.
    """
    where = f"source = {sql_text(query.source)}"
    record = next(archive.records(Filter(where=where)), None)
    if record is None:
        raise UsageError(f"the archive has nothing of {query.source}; see its list of sources")
    cut = TileCut.of(record.properties)
    if cut is None:
        return _crop(query, record)
    from rsir.scenes.windows import read_window

    return read_window(
        query.source, cut, bbox=query.bbox, point=query.point, size=query.size,
        window=query.window,
    )  # fmt: skip


def _crop(query: ByWindow, record: Record) -> NDArray[np.uint8]:
    """A window of a picture that was indexed whole."""
    if query.window is None:
        raise UsageError(
            f"{query.source} is one image, not a scene cut into tiles: search by its id, or give "
            "the window in pixels"
        )
    pixels = read_tile(record.source).pixels
    column, row, width, height = query.window
    left, top = max(column, 0), max(row, 0)
    part = pixels[:, top : max(row + height, 0), left : max(column + width, 0)]
    if not part.size:
        raise UsageError(f"the window {query.window} is not in {query.source}")
    return part


def _singles(queries: Sequence[Query]) -> Iterator[Single]:
    for query in queries:
        if not isinstance(query, Examples):
            yield query
            continue
        if any(isinstance(part, Examples) for part in query.parts()):
            raise UsageError("examples cannot be made of examples; give their parts")
        yield from query.parts()


def _check_numbers(what: str, given: Any, names: str, kind: type = Real) -> None:
    count = names.count(",") + 1
    try:
        numbers = list(given)
    except TypeError:
        numbers = []
    right = len(numbers) == count and all(isinstance(number, kind) for number in numbers)
    if not (right and all(map(math.isfinite, numbers))):
        shown = given[0] if count == 1 else given
        raise UsageError(f"{what} is {names}, not {shown!r}")


def _checked_pixels(bands: tuple[str, ...], pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.shape[0] != len(bands) or not pixels.size:
        raise UsageError(
            f"an image is a (C, H, W) uint8 array of the bands {', '.join(bands)}, not "
            f"{pixels.shape} {pixels.dtype}"
        )
    return pixels
