from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rsir.errors import UsageError
from rsir.evaluation.metrics.binary import (
    Denominator,
    Penalty,
    average_precision,
    average_precision_at_k,
    hit_at_k,
    nmrr,
    precision_at_k,
)
from rsir.evaluation.metrics.groups import TieGroups, counted_groups, tie_groups

Hits = Sequence[bool]
DENOMINATORS: tuple[Denominator, ...] = ("found", "min", "all")
PENALTIES: tuple[Penalty, ...] = ("1.25K", "K+1")


def loop_precisions(hits: Hits) -> list[float]:
    """P(i) at every relevant rank i."""
    return [sum(hits[:rank]) / rank for rank, hit in enumerate(hits, start=1) if hit]


def loop_ap(hits: Hits) -> float:
    precisions = loop_precisions(hits)
    return sum(precisions) / len(precisions) if precisions else 0.0


def loop_ap_at_k(hits: Hits, k: int, denominator: Denominator) -> float:
    precisions = loop_precisions(hits[:k])
    by = {"found": len(precisions), "min": min(sum(hits), k), "all": sum(hits)}[denominator]
    return sum(precisions) / by if by else 0.0


def loop_nmrr(hits: Hits, largest: int, penalty: Penalty = "1.25K") -> float:
    total = sum(hits)
    if not total:
        return 1.0
    limit = min(4 * total, 2 * largest)
    beyond = 1.25 * limit if penalty == "1.25K" else limit + 1
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    average = sum(rank if rank <= limit else beyond for rank in ranks) / total
    best = 0.5 * (1 + total)
    return (average - best) / (beyond - best)


def orders(hits: Hits, distances: Sequence[int]) -> list[list[bool]]:
    """The relevance in every order that sorts the distances, all equally likely."""
    runs = [
        [hits[i] for i in range(len(hits)) if distances[i] == distance]
        for distance in sorted(set(distances))
    ]
    different = [sorted(set(itertools.permutations(run))) for run in runs]
    return [list(itertools.chain(*parts)) for parts in itertools.product(*different)]


def expected(of: Callable[[Hits], float], rankings: list[list[bool]]) -> float:
    return sum(of(ranking) for ranking in rankings) / len(rankings)


Measure = Callable[[TieGroups], Tensor]
Loop = Callable[[Hits], float]


def measures(largest: int) -> dict[str, tuple[Measure, Loop]]:
    """{name: (the measure, its loop)}."""
    found: dict[str, tuple[Measure, Loop]] = {"map": (average_precision, loop_ap)}
    for penalty in PENALTIES:
        found[f"nmrr {penalty}"] = (
            functools.partial(nmrr, largest=largest, penalty=penalty),
            functools.partial(loop_nmrr, largest=largest, penalty=penalty),
        )
    for k in (1, 2, 3, 5, 9):
        found[f"p@{k}"] = (
            functools.partial(precision_at_k, k=k),
            lambda hits, k=k: sum(hits[:k]) / k,
        )
        found[f"hit@{k}"] = (
            functools.partial(hit_at_k, k=k),
            lambda hits, k=k: float(any(hits[:k])),
        )
        for denominator in DENOMINATORS:
            found[f"ap@{k} {denominator}"] = (
                functools.partial(average_precision_at_k, k=k, denominator=denominator),
                functools.partial(loop_ap_at_k, k=k, denominator=denominator),
            )
    return found


some_items = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(items=some_items, more=st.integers(0, 3))
def test_every_measure_is_the_mean_over_all_orders_of_ties(
    items: list[tuple[int, bool]], more: int
) -> None:
    far, hits = (list(column) for column in zip(*items, strict=True))
    rankings = orders(hits, far)
    relevant, distances = torch.tensor([hits]), torch.tensor([far])
    by_sorting = tie_groups(relevant, distances / 4)
    by_counting = counted_groups(relevant, distances, 5)
    for name, (measure, loop) in measures(sum(hits) + more).items():
        wanted = expected(loop, rankings)
        assert measure(by_sorting).item() == pytest.approx(wanted), name
        assert measure(by_counting).item() == pytest.approx(wanted), name


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(items=some_items, more=st.integers(0, 3))
def test_best_and_worst_are_the_extremes_of_all_orders(
    items: list[tuple[int, bool]], more: int
) -> None:
    far, hits = (list(column) for column in zip(*items, strict=True))
    rankings = orders(hits, far)
    relevant, distances = torch.tensor([hits]), torch.tensor([far])
    for order, extreme in (("best", max), ("worst", min)):
        # Relevant items as early as possible, or as late as possible.
        first = extreme(rankings)
        by_sorting = tie_groups(relevant, distances / 4, order=order)
        by_counting = counted_groups(relevant, distances, 5, order=order)
        for name, (measure, loop) in measures(sum(hits) + more).items():
            wanted = loop(first)
            assert measure(by_sorting).item() == pytest.approx(wanted), name
            assert measure(by_counting).item() == pytest.approx(wanted), name
            if name.startswith("nmrr"):  # smaller is better
                assert wanted == pytest.approx(-extreme(-loop(hits) for hits in rankings)), name
            elif not name.endswith("found"):
                assert wanted == pytest.approx(extreme(loop(hits) for hits in rankings)), name


