"""Open the raster files of a scene with GDAL, and resample them to one grid.

Files that GDAL would not read faithfully, or that lead elsewhere, raise an ImageError.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsir.errors import ImageError
from rsir.geo.georeference import gdal_errors, ignore_not_georeferenced, rpcs_of
from rsir.images.gdal import ALONE, REMOTE, WITH_SIDECARS, reading
from rsir.scenes.looks import Look
from rsir.scenes.sidecars import check_texts, sidecars_of
from rsir.scenes.subdatasets import refuse_variables
from rsir.scenes.vrt import named_files
from rsir.sources.gate import format_of, guarded, read_head, reason
from rsir.sources.remote import first_bytes
from rsir.sources.source import Asset, check_file, is_remote, suffix_of

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_log = logging.getLogger(__name__)

_DRIVERS = {
    "TIFF": "GTiff", "JPEG 2000": "JP2OpenJPEG", "PNG": "PNG", "JPEG": "JPEG", "WEBP": "WEBP",
    "VRT": "VRT",
}  # fmt: skip
"""GDAL's drivers of the formats that rsir reads by windows. A COG is a GTiff."""

# The suffix of a remote file decides if it is a usual one: asking for the content is a request.
_DRIVER_OF_SUFFIX = {
    ".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG", ".png": "PNG", ".jpg": "JPEG",
    ".jpeg": "JPEG", ".webp": "WEBP", ".vrt": "VRT",
}  # fmt: skip

# Bits per sample below 8 of PNG and TIFF. GDAL does not scale such samples, so they look black.
_FEW_BITS = {"1": "one bit", "2": "2 bits", "4": "4 bits"}

PICTURE_DRIVERS = ("PNG", "JPEG", "WEBP")
"""GDAL's drivers for formats that hold no georeference of their own."""

_LISTS = (b"<VRTDataset", b"<GDALTileIndexDataset")

_MOST_GROWTH = 16
"""Pixels of the grid on the ground for each pixel of an image that is placed by points or RPCs. Our
choice: a square turned by 45° has 2."""

_MOST_BLOCK_BYTES = 256 << 20
"""Bytes of the largest decoded block (strip or tile). Our choice: a GeoTIFF of 8,000² RGB pixels in
one strip has 192 MB."""
_SPARE = 64 << 20
"""Bytes that a PNG, JPEG or WebP may have beyond four samples of 16 bits a pixel. Our choice: for
metadata."""
_UNIT = 256
_FREE_UNITS = 4096
"""A scene may have 4096 parts of 256² pixels, and two more for each byte of its files. Our choice:
a sparse GeoTIFF with tiles of 1024² has two for each byte of its index, all others have fewer."""


@dataclass(frozen=True, slots=True)
class SceneFile:
    """An open file of a scene.

    files: its uri, then the sidecar files that GDAL reads with it. options: GDAL's for reading it.
    look: how its samples are shown. tags: the file's metadata, which a resampled dataset lacks.
    """

    asset: Asset
    dataset: DatasetReader
    files: tuple[str, ...]
    options: Mapping[str, Any]
    look: Look
    tags: Mapping[str, str]

    @property
    def width(self) -> int:
        """Columns of the upright image."""
        return self.look.shape(self.dataset.width, self.dataset.height)[0]

    @property
    def height(self) -> int:
        """Rows of the upright image."""
        return self.look.shape(self.dataset.width, self.dataset.height)[1]


def open_dataset(uri: str, stack: ExitStack) -> tuple[DatasetReader, Mapping[str, Any]]:
    """The open dataset of one file, which `stack` closes, and GDAL's options for reading it.

    The content and not the suffix decides which driver opens it. Only a VRT may name other files:
    if its own name ends in .vrt, and as `rsir.scenes.vrt.named_files` says.

    Errors: DataError if there is no such file; ImageError if it cannot be opened, if it or one of
    its sidecar files is not of a known format or names another file, and if it is far larger than
    its bytes can hold.
    """
    check_file(uri)
    with guarded(uri):
        if is_remote(uri):
            return _open_remote(uri, stack)
        return _open_local(uri, stack, depth=0)


