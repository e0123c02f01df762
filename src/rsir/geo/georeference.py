"""The location and the time of a GeoTIFF, as GDAL reads them."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rsir.errors import MissingExtraError
from rsir.geo.footprint import bounds, footprint, is_flat
from rsir.geo.parse import names_file
from rsir.geo.tiff_tags import (
    DATE_TIME,
    GEO_KEYS,
    MODEL_TRANSFORMATION,
    TIE_POINTS,
    directories,
    ignore_warnings,
    numbers,
)
from rsir.types import Bounds, Geometry

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.rpc import RPC

Transform = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f), as `rsir.geo.footprint.Affine`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Georeference:
    """The location and the time of an image.

    bounds: (west, south, east, north) in `crs`, around all four corners.
    crs: "EPSG:32632", or WKT 2 if the CRS has no EPSG code.
    footprint: GeoJSON Polygon or MultiPolygon in WGS 84 (see `rsir.geo.footprint`); None if no
        part of the image lies in the CRS's domain.
    datetime: from the tag DateTime, which has no time zone; taken as UTC (our choice).
    """

    bounds: Bounds
    crs: str
    footprint: Geometry | None
    datetime: datetime | None


def georeference(source: str | os.PathLike[str] | bytes) -> Georeference | None:
    """The georeference of a GeoTIFF, from its path or its bytes; None if its tags have none.

    Sidecar files (.tfw, .aux.xml) are not read, so that the same bytes always give the same result.
    None for a file that is not a TIFF, for a transform without a CRS, and for a CRS that PROJ does
    not understand.

    Errors: MissingExtraError if the file has a georeference and rasterio is not installed; OSError
    if the path cannot be read.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        tags = next(directories(data))
    except ValueError:
        return None
    # OGC GeoTIFF 1.1 requires a tie point or a matrix; GDAL accepts a pixel size alone.
    is_located = len(numbers(tags, TIE_POINTS)) >= 6 or MODEL_TRANSFORMATION in tags
    if GEO_KEYS not in tags or not is_located:
        return None
    try:
        from rasterio.io import MemoryFile
    except ImportError:
        raise MissingExtraError("reading the location of a GeoTIFF", "geo") from None
    ignore_not_georeferenced()
    try:
        with MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            located = crs_and_transform(dataset)
            window = (0, 0, dataset.width, dataset.height)
            time = dataset.tags().get("TIFFTAG_DATETIME")
    except Exception as error:  # damaged tags make GDAL and rasterio raise nearly anything
        _log.debug("no georeference: %s", error)
        return None
    if located is None:
        return None
    crs, transform = located
    box = bounds(transform, window)
    if not all(map(math.isfinite, box)):
        return None
    return Georeference(box, crs, footprint(transform, crs, window), tiff_datetime(time))


def acquired(data: bytes) -> datetime | None:
    """The time in the tag DateTime of a TIFF's bytes; None for any other file."""
    try:
        value = next(directories(data)).get(DATE_TIME)
    except ValueError:
        return None
    return tiff_datetime(value if isinstance(value, str) else None)


def crs_and_transform(dataset: DatasetReader) -> tuple[str, Transform] | None:
    """The CRS of an open dataset, named as by `crs_name`, and its transform.

    The transform is (a, b, c, d, e, f) with x = a·column + b·row + c, y = d·column + e·row + f.
    None if the file has no CRS that PROJ understands, or no transform, or one that is not finite or
    maps all pixels to one line.
    """
    # GDAL returns the identity for a file without a usable transform.
    if dataset.crs is None or dataset.transform.is_identity:
        return None
    a, b, c, d, e, f = map(float, dataset.transform[:6])
    transform = (a, b, c, d, e, f)
    if is_flat(transform) or not all(map(math.isfinite, transform)):
        return None
    crs = crs_name(dataset.crs.to_wkt())
    return None if crs is None else (crs, transform)


def rpcs_of(dataset: DatasetReader) -> RPC | None:
    """The rational polynomials that place an open dataset; None without them, or if damaged."""
    try:
        return dataset.rpcs
    except Exception as error:  # damaged metadata makes rasterio raise nearly anything
        _log.debug("no RPCs: %s", error)
        return None


def ignore_not_georeferenced() -> None:
    """Silence rasterio's warning about an image without a georeference, in the whole process."""
    from rasterio.errors import NotGeoreferencedWarning

    ignore_warnings(NotGeoreferencedWarning)


def gdal_errors() -> tuple[type[Exception], ...]:
    """The exceptions of rasterio for files, transforms and CRSs that GDAL cannot handle."""
    # GDAL's own errors pass through rasterio unwrapped, and have no public common base; damaged
    # names in the GeoKeys raise UnicodeDecodeError, which is a ValueError.
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError

    return RasterioError, CRSError, CPLE_BaseError, ValueError


# A folder of chips has a handful of CRSs, and finding an EPSG code takes milliseconds.
@lru_cache(maxsize=256)
def crs_name(wkt: str) -> str | None:
    """The name of a CRS given as WKT: "EPSG:32632", or WKT 2 if it has no EPSG code.

    None if PROJ does not understand it, or if it names a file.
    """
    from rasterio.crs import CRS

    if names_file(wkt):
        return None
    try:
        crs = CRS.from_wkt(wkt)
        code = crs.to_epsg()
        return f"EPSG:{code}" if code is not None else str(crs.to_wkt(version="WKT2_2019"))
    except gdal_errors() as error:
        _log.debug("CRS not understood: %s", error)
        return None


def tiff_datetime(text: str | None) -> datetime | None:
    """The time in a TIFF's tag DateTime, taken as UTC (our choice); None if it is not valid."""
    try:
        return datetime.strptime((text or "").strip(), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
