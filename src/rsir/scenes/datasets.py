"""Open the raster files of a scene with GDAL, and resample them to one grid.

Files that GDAL would not read faithfully raise an ImageError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsir.errors import ImageError
from rsir.geo.georeference import gdal_errors, ignore_not_georeferenced
from rsir.sources.source import Asset, check_file, is_remote

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG", "WEBP", "VRT")
"""GDAL's drivers for the formats that rsir reads by windows. A COG is a GTiff."""

# Bits per sample below 8 of PNG and TIFF. GDAL does not scale such samples, so they look black.
_FEW_BITS = {"1": "one bit", "2": "2 bits", "4": "4 bits"}

PICTURE_DRIVERS = ("PNG", "JPEG", "WEBP")
"""GDAL's drivers for formats that hold no georeference of their own."""

_FORMATS = "GeoTIFF, COG, JPEG 2000, PNG, JPEG, WebP and VRT"

# Our choice; by default GDAL's block cache takes a twentieth of the memory. Two rows of tiles of
# 20,000 × 512 pixels × 3 bands × 1 byte are 60 MB.
_CACHE_BYTES = 128 << 20
_OPTIONS = {
    "GDAL_CACHEMAX": _CACHE_BYTES,
    # Without it, the missing part of a truncated JPEG is grey.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_MAX_RETRY": "3",
}
# Without it, GDAL requests a dozen sidecar files that do not exist.
_REMOTE_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}


@dataclass(frozen=True, slots=True)
class SceneFile:
    """An open file of a scene. files: its uri, then the sidecar files that GDAL reads with it."""

    asset: Asset
    dataset: DatasetReader
    files: tuple[str, ...]


@contextmanager
def environment(uri: str) -> Iterator[None]:
    """Set GDAL's options for reading one file."""
    import rasterio

    options = _OPTIONS | (_REMOTE_OPTIONS if is_remote(uri) else {})
    with rasterio.Env(**options):
        yield


def open_dataset(uri: str, stack: ExitStack) -> DatasetReader:
    """The open dataset of one file, which `stack` closes.

    Errors: DataError if there is no such file; ImageError if GDAL cannot open it.
    """
    import rasterio

    ignore_not_georeferenced()
    check_file(uri)
    try:
        with environment(uri):
            # A Path, because rasterio may take the text of a local name for a uri.
            return stack.enter_context(rasterio.open(uri if is_remote(uri) else Path(uri)))
    except gdal_errors() as error:
        raise ImageError(
            f"{uri}: cannot be opened ({reason(error)}); readable are {_FORMATS}; fetch the file "
            "again if it should be one of these"
        ) from error


def open_file(asset: Asset, stack: ExitStack, *, mask: bool = False) -> SceneFile:
    """One file of a scene, which `stack` closes.

    A file that is located by ground control points alone is warped to a grid in their CRS.
    mask: the file is a mask; only its values count, so palettes and few bits are allowed.

    Errors: DataError if there is no such file; ImageError if it cannot be read faithfully.
    """
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    uri = asset.uri
    dataset = open_dataset(uri, stack)
    _refuse_unreadable(uri, dataset)
    if not mask:
        _refuse_unfaithful(uri, dataset)
    files = (uri,)
    if not is_remote(uri):
        # Viewers write overviews and statistics; these change no pixel. But a picture's .aux.xml
        # may hold its georeference.
        located_picture = dataset.driver in PICTURE_DRIVERS and dataset.crs is not None
        ignored = (".ovr",) if located_picture else (".aux.xml", ".ovr")
        sidecars = {file for file in dataset.files if not file.endswith(ignored)}
        files = (uri, *sorted(sidecars - {uri}))
    points, crs = dataset.gcps
    if dataset.crs is None and crs is not None and len(points) >= 3:
        # Radar scenes are delivered with ground control points only.
        dataset = stack.enter_context(
            WarpedVRT(dataset, src_crs=crs, crs=crs, resampling=Resampling.bilinear, add_alpha=True)
        )
    return SceneFile(asset, dataset, files)


def _refuse_unreadable(uri: str, dataset: DatasetReader) -> None:
    if dataset.driver not in DRIVERS:
        raise ImageError(
            f"{uri}: is {dataset.driver}; readable are {_FORMATS}; convert it to one of these"
        )
    if dataset.count == 0 or len(dataset.subdatasets) > 1:
        raise ImageError(f"{uri}: holds {len(dataset.subdatasets)} images; save each on its own")


def _refuse_unfaithful(uri: str, dataset: DatasetReader) -> None:
    from rasterio.enums import ColorInterp

    if any(np.dtype(kind).kind == "c" for kind in dataset.dtypes):
        raise ImageError(f"{uri}: has complex samples; save their amplitude (gdal_calc)")
    # Before the palette: GDAL gives a 1-bit file a palette of black and white.
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    if bits in _FEW_BITS:
        palette = ColorInterp.palette in dataset.colorinterp
        options = "-expand rgb" if palette else f"-scale 0 {2 ** int(bits) - 1} 0 255"
        raise ImageError(
            f"{uri}: has {_FEW_BITS[bits]} per pixel, and so cannot be cut into tiles; convert it "
            f"to 8 bits: gdal_translate {options} IN OUT.tif"
        )
    if ColorInterp.palette in dataset.colorinterp:
        raise ImageError(
            f"{uri}: has a palette, and so cannot be cut into tiles; expand it: gdal_translate "
            "-expand rgb IN OUT.tif"
        )
    orientation = dataset.tags().get("EXIF_Orientation", "1")
    if orientation not in ("0", "1"):
        raise ImageError(
            f"{uri}: is turned by EXIF (orientation {orientation}), and so cannot be cut into "
            "tiles; save it upright: magick IN -auto-orient OUT.tif"
        )


def reason(error: BaseException) -> str:
    """GDAL's own message; rasterio's is only 'read failed, see the exception above'."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


def on_grid(file: SceneFile, grid: DatasetReader, resampling: str, stack: ExitStack) -> SceneFile:
    """A file resampled to the pixels of `grid`, or unchanged if it has them; `stack` closes it.

    Errors: ImageError if their sizes differ and one of them has no georeference.
    """
    from rasterio.enums import MaskFlags, Resampling
    from rasterio.vrt import WarpedVRT

    own = file.dataset
    if own.shape == grid.shape and (own.crs, own.transform) == (grid.crs, grid.transform):
        return file
    if own.crs is None or grid.crs is None:
        if own.shape == grid.shape:
            return file
        raise ImageError(
            f"{file.asset.uri}: is {own.width} × {own.height} pixels and the scene {grid.width} × "
            f"{grid.height}; without a georeference of both they cannot be aligned"
        )
    # Pixels of the grid outside the file are nodata, not black.
    unmasked = all(MaskFlags.all_valid in flag for flag in own.mask_flag_enums)
    try:
        warped = stack.enter_context(
            WarpedVRT(
                own, crs=grid.crs, transform=grid.transform, width=grid.width, height=grid.height,
                resampling=Resampling[resampling], add_alpha=unmasked,
            )
        )  # fmt: skip
    except gdal_errors() as error:
        raise ImageError(f"{file.asset.uri}: does not fit its scene ({reason(error)})") from error
    return SceneFile(file.asset, warped, file.files)
