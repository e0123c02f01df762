"""What a result says on its card and in its details: texts, never HTML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from rsir.geo.geometry import bounds_of
from rsir.types import Bounds, Geometry, Hit

SIDE = 256
"""Pixels of the picture on a card; our choice: sharp at its 150 to 250 on a phone, too."""
LARGE = 640
"""Pixels of the picture in the details."""


def card(archive: str, hit: Hit) -> dict[str, Any]:
    """What the browser gets of a hit (JSON values)."""
    kind = class_of(hit)
    return {
        "id": hit.id,
        "score": f"{hit.score:.3f}",
        "class": kind,
        "place": place(hit.footprint),
        "date": "" if hit.datetime is None else hit.datetime.date().isoformat(),
        "name": name(hit.source),
        "alt": f"Overhead image {name(hit.source)}" + (f", {kind}" if kind else ""),
        "picture": picture(archive, hit.id),
        "footprint": None if hit.footprint is None else dict(hit.footprint),
    }


def picture(archive: str, id: str, size: int = SIDE) -> str:
    """The address of an item's picture, from the page's own."""
    return f"api/archives/{quoted(archive)}/items/{quoted(id)}/thumbnail?size={size}"


def quoted(name: str) -> str:
    """A name as one part of an address."""
    return quote(name, safe="")


def facts(hit: Hit, bands: Sequence[str]) -> list[tuple[str, str]]:
    """All that is known of a hit, as names and texts, the most asked for first.

    bands: those of the archive, which the bands of the file were taken for.
    """
    said = dict(hit.properties)
    shown: list[tuple[str, str]] = [
        ("Class", _text(said.pop("class", ""))),
        ("Score", f"{hit.score:.4f}"),
        ("Distance", f"{hit.distance:.4g}"),
    ]
    if hit.percentile is not None:
        shown.append(("Nearer than", f"{hit.percentile:.1f} % of random pairs"))
    shown += [
        ("Place", place(hit.footprint)),
        ("Extent", extent(hit.footprint)),
        ("Date", "" if hit.datetime is None else hit.datetime.strftime("%Y-%m-%d %H:%M UTC")),
        ("Bands", ", ".join(bands)),
        ("Bands of the file", ", ".join(map(_text, said.pop("bands", ())))),
        ("Source", hit.source),
        ("Id", hit.id),
    ]
    shown += [(key, _text(value)) for key, value in said.items()]
    return [(key, text) for key, text in shown if text]


def class_of(hit: Hit) -> str:
    """The hit's class, "" if it has none."""
    return _text(hit.properties.get("class", ""))


def name(source: str) -> str:
    """The last part of a path or uri."""
    return PurePath(source).name or source


def place(footprint: Geometry | None) -> str:
    """The middle of a footprint, as people write it; "" without one."""
    point = middle(footprint)
    if point is None:
        return ""
    return _point(*point)


def extent(footprint: Geometry | None) -> str:
    """West, south, east, north in degrees; "" without a footprint."""
    bounds = bounds_of(footprint)
    return "" if bounds is None else ", ".join(f"{value:.6f}" for value in bounds)


def box(bounds: Bounds) -> str:
    """A box for a narrow place: from corner to corner."""
    west, south, east, north = bounds
    return f"{_point(west, south)} to {_point(east, north)}"


def middle(footprint: Geometry | None) -> tuple[float, float] | None:
    """Longitude and latitude of the middle of a footprint's box; None without one."""
    bounds = bounds_of(footprint)
    if bounds is None:
        return None
    west, south, east, north = bounds
    return (west + east) / 2, (south + north) / 2


def _point(longitude: float, latitude: float) -> str:
    return (
        f"{abs(latitude):.4f}° {'N' if latitude >= 0 else 'S'}, "
        f"{abs(longitude):.4f}° {'E' if longitude >= 0 else 'W'}"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
