from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.errors import UsageError
from rsir.evaluation.metrics.groups import Order, TieGroups, counted_groups, tie_groups

ORDERS: tuple[Order, ...] = ("expected", "best", "worst")

# (before, size, {gain: count}) of each group with relevant items.
Group = tuple[int, int, dict[int, int]]


def loop_groups(items: Sequence[tuple[float, int]], order: Order) -> list[Group]:
    """`items` (distance, gain), sorted in plain Python; -0 and negative distances count as 0."""
    turned = {"expected": 0, "best": -1, "worst": 1}[order]
    keyed = sorted((abs(distance), turned * gain, gain) for distance, gain in items)
    found, before = [], 0
    for _, run in itertools.groupby(keyed, key=lambda item: item[:2]):
        gains = [gain for *_, gain in run]
        levels = {gain: gains.count(gain) for gain in sorted(set(gains)) if gain}
        if levels:
            found.append((before, len(gains), levels))
        before += len(gains)
    return found


def listed(groups: TieGroups, row: int = 0) -> list[Group]:
    """The groups of one query with relevant items."""
    columns = zip(groups.before[row], groups.sizes[row], groups.levels[row], strict=True)
    return [
        (int(b), int(s), {g: int(n) for g, n in enumerate(levels.tolist(), start=1) if n})
        for b, s, levels in columns
        if levels.any()
    ]


