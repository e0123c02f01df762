from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.evaluation.metrics.binary import average_precision, precision_at_k
from rsir.evaluation.metrics.curves import RankCurve, interpolated_precision, within_radius
from rsir.evaluation.metrics.groups import TieGroups, counted_groups, tie_groups

CPU = torch.device("cpu")


def orders(hits: Sequence[bool], distances: Sequence[int]) -> list[list[bool]]:
    """The relevance in every order that sorts the distances, all equally likely."""
    runs = [
        [hits[i] for i in range(len(hits)) if distances[i] == distance]
        for distance in sorted(set(distances))
    ]
    different = [sorted(set(itertools.permutations(run))) for run in runs]
    return [list(itertools.chain(*parts)) for parts in itertools.product(*different)]


def loop_interpolated(found: Sequence[float]) -> list[float]:
    """Interpolated precision from the (expected) number of relevant items found at each rank."""
    total = found[-1]
    if not total:
        return [0.0] * 11
    return [
        max(
            count / rank
            for rank, count in enumerate(found, start=1)
            if 10 * count >= level * total - 1e-9
        )
        for level in range(11)
    ]


def loop_ap(hits: Sequence[bool]) -> float:
    found = [sum(hits[:rank]) / rank for rank, hit in enumerate(hits, start=1) if hit]
    return sum(found) / len(found) if found else 0.0


def curve_of(groups: TieGroups, count: int) -> tuple[list[float], list[float]]:
    curve = RankCurve(count, CPU)
    curve.add(groups)
    return curve.precision().tolist(), curve.recall().tolist()


some_items = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(items=some_items)
def test_curves_are_the_mean_over_all_orders_of_ties(items: list[tuple[int, bool]]) -> None:
    far, hits = (list(column) for column in zip(*items, strict=True))
    rankings = np.array(orders(hits, far))
    found = rankings.mean(axis=0).cumsum()
    precision = found / np.arange(1, len(hits) + 1)
    recall = found / max(sum(hits), 1)
    relevant, distances = torch.tensor([hits]), torch.tensor([far])
    for groups in (tie_groups(relevant, distances / 4), counted_groups(relevant, distances, 5)):
        by_rank = curve_of(groups, len(hits))
        assert by_rank[0] == pytest.approx(precision)
        assert by_rank[1] == pytest.approx(recall)
        interpolated = interpolated_precision(groups)
        assert interpolated[0].tolist() == pytest.approx(loop_interpolated(found.tolist()))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(items=some_items)
def test_curves_of_best_and_worst_are_those_of_the_extreme_orders(
    items: list[tuple[int, bool]],
) -> None:
    far, hits = (list(column) for column in zip(*items, strict=True))
    relevant, distances = torch.tensor([hits]), torch.tensor([far])
    for order, extreme in (("best", max), ("worst", min)):
        found = np.cumsum(extreme(orders(hits, far)))
        for groups in (
            tie_groups(relevant, distances / 4, order=order),
            counted_groups(relevant, distances, 5, order=order),
        ):
            precision, recall = curve_of(groups, len(hits))
            assert precision == pytest.approx(found / np.arange(1, len(hits) + 1))
            assert recall == pytest.approx(found / max(sum(hits), 1))
            every = [loop_interpolated(np.cumsum(r).tolist()) for r in orders(hits, far)]
            wanted = [extreme(values) for values in zip(*every, strict=True)]
            assert interpolated_precision(groups)[0].tolist() == pytest.approx(wanted)


@settings(max_examples=60, deadline=None)
@given(items=some_items)
def test_within_each_radius_is_the_mean_over_all_orders(items: list[tuple[int, bool]]) -> None:
    far, hits = (list(column) for column in zip(*items, strict=True))
    within = within_radius(counted_groups(torch.tensor([hits]), torch.tensor([far]), 5))
    for radius in range(5):
        inside = [(d, hit) for d, hit in zip(far, hits, strict=True) if d <= radius]
        found = sum(hit for _, hit in inside)
        rankings = orders([hit for _, hit in inside], [d for d, _ in inside])
        ap = sum(loop_ap(ranking) for ranking in rankings) / len(rankings)
        wanted = (found / max(len(inside), 1), found / max(sum(hits), 1), ap)
        values = (within.precision, within.recall, within.ap)
        assert [v[0, radius].item() for v in values] == pytest.approx(wanted), radius


