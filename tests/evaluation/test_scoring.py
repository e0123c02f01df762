from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rsir import ranking
from rsir.errors import DataError, UsageError
from rsir.evaluation import ranked_block, scoring
from rsir.evaluation.distances import DISTANCES, Distance
from rsir.evaluation.labelled_embeddings import LabelledEmbeddings
from rsir.evaluation.metrics.binary import (
    average_precision,
    average_precision_at_k,
    nmrr,
    precision_at_k,
)
from rsir.evaluation.metrics.curves import interpolated_precision
from rsir.evaluation.metrics.graded import acg_at_k, ndcg_at_k, weighted_average_precision
from rsir.evaluation.metrics.groups import Order, TieGroups, counted_groups, tie_groups
from rsir.evaluation.ranked_block import AP_AT, CODES, GRADED_AT, HITS_AT, PRECISIONS_AT
from rsir.evaluation.relevance import relevant_counts
from rsir.evaluation.scoring import RANKINGS, Scores, score_queries

Gains = list[int]


def described(vectors: np.ndarray, targets: np.ndarray, *more: np.ndarray) -> LabelledEmbeddings:
    return LabelledEmbeddings(*(torch.from_numpy(values) for values in (vectors, targets, *more)))


def loop_rankings(
    distances: np.ndarray,
    query_targets: np.ndarray,
    gallery_targets: np.ndarray,
    leave_one_out: bool,
    rng: np.random.Generator | None = None,
) -> list[tuple[list[int], Gains]]:
    """(gallery rows, gains) of each query, in plain Python; ties ordered by row, or by `rng`."""
    found = []
    for q, far in enumerate(distances):
        rows = range(len(far)) if rng is None else rng.permutation(len(far)).tolist()
        order = sorted(rows, key=lambda i: far[i])
        if leave_one_out:
            order.remove(q)
        gains = [
            int((query_targets[q] & gallery_targets[i]).sum())
            if gallery_targets.ndim == 2
            else int(query_targets[q] == gallery_targets[i])
            for i in order
        ]
        found.append((order, gains))
    return found


def loop_precisions(hits: Gains) -> list[float]:
    return [sum(hits[:rank]) / rank for rank, hit in enumerate(hits, start=1) if hit]


def loop_nmrr(ranks: list[int], largest: int, beyond: Callable[[int], float]) -> float:
    if not ranks:
        return 1.0
    limit = min(4 * len(ranks), 2 * largest)
    average = sum(rank if rank <= limit else beyond(limit) for rank in ranks) / len(ranks)
    best = (1 + len(ranks)) / 2
    return (average - best) / (beyond(limit) - best)


def loop_dcg(gains: Gains, k: int) -> float:
    return sum((2**gain - 1) / math.log2(1 + rank) for rank, gain in enumerate(gains[:k], start=1))


def loop_interpolated(hits: Gains) -> list[float]:
    found, total = np.cumsum(hits), sum(hits)
    ranks = np.arange(1, len(hits) + 1)
    return [
        max((found / ranks)[10 * found >= level * total]) if total else 0.0 for level in range(11)
    ]


def loop_scores(rankings: list[tuple[list[int], Gains]], graded: bool) -> list[dict[str, float]]:
    """Every measure of rankings without ties, or of one order of the ties, by loops."""
    largest = max(sum(g > 0 for g in gains) for _, gains in rankings)
    found = []
    for _, gains in rankings:
        hits = [int(gain > 0) for gain in gains]
        total, summed = sum(hits), sum(loop_precisions(hits))
        ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
        scores = {
            "map": summed / total if total else 0.0,
            "anmrr": loop_nmrr(ranks, largest, lambda k: 1.25 * k),
            "anmrr_k_plus_1": loop_nmrr(ranks, largest, lambda k: k + 1),
            "map_11_point": float(np.mean(loop_interpolated(hits))),
            "relevant": float(total),
        }
        scores |= {f"r_at_{k}": float(any(hits[:k])) for k in HITS_AT}
        scores |= {f"p_at_{k}": sum(hits[:k]) / k for k in PRECISIONS_AT}
        for k in AP_AT:
            by = {"found": sum(hits[:k]), "min": min(total, k), "all": total}
            for name, count in by.items():
                value = sum(loop_precisions(hits[:k])) / count if count else 0.0
                scores[f"map_at_{k}_{name}"] = value
        if graded:
            acgs = [sum(gains[:rank]) / rank for rank in ranks]
            scores["wmap"] = sum(acgs) / total if total else 0.0
            for k in GRADED_AT:
                scores[f"acg_at_{k}"] = sum(gains[:k]) / k
                for name, of in ((f"ndcg_at_{k}", gains), (f"ndcg_at_{k}_list", gains[:k])):
                    ideal = loop_dcg(sorted(of, reverse=True), k)
                    scores[name] = loop_dcg(gains, k) / ideal if ideal else 0.0
        found.append(scores)
    return found


