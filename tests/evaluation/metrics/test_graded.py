from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rsir.errors import UsageError
from rsir.evaluation.metrics.binary import average_precision, precision_at_k
from rsir.evaluation.metrics.graded import acg_at_k, ndcg_at_k, weighted_average_precision
from rsir.evaluation.metrics.groups import TieGroups, counted_groups, tie_groups

Gains = Sequence[int]
KS = (1, 2, 3, 5, 9)


def loop_acg(gains: Gains, k: int) -> float:
    return sum(gains[:k]) / k


def loop_wap(gains: Gains) -> float:
    summed = [sum(gains[:rank]) / rank for rank, gain in enumerate(gains, start=1) if gain]
    return sum(summed) / len(summed) if summed else 0.0


def loop_dcg(gains: Gains, k: int) -> float:
    return sum((2**gain - 1) / math.log2(1 + rank) for rank, gain in enumerate(gains[:k], start=1))


def loop_ideal(gains: Gains, k: int, ideal: str) -> float:
    """DCG of the best order of the gallery, or of the first k."""
    return loop_dcg(sorted(gains if ideal == "gallery" else gains[:k], reverse=True), k)


def loop_ndcg(gains: Gains, k: int, ideal: str) -> float:
    best = loop_ideal(gains, k, ideal)
    return loop_dcg(gains, k) / best if best else 0.0


def orders(gains: Gains, distances: Sequence[int]) -> list[list[int]]:
    """The gains in every order that sorts the distances, all equally likely."""
    runs = [
        [gains[i] for i in range(len(gains)) if distances[i] == distance]
        for distance in sorted(set(distances))
    ]
    different = [sorted(set(itertools.permutations(run))) for run in runs]
    return [list(itertools.chain(*parts)) for parts in itertools.product(*different)]


def expected(of: Callable[[Gains], float], rankings: list[list[int]]) -> float:
    return sum(of(ranking) for ranking in rankings) / len(rankings)


def expected_ndcg(rankings: list[list[int]], k: int, ideal: str) -> float:
    """Expected DCG / expected ideal DCG; equals the mean unless the ideal depends on ties."""
    best = expected(lambda gains: loop_ideal(gains, k, ideal), rankings)
    return expected(lambda gains: loop_dcg(gains, k), rankings) / best if best else 0.0


def measures() -> dict[str, tuple[Callable[[TieGroups], Tensor], Callable[[Gains], float]]]:
    """{name: (the measure, its loop)} of the measures that are means over the orders of ties."""
    found: dict[str, tuple[Callable[[TieGroups], Tensor], Callable[[Gains], float]]] = {
        "wap": (weighted_average_precision, loop_wap)
    }
    for k in KS:
        found[f"acg@{k}"] = (
            functools.partial(acg_at_k, k=k),
            functools.partial(loop_acg, k=k),
        )
        found[f"ndcg@{k}"] = (
            functools.partial(ndcg_at_k, k=k, ideal="gallery"),
            functools.partial(loop_ndcg, k=k, ideal="gallery"),
        )
    return found


some_items = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 1, 2, 3])), min_size=1, max_size=6
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(items=some_items, most=st.sampled_from([3, 17]))
def test_every_measure_is_the_mean_over_all_orders_of_ties(
    items: list[tuple[int, int]], most: int
) -> None:
    far, gains = (list(column) for column in zip(*items, strict=True))
    gains = [most if gain == 3 else gain for gain in gains]
    rankings = orders(gains, far)
    distances = torch.tensor([far])
    for groups in (
        tie_groups(torch.tensor([gains]), distances / 4, most=most),
        tie_groups(torch.tensor([gains]), distances.double() / 4, most=most),
        counted_groups(torch.tensor([gains]), distances, 5, most=most),
    ):
        for name, (measure, loop) in measures().items():
            assert measure(groups).item() == pytest.approx(expected(loop, rankings)), name
        for k in KS:
            wanted = expected_ndcg(rankings, k, "list")
            assert ndcg_at_k(groups, k, "list").item() == pytest.approx(wanted), k


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(items=some_items)
def test_best_and_worst_are_the_extremes_of_all_orders(items: list[tuple[int, int]]) -> None:
    far, gains = (list(column) for column in zip(*items, strict=True))
    rankings = orders(gains, far)
    distances = torch.tensor([far])
    for order, extreme in (("best", max), ("worst", min)):
        first = extreme(rankings)
        for groups in (
            tie_groups(torch.tensor([gains]), distances / 4, most=3, order=order),
            counted_groups(torch.tensor([gains]), distances, 5, most=3, order=order),
        ):
            for name, (measure, loop) in measures().items():
                wanted = extreme(loop(ranking) for ranking in rankings)
                assert measure(groups).item() == pytest.approx(wanted), name
            for k in KS:
                # Not an extreme: a better list also has a better ideal.
                wanted = loop_ndcg(first, k, "list")
                assert ndcg_at_k(groups, k, "list").item() == pytest.approx(wanted), k


