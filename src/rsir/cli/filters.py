"""Which images a verb is for: the options that search, delete and export share."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsir.cli.printing import say
from rsir.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsir.archive.archive import Archive
    from rsir.store.filters.filter import Filter
    from rsir.types import Geometry

_PANEL = "Which images"

Bbox = Annotated[
    str | None,
    typer.Option(
        metavar="W,S,E,N",
        help="Whose footprint meets this box in degrees; W > E reaches over the antimeridian.",
        rich_help_panel=_PANEL,
    ),
]
Within = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.geojson",
        help="Whose footprint meets the polygons in a GeoJSON file.",
        rich_help_panel=_PANEL,
    ),
]
Taken = Annotated[
    str | None,
    typer.Option(
        "--datetime",
        metavar="A/B",
        help="Taken from A to B, both included, in ISO 8601 (2024, 2024-05, 2024-05-01, "
        "2024-05-01T10:00:00Z); .. is an open end.",
        rich_help_panel=_PANEL,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="That meet a condition, e.g. \"cloud < 0.1 AND folder = 'Harbor'\".",
        rich_help_panel=_PANEL,
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="Of this class; more than once: of any of them.",
        rich_help_panel=_PANEL,
    ),
]
From = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="SOURCE",
        help="Cut from this file or scene; more than once: from any of them.",
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
    """The filter that the options ask for; None if none is given.

    Raises UsageError for what does not make sense, DataError for a file that cannot be read.
    """
    from rsir.store.filters.filter import Filter
    from rsir.store.filters.interval import interval

    given = {
        "--bbox": bbox,
        "--within": "" if within == Path() else within,  # as which an empty text comes
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
    asked = Filter(
        bbox=None if bbox is None else box(bbox, "--bbox"),
        geometry=None if within is None else polygons(within),
        start=start,
        end=end,
        where=where,
        classes=classes or None,
    )
    if not sources:
        return asked
    from rsir.archive.search.query_vectors import from_sources

    cut_from = from_sources(sources)
    both = cut_from if where is None else f"({where}) AND {cut_from}"
    return replace(asked, where=both)


def unknown_names(archive: Archive, filter: Filter | None) -> list[str]:
    """The properties that a filter's condition looks at and no image has; none in an empty archive.

    Such a name is NULL everywhere, so that it may be a mistake.
    """
    from rsir.store.filters.filter import Filter
    from rsir.store.filters.sql import condition, properties_in, sql_property

    if filter is None or filter.where is None or not len(archive):
        return []

    def is_known(name: str) -> bool:
        return archive.count(Filter(where=f"{sql_property(name)} IS NOT NULL")) > 0

    return [n for n in sorted(properties_in(condition(filter.where))) if not is_known(n)]


def say_unknown(archive: Archive, filter: Filter | None) -> None:
    """Tell the names of a condition that no image has, on stderr."""
    for name in unknown_names(archive, filter):
        say(f"--where: no image has a property {name}; it is NULL everywhere")


def numbers(text: str, count: int | None, option: str, form: str) -> list[float]:
    """`count` finite numbers with commas between, or any number of them for None.

    Raises UsageError, naming the option, for others.
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

    Raises DataError for a file that cannot be read, UsageError for one without polygons.
    """
    try:
        document = json.loads(file.read_text("utf-8-sig"))  # some programs begin it with a mark
        found = _geometries(document)
        json.dumps(found)  # what is too deep for that is too deep for a filter
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as GeoJSON ({error})") from error
    except RecursionError:
        raise UsageError(f"{file}: is nested too deeply; give a GeoJSON file of polygons") from None
    if not found or not all(
        isinstance(one, dict) and one.get("type") in ("Polygon", "MultiPolygon") for one in found
    ):
        raise UsageError(f"{file}: give a GeoJSON file of polygons, and of nothing else")
    if len(found) == 1:
        alone: Geometry = found[0]
        return alone
    from rsir.archive.exchange.shapes import shapely
    from rsir.store.filters.filter import Filter

    for one in found:
        Filter(geometry=one)  # says what is wrong with it
    merged = shapely().union_all([shapely().from_geojson(json.dumps(one)) for one in found])
    joined: Geometry = json.loads(shapely().to_geojson(merged))
    return joined


def _geometries(document: Any) -> list[Any]:
    if not isinstance(document, dict):
        return []
    if document.get("type") == "FeatureCollection":
        features = document.get("features")
        return [g for f in features for g in _geometries(f)] if isinstance(features, list) else []
    return [document.get("geometry")] if document.get("type") == "Feature" else [document]
