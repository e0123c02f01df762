"""The sources of an archive by id, and map tiles with the bands and stretch of its scenes."""

from __future__ import annotations

import hashlib
import io
import math
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from cachetools import LRUCache, TTLCache, cachedmethod

from rsir.errors import DataError, MissingExtraError, UsageError
from rsir.geo.footprint import footprint
from rsir.geo.geometry import bbox_of
from rsir.geo.georeference import crs_and_transform, gdal_errors
from rsir.scenes.scene import ground_pixel
from rsir.scenes.stretch import Stretch
from rsir.scenes.tile_cut import TileCut
from rsir.scenes.units import in_units, units_of
from rsir.sources.source import Asset
from rsir.store.filters.filter import Filter
from rsir.store.filters.sql import sql_text
from rsir.types import Bounds
from rsir.web.problems import GoneError, NotFoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rsir.archive.archive import Archive
    from rsir.store.records.record import Record
    from rsir.store.records.summary import SourceSummary

TileFormat = Literal["png", "webp"]

SIDE = 256
"""Side of a map tile in pixels: every map library expects this."""

_EARTH_RADIUS = 6_378_137.0
"""Metres; of Web Mercator, EPSG:3857."""
_MOST_ZOOM = 24

_ID_BYTES = 8  # 16 hex digits: an archive has some ten thousand scenes
_VERSION_SECONDS = 1.0
"""Interval at which the archive's version is read again; our choice."""
_LIST_SECONDS = 60.0
"""Interval at which the sources of an archive without a version are listed again; our choice:
listing reads all records, a second for some 10^5."""


def scene_id(source: str) -> str:
    """The name of a source in addresses, 16 hex digits; its path or URI does not appear there."""
    return hashlib.blake2b(source.encode(), digest_size=_ID_BYTES).hexdigest()


class Scenes:
    """The sources of one archive; for several threads."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._version: TTLCache[Any, Any] = TTLCache(1, _VERSION_SECONDS)
        self._listed: LRUCache[Any, Mapping[str, SourceSummary]] = LRUCache(1)

    def all(self) -> Mapping[str, SourceSummary]:
        """All sources by id, ordered by source; at most a second old."""
        with self._lock:
            return self._list(self._current_version())

    @cachedmethod(attrgetter("_version"))
    def _current_version(self) -> Any:
        version = self._archive.info()["version"]
        return time.monotonic() // _LIST_SECONDS if version is None else version

    @cachedmethod(attrgetter("_listed"))
    def _list(self, _version: Any) -> Mapping[str, SourceSummary]:
        return {scene_id(source.source): source for source in self._archive.sources()}

    def of(self, scene: str) -> SourceSummary:
        """The source of a scene's id; NotFoundError if the archive has none."""
        source = self.all().get(scene)
        if source is None:
            raise NotFoundError(f"the archive has no scene {scene}; see its list of scenes")
        return source

    def style(self, scene: str) -> SceneStyle:
        """How to show a scene; NotFoundError if the archive does not have the scene."""
        source = self.of(scene).source
        where = f"source = {sql_text(source)}"
        record = next(self._archive.records(Filter(where=where)), None)
        if record is None:
            raise NotFoundError(f"the archive no longer has the scene {scene}")
        return SceneStyle.of(record)


@dataclass(frozen=True, slots=True)
class SceneStyle:
    """The bands that show a scene, and their stretch.

    bands: references as in `rsir.scenes.scene.Scene.refs`; None: red, green and blue, or grey.
    """

    source: str
    bands: tuple[str, ...] | None
    stretch: Stretch

    @classmethod
    def of(cls, record: Record) -> SceneStyle:
        """The style of one of the scene's tiles; a picture that is no scene keeps its colours."""
        cut = TileCut.of(record.properties)
        if cut is None:
            return cls(record.source, None, Stretch("none"))
        return cls(record.source, cut.bands, cut.stretch)


