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
"""footprint: WKT in WGS 84, to 16 decimals; properties: JSON; datetime: ISO 8601 in UTC. A missing
value is empty."""


def feature(
    id: str, geometry: Geometry | None, fields: Mapping[str, Any], properties: Mapping[str, Any]
) -> dict[str, Any]:
    """A GeoJSON feature (RFC 7946) with `fields` and the image's own properties side by side.

    A property with the name of a field is called "properties.NAME".
    """
    merged = dict(fields)
    for name, value in properties.items():
        merged[unused_name(name, merged, "properties.")] = value
    return {
        "type": "Feature",
        "id": id,
        "geometry": None if geometry is None else dict(geometry),
        "properties": merged,
    }


def unused_name(name: str, used: Container[str], prefix: str) -> str:
    """`name` with the prefix repeated until it is not among the `used` names."""
    while name in used:
        name = prefix + name
    return name


def collection(hits: Iterable[Hit]) -> dict[str, Any]:
    """A GeoJSON FeatureCollection of hits in their order; geometry null without a footprint.

    The properties are rank (from 1), score, distance, percentile, source, datetime, and those of
    the image.
    """
    features = []
    for rank, hit in enumerate(hits, start=1):
        values = hit.to_dict()
        fields = {"rank": rank} | {name: values[name] for name in CSV_COLUMNS[2:-2]}
        features.append(feature(hit.id, hit.footprint, fields, hit.properties))
    return {"type": "FeatureCollection", "features": features}


def table(hits: Iterable[Hit]) -> str:
    """CSV (RFC 4180) of hits in their order, with a header; the columns are `CSV_COLUMNS`.

    Raises MissingExtraError if a hit has a footprint and shapely is not installed.
    """
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(CSV_COLUMNS)
    for rank, hit in enumerate(hits, start=1):
        values = hit.to_dict() | {
            "rank": rank,
            "footprint": _wkt(hit.footprint),
            "properties": json.dumps(dict(hit.properties), ensure_ascii=False),
        }
        rows.writerow([values[name] for name in CSV_COLUMNS])
    return text.getvalue()


def _wkt(footprint: Geometry | None) -> str | None:
    if footprint is None:
        return None
    from rsir.archive.exchange.shapes import shapes_of, wkt_of

    return wkt_of(shapes_of([footprint]))[0]
