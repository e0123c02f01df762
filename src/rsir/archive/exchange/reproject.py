"""Convert geometries of Parquet files, in any CRS, to footprints in WGS 84."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.exchange import geoarrow
from rsir.archive.exchange.arrow_columns import is_text, storage_of
from rsir.archive.exchange.shapes import geometry_of
from rsir.errors import MissingExtraError, UsageError
from rsir.geo.antimeridian import split
from rsir.geo.parse import from_wkb, from_wkt, import_shapely, names_file
from rsir.types import Geometry

_WGS84 = "OGC:CRS84"

UNREADABLE = "its geometry is neither WKB nor WKT, or too large or nested too deeply"
NOT_IN_WGS84 = "its geometry cannot be expressed in WGS 84"


class FootprintReader:
    """Reads the geometries of one column as footprints.

    metadata: the GeoParquet metadata of the column, {} if there is none. crs: overrides the CRS of
    the metadata; any name that PROJ knows. file: its name, for messages.

    Raises UsageError for a CRS that PROJ does not know, for a CRS that neither the file nor the
    caller gives, and for an unknown encoding; MissingExtraError without shapely or pyproj.
    """

    def __init__(self, metadata: Mapping[str, Any], crs: str | None, file: str) -> None:
        import_shapely()
        try:
            from pyproj import CRS, Transformer
            from pyproj.exceptions import CRSError
        except ImportError:
            raise MissingExtraError("a geometry in another CRS", "geo") from None
        self._encoding = str(metadata.get("encoding", "WKB")).lower()
        if self._encoding not in ("wkb", "wkt", *geoarrow.LEVELS):
            raise UsageError(f"{file}: its geometries are {self._encoding}; write them as WKB")
        # GeoParquet: without "crs" a column is in WGS 84; if "crs" is null, the CRS is unknown.
        name = metadata.get("crs", _WGS84) if crs is None else crs
        if name is None:
            raise UsageError(f"{file} does not say in which CRS its geometries are: give crs")
        if names_file(name if isinstance(name, str) else json.dumps(name)):
            raise UsageError(f"{file}: its CRS names a file, which rsir does not open: give crs")
        try:
            system = CRS.from_user_input(name)
        except CRSError as error:
            raise UsageError(f"{file}: PROJ does not know the CRS {name!r}") from error
        self._transformer: Any = None
        if not system.equals(CRS.from_user_input(_WGS84), ignore_axis_order=True):
            self._transformer = Transformer.from_crs(system, _WGS84, always_xy=True)
        operation = system.coordinate_operation
        method = operation.method_name if operation else ""
        # In a cylindrical projection x increases all the way from 180° W to 180° E, so a geometry
        # may be wider than 180°. In any other projection such a width is a jump of the longitude at
        # the antimeridian.
        cylindrical = ("Popular Visualisation", "Mercator", "Equidistant Cyl", "Lambert Cyl")
        self._jumps = bool(method) and not method.startswith(cylindrical)

    def footprints(self, column: Any) -> tuple[list[Geometry | None], dict[int, str]]:
        """The footprints of a column of WKB, WKT or GeoArrow.

        Also returns, for each row whose geometry gives no footprint, the reason. Exterior rings
        keep their vertices, except that a geometry across the antimeridian is cut there.
        """
        column = storage_of(column.combine_chunks())
        if self._encoding in geoarrow.LEVELS:
            original = shapes = geoarrow.shapes_of(column, self._encoding)
        else:
            read = from_wkt if is_text(column.type) else from_wkb
            original = shapes = read(column.to_pylist())
        present = column.is_valid().to_numpy(zero_copy_only=False)
        unreadable = np.flatnonzero(present & import_shapely().is_missing(shapes))
        reasons = dict.fromkeys(unreadable.tolist(), UNREADABLE)
        if self._transformer is not None:
            shapes = import_shapely().transform(shapes, self._to_degrees)
        west, south, east, north = import_shapely().bounds(shapes).T
        empty = import_shapely().is_missing(shapes) | import_shapely().is_empty(shapes)
        with np.errstate(invalid="ignore"):
            inside = (np.abs(west) <= 180) & (np.abs(east) <= 180)
            jumps = self._jumps & (east - west > 180)
            # False also for NaN and infinite values.
            on_earth = (np.abs([south, north]) <= 90).all(axis=0) & np.isfinite(west + east)
        for row in np.flatnonzero(~empty & ~(inside & on_earth & ~jumps)).tolist():
            if not on_earth[row]:
                shapes[row] = None
            elif jumps[row]:
                # The transformation keeps exteriors counter-clockwise.
                oriented = import_shapely().orient_polygons(original[row])
                shapes[row] = split(
                    import_shapely().transform(oriented, self._to_degrees), unwrapped=False
                )
            else:
                shapes[row] = split(shapes[row])
            if shapes[row] is None:
                reasons[row] = NOT_IN_WGS84
        footprints = [geometry_of(shape) for shape in shapes]
        for row in np.flatnonzero(present).tolist():
            if footprints[row] is None:
                reasons.setdefault(row, NOT_IN_WGS84)
        return footprints, dict(sorted(reasons.items()))

    def _to_degrees(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(self._transformer.transform(xy[:, 0], xy[:, 1]))
