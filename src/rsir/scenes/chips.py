"""Tell pictures, which are one tile each, from scenes, which are cut into tiles."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from rsir.errors import DataError, MissingExtraError
from rsir.geo.georeference import rpcs_of
from rsir.images.decode import is_plain_tiff, size_and_place
from rsir.scenes.datasets import PICTURE_DRIVERS, open_dataset
from rsir.scenes.scene import Scene
from rsir.scenes.tiling import Tiling
from rsir.sources.folders import SUFFIXES
from rsir.sources.gate import guarded
from rsir.sources.source import Source, is_remote

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

WHOLE_PIXELS = 1024 * 1024
"""Maximum width × height of an image that stays one tile. Our choice: images of the benchmark sets
have up to 600 × 600."""


def is_picture(source: Source, tiling: Tiling | None = None) -> bool:
    """Whether a source is a picture, which `rsir.images.read.read_tile` reads, and not a scene.

    A picture is a local PNG, JPEG, WebP or TIFF in which `read_tile` sees all that a scene would
    show: a TIFF is 8-bit, has one band or three, no nodata, and no ground control points or
    RPCs in place of a transform.
    tiling: the user's tiling of scenes. Then a picture is not larger than a tile and has no CRS,
    and the tiling needs nothing that only a scene has (bands, a stretch, metres, a cloud mask).
    None: the user gives no tiling. Then a picture has up to WHOLE_PIXELS pixels. If GDAL cannot
    open a file, the suffix decides; `read_tile` then says what is wrong with a damaged picture.

    Errors: MissingExtraError without rasterio for a larger image, a GeoTIFF, and any tiling; only
    with a tiling, DataError if there is no such file, and ImageError if GDAL cannot open it.
    """
    if is_remote(source.uri) or [asset.uri for asset in source.assets] != [source.uri]:
        return False
    if tiling is not None and (
        tiling.unit != "pixels"
        or tiling.edges != "shift"
        or tiling.stretch.kind not in ("auto", "none")
        or (tiling.bands, tiling.gsd, tiling.cloud_mask) != (None, None, None)
    ):
        return False
    try:
        with guarded(source.uri), ExitStack() as stack:
            dataset, _ = open_dataset(source.uri, stack)
            width, height = dataset.width, dataset.height
            if tiling is None:
                small = width * height <= WHOLE_PIXELS
            else:
                small = max(width, height) <= tiling.size and not dataset.crs
            if not small or len(dataset.files) > 1:  # a sidecar file may hold its place or its mask
                return False
            return dataset.driver in PICTURE_DRIVERS or _is_plain_tiff(source.uri, dataset)
    except ImportError:
        if tiling is not None:
            raise MissingExtraError("cutting scenes into tiles", "geo") from None
        width, height, is_located = size_and_place(source.uri)
        if width * height > WHOLE_PIXELS:
            raise MissingExtraError(f"{source.uri}: cutting a scene into tiles", "geo") from None
        if is_located:
            raise MissingExtraError(f"{source.uri}: reading a GeoTIFF", "geo") from None
        return PurePosixPath(source.uri).suffix.lower() in SUFFIXES
    except DataError:
        if tiling is None:
            return PurePosixPath(source.uri).suffix.lower() in SUFFIXES
        raise


def _is_plain_tiff(uri: str, dataset: DatasetReader) -> bool:
    from rasterio.enums import ColorInterp, MaskFlags

    colours = dataset.colorinterp
    bands = sum(colour is not ColorInterp.alpha for colour in colours)
    if dataset.driver != "GTiff" or dataset.dtypes[0] != "uint8" or bands not in (1, 3):
        return False
    # The nodata of a palette is the index of a colour.
    opaque = all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums)
    if ColorInterp.palette not in colours and (not opaque or dataset.gcps[0] or rpcs_of(dataset)):
        return False
    return is_plain_tiff(uri)


def usual_tiling(scene: Scene) -> Tiling:
    """The default tiling of a scene: one tile, if it has up to WHOLE_PIXELS pixels.

    Such a tile is left out only if it is wholly nodata.
    """
    if scene.width * scene.height <= WHOLE_PIXELS:
        return Tiling(size=max(scene.width, scene.height), min_valid=0)
    return Tiling()
