"""Which records a search may find: by place, time, class, and a condition in SQL.

What a filter says of one record (`Filter.matches`) is the reference for what `select` finds on
whole columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.geo.geometry import box_of, checked_bbox, intersects, polygon_of
from rsir.store.filters.fields import Columns, Field, in_utc, microseconds
from rsir.store.filters.sql import TRUE, In, Literal, Node, condition
from rsir.types import Bounds, Geometry

if TYPE_CHECKING:
    from rsir.store.records.record import Record

CLASS = "class"
"""The property that `Filter.classes` asks for."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Records that meet all that is given; the empty filter is met by every record.

    bbox: (west, south, east, north) in degrees, WGS 84, that the footprint intersects (touching
    counts); west > east reaches over the antimeridian. geometry: a GeoJSON Polygon or
    MultiPolygon in WGS 84 that the footprint intersects. A record without a footprint meets
    neither.
    start, end: of the closed interval that the datetime is in; either may be open. Without a time
    zone they are UTC. A record without a datetime is in no interval.
    classes: the property "class" is one of these texts.
    where: a condition in SQL on the record's fields (`RECORD_FIELDS`) and properties, e.g.
    "cloud < 10 AND folder = 'Harbor'". A name that a record lacks is NULL there, and so is a
    comparison of values of different kinds (a number with a text). Numbers compare as float64,
    text by code point, LIKE by case; `datetime` compares with text in ISO 8601.

    Raises UsageError for what does not make sense, with what is allowed; MissingExtraError for a
    place without shapely.
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
        """Equal for equal filters."""
        times = [None if t is None else t.isoformat() for t in (self.start, self.end)]
        return json.dumps([self.bbox, self.geometry, *times, self.where, self.classes])

    def conditions(self) -> list[Node]:
        """What `where` and `classes` ask for."""
        found = [] if self.where is None else [condition(self.where)]
        if self.classes is not None:
            found.append(In(Field(CLASS, True), tuple(map(Literal, self.classes))))
        return found

    def regions(self) -> list[Any]:
        """The places that a footprint has to intersect, as shapely geometries."""
        regions = [] if self.bbox is None else [box_of(self.bbox)]
        if self.geometry is not None:
            regions.append(polygon_of(json.dumps(dict(self.geometry))))
        return regions

    def matches(self, record: Record) -> bool:
        """Whether one record meets the filter: the reference for `select`."""
        if self.start is not None and (record.datetime is None or record.datetime < self.start):
            return False
        if self.end is not None and (record.datetime is None or record.datetime > self.end):
            return False
        if any(node.one(record) != TRUE for node in self.conditions()):
            return False
        regions = self.regions()
        if regions and record.footprint is None:
            return False
        return all(intersects(region, [json.dumps(record.footprint)])[0] for region in regions)


def select(filter: Filter, columns: Columns) -> NDArray[np.bool_]:
    """Which of N records meet `filter`, (N,): what `Filter.matches` says of each of them."""
    chosen = np.ones(len(columns), np.bool_)
    if filter.start is not None or filter.end is not None:
        times, known = columns.times()
        chosen &= known
        if filter.start is not None:
            chosen &= times >= microseconds(filter.start)
        if filter.end is not None:
            chosen &= times <= microseconds(filter.end)
    for node in filter.conditions():
        chosen &= node.all(columns) == TRUE
    for region in filter.regions():
        chosen &= touching(region, columns, chosen)
    return chosen


def _utc(time: datetime | None) -> datetime | None:
    if time is not None and not isinstance(time, datetime):
        raise UsageError(f"start and end are datetimes, not {time!r}")
    return None if time is None else in_utc(time)


def touching(region: Any, columns: Columns, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which footprints `region` intersects; `among`: those that are asked about, (N,).

    Most are decided by their bounds: outside the region's, or a box that lies within the region.
    """
    import shapely

    west, south, east, north = columns.bounds()
    left, bottom, right, top = region.bounds
    # Comparisons with NaN, of those without a footprint, are false.
    near = among & (west <= right) & (east >= left) & (south <= top) & (north >= bottom)
    found = np.zeros(len(columns), np.bool_)
    if region.equals(shapely.box(left, bottom, right, top)):
        inside = (west >= left) & (east <= right) & (south >= bottom) & (north <= top)
        found |= near & inside
        rest = np.flatnonzero(near & ~inside)
    else:
        places = np.flatnonzero(near)
        boxes = shapely.box(west[places], south[places], east[places], north[places])
        # The box of a point or an upright line is no polygon: such footprints are looked at.
        proper = (west[places] < east[places]) & (south[places] < north[places])
        inside = proper & shapely.covers(region, boxes)
        found[places[inside]] = True
        rest = places[~inside & ~(proper & ~shapely.intersects(region, boxes))]
    if len(rest):
        found[rest] = intersects(region, columns.footprints(rest))
    return found