def make_set(multi_label: bool, leave_one_out: bool) -> tuple[np.ndarray, ...]:
    """(queries, their targets, gallery, its targets); one query has no relevant item."""
    random = np.random.default_rng(3)
    gallery = random.normal(size=(40, 6)).astype(np.float32)
    if multi_label:
        targets = (random.random((40, 17)) < 0.15).astype(np.uint8)
        targets[2] = 0
        targets[5] = targets[6] = 1  # 17 in common
    else:
        targets = random.integers(0, 5, 40)
        targets[2] = 9
    if leave_one_out:
        return gallery, targets, gallery, targets
    queries = random.normal(size=(9, 6)).astype(np.float32)
    own = targets[:9].copy()
    if not multi_label:
        own[0] = 11
    return queries, own, gallery, targets


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "ncc"])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_scores_agree_with_a_loop(metric: str, multi_label: bool, leave_one_out: bool) -> None:
    queries, query_targets, gallery, targets = make_set(multi_label, leave_one_out)
    distances = ranking.pairwise(metric, queries, gallery)
    rankings = loop_rankings(distances, query_targets, targets, leave_one_out)
    expected = loop_scores(rankings, multi_label)
    for block in (1, 7, 1000, None):
        scores = score_queries(
            described(queries, query_targets),
            described(gallery, targets),
            ranking=metric,
            own=torch.arange(40) if leave_one_out else None,
            curves=True,
            nearest=6,
            block=block,
        )
        assert set(scores.per_query) == set(expected[0])
        for name, values in scores.per_query.items():
            assert values.dtype == np.float64
            assert values.tolist() == pytest.approx([row[name] for row in expected]), name
        assert scores.nearest.tolist() == [order[:6] for order, _ in rankings]
        far = np.take_along_axis(distances, scores.nearest, axis=1)
        np.testing.assert_allclose(scores.distances, far, atol=1e-6)
        # Without ties the best and the worst order are the same.
    for order in ("best", "worst"):
        alone = score_queries(
            described(queries, query_targets),
            described(gallery, targets),
            ranking=metric,
            own=torch.arange(40) if leave_one_out else None,
            order=order,
        )
        for name, values in alone.per_query.items():
            assert values.tolist() == pytest.approx(scores.per_query[name].tolist()), name


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_curves_agree_with_a_loop(multi_label: bool, leave_one_out: bool) -> None:
    queries, query_targets, gallery, targets = make_set(multi_label, leave_one_out)
    distances = ranking.pairwise("euclidean", queries, gallery)
    rankings = loop_rankings(distances, query_targets, targets, leave_one_out)
    hits = np.array([[gain > 0 for gain in gains] for _, gains in rankings])
    found = hits.cumsum(axis=1)
    count = hits.shape[1]
    precision = (found / np.arange(1, count + 1)).mean(axis=0)
    recall = (found / np.maximum(hits.sum(axis=1), 1)[:, None]).mean(axis=0)
    for block in (1, 7, 1000):
        curves = score_queries(
            described(queries, query_targets),
            described(gallery, targets),
            ranking="euclidean",
            own=torch.arange(40) if leave_one_out else None,
            measures=(),
            curves=True,
            block=block,
        ).curves
        assert set(curves) == {"retrieved", "precision_recall", "interpolated"}
        assert curves["retrieved"]["k"] == list(range(1, count + 1))
        assert curves["retrieved"]["precision"] == pytest.approx(precision)
        assert curves["retrieved"]["recall"] == pytest.approx(recall)
        assert curves["precision_recall"]["precision"] == curves["retrieved"]["precision"]
        assert curves["precision_recall"]["recall"] == curves["retrieved"]["recall"]
        assert curves["interpolated"]["recall"] == pytest.approx(np.arange(11) / 10)
        levels = np.mean([loop_interpolated(row.astype(int).tolist()) for row in hits], axis=0)
        assert curves["interpolated"]["precision"] == pytest.approx(levels)


