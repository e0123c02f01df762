"""A map of the embeddings in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.figures.style import COLOURS, MARKERS, Picture, blank, drawn, needed, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rsir.evaluation.evaluate import EvaluationDetails

MOST_POINTS = 2000
"""Most points of a map; our choice: t-SNE takes some ten seconds, and single points are visible."""
PERPLEXITY = 30.0
"""Perplexity of t-SNE: van der Maaten and Hinton (2008) advise 5 to 50; scikit-learn's default."""
FEWEST_POINTS = 5
"""Fewest points for t-SNE; our choice: fewer points have no neighbourhoods to preserve."""
SKLEARN_METRICS = {
    "cosine": "cosine",
    "euclidean": "euclidean",
    "ncc": "correlation",
    "hamming": "hamming",
    "adaptive-hamming": "hamming",
}
"""Ranking → scikit-learn's metric. The adaptive distance depends on which of two images is the
query, so it has no map: the map shows the plain Hamming distance, as the caption says."""
NO_LABEL = "no label"


@drawn
def embedding_map(details: EvaluationDetails, ranking: str, *, seed: int = 0) -> Picture:
    """The queries' embeddings in two dimensions, with class names at the medians.

    An image with several labels counts under the label that fewest queries have.
    ranking: a key of SKLEARN_METRICS, which gives the distance of the embeddings.
    """
    names, groups = _groups(details)
    rows = sample(groups, MOST_POINTS, seed)
    points, method = positions(details.query_embeddings[rows], SKLEARN_METRICS[ranking], seed)
    mine = groups[rows]
    present = np.unique(mine)

    figure = blank(8.0, 7.4)
    axes = figure.subplots()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#cccccc")
    for i, group in enumerate(present):
        axes.scatter(
            points[mine == group, 0], points[mine == group, 1], s=22, linewidths=0.3,
            edgecolors="white", color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
        )  # fmt: skip
    axes.margins(0.05)
    _label_classes(axes, points, mine, {int(group): shown(names[group], 28) for group in present})

    whole = len(rows) == len(groups)
    which = "All" if whole else f"{len(rows):,} of {len(groups):,}"
    chance = "" if whole else ", a random sample stratified by class"
    rarest = (
        " An image counts under the rarest of its labels." if details.queries.multi_label else ""
    )
    return Picture(
        "embeddings",
        "Map of the embeddings",
        f"{len(rows):,} queries of {len(present)} classes in two dimensions.",
        f"{which} queries{chance}, by {method}. Near points have similar embeddings; axes and "
        "large distances have no meaning. A name is at its class's median or has a line to it."
        f"{rarest}",
        figure,
        vector=True,
    )


def _groups(details: EvaluationDetails) -> tuple[list[str], NDArray[np.int64]]:
    """The class names, and (Q,) the class of each query; of several labels the rarest."""
    targets = details.query_targets
    names = list(details.queries.classes)
    if targets.ndim == 1:
        return names, targets.astype(np.int64)
    has = targets > 0
    rarity = np.where(has, has.sum(axis=0), np.iinfo(np.int64).max)
    groups = np.where(has.any(axis=1), rarity.argmin(axis=1), len(names))
    return [*names, NO_LABEL], groups.astype(np.int64)


def sample(groups: NDArray[np.int64], most: int, seed: int) -> NDArray[np.intp]:
    """Sorted rows of at most `most` images, stratified by group, at least one of each group.

    groups: (N,), the class of each image. The same seed gives the same rows.
    """
    random = np.random.default_rng(seed)
    key = np.empty(len(groups))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        # The i-th of n images, in random order, has its turn at the share (i + 1/2) / n.
        key[random.permutation(rows)] = (np.arange(len(rows)) + 0.5) / len(rows)
        key[rows[key[rows].argmin()]] = 0
    return np.sort(np.argsort(key, kind="stable")[:most])


