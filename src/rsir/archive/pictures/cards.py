"""Hits to look at: cards for a notebook, a page of its own, a strip for a document.

Everything that comes from outside (file names, properties) is escaped by Jinja, and the page asks
for nothing from the network: pictures are inside it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ImageError, RsirError
from rsir.scenes.tile_cut import TileCut
from rsir.types import Geometry, Hit

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image

_SIDE = 256  # longest side of a thumbnail in pixels; our choice: sharp on a card of 14 rem
_QUALITY = 85  # of JPEG; our choice: about 15 kB a thumbnail, no visible blocks
_RGB = ("red", "green", "blue")

_STYLE = """
.rsir-hits { display: grid; gap: 1rem; padding: 0; margin: 1rem 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); }
.rsir-card { border: 1px solid #8886; border-radius: .5rem; overflow: hidden; margin: 0;
  font: .85rem/1.4 system-ui, sans-serif; }
.rsir-card img, .rsir-card .rsir-none { display: block; width: 100%; aspect-ratio: 1;
  object-fit: contain; background: #8882; }
.rsir-card .rsir-none { box-sizing: border-box; padding: .8rem; overflow: auto;
  overflow-wrap: anywhere; font-size: .8rem; }
.rsir-text { padding: .5rem .7rem .7rem; overflow-wrap: anywhere; }
.rsir-text p { margin: 0 0 .2rem; }
.rsir-name { font-weight: 600; }
.rsir-small { opacity: .75; }
.rsir-text dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin: .3rem 0 0;
  font-size: .78rem; }
.rsir-text dt { opacity: .7; } .rsir-text dd { margin: 0; }
"""

_CARD = """
{%- macro picture(view) -%}
{%- if view.thumbnail -%}
<img src="{{ view.thumbnail }}" alt="{{ view.alt }}" loading="lazy">
{%- else -%}
<div class="rsir-none" role="img" aria-label="No picture of {{ view.name }}">No picture: \
{{ view.reason }}</div>
{%- endif -%}
{%- endmacro -%}
{%- macro cards(views) -%}
{%- if views -%}
<ol class="rsir-hits" aria-label="Search results, best first">
{%- for view in views %}
<li><article class="rsir-card" aria-label="Result {{ view.rank }}: {{ view.name }}">
{{ picture(view) }}
<div class="rsir-text">
<p class="rsir-name">{{ view.rank }}. {{ view.name }}</p>
<p class="rsir-small">{{ view.folder }}</p>
<p>score {{ view.score }} · distance {{ view.distance }}</p>
{%- if view.percentile %}<p>nearer than {{ view.percentile }} % of random pairs</p>{% endif %}
{%- if view.place %}<p>{{ view.place }}</p>{% endif %}
{%- if view.date %}<p><time datetime="{{ view.date }}">{{ view.date }}</time></p>{% endif %}
{%- if view.properties %}
<dl>{% for key, value in view.properties.items() -%}
<dt>{{ key }}</dt><dd>{{ value }}</dd>
{%- endfor %}</dl>
{%- endif %}
</div></article></li>
{%- endfor %}
</ol>
{%- else -%}
<p class="rsir-empty">Nothing found.</p>
{%- endif -%}
{%- endmacro -%}
"""

_FRAGMENT = _CARD + """<style>{{ style }}</style>{{ cards(views) }}"""

_PAGE = (
    _CARD
    + """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { max-width: 90rem; margin: 0 auto; padding: 1rem 1.5rem 3rem;
  font-family: system-ui, sans-serif; background: Canvas; color: CanvasText; }
