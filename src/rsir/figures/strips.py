"""Strips of a query with its results, and heat maps over the query."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.data.folder import LabelledSet
from rsir.errors import ImageError
from rsir.figures.style import RIGHT, WRONG, Picture, blank, drawn, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rsir.evaluation.evaluate import EvaluationDetails

RESULTS = 10
"""Number of results in a strip, as in the papers."""
CLASSES = 8
"""Number of classes with one query each; our choice: a few screens."""
_SIDE = 256  # longest side of a thumbnail in pixels, as in `rsir.archive.pictures.cards`
# Inches: from one thumbnail to the next, the gap between two, and the heading above each.
_STEP_X, _STEP_Y, _GAP, _LINE = 1.32, 1.8, 0.08, 0.2
_COLUMNS = 5  # columns of results, so that two rows are as high as the query


@dataclass(frozen=True)
class ChosenQuery:
    """A query to show.

    row: its row among the queries. name: part of a file name. why: reason of the choice, in words.
    """

    row: int
    name: str
    why: str


@dataclass(frozen=True, eq=False)
class HeatMap:
    """A heat map of an image, from `rsir.models.explain.explain`.

    pixels: (C, H, W) uint8, the image as the model's input; heat: (H, W) float32 in [0, 1].
    """

    pixels: NDArray[np.uint8]
    heat: NDArray[np.float32]


def relevant(details: EvaluationDetails, row: int) -> NDArray[np.bool_]:
    """(k,) bool: whether each result of a query has its class, or a label in common with it."""
    found, own = details.gallery_targets[details.nearest[row]], details.query_targets[row]
    if found.ndim == 1:
        return np.asarray(found == own, bool)
    return np.asarray(((found > 0) & (own > 0)).any(axis=1), bool)


def chosen_queries(details: EvaluationDetails) -> list[ChosenQuery]:
    """The queries to show: best, median and worst by AP, and one each of some classes.

    Equal AP is ordered by path. The classes, at most CLASSES, are evenly spaced between the best
    and the worst by mAP; of each class the query of median AP among those not yet chosen.
    """
    ap = details.per_query["map"]
    paths = details.queries.paths

    def ordered(rows: Iterable[int]) -> list[int]:
        return sorted(rows, key=lambda row: (-ap[row], paths[row]))

    every = ordered(range(len(ap)))
    picks = {"best": every[0], "median": every[(len(every) - 1) // 2], "worst": every[-1]}
    found: dict[int, ChosenQuery] = {}
    for name, row in picks.items():
        found.setdefault(row, ChosenQuery(row, name, f"{name} AP of all queries"))

    names = details.queries.classes
    targets = details.query_targets
    members = {
        index: np.flatnonzero(targets[:, index] > 0 if targets.ndim == 2 else targets == index)
        for index in range(len(names))
    }
    present = [index for index, rows in members.items() if len(rows)]
    present.sort(key=lambda index: (-ap[members[index]].mean(), names[index]))
    count = min(CLASSES, len(present))
    for position in np.linspace(0, len(present) - 1, count).round().astype(int) if count else ():
        index = present[position]
        rows = ordered(row for row in members[index].tolist() if row not in found)
        if rows:
            row = rows[(len(rows) - 1) // 2]
            why = f"median AP of {shown(names[index])}"
            found[row] = ChosenQuery(row, f"class-{index:02d}-{_slug(names[index])}", why)
    return list(found.values())


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")


@drawn
def strip(details: EvaluationDetails, choice: ChosenQuery) -> Picture:
    """A query with its first RESULTS results; wrong results have a dashed frame and a cross."""
    right = relevant(details, choice.row)[:RESULTS]
    results = details.nearest[choice.row][:RESULTS]
    distances = details.distances[choice.row][:RESULTS]

    # One Axes in inches: eleven Axes take ten times as long.
    rows, columns = -(-len(results) // _COLUMNS), min(_COLUMNS, len(results))
    width = 2 * _STEP_X + columns * _STEP_X
    height = max(2 * _STEP_Y, rows * _STEP_Y)
    figure = blank(width, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()

    side = 2 * _STEP_X - _GAP
    _cell(axes, _file(details.queries, choice.row), 0, height, side, "black", "-")
    axes.text(0.03, height - _LINE / 2, "query", va="center")
    labels = _wrapped(details.queries.labels(choice.row), 30, 3)
    axes.text(side / 2, height - _LINE - side - 0.06, labels, ha="center", va="top", fontsize=9)
    for rank, (row, good) in enumerate(zip(results, right, strict=True)):
        x, y = (2 + rank % _COLUMNS) * _STEP_X, height - rank // _COLUMNS * _STEP_Y
        side = _STEP_X - _GAP
        colour, dash = (RIGHT, "-") if good else (WRONG, (0, (4, 2)))
        _cell(axes, _file(details.gallery, int(row)), x, y, side, colour, dash)
        if not good:
            _cross(axes, x + 0.86 * side, y - _LINE - 0.14 * side)
        heading = f"{rank + 1}   d = {distances[rank]:.3g}"
        axes.text(x + 0.03, y - _LINE / 2, heading, va="center", fontsize=8.5)
        label = _result_label(details, choice.row, int(row))
        axes.text(
            x + side / 2, y - _LINE - side - 0.06, label, ha="center", va="top", fontsize=8.5
        )  # fmt: skip
    score = details.per_query["map"][choice.row]
    name = shown(Path(details.queries.paths[choice.row]).name, 60)
    return Picture(
        f"strip-{choice.name}",
        f"{name}: {choice.why}",
        f"{int(right.sum())} of the first {len(right)} results for {name} are relevant; "
        f"AP {score:.3f}.",
        f"AP {score:.3f}. Relevant results have a solid blue frame, others a dashed red one and a "
        "cross. d: distance to the query.",
        figure,
    )


def _cell(
    axes: Axes, file: Path, x: float, top: float, side: float, colour: str, dash: Any
) -> None:
    """Draw `file`, centred in a framed square below its heading at (x, top), in inches."""
    from matplotlib.patches import Rectangle

    y = top - _LINE - side
    axes.add_patch(Rectangle((x, y), side, side, facecolor="#dddddd", linewidth=0, zorder=1))
    try:
        pixels = _thumbnail(file)
    except ImageError:
        axes.text(x + side / 2, y + side / 2, "no picture", ha="center", va="center", fontsize=8)
    else:
        high, wide = (side * n / max(pixels.shape[:2]) for n in pixels.shape[:2])
        left, bottom = x + (side - wide) / 2, y + (side - high) / 2
        axes.imshow(
            pixels, extent=(left, left + wide, bottom, bottom + high), aspect="auto",
            interpolation="antialiased", zorder=2,
        )  # fmt: skip
    axes.add_patch(
        Rectangle(
            (x, y),
            side,
            side,
            fill=False,
            edgecolor=colour,
            linestyle=dash,
            linewidth=2.5,
            zorder=3,
        )
    )


def _result_label(details: EvaluationDetails, query: int, row: int) -> str:
    """The class of a result; with several labels, the number in common with the query."""
    if not details.gallery.multi_label:
        return _wrapped(details.gallery.labels(row), 15, 2)
    mine = set(details.queries.labels(query))
    return f"{len(mine & set(details.gallery.labels(row)))} of {len(mine)} labels"


def _wrapped(labels: Sequence[str], width: int, lines: int) -> str:
    import textwrap

    text = ", ".join(shown(label) for label in labels) or "no label"
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def _file(images: LabelledSet, row: int) -> Path:
    return images.root / images.paths[row]  # `files` would build all paths


def _thumbnail(file: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, at most _SIDE high and wide."""
    from PIL import Image

    from rsir.images.read import read_pixels

    picture = Image.fromarray(read_pixels(file).transpose(1, 2, 0))
    picture.thumbnail((_SIDE, _SIDE))
    return np.asarray(picture)


