"""Rankings as groups of items at equal distance, from which every measure is computed.

Items at equal distance have no order. A measure is therefore its expected value over all orders
of such items, all equally likely, in closed form (McSherry & Najork, "Computing information
retrieval performance measures efficiently in the presence of tied scores", ECIR 2008), or, on
request, its value for the best or the worst of these orders.
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
"""The order of items at equal distance: random, the most relevant first, the least relevant first.

"best" and "worst" are the highest and lowest values of a measure, except for AP@k "found" and
NDCG@k of the list: both are normalised by the first k, so finding more can lower them."""

ROWS_AT_ONCE = 16
"""Rows of keys per task of a thread; our choice: enough to hide the cost of starting a task."""


@dataclass(frozen=True, eq=False)
class TieGroups:
    """The rankings of Q queries as groups of items at equal distance, nearest group first.

    All are float64 with integer values. sizes (Q, G): items in the group, 0 for a column without
    a group. levels (Q, G, L): items of the group with gain 1 … L; with plain relevance L is 1.
    before (Q, G): items in all nearer groups, including groups that are not listed: a group
    without relevant items may be left out. relevant, gain (Q, G): relevant items of the group
    (gain above 0), and the sum of their gains; found, gained (Q, G): the same sums over all
    nearer groups. totals (Q, L): items of each gain in the whole ranking.
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
        """The groups with these sizes and levels; without `before`, every group must be listed."""
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
        """(Q,): R, the relevant items of the whole ranking."""
        return self.totals.sum(dim=1)

    def columns(self, change: Callable[[Tensor], Tensor]) -> TieGroups:
        """`change` applied to every field that has a column per group; `totals` is unchanged."""
        changed = {name: change(values) for name, values in vars(self).items() if name != "totals"}
        return TieGroups(**changed, totals=self.totals)

    def head(self, k: int) -> TieGroups:
        """The first groups: all groups that hold any of the first k items."""
        columns = int((self.before < k).sum(dim=1).max()) if self.before.numel() else 0
        return self.columns(lambda values: values[:, :columns])

    def within(self, k: int | None) -> Tensor:
        """(Q, G): the ranks of each group that are among the first k; all of them if k is None."""
        if k is None:
            return self.sizes
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        return (k - self.before).clamp(min=0).minimum(self.sizes)


def gains_of(levels: Tensor) -> Tensor:
    """(L,): the gains 1 … L that index the last dimension of `levels`."""
    return torch.arange(1, levels.shape[-1] + 1, dtype=levels.dtype, device=levels.device)


def tie_groups(
    gains: Tensor,
    distances: Tensor | None = None,
    *,
    most: int = 1,
    order: Order = "expected",
    overwrite: bool = False,
) -> TieGroups:
    """The groups that hold relevant items.

    gains: (Q, N) integers 0 … most, or bool. distances: (Q, N), float32 or float64, at least 0 or
    infinite, in any order; None: the items are in ranked order, without ties. Where a distance is
    infinite, the gain must be 0. overwrite: allow the memory of the distances to be overwritten.

    One (Q, N) buffer of integer keys, which hold distance and gain together, is sorted in place;
    a permutation of the items is not needed.
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
    flat = _true_indices((listed - most if order == "best" else listed).bool())
    gain = listed[flat].long() if most > 1 else None
    del listed
    query = flat // count if count else flat
    # The bits of a key that tell groups apart, and whether the previous item has the same bits.
    apart = bits if order == "expected" else 0
    key = keys.index_select(0, flat) >> apart
    tied = keys.index_select(0, (flat - 1).clamp_(min=0)) >> apart == key
    tied &= flat > query * count
    # At equal distance the irrelevant items come first, so the relevant items are consecutive.
    new = torch.ones_like(tied)
    new[1:] = ~tied[1:] | (flat.diff() != 1)
    first = _true_indices(new)
    relevant = first.diff(append=first.new_tensor([len(flat)]))
    begin, query = flat[first], query[first]
    start = _run_start(keys, apart, query * count, begin, key[first], tied[first])
    sizes = begin + relevant - start
    # One row per query; its groups fill the columns from the left.
    each = torch.bincount(query, minlength=rows)
    columns = int(each.max()) if len(each) else 0
    filled = torch.arange(columns, device=gains.device) < each[:, None]

    def in_columns(values: Tensor, fill: int) -> Tensor:
        full = torch.full((rows, columns), fill, dtype=torch.float64, device=gains.device)
        return full.masked_scatter_(filled, values.double())

    if gain is None:
        levels = in_columns(relevant, 0)[..., None]
    else:
        gain = most - gain if order == "best" else gain
        groups = torch.arange(len(first), device=gains.device).repeat_interleave(relevant)
        counts = torch.bincount(groups * most + gain - 1, minlength=len(first) * most)
        levels = torch.zeros(rows, columns, most, dtype=torch.float64, device=gains.device)
        levels[filled] = counts.view(-1, most).double()
    return TieGroups.of(in_columns(sizes, 0), levels, in_columns(start - query * count, count))


def counted_groups(
    gains: Tensor, distances: Tensor, levels: int, *, most: int = 1, order: Order = "expected"
) -> TieGroups:
    """The groups of rankings by integer distances 0 … levels - 1: one column per distance.

    gains: (Q, N) integers 0 … most, or bool. distances: (Q, N) of the same items, in any order.
    With the order "best" or "worst" there are most + 1 columns per distance.
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
    """Raise UsageError if `order` is not an Order."""
    if order not in get_args(Order):
        raise UsageError(f"order {order!r}: take one of {', '.join(get_args(Order))}")


