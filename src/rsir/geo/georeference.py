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
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rsir.errors import MissingExtraError
from rsir.geo import tiff
from rsir.types import Bounds, Geometry

if TYPE_CHECKING:
    from rasterio.crs import CRS

_log = logging.getLogger(__name__)

# GDAL's own default for densifying an edge (`densify_pts` of OCTTransformBounds).
_POINTS_PER_EDGE = 21
# Our choice: an edge that bends by less than a tenth of a pixel is drawn straight.
_STRAIGHT_WITHIN_PIXELS = 0.1


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where an image lies.

    bounds: (west, south, east, north) in `crs`, around all four corners.
    crs: "EPSG:32632", or WKT 2 if the CRS has no EPSG code.
    footprint: GeoJSON Polygon in WGS 84, longitude before latitude, counter-clockwise (RFC 7946);
        None if it cannot be told as one polygon (beyond the CRS's domain, over the antimeridian or
        a pole).
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
    except _gdal_errors() as error:
        _log.debug("no georeference: %s", error)
        return None
    # By hand: affine 3 warns of `transform * point`, affine 2 has no `transform @ point`.
    a, b, c, d, e, f = transform[:6]
    corners = [
        (a * column + b * row + c, d * column + e * row + f)
        for column, row in ((0, 0), (0, height), (width, height), (width, 0))
    ]
    xs, ys = zip(*corners, strict=True)
    flat = a * e == b * d  # all pixels on one line or point: no place at all
    if crs is None or flat or not all(map(math.isfinite, (*xs, *ys))):
        return None
    name = _crs_name(crs.to_wkt())
    if name is None:
        return None
    return Georeference(
        bounds=(min(xs), min(ys), max(xs), max(ys)),
        crs=name,
        footprint=_footprint(corners, crs, max(width, height)),
        datetime=_datetime(directory.text(tiff.DATETIME)),
    )


def _gdal_errors() -> tuple[type[Exception], ...]:
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
def _crs_name(wkt: str) -> str | None:
    from rasterio.crs import CRS

    try:
        crs = CRS.from_wkt(wkt)
        code = crs.to_epsg()
        return f"EPSG:{code}" if code is not None else str(crs.to_wkt(version="WKT2_2019"))
    except _gdal_errors() as error:
        _log.debug("CRS not understood: %s", error)
        return None


def _footprint(corners: list[tuple[float, float]], crs: CRS, pixels: int) -> Geometry | None:
    from rasterio.warp import transform

    steps = [step / _POINTS_PER_EDGE for step in range(_POINTS_PER_EDGE)]
    edges = [
        (x0 + (x1 - x0) * step, y0 + (y1 - y0) * step)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True)
        for step in steps
    ]
    try:
        lon, lat = transform(crs, "EPSG:4326", *zip(*edges, strict=True))
    except _gdal_errors() as error:
        _log.debug("no footprint: %s", error)
        return None
    points = list(zip(lon, lat, strict=True))
    if not all(abs(x) <= 180 and abs(y) <= 90 for x, y in points):  # also false for nan and inf
        return None
    if max(lon) - min(lon) > 180:  # reaches over the antimeridian or round a pole
        return None
    ring = []
    for start in range(0, len(points), _POINTS_PER_EDGE):
        edge = points[start : start + _POINTS_PER_EDGE]
        end = points[(start + _POINTS_PER_EDGE) % len(points)]
        ring += edge if _bends(edge, end, pixels) else edge[:1]
    ring.append(ring[0])
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))
    if area < 0:
        ring.reverse()
    return {"type": "Polygon", "coordinates": [[list(point) for point in ring]]}


def _bends(edge: list[tuple[float, float]], end: tuple[float, float], pixels: int) -> bool:
    (x0, y0), (x1, y1) = edge[0], end
    length = math.hypot(x1 - x0, y1 - y0)
    if length == 0:
        return False
    off = max(abs((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length for x, y in edge)
    return off > _STRAIGHT_WITHIN_PIXELS * length / pixels


def _datetime(text: str | None) -> datetime | None:
    try:
        return datetime.strptime((text or "").strip(), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