def test_an_empty_ball_counts_0_and_the_largest_contains_all() -> None:
    relevant, distances = torch.tensor([[1, 0, 1]]), torch.tensor([[2, 2, 4]])
    groups = counted_groups(relevant, distances, 6)
    within = within_radius(groups)
    assert within.precision[0].tolist() == pytest.approx([0, 0, 1 / 2, 1 / 2, 2 / 3, 2 / 3])
    assert within.recall[0].tolist() == pytest.approx([0, 0, 1 / 2, 1 / 2, 1, 1])
    # Of two items at distance 2 the relevant one is first or second.
    first = (1 + 1 / 2) / 2
    assert within.ap[0, :4].tolist() == pytest.approx([0, 0, first, first])
    assert within.ap[0, 5].item() == pytest.approx(average_precision(groups).item())


def test_the_curve_does_not_depend_on_the_blocks() -> None:
    relevant = torch.rand(30, 40) < torch.rand(30, 1) * 0.5
    relevant[4] = False
    distances = (torch.rand(30, 40) * 9).floor()
    groups = tie_groups(relevant, distances)
    once = RankCurve(40, CPU)
    once.add(groups)
    parts = RankCurve(40, CPU)
    for start in range(0, 30, 7):
        rows = slice(start, start + 7)
        parts.add(tie_groups(relevant[rows], distances[rows]))
    assert (once.queries, parts.queries) == (30, 30)
    wanted = torch.stack([precision_at_k(groups, k).mean() for k in range(1, 41)])
    share = torch.stack(
        [(k * precision_at_k(groups, k) / groups.total.clamp(min=1)).mean() for k in range(1, 41)]
    )
    for curve in (once, parts):
        assert curve.precision().shape == (40,)
        assert torch.allclose(curve.precision(), wanted)
        assert torch.allclose(curve.recall(), share)
    # Queries without relevant items have recall 0.
    something = (groups.total > 0).double().mean().item()
    assert once.recall()[-1].item() == pytest.approx(something)
    assert something < 1


def test_interpolated_precision_without_ties_by_hand() -> None:
    """The rule of Manning et al., 8.4: relevant at 1, 3, 6 and 10 of 12."""
    hits = [rank in (1, 3, 6, 10) for rank in range(1, 13)]
    found = interpolated_precision(tie_groups(torch.tensor([hits])))[0]
    # Recall .25 at 1, .5 at 3, .75 at 6, 1 at 10.
    assert found.tolist() == pytest.approx([1, 1, 1, *[2 / 3] * 3, 1 / 2, 1 / 2, *[0.4] * 3])


def test_with_ten_relevant_items_each_level_is_reached_at_one() -> None:
    """0.3 · 10 is slightly more than 3 in binary; the level must still be reached."""
    for total in (10, 20, 30, 70, 100):
        hits = np.zeros(5 * total, bool)
        hits[np.random.default_rng(total).choice(len(hits), total, replace=False)] = True
        found = np.cumsum(hits).tolist()
        value = interpolated_precision(tie_groups(torch.from_numpy(hits)[None]))[0]
        assert value.tolist() == pytest.approx(loop_interpolated(found))


@pytest.mark.slow
def test_large_ties_follow_the_expected_curve() -> None:
    relevant, distances = torch.rand(20, 300) < 0.2, (torch.rand(20, 300) * 6).floor()
    relevant[3], relevant[4] = False, True
    for groups in (tie_groups(relevant, distances), counted_groups(relevant, distances, 7)):
        found = interpolated_precision(groups)
        for row in range(20):
            counts = [k * precision_at_k(groups, k)[row].item() for k in range(1, 301)]
            wanted = loop_interpolated([round(count, 9) for count in counts])
            assert found[row].tolist() == pytest.approx(wanted, abs=1e-6), row


def test_no_queries_or_no_items() -> None:
    for shape in ((0, 5), (2, 0), (0, 0)):
        empty = torch.zeros(shape, dtype=torch.int64)
        for groups in (tie_groups(empty), counted_groups(empty, empty, 3)):
            assert interpolated_precision(groups).tolist() == [[0.0] * 11] * shape[0]
            precision, recall = curve_of(groups, shape[1])
            assert precision == recall == [0.0] * shape[1]
        within = within_radius(counted_groups(empty, empty, 3))
        for values in (within.precision, within.recall, within.ap):
            assert values.tolist() == [[0.0] * 3] * shape[0]