def test_a_better_list_can_have_a_worse_ndcg_of_the_list() -> None:
    """A gain of 1, then a gain of 3 or none at rank 2, the last of the list."""
    gains, distances = torch.tensor([[1, 3, 0]]), torch.tensor([[0.0, 1.0, 1.0]])
    best, worst, both = (
        ndcg_at_k(tie_groups(gains, distances, most=3, order=order), 2, "list").item()
        for order in ("best", "worst", "expected")
    )
    second = 1 / math.log2(3)
    assert best == pytest.approx((1 + 7 * second) / (7 + second))
    assert worst == 1.0
    # Expected DCG / expected ideal DCG, not the mean of the two.
    dcg, ideal = (1 + 7 * second + 1) / 2, (7 + second + 1) / 2
    assert both == pytest.approx(dcg / ideal)
    assert both != pytest.approx((best + worst) / 2, abs=0.05)


def test_without_ties_all_orders_agree() -> None:
    gains = torch.randint(0, 6, (20, 33)) * (torch.rand(20, 33) < 0.5)
    gains[3], gains[4] = 0, 5
    distances = torch.rand(20, 33).argsort(dim=1).double() / 7
    rows: list[list[int]] = gains.gather(1, distances.argsort(dim=1)).tolist()
    for order in ("expected", "best", "worst"):
        for values in (distances, distances.float()):
            groups = tie_groups(gains, values, most=5, order=order)
            for name, (measure, loop) in measures().items():
                assert measure(groups).tolist() == pytest.approx([loop(row) for row in rows]), name
            for k in (*KS, 100):
                wanted = [loop_ndcg(row, k, "list") for row in rows]
                assert ndcg_at_k(groups, k, "list").tolist() == pytest.approx(wanted), k


def test_by_hand() -> None:
    """Labels shared with five images in their order: 2, 0, 3, 1, 0; a gallery of six has a 3 more.

    1 / log2(1 + i): 1, .63093, .5, .43068, .38685.
    """
    groups = tie_groups(torch.tensor([[2, 0, 3, 1, 0, 3]]), most=3)
    assert acg_at_k(groups, 5).item() == pytest.approx(6 / 5)
    assert acg_at_k(groups, 10).item() == pytest.approx(9 / 10)
    # ACG at the relevant ranks 1, 3, 4 and 6: 2/1, 5/3, 6/4 and 9/6.
    wap = (2 + 5 / 3 + 6 / 4 + 9 / 6) / 4
    assert weighted_average_precision(groups).item() == pytest.approx(wap)
    # 3 + 7 · .5 + 1 · .43068; at best 7, 3, 1 of the list, or 7, 7, 3, 1 of the gallery.
    dcg = 6.930677
    of_list = 7 + 3 * 0.630930 + 1 * 0.5
    of_gallery = 7 + 7 * 0.630930 + 3 * 0.5 + 1 * 0.430677
    assert ndcg_at_k(groups, 5, "list").item() == pytest.approx(dcg / of_list, abs=1e-6)
    assert ndcg_at_k(groups, 5, "gallery").item() == pytest.approx(dcg / of_gallery, abs=1e-6)


def test_gains_of_0_and_1_are_plain_relevance() -> None:
    gains, distances = torch.randint(0, 2, (9, 30)), (torch.rand(9, 30) * 8).floor()
    groups = tie_groups(gains, distances)
    assert torch.allclose(weighted_average_precision(groups), average_precision(groups))
    assert torch.allclose(acg_at_k(groups, 10), precision_at_k(groups, 10))
    # A larger maximum gain that no item has changes nothing.
    roomy = tie_groups(gains, distances, most=17)
    for measure, _ in measures().values():
        assert torch.allclose(measure(roomy), measure(groups))


def test_no_common_label_counts_0_and_a_perfect_order_1() -> None:
    none = torch.zeros(2, 4, dtype=torch.int64)
    alike = torch.full((2, 4), 17)
    for distances in (torch.zeros(2, 4), torch.arange(4.0).expand(2, -1)):
        nothing = tie_groups(none, distances, most=17)
        everything = tie_groups(alike, distances, most=17)
        for measure, _ in measures().values():
            assert measure(nothing).tolist() == [0.0, 0.0]
        for k in (1, 4, 9):
            for ideal in ("gallery", "list"):
                assert ndcg_at_k(nothing, k, ideal).tolist() == [0.0, 0.0]
                assert ndcg_at_k(everything, k, ideal).tolist() == pytest.approx([1.0, 1.0])
            assert acg_at_k(everything, k).tolist() == pytest.approx([17 * min(k, 4) / k] * 2)
        assert weighted_average_precision(everything).tolist() == pytest.approx([17.0, 17.0])


def test_wrong_arguments_are_refused_and_no_queries_give_no_values() -> None:
    groups = tie_groups(torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(UsageError, match="'best': take one of gallery, list"):
        ndcg_at_k(groups, 3, "best")  # type: ignore[arg-type]
    for refused in (
        lambda: acg_at_k(groups, 0),
        lambda: ndcg_at_k(groups, 0, "gallery"),
        lambda: ndcg_at_k(groups, 0, "list"),
        lambda: ndcg_at_k(groups, -1, "list"),
    ):
        with pytest.raises(UsageError, match="k must be at least 1"):
            refused()
    for shape in ((0, 5), (2, 0), (0, 0)):
        empty = torch.zeros(shape, dtype=torch.int64)
        for none in (tie_groups(empty, most=3), counted_groups(empty, empty, 3, most=3)):
            for measure, _ in measures().values():
                assert measure(none).tolist() == [0.0] * shape[0]
            assert ndcg_at_k(none, 3, "list").tolist() == [0.0] * shape[0]
