"""The outlines of scenes on the map."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from rsir.errors import UsageError
from rsir.geo.geometry import positions_of
from rsir.geo.parse import import_shapely
from rsir.types import Bounds, Geometry

_DECIMALS = 6
"""Of degrees, a tenth of a metre; our choice."""


@dataclass(frozen=True, slots=True)
class SceneOutline:
    """Where a scene lies.

    bounds: west, south, east, north in degrees, west > east across the antimeridian. ring: the
    positions (longitude, latitude) of the convex hull of its tiles' footprints; across the
    antimeridian, longitudes go beyond 180.
    """

    bounds: Bounds
    ring: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, bounds: Bounds, footprints: Sequence[Geometry | None]) -> SceneOutline:
        """The outline of the tiles with these footprints; without any, that of the bounds."""
        west, south, east, north = bounds
        found: list[tuple[float, float]] = []
        for footprint in footprints:
            with suppress(UsageError):  # an archive of somebody else may hold anything
                found += [(p[0], p[1]) for p in positions_of(footprint)]
        east += 360 if east < west else 0
        box = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        xy = np.array(found or box, np.float64)
        if bounds[2] < west:
            xy[xy[:, 0] <= bounds[2], 0] += 360
        shapely = import_shapely()
        hull = shapely.convex_hull(shapely.multipoints(xy))
        if hull.geom_type == "Polygon":
            box = shapely.get_coordinates(hull).round(_DECIMALS).tolist()
        return cls(bounds, tuple((x, y) for x, y in box))

    @property
    def size(self) -> float:
        """Square degrees of the bounds."""
        west, south, east, north = self.bounds
        return ((east - west) % 360 or (360 if east > west else 0)) * (north - south)
