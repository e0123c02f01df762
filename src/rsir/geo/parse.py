"""Check geometries and CRSs that somebody else wrote, and parse WKB, WKT and GeoJSON.

GEOS reads collections of geometries by recursion, so a few kilobytes that nest thousands of them
would end the process. PROJ opens the files that a CRS names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import MissingExtraError

MOST_BYTES = 16 << 20
"""Bytes of the largest geometry. Our choice: a country's coast has a megabyte."""

MOST_PARTS = 64
"""Collections and multi-geometries in one geometry, nested or not. Our choice."""

# The head of a multi-geometry or a collection (types 4 to 7) in WKB: the byte order, then the type,
# with 1000, 2000 or 3000 for Z and M (ISO), or with flags in the highest byte (EWKB).
_LOW = rb"(?:[\x04-\x07]\x00|[\xec-\xef]\x03|[\xd4-\xd7]\x07|[\xbc-\xbf]\x0b)"
_HIGH = rb"(?:\x00[\x04-\x07]|\x03[\xec-\xef]|\x07[\xd4-\xd7]|\x0b[\xbc-\xbf])"
_COLLECTION = re.compile(
    rb"\x01" + _LOW + rb"\x00[\x00\x20\x40\x60\x80\xa0\xc0\xe0]"
    rb"|\x00[\x00\x20\x40\x60\x80\xa0\xc0\xe0]\x00" + _HIGH,
    re.DOTALL,
)

# "+nadgrids=@null" stands in GDAL's WKT of Web Mercator.
_FILES_OF_CRS = re.compile(
    r"grids\s*=(?!\s*@null\b)|\binit\s*=|\bfile\b|parameterfile", re.IGNORECASE
)


def import_shapely() -> Any:
    """The module shapely; MissingExtraError if it is not installed."""
    try:
        import shapely
    except ImportError:
        raise MissingExtraError("working with geometries", "geo") from None
    return shapely


def from_wkb(values: Sequence[bytes | None]) -> NDArray[np.object_]:
    """The shapes of WKB, (N,); None for a value that is missing, damaged, too large or too deep."""
    return _parsed(import_shapely().from_wkb, [_checked(value, _wkb_parts) for value in values])


def from_wkt(values: Sequence[str | None]) -> NDArray[np.object_]:
    """The shapes of WKT, (N,); None as for `from_wkb`."""
    return _parsed(import_shapely().from_wkt, [_checked(value, _wkt_parts) for value in values])


def from_geojson(values: Sequence[str | None]) -> NDArray[np.object_]:
    """The shapes of GeoJSON texts, (N,); None as for `from_wkb`."""
    return _parsed(import_shapely().from_geojson, [_checked(v, _json_parts) for v in values])


def names_file(crs: str) -> bool:
    """Whether a CRS (PROJ string, WKT, PROJJSON) names a file: a grid of shifts or heights."""
    return _FILES_OF_CRS.search(crs) is not None


def _parsed(read: Any, values: list[Any]) -> NDArray[np.object_]:
    shapes: NDArray[np.object_] = read(np.array(values, dtype=object), on_invalid="ignore")
    return shapes


def _checked(value: Any, parts: Any) -> Any:
    if value is None or len(value) > MOST_BYTES or parts(value) > MOST_PARTS:
        return None
    return value


def _wkb_parts(value: bytes) -> int:
    return sum(1 for _ in _COLLECTION.finditer(value))


def _wkt_parts(value: str) -> int:
    return len(re.findall("MULTI|COLLECTION", value, re.IGNORECASE))


def _json_parts(value: str) -> int:
    return value.count("{")