def positions(
    embeddings: NDArray[np.float32], metric: str, seed: int
) -> tuple[NDArray[np.float64], str]:
    """(N, 2) positions on the map of (N, D) embeddings, and the name of the method.

    By t-SNE, initialised with the principal components; the same seed gives the same map. Fewer
    than FEWEST_POINTS, or only equal points, have no neighbourhoods: they get their principal
    components. metric: "hamming" compares only the signs.
    """
    needed()
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    values = np.asarray(embeddings, np.float32)
    if metric == "hamming":
        values = np.where(values > 0, np.float32(1), np.float32(-1))
    count, dimension = values.shape
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    if count < FEWEST_POINTS or dimension < 2 or not np.ptp(values, axis=0).any():
        left, scale, _ = np.linalg.svd(centred, full_matrices=False)
        components = np.zeros((count, 2))
        components[:, : min(2, len(scale))] = (left * scale)[:, :2]
        return components, "principal components"
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    tsne = TSNE(metric=metric, init="pca", perplexity=perplexity, random_state=seed)
    with threadpool_limits(1):  # sums over several threads differ between runs
        points = tsne.fit_transform(values)
    method = f"t-SNE ({metric} distance, perplexity {perplexity:.3g}, seed {seed})"
    return np.asarray(points, np.float64), method


def _label_classes(
    axes: Axes, points: NDArray[np.float64], mine: NDArray[np.int64], names: Mapping[int, str]
) -> None:
    """Write each class's name near its median, so that it covers no other name and few points.

    points: (N, 2) on the map; mine: (N,) the class of each point.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patheffects import withStroke

    canvas: Any = FigureCanvasAgg(axes.get_figure(root=True))
    canvas.draw()  # computes the layout
    renderer = canvas.get_renderer()
    to_pixels, to_data = axes.transData, axes.transData.inverted()
    dots = to_pixels.transform(points)
    frame = np.array([axes.bbox.min, axes.bbox.max])
    taken = np.empty((0, 2, 2))  # (names, lower left and upper right, x and y), pixels
    for group, name in names.items():
        median = np.median(points[mine == group], axis=0)
        text = axes.text(
            median[0], median[1], name, fontsize=9, fontweight="bold", ha="center", va="center",
            zorder=4, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
        extent = text.get_window_extent(renderer).padded(2)
        steps = _spiral(extent.height)
        boxes = np.array([extent.min, extent.max]) + steps[:, None]  # (steps, 2, 2)
        free = ((boxes[:, 0] >= frame[0]) & (boxes[:, 1] <= frame[1])).all(axis=1)
        free &= ~_overlap(boxes, taken).any(axis=1)
        covered = _overlap(boxes, np.stack([dots, dots], axis=1)).sum(axis=1)
        away = np.hypot(*steps.T) / extent.height
        # Our choice: covering a tenth of a class costs as much as a distance of one line height.
        cost = covered / (mine == group).sum() + 0.1 * away
        best = int(np.where(free, cost, np.inf).argmin())
        taken = np.append(taken, boxes[best : best + 1], axis=0)
        position = to_data.transform(to_pixels.transform(median) + steps[best])
        text.set_position((position[0], position[1]))
        if away[best] > 1:
            axes.plot(*np.array([median, position]).T, color="#444444", linewidth=0.7, zorder=3)


def _overlap(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(A, B): whether boxes (A, 2, 2) and others (B, 2, 2), lower left and upper right, overlap."""
    apart = (boxes[:, None, 0] > others[None, :, 1]) | (boxes[:, None, 1] < others[None, :, 0])
    return np.asarray(~apart.any(axis=2), bool)


def _spiral(step: float) -> NDArray[np.float64]:
    """(M, 2) offsets, nearest first: 40 rings of 16."""
    rings = np.arange(1, 41)[:, None] * step * 0.6
    turns = np.arange(16) * np.pi / 8
    around = np.stack([rings * np.cos(turns), rings * np.sin(turns)], axis=-1)
    return np.vstack([np.zeros((1, 2)), around.reshape(-1, 2)])
