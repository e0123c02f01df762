"""Hits for other programs: GeoJSON for maps, CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Container, Iterable, Mapping
from typing import Any

from rsir.types import Geometry, Hit

CSV_COLUMNS: tuple[str, ...] = (
    "rank",
    "id",
    "score",
    "distance",
    "percentile",
    "source",
    "datetime",
    "footprint",
    "properties",
)
"""footprint: WKT in WGS 84, to 16 decimals; properties: JSON; datetime: ISO 8601 in UTC. Empty
where there is none."""


def feature(
    id: str, geometry: Geometry | None, fields: Mapping[str, Any], properties: Mapping[str, Any]
) -> dict[str, Any]:
    """A GeoJSON feature (RFC 7946) with the fields and the image's own properties side by side.

    A property with the name of a field is called "properties.NAME".
    """
    said = dict(fields)
    for name, value in properties.items():
        said[free(name, said, "properties.")] = value
    return {
        "type": "Feature",
        "id": id,
        "geometry": None if geometry is None else dict(geometry),
        "properties": said,
    }


def free(name: str, taken: Container[str], prefix: str) -> str:
    """`name`, or with as many prefixes as it takes to be new."""
    while name in taken:
        name = prefix + name
    return name


def collection(hits: Iterable[Hit]) -> dict[str, Any]:
    """Hits as a GeoJSON FeatureCollection, best first; geometry null where there is no footprint.

    Properties are rank (from 1), score, distance, percentile, source, datetime, and those of the
    image.
    """
    features = []
    for rank, hit in enumerate(hits, start=1):
        said = hit.to_dict()
        fields = {"rank": rank} | {name: said[name] for name in CSV_COLUMNS[2:-2]}
        features.append(feature(hit.id, hit.footprint, fields, hit.properties))
    return {"type": "FeatureCollection", "features": features}


def table(hits: Iterable[Hit]) -> str:
    """Hits as CSV (RFC 4180) with a head, best first; the columns are `CSV_COLUMNS`.

    Raises MissingExtraError without shapely, if there is a footprint.
    """
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(CSV_COLUMNS)
    for rank, hit in enumerate(hits, start=1):
        said = hit.to_dict() | {
            "rank": rank,
            "footprint": _wkt(hit.footprint),
            "properties": json.dumps(dict(hit.properties), ensure_ascii=False),
        }
        rows.writerow([said[name] for name in CSV_COLUMNS])
    return text.getvalue()


def _wkt(footprint: Geometry | None) -> str | None:
    if footprint is None:
        return None
    from rsir.archive.exchange.geoparquet import shapely, shapes_of

    # -1: as many decimals as shapely has, 16.
    wkt: str | None = shapely().to_wkt(shapes_of([footprint])[0], rounding_precision=-1)
    return wkt