h1 { font-size: 1.4rem; } section { border-top: 1px solid #8886; padding-top: 1rem; }
.rsir-query { max-width: 15rem; }
{{ style }}</style>
</head>
<body>
<header><h1>{{ title }}</h1></header>
<main>
{%- for section in sections %}
<section aria-label="Search {{ loop.index }}">
{%- if section.query %}
<div class="rsir-card rsir-query">{{ picture(section.query) }}
<div class="rsir-text"><p class="rsir-name">Query: {{ section.query.name }}</p>
<p class="rsir-small">{{ section.query.folder }}</p></div></div>
{%- endif %}
<p>{{ section.views | length }} {{ "result" if section.views | length == 1 else "results" }}\
{% if section.searched is not none %} of {{ section.searched }} images{% endif %}\
{% if section.took is not none %} in {{ "%.3g" | format(section.took) }} s{% endif %}</p>
{{ cards(section.views) }}
</section>
{%- endfor %}
</main>
</body>
</html>
"""
)


def cards(hits: Sequence[Hit]) -> str:
    """An HTML fragment with one card a hit, best first as given; for notebooks.

    A card has rank, picture, file name, folder, score, distance, the footprint's centre, date and
    properties. Of a tile the picture is its window of the scene, with the bands and the stretch
    that it was indexed with. What cannot be read shows the reason in place of its picture.
    """
    return _template(_FRAGMENT).render(views=_views(hits), style=_STYLE)


class Pictured(Protocol):
    """A hit or a record: what it was cut from, and in its properties, how."""

    @property
    def source(self) -> str:
        """Path or uri of the file."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """Of a tile: `window`, `bands`, `stretch`; see `rsir.scenes.tiles.thumbnail`."""


_What = Path | Pictured | NDArray[np.uint8]


@dataclass(frozen=True)
class Section:
    """One search on a page.

    query: what was searched with: an image file, a tile of the archive, or pixels (3, H, W) uint8
    called `name`. took: seconds. searched: images compared. What is None is not shown.
    """

    hits: Sequence[Hit]
    query: _What | None = None
    took: float | None = None
    searched: int | None = None
    name: str | None = None


def page(*sections: Section, title: str = "Search results") -> str:
    """A whole HTML page of searches that needs nothing else: write it to a file and open it."""
    return _template(_PAGE).render(
        sections=[_section(section) for section in sections], style=_STYLE, title=_clean(title)
    )


def contact_sheet(query: str | Path | None, hits: Sequence[Hit], *, side: int = 128) -> Image.Image:
    """A strip of pictures, query first, then the hits with rank and score beneath; mode "RGB".

    side: pixels of each picture's square. A source that cannot be read leaves its square grey.
    """
    from PIL import Image, ImageDraw

    margin, line = max(4, side // 16), 14  # a line of Pillow's built-in font is 11 pixels high
    entries: list[tuple[Path | Pictured, str]] = []
    if query is not None:
        entries.append((Path(query), "query"))
    entries += [(hit, f"{rank}  {hit.score:.3f}") for rank, hit in enumerate(hits, 1)]
    width = margin + len(entries) * (side + margin)
    sheet = Image.new("RGB", (max(width, 1), side + 2 * margin + line), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (what, label) in enumerate(entries):
        left = margin + i * (side + margin)
        draw.rectangle((left, margin, left + side - 1, margin + side - 1), (210, 210, 210))
        try:
            picture = _thumbnail(what, side)
        except RsirError:
            draw.text((left + 6, margin + 6), "no picture", (90, 90, 90))
        else:
            gap_x, gap_y = (side - picture.width) // 2, (side - picture.height) // 2
            sheet.paste(picture, (left + gap_x, margin + gap_y))
        if query is not None and i == 0:
            draw.rectangle(
                (left - 2, margin - 2, left + side + 1, margin + side + 1), None, "red", 2
            )
        draw.text((left, margin + side + 3), label, "black")
    return sheet


# ------------------------------------------------------------------------------------ what is said


def _section(section: Section) -> dict[str, Any]:
    query = section.query
    shown = None if query is None else _picture(query, "Query image", section.name)
    return {
        "query": shown,
        "views": _views(section.hits),
        "took": section.took,
        "searched": section.searched,
    }


def _views(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [
        _picture(hit, f"Result {rank}:")
        | {
            "rank": rank,
            "score": f"{hit.score:.4g}",
            "distance": f"{hit.distance:.4g}",
            "percentile": None if hit.percentile is None else f"{hit.percentile:.5g}",
            "place": _place(hit.footprint),
            "date": None if hit.datetime is None else hit.datetime.isoformat(),
            "properties": {_clean(str(k)): _clean(str(v)) for k, v in hit.properties.items()},
        }
        for rank, hit in enumerate(hits, 1)
    ]


def _picture(what: _What, of: str, name: str | None = None) -> dict[str, Any]:
    called, folder = _called(what)
    name = name or called
    view: dict[str, Any] = {
        "name": _clean(name),
        "folder": _clean(folder),
        "alt": _clean(f"{of} {name}"),
        "thumbnail": None,
    }
    try:
        picture = _thumbnail(what, _SIDE)
    except RsirError as error:
        return view | {"reason": _clean(str(error))}
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return view | {"thumbnail": f"data:image/jpeg;base64,{encoded}"}


def _called(what: _What) -> tuple[str, str]:
    """The name of a picture, and the folder that it is in."""
    if isinstance(what, np.ndarray):
        return "pixels", ""
    path = PurePath(_source(what))
    name, cut = path.name or str(path), _cut(what)
    if cut is not None and cut.window is not None:
        name = f"{name} at {cut.window[0]}, {cut.window[1]}"
    return name, str(path.parent)


# ------------------------------------------------------------------------------------ what is seen


def _cut(what: Path | Pictured) -> TileCut | None:
    return None if isinstance(what, Path) else TileCut.of(what.properties)


def _source(what: Path | Pictured) -> str:
    return str(what) if isinstance(what, Path) else what.source


def _thumbnail(what: _What, side: int) -> Image.Image:
    from PIL import Image

    from rsir.images.read import read_pixels

    if isinstance(what, np.ndarray):
        pixels = what
    elif (cut := _cut(what)) is not None:
        from rsir.scenes.windows import thumbnail

        pixels = visible(thumbnail(_source(what), cut, side), cut.bands or ())
    elif "://" in _source(what):
        raise ImageError(f"{_source(what)}: it is not on this machine; open it where it lies")
    else:
        pixels = read_pixels(_source(what))
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    picture.thumbnail((side, side))
    return picture


def visible(pixels: NDArray[np.uint8], bands: Sequence[str]) -> NDArray[np.uint8]:
    """(3, H, W) to look at of pixels (C, H, W): red, green, blue; else the first three; else grey.

    bands: what the C bands are called, "red" or "red=3".
    """
    names = [band.partition("=")[0] for band in bands]
    if set(_RGB) <= set(names):
        return pixels[[names.index(name) for name in _RGB]]
    return pixels[:3] if len(pixels) >= 3 else pixels[[0, 0, 0]]


def _place(footprint: Geometry | None) -> str | None:
    """The middle of the footprint's box, written as people write it; None without one."""
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


def _clean(text: str) -> str:
    # A name that is not UTF-8 holds lone surrogates, which no file can be written with.
    return text.encode("utf-8", "backslashreplace").decode()


@lru_cache(maxsize=2)
def _template(source: str) -> Template:
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(source)
