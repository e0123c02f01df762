"""The confusion matrix: the classes of the results for the queries of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsir.figures.style import Picture, blank, drawn, percent, shown

if TYPE_CHECKING:
    from rsir.evaluation.evaluate import EvaluationDetails

NAMED = 8
"""Pairs that the caption names; our choice."""
MOST_ROWS = 60
"""Most rows of the matrix; our choice: the names are still legible in print."""
WITH_NUMBERS = 20
"""Most classes for which the cells show numbers; our choice: more do not fit."""


@dataclass(frozen=True)
class ConfusedClasses:
    """The share of another class among the results for queries of one class."""

    query: str
    retrieved: str
    share: float

    def __str__(self) -> str:
        return f"{shown(self.query)} ← {shown(self.retrieved)} {percent(self.share)}"


def confusion(details: EvaluationDetails) -> NDArray[np.float64]:
    """(L, L) shares: row = class of the query, column = class of the results.

    Mean over the queries of class i of the share of class j among their first results (expected
    over the orders of equal distances). With several labels: queries with label i, results with
    label j, so that a row can sum to more than 1. A class without queries has a row of NaN.
    """
    classes = len(details.queries.classes)
    targets = details.query_targets
    labels = (targets > 0).astype(float) if targets.ndim == 2 else np.eye(classes)[targets]
    with np.errstate(invalid="ignore"):
        return np.asarray((labels.T @ details.shares) / labels.sum(axis=0)[:, None], np.float64)


def strongest(shares: NDArray[np.float64], classes: Sequence[str]) -> list[ConfusedClasses]:
    """The largest shares above 0 of other classes than the query's, at most NAMED."""
    pairs = [
        ConfusedClasses(classes[i], classes[j], float(shares[i, j]))
        for i, j in np.argwhere(shares > 0)
        if i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.share, pair.query, pair.retrieved))[:NAMED]


@drawn
def confusion_matrix(details: EvaluationDetails) -> Picture:
    """The confusion matrix of at most MOST_ROWS classes, those with the lowest own share."""
    import matplotlib as mpl
    from matplotlib.colors import PowerNorm

    shares = confusion(details)
    classes = details.queries.classes
    pairs = strongest(shares, classes)
    own = shares.diagonal()
    has_queries = ~np.isnan(own)
    present = np.flatnonzero(has_queries | (np.nansum(shares, axis=0) > 0))
    # NaN, a class without queries, sorts last.
    rows = np.sort(present[np.argsort(own[present], kind="stable")[:MOST_ROWS]])
    names = [shown(classes[row], 28) for row in rows]
    part = shares[np.ix_(rows, rows)]

    numbers = len(rows) <= WITH_NUMBERS
    side = 2.6 + (0.42 if numbers else 0.235) * len(rows)
    figure = blank(max(side + 1.2, 4.5), max(side, 3.4))
    axes = figure.subplots()
    # The root makes small shares visible; one hue, light to dark, also works in black and white.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(part, cmap=mpl.colormaps["Blues"], norm=norm)
    axes.set_facecolor("#dddddd")  # rows without queries
    axes.spines[:].set_visible(True)
    axes.set_xticks(range(len(rows)), names, rotation=90, fontsize=9)
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.set_xticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel=f"class among the first {_depth(details)}", ylabel="class of the query")
    if numbers:
        for (i, j), share in np.ndenumerate(part):
            if (number := f"{100 * share:.0f}") not in ("0", "nan"):
                colour = "white" if norm(share) > 0.6 else "black"
                axes.text(j, i, number, ha="center", va="center", color=colour, fontsize=8.5)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.set_label("share of the results" + (", cells in %" if numbers else ""))

    labels = (
        " An image counts under each of its labels, so labels that often occur together have high "
        "shares without being confused."
        if details.queries.multi_label
        else ""
    )
    omitted = ""
    if len(rows) < len(present):
        omitted = f" The {len(rows)} classes of lowest own share, of {len(present)}."
    words = ", ".join(map(str, pairs))
    strong = f" Strongest pairs, query ← retrieved: {words}." if pairs else ""
    return Picture(
        "confusion",
        "Confusion between classes",
        f"Share of the query's own class among the first {_depth(details)}, mean over classes: "
        f"{percent(float(own[has_queries].mean()))}."
        + (f" Strongest other: {pairs[0]}." if pairs else ""),
        f"Row: class of the query; column: class among its first {_depth(details)} results."
        f"{omitted}{labels}{strong}",
        figure,
        vector=True,
    )


def _depth(details: EvaluationDetails) -> int:
    return len(details.nearest[0])
