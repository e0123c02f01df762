"""Where a window of pixels lies on the globe, as GeoJSON in WGS 84.

Points along the window's outline, in pixels, are transformed one by one, so that edges may bend.
Their longitudes are then made continuous, and the polygon is cut at ±180° (RFC 7946 section 3.1.9).
The polygon of a window that contains a pole reaches from the outline to that pole.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import MissingExtraError
from rsir.geo import antimeridian
from rsir.geo.parse import import_shapely, names_file
from rsir.types import Bounds, Geometry

if TYPE_CHECKING:
    from pyproj import CRS, Transformer

_log = logging.getLogger(__name__)

Window = tuple[int, int, int, int]
"""(column, row, width, height) in pixels, from the upper left corner of the scene."""

Affine = Sequence[float]
"""(a, b, c, d, e, f, ...): x = a·column + b·row + c, y = d·column + e·row + f."""

# GDAL's own default for densifying an edge (`densify_pts` of OCTTransformBounds).
_POINTS_PER_EDGE = 21
# Our choice: an edge that bends by less than a tenth of a pixel is drawn straight.
_STRAIGHT_WITHIN_PIXELS = 0.1
# Our choice: edges are halved until the longitudes of neighbouring points differ by no more than
# this many degrees; this adds points near a pole.
_LONGITUDE_STEP = 10.0
# Our choice: the limit of these halvings, which never reach a pole that lies on an edge.
_MAX_HALVINGS = 16
# Our choice: a window that lies partly off the globe is divided into this many cells per side.
_CELLS = 64
# Our choice: a point is outside the CRS's domain if transforming it to degrees and back moves it by
# more than this.
_ROUND_TRIP_PIXELS = 0.5
# A pole within this distance of the outline, in pixels, counts as on the outline.
_ON_EDGE_PIXELS = 1e-6

Points = NDArray[np.float64]
"""(N, 2)."""


def footprint(transform: Affine, crs: str, window: Window) -> Geometry | None:
    """The GeoJSON Polygon or MultiPolygon of a window, longitude before latitude.

    transform: of the scene, from (column, row) to the coordinates of `crs`. crs: any name of a CRS
    that PROJ understands, such as "EPSG:32632" or WKT. Exterior rings are counter-clockwise and
    longitudes are within [-180, 180]. A polygon that crosses the antimeridian is cut there. A pole
    inside the window is part of the polygon. If a window reaches beyond the CRS's domain (such as
    the full disk of a geostationary satellite), it is divided into 64 × 64 cells, and the result
    is the union of the cells that lie on the globe. None if no cell lies on the globe, or if PROJ
    does not understand the CRS.

    Errors: MissingExtraError without pyproj or shapely.
    """
    projection = _projection(crs)
    if projection is None:
        return None
    outline = _outline(window)
    grid = _PixelGrid(transform, projection)
    poles = grid.poles(window)
    for pole in poles:
        outline = _with_point(outline, pole[:2])
    refined = _refined(outline, grid)
    if refined is None:
        return _by_cells(window, grid)
    return _geometry(_ring(*refined, poles, window))


def to_wgs84(transform: Affine, crs: str, pixels: Points) -> Points | None:
    """Longitude and latitude, (N, 2), of pixels (column, row), (N, 2).

    None if a pixel lies off the globe, or if PROJ does not understand the CRS.
    """
    projection = _projection(crs)
    if projection is None:
        return None
    degrees = _PixelGrid(transform, projection).degrees(pixels)
    return degrees if np.isfinite(degrees).all() else None


def from_wgs84(transform: Affine, crs: str, degrees: Points) -> Points | None:
    """(column, row), (N, 2), of longitudes and latitudes, (N, 2).

    None if any of the positions has no pixel, if the transform is flat, or if PROJ does not
    understand the CRS.
    """
    projection = _projection(crs)
    if projection is None or is_flat(transform):
        return None
    pixels = _PixelGrid(transform, projection).pixels(degrees)
    return pixels if np.isfinite(pixels).all() else None


def bounds(transform: Affine, window: Window) -> Bounds:
    """(min x, min y, max x, max y) around the window's corners, in the scene's own CRS."""
    column, row, width, height = window
    corners = [(column, row), (column + width, row), (column + width, row + height)]
    xs, ys = _mapped(transform, np.array([*corners, (column, row + height)], dtype=np.float64)).T
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def is_flat(transform: Affine) -> bool:
    """Whether the transform maps all pixels to one line or one point."""
    a, b, _, d, e, _ = transform[:6]
    return a * e == b * d


class _Projection:
    """The transformers from a CRS to WGS 84 and back."""

    def __init__(self, crs: CRS) -> None:
        from pyproj import Transformer

        self.forward: Transformer = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        self.inverse: Transformer = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        operation = crs.coordinate_operation
        method = operation.method_name if operation else ""
        # If x is a longitude, it may continue beyond the antimeridian, and PROJ maps it back to the
        # other side. So a failed round trip does not mean that a point is outside the domain.
        self.is_endless = crs.is_geographic or method.startswith(
            ("Popular Visualisation", "Mercator", "Equidistant Cylindrical", "Lambert Cylindrical")
        )


_per_thread = threading.local()


def _projection(crs: str) -> _Projection | None:
    # Threads must not share a pyproj Transformer, and making one takes milliseconds.
    if not hasattr(_per_thread, "projection"):
        _per_thread.projection = lru_cache(maxsize=64)(_new_projection)
    found: _Projection | None = _per_thread.projection(crs)
    return found


def _new_projection(crs: str) -> _Projection | None:
    import_shapely()
    try:
        from pyproj import CRS
        from pyproj.exceptions import ProjError
    except ImportError:
        raise MissingExtraError("footprints in WGS 84", "geo") from None
    if names_file(crs):
        return None
    try:
        return _Projection(CRS.from_user_input(crs))
    except ProjError as error:
        _log.debug("CRS not understood: %s", error)
        return None


class _PixelGrid:
    """Maps the pixels of one scene to degrees and back."""

    def __init__(self, transform: Affine, projection: _Projection) -> None:
        self._transform = transform
        self._projection = projection

    def degrees(self, pixels: Points) -> Points:
        """Longitude and latitude of pixels, (N, 2); inf off the globe."""
        xy = _mapped(self._transform, pixels)
        lon, lat = self._projection.forward.transform(xy[:, 0], xy[:, 1])
        found = np.column_stack([lon, lat])
        if not self._projection.is_endless:
            off = np.hypot(*(self.pixels(found) - pixels).T)
            found[~(off <= _ROUND_TRIP_PIXELS)] = np.inf
        return found

    def poles(self, window: Window) -> list[tuple[float, float, int]]:
        """(column, row, ±90) of each pole that is one point in the window or on its edge."""
        column, row, width, height = window
        found = []
        for latitude in (90, -90):
            # In cylindrical projections a pole is a line, which needs no special treatment.
            points = self.pixels(np.array([[lon, latitude] for lon in (0.0, 90.0, 180.0)]))
            if not np.isfinite(points).all() or np.ptp(points, axis=0).max() > _ON_EDGE_PIXELS:
                continue
            x, y = points[0]
            near = _ON_EDGE_PIXELS
            if (column - near <= x <= column + width + near) and (
                row - near <= y <= row + height + near
            ):
                found.append((float(x), float(y), latitude))
        return found

    def pixels(self, degrees: Points) -> Points:
        """(column, row) of longitudes and latitudes, (N, 2); not finite where there is no pixel."""
        x, y = self._projection.inverse.transform(degrees[:, 0], degrees[:, 1])
        a, b, c, d, e, f = self._transform[:6]
        x, y = x - c, y - f
        with np.errstate(invalid="ignore"):  # inf − inf off the globe
            return np.column_stack([e * x - b * y, a * y - d * x]) / (a * e - b * d)


def _mapped(transform: Affine, pixels: Points) -> Points:
    # Not with the operators of affine: version 3 deprecates `*` for points, version 2 has no `@`.
    a, b, c, d, e, f = transform[:6]
    x, y = pixels.T
    return np.column_stack([a * x + b * y + c, d * x + e * y + f])


def _outline(window: Window) -> Points:
    """Points along the window's edge, (N, 2), down the left side first; the ring is not closed."""
    column, row, width, height = window
    corners = np.array([(0, 0), (0, height), (width, height), (width, 0)], dtype=np.float64)
    steps = np.arange(_POINTS_PER_EDGE)[:, None] / _POINTS_PER_EDGE
    edges = [
        a + (b - a) * steps for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    outline: Points = np.concatenate(edges) + np.array([column, row])
    return outline


def _with_point(outline: Points, point: tuple[float, float]) -> Points:
    """The outline with `point` added as a vertex if the point lies on the outline."""
    vertex = np.array(point)
    start, end = outline, np.roll(outline, -1, axis=0)
    if np.abs(start - vertex).max(axis=1).min() <= _ON_EDGE_PIXELS:
        return outline
    along = ((vertex - start) * (end - start)).sum(1) / ((end - start) ** 2).sum(1)
    off = np.abs(start + along[:, None] * (end - start) - vertex).max(axis=1)
    on = np.flatnonzero((off <= _ON_EDGE_PIXELS) & (along > 0) & (along < 1))
    return np.insert(outline, on[0] + 1, vertex, axis=0) if len(on) else outline


def _refined(outline: Points, grid: _PixelGrid) -> tuple[Points, Points] | None:
    """The outline with points added where longitudes change fast, and its degrees.

    None if a point lies off the globe.
    """
    degrees = grid.degrees(outline)
    for _ in range(_MAX_HALVINGS):
        if not np.isfinite(degrees).all():
            return None
        following = np.roll(degrees, -1, axis=0)
        polar = _is_pole(degrees) | _is_pole(following)
        wide = (np.abs(_turn(following[:, 0] - degrees[:, 0])) > _LONGITUDE_STEP) & ~polar
        (where,) = np.nonzero(wide)
        if not len(where):
            break
        middles = (outline[where] + np.roll(outline, -1, axis=0)[where]) / 2
        outline = np.insert(outline, where + 1, middles, axis=0)
        degrees = np.insert(degrees, where + 1, grid.degrees(middles), axis=0)
    return (outline, degrees) if np.isfinite(degrees).all() else None


def _is_pole(degrees: Points) -> NDArray[np.bool_]:
    polar: NDArray[np.bool_] = np.abs(np.abs(degrees[:, 1]) - 90) < 1e-9
    return polar


def _turn(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """A difference of longitudes, the shorter way round, in [-180, 180)."""
    return (difference + 180) % 360 - 180


def _ring(
    pixels: Points, degrees: Points, poles: Sequence[tuple[float, float, int]], window: Window
) -> Points:
    """The outline in degrees with continuous longitudes, extended to a pole that it encloses.

    The ring is not closed.
    """
    column, row, width, height = window
    touched = np.zeros(len(pixels), dtype=bool)
    inside: list[int] = []
    for x, y, latitude in poles:
        if min(x - column, column + width - x, y - row, row + height - y) <= _ON_EDGE_PIXELS:
            touched |= np.abs(pixels - (x, y)).max(axis=1) <= 2 * _ON_EDGE_PIXELS
        else:
            inside.append(latitude)
    if touched.any():
        # A pole has no longitude: the ring arrives along one meridian and leaves along another.
        first = int(np.flatnonzero(touched)[0])
        order = np.roll(np.arange(len(pixels)), -first)[~np.roll(touched, -first)]
        rest, pole = degrees[order], degrees[first, 1]
        lon = _continuous(rest[:, 0])
        lon, lat = np.r_[lon[0], lon, lon[-1]], np.r_[pole, rest[:, 1], pole]
        return np.column_stack([lon, lat])
    lon = _continuous(degrees[:, 0])
    ring = np.column_stack([lon, degrees[:, 1]])
    around = 360 * round((lon[-1] - lon[0]) / 360 + float(_turn(lon[:1] - lon[-1:])[0]) / 360)
    if inside and around:
        pole = inside[0]
        closing = [(lon[0] + around, ring[0, 1]), (lon[0] + around, pole), (lon[0], pole)]
        return np.concatenate([ring, closing])
    return _without_straight(ring, pixels, max(width, height))


def _continuous(longitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    # Add whole turns rather than differences, so that rounding errors do not add up.
    turns = -np.floor((np.diff(longitudes) + 180) / 360)
    continuous: NDArray[np.float64] = longitudes + 360 * np.r_[0, np.cumsum(turns)]
    return continuous


def _without_straight(ring: Points, pixels: Points, size: int) -> Points:
    """The ring without the points between the corners of edges that are straight in degrees."""
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    is_corner = ((pixels == low) | (pixels == high)).all(axis=1)
    corners = [*np.flatnonzero(is_corner), len(ring)]
    closed = np.concatenate([ring, ring[:1]])
    edges = []
    for start, end in pairwise(corners):
        edge = closed[start : end + 1]
        edges.append(edge[:-1] if _bends(edge, size) else edge[:1])
    return np.concatenate(edges)


def _bends(edge: Points, size: int) -> bool:
    (x0, y0), (x1, y1) = edge[0], edge[-1]
    length = math.hypot(x1 - x0, y1 - y0)
    if length == 0:
        return False
    off = np.abs((edge[:, 0] - x0) * (y1 - y0) - (edge[:, 1] - y0) * (x1 - x0)) / length
    return bool(off.max() > _STRAIGHT_WITHIN_PIXELS * length / size)


def _geometry(ring: Points) -> Geometry | None:
    """A ring of continuous longitudes as GeoJSON, cut at ±180°."""
    ring = ring.copy()
    ring[:, 0] -= 360 * math.floor((ring[:, 0].min() + 180) / 360)
    if ring[:, 0].max() <= 180 and np.abs(ring[:, 1]).max() <= 90:
        return _geojson([ring])
    return _merged([ring])


def _merged(rings: Sequence[Points]) -> Geometry | None:
    """The union of rings of continuous longitudes, cut at ±180°; None if it has no area."""
    from shapely import MultiPolygon, Polygon, get_parts, make_valid, union_all

    merged = antimeridian.split(union_all([make_valid(Polygon(ring)) for ring in rings]))
    found = [p for p in get_parts(merged) if isinstance(p, Polygon) and p.area]
    return _geojson_of(MultiPolygon(found)) if found else None


def _geojson_of(shape: Any) -> Geometry:
    from shapely import orient_polygons

    polygons = [
        [[list(point) for point in ring.coords] for ring in (polygon.exterior, *polygon.interiors)]
        for polygon in orient_polygons(shape).geoms
    ]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _geojson(rings: Sequence[Points]) -> Geometry:
    closed = []
    for ring in rings:
        x, y = ring.T
        area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()
        points = ring if area >= 0 else ring[::-1]
        closed.append([[float(x), float(y)] for x, y in (*points, points[0])])
    return {"type": "Polygon", "coordinates": closed}


def _by_cells(window: Window, grid: _PixelGrid) -> Geometry | None:
    """The union of the cells of the window that lie wholly on the globe; None if there is none."""
    column, row, width, height = window
    across = column + width * np.arange(_CELLS + 1) / _CELLS
    down = row + height * np.arange(_CELLS + 1) / _CELLS
    pixels = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    degrees = grid.degrees(pixels).reshape(_CELLS + 1, _CELLS + 1, 2)
    rings = []
    for i in range(_CELLS):
        for j in range(_CELLS):
            ring = degrees[[i, i + 1, i + 1, i], [j, j, j + 1, j + 1]]
            if not np.isfinite(ring).all():
                continue
            lon = _continuous(ring[:, 0])
            # A cell that contains or touches a pole has no outline in degrees.
            if abs(lon[-1] - lon[0]) < 180 and np.ptp(lon) < 90:
                rings.append(np.column_stack([lon, ring[:, 1]]))
    return _merged(rings) if rings else None