def test_a_long_curve_is_sampled_with_both_ends() -> None:
    images = described(np.random.default_rng(0).normal(size=(700, 3)), np.arange(700) % 4)
    curves = score_queries(images[:3], images, ranking="euclidean", measures=(), curves=True).curves
    ranks = np.array(curves["retrieved"]["k"])
    assert ranks[:100].tolist() == list(range(1, 101))
    assert (ranks[-1], curves["retrieved"]["recall"][-1]) == (700, pytest.approx(1.0))
    assert curves["retrieved"]["precision"][-1] == pytest.approx(175 / 700)
    steps = np.diff(ranks)
    assert (steps >= 1).all()
    assert (steps <= ranks[:-1] * 0.01 + 1).all()
    assert len(ranks) < 350


@functools.cache
def coded(multi_label: bool) -> tuple[LabelledEmbeddings, np.ndarray, np.ndarray]:
    """Images of 5-bit codes with class probabilities, 0.5 or 1 or 0; Hamming and adapted (N, N)."""
    random = np.random.default_rng(4)
    relaxed = random.uniform(-1, 1, (24, 5)).astype(np.float32)
    relaxed[0, 0] = 0.0  # not above 0, so the bit is 0
    targets = random.integers(0, 4, 24)
    if multi_label:
        targets = (random.random((24, 6)) < 0.3).astype(np.uint8)
    chances = (random.integers(0, 3, (24, 3)) / 2).astype(np.float32)
    rows = np.packbits(relaxed > 0, axis=1)
    hamming = ranking.pairwise("hamming", rows, rows)
    packed = ranking.packed(rows, chances)
    adaptive = ranking.pairwise("adaptive-hamming:3", packed, packed)
    return described(relaxed, targets, chances), hamming, adaptive


@pytest.mark.slow
@pytest.mark.parametrize("metric", CODES)
@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_of_codes_are_the_mean_over_random_orders_of_ties(
    metric: str, leave_one_out: bool, multi_label: bool
) -> None:
    random = np.random.default_rng(4)
    gallery, hamming, adaptive = coded(multi_label)
    queries = gallery if leave_one_out else gallery[:7]
    distances = (adaptive if metric == "adaptive-hamming" else hamming)[: len(queries)]
    targets = gallery.targets.numpy()
    drawn = [
        loop_scores(loop_rankings(distances, targets, targets, leave_one_out, random), multi_label)
        for _ in range(150)
    ]
    own = torch.arange(24) if leave_one_out else None
    for block in (5, 1000):
        scores = score_queries(queries, gallery, ranking=metric, own=own, block=block).per_query
        within = {"precision_within_2", "recall_within_2", "map_within_2"}
        assert set(scores) == set(drawn[0][0]) | within
        for measure in drawn[0][0]:
            if measure in ("map_11_point", *(f"ndcg_at_{k}_list" for k in GRADED_AT)):
                continue  # with ties not the mean over the orders, see the measures
            per_draw = np.array([[row[measure] for row in rows] for rows in drawn])
            # Six standard errors of 150 draws, plus the effect of one draw.
            spread = per_draw.std(axis=0) / np.sqrt(len(drawn))
            slack = 6 * spread + np.ptp(per_draw) / len(drawn) + 1e-9
            assert (np.abs(per_draw.mean(axis=0) - scores[measure]) <= slack).all(), measure


