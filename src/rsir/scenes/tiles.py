"""Cut a scene into the tiles that the encoder gets, reading one window at a time."""

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
from rsir.images.read import ID_BYTES, read_tile
from rsir.scenes.chips import is_picture
from rsir.scenes.scene import Scene, settled, to_uint8
from rsir.scenes.stretch import Stretch
from rsir.scenes.tiling import Grid, Tiling, grid
from rsir.scenes.units import check_range
from rsir.sources.find import source
from rsir.sources.masks import beside
from rsir.sources.source import Source, file_type, is_remote, normal
from rsir.types import Tile

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


@dataclass(frozen=True, slots=True)
class SkippedTile:
    """A window that gives no tile, and the reason.

    reason: "nodata": too few pixels are valid; "cloud": too many valid pixels are cloud; "damaged":
    the window cannot be read; "known": the caller has its tile already. share: in 0..1, of valid
    pixels for "nodata", of cloud among the valid pixels for "cloud"; otherwise None. detail: the
    error of "damaged".
    """

    id: str
    source: str
    window: Window
    reason: Literal["nodata", "cloud", "damaged", "known"]
    share: float | None = None
    detail: str = ""


def tiles_of(
    scene: str | os.PathLike[str] | Source,
    tiling: Tiling,
    *,
    known: Callable[[str], bool] | None = None,
) -> Iterator[Tile | SkippedTile]:
    """Open a scene, yield its tiles, and close it; see `tiles`.

    `rsir.images.read.read_tile` reads a picture (`rsir.scenes.chips.is_picture`), so it gives the
    same tile, with the same id, as without a tiling.

    Errors: those of `Scene.open` and `tiles`.
    """
    found = scene if isinstance(scene, Source) else source(scene)
    if not is_picture(found, tiling):
        with Scene.open(found, tiling.bands) as opened:
            yield from tiles(opened, tiling, known=known)
        return
    tile = read_tile(found.uri)
    if known is not None and known(tile.id):
        height, width = tile.pixels.shape[1:]
        yield SkippedTile(tile.id, tile.source, (0, 0, width, height), "known")
    else:
        yield tile


def tiles(
    scene: Scene, tiling: Tiling, *, known: Callable[[str], bool] | None = None
) -> Iterator[Tile | SkippedTile]:
    """The tiles of an open scene, row by row; a window is read when the iterator reaches it.

    Every window of `rsir.scenes.tiling.grid` gives one Tile or one SkippedTile. A Tile has pixels
    (C, h, w) uint8 after the stretch, nodata 0; the id of `tile_ids`; its own bounds, CRS,
    footprint and window; the content and datetime of the scene. Its properties are those of the
    source and: `bands` and `stretch` (settled, as text), which `rsir.scenes.tile_cut.TileCut`
    parses; `gsd`, metres in a pixel of the tile, across and down, if known; `valid`, the share of
    valid pixels if below 1; `cloud`, the share of cloud among them if there is a mask.

    known: whether the caller has the tile of an id already; such windows are not read.

    Errors: those of `grid`; UsageError for a stretch that does not fit; ImageError if the cloud
    mask cannot be opened, or if the whole scene is damaged. A window that cannot be read is a
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
            # Only before the first window is read: a scene whose tiles are known needs no stretch.
            if stretch is None and scene.has_units and tiling.stretch.kind == "range":
                check_range(tiling.stretch, scene.samples(), scene.uri)
            stretch = stretch or settled(scene, tiling.stretch)
            try:
                yield _tile(scene, tiling, windows.size, window, name, stretch, mask)
            except ImageError as error:
                detail = str(error).removeprefix(f"{scene.uri}: ")
                yield SkippedTile(name, scene.uri, window, "damaged", detail=detail)


def tile_ids(scene: Scene, tiling: Tiling) -> Iterator[tuple[str, Window]]:
    """The ids and windows of `tiles`, in its order, without reading a pixel.

    An id is a digest of the source's uri and content, the window, and all that determines the
    pixels: bands, size, resampling, stretch. It does not depend on thresholds and masks.
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
    # The padding is not part of the footprint.
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
        key = json.dumps([scene.uri, scene.content, window, *pixels])
        yield hashlib.blake2b(key.encode(), digest_size=ID_BYTES).hexdigest()


def _cloud_mask(scene: Scene, tiling: Tiling, stack: ExitStack) -> DatasetReader | None:
    mask = tiling.cloud_mask
    if mask is None:
        return None
    assets = {asset.key.lower(): asset for asset in scene.source.assets if asset.key}
    if mask.lower() in assets:
        return scene.beside(assets[mask.lower()].uri, stack)
    uri = normal(beside(scene.uri, mask))
    is_key = not re.search(r"[{/]", mask)
    if assets and is_key and not is_remote(uri) and file_type(uri) != "File":
        known = ", ".join(asset.key for asset in assets.values())
        raise ImageError(f"{scene.uri}: has no asset '{mask}' for a cloud mask; it has {known}")
    return scene.beside(uri, stack)


def _cloud_share(
    mask: DatasetReader,
    window: Window,
    valid: NDArray[np.bool_],
    classes: Sequence[int] | None,
    scene: Scene,
) -> float:
    """The share of cloud among the valid pixels; the mask is read at the tile's size (nearest)."""
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
