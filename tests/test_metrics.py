from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.errors import UsageError
from rsir.metrics import (
    TieGroups,
    average_precision,
    counted_groups,
    found_average_precision_at_k,
    hit_at_k,
    nmrr,
    precision_at_k,
    tie_groups,
)

Hits = Sequence[bool]


def loop_ap(hits: Hits) -> float:
    found, summed = 0, 0.0
    for rank, is_relevant in enumerate(hits, start=1):
        if is_relevant:
            found += 1
            summed += found / rank
    return summed / found if found else 0.0


def loop_nmrr(hits: Hits, largest: int) -> float:
    total = sum(hits)
    if not total:
        return 1.0
    limit = min(4 * total, 2 * largest)
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    average = sum(rank if rank <= limit else 1.25 * limit for rank in ranks) / total
    best = 0.5 * (1 + total)
    return (average - best) / (1.25 * limit - best)


def orders(hits: Hits, distances: Sequence[int]) -> list[list[bool]]:
    """The relevance of every order that sorts the distances."""
    places = itertools.permutations(range(len(hits)))
    return [
        [hits[i] for i in order]
        for order in places
        if [distances[i] for i in order] == sorted(distances)
    ]


def expected(of: Callable[[Hits], float], rankings: list[list[bool]]) -> float:
    return sum(of(ranking) for ranking in rankings) / len(rankings)


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7),
    more=st.integers(0, 3),
    data=st.data(),
)
def test_every_measure_is_the_mean_over_all_orders_of_ties(
    items: list[tuple[int, bool]], more: int, data: st.DataObject
) -> None:
    distances, hits = (list(column) for column in zip(*sorted(items), strict=True))
    rankings = orders(hits, distances)
    largest = sum(hits) + more
    shuffled = data.draw(st.permutations(items))
    by_sorting = tie_groups(torch.tensor([hits]), torch.tensor([distances]) / 4)
    by_counting = counted_groups(
        torch.tensor([[hit for _, hit in shuffled]]),
        torch.tensor([[distance for distance, _ in shuffled]]).float(),
        5,
    )
    for groups in (by_sorting, by_counting):
        assert average_precision(groups).item() == pytest.approx(expected(loop_ap, rankings))
        assert nmrr(groups, largest).item() == pytest.approx(
            expected(lambda hits: loop_nmrr(hits, largest), rankings)
        )
        for k in (1, 2, 3, 5, 9):
            measured = (precision_at_k, hit_at_k, found_average_precision_at_k)
            loops: tuple[Callable[[Hits], float], ...] = (
                lambda hits, k=k: sum(hits[:k]) / k,
                lambda hits, k=k: any(hits[:k]),
                lambda hits, k=k: loop_ap(hits[:k]),
            )
            for measure, loop in zip(measured, loops, strict=True):
                wanted = expected(loop, rankings)
                assert measure(groups, k).item() == pytest.approx(wanted), (measure, k)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (20, 33)])
def test_without_ties_they_are_the_plain_measures(shape: tuple[int, int]) -> None:
    relevant = torch.rand(*shape) < 0.3
    rows: list[list[bool]] = relevant.tolist()
    distances = torch.arange(shape[1]).expand(shape) / 10
    for groups in (tie_groups(relevant), tie_groups(relevant, distances)):
        assert average_precision(groups).tolist() == pytest.approx([loop_ap(r) for r in rows])
        assert nmrr(groups, 40).tolist() == pytest.approx([loop_nmrr(r, 40) for r in rows])
        for k in (1, 4, 100):
            assert precision_at_k(groups, k).tolist() == [sum(r[:k]) / k for r in rows]
            assert hit_at_k(groups, k).tolist() == [float(any(r[:k])) for r in rows]
            found = found_average_precision_at_k(groups, k)
            assert found.tolist() == pytest.approx([loop_ap(r[:k]) for r in rows])


def test_average_precision_by_hand() -> None:
    relevant = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]).bool()
    # (1/1 + 2/3) / 2; nothing relevant; 1/5
    assert average_precision(tie_groups(relevant)).tolist() == pytest.approx([5 / 6, 0.0, 0.2])


