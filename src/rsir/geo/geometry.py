"""GeoJSON geometries: their bounds, their shapely shapes, and which of them a region intersects."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.geo import antimeridian
from rsir.geo.parse import from_geojson, import_shapely
from rsir.types import Bounds, Geometry


def bounds_of(geometry: Geometry | None) -> Bounds | None:
    """(west, south, east, north) of a GeoJSON geometry; None if it is None or empty.

    A geometry across the antimeridian, which is cut there, has -180 and 180; see `bbox_of`.

    Raises UsageError for an invalid geometry: an unknown type, coordinates of the wrong depth,
    values that are not finite, a ring that is not closed.
    """
    positions = positions_of(geometry)
    return _around(positions) if positions else None


def bbox_of(geometry: Geometry | None) -> Bounds | None:
    """Like `bounds_of`, but across the antimeridian west > east (RFC 7946, section 5.2)."""
    boxes = part_boxes(geometry)
    return antimeridian.bbox(np.array(boxes)) if boxes else None


def middle_of(box: Bounds) -> tuple[float, float]:
    """(longitude, latitude) of the middle of a box, whose west > east across the antimeridian."""
    west, south, east, north = box
    middle = (west + east) / 2 if west <= east else (west + east + 360) / 2
    return middle - 360 if middle > 180 else middle, (south + north) / 2


def positions_of(geometry: Geometry | None) -> list[Any]:
    """All positions of a geometry, each a list of numbers. Errors: as `bounds_of`."""
    return [position for part in _parts(geometry) for position in part]


def part_boxes(geometry: Geometry | None) -> list[Bounds]:
    """(west, south, east, north) of each part of a geometry. Errors: as `bounds_of`."""
    return [_around(part) for part in _parts(geometry)]


def _parts(geometry: Geometry | None) -> list[list[Any]]:
    """The positions of each part; no part is empty."""
    if geometry is None:
        return []
    parts: list[list[Any]] = []
    try:
        _collect(geometry, parts)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{_short(geometry)} is not a GeoJSON geometry ({error}); see RFC 7946, section 3.1"
        ) from error
    return [part for part in parts if part]


def _around(positions: Sequence[Any]) -> Bounds:
    longitudes = [float(position[0]) for position in positions]
    latitudes = [float(position[1]) for position in positions]
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


_MOST_DEGREES = 540
"""Values up to this may be longitudes that were not cut at the antimeridian. Our choice."""

_DEPTHS = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
"""How deeply the coordinates of a geometry are nested."""


def _collect(geometry: Mapping[str, Any], parts: list[list[Any]]) -> None:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            _collect(part, parts)
        return
    if kind not in _DEPTHS:
        raise ValueError(f"its type is {kind!r}")
    if kind == "Point" and not geometry["coordinates"]:
        return  # RFC 7946 section 3.1: empty
    closed = "Polygon" in kind
    fewest = 4 if closed else 2 if "Line" in kind else 0
    depth = _DEPTHS[kind]
    if not kind.startswith("Multi"):
        parts.append([])
        _walk(geometry["coordinates"], depth, closed, fewest, parts[-1])
        return
    if not isinstance(geometry["coordinates"], list | tuple):
        raise TypeError("its coordinates are not an array")
    for coordinates in geometry["coordinates"]:
        parts.append([])
        _walk(coordinates, depth - 1, closed, fewest, parts[-1])


def _walk(values: Any, depth: int, closed: bool, fewest: int, positions: list[Any]) -> None:
    if not isinstance(values, list | tuple):
        raise TypeError("its coordinates are not an array")
    if depth == 0:
        if len(values) < 2 or not all(
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            for value in values
        ):
            raise ValueError(f"{values!r} is not a position")
        positions.append(values)
        return
    if depth == 1 and len(values) < fewest:
        raise ValueError(f"a line or ring has only {len(values)} positions")
    for value in values:
        _walk(value, depth - 1, closed, fewest, positions)
    if depth == 1 and closed and list(values[0]) != list(values[-1]):
        raise ValueError("a ring is not closed")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def checked_bbox(bbox: Sequence[float]) -> Bounds:
    """`bbox` as floats; UsageError if it is not west, south, east, north in degrees."""
    try:
        west, south, east, north = (float(value) for value in bbox)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a bbox is west, south, east, north in degrees, not {bbox!r}") from error
    # NaN fails these conditions too.
    if not (-180 <= west <= 180 and -180 <= east <= 180):
        raise UsageError(
            f"longitudes of a bbox are within -180 and 180, not {west}, {east}; over the "
            "antimeridian, west is greater than east"
        )
    if not (-90 <= south <= north <= 90):
        raise UsageError(
            f"latitudes of a bbox are within -90 and 90, south first, not {south} to {north}"
        )
    return west, south, east, north


def shape_of(geometry: Geometry) -> Any:
    """The shapely geometry of a footprint, made valid."""
    shapely = import_shapely()
    (shape,) = from_geojson([json.dumps(geometry)])
    return shape if shapely.is_valid(shape) else shapely.make_valid(shape)


@functools.lru_cache(maxsize=64)
def box_of(bbox: Bounds) -> Any:
    """The shapely geometry of a box; it crosses the antimeridian if west > east."""
    shapely = import_shapely()
    west, south, east, north = bbox
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    boxes = [_box(a, south, b, north) for a, b in spans]
    region = boxes[0] if len(boxes) == 1 else shapely.union_all(boxes)
    shapely.prepare(region)
    return region


def _box(west: float, south: float, east: float, north: float) -> Any:
    """The box, or the line or point that it degenerates to."""
    shapely = import_shapely()
    if west < east and south < north:
        return shapely.box(west, south, east, north)
    if (west, south) == (east, north):
        return shapely.Point(west, south)
    return shapely.LineString([(west, south), (east, north)])


@functools.lru_cache(maxsize=64)
def polygon_of(text: str) -> Any:
    """The shapely geometry of a GeoJSON Polygon or MultiPolygon; UsageError for anything else."""
    shapely = import_shapely()
    geometry = json.loads(text)
    if geometry.get("type") not in ("Polygon", "MultiPolygon"):
        raise UsageError(
            f"a filter's geometry is a GeoJSON Polygon or MultiPolygon, not {_short(geometry)}"
        )
    bounds = bounds_of(geometry)
    if bounds is None:
        raise UsageError("the filter's geometry is empty")
    _check_degrees(bounds)
    (region,) = from_geojson([text])
    if not shapely.is_valid(region):
        raise UsageError(f"the filter's geometry is not valid: {shapely.is_valid_reason(region)}")
    shapely.prepare(region)
    return region


def _check_degrees(bounds: Bounds) -> None:
    """UsageError for bounds that are not longitudes and latitudes, with the likely mistake."""
    west, south, east, north = bounds
    if min(west, -east) >= -180 and min(south, -north) >= -90:
        return
    if max(map(abs, bounds)) > _MOST_DEGREES:
        advice = "these are not degrees: give longitudes and latitudes in WGS 84"
    elif south < -90 or north > 90:
        advice = "latitudes are within -90 and 90, and in each position longitude comes first"
    else:
        advice = "cut it at the antimeridian into a MultiPolygon (RFC 7946, section 3.1.9)"
    raise UsageError(f"the filter's geometry reaches beyond WGS 84 ({bounds}); {advice}")


def intersects(region: Any, footprints: Sequence[str]) -> NDArray[np.bool_]:
    """Which footprints (N GeoJSON texts) `region` intersects, (N,); makes invalid shapes valid."""
    shapely = import_shapely()
    shapes = from_geojson(footprints)
    invalid = ~shapely.is_valid(shapes)
    if invalid.any():
        shapes[invalid] = shapely.make_valid(shapes[invalid])
    found: NDArray[np.bool_] = shapely.intersects(region, shapes)
    return found
