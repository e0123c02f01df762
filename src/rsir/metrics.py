"""Ranked relevance → numbers. Each measure says which definition it is.

Every measure takes `TieGroups`: what stands in the ranking of each query, one column for each
distance, nearest first. Items at the same distance stand in no order, so a measure is its
expected value over all orders of such items, each as likely, in closed form (McSherry & Najork,
"Computing information retrieval performance measures efficiently in the presence of tied
scores", ECIR 2008). Without ties it is the plain measure. Results are (Q,) float64, one value per
query, on the device of the groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rsir.errors import UsageError


@dataclass(frozen=True, eq=False)
class TieGroups:
    """The rankings of Q queries as groups of items at equal distance, nearest group first.

    All (Q, G) float64, whole numbers. sizes: items in the group, 0 for none. relevant: how many of
    them are relevant. before, found: items, and relevant items, in all nearer groups.
    The query itself is not among the items.
    """

    sizes: Tensor
    relevant: Tensor
    before: Tensor
    found: Tensor

    @classmethod
    def of(cls, sizes: Tensor, relevant: Tensor) -> TieGroups:
        """The groups of these (Q, G) sizes and numbers of relevant items."""
        sizes, relevant = sizes.double(), relevant.double()
        return cls(sizes, relevant, sizes.cumsum(1) - sizes, relevant.cumsum(1) - relevant)

    def head(self, k: int) -> TieGroups:
        """The first groups: all that hold any of the first k items of a ranking."""
        columns = int((self.before < k).sum(dim=1).max()) if self.before.numel() else 0
        every = (self.sizes, self.relevant, self.before, self.found)
        return TieGroups(*(values[:, :columns] for values in every))


def tie_groups(relevant: Tensor, distances: Tensor | None = None) -> TieGroups:
    """The groups of sorted rankings, `relevant` (Q, N) bool, best first.

    distances: (Q, N), ascending; None says that none are equal.
    """
    changes = None if distances is None else distances[:, 1:] != distances[:, :-1]
    if changes is None or bool(changes.all()):
        return TieGroups.of(torch.ones_like(relevant, dtype=torch.float64), relevant)
    group = torch.cat([changes.new_zeros(len(changes), 1), changes], dim=1).cumsum(dim=1)
    count = int(group.max()) + 1
    empty = torch.zeros(len(relevant), count, dtype=torch.int64, device=relevant.device)
    sizes = empty.scatter_add(1, group, torch.ones_like(group))
    return TieGroups.of(sizes, empty.scatter_add(1, group, relevant.long()))


def counted_groups(relevant: Tensor, distances: Tensor, levels: int) -> TieGroups:
    """The groups of rankings by whole distances 0 … levels - 1, in no order.

    relevant (Q, N) bool and distances (Q, N) speak of the same items.
    """
    queries = torch.arange(len(relevant), device=relevant.device)[:, None]
    cells = (queries * levels + distances.long()) * 2 + relevant
    counts = torch.bincount(cells.flatten(), minlength=2 * levels * len(relevant))
    counts = counts.view(len(relevant), levels, 2)
    return TieGroups.of(counts.sum(dim=2), counts[:, :, 1])


def average_precision(groups: TieGroups) -> Tensor:
    """AP over the whole ranking: (1/R) Σ_{i relevant} P(i), R = all relevant in the gallery.

    P(i) is the share of relevant items among the first i (paper A, eqs 10–12). A query with
    R = 0 counts 0.
    """
    total = groups.relevant.sum(dim=1)
    return _precision_sum(groups).sum(dim=1) / total.clamp(min=1)


def precision_at_k(groups: TieGroups, k: int) -> Tensor:
    """P@k: relevant items among the first k, divided by k, also where the gallery is smaller."""
    cut = _Cut.at(groups, k)
    drawn = cut.straddling.sizes[:, 0]
    share = cut.straddling.relevant[:, 0] / drawn.clamp(min=1)
    return (cut.found + cut.room * share) / k


def hit_at_k(groups: TieGroups, k: int) -> Tensor:
    """R@k as metric learning has it: 1 if any of the first k is relevant, else 0.

    With ties: the chance of it. (The share of all relevant items found, the other "recall", is
    not this.)
    """
    cut = _Cut.at(groups, k)
    none = cut.chances(torch.zeros(1, dtype=torch.float64, device=groups.sizes.device))[:, 0]
    return torch.where(cut.found > 0, 1.0, 1.0 - none)


def found_average_precision_at_k(groups: TieGroups, k: int) -> Tensor:
    """AP@k, "found" denominator: (1/F) Σ_{i ≤ k, relevant} P(i), F = relevant in the first k.

    A query with F = 0 counts 0. It is what DPSH, DeepHash and others call mAP@k; it ignores how
    many relevant items are not among the first k. (Other AP@k divide by min(R, k) or by R.)
    """
    cut = _Cut.at(groups, k)
    whole = _precision_sum(cut.whole).sum(dim=1, keepdim=True)
    # How many of the group that straddles k are relevant and within: none to all of its room.
    more = torch.arange(
        int(cut.room.max()) + 1 if len(cut.room) else 1,
        dtype=torch.float64,
        device=groups.sizes.device,
    )
    chances = cut.chances(more)
    shape = chances.shape
    part = TieGroups(
        sizes=cut.room[:, None].expand(shape),
        relevant=more.expand(shape),
        before=cut.straddling.before.expand(shape),
        found=cut.found[:, None].expand(shape),
    )
    found = part.found + part.relevant
    values = (whole + _precision_sum(part)) / found.clamp(min=1)
    return (chances * values * (found > 0)).sum(dim=1)


def nmrr(groups: TieGroups, largest: Tensor | float) -> Tensor:
    """NMRR of MPEG-7, 0 (best) to 1; its mean over the queries is ANMRR.

    With NG relevant items and K = min(4 NG, 2 max NG): AVR = Σ rank / NG, where a rank beyond K
    counts 1.25 K; MRR = AVR - (1 + NG) / 2; NMRR = MRR / (1.25 K - (1 + NG) / 2) (Manjunath et
    al., "Color and texture descriptors", IEEE TCSVT 2001; ISO/IEC 15938). A query without
    relevant items counts 1.

    largest: max NG, over all queries of the evaluation.
    """
    total = groups.relevant.sum(dim=1)
    limit = torch.minimum(4 * total, 2 * torch.as_tensor(largest, dtype=torch.float64).to(total))
    head = groups.head(int(limit.max()) if len(limit) else 0)
    within = (limit[:, None] - head.before).clamp(min=0).minimum(head.sizes)
    # The ranks before + 1 … before + within.
    ranks = within * head.before + within * (within + 1) / 2
    share = head.relevant / head.sizes.clamp(min=1)
    near = (share * within).sum(dim=1)
    average = ((share * ranks).sum(dim=1) + (total - near) * 1.25 * limit) / total.clamp(min=1)
    best = (1 + total) / 2
    worst = torch.where(total > 0, 1.25 * limit, 1.0)
    return torch.where(total > 0, (average - best) / (worst - best), 1.0)


def _precision_sum(groups: TieGroups) -> Tensor:
    """(Q, G): expected Σ P(i) over the relevant items of each group.

    Place i = 1 … n of a group with r relevant items, behind t items with R0 relevant, gives
    (r/n) · [R0 + 1 + (i-1)(r-1)/(n-1)] / (t + i) (McSherry & Najork 2008). Their sum needs
    S = Σ 1/(t + i), a difference of harmonic numbers, and Σ (i-1)/(t + i) = n - (t + 1) S.
    """
    size, relevant, before, found = groups.sizes, groups.relevant, groups.before, groups.found
    first = relevant * (found + 1) / (before + 1)
    if not bool((size > 1).any()):
        return first
    last = before + size
    numbers = torch.arange(1, int(last.max()) + 1, dtype=torch.float64, device=size.device)
    harmonic = torch.cat([numbers.new_zeros(1), (1 / numbers).cumsum(0)])
    inverses = harmonic[last.long()] - harmonic[before.long()]
    slope = (relevant - 1) / (size - 1).clamp(min=1)
    tied = (found + 1) * inverses + slope * (size - (before + 1) * inverses)
    return torch.where(size > 1, relevant / size.clamp(min=1) * tied, first)


@dataclass(frozen=True, eq=False)
class _Cut:
    """Rankings cut after k items: whole groups within, and the group that straddles the cut.

    whole: the groups that end within k (emptied where they do not). straddling: one column, a
    group of no items where no group straddles. found (Q,): relevant items in the whole ones.
    room (Q,): places that are left to the straddling group.
    """

    whole: TieGroups
    straddling: TieGroups
    found: Tensor
    room: Tensor

    @classmethod
    def at(cls, groups: TieGroups, k: int) -> _Cut:
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        head = groups.head(k)
        ends = head.before + head.sizes
        inside, across = (ends <= k).double(), ((head.before < k) & (ends > k)).double()
        whole = TieGroups(head.sizes * inside, head.relevant * inside, head.before, head.found)
        every = (head.sizes, head.relevant, head.before, head.found)
        straddling = TieGroups(*((values * across).sum(dim=1, keepdim=True) for values in every))
        room = ((k - head.before) * across).sum(dim=1)
        return cls(whole, straddling, whole.relevant.sum(dim=1), room)

    def chances(self, counts: Tensor) -> Tensor:
        """(Q, len(counts)): chance that so many of the `room` places go to relevant items.

        Hypergeometric: the straddling group is in random order.
        """
        size, relevant = self.straddling.sizes, self.straddling.relevant
        room = self.room[:, None]
        rest, others = room - counts, size - relevant
        possible = (counts <= relevant) & (rest >= 0) & (rest <= others)
        chosen = _log_choose(relevant, counts) + _log_choose(others, rest)
        return torch.where(possible, (chosen - _log_choose(size, room)).exp(), 0.0)


def _log_choose(total: Tensor, chosen: Tensor) -> Tensor:
    """Logarithm of the binomial coefficient; anything where it is 0."""
    chosen = chosen.clamp(min=0).minimum(total)
    return (total + 1).lgamma() - (chosen + 1).lgamma() - (total - chosen + 1).lgamma()
