"""The texts of a result, on its card and in its details; never HTML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from rsir.geo.geometry import bbox_of, middle_of
from rsir.types import Bounds, Geometry, Hit

SIDE = 256
"""Pixels of the picture on a card; our choice: sharp at the 150 to 250 pixels of a card."""
LARGE = 640
"""Pixels of the picture in the details; our choice."""


def card(archive: str, hit: Hit) -> dict[str, Any]:
    """The card of a hit as JSON values, for the browser."""
    class_name = class_of(hit)
    return {
        "id": hit.id,
        "score": f"{hit.score:.3f}",
        "class": class_name,
        "location": location(hit.footprint),
        "date": "" if hit.datetime is None else hit.datetime.date().isoformat(),
        "name": name(hit.source),
        "alt": f"Overhead image {name(hit.source)}" + (f", {class_name}" if class_name else ""),
        "picture": picture_address(archive, hit.id),
        "footprint": None if hit.footprint is None else dict(hit.footprint),
    }


def picture_address(archive: str, id: str, size: int = SIDE) -> str:
    """The address of an item's picture, relative to the page."""
    return f"api/archives/{quoted(archive)}/items/{quoted(id)}/thumbnail?size={size}"


def quoted(name: str) -> str:
    """A name as one segment of an address."""
    return quote(name, safe="")


def facts(hit: Hit, bands: Sequence[str]) -> list[tuple[str, str]]:
    """All that is known of a hit as (name, text), the most important first.

    bands: the names that the archive gives to the bands of the file.
    """
    properties = dict(hit.properties)
    pairs: list[tuple[str, str]] = [
        ("Class", _text(properties.pop("class", ""))),
        ("Score", f"{hit.score:.4f}"),
        ("Distance", f"{hit.distance:.4g}"),
    ]
    if hit.percentile is not None:
        pairs.append(("Nearer than", f"{hit.percentile:.1f} % of random pairs"))
    pairs += [
        ("Location", location(hit.footprint)),
        ("Extent", extent(hit.footprint)),
        ("Date", "" if hit.datetime is None else hit.datetime.strftime("%Y-%m-%d %H:%M UTC")),
        ("Bands", ", ".join(bands)),
        ("Bands of the file", ", ".join(map(_text, properties.pop("bands", ())))),
        ("Source", hit.source),
        ("Id", hit.id),
    ]
    pairs += [(key, _text(value)) for key, value in properties.items()]
    return [(key, text) for key, text in pairs if text]


def class_of(hit: Hit) -> str:
    """The hit's class, "" if it has none."""
    return _text(hit.properties.get("class", ""))


def name(source: str) -> str:
    """The last part of a path or URI."""
    return PurePath(source).name or source


def location(footprint: Geometry | None) -> str:
    """The middle of a footprint's box, e.g. "48.5000° N, 9.5000° E"; "" without a footprint."""
    bounds = bbox_of(footprint)
    return "" if bounds is None else _point(*middle_of(bounds))


def extent(footprint: Geometry | None) -> str:
    """West, south, east, north in degrees; "" without a footprint."""
    bounds = bbox_of(footprint)
    return "" if bounds is None else ", ".join(f"{value:.6f}" for value in bounds)


def box_text(bounds: Bounds) -> str:
    """A box in short: from corner to corner."""
    west, south, east, north = bounds
    return f"{_point(west, south)} to {_point(east, north)}"


def _point(longitude: float, latitude: float) -> str:
    return (
        f"{abs(latitude):.4f}° {'N' if latitude >= 0 else 'S'}, "
        f"{abs(longitude):.4f}° {'E' if longitude >= 0 else 'W'}"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
