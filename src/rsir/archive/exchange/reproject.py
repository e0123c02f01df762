"""Geometries in any CRS, as Parquet files hold them, become footprints in WGS 84."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsir.archive.exchange.geoparquet import geometry_of, shapely
from rsir.errors import MissingExtraError, UsageError
from rsir.types import Geometry

_WGS84 = "OGC:CRS84"

UNREADABLE = "its geometry is neither WKB nor WKT"
NOWHERE = "its geometry has no place in WGS 84"


class FootprintReader:
    """Turns the geometries of one column into footprints.

    about: what the file's GeoParquet metadata say of the column, {} if it has none. crs: what to
    take in place of its CRS, anything that PROJ knows one by. what: names the file in messages.

    Raises UsageError for a CRS that PROJ does not know, for one that the file leaves open, and
    for an encoding other than WKB; MissingExtraError without shapely or pyproj.
    """

    def __init__(self, about: Mapping[str, Any], crs: str | None, what: str) -> None:
        shapely()
        try:
            from pyproj import CRS, Transformer
            from pyproj.exceptions import CRSError
        except ImportError:
            raise MissingExtraError("a geometry in another CRS", "geo") from None
        encoding = about.get("encoding", "WKB")
        if encoding != "WKB":
            raise UsageError(f"{what}: its geometries are {encoding}; write them as WKB")
        # A column without "crs" is in WGS 84, one whose "crs" is null is in nobody knows which.
        said = about.get("crs", _WGS84) if crs is None else crs
        if said is None:
            raise UsageError(f"{what} does not say in which CRS its geometries are: give crs")
        try:
            system = CRS.from_user_input(said)
        except CRSError as error:
            raise UsageError(f"{what}: PROJ does not know the CRS {said!r}") from error
        self._transformer: Any = None
        if not system.equals(CRS.from_user_input(_WGS84), ignore_axis_order=True):
            self._transformer = Transformer.from_crs(system, _WGS84, always_xy=True)
        operation = system.coordinate_operation
        method = operation.method_name if operation else ""
        # On maps that unroll the globe x goes on rising where longitude jumps, so what looks wide
        # may be wide; on others an extent of more than 180° is a jump over the antimeridian.
        unrolled = ("Popular Visualisation", "Mercator", "Equidistant Cyl", "Lambert Cyl")
        self._jumps = bool(method) and not method.startswith(unrolled)

    def footprints(self, column: Any) -> tuple[list[Geometry | None], dict[int, str]]:
        """The footprints of a column of WKB or WKT, and why rows that have a geometry have none.

        Exterior rings are as they were, but for what crosses the antimeridian, which is cut there.
        """
        library = shapely()
        column = column.combine_chunks()
        if isinstance(column.type, pa.ExtensionType):
            column = column.storage
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        read = library.from_wkt if text else library.from_wkb
        values = np.array(column.to_pylist(), dtype=object)
        shapes = read(values, on_invalid="ignore")
        there = column.is_valid().to_numpy(zero_copy_only=False)
        reasons = dict.fromkeys(
            np.flatnonzero(there & library.is_missing(shapes)).tolist(), UNREADABLE
        )
        if self._transformer is not None:
            shapes = library.transform(shapes, self._to_degrees)
        west, south, east, north = library.bounds(shapes).T
        flat = library.is_missing(shapes) | library.is_empty(shapes)
        with np.errstate(invalid="ignore"):
            inside = (np.abs(west) <= 180) & (np.abs(east) <= 180)
            wide = self._jumps & (east - west > 180)
            # Written so that NaN and infinite values fail it too.
            placed = (np.abs([south, north]) <= 90).all(axis=0) & np.isfinite(west + east)
        for row in np.flatnonzero(~flat & ~(inside & placed & ~wide)).tolist():
            shapes[row] = _cut(shapes[row], wide[row]) if placed[row] else None
            if shapes[row] is None:
                reasons[row] = NOWHERE
        footprints = [geometry_of(shape) for shape in shapes]
        for row in np.flatnonzero(there).tolist():
            if footprints[row] is None:
                reasons.setdefault(row, NOWHERE)
        return footprints, dict(sorted(reasons.items()))

    def _to_degrees(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(self._transformer.transform(xy[:, 0], xy[:, 1]))


def _cut(shape: Any, jumps: bool) -> Any:
    """`shape` within [-180, 180], cut at ±180°; None of one that goes round a pole."""
    library = shapely()
    parts: list[Any] = []
    for part in library.get_parts(shape):
        if jumps:
            ring = library.get_exterior_ring(part)
            if ring is not None:
                turned = _continuous(library.get_coordinates(ring))
                if turned[0, 0] != turned[-1, 0]:
                    return None
            part = library.transform(part, _continuous)
        part = library.make_valid(part)
        first = math.floor((part.bounds[0] + 180) / 360)
        last = math.floor((part.bounds[2] + 180) / 360)
        for turn in range(first, last + 1):
            world = library.box(360 * turn - 180, -90, 360 * turn + 180, 90)
            there = library.transform(
                part.intersection(world), lambda xy, t=turn: xy - (360 * t, 0)
            )
            # What only touches the edge leaves a line or a point there.
            same = library.get_dimensions(part)
            parts += [p for p in library.get_parts(there) if library.get_dimensions(p) == same]
    merged = library.union_all([part for part in parts if not part.is_empty])
    return library.orient_polygons(merged)


def _continuous(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    # Whole turns are added, not differences, so that no rounding adds up.
    turns = -np.floor((np.diff(xy[:, 0]) + 180) / 360)
    return np.column_stack([xy[:, 0] + 360 * np.r_[0, np.cumsum(turns)], xy[:, 1]])