def test_nmrr_by_hand() -> None:
    """NG = 7, the largest 7: K = 14, and a rank beyond counts 17.5 (software has 15)."""
    relevant = torch.zeros(2, 40, dtype=torch.bool)
    relevant[0, :7] = True
    relevant[1, [0, 1, 2, 3, 13, 14, 30]] = True
    average = (1 + 2 + 3 + 4 + 14 + 2 * 17.5) / 7
    wanted = [0.0, (average - 4) / (17.5 - 4)]
    assert nmrr(tie_groups(relevant), 7).tolist() == pytest.approx(wanted)
    # All beyond K is the worst there is; nothing relevant counts the same.
    relevant[:] = False
    relevant[0, -7:] = True
    assert nmrr(tie_groups(relevant), 7).tolist() == [1.0, 1.0]


def test_the_toy_data_of_dpsh() -> None:
    """jiangqy/DPSH-pytorch, CalcHammingRanking.py: its CalcTopMap(5) is 0.59444, ties by place."""
    queries = np.array([[1, -1, 1, 1], [-1, 1, -1, -1], [1, -1, -1, -1]])
    gallery = np.array([[1, -1, -1, -1], [-1, 1, 1, -1], [1, 1, 1, -1], [-1, -1, 1, 1]])
    gallery = np.concatenate([gallery, [[1, 1, -1, -1], [1, 1, 1, -1], [-1, 1, -1, -1]]])
    labels = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    relevant = torch.from_numpy(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) @ labels.T > 0)
    distances = torch.from_numpy((4 - queries @ gallery.T) // 2)
    by_place = relevant.gather(1, distances.argsort(dim=1, stable=True))
    found = found_average_precision_at_k(tie_groups(by_place), 5)
    assert found.mean().item() == pytest.approx(0.59444, abs=5e-6)
    averaged = found_average_precision_at_k(counted_groups(relevant, distances, 5), 5)
    wanted = [
        expected(lambda hits: loop_ap(hits[:5]), orders(hits, far))
        for hits, far in zip(relevant.tolist(), distances.tolist(), strict=True)
    ]
    assert averaged.tolist() == pytest.approx(wanted)


def test_all_at_one_distance_is_the_chance() -> None:
    """Hypergeometric by counting: 3 of 10 relevant, 4 drawn."""
    groups = TieGroups.of(torch.tensor([[0, 10, 0]]), torch.tensor([[0, 3, 0]]))
    draws = list(itertools.combinations(range(10), 4))
    hit = sum(any(place < 3 for place in draw) for draw in draws) / len(draws)
    assert hit_at_k(groups, 4).item() == pytest.approx(hit)
    assert precision_at_k(groups, 4).item() == pytest.approx(0.3)
    assert precision_at_k(groups, 20).item() == pytest.approx(3 / 20)


def test_what_cannot_be_is_refused_and_no_queries_are_none() -> None:
    groups = tie_groups(torch.ones(1, 3, dtype=torch.bool))
    for measure in (precision_at_k, hit_at_k, found_average_precision_at_k):
        with pytest.raises(UsageError):
            measure(groups, 0)
    for shape in ((0, 5), (2, 0), (0, 0)):
        none = tie_groups(torch.zeros(shape, dtype=torch.bool))
        assert average_precision(none).tolist() == [0.0] * shape[0]
        assert nmrr(none, 0).tolist() == [1.0] * shape[0]
        assert hit_at_k(none, 3).tolist() == [0.0] * shape[0]
        assert found_average_precision_at_k(none, 3).tolist() == [0.0] * shape[0]


def test_a_long_ranking_keeps_its_precision() -> None:
    relevant = torch.ones(1, 200_000, dtype=torch.bool)
    assert average_precision(tie_groups(relevant)).item() == pytest.approx(1.0, abs=1e-12)
    random = torch.from_numpy(np.random.default_rng(0).random((1, 50_000)) < 0.01)
    plain = loop_ap(random[0].tolist())
    assert average_precision(tie_groups(random)).item() == pytest.approx(plain, abs=1e-12)
    # In pairs: McSherry & Najork's sum, term by term.
    groups = tie_groups(random, torch.arange(50_000)[None] // 2)
    summed = 0.0
    for size, r, t, found in zip(
        *(v[0].tolist() for v in (groups.sizes, groups.relevant, groups.before, groups.found)),
        strict=True,
    ):
        summed += sum(
            r / size * (found + 1 + (i - 1) * (r - 1) / (size - 1)) / (t + i) for i in (1, 2)
        )
    wanted = summed / int(random.sum())
    assert average_precision(groups).item() == pytest.approx(wanted, abs=1e-9)
