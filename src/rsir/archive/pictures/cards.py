"""Show hits as pictures: cards for a notebook, a complete page, a strip for a document.

Jinja escapes all text from outside (file names, properties). The page contains its pictures, and
loads nothing from the network.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from rsir.archive.pictures.thumbnails import Subject, picture
from rsir.errors import RsirError
from rsir.scenes.tile_cut import TileCut
from rsir.types import Geometry, Hit, printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL import Image

_SIDE = 256  # longest side of a thumbnail in pixels; our choice: sharp on a card of 14 rem
_QUALITY = 85  # of JPEG; our choice: about 15 kB a thumbnail, no visible blocks


@dataclass(frozen=True)
class Section:
    """One search on a page.

    query: the image of the query. took: seconds. searched: number of images compared. name: of the
    query, by default its file name. The page leaves out values that are None.
    """

    hits: Sequence[Hit]
    query: Subject | None = None
    took: float | None = None
    searched: int | None = None
    name: str | None = None


def cards(hits: Sequence[Hit]) -> str:
    """An HTML fragment with one card for each hit, in order; for notebooks.

    A card has rank, picture, file name, folder, score, distance, the footprint's centre, date and
    properties. The picture of a tile is its window of the scene, with the bands and the stretch
    with which it was indexed. A card whose picture cannot be read shows the reason instead.
    """
    return _templates().get_template("fragment.html").render(views=_hit_views(hits))


def page(*sections: Section, title: str = "Search results") -> str:
    """A complete HTML page of searches; it needs no other file."""
    views = [_section_view(section) for section in sections]
    return _templates().get_template("page.html").render(sections=views, title=printable(title))


def contact_sheet(query: str | Path | None, hits: Sequence[Hit], *, side: int = 128) -> Image.Image:
    """A strip of pictures of mode "RGB": the query, then the hits with rank and score below.

    side: pixels of each picture's square. The square of a picture that cannot be read stays grey.
    """
    from PIL import Image, ImageDraw

    margin, line = max(4, side // 16), 14  # a line of Pillow's built-in font is 11 pixels high
    entries: list[tuple[Path | Hit, str]] = []
    if query is not None:
        entries.append((Path(query), "query"))
    entries += [(hit, f"{rank}  {hit.score:.3f}") for rank, hit in enumerate(hits, 1)]
    width = margin + len(entries) * (side + margin)
    sheet = Image.new("RGB", (max(width, 1), side + 2 * margin + line), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (subject, label) in enumerate(entries):
        left = margin + column * (side + margin)
        draw.rectangle((left, margin, left + side - 1, margin + side - 1), (210, 210, 210))
        try:
            image = picture(subject, side)
        except RsirError:
            draw.text((left + 6, margin + 6), "no picture", (90, 90, 90))
        else:
            gap_x, gap_y = (side - image.width) // 2, (side - image.height) // 2
            sheet.paste(image, (left + gap_x, margin + gap_y))
        if query is not None and column == 0:
            frame = (left - 2, margin - 2, left + side + 1, margin + side + 1)
            draw.rectangle(frame, None, "red", 2)
        draw.text((left, margin + side + 3), label, "black")
    return sheet


def _section_view(section: Section) -> dict[str, Any]:
    """The values that the template of a page shows for one search."""
    query = section.query
    return {
        "query": None if query is None else _view(query, "Query image", section.name),
        "views": _hit_views(section.hits),
        "took": section.took,
        "searched": section.searched,
    }


def _hit_views(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """The values that the template of a card shows, for each hit."""
    return [
        _view(hit, f"Result {rank}:")
        | {
            "rank": rank,
            "score": f"{hit.score:.4g}",
            "distance": f"{hit.distance:.4g}",
            "percentile": None if hit.percentile is None else f"{hit.percentile:.5g}",
            "location": _location(hit.footprint),
            "date": None if hit.datetime is None else hit.datetime.isoformat(),
            "properties": {printable(str(k)): printable(str(v)) for k, v in hit.properties.items()},
        }
        for rank, hit in enumerate(hits, 1)
    ]


def _view(subject: Subject, label: str, name: str | None = None) -> dict[str, Any]:
    """Name, folder and thumbnail of a picture, or the reason why it has none."""
    file_name, folder = _file_name(subject)
    name = name or file_name
    view: dict[str, Any] = {
        "name": printable(name),
        "folder": printable(folder),
        "alt": printable(f"{label} {name}"),
        "thumbnail": None,
    }
    try:
        image = picture(subject, _SIDE)
    except RsirError as error:
        return view | {"reason": printable(str(error))}
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return view | {"thumbnail": f"data:image/jpeg;base64,{encoded}"}


def _file_name(subject: Subject) -> tuple[str, str]:
    """The file name, with the position of a tile in its scene, and the folder."""
    if isinstance(subject, np.ndarray):
        return "pixels", ""
    if isinstance(subject, Path):
        return subject.name or str(subject), str(subject.parent)
    path, cut = PurePath(subject.source), TileCut.of(subject.properties)
    name = path.name or str(path)
    if cut is not None and cut.window is not None:
        name = f"{name} at {cut.window[0]}, {cut.window[1]}"
    return name, str(path.parent)


def _location(footprint: Geometry | None) -> str | None:
    """The centre of the footprint's box as text, e.g. "49.00000° N, 10.00000° E"."""
    points = list(_positions((footprint or {}).get("coordinates", ())))
    if not points:
        return None
    lons, lats = zip(*points, strict=True)
    lon, lat = (min(lons) + max(lons)) / 2, (min(lats) + max(lats)) / 2
    north, east = "N" if lat >= 0 else "S", "E" if lon >= 0 else "W"
    return f"{abs(lat):.5f}° {north}, {abs(lon):.5f}° {east}"


def _positions(coordinates: Sequence[Any]) -> Iterator[tuple[float, float]]:
    # GeoJSON nests positions one level deeper per kind of geometry, RFC 7946 section 3.1.
    if coordinates and isinstance(coordinates[0], int | float):
        yield float(coordinates[0]), float(coordinates[1])
        return
    for part in coordinates:
        yield from _positions(part)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader

    return Environment(autoescape=True, loader=PackageLoader("rsir.archive.pictures"))
