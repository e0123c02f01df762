"""Agreement of the measures with torchmetrics and pytorch-metric-learning, and the differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from torch import Tensor
from torchmetrics.functional import retrieval
from torchmetrics.retrieval import RetrievalMAP

from rsir.evaluation.labelled_embeddings import LabelledEmbeddings
from rsir.evaluation.metrics.binary import (
    average_precision,
    average_precision_at_k,
    hit_at_k,
    precision_at_k,
)
from rsir.evaluation.metrics.curves import RankCurve
from rsir.evaluation.metrics.graded import ndcg_at_k
from rsir.evaluation.metrics.groups import TieGroups, tie_groups
from rsir.evaluation.scoring import score_queries

Q, N = 12, 60
KS = (1, 3, 10, N)


def rankings(most: int = 1, ties: int = 0) -> tuple[Tensor, Tensor]:
    """Gains (Q, N) and scores (Q, N), larger is better, all above 0 as torchmetrics requires."""
    gains = torch.randint(1, most + 1, (Q, N)) * (torch.rand(Q, N) < 0.3)
    gains[:, 0] = 1
    scores = torch.rand(Q, N).argsort(dim=1) + 1
    return gains, (scores % ties + 1 if ties else scores) / (N + 1)


def ours(gains: Tensor, scores: Tensor, most: int = 1) -> TieGroups:
    return tie_groups(gains, 2 - scores, most=most)


def theirs(of: Any, gains: Tensor, scores: Tensor, **options: Any) -> list[float]:
    """The values of a function of torchmetrics, query by query."""
    return [of(score, gain, **options).item() for gain, score in zip(gains, scores, strict=True)]


def test_torchmetrics_agrees_on_relevance() -> None:
    gains, scores = rankings()
    groups = ours(gains, scores)
    relevant = gains > 0
    whole = theirs(retrieval.retrieval_average_precision, relevant, scores)
    assert average_precision(groups).tolist() == pytest.approx(whole, abs=1e-6)
    for k in KS:
        # AP@k of torchmetrics divides by the relevant items found.
        found = theirs(retrieval.retrieval_average_precision, relevant, scores, top_k=k)
        precision = theirs(retrieval.retrieval_precision, relevant, scores, top_k=k)
        hit = theirs(retrieval.retrieval_hit_rate, relevant, scores, top_k=k)
        assert average_precision_at_k(groups, k, "found").tolist() == pytest.approx(found, abs=1e-6)
        assert precision_at_k(groups, k).tolist() == pytest.approx(precision, abs=1e-6)
        assert hit_at_k(groups, k).tolist() == hit
    curve = RankCurve(N, gains.device)
    curve.add(groups)
    recalls = [
        np.mean(theirs(retrieval.retrieval_recall, relevant, scores, top_k=k))
        for k in range(1, N + 1)
    ]
    assert curve.recall().tolist() == pytest.approx(recalls, abs=1e-6)
    # R-precision is precision after the first R.
    at_r = [
        precision_at_k(ours(gains[q : q + 1], scores[q : q + 1]), int(gains[q].sum())).item()
        for q in range(Q)
    ]
    assert at_r == pytest.approx(theirs(retrieval.retrieval_r_precision, relevant, scores))


@pytest.mark.parametrize("ties", [0, 4])
def test_torchmetrics_agrees_on_ndcg_with_exponential_gains_and_ties(ties: int) -> None:
    gains, scores = rankings(most=5, ties=ties)
    groups = ours(gains, scores, most=5)
    for k in KS:
        # torchmetrics sums the given gains, so pass 2^gain - 1.
        wanted = theirs(retrieval.retrieval_normalized_dcg, 2**gains - 1, scores, top_k=k)
        assert ndcg_at_k(groups, k, "gallery").tolist() == pytest.approx(wanted, abs=1e-5)


def test_torchmetrics_ndcg_is_linear_in_the_gain() -> None:
    """Gains 1, 3 in this order: (1 + 3 d) / (3 + d), not (1 + 7 d) / (7 + d), d = 1 / log2 3."""
    gains, scores = torch.tensor([[1, 3]]), torch.tensor([[0.9, 0.8]])
    assert theirs(retrieval.retrieval_normalized_dcg, gains, scores) == pytest.approx([0.796708])
    assert ndcg_at_k(ours(gains, scores, 3), 2, "gallery").item() == pytest.approx(0.709810)
    # With gains of 0 and 1 the two agree.
    gains, scores = rankings()
    wanted = theirs(retrieval.retrieval_normalized_dcg, gains, scores, top_k=10)
    assert ndcg_at_k(ours(gains, scores), 10, "gallery").tolist() == pytest.approx(wanted, abs=1e-5)


def test_torchmetrics_agrees_on_queries_without_relevant_items() -> None:
    gains, scores = rankings()
    gains[3:6] = 0
    index = torch.arange(Q)[:, None].expand(-1, N)
    found = {
        action: RetrievalMAP(empty_target_action=action)(
            scores.flatten(), gains.flatten() > 0, indexes=index.flatten()
        ).item()
        for action in ("neg", "pos", "skip")
    }
    mean = average_precision(ours(gains, scores)).mean().item()
    # rsir counts them 0 ("neg"); `drop_without_relevant` of evaluate is "skip".
    assert found["neg"] == pytest.approx(mean, abs=1e-6)
    assert found["skip"] == pytest.approx(mean * Q / (Q - 3), abs=1e-6)
    assert found["pos"] == pytest.approx(mean + 3 / Q, abs=1e-6)


def test_torchmetrics_breaks_ties_by_position() -> None:
    """One relevant of two items at the same score: its position decides the rank."""
    scores = torch.full((2, 2), 0.5)
    gains = torch.eye(2, dtype=torch.int64)
    found = theirs(retrieval.retrieval_average_precision, gains > 0, scores)
    assert sorted(found) == [0.5, 1.0]
    assert average_precision(ours(gains, scores)).tolist() == [0.75, 0.75]


def test_torchmetrics_ignores_scores_of_0_or_less() -> None:
    """A cosine below 0, or a negated distance, must be shifted above 0 first."""
    scores = torch.tensor([[-0.1, -0.2, -0.3]])
    gains = torch.tensor([[1, 0, 1]])
    assert theirs(retrieval.retrieval_average_precision, gains > 0, scores) == [0.0]
    above = theirs(retrieval.retrieval_average_precision, gains > 0, scores + 1)
    assert average_precision(ours(gains, scores)).tolist() == pytest.approx(above)


METRIC_LEARNING = (
    "precision_at_1",
    "r_precision",
    "mean_average_precision_at_r",
    "mean_average_precision",
)


def accuracies(
    queries: LabelledEmbeddings,
    gallery: LabelledEmbeddings,
    leave_one_out: bool,
    k: int | None = None,
) -> dict[str, float]:
    calculator = AccuracyCalculator(include=METRIC_LEARNING, k=k, device=torch.device("cpu"))
    found: dict[str, float] = calculator.get_accuracy(
        queries.embedding,
        queries.targets,
        gallery.embedding,
        gallery.targets,
        ref_includes_query=leave_one_out,
    )
    return found


def relevance(
    queries: LabelledEmbeddings, gallery: LabelledEmbeddings, leave_one_out: bool
) -> tuple[Tensor, Tensor]:
    """Relevance and distances, both (Q, N), the query itself at infinity."""
    relevant = queries.targets[:, None] == gallery.targets
    distances = torch.cdist(queries.embedding.double(), gallery.embedding.double())
    if leave_one_out:
        relevant.fill_diagonal_(False)
        distances.fill_diagonal_(torch.inf)
    return relevant, distances


def at_r(relevant: Tensor, distances: Tensor) -> tuple[float, float]:
    """The means of P@R and of AP@R "all", with each query's own R."""
    each = [tie_groups(relevant[q : q + 1], distances[q : q + 1]) for q in range(len(relevant))]
    precision = [precision_at_k(g, int(g.total)).item() for g in each]
    ap = [average_precision_at_k(g, int(g.total), "all").item() for g in each]
    return float(np.mean(precision)), float(np.mean(ap))


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_pytorch_metric_learning_agrees(leave_one_out: bool) -> None:
    images = LabelledEmbeddings(torch.randn(N, 8), torch.arange(N) % 7)
    queries, gallery = (images, images) if leave_one_out else (images[:Q], images[Q:])
    found = accuracies(queries, gallery, leave_one_out)
    own = torch.arange(N) if leave_one_out else None
    scores = score_queries(queries, gallery, ranking="euclidean", own=own).per_query
    relevant, distances = relevance(queries, gallery, leave_one_out)
    precision, ap = at_r(relevant, distances)
    assert found["precision_at_1"] == pytest.approx(scores["r_at_1"].mean())
    assert found["r_precision"] == pytest.approx(precision)
    assert found["mean_average_precision_at_r"] == pytest.approx(ap)
    assert found["mean_average_precision"] == pytest.approx(scores["map"].mean())
    # With k, its mean average precision is AP@k "all".
    at_10 = accuracies(queries, gallery, leave_one_out, k=10)["mean_average_precision"]
    assert at_10 == pytest.approx(scores["map_at_10_all"].mean())
    assert at_10 != pytest.approx(scores["map_at_10_found"].mean(), abs=0.05)


def test_pytorch_metric_learning_leaves_out_classes_of_one_image() -> None:
    """rsir counts such a query 0: here 1 of 13, the only one of its class."""
    images = LabelledEmbeddings(torch.randn(13, 8), torch.tensor([*[0, 1, 2] * 4, 3]))
    found = accuracies(images, images, True)["mean_average_precision"]
    scores = score_queries(images, images, ranking="euclidean", own=torch.arange(13)).per_query
    assert scores["map"][-1] == 0
    assert found == pytest.approx(scores["map"].mean() * 13 / 12)


def test_pytorch_metric_learning_breaks_ties_by_position() -> None:
    """One relevant of two items at the same distance: its position decides the rank."""
    query = LabelledEmbeddings(torch.zeros(1, 4), torch.tensor([0]))
    found = []
    for targets in ([0, 1], [1, 0]):
        gallery = LabelledEmbeddings(torch.ones(2, 4), torch.tensor(targets))
        found.append(accuracies(query, gallery, False)["mean_average_precision"])
        ours = score_queries(query, gallery, ranking="euclidean").per_query
        assert ours["map"].tolist() == [0.75]
    assert sorted(found) == [0.5, 1.0]