def test_ap_found_can_fall_by_finding_more() -> None:
    """AP@k "found" is not always highest with relevant items first.

    One relevant, one not, then one of each tied at rank k.
    """
    relevant, distances = torch.tensor([[1, 0, 1, 0]]), torch.tensor([[0, 1, 2, 2]])
    best, worst = (
        average_precision_at_k(tie_groups(relevant, distances, order=order), 3, "found").item()
        for order in ("best", "worst")
    )
    assert best == pytest.approx((1 + 2 / 3) / 2)
    assert worst == 1.0
    both = average_precision_at_k(tie_groups(relevant, distances), 3, "found").item()
    assert both == pytest.approx((best + worst) / 2)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (20, 33)])
def test_without_ties_all_orders_agree(shape: tuple[int, int]) -> None:
    relevant = torch.rand(*shape) < 0.3
    rows: list[list[bool]] = relevant.tolist()
    distances = torch.arange(shape[1]).expand(shape) / 10
    order = torch.randperm(shape[1])
    for groups in (
        tie_groups(relevant),
        tie_groups(relevant[:, order], distances[:, order]),
        tie_groups(relevant, distances, order="best"),
        tie_groups(relevant, distances, order="worst"),
    ):
        for name, (measure, loop) in measures(40).items():
            wanted = [loop(row) for row in rows]
            assert measure(groups).tolist() == pytest.approx(wanted, abs=1e-12), name


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_or_only_relevant_items(share: float) -> None:
    relevant = torch.full((1, 6), share).bool()
    for distances in (torch.zeros(1, 6), torch.arange(6.0)[None], torch.tensor([[2.0] * 5 + [3]])):
        for name, (measure, _) in measures(6).items():
            value = measure(tie_groups(relevant, distances)).item()
            if name == "p@9":
                assert value == pytest.approx(share * 6 / 9)
            elif name.startswith("nmrr"):
                assert value == pytest.approx(1 - share), name
            elif name.endswith("all"):
                assert value == pytest.approx(share * min(1, int(name[3]) / 6)), name
            else:
                assert value == pytest.approx(share), name


def test_average_precision_by_hand() -> None:
    relevant = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]).bool()
    # (1/1 + 2/3) / 2; no relevant item; 1/5
    assert average_precision(tie_groups(relevant)).tolist() == pytest.approx([5 / 6, 0.0, 0.2])


def test_average_precision_at_k_by_hand() -> None:
    """Relevant at 1, 3 and 6 of 8: of the first five 1/1 + 2/3, by 2, by 3 and by 3."""
    relevant = torch.tensor([[1, 0, 1, 0, 0, 1, 0, 0]]).bool()
    groups = tie_groups(relevant)
    summed = 1 + 2 / 3
    wanted = {"found": summed / 2, "min": summed / 3, "all": summed / 3}
    for denominator in DENOMINATORS:
        value = average_precision_at_k(groups, 5, denominator).item()
        assert value == pytest.approx(wanted[denominator]), denominator
    # Of the first two 1/1, by 1, by 2 and by 3.
    two = [average_precision_at_k(groups, 2, denominator).item() for denominator in DENOMINATORS]
    assert two == pytest.approx([1, 1 / 2, 1 / 3])


def test_nmrr_by_hand() -> None:
    """NG = 7, the largest 7: K = 14, and a rank beyond counts 17.5, or 15 in older software."""
    relevant = torch.zeros(2, 40, dtype=torch.bool)
    relevant[0, :7] = True
    relevant[1, [0, 1, 2, 3, 13, 14, 30]] = True
    groups = tie_groups(relevant)
    # 1 + 2 + 3 + 4 + 14 = 24, and two ranks beyond.
    book, older = (24 + 2 * 17.5) / 7, (24 + 2 * 15) / 7
    assert nmrr(groups, 7).tolist() == pytest.approx([0.0, (book - 4) / (17.5 - 4)])
    assert nmrr(groups, 7, "K+1").tolist() == pytest.approx([0.0, (older - 4) / (15 - 4)])
    assert nmrr(groups, 7)[1].item() == pytest.approx(0.328042, abs=1e-6)
    assert nmrr(groups, 7, "K+1")[1].item() == pytest.approx(0.337662, abs=1e-6)
    # A set with a larger class: K = 20, so that rank 15 has no penalty.
    wider = (24 + 15 + 25) / 7
    assert nmrr(groups, 10)[1].item() == pytest.approx((wider - 4) / (25 - 4))
    # All ranks beyond K give the worst value, as does no relevant item.
    relevant[:] = False
    relevant[0, -7:] = True
    for penalty in PENALTIES:
        assert nmrr(tie_groups(relevant), 7, penalty).tolist() == [1.0, 1.0]