def of_groups(groups: TieGroups, largest: int) -> dict[str, Tensor]:
    """One measure of each kind; the tests of the measures verify their values."""
    return {
        "map": average_precision(groups),
        "anmrr": nmrr(groups, largest),
        "p_at_10": precision_at_k(groups, 10),
        "map_11_point": interpolated_precision(groups).mean(dim=1),
        "map_at_10_min": average_precision_at_k(groups, 10, "min"),
        "map_at_10_found": average_precision_at_k(groups, 10, "found"),
        "wmap": weighted_average_precision(groups),
        "acg_at_10": acg_at_k(groups, 10),
        "ndcg_at_10": ndcg_at_k(groups, 10, "gallery"),
        "ndcg_at_10_list": ndcg_at_k(groups, 10, "list"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("metric", CODES)
@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("order", ["expected", "best", "worst"])
def test_scores_and_curves_of_codes_agree_with_their_distance_groups(
    metric: str, leave_one_out: bool, multi_label: bool, order: Order
) -> None:
    """Scores query by query, with the query removed from the gallery."""
    gallery, hamming, adaptive = coded(multi_label)
    count = 24 if leave_one_out else 7
    queries, targets = gallery[:count], gallery.targets.numpy()
    distances = adaptive if metric == "adaptive-hamming" else hamming
    rankings = loop_rankings(distances[:count], targets, targets, leave_one_out)
    largest = max(sum(gain > 0 for gain in gains) for _, gains in rankings)
    rows: list[dict[str, float]] = []
    curves: dict[str, list[list[float]]] = {"precision": [], "interpolated": [], "within": []}
    for q, (items, gains) in enumerate(rankings):
        of = torch.tensor([gains])
        far = torch.from_numpy(distances[q, items])[None]
        # Exact float64 distances, whose ties are real.
        groups = tie_groups(of, far, most=17, order=order)
        row = {name: value.item() for name, value in of_groups(groups, largest).items()}
        curves["precision"].append(
            [precision_at_k(groups, k).item() for k in range(1, len(items) + 1)]
        )
        curves["interpolated"].append(interpolated_precision(groups)[0].tolist())
        balls = []
        for radius in range(6):
            inside = [i for i, item in enumerate(items) if hamming[q, item] <= radius]
            ball = counted_groups(
                of[:, inside], torch.from_numpy(hamming[q, items])[None][:, inside], 6, most=17,
                order=order,
            )  # fmt: skip
            ap = average_precision(ball).item()
            found = sum(gains[i] > 0 for i in inside)
            total = sum(gain > 0 for gain in gains)
            balls.append([found / max(len(inside), 1), found / max(total, 1), ap])
        names = ("precision_within_2", "recall_within_2", "map_within_2")
        rows.append(row | dict(zip(names, balls[2], strict=True)))
        curves["within"].append(np.array(balls).T.tolist())
    scores = score_queries(
        queries,
        gallery,
        ranking=metric,
        own=torch.arange(24) if leave_one_out else None,
        order=order,
        curves=True,
        block=5,
    )
    for name in rows[0]:
        if name in scores.per_query or multi_label:
            wanted = [row[name] for row in rows]
            assert scores.per_query[name].tolist() == pytest.approx(wanted), name
    drawn = scores.curves
    assert drawn["retrieved"]["precision"] == pytest.approx(np.mean(curves["precision"], axis=0))
    assert drawn["interpolated"]["precision"] == pytest.approx(
        np.mean(curves["interpolated"], axis=0)
    )
    assert drawn["radius"]["radius"] == [0, 1, 2, 3, 4, 5]
    for name, wanted in zip(
        ("precision", "recall", "map"), np.mean(curves["within"], axis=0), strict=True
    ):
        assert drawn["radius"][name] == pytest.approx(wanted), name


def test_best_and_worst_enclose_the_expected_value() -> None:
    gallery, *_ = coded(True)
    expected, best, worst = (
        score_queries(gallery, gallery, ranking="hamming", own=torch.arange(24), order=order)
        for order in ("expected", "best", "worst")
    )
    differ = 0
    for name, values in expected.per_query.items():
        if name.endswith(("_found", "_list")):
            continue  # not highest with the most relevant first, see the measures
        low, high = worst.per_query[name], best.per_query[name]
        if name.startswith("anmrr"):
            low, high = high, low
        assert (low <= values + 1e-12).all(), name
        assert (values <= high + 1e-12).all(), name
        differ += bool((high > low + 1e-9).any())
    assert differ > 20


def test_codes_shorter_than_the_radius() -> None:
    images = LabelledEmbeddings(torch.tensor([[1.0], [1.0], [-1.0]]), torch.tensor([0, 0, 1]))
    scores = score_queries(images, images, ranking="hamming", own=torch.arange(3))
    assert scores.per_query["precision_within_2"].tolist() == [0.5, 0.5, 0.0]
    assert scores.per_query["recall_within_2"].tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("bits", [1, 12, 64])
def test_distances_of_codes_agree_with_the_archive(bits: int) -> None:
    random = np.random.default_rng(bits)
    relaxed = random.uniform(-1, 1, (9, bits)).astype(np.float32)
    chances = random.dirichlet(np.ones(4), 9).astype(np.float32)
    codes = np.packbits(relaxed > 0, axis=1)
    images = described(relaxed, np.zeros(9, np.int64), chances)
    rows = ranking.packed(codes, chances)
    for metric, far, slack in (
        ("hamming", ranking.pairwise("hamming", codes, codes), 0),
        ("adaptive-hamming", ranking.pairwise("adaptive-hamming:4", rows, rows), 1e-15),
    ):
        scores = score_queries(images, images, ranking=metric, nearest=9)
        found = np.empty_like(far)
        np.put_along_axis(found, scores.nearest, scores.distances, axis=1)
        np.testing.assert_allclose(found, far, rtol=slack)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_nearest_agrees_with_a_loop_and_orders_ties_by_row(leave_one_out: bool) -> None:
    gallery, hamming, adaptive = coded(False)
    count = 24 if leave_one_out else 7
    own = torch.arange(24) if leave_one_out else None
    targets = gallery.targets.numpy()
    for metric, distances in (("hamming", hamming), ("adaptive-hamming", adaptive)):
        rankings = loop_rankings(distances[:count], targets, targets, leave_one_out)
        for k in (1, 10, 100):
            scores = score_queries(
                gallery[:count], gallery, ranking=metric, own=own, measures=(), nearest=k, block=5
            )
            assert scores.per_query == {}
            assert scores.nearest.dtype == np.int64
            assert scores.nearest.tolist() == [order[:k] for order, _ in rankings]
            far = np.take_along_axis(distances[:count], scores.nearest, axis=1)
            np.testing.assert_allclose(scores.distances, far, rtol=1e-15)
    # Without `nearest` none are listed.
    scores = score_queries(gallery[:count], gallery, ranking="hamming", own=own)
    assert scores.nearest.shape == scores.distances.shape == (count, 0)
    assert scores.curves == {}


def test_only_the_requested_measures_are_computed() -> None:
    gallery, *_ = coded(False)
    every = score_queries(gallery[:3], gallery, ranking="hamming").per_query
    chosen = score_queries(gallery[:3], gallery, ranking="hamming", measures=("p_at_5", "map"))
    assert list(chosen.per_query) == ["p_at_5", "map"]
    for name, values in chosen.per_query.items():
        assert values.tolist() == every[name].tolist()
    for measures in (("map", "mpa"), ("wmap",), ("map_within_2",)):
        with pytest.raises(UsageError, match=rf"\['{measures[-1]}'\]: take some of map, anmrr"):
            score_queries(gallery[:3], gallery, ranking="cosine", measures=measures)


def test_own_may_be_any_row_of_the_gallery() -> None:
    """The queries are some gallery items in another order."""
    gallery, *_ = coded(True)
    rows = torch.tensor([17, 3, 20])
    whole = score_queries(gallery, gallery, ranking="hamming", own=torch.arange(24), nearest=5)
    some = score_queries(gallery[rows], gallery, ranking="hamming", own=rows, nearest=5)
    assert some.nearest.tolist() == whole.nearest[rows.numpy()].tolist()
    for name, values in some.per_query.items():
        if not name.startswith("anmrr"):  # anmrr depends on the largest R of all queries
            assert values.tolist() == pytest.approx(whole.per_query[name][rows.numpy()].tolist())


@pytest.mark.parametrize("multi_label", [False, True])
def test_relevant_counts(multi_label: bool) -> None:
    queries, query_targets, gallery, targets = make_set(multi_label, False)
    q_images, g_images = described(queries, query_targets), described(gallery, targets)
    for q, g, own in ((q_images, g_images, None), (g_images, g_images, torch.arange(40))):
        pairs = [
            [
                bool((a & b).any()) if multi_label else bool(a == b)
                for i, b in enumerate(targets)
                if own is None or i != n
            ]
            for n, a in enumerate(q.targets.numpy())
        ]
        assert relevant_counts(q, g, own).tolist() == [sum(row) for row in pairs]


def test_a_query_is_never_its_own_answer() -> None:
    twins = torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    images = LabelledEmbeddings(twins, torch.tensor([0, 1, 1]), torch.full((3, 2), 0.5))
    for metric in RANKINGS:
        scores = score_queries(images, images, ranking=metric, own=torch.arange(3), nearest=3)
        assert scores.per_query["r_at_1"].tolist() == [0.0, 0.0, 0.5], metric
        assert scores.per_query["relevant"].tolist() == [0.0, 1.0, 1.0], metric
        assert scores.nearest.tolist() == [[1, 2], [0, 2], [0, 1]], metric


def test_ties_give_the_expected_value() -> None:
    gallery = LabelledEmbeddings(torch.ones(3, 2), torch.tensor([0, 1, 1]))
    query = LabelledEmbeddings(torch.ones(1, 2), torch.tensor([1]))
    scores = score_queries(query, gallery, ranking="euclidean").per_query
    # The other image is first, second or third.
    wanted = ((1 / 2 + 2 / 3) / 2 + (1 + 2 / 3) / 2 + 1) / 3
    assert scores["map"].item() == pytest.approx(wanted)
    assert scores["r_at_1"].item() == pytest.approx(2 / 3)
    best = score_queries(query, gallery, ranking="euclidean", order="best").per_query
    worst = score_queries(query, gallery, ranking="euclidean", order="worst").per_query
    assert best["map"].item() == pytest.approx(1)
    assert worst["map"].item() == pytest.approx((1 / 2 + 2 / 3) / 2)


class Largest(TorchFunctionMode):
    """The largest number of elements of any tensor created in the block."""

    elements = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return made


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "hamming", "adaptive-hamming"])
def test_memory_is_limited_to_a_block(metric: str) -> None:
    """No tensor of the size of queries × gallery is created."""
    random = np.random.default_rng(1)
    targets = (random.random((500, 4)) < 0.3).astype(np.uint8)
    vectors = random.normal(size=(500, 8)).astype(np.float32)
    images = described(vectors, targets, np.full((500, 2), 0.5, np.float32))
    own = torch.arange(20)
    with Largest() as largest:
        score_queries(images[:20], images, ranking=metric, own=own, curves=True, nearest=5, block=1)
    # The vectors; for one query a value per image and label.
    assert largest.elements <= images.embedding.numel() < 20 * 500 / 2


