"""Options that select images of an archive: search, delete and export share them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsir.cli.printing import say
from rsir.documents import read_object
from rsir.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rsir.archive.archive import Archive
    from rsir.store.filters.filter import Filter
    from rsir.types import Geometry

_PANEL = "Which images"
_LISTED = 100_000
"""Records that are read to list classes and dates; our choice: about a second."""

Bbox = Annotated[
    str | None,
    typer.Option(
        metavar="W,S,E,N",
        help="Footprint meets this box, in degrees; W > E crosses the antimeridian.",
        rich_help_panel=_PANEL,
    ),
]
Within = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.geojson",
        help="Footprint meets the polygons in a GeoJSON file.",
        rich_help_panel=_PANEL,
    ),
]
Taken = Annotated[
    str | None,
    typer.Option(
        "--datetime",
        metavar="A/B",
        help="Taken from A to B, both inclusive, in ISO 8601 (2024, 2024-05, 2024-05-01, "
        "2024-05-01T10:00:00Z); .. is an open end.",
        rich_help_panel=_PANEL,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Meets a condition, e.g. \"cloud < 0.1 AND folder = 'Harbor'\".",
        rich_help_panel=_PANEL,
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="Of this class; repeat the option to allow several.",
        rich_help_panel=_PANEL,
    ),
]
From = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="SOURCE",
        help="From this file or scene; repeat the option to allow several.",
        rich_help_panel=_PANEL,
    ),
]


def filter_of(
    bbox: str | None,
    within: Path | None,
    taken: str | None,
    where: str | None,
    classes: Sequence[str] | None,
    sources: Sequence[str] | None,
) -> Filter | None:
    """The filter of the options; None if no option is given.

    Raises UsageError for an option that makes no sense, DataError for a file that cannot be read.
    """
    from rsir.store.filters.filter import Filter
    from rsir.store.filters.interval import interval

    given = {
        "--bbox": bbox,
        "--within": "" if within == Path() else within,  # typer turns an empty text into this path
        "--datetime": taken,
        "--where": where,
        "--class": classes,
        "--source": sources,
    }
    for option, value in given.items():
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and not text.strip() for text in texts):
            raise UsageError(f"{option} is empty; leave it out")
    if all(value is None or value == [] for value in given.values()):
        return None
    start, end = (None, None) if taken is None else interval(taken, "--datetime")
    filter = Filter(
        bbox=None if bbox is None else box(bbox, "--bbox"),
        geometry=None if within is None else polygons(within),
        start=start,
        end=end,
        where=where,
        classes=classes or None,
    )
    if not sources:
        return filter
    from rsir.archive.search.query_vectors import from_sources

    cut_from = from_sources(sources)
    combined = cut_from if where is None else f"({where}) AND {cut_from}"
    return replace(filter, where=combined)


def unknown_names(archive: Archive, filter: Filter | None) -> list[str]:
    """The properties in a filter's condition that no image has; [] for an empty archive.

    Such a property is NULL for every image, so its name is probably a mistake.
    """
    from rsir.store.filters.filter import Filter
    from rsir.store.filters.sql import condition, properties_in, sql_property

    if filter is None or filter.where is None or not len(archive):
        return []

    def is_known(name: str) -> bool:
        return archive.count(Filter(where=f"{sql_property(name)} IS NOT NULL")) > 0

    return [n for n in sorted(properties_in(condition(filter.where))) if not is_known(n)]


def say_unknown(archive: Archive, filter: Filter | None) -> None:
    """Print, on stderr, why a filter selects nothing: what the archive has instead.

    Also prints the properties in a condition that no image has.
    """
    for name in unknown_names(archive, filter):
        say(f"--where: no image has the property {name}; it is NULL for all of them")
    if not len(archive):
        say(f"{archive.path} is empty; add images with `rsir index`")
    elif filter is not None and not archive.count(filter):
        for line in _what_there_is(archive, filter):
            say(line)


def _what_there_is(archive: Archive, filter: Filter) -> Iterator[str]:
    """For each part of a filter that selects nothing by itself, what the archive has."""
    from rsir.store.filters.filter import Filter

    def selects_nothing(**part: Any) -> bool:
        return not archive.count(Filter(**part))

    records = list(islice(archive.records(), _LISTED))
    among = "" if len(records) == len(archive) else f" (of the first {_LISTED} images)"
    found = False
    if filter.classes is not None and selects_nothing(classes=filter.classes):
        known = sorted({str(r.properties["class"]) for r in records if "class" in r.properties})
        shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        names = ", ".join(filter.classes)
        yield f"no image has the class {names}; there are {shown or 'no classes'}{among}"
        found = True
    area = {"bbox": filter.bbox} if filter.bbox is not None else {"geometry": filter.geometry}
    if next(iter(area.values())) is not None and selects_nothing(**area):
        import numpy as np

        from rsir.geo.antimeridian import bbox

        bounds = np.array([s.bounds for s in archive.sources() if s.bounds is not None])
        if len(bounds):
            covered = "the archive covers " + ",".join(f"{side:.5g}" for side in bbox(bounds))
        else:
            covered = "no image of the archive has a place"
        yield f"no image lies in that area; {covered}"
        found = True
    if (filter.start or filter.end) and selects_nothing(start=filter.start, end=filter.end):
        times = sorted(record.datetime for record in records if record.datetime is not None)
        span = (
            f"the images are from {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}"
            if times
            else ("no image of the archive has a date")
        )
        yield f"no image was taken then; {span}{among}"
        found = True
    if filter.where is not None and selects_nothing(where=filter.where):
        yield "no image meets the condition of --where or comes from that --source"
        found = True
    if not found:
        yield "each condition selects images, but no image meets all of them"


def numbers(text: str, count: int | None, option: str, form: str) -> list[float]:
    """The finite numbers in a comma-separated text; exactly `count` of them, unless it is None.

    Raises a UsageError that names the option for any other text.
    """
    try:
        found = [float(number) for number in text.split(",")]
    except ValueError:
        found = []
    right = bool(found) if count is None else len(found) == count
    if not right or not all(map(math.isfinite, found)):
        many = "numbers" if count is None else f"{count} numbers"
        raise UsageError(f"{option} {text}: write it as {form}, {many}")
    return found


def box(text: str, option: str) -> tuple[float, float, float, float]:
    """(west, south, east, north) of "W,S,E,N"."""
    west, south, east, north = numbers(text, 4, option, "W,S,E,N")
    return west, south, east, north


def polygons(file: Path) -> Geometry:
    """The polygons in a GeoJSON file – a geometry, a feature or a collection – as one geometry.

    Raises DataError for an unreadable file, UsageError for a file without polygons.
    """
    try:
        found = _geometries(read_object(file))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UsageError(f"{file}: cannot be read as GeoJSON ({error})") from error
    if not found or not all(
        isinstance(shape, dict) and shape.get("type") in ("Polygon", "MultiPolygon")
        for shape in found
    ):
        raise UsageError(f"{file}: give a GeoJSON file of polygons, and of nothing else")
    if len(found) == 1:
        single: Geometry = found[0]
        return single
    from rsir.geo.parse import from_geojson, import_shapely
    from rsir.store.filters.filter import Filter

    for shape in found:
        Filter(geometry=shape)  # raises UsageError for an invalid geometry
    shapely = import_shapely()
    merged = shapely.union_all(from_geojson([json.dumps(shape) for shape in found]))
    joined: Geometry = json.loads(shapely.to_geojson(merged))
    return joined


def _geometries(document: Any) -> list[Any]:
    if not isinstance(document, dict):
        return []
    if document.get("type") == "FeatureCollection":
        features = document.get("features")
        return [g for f in features for g in _geometries(f)] if isinstance(features, list) else []
    return [document.get("geometry")] if document.get("type") == "Feature" else [document]
