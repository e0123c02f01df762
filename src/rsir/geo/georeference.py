"""Where a GeoTIFF lies and when it was taken.

GDAL reads the CRS and the geotransform; this module decides beforehand, from the tags alone,
whether there is anything to read, because GDAL's answer to a plain TIFF is a warning, and warning
filters are shared by all threads.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from rsir.errors import MissingExtraError
from rsir.geo import tiff_tags as tiff
from rsir.geo.footprint import bounds, footprint, is_flat
from rsir.types import Bounds, Geometry

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where an image lies.

    bounds: (west, south, east, north) in `crs`, around all four corners.
    crs: "EPSG:32632", or WKT 2 if the CRS has no EPSG code.
    footprint: GeoJSON Polygon or MultiPolygon in WGS 84 (see `rsir.geo.footprint`); None if no
        part of the image lies in the CRS's domain.
    datetime: from the tag DateTime; TIFF knows no time zone, taken as UTC (our choice).
    """

    bounds: Bounds
    crs: str
    footprint: Geometry | None
    datetime: datetime | None


def georeference(source: str | os.PathLike[str] | bytes) -> Georeference | None:
    """Where a GeoTIFF lies, from its path or its bytes; None if its tags do not say so.

    Only what is inside the file counts: sidecar files (.tfw, .aux.xml) are not read, so that the
    same bytes always give the same answer. None for files that are not TIFF, for a transform
    without a CRS, and for a CRS that PROJ does not understand.

    Errors: MissingExtraError if the file has a georeference and rasterio is not installed; OSError
    if the path cannot be read.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        directory = tiff.directories(data)[0]
    except tiff.TiffError:
        return None
    if not _has_georeference(directory):
        return None
    try:
        from rasterio.io import MemoryFile
    except ImportError:
        raise MissingExtraError("reading where a GeoTIFF lies", "geo") from None
    try:
        with MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            crs, transform = dataset.crs, dataset.transform
            width, height = dataset.width, dataset.height
    except gdal_errors() as error:
        _log.debug("no georeference: %s", error)
        return None
    box = bounds(transform, (0, 0, width, height))
    if crs is None or is_flat(transform) or not all(map(math.isfinite, box)):
        return None
    name = crs_name(crs.to_wkt())
    if name is None:
        return None
    return Georeference(
        bounds=box,
        crs=name,
        footprint=footprint(transform, name, (0, 0, width, height)),
        datetime=tiff_datetime(directory.text(tiff.DATETIME)),
    )


def gdal_errors() -> tuple[type[Exception], ...]:
    """What rasterio raises for files, transforms and CRSs that GDAL cannot take."""
    # GDAL's own errors pass through rasterio unwrapped, and have no public common base; damaged
    # names in the GeoKeys come out as UnicodeDecodeError, which is a ValueError.
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError

    return RasterioError, CRSError, CPLE_BaseError, ValueError


def _has_georeference(directory: tiff.Directory) -> bool:
    """Whether GDAL will find a geotransform: OGC GeoTIFF 1.1, requirements class 'raster space'."""

    def doubles(tag: int) -> tuple[float, ...]:
        kind, _ = directory.tags.get(tag, (0, b""))
        return directory.numbers(tag) if kind == 12 else ()

    scale, ties = doubles(tiff.PIXEL_SCALE), doubles(tiff.TIE_POINTS)
    matrix = doubles(tiff.MODEL_TRANSFORMATION)
    if not all(map(math.isfinite, (*scale, *ties, *matrix))) or not directory.numbers(
        tiff.GEO_KEYS
    ):
        return False
    by_scale = len(scale) >= 2 and scale[0] != 0 and scale[1] != 0 and len(ties) >= 6
    return by_scale or (not scale and len(matrix) == 16)


# A folder of chips has a handful of CRSs and finding the EPSG code of one takes milliseconds.
@lru_cache(maxsize=256)
def crs_name(wkt: str) -> str | None:
    """The name of a CRS given as WKT: "EPSG:32632", or WKT 2 without such a code, or None."""
    from rasterio.crs import CRS

    try:
        crs = CRS.from_wkt(wkt)
        code = crs.to_epsg()
        return f"EPSG:{code}" if code is not None else str(crs.to_wkt(version="WKT2_2019"))
    except gdal_errors() as error:
        _log.debug("CRS not understood: %s", error)
        return None


def tiff_datetime(text: str | None) -> datetime | None:
    """The time in a TIFF's tag DateTime, taken as UTC (our choice); None if it is none."""
    try:
        return datetime.strptime((text or "").strip(), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