def test_block_size_follows_from_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    images = described(np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 4)
    seen = []
    # The largest class has 13 images: eight queries, each with 50 images and 13 groups.
    monkeypatch.setattr(scoring, "BLOCK_BYTES", 8 * (24 * 50 + 16 * 13 * 9))
    between = DISTANCES["euclidean"].between
    watched = Distance(lambda q, g: (q, g), lambda q, g: seen.append(len(q)) or between(q, g))
    for module in (scoring, ranked_block):
        monkeypatch.setattr(module, "DISTANCES", {"euclidean": watched})
    score_queries(images, images, ranking="euclidean", measures=("map",))
    assert seen == [8] * 6 + [2]


def test_labelled_embeddings_are_joined_and_sliced() -> None:
    with_chances = LabelledEmbeddings(torch.rand(5, 3), torch.arange(5), torch.rand(5, 2))
    without = LabelledEmbeddings(torch.rand(5, 3), torch.arange(5))
    for images in (with_chances, without):
        again = LabelledEmbeddings.joined([images[:2], images[torch.tensor([2, 3, 4])]])
        assert len(again) == 5
        assert torch.equal(again.embedding, images.embedding)
        assert torch.equal(again.targets, images.targets)
        assert (again.probabilities is None) == (images.probabilities is None)
    moved = with_chances.with_embedding(torch.zeros(5, 9)).to("cpu")
    assert moved.embedding.shape == (5, 9)
    assert torch.equal(moved.targets, with_chances.targets)


