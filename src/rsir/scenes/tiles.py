"""From a scene to the tiles that the encoder sees, one window at a time."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ImageError
from rsir.geo.footprint import Window, bounds, footprint
from rsir.geo.georeference import gdal_errors
from rsir.images.read import read_tile
from rsir.scenes.chips import is_picture
from rsir.scenes.scene import Scene, settled, to_uint8
from rsir.scenes.stretch import Stretch
from rsir.scenes.tiling import Grid, Tiling, grid
from rsir.sources.find import source
from rsir.sources.masks import beside
from rsir.sources.source import Source, is_remote, kind_of, normal
from rsir.types import Tile

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_ID_BYTES = 12  # as rsir.images.read: 24 hex digits


@dataclass(frozen=True, slots=True)
class SkippedTile:
    """A window of which no tile was made, and why.

    reason: "nodata": too little of it is valid; "cloud": too much of that is cloud; "damaged": it
    cannot be read; "known": the caller has it already. share: of valid pixels, or of cloud among
    them, in 0..1; None for the other reasons. detail: of "damaged", in words.
    """

    id: str
    source: str
    window: Window
    reason: Literal["nodata", "cloud", "damaged", "known"]
    share: float | None = None
    detail: str = ""


def tiles_of(
    what: str | os.PathLike[str] | Source,
    tiling: Tiling,
    *,
    known: Callable[[str], bool] | None = None,
) -> Iterator[Tile | SkippedTile]:
    """The tiles of one scene, opened and closed here; see `tiles`.

    A picture (`rsir.scenes.chips.is_picture`) is read by `rsir.images.read.read_tile`: the same
    tile, with the same id, as from a folder that is not tiled.

    Errors: those of `Scene.open` and `tiles`.
    """
    where = what if isinstance(what, Source) else source(what)
    if not is_picture(where, tiling):
        with Scene.open(where, tiling.bands) as scene:
            yield from tiles(scene, tiling, known=known)
        return
    tile = read_tile(where.uri)
    if known is not None and known(tile.id):
        height, width = tile.pixels.shape[1:]
        yield SkippedTile(tile.id, tile.source, (0, 0, width, height), "known")
    else:
        yield tile


def tiles(
    scene: Scene, tiling: Tiling, *, known: Callable[[str], bool] | None = None
) -> Iterator[Tile | SkippedTile]:
    """The tiles of an open scene, row by row; each window is read when its turn comes.

    Every window of `rsir.scenes.tiling.grid` comes out once, as a Tile or as a SkippedTile. Of a
    Tile: pixels are (C, h, w) uint8 after the stretch, nodata 0; `id` is that of `tile_ids`;
    bounds, CRS, footprint and window are its own; content and datetime are the scene's. Its
    properties are those of the source and: `bands` and `stretch` (settled, as text), which
    `rsir.scenes.tile_cut.TileCut` reads; `gsd`, metres in a pixel of the tile, across and down, if
    known; `valid` and `cloud`, shares of its pixels, where below 1 and where there is a mask.

    known: says of an id whether the caller has it; such windows are not read.

    Errors: those of `grid`; UsageError for a stretch that does not fit; ImageError if the cloud
    mask cannot be opened, or if the scene is damaged all over. A window that cannot be read is a
    SkippedTile, "damaged".
    """
    windows = grid(scene, tiling)
    with ExitStack() as stack:
        mask = _cloud_mask(scene, tiling, stack)
        stretch: Stretch | None = None
        for name, window in zip(_ids(scene, windows, tiling), windows, strict=True):
            if known is not None and known(name):
                yield SkippedTile(name, scene.uri, window, "known")
                continue
            # Not before the first window: a scene that is known needs none.
            stretch = stretch or settled(scene, tiling.stretch)
            try:
                yield _tile(scene, tiling, windows.size, window, name, stretch, mask)
            except ImageError as error:
                detail = str(error).removeprefix(f"{scene.uri}: ")
                yield SkippedTile(name, scene.uri, window, "damaged", detail=detail)


def tile_ids(scene: Scene, tiling: Tiling) -> Iterator[tuple[str, Window]]:
    """The ids and windows that `tiles` gives, in its order, without reading a pixel.

    An id is a digest of the source's uri and content, the window, and all that changes what the
    pixels become: bands, size, resampling, stretch. Thresholds and masks do not change it.
    """
    windows = grid(scene, tiling)
    return zip(_ids(scene, windows, tiling), windows, strict=True)


def _tile(
    scene: Scene,
    tiling: Tiling,
    size: tuple[int, int],
    window: Window,
    name: str,
    stretch: Stretch,
    mask: DatasetReader | None,
) -> Tile | SkippedTile:
    pixels, valid = scene.read(window, size, tiling.resampling)
    share = np.count_nonzero(valid) / valid.size
    if share == 0 or share < tiling.min_valid:
        return SkippedTile(name, scene.uri, window, "nodata", share)
    properties = dict(scene.source.properties)
    if share < 1:
        properties["valid"] = share
    if mask is not None:
        cloud = _cloud_share(mask, window, valid, tiling.cloud_classes, scene)
        if cloud > tiling.max_cloud:
            return SkippedTile(name, scene.uri, window, "cloud", cloud)
        properties["cloud"] = cloud
    properties |= {"bands": list(scene.refs), "stretch": str(stretch)}
    if scene.gsd is not None:
        across, down = scene.gsd
        properties["gsd"] = [across * window[2] / size[1], down * window[3] / size[0]]
    tile = Tile(
        id=name,
        pixels=to_uint8(pixels, valid, stretch),
        source=scene.uri,
        content=scene.content,
        bands=scene.bands,
        datetime=scene.datetime,
        properties=properties,
        window=window,
    )
    if scene.transform is None or scene.crs is None:
        return tile
    # Padding has no place on the ground.
    column, row, width, height = window
    real = (column, row, min(width, scene.width - column), min(height, scene.height - row))
    return replace(
        tile,
        bounds=bounds(scene.transform, real),
        crs=scene.crs,
        footprint=footprint(scene.transform, scene.crs, real),
    )


def _ids(scene: Scene, windows: Grid, tiling: Tiling) -> Iterator[str]:
    pixels = [scene.refs, windows.size, tiling.resampling, str(tiling.stretch)]
    for window in windows:
        said = json.dumps([scene.uri, scene.content, window, *pixels])
        yield hashlib.blake2b(said.encode(), digest_size=_ID_BYTES).hexdigest()


def _cloud_mask(scene: Scene, tiling: Tiling, stack: ExitStack) -> DatasetReader | None:
    wanted = tiling.cloud_mask
    if wanted is None:
        return None
    assets = {asset.key.lower(): asset for asset in scene.source.assets if asset.key}
    if wanted.lower() in assets:
        return scene.beside(assets[wanted.lower()].uri, stack)
    uri = normal(beside(scene.uri, wanted))
    is_key = not re.search(r"[{/]", wanted)
    if assets and is_key and not is_remote(uri) and kind_of(uri) != "File":
        known = ", ".join(asset.key for asset in assets.values())
        raise ImageError(f"{scene.uri}: has no asset '{wanted}' for a cloud mask; it has {known}")
    return scene.beside(uri, stack)


def _cloud_share(
    mask: DatasetReader,
    window: Window,
    valid: NDArray[np.bool_],
    classes: Sequence[int] | None,
    scene: Scene,
) -> float:
    """The share of cloud among the valid pixels of a tile; masks are read to its size, nearest."""
    from rasterio.windows import Window as RasterWindow

    column, row, width, height = window
    inner = RasterWindow(
        column, row, min(width, scene.width - column), min(height, scene.height - row)
    )
    h = max(1, round(valid.shape[0] * inner.height / height))
    w = max(1, round(valid.shape[1] * inner.width / width))
    try:
        values = mask.read(1, window=inner, out_shape=(h, w))
    except gdal_errors() as error:
        raise ImageError(f"{scene.uri}: its cloud mask cannot be read ({error})") from error
    cloudy = values != 0 if classes is None else np.isin(values, classes)
    return float(cloudy[valid[:h, :w]].mean())