def _cross(axes: Axes, x: float, y: float) -> None:
    """Draw a cross on a white disc, so that it is visible on any image."""
    axes.plot(x, y, marker="o", markersize=13, color="white", zorder=4)
    axes.plot(x, y, marker="x", markersize=8, markeredgewidth=2.5, color=WRONG, zorder=5)


@drawn
def overlay(heat_map: HeatMap, queries: LabelledSet, choice: ChosenQuery) -> Picture:
    """The model's input image, and beside it the same image under its heat map."""
    figure = blank(7.2, 3.6)
    axes = figure.subplots(1, 2)
    pixels = _rgb(heat_map.pixels)
    for panel, title in zip(
        axes, ("the model's input", "where its embedding comes from"), strict=True
    ):
        panel.imshow(pixels)
        panel.set_title(title, fontsize=10)
        panel.set_axis_off()
    heat = heat_map.heat
    shades = axes[1].imshow(heat, cmap="viridis", vmin=0, vmax=1, alpha=0.25 + 0.45 * heat)
    if heat.min() < 0.5 < heat.max():
        axes[1].contour(heat, levels=[0.5], colors="white", linewidths=1.2)
    bar = figure.colorbar(shades, ax=axes, shrink=0.8, ticks=[0, 0.5, 1])
    bar.set_alpha(1)
    bar.set_label("weight", fontsize=9)
    name = shown(Path(queries.paths[choice.row]).name, 60)
    high = float((heat > 0.5).mean())
    return Picture(
        f"heat-{choice.name}",
        f"{name}: the parts that determine its embedding",
        f"Heat map over {name}; {high:.0%} of the image has more than half the highest weight.",
        "Grad-CAM: yellow where most of the image's embedding comes from, dark where least; the "
        "white line encloses the parts with more than half the highest weight.",
        figure,
    )


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) of (C, H, W): the first three bands, or the first one as grey."""
    bands = pixels[:3] if len(pixels) >= 3 else np.repeat(pixels[:1], 3, axis=0)
    return np.ascontiguousarray(bands.transpose(1, 2, 0))