def test_unrankable_values_are_refused() -> None:
    single = LabelledEmbeddings(torch.ones(1, 2), torch.tensor([0]))
    with pytest.raises(UsageError, match="cosine, euclidean, ncc, hamming, adaptive-hamming"):
        score_queries(single, single, ranking="l7")
    with pytest.raises(UsageError, match="expected, best, worst"):
        score_queries(single, single, ranking="cosine", order="lucky")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="empty"):
        score_queries(single, single, ranking="cosine", own=torch.arange(1))
    with pytest.raises(DataError, match="empty"):
        score_queries(single, single[:0], ranking="cosine")
    with pytest.raises(DataError, match="no queries"):
        score_queries(single[:0], single, ranking="cosine")
    with pytest.raises(UsageError, match="class probabilities"):
        score_queries(single, single, ranking="adaptive-hamming")
    for value in (torch.nan, torch.inf):
        broken = LabelledEmbeddings(torch.tensor([[1.0, value]]), single.targets)
        with pytest.raises(DataError, match="not finite"):
            score_queries(single, broken, ranking="euclidean")
    zeros = LabelledEmbeddings(torch.zeros(1, 2), single.targets)
    with pytest.raises(DataError, match="vector of zeros, which cosine"):
        score_queries(single, zeros, ranking="cosine")
    # The rounded mean of 0.1 is not exactly 0.1.
    for value in (0.0, 0.1, 1.0):
        constant = LabelledEmbeddings(torch.full((1, 7), value), single.targets)
        other = LabelledEmbeddings(torch.arange(7.0)[None], single.targets)
        with pytest.raises(DataError, match="constant vector, which ncc"):
            score_queries(other, constant, ranking="ncc")
        with pytest.raises(UsageError, match="constant"):
            ranking.pairwise("ncc", other.embedding.numpy(), constant.embedding.numpy())
    wrong = LabelledEmbeddings(single.embedding, single.targets, torch.tensor([[0.5, torch.nan]]))
    with pytest.raises(DataError, match="probabilities"):
        score_queries(wrong, wrong, ranking="adaptive-hamming")


