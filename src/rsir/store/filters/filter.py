"""Select the records that a search may find: by area, time, class, and a condition in SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.geo.geometry import box_of, checked_bbox, intersects, polygon_of
from rsir.geo.parse import import_shapely
from rsir.store.filters.fields import Field, FieldColumns, microseconds
from rsir.store.filters.sql import TRUE, In, Literal, Node, condition
from rsir.store.filters.time_spans import spans
from rsir.store.records.record import in_utc
from rsir.types import Bounds, Geometry

CLASS = "class"
"""The property that `Filter.classes` compares."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Select the records that meet every condition given; every record meets the empty filter.

    bbox: (west, south, east, north) in degrees, WGS 84; the footprint intersects it (touching
    counts); west > east reaches over the antimeridian. geometry: a GeoJSON Polygon or
    MultiPolygon in WGS 84; the footprint intersects it. A record without a footprint meets
    neither.
    start, end: a closed interval of time, which the record's datetime is in, or which its own
    interval (the properties "start_datetime" and "end_datetime" of STAC) overlaps; None is an open
    end. Without a time zone they are UTC. A record without any of them is in no interval.
    classes: the property "class" is one of these texts.
    where: a condition in SQL on the record's fields (`RECORD_FIELDS`) and properties, e.g.
    "cloud < 10 AND folder = 'Harbor'". A name that a record lacks is NULL. A comparison of values
    of different kinds (a number with a text) is NULL as well. Numbers compare as float64, text by
    code point; LIKE is case-sensitive; `datetime` compares with text in ISO 8601.

    Raises UsageError, with what is allowed, for values that make no sense; MissingExtraError for a
    bbox or a geometry without shapely.
    """

    bbox: Bounds | None = None
    geometry: Geometry | None = None
    start: datetime | None = None
    end: datetime | None = None
    where: str | None = None
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _utc(self.start))
        object.__setattr__(self, "end", _utc(self.end))
        if self.start and self.end and self.start > self.end:
            raise UsageError(f"the interval starts at {self.start}, after its end at {self.end}")
        if self.bbox is not None:
            object.__setattr__(self, "bbox", checked_bbox(self.bbox))
        if self.classes is not None:
            names = self.classes if isinstance(self.classes, Sequence) else None
            if (
                names is None
                or isinstance(names, str)
                or not all(isinstance(c, str) for c in names)
            ):
                raise UsageError(f"classes is a sequence of names, not {self.classes!r}")
            object.__setattr__(self, "classes", tuple(self.classes))
        if self.geometry is not None and not isinstance(self.geometry, Mapping):
            raise UsageError(f"geometry is a GeoJSON geometry, not {self.geometry!r}")
        if self.where is not None:
            condition(self.where)
        self.regions()

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> str:
        """A text that is the same for equal filters only."""
        times = [None if t is None else t.isoformat() for t in (self.start, self.end)]
        return json.dumps([self.bbox, self.geometry, *times, self.where, self.classes])

    def conditions(self) -> list[Node]:
        """The conditions of `where` and `classes`."""
        found = [] if self.where is None else [condition(self.where)]
        if self.classes is not None:
            found.append(In(Field(CLASS, True), tuple(map(Literal, self.classes))))
        return found

    def regions(self) -> list[Any]:
        """The shapely geometries that a footprint has to intersect."""
        regions = [] if self.bbox is None else [box_of(self.bbox)]
        if self.geometry is not None:
            regions.append(polygon_of(json.dumps(dict(self.geometry))))
        return regions


def select(filter: Filter, columns: FieldColumns) -> NDArray[np.bool_]:
    """Which of N records meet `filter`, (N,)."""
    chosen = np.ones(len(columns), np.bool_)
    if filter.start is not None or filter.end is not None:
        first, last, known = spans(columns)
        chosen &= known
        if filter.start is not None:
            chosen &= last >= microseconds(filter.start)
        if filter.end is not None:
            chosen &= first <= microseconds(filter.end)
    for node in filter.conditions():
        chosen &= node.evaluate(columns) == TRUE
    for region in filter.regions():
        chosen &= touching(region, columns, chosen)
    return chosen


def _utc(time: datetime | None) -> datetime | None:
    if time is not None and not isinstance(time, datetime):
        raise UsageError(f"start and end are datetimes, not {time!r}")
    return None if time is None else in_utc(time)


def touching(region: Any, columns: FieldColumns, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which footprints `region` intersects, (N,); among: which footprints to compare, (N,).

    Bounds decide for most footprints: they lie outside the region's bounds, or inside the region.
    """
    shapely = import_shapely()
    west, south, east, north = columns.bounds()
    left, bottom, right, top = region.bounds
    # Without a footprint the bounds are NaN, and comparisons with NaN are false.
    near = among & (west <= right) & (east >= left) & (south <= top) & (north >= bottom)
    found = np.zeros(len(columns), np.bool_)
    if region.equals(shapely.box(left, bottom, right, top)):
        inside = (west >= left) & (east <= right) & (south >= bottom) & (north <= top)
        found |= near & inside
        rest = np.flatnonzero(near & ~inside)
    else:
        rows = np.flatnonzero(near)
        boxes = shapely.box(west[rows], south[rows], east[rows], north[rows])
        # The box of a point or an upright line is no polygon: shapely decides those footprints.
        proper = (west[rows] < east[rows]) & (south[rows] < north[rows])
        inside = proper & shapely.covers(region, boxes)
        found[rows[inside]] = True
        rest = rows[~inside & ~(proper & ~shapely.intersects(region, boxes))]
    if len(rest):
        found[rest] = intersects(region, columns.footprints(rest))
    return found