def _open_remote(uri: str, stack: ExitStack) -> tuple[DatasetReader, Mapping[str, Any]]:
    driver = _DRIVER_OF_SUFFIX.get(suffix_of(uri)) or _DRIVERS[format_of(first_bytes(uri))]
    if driver == "VRT":
        raise ImageError("a VRT on another machine is not read; copy it and its files")
    options = REMOTE
    dataset = _open(uri, uri, driver, options, stack)
    _refuse_giant(dataset, None)
    return dataset, options


def _open_local(uri: str, stack: ExitStack, depth: int) -> tuple[DatasetReader, Mapping[str, Any]]:
    head, size = read_head(uri)
    refuse_variables(uri, head)
    kind = format_of(head)
    if depth and kind != "VRT" and any(word in head for word in _LISTS):
        # GDAL chooses the driver of a file that another one names, and would follow its names.
        raise ImageError("is a raster and a list of files at once")
    with_sidecars = _has_sidecars(Path(uri), depth)
    if kind == "VRT":
        more, theirs = _check_vrt(Path(uri), depth)
        size, with_sidecars = size + more, with_sidecars or theirs
    options = WITH_SIDECARS if with_sidecars else ALONE
    # A Path, because rasterio may take the text of a local name for a uri.
    dataset = _open(uri, Path(uri), _DRIVERS[kind], options, stack)
    _refuse_giant(dataset, size)
    return dataset, options


def _open(
    uri: str, name: str | Path, driver: str, options: Mapping[str, Any], stack: ExitStack
) -> DatasetReader:
    import rasterio

    ignore_not_georeferenced()
    with reading(uri, options):
        try:
            dataset = stack.enter_context(rasterio.open(name, driver=driver))
        except rasterio.errors.RasterioIOError as error:
            raise ImageError(f"cannot be opened ({reason(error)}); fetch the file again") from error
        other = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if other is not None:
        raise ImageError(f"its metadata names another file as its overviews ({other}); remove that")
    return dataset


def _has_sidecars(image: Path, depth: int) -> bool:
    """Whether an image has sidecar files; checks them."""
    rasters, texts = sidecars_of(image)
    if rasters or texts or depth:  # GDAL looks beside all files of a VRT if one has sidecar files
        check_texts(image, texts)
    for raster in rasters:
        # GDAL takes any raster as overviews or as a mask.
        with guarded(f"its sidecar file {raster.name}"), ExitStack() as stack:
            if format_of(read_head(raster)[0]) != "TIFF":
                raise ImageError("is not a TIFF; remove it")
            _open_local(str(raster), stack, depth + 1)
    return bool(rasters or texts)


def _check_vrt(vrt: Path, depth: int) -> tuple[int, bool]:
    """Check the files that a VRT names: their size in bytes, and whether any has sidecar files."""
    total, with_sidecars = 0, False
    for file in named_files(vrt, depth):
        with guarded(f"names {file}"), ExitStack() as stack:
            _, options = _open_local(str(file), stack, depth + 1)
            with_sidecars = with_sidecars or options is WITH_SIDECARS
            total += file.stat().st_size
    return total, with_sidecars