def test_one_query_and_one_item() -> None:
    """The smallest evaluation: one query, one image."""
    query = LabelledEmbeddings(torch.ones(1, 2), torch.tensor([0]))
    for target, value in ((0, 1.0), (1, 0.0)):
        gallery = LabelledEmbeddings(torch.ones(1, 2), torch.tensor([target]))
        scores = score_queries(query, gallery, ranking="cosine", curves=True, nearest=1)
        assert scores.per_query["map"].tolist() == [value]
        assert scores.per_query["p_at_5"].tolist() == [value / 5]
        assert scores.curves["retrieved"] == {"k": [1.0], "precision": [value], "recall": [value]}
        assert scores.nearest.tolist() == [[0]]


def test_several_threads_give_the_same_numbers() -> None:
    images = described(np.random.default_rng(0).normal(size=(90, 8)).astype(np.float32), TWICE)
    own = torch.arange(90)

    def scores() -> Scores:
        return score_queries(images, images, ranking="cosine", own=own, curves=True, block=7)

    alone, before = scores(), torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        together = scores()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    for name, values in alone.per_query.items():
        # Matrix products may sum in another order.
        assert together.per_query[name].tolist() == pytest.approx(values.tolist(), abs=1e-6), name
    for curve in ("retrieved", "interpolated"):
        assert together.curves[curve]["precision"] == pytest.approx(
            alone.curves[curve]["precision"], abs=1e-6
        )


