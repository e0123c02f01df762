"""The sources of an archive by id, and their map tiles: the scene as the archive's tiles saw it."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rsir.errors import DataError, MissingExtraError, UsageError
from rsir.scenes.stretch import Stretch
from rsir.scenes.tile_cut import TileCut
from rsir.store.filters.filter import Filter
from rsir.store.filters.sql import sql_text
from rsir.web.problems import GoneError, NotFoundError

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.store.records.record import Record
    from rsir.store.records.summary import SourceSummary

Format = Literal["png", "webp"]

SIDE = 256
"""Pixels of a map tile: what every map library takes."""

_ID_BYTES = 8  # 16 hex digits: an archive has some ten thousand scenes
_LOOK_SECONDS = 1.0
_OLD = 60.0
"""So often it is looked whether the archive has changed; where it does not tell, its sources are
listed anew after a minute. Our choice: listing reads all records, a second for some 10^5."""


def scene_id(source: str) -> str:
    """The name of a source in addresses, 16 hex digits: paths and uris do not go there."""
    return hashlib.blake2b(source.encode(), digest_size=_ID_BYTES).hexdigest()


class Scenes:
    """What one archive knows of its sources; for several threads."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._known: dict[str, SourceSummary] = {}
        self._version: object = None
        self._looked = self._made = -np.inf

    def all(self) -> Mapping[str, SourceSummary]:
        """All sources by id, ordered by source; at most a second old."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked > _LOOK_SECONDS:
                version = self._archive.info()["version"]
                if version != self._version or (version is None and now - self._made > _OLD):
                    self._known = {scene_id(s.source): s for s in self._archive.sources()}
                    self._version, self._made = version, now
                self._looked = time.monotonic()
            return self._known

    def of(self, scene: str) -> SourceSummary:
        """The source of an id; NotFoundError if the archive has none."""
        found = self.all().get(scene)
        if found is None:
            raise NotFoundError(f"the archive has no scene {scene}; see its list of scenes")
        return found

    def look(self, scene: str) -> Look:
        """How the tiles of a scene look; NotFoundError if it is not, or no more, in the archive."""
        source = self.of(scene).source
        where = f"source = {sql_text(source)}"
        record = next(self._archive.records(Filter(where=where)), None)
        if record is None:
            raise NotFoundError(f"the archive has no scene {scene} any more")
        return Look.of(record)


@dataclass(frozen=True, slots=True)
class Look:
    """Which bands of which files show a scene, and how they are stretched.

    bands: refs as `rsir.scenes.scene.Scene.refs` has them; None: red, green and blue, or grey.
    """

    source: str
    bands: tuple[str, ...] | None
    stretch: Stretch

    @classmethod
    def of(cls, record: Record) -> Look:
        """That of one of the scene's items; of a picture that is no scene, its own colours."""
        cut = TileCut.of(record.properties)
        if cut is None:
            return cls(record.source, None, Stretch("none"))
        return cls(record.source, cut.bands, cut.stretch)


def place(look: Look) -> tuple[tuple[float, float, float, float], int, int]:
    """Bounds of a scene in degrees, and the zoom levels from its overview to its pixels.

    Errors: GoneError, NotFoundError as `tile`.
    """
    with ExitStack() as stack:
        reader = _readers(look, stack)[0][0]
        west, south, east, north = reader.get_geographic_bounds("EPSG:4326")
        return (west, south, east, north), reader.minzoom, reader.maxzoom


def tile(look: Look, z: int, x: int, y: int, format: Format) -> bytes:
    """The map tile (XYZ, Web Mercator) of a scene, 256 × 256, transparent where it has no data.

    Errors: NotFoundError for a tile beside the scene, and for a picture without a georeference;
    GoneError if its files are gone or cannot be read; MissingExtraError without rio-tiler.
    """
    from PIL import Image
    from rio_tiler.errors import TileOutsideBounds

    from rsir.geo.georeference import gdal_errors

    if not (0 <= x < 2**z and 0 <= y < 2**z):
        raise NotFoundError(f"there is no map tile {z}/{x}/{y}")
    with ExitStack() as stack:
        parts = []
        valid = np.zeros((SIDE, SIDE), bool)
        for reader, indexes in _readers(look, stack):
            try:
                seen = reader.tile(x, y, z, SIDE, indexes, resampling_method="bilinear")
            except TileOutsideBounds:
                raise NotFoundError(f"the map tile {z}/{x}/{y} is beside the scene") from None
            except gdal_errors() as error:
                raise GoneError(f"{look.source}: is damaged there, or gone") from error
            parts.append(np.ma.getdata(seen.array))
            valid |= ~np.ma.getmaskarray(seen.array).all(axis=0)
    pixels = look.stretch(np.concatenate(parts))
    if len(pixels) != 3:
        pixels = np.repeat(pixels[:1], 3, axis=0)
    alpha = np.where(valid, np.uint8(255), np.uint8(0))[None]
    buffer = io.BytesIO()
    picture = Image.fromarray(np.concatenate([pixels, alpha]).transpose(1, 2, 0), "RGBA")
    picture.save(buffer, format.upper())
    return buffer.getvalue()


def _readers(look: Look, stack: ExitStack) -> list[tuple[Any, tuple[int, ...]]]:
    """rio-tiler's readers of the files that hold the bands, and which of their bands, in order."""
    import rasterio

    try:
        from rio_tiler.io import Reader
    except ImportError:
        raise MissingExtraError("tiles of scenes", "web") from None
    from rsir.geo.georeference import gdal_errors, ignore_not_georeferenced
    from rsir.sources.find import is_remote, source

    ignore_not_georeferenced()
    _quiet_about_overviews()
    try:
        uris = {asset.key: asset.uri for asset in source(look.source).assets}
    except DataError as error:
        raise GoneError(str(error)) from error
    found = []
    for key, indexes in _wanted(look):
        uri = uris.get(key, look.source)
        try:
            opened = rasterio.open(uri if is_remote(uri) else Path(uri))
            reader = stack.enter_context(Reader(None, dataset=stack.enter_context(opened)))
        except gdal_errors() as error:
            raise GoneError(f"{uri}: cannot be opened; is it gone or damaged?") from error
        if reader.crs is None:
            raise NotFoundError(f"{uri} has no georeference, and so no place on a map")
        found.append((reader, indexes or ((1, 2, 3) if reader.dataset.count >= 3 else (1,))))
    return found


def _wanted(look: Look) -> list[tuple[str, tuple[int, ...]]]:
    """Keys of files and the bands to read of each, from refs such as "red=B04:1" or "red=3"."""
    if look.bands is None:
        return [("", ())]
    found: list[tuple[str, tuple[int, ...]]] = []
    for ref in look.bands:
        key, _, index = ref.rpartition("=")[2].rpartition(":")
        if not index.isdecimal():
            raise UsageError(f"{look.source}: its items do not say which bands they show ({ref})")
        if found and found[-1][0] == key:
            found[-1] = (key, (*found[-1][1], int(index)))
        else:
            found.append((key, (int(index),)))
    return found


def _quiet_about_overviews() -> None:
    """A scene without overviews is only slower; filters are shared by threads, so it stays set."""
    from rio_tiler.errors import NoOverviewWarning

    first = next((w for w, _, kind, *_ in warnings.filters if kind is NoOverviewWarning), "")
    if first != "ignore":
        warnings.filterwarnings("ignore", category=NoOverviewWarning)