def _payload(gains: Tensor, most: int, order: Order) -> Tensor:
    """The lowest bits of the keys: they sort the least relevant first, or the most relevant.

    int32; bool for plain relevance.
    """
    if most == 1:
        # Comparisons that give bool are slow in torch; this is fast.
        return ~gains.bool() if order == "best" else gains.bool()
    payload = gains.to(torch.int32)
    return most - payload if order == "best" else payload


def _keys(distances: Tensor, payload: Tensor, bits: int) -> Tensor:
    """(Q, N) integers that sort like (distance, payload).

    The bits of a non-negative float sort like the float. A float32 has 31 of them: with one bit of
    payload they fill an int32, which sorts several times faster than an int64. A negative sign,
    which only rounding can cause, is dropped. The memory of `distances` may be overwritten.
    """
    if distances.dtype == torch.float32:
        keys = distances.view(torch.int32)
        if bits > 1:
            keys &= torch.iinfo(torch.int32).max
            return keys.long().bitwise_left_shift_(bits).bitwise_or_(payload)
    elif bits == 1:
        keys = distances.double().view(torch.int64)
    else:
        # 63 bits leave no room for the payload: take the distance's rank in its row instead.
        return (
            _dense_ranks(distances.double().abs_()).bitwise_left_shift_(bits).bitwise_or_(payload)
        )
    # Shift out the sign bit; the distance's highest bit becomes the sign bit and is inverted.
    keys.bitwise_left_shift_(1).bitwise_xor_(torch.iinfo(keys.dtype).min)
    # Torch copies the payload into the type of the keys, so do a part at a time.
    for row in range(0, len(keys), ROWS_AT_ONCE):
        keys[row : row + ROWS_AT_ONCE].bitwise_xor_(payload[row : row + ROWS_AT_ONCE])
    return keys


def _dense_ranks(values: Tensor) -> Tensor:
    """(Q, N) int64: the number of different smaller values in the row."""
    ordered, order = values.sort(dim=1)
    steps = torch.zeros_like(order)
    steps[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long()
    return torch.empty_like(order).scatter_(1, order, steps.cumsum(1))


def _sorted(keys: Tensor) -> Tensor:
    """The rows in ascending order; on a CPU sorted in place by NumPy, in threads."""
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
    keys: Tensor, apart: int, row: Tensor, index: Tensor, wanted: Tensor, tied: Tensor
) -> Tensor:
    """The first index of the run of equal keys that holds each `index`, within its row.

    keys: all rows, flattened; keys are equal if they are equal (to `wanted`) without their last
    `apart` bits. row: the index at which the row of each `index` begins. tied: whether the key
    before it is equal; only then its run is searched for, by bisection.
    """
    if not bool(tied.any()):
        return index
    low, high, wanted = row[tied], index[tied], wanted[tied]
    while bool((low < high).any()):
        middle = (low + high) // 2
        inside = keys[middle] >> apart == wanted
        low, high = torch.where(inside, low, middle + 1), torch.where(inside, middle, high)
    return index.masked_scatter(tied, high)


def _true_indices(mask: Tensor) -> Tensor:
    """(M,) int64: indices of True in the flattened mask; on a CPU by NumPy, which is faster."""
    if mask.device.type != "cpu":
        return mask.flatten().nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(mask.numpy()))