def _refuse_giant(dataset: DatasetReader, size: int | None) -> None:
    """ImageError for blocks that need too much memory, and for more pixels than bytes can hold.

    size: bytes of the scene's files; None: unknown.
    """
    pixels = dataset.width * dataset.height
    is_interleaved = str(dataset.profile.get("interleave")) == "pixel"
    bands = dataset.count if is_interleaved else 1
    for (height, width), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        # GDAL decodes a WebP whole.
        whole = dataset.driver == "WEBP"
        block = (pixels if whole else width * height) * np.dtype(kind).itemsize * bands
        if block > _MOST_BLOCK_BYTES:
            raise ImageError(
                f"its blocks take {block} bytes each, more than {_MOST_BLOCK_BYTES}; write it in "
                "tiles: gdal_translate -co TILED=YES"
            )
    if size is not None and dataset.driver in PICTURE_DRIVERS and size > _SPARE + 8 * pixels:
        raise ImageError(f"{size} bytes, far more than its {pixels} pixels need; remove the rest")
    units = -(-dataset.width // _UNIT) * -(-dataset.height // _UNIT)
    if size is not None and units > _FREE_UNITS + 2 * size:
        raise ImageError(
            f"its header says {dataset.width} × {dataset.height} pixels, and its files have "
            f"{size} bytes: damaged, or made to waste memory"
        )


def open_file(asset: Asset, stack: ExitStack, *, mask: bool = False) -> SceneFile:
    """One file of a scene, which `stack` closes.

    mask: the file is a mask, whose stored values count.

    Errors: DataError if there is no such file; ImageError if it cannot be read faithfully.
    """
    uri = asset.uri
    dataset, options = open_dataset(uri, stack)
    with reading(uri, options):
        _refuse_unreadable(dataset)
        look = Look()
        if not mask:
            _refuse_unfaithful(dataset)
            look = Look.of(dataset, None if is_remote(uri) else uri)
        files = (uri,)
        if not is_remote(uri):
            # Viewers write overviews and statistics; these change no pixel. But a picture's
            # .aux.xml may hold its georeference.
            located_picture = dataset.driver in PICTURE_DRIVERS and dataset.crs is not None
            ignored = (".ovr",) if located_picture else (".aux.xml", ".ovr")
            sidecars = {file for file in dataset.files if not file.endswith(ignored)}
            files = (uri, *sorted(sidecars - {uri}))
        tags = tags_of(dataset)
        dataset = placed(dataset, stack)
    return SceneFile(asset, dataset, files, options, look, tags)


def placed(dataset: DatasetReader, stack: ExitStack) -> DatasetReader:
    """The dataset on a grid of the ground, if only control points or RPCs say where it lies.

    Radar scenes have ground control points, and unprojected optical ones RPCs, which place them at
    their mean height. Pixels of the grid outside the image are nodata. `stack` closes the result.

    Errors: ImageError for points or RPCs that no grid of about as many pixels fits.
    """
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    (points, crs), rpcs = dataset.gcps, rpcs_of(dataset)
    height = {}
    if dataset.crs is not None:
        return dataset
    if rpcs is not None and not points and dataset.transform.is_identity:
        crs, height = "EPSG:4326", {"RPC_HEIGHT": rpcs.height_off}
    elif crs is None or len(points) < 3:
        return dataset
    advice = "remove its ground control points or RPCs, or warp it: gdalwarp"
    try:
        warped = stack.enter_context(
            WarpedVRT(
                dataset, src_crs=crs, crs=crs, resampling=Resampling.bilinear, add_alpha=True,
                **height,
            )
        )  # fmt: skip
    except gdal_errors() as error:
        raise ImageError(f"cannot be placed on the ground ({reason(error)}); {advice}") from error
    growth = warped.width * warped.height / (dataset.width * dataset.height)
    if not 1 / _MOST_GROWTH <= growth <= _MOST_GROWTH:
        raise ImageError(
            f"has {warped.width} × {warped.height} pixels on the ground, and itself "
            f"{dataset.width} × {dataset.height}; {advice}"
        )
    return warped


def _refuse_unreadable(dataset: DatasetReader) -> None:
    if dataset.count == 0 or len(dataset.subdatasets) > 1:
        raise ImageError(f"holds {len(dataset.subdatasets)} images; save each on its own")


def _refuse_unfaithful(dataset: DatasetReader) -> None:
    from rasterio.enums import ColorInterp

    if any(np.dtype(kind).kind == "c" for kind in dataset.dtypes):
        raise ImageError("has complex samples; save their amplitude (gdal_calc)")
    # GDAL scales no samples of few bits beside others, and has no colours for several indexes.
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")
    if dataset.count > 1 and (bits in _FEW_BITS or ColorInterp.palette in dataset.colorinterp):
        raise ImageError(
            f"has {dataset.count} bands with a palette or of {_FEW_BITS.get(bits, '8 bits')}; "
            "expand it: gdal_translate -expand rgb IN OUT.tif"
        )


def tags_of(dataset: DatasetReader) -> dict[str, str]:
    """The metadata of a file; none if it is damaged, because no pixel depends on it."""
    try:
        return dict(dataset.tags())
    except Exception as error:  # damaged metadata makes GDAL and rasterio raise nearly anything
        _log.debug("no metadata of %s: %s", dataset.name, error)
        return {}


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
    return replace(file, dataset=warped)
