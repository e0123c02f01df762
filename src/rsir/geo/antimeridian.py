"""Cut geometries at the antimeridian, and find the box around their parts (RFC 7946).

The library `antimeridian` cuts a ring where longitude jumps by more than 180°. It does not move the
holes of a polygon that lie beyond ±180°, and it folds a ring that is wider than 360°. So this
module passes it each exterior and each hole separately, at most 360° wide, with positions at most
90° apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import MissingExtraError
from rsir.geo.parse import import_shapely
from rsir.types import Bounds

_STEP = 90.0
"""Degrees between the positions of a ring; the library needs less than 180. Our choice."""

_GRID = 1e-9
"""Degrees, a tenth of a millimetre: the union rounds coordinates to it, so that pieces whose edges
differ only by rounding are merged. Our choice."""


def split(shape: Any, *, unwrapped: bool = True) -> Any:
    """Cut a shapely geometry at ±180°, so that it lies within [-180, 180] × [-90, 90].

    Exteriors of the result are counter-clockwise. None if no such geometry exists, for example for
    a ring whose inside has both poles.

    unwrapped: longitudes are continuous; they go beyond ±180° where the shape crosses the
    antimeridian, and a ring around a pole is closed along that pole. False: they are within
    [-180, 180] and jump by 360° there; exteriors are counter-clockwise and holes clockwise, and a
    ring around a pole becomes the area between the ring and the pole.
    Errors: MissingExtraError without shapely or antimeridian.
    """
    shapely, _ = _libraries()
    parts = shapely.get_parts(shapely.make_valid(shape) if unwrapped else shape)
    inside = np.zeros(len(parts), bool)
    if unwrapped:
        inside = shapely.covered_by(parts, shapely.box(-180, -90, 180, 90))
    try:
        cut = [piece for part in parts[~inside] for piece in _cut(part, unwrapped)]
        merged = shapely.union_all([*parts[inside], *cut], grid_size=_GRID)
        return shapely.orient_polygons(merged)
    except (AssertionError, ValueError, shapely.GEOSException):
        return None


def _libraries() -> tuple[Any, Any]:
    try:
        import antimeridian
    except ImportError:
        raise MissingExtraError("a footprint over the antimeridian", "geo") from None
    return import_shapely(), antimeridian


def _cut(part: Any, unwrapped: bool) -> list[Any]:
    """The pieces of a point, line or polygon; each has the dimension of the whole."""
    shapely, antimeridian = _libraries()
    pieces = [part]
    if unwrapped:
        west, _, east, _ = part.bounds
        starts = [west, *np.arange(west + 360, east - _GRID, 360)]
        once = [part.intersection(shapely.box(x, -90, x + 360, 90)) for x in starts]
        pieces = [shapely.segmentize(p, _STEP) for p in shapely.get_parts(once)]
    found = []
    # The library drops positions within 1e-8 of the one before, and so may open a ring.
    for piece in shapely.remove_repeated_points(pieces, 2e-8):
        if piece.geom_type == "Polygon":
            if unwrapped:
                piece = shapely.orient_polygons(piece)
            outer, *holes = (
                shapely.make_valid(
                    antimeridian.fix_polygon(
                        shapely.Polygon(ring), fix_winding=False, great_circle=False
                    )
                )
                for ring in (piece.exterior, *(hole.reverse() for hole in piece.interiors))
            )
            fixed = outer.difference(shapely.union_all(holes))
        else:
            fixed = shapely.transform(piece, _wrapped)
            if piece.geom_type == "LineString":
                fixed = antimeridian.fix_line_string(fixed, great_circle=False)
        # A polygon that only touches ±180°, or the edge of a turn, also gives a line or a point.
        dimension = shapely.get_dimensions(part)
        found += [
            p for p in shapely.get_parts(fixed)
            if shapely.get_dimensions(p) == dimension and not p.is_empty
        ]  # fmt: skip
    return found


def _wrapped(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    lon, lat = xy.T
    return np.column_stack([np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon), lat])


def bbox(boxes: NDArray[np.float64]) -> Bounds:
    """(west, south, east, north) around boxes (N, 4); west > east across the antimeridian.

    After RFC 7946, section 5.2: boxes that meet at ±180° count as one, and the result leaves out
    the widest gap between the boxes. `antimeridian.bbox` does this only for two boxes.
    """
    over = boxes[:, 0] > boxes[:, 2]
    if over.any():
        halves = np.repeat(boxes[over], 2, axis=0)
        halves[::2, 2], halves[1::2, 0] = 180, -180
        boxes = np.concatenate([boxes[~over], halves])
    boxes = boxes[np.argsort(boxes[:, 0])]
    west, south = boxes[:, :2].min(axis=0).tolist()
    east, north = boxes[:, 2:].max(axis=0).tolist()
    if (west, east) == (-180, 180) and len(boxes) > 1:
        reached = np.maximum.accumulate(boxes[:, 2])
        gaps = boxes[1:, 0] - reached[:-1]
        widest = int(gaps.argmax())
        if gaps[widest] > 0:
            west, east = float(boxes[widest + 1, 0]), float(reached[widest])
    return west, south, east, north