def test_toy_data_of_dpsh() -> None:
    """jiangqy/DPSH-pytorch, CalcHammingRanking.py: CalcTopMap(5) is 0.59444, ties by position."""
    queries = np.array([[1, -1, 1, 1], [-1, 1, -1, -1], [1, -1, -1, -1]])
    gallery = np.array([[1, -1, -1, -1], [-1, 1, 1, -1], [1, 1, 1, -1], [-1, -1, 1, 1]])
    gallery = np.concatenate([gallery, [[1, 1, -1, -1], [1, 1, 1, -1], [-1, 1, -1, -1]]])
    labels = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    relevant = torch.from_numpy(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) @ labels.T > 0)
    distances = torch.from_numpy((4 - queries @ gallery.T) // 2)
    by_position = relevant.gather(1, distances.argsort(dim=1, stable=True))
    found = average_precision_at_k(tie_groups(by_position), 5, "found")
    assert found.mean().item() == pytest.approx(0.59444, abs=5e-6)
    for order in ("expected", "best", "worst"):
        of_ties = average_precision_at_k(
            counted_groups(relevant, distances, 5, order=order), 5, "found"
        )
        rankings = [
            orders(hits, far)
            for hits, far in zip(relevant.tolist(), distances.tolist(), strict=True)
        ]
        loop = functools.partial(loop_ap_at_k, k=5, denominator="found")
        wanted = {
            "expected": [expected(loop, every) for every in rankings],
            "best": [loop(max(every)) for every in rankings],
            "worst": [loop(min(every)) for every in rankings],
        }[order]
        assert of_ties.tolist() == pytest.approx(wanted)


def test_one_group_of_ties_gives_the_expected_value() -> None:
    """Hypergeometric by counting: 3 of 10 relevant, 4 drawn."""
    groups = TieGroups.of(torch.tensor([[0, 10, 0]]), torch.tensor([[[0], [3], [0]]]))
    draws = list(itertools.combinations(range(10), 4))
    hit = sum(any(rank < 3 for rank in draw) for draw in draws) / len(draws)
    assert hit_at_k(groups, 4).item() == pytest.approx(hit)
    assert precision_at_k(groups, 4).item() == pytest.approx(0.3)
    assert precision_at_k(groups, 20).item() == pytest.approx(3 / 20)


def test_a_large_group_has_accurate_probabilities() -> None:
    """No overflow of binomial coefficients: 100 of 20,000 drawn, 40 relevant."""
    gains = torch.zeros(1, 20_000, dtype=torch.int64)
    gains[0, :40] = 1
    groups = tie_groups(gains, torch.zeros(1, 20_000))
    none = np.prod([(19_960 - i) / (20_000 - i) for i in range(100)])
    assert hit_at_k(groups, 100).item() == pytest.approx(1 - none, rel=1e-9)


def test_wrong_arguments_are_refused_and_no_queries_give_no_values() -> None:
    groups = tie_groups(torch.ones(1, 3, dtype=torch.bool))
    for name, (measure, _) in measures(3).items():
        if "@" in name:
            with pytest.raises(UsageError, match="k must be at least 1, not 0"):
                measure(groups, k=0)
    with pytest.raises(UsageError, match="'r': take one of found, min, all"):
        average_precision_at_k(groups, 3, "r")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"'2K': take one of 1\.25K, K\+1"):
        nmrr(groups, 3, "2K")  # type: ignore[arg-type]
    for shape in ((0, 5), (2, 0), (0, 0)):
        none = torch.zeros(shape, dtype=torch.bool)
        for groups in (tie_groups(none), tie_groups(none, torch.zeros(shape))):
            for name, (measure, _) in measures(0).items():
                value = 1.0 if name.startswith("nmrr") else 0.0
                assert measure(groups).tolist() == [value] * shape[0], name


def test_a_long_ranking_is_accurate() -> None:
    relevant = torch.ones(1, 200_000, dtype=torch.bool)
    assert average_precision(tie_groups(relevant)).item() == pytest.approx(1.0, abs=1e-12)
    random = torch.from_numpy(np.random.default_rng(0).random((1, 50_000)) < 0.01)
    found = random[0].cumsum(0) / torch.arange(1, 50_001, dtype=torch.float64)
    plain = found[random[0]].mean().item()
    assert average_precision(tie_groups(random)).item() == pytest.approx(plain, abs=1e-12)
    # In pairs: McSherry & Najork's sum, term by term.
    groups = tie_groups(random, torch.arange(50_000)[None] // 2)
    summed = 0.0
    for size, r, t, found_before in zip(
        *(v[0].tolist() for v in (groups.sizes, groups.relevant, groups.before, groups.found)),
        strict=True,
    ):
        summed += sum(
            r / size * (found_before + 1 + (i - 1) * (r - 1) / (size - 1)) / (t + i) for i in (1, 2)
        )
    wanted = summed / int(random.sum())
    assert average_precision(groups).item() == pytest.approx(wanted, abs=1e-9)