def extent_and_zooms(style: SceneStyle) -> tuple[Bounds, int, int]:
    """A scene's bounds (west, south, east, north) in degrees, and its least and greatest zoom.

    The bounds are those of all pixels, also of those that no item has. TileJSON forbids that west
    exceeds east, so across the antimeridian they are -180 and 180. At the greatest zoom a pixel of
    a map tile is no larger than one of the scene; at the least, the scene is about as large as a
    map tile.
    Errors: GoneError and NotFoundError as `tile`.
    """
    with ExitStack() as stack:
        scene = _readers(style, stack)[0][0].dataset
        located = crs_and_transform(scene)
        window = (0, 0, scene.width, scene.height)
        around = None if located is None else bbox_of(footprint(located[1], located[0], window))
        if located is None or around is None:
            raise NotFoundError(f"{style.source}: its place is unknown, so no map can show it")
        crs, transform = located
    west, south, east, north = around
    middle = (scene.width / 2, scene.height / 2)
    reach = (scene.width / 4, scene.height / 4)
    metres = min(ground_pixel(transform, crs, middle, reach) or (math.inf,))
    # A pixel of Web Mercator at zoom 0, at the scene's middle; the map ends at 85.06°.
    latitude = math.radians(min(abs(south + north) / 2, 85.06))
    pixel = 2 * math.pi * _EARTH_RADIUS * math.cos(latitude) / SIDE
    greatest = 0 if metres <= 0 else math.ceil(math.log2(max(pixel / metres, 1)) - 1e-6)
    greatest = min(greatest, _MOST_ZOOM)
    smaller = math.log2(max(max(scene.width, scene.height) / SIDE, 1))
    least = max(0, min(greatest, math.floor(greatest - smaller)))
    return (
        ((west, south, east, north) if west <= east else (-180, south, 180, north)),
        least,
        greatest,
    )


def tile(style: SceneStyle, z: int, x: int, y: int, format: TileFormat) -> bytes:
    """A map tile (XYZ, Web Mercator) of a scene, 256 × 256, transparent where it has no data.

    Errors: NotFoundError for a tile that Web Mercator does not have, and for a picture without a
    georeference; GoneError if the scene's files are gone or unreadable; MissingExtraError without
    rio-tiler.
    """
    from PIL import Image

    from rsir.scenes.looks import Look

    if not (0 <= x < 2**z and 0 <= y < 2**z):
        raise NotFoundError(f"there is no map tile {z}/{x}/{y}")
    with ExitStack() as stack:
        parts = []
        valid = np.zeros((SIDE, SIDE), bool)
        for reader, indexes, asset in _readers(style, stack):
            look = Look.of(reader.dataset, None)
            has_palette = look.palette is not None
            stored = (1,) if has_palette else indexes
            # The mean of two indexes of a palette is the index of another colour.
            method = "nearest" if has_palette else "bilinear"
            try:
                samples, seen = _samples(reader, z, x, y, stored, method)
            except gdal_errors() as error:
                raise GoneError(
                    f"{style.source}: that part is damaged, or the file is gone"
                ) from error
            if has_palette:
                parts.append(look.shown(np.repeat(samples, 3, axis=0), [0, 1, 2]))
            else:
                units = [units_of(asset, i, reader.dataset.dtypes[i - 1]) for i in indexes]
                parts.append(in_units(look.shown(samples, [None] * len(samples)), units))
            valid |= seen
    pixels = style.stretch(np.concatenate(parts))
    if len(pixels) != 3:
        pixels = np.repeat(pixels[:1], 3, axis=0)
    alpha = np.where(valid, np.uint8(255), np.uint8(0))[None]
    buffer = io.BytesIO()
    picture = Image.fromarray(np.concatenate([pixels, alpha]).transpose(1, 2, 0), "RGBA")
    picture.save(buffer, format.upper())
    return buffer.getvalue()


