"""Convert footprints to shapely geometries, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.geo.geometry import bounds_of
from rsir.geo.parse import from_geojson, import_shapely
from rsir.types import Geometry


def shapes_of(footprints: Sequence[Geometry | None]) -> NDArray[Any]:
    """Shapely geometries (N,) of GeoJSON geometries; None for None and for invalid GeoJSON."""
    return from_geojson([None if f is None else json.dumps(f) for f in footprints])


def geometry_of(shape: Any) -> Geometry | None:
    """The GeoJSON geometry of a shapely geometry, with exactly the same coordinates.

    None for None, and for coordinates that are not finite, which stores refuse.
    """
    if shape is None:
        return None
    # JSON and back: tuples become lists, as in every other footprint.
    geometry: Geometry = json.loads(json.dumps(import_shapely().geometry.mapping(shape)))
    try:
        bounds_of(geometry)
    except UsageError:
        return None
    return geometry


def wkt_of(shapes: NDArray[Any]) -> list[str | None]:
    """WKT of (N,) shapely geometries, with all of shapely's 16 decimals; None for None."""
    texts: list[str | None] = import_shapely().to_wkt(shapes, rounding_precision=-1).tolist()
    return texts
