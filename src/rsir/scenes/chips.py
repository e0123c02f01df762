"""Picture or scene: which files are read whole, by `rsir.images`, and which are cut into tiles."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath

from rsir.errors import DataError
from rsir.scenes.datasets import open_dataset
from rsir.scenes.scene import Scene
from rsir.scenes.tiling import Tiling
from rsir.sources.folders import SUFFIXES
from rsir.sources.source import Source, is_remote

WHOLE_PIXELS = 1024 * 1024
"""Width × height up to which an image is kept whole. Our choice: the benchmark sets' images have up
to 600 × 600."""

_8_BIT_TIFF = ("GTiff", "uint8")


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before a pixel is read.

    driver: GDAL's name of its format. has_points: its place is told by ground control points.
    bands: how many, without alpha. palette: of colours, or of the two values of a bit.
    opaque: no pixel can be nodata: there is no such value, mask or alpha.
    """

    width: int
    height: int
    dtype: str
    driver: str
    has_crs: bool
    has_points: bool
    bands: int
    palette: bool
    opaque: bool


def header(uri: str) -> Header:
    """The header of one file.

    Errors: DataError if there is no such file; ImageError if GDAL cannot open it.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    with ExitStack() as stack:
        dataset = open_dataset(uri, stack)
        colours = dataset.colorinterp
        found = Header(
            width=dataset.width,
            height=dataset.height,
            dtype=dataset.dtypes[0],
            driver=dataset.driver,
            has_crs=bool(dataset.crs),
            has_points=bool(dataset.gcps[0]),
            bands=sum(colour is not ColorInterp.alpha for colour in colours),
            palette=ColorInterp.palette in colours,
            opaque=all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums),
        )
    return found


def is_chip(source: Source, tiling: Tiling) -> bool:
    """Whether `tiles_of` takes a source as it is, as one tile, by `rsir.images.read.read_tile`.

    Errors: those of `header`.
    """
    if (
        tiling.unit != "pixels"
        or tiling.edges != "shift"
        or tiling.stretch.kind not in ("auto", "none")
        or (tiling.bands, tiling.gsd, tiling.cloud_mask) != (None, None, None)
        or is_remote(source.uri)
        or [asset.uri for asset in source.assets] != [source.uri]
    ):
        return False
    said = header(source.uri)
    fits = max(said.width, said.height) <= tiling.size
    return fits and not said.has_crs and (_is_picture(said) or _is_plain_tiff(said))


def is_whole(source: Source) -> bool:
    """Whether a source is one tile where nobody has said how to cut: small, and a plain image.

    A local JPEG, PNG, WebP, or 8-bit TIFF with one band or three and without nodata, of up to
    WHOLE_PIXELS pixels, is taken by `rsir.images.read.read_tile`; so is what GDAL cannot open, and
    everything where it is not installed, for that function to say what is wrong. A TIFF whose place
    is told by ground control points alone is a scene.
    """
    if is_remote(source.uri) or [asset.uri for asset in source.assets] != [source.uri]:
        return False
    try:
        said = header(source.uri)
    except (DataError, ImportError):
        return PurePosixPath(source.uri).suffix.lower() in SUFFIXES
    small = said.width * said.height <= WHOLE_PIXELS
    return small and (_is_picture(said) or (_is_plain_tiff(said) and said.bands in (1, 3)))


def _is_picture(said: Header) -> bool:
    return said.driver in ("PNG", "JPEG", "WEBP")


def _is_plain_tiff(said: Header) -> bool:
    """Whether `rsir.images.read.read_tile` sees in a TIFF all that a scene would."""
    # Of a palette a scene sees nothing, so it is taken as it is, nodata or not.
    plain = said.palette or (said.opaque and not said.has_points)
    return (said.driver, said.dtype) == _8_BIT_TIFF and plain


def usual_tiling(scene: Scene) -> Tiling:
    """How a scene is cut where nobody has said: not at all if it has up to WHOLE_PIXELS pixels."""
    if scene.width * scene.height <= WHOLE_PIXELS:
        return Tiling(size=max(scene.width, scene.height))
    return Tiling()