def _samples(
    reader: Any, z: int, x: int, y: int, indexes: tuple[int, ...], method: str
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The samples of a map tile, (C, 256, 256), and which of them lie in the scene, (256, 256)."""
    from rasterio.crs import CRS

    turn = 2 * math.pi * _EARTH_RADIUS
    left, bottom, right, top = reader.tms.xy_bounds(x, y, z)
    # A scene whose columns go beyond ±180° appears on the other side of the globe too.
    west, _, east, _ = reader.dataset.bounds
    map_crs, limit = reader.tms.rasterio_crs, math.inf
    if reader.crs.is_geographic:
        map_crs, limit = CRS.from_user_input("+proj=webmerc +datum=WGS84 +over"), 180
    elif reader.crs == map_crs:
        limit = turn / 2
    turns = [0, *([-1] if west < -limit else []), *([1] if east > limit else [])]
    parts = []
    for number in turns:
        box = (left + number * turn, bottom, right + number * turn, top)
        read = reader.part(
            box, dst_crs=map_crs, bounds_crs=map_crs, width=SIDE, height=SIDE, indexes=indexes,
            resampling_method=method, reproject_method=method,
        )  # fmt: skip
        parts.append((np.ma.getdata(read.array), ~np.ma.getmaskarray(read.array)[0]))
    return np.where(parts[0][1], parts[0][0], parts[-1][0]), np.any([part[1] for part in parts], 0)


def _readers(style: SceneStyle, stack: ExitStack) -> list[tuple[Any, tuple[int, ...], Asset]]:
    """rio-tiler's readers of the files with the bands, and the bands to read of each, in order."""
    import rasterio

    try:
        from rio_tiler.io import Reader
    except ImportError:
        raise MissingExtraError("tiles of scenes", "web") from None
    from rsir.scenes.datasets import open_dataset, placed
    from rsir.sources.find import source

    _quiet_about_overviews()
    try:
        assets = {asset.key: asset for asset in source(style.source).assets}
    except DataError as error:
        raise GoneError(str(error)) from error
    readers = []
    for key, indexes in _files_and_bands(style):
        asset = assets.get(key, Asset(style.source))
        uri = asset.uri
        try:
            opened, options = open_dataset(uri, stack)
            stack.enter_context(rasterio.Env(**options))
            reader = stack.enter_context(Reader(None, dataset=placed(opened, stack)))
        except DataError as error:
            raise GoneError(f"{uri}: cannot be opened; is it gone or damaged?") from error
        if reader.crs is None:
            raise NotFoundError(f"{uri} has no georeference, so no map can show it")
        shown = indexes or ((1, 2, 3) if reader.dataset.count >= 3 else (1,))
        readers.append((reader, shown, asset))
    return readers


def _files_and_bands(style: SceneStyle) -> list[tuple[str, tuple[int, ...]]]:
    """Keys of files and the bands to read of each, from references such as "red=B04:1", "red=3"."""
    if style.bands is None:
        return [("", ())]
    files: list[tuple[str, tuple[int, ...]]] = []
    for ref in style.bands:
        key, _, index = ref.rpartition("=")[2].rpartition(":")
        if not index.isdecimal():
            raise UsageError(
                f"{style.source}: its items do not name the bands that they show ({ref})"
            )
        if files and files[-1][0] == key:
            files[-1] = (key, (*files[-1][1], int(index)))
        else:
            files.append((key, (int(index),)))
    return files


def _quiet_about_overviews() -> None:
    """Ignore rio-tiler's warning about scenes without overviews, which are only slower to read.

    Threads share the filters of warnings, so the filter stays set.
    """
    from rio_tiler.errors import NoOverviewWarning

    first = next((w for w, _, kind, *_ in warnings.filters if kind is NoOverviewWarning), "")
    if first != "ignore":
        warnings.filterwarnings("ignore", category=NoOverviewWarning)
