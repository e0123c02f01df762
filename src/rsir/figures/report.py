"""Write all figures of an evaluation as files, and one HTML page with all of them.

The page is self-contained: it embeds the figures and loads nothing from the network. Jinja escapes
all foreign text (names of classes and files).
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
from rsir.figures.strips import HeatMap, chosen_queries, overlay, strip
from rsir.figures.style import Picture, needed

if TYPE_CHECKING:
    from rsir.evaluation.evaluate import EvaluationDetails, Report

REPORT_PAGE = "report.html"
_TEMPLATE = Path(__file__).with_name("report.html.jinja")
MOST_SKIPPED = 200
"""Most skipped files that the page lists; our choice. The JSON report lists all."""
_QUALITY = 85  # of WebP; our choice: about 60 kB per strip, no visible blocks
_CLASS_COLUMNS = (
    "map",
    "anmrr",
    "r_at_1",
    "p_at_10",
)  # of the table by class


def write(
    report: Report,
    details: EvaluationDetails,
    out: Path,
    *,
    heat_maps: Mapping[int, HeatMap] | None = None,
) -> list[Path]:
    """Write every figure that applies into `out`, and report.html with all of them; the files.

    details: with the nearest images of each query (`evaluate(…, nearest=10)`); without them there
    are no strips and no confusion matrix.
    heat_maps: {row of the query: heat map}; only those of `chosen_queries` are drawn.
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
    page = out / REPORT_PAGE
    page.write_bytes(_page(report, sections).encode("utf-8", "backslashreplace"))
    return [*files, page]


def check_folder(out: Path) -> None:
    """Raise the errors of `write` before any work: no extra 'figures', or `out` is a file."""
    needed()
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the figures")


def _pictures(
    report: Report, details: EvaluationDetails, heat_maps: Mapping[int, HeatMap]
) -> Iterator[tuple[str, Picture]]:
    """(heading, figure) of each figure that applies, drawn one at a time."""
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
    for choice in chosen_queries(details) if details.nearest.shape[1] else ():
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
        "width": width * 2 // 3,  # 100 CSS pixels per inch
        "height": height * 2 // 3,
    }


def _page(report: Report, sections: Mapping[str, list[dict[str, Any]]]) -> str:
    from jinja2 import Environment

    from rsir.evaluation.evaluate import DEFINITIONS, PROTOCOLS
    from rsir.version import VERSION

    method = str(report.model.get("method", "a model"))
    columns = [name for name in _CLASS_COLUMNS if name in report.metrics]
    template = Environment(autoescape=True, trim_blocks=True).from_string(
        _TEMPLATE.read_text("utf-8")
    )
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
    """The definitions with their rows: (measure, value, interval, worst and best of ties)."""
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
    """The leaves of nested mappings, such as ('training: seed', '1'), in their order."""
    for key, value in values.items():
        name = f"{before}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}: ")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value)) or "none"
        else:
            yield name, str(value)