TWICE = np.repeat(np.arange(9), 10)


@pytest.mark.parametrize("metric", ["hamming", "euclidean"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_shares_of_the_nearest_are_the_mean_over_all_orders_of_ties(
    metric: str, multi_label: bool
) -> None:
    random = np.random.default_rng(2)
    vectors = random.choice([-1.0, 1.0], (7, 3)).astype(np.float32)
    targets = (
        random.integers(0, 2, (7, 4)).astype(np.uint8) if multi_label else random.integers(0, 4, 7)
    )
    held = targets if multi_label else np.eye(4)[targets]
    images, own = described(vectors, targets), torch.arange(7)
    for k in (1, 2, 4, 6):
        scores = score_queries(images, images, ranking=metric, own=own, nearest=k)
        assert scores.shares.shape[0] == 7
        for q in range(7):
            others = [i for i in range(7) if i != q]
            far = {i: float(np.abs(vectors[i] - vectors[q]).sum()) for i in others}
            every = [
                held[list(order[:k])].mean(axis=0)
                for order in itertools.permutations(others)
                if [far[i] for i in order] == sorted(far.values())
            ]
            wanted = np.mean(every, axis=0)[: scores.shares.shape[1]]
            assert scores.shares[q].tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 100.0, 1000.0, 5000.0])
def test_a_common_offset_does_not_change_distances(offset: float) -> None:
    random = np.random.default_rng(0)
    targets = np.arange(120) % 6
    vectors = random.normal(size=(6, 16))[targets] + random.normal(0, 0.7, (120, 16))
    vectors = (vectors + offset).astype(np.float32)
    distances = ranking.pairwise("euclidean", vectors, vectors)
    rankings = loop_rankings(distances, targets, targets, True)
    wanted = np.mean([row["map"] for row in loop_scores(rankings, False)])
    for block in (1, 30, 200):
        images = described(vectors, targets)
        scores = score_queries(
            images, images, ranking="euclidean", own=torch.arange(120), block=block
        )
        assert scores.per_query["map"].mean() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "ncc"])
def test_directions_of_tiny_and_huge_vectors_are_exact(metric: str) -> None:
    """Values whose squares overflow or underflow float32, and values with a large common mean."""
    random = np.random.default_rng(0)
    targets = np.arange(60) % 6
    vectors = random.normal(size=(6, 16))[targets] + random.normal(0, 0.7, (60, 16))
    for scale, offset in ((1e37, 0.0), (1e-36, 0.0), (1.0, 5000.0 if metric == "ncc" else 0.0)):
        moved = (vectors * scale + offset).astype(np.float32)
        distances = ranking.pairwise(metric, moved, moved)
        rankings = loop_rankings(distances, targets, targets, True)
        images = described(moved, targets)
        found = score_queries(images, images, ranking=metric, own=torch.arange(60))
        wanted = [row["map"] for row in loop_scores(rankings, False)]
        assert found.per_query["map"].tolist() == pytest.approx(wanted, abs=1e-3)
        assert found.per_query["map"].mean() == pytest.approx(np.mean(wanted), abs=1e-4)


def test_distances_that_overflow_are_refused() -> None:
    images = described(np.float32([[3e38, 0], [-3e38, 0]]), np.array([0, 0]))
    with pytest.raises(DataError, match="not finite"):
        score_queries(images, images, ranking="euclidean", own=torch.arange(2))
