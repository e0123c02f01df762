"""Rankings as groups of items at equal distance: what every measure is computed from.

Items at the same distance stand in no order. A measure is therefore its expected value over all
orders of such items, each as likely, in closed form (McSherry & Najork, "Computing information
retrieval performance measures efficiently in the presence of tied scores", ECIR 2008); on request
its value for the best or the worst of these orders.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsir.errors import UsageError

Order = Literal["expected", "best", "worst"]
"""Of items at equal distance: none, the most relevant first, or the least relevant first.

These are the highest and the lowest that a measure can be, but not of two that are divided by what
the first k hold, AP@k "found" and NDCG@k of the list: there, finding more can count as less."""

ROWS_AT_ONCE = 16
"""Rows of keys that are worked on at a time; our choice: enough to hide what handing them out to
threads costs."""


@dataclass(frozen=True, eq=False)
class TieGroups:
    """The rankings of Q queries as groups of items at equal distance, nearest group first.

    All float64 with whole numbers. sizes (Q, G): items in the group, 0 for none. levels
    (Q, G, L): how many of them have the gain 1 … L; with plain relevance L is 1. before (Q, G):
    items in all nearer groups, of which some may not be listed: groups without any relevant item
    need not be. relevant, gain: relevant items of the group (gain above 0), and the sum of their
    gains; found, gained: the same in all nearer groups. totals (Q, L): items of each gain in the
    whole ranking.
    The query itself is not among the items.
    """

    sizes: Tensor
    levels: Tensor
    before: Tensor
    relevant: Tensor
    gain: Tensor
    found: Tensor
    gained: Tensor
    totals: Tensor

    @classmethod
    def of(cls, sizes: Tensor, levels: Tensor, before: Tensor | None = None) -> TieGroups:
        """The groups of these sizes and levels; none is missing if `before` is not given."""
        sizes, levels = sizes.double(), levels.double()
        if before is None:
            before = sizes.cumsum(1) - sizes
        relevant = levels.sum(dim=2) if levels.shape[2] > 1 else levels[..., 0]
        found = relevant.cumsum(1) - relevant
        gain, gained = relevant, found
        if levels.shape[2] > 1:
            gain = levels @ gains_of(levels)
            gained = gain.cumsum(1) - gain
        totals = levels.sum(dim=1)
        return cls(sizes, levels, before.double(), relevant, gain, found, gained, totals)

    @property
    def total(self) -> Tensor:
        """(Q,) R, the relevant items of the whole ranking."""
        return self.totals.sum(dim=1)

    def columns(self, change: Callable[[Tensor], Tensor]) -> TieGroups:
        """Every field that has a column for each group changed, `totals` kept."""
        changed = {name: change(values) for name, values in vars(self).items() if name != "totals"}
        return TieGroups(**changed, totals=self.totals)

    def head(self, k: int) -> TieGroups:
        """The first groups: all that hold any of the first k items of a ranking."""
        columns = int((self.before < k).sum(dim=1).max()) if self.before.numel() else 0
        return self.columns(lambda values: values[:, :columns])

    def within(self, k: int | None) -> Tensor:
        """(Q, G) how many places of each group are among the first k; all if k is None."""
        if k is None:
            return self.sizes
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        return (k - self.before).clamp(min=0).minimum(self.sizes)


def gains_of(levels: Tensor) -> Tensor:
    """(L,) the gains 1 … L that the last dimension of `levels` stands for."""
    return torch.arange(1, levels.shape[-1] + 1, dtype=levels.dtype, device=levels.device)


def tie_groups(
    gains: Tensor,
    distances: Tensor | None = None,
    *,
    most: int = 1,
    order: Order = "expected",
    overwrite: bool = False,
) -> TieGroups:
    """The groups of rankings that hold anything relevant.

    gains: (Q, N) whole numbers 0 … most, or bool. distances: (Q, N), at least 0 or infinite, in
    any order, float32 or float64; None says that the items stand in their order and none are
    equal. Where a distance is infinite the gain must be 0. overwrite: the memory of the distances
    may be used. Q × N is sorted in place in one buffer, as whole numbers that hold distance and
    gain, so no order of items is needed.
    """
    check_order(order)
    rows, count = gains.shape
    if distances is None:
        distances = torch.arange(count, dtype=torch.float32, device=gains.device).repeat(rows, 1)
    elif not overwrite:
        distances = distances.clone()
    bits = most.bit_length()
    keys = _sorted(_keys(distances.contiguous(), _payload(gains, most, order), bits)).view(-1)
    listed = keys.to(torch.int8 if bits < 8 else torch.int32).bitwise_and_((1 << bits) - 1)
    flat = _places((listed - most if order == "best" else listed).bool())
    gain = listed[flat].long() if most > 1 else None
    del listed
    query = flat // count if count else flat
    # What of a key tells groups apart, and whether the item before has the same.
    apart = bits if order == "expected" else 0
    key = keys.index_select(0, flat) >> apart
    tied = keys.index_select(0, (flat - 1).clamp_(min=0)) >> apart == key
    tied &= flat > query * count
    # Of equal distance the irrelevant stand before the relevant: those follow one another.
    new = torch.ones_like(tied)
    new[1:] = ~tied[1:] | (flat.diff() != 1)
    first = _places(new)
    relevant = first.diff(append=first.new_tensor([len(flat)]))
    begin, query = flat[first], query[first]
    start = _run_start(keys, apart, query * count, begin, key[first], tied[first])
    sizes = begin + relevant - start
    # Row by row into columns, which the groups of each query fill from the left.
    each = torch.bincount(query, minlength=rows)
    columns = int(each.max()) if len(each) else 0
    filled = torch.arange(columns, device=gains.device) < each[:, None]

    def placed(values: Tensor, elsewhere: int) -> Tensor:
        full = torch.full((rows, columns), elsewhere, dtype=torch.float64, device=gains.device)
        return full.masked_scatter_(filled, values.double())

    if gain is None:
        levels = placed(relevant, 0)[..., None]
    else:
        gain = most - gain if order == "best" else gain
        groups = torch.arange(len(first), device=gains.device).repeat_interleave(relevant)
        counts = torch.bincount(groups * most + gain - 1, minlength=len(first) * most)
        levels = torch.zeros(rows, columns, most, dtype=torch.float64, device=gains.device)
        levels[filled] = counts.view(-1, most).double()
    return TieGroups.of(placed(sizes, 0), levels, placed(start - query * count, count))


def counted_groups(
    gains: Tensor, distances: Tensor, levels: int, *, most: int = 1, order: Order = "expected"
) -> TieGroups:
    """The groups of rankings by whole distances 0 … levels - 1: one column for each distance.

    gains (Q, N), whole numbers 0 … most or bool, and distances (Q, N), in no order, speak of the
    same items. With the order "best" or "worst" there are most + 1 columns for each distance.
    """
    check_order(order)
    queries = torch.arange(len(gains), device=gains.device)[:, None]
    payload = _payload(gains, most, order)
    cells = (queries * levels + distances.long()) * (most + 1) + payload
    counts = torch.bincount(cells.flatten(), minlength=len(gains) * levels * (most + 1))
    counts = counts.view(len(gains), levels, most + 1)
    if order == "expected":
        return TieGroups.of(counts.sum(dim=2), counts[:, :, 1:])
    single = torch.eye(most + 1, dtype=torch.int64, device=gains.device)
    single = single.flip(0) if order == "best" else single
    spread = counts[..., None] * single
    return TieGroups.of(counts.flatten(1), spread.flatten(1, 2)[:, :, 1:])


def check_order(order: str) -> None:
    """UsageError if `order` is not an Order."""
    if order not in get_args(Order):
        raise UsageError(f"order {order!r}: take one of {', '.join(get_args(Order))}")


def _payload(gains: Tensor, most: int, order: Order) -> Tensor:
    """What stands in the lowest bits of a key, the least relevant first, or the most.

    int32; bool for plain relevance.
    """
    if most == 1:
        # Comparing into bool is slow in torch, this is not.
        return ~gains.bool() if order == "best" else gains.bool()
    payload = gains.to(torch.int32)
    return most - payload if order == "best" else payload


def _keys(distances: Tensor, payload: Tensor, bits: int) -> Tensor:
    """(Q, N) whole numbers that sort as (distance, payload).

    The bits of a float that is not negative sort as the float does. A float32 has 31 of them: with
    one bit of payload they fill an int32, which sorts several times faster than an int64.
    Of a distance that rounding has put below 0 the sign is dropped. The memory of `distances` may
    be used.
    """
    if distances.dtype == torch.float32:
        keys = distances.view(torch.int32)
        if bits > 1:
            keys &= torch.iinfo(torch.int32).max
            return keys.long().bitwise_left_shift_(bits).bitwise_or_(payload)
    elif bits == 1:
        keys = distances.double().view(torch.int64)
    else:
        # No room for the payload beside 63 bits: the distance's rank in its row instead.
        return (
            _dense_ranks(distances.double().abs_()).bitwise_left_shift_(bits).bitwise_or_(payload)
        )
    # The sign is moved out, and the distance's highest bit takes its place: it is turned round.
    keys.bitwise_left_shift_(1).bitwise_xor_(torch.iinfo(keys.dtype).min)
    # Torch makes a copy of the payload in the type of the keys: of a part of it at a time.
    for row in range(0, len(keys), ROWS_AT_ONCE):
        keys[row : row + ROWS_AT_ONCE].bitwise_xor_(payload[row : row + ROWS_AT_ONCE])
    return keys


def _dense_ranks(values: Tensor) -> Tensor:
    """(Q, N) int64: how many different smaller values the row has."""
    ordered, order = values.sort(dim=1)
    steps = torch.zeros_like(order)
    steps[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long()
    return torch.empty_like(order).scatter_(1, order, steps.cumsum(1))


def _sorted(keys: Tensor) -> Tensor:
    """The rows in ascending order; on a CPU in place, by NumPy's vectorised sort in threads."""
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    values: NDArray[Any] = keys.numpy()
    parts = [slice(row, row + ROWS_AT_ONCE) for row in range(0, len(values), ROWS_AT_ONCE)]
    threads = min(torch.get_num_threads(), os.cpu_count() or 1, max(1, len(parts)))

    def sort(part: slice) -> None:
        values[part].sort(axis=1)

    if threads == 1:
        values.sort(axis=1)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(sort, parts))
    return keys


def _run_start(
    keys: Tensor, apart: int, row: Tensor, place: Tensor, wanted: Tensor, tied: Tensor
) -> Tensor:
    """The first place of the run of equal keys that each `place` is in, within its row.

    keys: rows one after another, through all of which places count; equal without the last `apart`
    bits, then as `wanted`. row: where the row of each place begins. tied: which have an equal
    neighbour before them; only for those it is looked for, by bisection.
    """
    if not bool(tied.any()):
        return place
    low, high, wanted = row[tied], place[tied], wanted[tied]
    while bool((low < high).any()):
        middle = (low + high) // 2
        inside = keys[middle] >> apart == wanted
        low, high = torch.where(inside, low, middle + 1), torch.where(inside, middle, high)
    return place.masked_scatter(tied, high)


def _places(mask: Tensor) -> Tensor:
    """(M,) int64, where the flattened mask is true; on a CPU NumPy finds it much faster."""
    if mask.device.type != "cpu":
        return mask.flatten().nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(mask.numpy()))
