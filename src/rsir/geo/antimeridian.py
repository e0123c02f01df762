"""Geometries that cross the antimeridian, cut there; and the box around the parts (RFC 7946).

The library `antimeridian` cuts a ring where longitude jumps by more than 180°. It leaves the holes
of a polygon beyond ±180° where they are, and folds a ring that is wider than 360°. So it gets
exteriors and holes one by one, at most 360° wide, with positions at most 90° apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import MissingExtraError

_STEP = 90.0
"""Degrees between the positions of a ring; the library needs less than 180. Our choice."""

_GRID = 1e-9
"""Degrees, a tenth of a millimetre: pieces that differ by rounding only become one. Our choice."""


def split(shape: Any, *, unwrapped: bool = True) -> Any:
    """A shapely geometry within [-180, 180] × [-90, 90], cut at ±180°; exteriors counter-clockwise.

    unwrapped: longitudes are continuous; they go beyond ±180° where the shape crosses the
    antimeridian, and a ring around a pole is closed along that pole. False: they are within
    [-180, 180] and jump by 360° there; exteriors are counter-clockwise and holes clockwise, and a
    ring around a pole becomes the area between the ring and the pole.

    None if no such geometry can be made, as of a ring whose inside has both poles.

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
        import shapely
    except ImportError:
        raise MissingExtraError("a footprint over the antimeridian", "geo") from None
    return shapely, antimeridian


def _cut(part: Any, unwrapped: bool) -> list[Any]:
    """Pieces of a point, line or polygon, of its own dimension."""
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
        # What only touches ±180°, or the edge of a turn, leaves a line or a point there.
        dimension = shapely.get_dimensions(part)
        found += [
            p for p in shapely.get_parts(fixed)
            if shapely.get_dimensions(p) == dimension and not p.is_empty
        ]  # fmt: skip
    return found


def _wrapped(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    lon, lat = xy.T
    return np.column_stack([np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon), lat])


def bbox(boxes: NDArray[np.float64]) -> list[float]:
    """[west, south, east, north] of parts (N, 4); west > east if they cross the antimeridian.

    After RFC 7946, section 5.2: parts that meet at ±180° are one, and the box leaves out the widest
    gap between the parts. `antimeridian.bbox` knows such a gap between two parts only.
    """
    boxes = boxes[np.argsort(boxes[:, 0])]
    west, south = boxes[:, :2].min(axis=0).tolist()
    east, north = boxes[:, 2:].max(axis=0).tolist()
    if (west, east) == (-180, 180) and len(boxes) > 1:
        reached = np.maximum.accumulate(boxes[:, 2])
        gaps = boxes[1:, 0] - reached[:-1]
        widest = int(gaps.argmax())
        if gaps[widest] > 0:
            west, east = float(boxes[widest + 1, 0]), float(reached[widest])
    return [west, south, east, north]
