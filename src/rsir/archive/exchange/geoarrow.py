"""Read geometries that are stored as GeoArrow's nested lists of coordinates.

Source: GeoArrow 0.2, 'Memory layout', which GeoParquet 1.1 takes over for native encodings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.documents import parse_object
from rsir.geo.parse import import_shapely

LEVELS: Mapping[str, int] = {
    "point": 0, "linestring": 1, "polygon": 2, "multipoint": 1, "multilinestring": 2,
    "multipolygon": 3,
}  # fmt: skip
"""The levels of lists around the coordinates, by the name of the encoding."""


def column_metadata(field: Any) -> dict[str, Any]:
    """What the extension type of a column says, with GeoParquet's names: "encoding" and "crs"."""
    about = {key.decode("utf-8", "replace"): value for key, value in (field.metadata or {}).items()}
    name = about.get("ARROW:extension:name", b"").decode("utf-8", "replace")
    text = about.get("ARROW:extension:metadata", b"")
    if isinstance(field.type, pa.BaseExtensionType):
        name, text = field.type.extension_name, field.type.__arrow_ext_serialize__()
    if not name.startswith("geoarrow."):
        return {}
    found: dict[str, Any] = {"encoding": name.removeprefix("geoarrow.")}
    try:
        crs = parse_object(text).get("crs")
    except ValueError:
        crs = None
    return found if crs is None else found | {"crs": crs}


def shapes_of(column: Any, encoding: str) -> NDArray[np.object_]:
    """The shapes of an array of nested lists, (N,); None for a row that is missing or damaged.

    encoding: a name of `LEVELS`. Coordinates beyond x and y are left out.
    """
    shapely = import_shapely()
    shapes = np.full(len(column), None, dtype=object)
    halves = [np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))]
    while halves:
        rows = halves.pop()
        try:
            shapes[rows] = _shapes(column.take(pa.array(rows)), encoding)
        except (pa.ArrowException, ValueError, TypeError, LookupError, shapely.GEOSException):
            # One of them is damaged, such as a ring that is not closed: halve until it is alone.
            if len(rows) > 1:
                halves += np.array_split(rows, 2)
    return shapes


def _shapes(values: Any, encoding: str) -> NDArray[np.object_]:
    shapely = import_shapely()
    offsets: list[NDArray[np.int64]] = []
    for _ in range(LEVELS[encoding]):
        lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        offsets.insert(0, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        values = pc.list_flatten(values)
    kind = getattr(shapely.GeometryType, encoding.upper())
    shapes: NDArray[np.object_] = shapely.from_ragged_array(
        kind, _coordinates(values), tuple(offsets)
    )
    return shapes


def _coordinates(values: Any) -> NDArray[np.float64]:
    """The x and y, (N, 2), of an array of structs or of lists of a fixed size."""
    if pa.types.is_struct(values.type):
        parts = [pc.struct_field(values, name) for name in ("x", "y")]
        return np.column_stack([part.to_numpy(zero_copy_only=False) for part in parts])
    flat = pc.list_flatten(values).to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(values), -1)[:, :2], np.float64)
