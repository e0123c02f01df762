"""Curves of precision and recall, and bars of the mAP of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rsir.figures.style import (
    COLOURS,
    DASHES,
    MARKERS,
    Picture,
    blank,
    drawn,
    share_axes,
    shown,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

CurveValues = Mapping[str, Mapping[str, Sequence[float]]]
"""{curve: {axis or measure: values}}, from `rsir.evaluation.mean_curves.MeanCurves.to_dict`."""
MOST_BARS = 60
"""Most bars of a figure; our choice: one page. The catalogue's largest set has 45 classes."""


@drawn
def precision_recall(curves: Mapping[str, CurveValues]) -> Picture:
    """Precision against recall: a line through all points, markers at eleven recall levels.

    curves: {name of the model: its curves}; models differ in colour, dash and marker.
    """
    figure = blank(6.4, 4.6 + 0.22 * (len(curves) if len(curves) > 1 else 0))
    axes = figure.subplots()
    for i, (name, given) in enumerate(curves.items()):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        line, eleven = given["precision_recall"], given["interpolated"]
        axes.plot(
            line["recall"], line["precision"], color=colour, linestyle=dash,
            label=shown(name, 60) if len(curves) > 1 else "all points",
        )  # fmt: skip
        axes.plot(
            eleven["recall"], eleven["precision"], color=colour, linestyle="none",
            marker=MARKERS[i % len(MARKERS)], markerfacecolor="white", clip_on=False,
            label="interpolated, 11 points" if len(curves) == 1 else None,
        )  # fmt: skip
    share_axes(axes, "recall", "precision")
    axes.set_xlim(-0.02, 1.02)
    if len(curves) == 1:
        figure.legend(loc="outside lower left", ncols=2)
    else:
        figure.legend(handles=_with_markers(axes), loc="outside lower left")
    middles = {
        name: _at(given["interpolated"], "recall", "precision", 0.5)
        for name, given in curves.items()
    }
    precisions = ", ".join(
        f"{value:.3f}" if len(curves) == 1 else f"{shown(name)} {value:.3f}"
        for name, value in middles.items()
    )
    return Picture(
        "precision-recall",
        "Precision and recall",
        f"Precision against recall; interpolated precision at recall 0.5: {precisions}.",
        "Line: mean precision against mean recall of the first k images, for all k. Markers: mean "
        "of each query's interpolated precision, the highest at this recall or more, at the "
        "eleven levels 0, 0.1 … 1.",
        figure,
        vector=True,
    )


def _with_markers(axes: Axes) -> list[Line2D]:
    """The legend's handles: each line with its markers."""
    from matplotlib.lines import Line2D

    handles = []
    for line, markers in zip(axes.lines[::2], axes.lines[1::2], strict=True):
        handle = Line2D([], [], color=line.get_color(), linestyle=line.get_linestyle())
        handle.set(marker=markers.get_marker(), markerfacecolor="white")
        handle.set_label(str(line.get_label()))
        handles.append(handle)
    return handles


@drawn
def retrieved(curves: CurveValues) -> Picture:
    """Precision and recall among the first k, against k."""
    given = curves["retrieved"]
    figure = blank(6.4, 4.2)
    axes = figure.subplots()
    _lines(figure, axes, given, "k", ("precision", "recall"))
    share_axes(axes, "images retrieved, k", "share")
    if max(given["k"]) >= 50:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    ten = min(given["k"], key=lambda k: (abs(k - 10), k))
    return Picture(
        "retrieved",
        "Precision and recall among the first k",
        f"Precision {_at(given, 'k', 'precision', ten):.3f} and recall "
        f"{_at(given, 'k', 'recall', ten):.3f} among the first {ten:.0f}.",
        "Means over the queries: of the first k images, the share that is relevant (precision); "
        "of all relevant images, the share that is among the first k (recall).",
        figure,
        vector=True,
    )


@drawn
def hamming_radius(curves: CurveValues) -> Picture:
    """Precision, recall and mAP within a Hamming radius, against the radius."""
    given = curves["radius"]
    figure = blank(6.4, 4.2)
    axes = figure.subplots()
    _lines(figure, axes, given, "radius", ("precision", "recall", "map"))
    share_axes(axes, "Hamming radius in bits", "share")
    two = min(given["radius"], key=lambda r: (abs(r - 2), r))
    return Picture(
        "hamming-radius",
        "Within a Hamming radius",
        f"Precision {_at(given, 'radius', 'precision', two):.3f} and recall "
        f"{_at(given, 'radius', 'recall', two):.3f} within radius {two:.0f}.",
        "Means over the queries, for the images whose code differs from the query's in at most "
        "this many bits: the share that is relevant (precision), the share of all relevant images "
        "that is found (recall), and mAP of these images.",
        figure,
        vector=True,
    )


def _lines(
    figure: Figure, axes: Axes, given: Mapping[str, Sequence[float]], x: str, ys: Sequence[str]
) -> None:
    every = max(1, len(given[x]) // 12)  # a marker on each of a hundred points hides the line
    for i, y in enumerate(ys):
        axes.plot(
            given[x], given[y], color=COLOURS[i], linestyle=DASHES[i], marker=MARKERS[i],
            markevery=every, markerfacecolor="white", label="mAP" if y == "map" else y,
        )  # fmt: skip
    # Below the axes: over them it would cover a curve.
    figure.legend(loc="outside lower left", ncols=len(ys))


def _at(given: Mapping[str, Sequence[float]], x: str, y: str, value: float) -> float:
    """The y where x is nearest to `value`."""
    nearest = min(range(len(given[x])), key=lambda i: abs(given[x][i] - value))
    return float(given[y][nearest])


@drawn
def class_bars(per_class: Mapping[str, Mapping[str, float]], overall: float) -> Picture:
    """A bar for the mAP of each class, highest first.

    per_class: {class: {"map", "queries", …}}; of more than MOST_BARS only the lowest are drawn.
    overall: mAP of all queries, drawn as a line.
    """
    order = sorted(per_class, key=lambda name: (-per_class[name]["map"], name))
    left_out = order[: max(0, len(order) - MOST_BARS)]
    names = order[len(left_out) :]
    values = [per_class[name]["map"] for name in names]
    figure = blank(7.0, 1.1 + 0.25 * len(names))
    axes = figure.subplots()
    axes.barh(range(len(names)), values, color=COLOURS[0], height=0.72)
    for row, value in enumerate(values):
        # White on the bar, so that no number overlaps the line of the mean.
        inside = value > 0.12
        axes.text(
            value - 0.008 if inside else value + 0.008, row, f"{value:.3f}", va="center",
            ha="right" if inside else "left", color="white" if inside else "black", fontsize=8.5,
        )  # fmt: skip
    axes.axvline(overall, color="black", linestyle="--", linewidth=1, zorder=0.5)
    axes.set_title(f"dashed: mean over all queries, {overall:.3f}", fontsize=9.5)
    labels = [f"{shown(name, 32)}  (n = {per_class[name]['queries']:,.0f})" for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), xlabel="mAP")
    axes.tick_params(axis="y", length=0)
    best, worst = (order[0], order[-1]) if order else ("", "")
    omitted = f" The {len(names)} lowest of {len(order)} classes." if left_out else ""
    return Picture(
        "classes",
        "mAP by class",
        f"mAP of each class, from {shown(best)} {per_class[best]['map']:.3f} down to "
        f"{shown(worst)} {per_class[worst]['map']:.3f}.",
        f"mAP of the n queries of each class, highest first.{omitted}",
        figure,
        vector=True,
    )