items_of = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 17)), min_size=1, max_size=30)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    items=items_of,
    most=st.sampled_from([1, 2, 3, 17]),
    order=st.sampled_from(ORDERS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_sorting_and_counting_agree_with_a_loop(
    items: list[tuple[int, int]], most: int, order: Order, dtype: torch.dtype
) -> None:
    distances = torch.tensor([[d for d, _ in items]], dtype=dtype)
    gains = torch.tensor([[min(g, most) for _, g in items]])
    wanted = loop_groups([(d, min(g, most)) for d, g in items], order)
    by_sorting = tie_groups(gains, distances, most=most, order=order)
    by_counting = counted_groups(gains, distances, 5, most=most, order=order)
    assert listed(by_sorting) == wanted
    assert listed(by_counting) == wanted
    assert by_sorting.totals.tolist() == by_counting.totals.tolist()
    gained = sum(g * n for *_, levels in wanted for g, n in levels.items())
    for groups in (by_sorting, by_counting):
        assert groups.total.item() == sum(sum(levels.values()) for *_, levels in wanted)
        assert groups.gain.sum() == gained
        assert torch.equal(groups.gained, groups.gain.cumsum(1) - groups.gain)
        assert torch.equal(groups.found, groups.relevant.cumsum(1) - groups.relevant)


# From 2 on a float32 has the bit that becomes the sign bit.
TRICKY = (0.0, -0.0, -1e-9, 1e-45, 1e-38, 0.5, 1.0, 1.9999999, 2.0, 2.0000002, 3.5, 4.0, 1e30)


@settings(max_examples=100, deadline=None)
@given(
    items=st.lists(st.tuples(st.sampled_from(TRICKY), st.integers(0, 3)), min_size=1, max_size=20),
    most=st.sampled_from([1, 3]),
    order=st.sampled_from(ORDERS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    own=st.booleans(),
)
def test_float_keys_sort_like_floats(
    items: list[tuple[float, int]], most: int, order: Order, dtype: torch.dtype, own: bool
) -> None:
    items = [(torch.tensor(d, dtype=dtype).item(), min(g, most)) for d, g in items]
    wanted = loop_groups(items, order)
    if own:  # the query itself, in any row
        items.insert(len(items) // 2, (float("inf"), 0))
    distances = torch.tensor([[d for d, _ in items]], dtype=dtype)
    gains = torch.tensor([[g for _, g in items]])
    copies = distances.clone(), gains.clone()
    assert listed(tie_groups(gains, distances, most=most, order=order)) == wanted
    assert torch.equal(distances, copies[0])
    assert torch.equal(gains, copies[1])
    again = tie_groups(gains, distances, most=most, order=order, overwrite=True)
    assert listed(again) == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("most", [1, 2, 17])
def test_neighbouring_floats_are_different_groups(dtype: torch.dtype, most: int) -> None:
    for value in (1e-30, 0.3, 1.0, 2.0, 1.0e10):
        low = torch.tensor(value, dtype=dtype)
        high = torch.nextafter(low, torch.tensor(torch.inf, dtype=dtype))
        distances = torch.stack([high, low, high])[None]
        gains = torch.tensor([[1, most, 0]])
        wanted = [(0, 1, {most: 1}), (1, 2, {1: 1})]
        assert listed(tie_groups(gains, distances, most=most)) == wanted


@pytest.mark.parametrize("order", ORDERS)
def test_queries_with_different_ties_are_independent(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = torch.randint(0, 4, (70, 50)) * (torch.rand(70, 50) < 0.4)
    gains[5] = 0
    distances = torch.rand(70, 50)
    distances[::2] = (distances[::2] * 6).floor()
    distances[7] = 0.25
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        found = tie_groups(gains, distances, most=3, order=order)
        for row in range(70):
            items = list(zip(distances[row].tolist(), gains[row].tolist(), strict=True))
            assert listed(found, row) == loop_groups(items, order), row


def test_rows_in_any_memory_layout_are_sorted() -> None:
    gains, distances = torch.randint(0, 2, (9, 20)), (torch.rand(9, 20) * 5).floor()
    wanted = tie_groups(gains, distances)
    turned = tie_groups(gains.T.contiguous().T, distances.T.contiguous().T)
    one = tie_groups(gains[:1].expand(3, -1), distances[:1].expand(3, -1))
    assert torch.equal(turned.before, wanted.before)
    assert torch.equal(turned.levels, wanted.levels)
    assert listed(one, 2) == listed(wanted, 0)


def test_without_distances_the_items_are_in_ranked_order() -> None:
    gains = torch.tensor([[0, 2, 0, 1], [0, 0, 0, 0]])
    groups = tie_groups(gains, most=2)
    assert listed(groups) == [(1, 1, {2: 1}), (3, 1, {1: 1})]
    assert listed(groups, 1) == []
    assert groups.found[0].tolist() == [0, 1]
    assert groups.gained[0].tolist() == [0, 2]
    assert groups.totals.tolist() == [[1, 1], [0, 0]]


def test_bool_is_a_gain_of_1() -> None:
    relevant, distances = torch.rand(5, 12) < 0.5, (torch.rand(5, 12) * 3).floor()
    for order in ORDERS:
        for make in (
            lambda gains, order=order: tie_groups(gains, distances, order=order),
            lambda gains, order=order: counted_groups(gains, distances, 3, order=order),
        ):
            assert torch.equal(make(relevant).levels, make(relevant.int()).levels)


def test_head_has_the_first_k_and_within_counts_their_ranks() -> None:
    distances = torch.tensor([[0, 0, 1, 1, 1, 2]])
    groups = counted_groups(torch.ones(1, 6), distances, 3)
    assert [groups.head(k).sizes.shape[1] for k in (1, 2, 3, 5, 6, 99)] == [1, 1, 2, 2, 3, 3]
    assert groups.head(1).total.item() == 6
    assert [groups.within(k)[0].tolist() for k in (1, 3, 99)] == [[1, 0, 0], [2, 1, 0], [2, 3, 1]]
    assert torch.equal(groups.within(None), groups.sizes)
    with pytest.raises(UsageError, match="k must be at least 1, not 0"):
        groups.within(0)


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_no_queries_or_no_items_give_no_groups(order: Order, most: int) -> None:
    for shape in ((0, 5), (2, 0), (0, 0)):
        gains = torch.zeros(shape, dtype=torch.int64)
        by_sorting = tie_groups(gains, torch.zeros(shape), most=most, order=order)
        by_counting = counted_groups(gains, torch.zeros(shape), 4, most=most, order=order)
        for groups in (by_sorting, by_counting):
            assert groups.total.tolist() == [0.0] * shape[0]
            assert groups.totals.shape == (shape[0], most)
            assert not groups.sizes.any()


def test_an_unknown_order_is_refused() -> None:
    for make in (
        lambda: tie_groups(torch.ones(1, 2), order="lucky"),  # type: ignore[arg-type]
        lambda: counted_groups(torch.ones(1, 2), torch.ones(1, 2), 2, order="lucky"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match="'lucky': take one of expected, best, worst"):
            make()


def test_the_bits_of_the_largest_gain_fit() -> None:
    """Every gain of 17 labels, alone and tied, in keys of every width."""
    for dtype in (torch.float32, torch.float64):
        gains = torch.arange(18).repeat(2)[None]
        distances = torch.arange(36, dtype=dtype).flip(0)[None] / 8
        wanted = loop_groups(
            list(zip(distances[0].tolist(), gains[0].tolist(), strict=True)), "best"
        )
        assert listed(tie_groups(gains, distances, most=17, order="best")) == wanted
