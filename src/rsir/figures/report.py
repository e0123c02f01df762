"""All pictures of an evaluation as files, and one page that holds them.

The page is complete in itself: pictures are inside it, it asks for nothing from the network, and
all that comes from outside (names of classes and files) is escaped by Jinja.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsir.errors import UsageError
from rsir.evaluation.metrics.names import measure_name
from rsir.figures.confusion import confusion_matrix
from rsir.figures.curves import class_bars, hamming_radius, precision_recall, retrieved
from rsir.figures.embeddings import embedding_map
from rsir.figures.strips import HeatMap, chosen, overlay, strip
from rsir.figures.style import Picture, needed

if TYPE_CHECKING:
    from rsir.evaluation.evaluate import Details, Report

PAGE = "report.html"
MOST_SKIPPED = 200
"""Skipped files that the page lists; our choice. The JSON report has them all."""
_QUALITY = 85  # of WebP; our choice: about 60 kB a strip, no visible blocks
_CLASS_COLUMNS = ("map", "anmrr", "r_at_1", "p_at_10")  # of the table by class; a phone's width


def write(
    report: Report, details: Details, out: Path, *, heat_maps: Mapping[int, HeatMap] | None = None
) -> list[Path]:
    """Write every picture that applies into `out`, and report.html with all of them; the files.

    details: with the nearest images of each query (`evaluate(…, nearest=10)`); without them there
    are neither strips nor a confusion matrix.
    heat_maps: by row of the query; drawn are those of the queries that `rsir.figures.chosen` names.
    The same report gives the same bytes. Files of an earlier report are overwritten, others stay.
    Raises MissingExtraError without the extra 'figures', UsageError if `out` is a file.
    """
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    sections: dict[str, list[dict[str, Any]]] = {}
    for section, picture in _pictures(report, details, heat_maps or {}):
        written = picture.save(out)
        files += written
        sections.setdefault(section, []).append(_view(picture, written[0]))
    page = out / PAGE
    page.write_bytes(_page(report, sections).encode("utf-8", "backslashreplace"))
    return [*files, page]


def check_folder(out: Path) -> None:
    """What `write` would refuse, before any work: no extra 'figures', or `out` is a file."""
    needed()
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the figures")


def _pictures(
    report: Report, details: Details, heat_maps: Mapping[int, HeatMap]
) -> Iterator[tuple[str, Picture]]:
    """Each picture that applies, with the heading it stands under; drawn only when asked for."""
    if {"precision_recall", "interpolated"} <= report.curves.keys():
        name = str(report.model.get("method", "model"))
        yield "Curves", precision_recall({name: report.curves})
    if "retrieved" in report.curves:
        yield "Curves", retrieved(report.curves)
    if "radius" in report.curves:
        yield "Curves", hamming_radius(report.curves)
    if report.per_class:
        yield "Classes", class_bars(report.per_class, report.metrics["map"])
        if details.nearest.shape[1]:
            yield "Classes", confusion_matrix(details)
    yield "Embeddings", embedding_map(details, report.ranking)
    for choice in chosen(details) if details.nearest.shape[1] else ():
        yield "Searches", strip(details, choice)
        if choice.row in heat_maps:
            yield "Searches", overlay(heat_maps[choice.row], details.queries, choice)


def _view(picture: Picture, file: Path) -> dict[str, Any]:
    from PIL import Image

    photo = picture.name.startswith(("strip-", "heat-"))
    data, kind = file.read_bytes(), "png"
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if photo:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "WEBP", quality=_QUALITY)
            data, kind = buffer.getvalue(), "webp"
    return {
        "title": picture.title,
        "alt": picture.alt,
        "caption": picture.caption,
        "file": file.name,
        "uri": f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
        "width": width * 2 // 3,  # 100 of a page's pixels an inch
        "height": height * 2 // 3,
    }


# ------------------------------------------------------------------------------------- the page


def _page(report: Report, sections: Mapping[str, list[dict[str, Any]]]) -> str:
    from jinja2 import Environment

    from rsir.evaluation.evaluate import DEFINITIONS, PROTOCOLS
    from rsir.version import VERSION

    method = str(report.model.get("method", "a model"))
    columns = [name for name in _CLASS_COLUMNS if name in report.metrics]
    template = Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    return template.render(
        title=f"Evaluation of {method} on {report.data.get('root', 'a labelled set')}",
        report=report,
        means=PROTOCOLS.get(report.protocol, ""),
        measures=_measures(report, DEFINITIONS),
        notes={key: DEFINITIONS[key] for key in ("relevant", "ties", "intervals")},
        warnings=_warnings(report),
        adaptive=DEFINITIONS.get(report.ranking),
        sections=sections,
        columns=[measure_name(name) for name in columns],
        classes=[
            (name, values["queries"], [f"{values[column]:.3f}" for column in columns])
            for name, values in report.per_class.items()
        ],
        skipped=report.skipped[:MOST_SKIPPED],
        facts={"Model": dict(_flat(report.model)), "Data": dict(_flat(report.data))},
        version=VERSION,
    )


def _warnings(report: Report) -> list[str]:
    alike = report.near_duplicates
    return [*report.leakage.lines, *([str(alike)] if alike is not None and alike.pairs else [])]


def _measures(report: Report, definitions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Definitions, each with its rows: (measure, value, interval, worst and best of ties)."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for name, value in report.metrics.items():
        cells = [measure_name(name), f"{value:.4f}"]
        for ends in (report.intervals.get(name), _ends(report, name)):
            cells.append("" if ends is None else f"{ends[0]:.4f} – {ends[1]:.4f}")
        definition = definitions.get(re.sub(r"_at_\d+", "_at_k", name), "")
        found.setdefault(definition, []).append(tuple(cells))
    return [{"definition": definition, "rows": rows} for definition, rows in found.items()]


def _ends(report: Report, name: str) -> tuple[float, float] | None:
    if name not in report.best or name not in report.worst:
        return None
    low, high = sorted((report.worst[name], report.best[name]))
    return low, high


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """('training.seed', '1') and so on of nested mappings, in their order."""
    for key, value in values.items():
        name = f"{before}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}: ")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value)) or "none"
        else:
            yield name, str(value)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { max-width: 62rem; margin: 0 auto; padding: 1rem 1.25rem 3rem;
  font: 1rem/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText;
  overflow-wrap: anywhere; }
h1 { font-size: clamp(1.15rem, 5vw, 1.5rem); line-height: 1.25; }
h2 { font-size: 1.25rem; margin-top: 0; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; list-style: none; }
section { border-top: 1px solid #8886; padding-top: 1.25rem; margin-top: 2rem; }
figure { margin: 0 0 2.5rem; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; color: #000;
  border-radius: .4rem; }
@media (prefers-color-scheme: dark) { figure img { outline: .35rem solid #fff; } }
figcaption { margin-top: .6rem; font-size: .9rem; max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0;
  border-bottom: 1px solid #8884; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tbody th { font-weight: 500; min-width: 5.5rem; }
@media (max-width: 32rem) { th, td { padding-right: .45rem; } .range { white-space: normal; } }
.measures { max-width: 46rem; } .measures tbody { border-bottom: 2px solid #8886; }
.measures tbody :is(th, td) { border: 0; padding-block: .15rem; }
.measures tbody tr:last-child td { padding-bottom: .5rem; }
.warning { border-left: .3rem solid #d55e00; padding-left: .75rem; }
.small { font-size: .9rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  figure img { max-height: 20cm; width: auto; } h2, h3 { break-after: avoid; } }
</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<p>{{ "{:,}".format(report.queries) }} {{ "query" if report.queries == 1 else "queries" }}, \
a gallery of {{ "{:,}".format(report.gallery) }}. \
Protocol {{ report.protocol }}: {{ means }}. Ranked by {{ report.ranking }}\
{% if adaptive %}: {{ adaptive }}{% endif %}.</p>
{% for line in warnings %}
<p class="warning"><strong>Take care:</strong> {{ line }}</p>
{% endfor %}
<nav aria-label="Sections"><ul>
<li><a href="#measures">Measures</a></li>
{% for heading in sections %}
<li><a href="#{{ heading | lower }}">{{ heading }}</a></li>
{% endfor %}
{% if report.skipped %}<li><a href="#skipped">Skipped files</a></li>{% endif %}
{% for heading in facts %}
<li><a href="#{{ heading | lower }}">{{ heading }}</a></li>
{% endfor %}
</ul></nav>
</header>
<main>
<section id="measures" aria-labelledby="measures-heading">
<h2 id="measures-heading">Measures</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Measures">
<table class="measures">
<thead><tr><th scope="col">measure</th><th scope="col" class="number">value</th>\
{% if report.intervals %}<th scope="col" class="number">95 % interval</th>{% endif %}\
{% if report.best %}<th scope="col" class="number">with ties</th>{% endif %}</tr></thead>
{% for group in measures %}
<tbody>
{% for name, value, interval, ties in group.rows %}
<tr><th scope="row">{{ name }}</th><td class="number">{{ value }}</td>\
{% if report.intervals %}<td class="number range">{{ interval }}</td>{% endif %}\
{% if report.best %}<td class="number range">{{ ties }}</td>{% endif %}</tr>
{% endfor %}
{% if group.definition %}<tr><td colspan="4" class="small">{{ group.definition }}</td></tr>\
{% endif %}
</tbody>
{% endfor %}
</table>
</div>
<p class="small">Relevant: {{ notes.relevant }}. Ties: {{ notes.ties }}.\
{% if report.intervals %} Intervals: {{ notes.intervals }}.{% endif %}</p>
{% if report.queries_without_relevant %}
<p class="small">Queries without a relevant image in the gallery: \
{{ report.queries_without_relevant }}{% if report.dropped %}, in none of these numbers{% endif %}.\
</p>
{% endif %}
</section>
{% for heading, views in sections.items() %}
<section id="{{ heading | lower }}" aria-labelledby="{{ heading | lower }}-heading">
<h2 id="{{ heading | lower }}-heading">{{ heading }}</h2>
{% for view in views %}
<figure>
<h3>{{ view.title }}</h3>
<img src="{{ view.uri }}" alt="{{ view.alt }}" width="{{ view.width }}" \
height="{{ view.height }}">
<figcaption>{{ view.caption }} File: {{ view.file }}</figcaption>
</figure>
{% endfor %}
{% if heading == "Classes" %}
<h3>By class</h3>
<div class="scroll" tabindex="0" role="region" aria-label="Measures by class">
<table>
<thead><tr><th scope="col">class</th><th scope="col" class="number">queries</th>\
{% for column in columns %}<th scope="col" class="number">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, queries, values in classes %}
<tr><th scope="row">{{ name }}</th><td class="number">{{ queries }}</td>\
{% for value in values %}<td class="number">{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
</section>
{% endfor %}
{% if report.skipped %}
<section id="skipped" aria-labelledby="skipped-heading">
<h2 id="skipped-heading">Skipped files</h2>
<p>{{ report.skipped | length }} could not be read and count nowhere.\
{% if report.skipped | length > skipped | length %} The first {{ skipped | length }}:{% endif %}</p>
<ul>
{% for path, reason in skipped %}
<li><strong>{{ path }}</strong>: {{ reason }}</li>
{% endfor %}
</ul>
</section>
{% endif %}
{% for heading, values in facts.items() %}
<section id="{{ heading | lower }}" aria-labelledby="{{ heading | lower }}-heading">
<h2 id="{{ heading | lower }}-heading">{{ heading }}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="{{ heading }}">
<table><tbody>
{% for key, value in values.items() %}
<tr><th scope="row">{{ key }}</th><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table>
</div>
</section>
{% endfor %}
</main>
<footer><p class="small">rsir {{ version }}</p></footer>
</body>
</html>
"""
