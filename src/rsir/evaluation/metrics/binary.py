"""Measures of plain relevance. Each takes `TieGroups` and returns (Q,) float64, one per query.

k may be larger than the gallery: ranks beyond the gallery hold no relevant item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rsir.errors import UsageError
from rsir.evaluation.metrics.groups import TieGroups

Denominator = Literal["found", "min", "all"]
"""The denominator of AP@k: the relevant items found among the first k (DPSH, DeepHash), min(R, k)
(Google Landmarks), or R, all relevant items (pytorch-metric-learning, with k = R)."""
Penalty = Literal["1.25K", "K+1"]
"""The penalty for a rank beyond K in NMRR: 1.25 K (the MPEG-7 book), or K + 1 (older software)."""


def average_precision(groups: TieGroups) -> Tensor:
    """AP over the whole ranking: (1/R) Σ_{i relevant} P(i), R = all relevant items of the gallery.

    P(i) is the share of relevant items among the first i (paper A, eqs 10–12). A query with
    R = 0 counts 0.
    """
    total = groups.total
    return precision_sum(groups).sum(dim=1) / total.clamp(min=1)


def average_precision_at_k(groups: TieGroups, k: int, denominator: Denominator) -> Tensor:
    """AP@k: (1/D) Σ_{i ≤ k, relevant} P(i); `denominator` chooses D; 0 where D is 0.

    "found" ignores the relevant items that are not among the first k.
    """
    if denominator not in get_args(Denominator):
        names = ", ".join(get_args(Denominator))
        raise UsageError(f"denominator {denominator!r}: take one of {names}")
    if denominator == "found":
        return _found_average_precision(groups, k)
    total = groups.total
    by = total.clamp(max=k) if denominator == "min" else total
    return precision_sum(groups, k).sum(dim=1) / by.clamp(min=1)


def precision_at_k(groups: TieGroups, k: int) -> Tensor:
    """P@k: relevant items among the first k, divided by k, even if the gallery is smaller."""
    found = groups.relevant * groups.within(k) / groups.sizes.clamp(min=1)
    return found.sum(dim=1) / k


def hit_at_k(groups: TieGroups, k: int) -> Tensor:
    """R@k as in metric learning: 1 if any of the first k is relevant, else 0.

    With ties: the probability of that. (It is not the other "recall", the share of all relevant
    items that are found.)
    """
    cut = Cut.at(groups, k)
    relevant = cut.straddling.relevant
    none = cut.chances(relevant, relevant.new_zeros(1))[:, 0]
    return torch.where(cut.found > 0, 1.0, 1.0 - none)


def nmrr(groups: TieGroups, largest: Tensor | float, penalty: Penalty = "1.25K") -> Tensor:
    """NMRR of MPEG-7, 0 (best) to 1; its mean over the queries is ANMRR.

    With NG relevant items, K = min(4 NG, 2 max NG) and the penalty P: AVR = Σ rank / NG, where a
    rank beyond K counts P; MRR = AVR - (1 + NG) / 2; NMRR = MRR / (P - (1 + NG) / 2) (Manjunath
    et al., "Color and texture descriptors", IEEE TCSVT 2001; ISO/IEC 15938). A query without
    relevant items counts 1.

    largest: max NG, over all queries of the evaluation.
    """
    if penalty not in get_args(Penalty):
        raise UsageError(f"penalty {penalty!r}: take one of {', '.join(get_args(Penalty))}")
    total = groups.total
    limit = torch.minimum(4 * total, 2 * torch.as_tensor(largest, dtype=torch.float64).to(total))
    beyond = 1.25 * limit if penalty == "1.25K" else limit + 1
    head = groups.head(int(limit.max()) if len(limit) else 0)
    within = (limit[:, None] - head.before).clamp(min=0).minimum(head.sizes)
    # Sum of the ranks before + 1 … before + within.
    ranks = within * head.before + within * (within + 1) / 2
    share = head.relevant / head.sizes.clamp(min=1)
    near = (share * within).sum(dim=1)
    average = ((share * ranks).sum(dim=1) + (total - near) * beyond) / total.clamp(min=1)
    best = (1 + total) / 2
    worst = torch.where(total > 0, beyond, 1.0)
    return torch.where(total > 0, (average - best) / (worst - best), 1.0)


def precision_sum(groups: TieGroups, k: int | None = None) -> Tensor:
    """(Q, G): expected Σ P(i) over the relevant items of each group among the first k.

    The i-th rank of a group of n items, r of them relevant, after t items of which f are
    relevant, adds (r/n) · [f + 1 + (i-1)(r-1)/(n-1)] / (t + i) (McSherry & Najork 2008).
    """
    share = groups.relevant / groups.sizes.clamp(min=1)
    others = (groups.relevant - 1).clamp(min=0) / (groups.sizes - 1).clamp(min=1)
    return rank_sum(groups, share * (groups.found + 1), share * others, k)


def rank_sum(groups: TieGroups, first: Tensor, step: Tensor, k: int | None) -> Tensor:
    """(Q, G): Σ [first + (i - 1) step] / (t + i) over the ranks i of each group among the first k.

    It uses S = Σ 1/(t + i), a difference of harmonic numbers: Σ (i-1)/(t+i) = m - (t + 1) S for
    m ranks.
    """
    ranks, before = groups.within(k), groups.before
    summed = first / (before + 1) * ranks
    several = ranks > 1
    if not bool(several.any()):
        return summed
    first, step, ranks, before = (t[several] for t in (first, step, ranks, before))
    numbers = torch.arange(1, int((before + ranks).max()) + 1, device=first.device).double()
    harmonic = torch.cat([numbers.new_zeros(1), (1 / numbers).cumsum(0)])
    inverses = harmonic[(before + ranks).long()] - harmonic[before.long()]
    more = first * inverses + step * (ranks - (before + 1) * inverses)
    return summed.masked_scatter_(several, more)


@dataclass(frozen=True, eq=False)
class Cut:
    """Rankings cut after k items: the whole groups, and the group that straddles the cut.

    whole: the groups that end within k (the others are empty). straddling: one column, the group
    that straddles k, empty where none does. found (Q,): relevant items in the whole groups.
    room (Q,): ranks left for the straddling group.
    """

    whole: TieGroups
    straddling: TieGroups
    found: Tensor
    room: Tensor

    @classmethod
    def at(cls, groups: TieGroups, k: int) -> Cut:
        """The cut of `groups` after k items; UsageError for k below 1."""
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        head = groups.head(k)
        ends = head.before + head.sizes
        inside, across = (ends <= k).double(), ((head.before < k) & (ends > k)).double()
        whole = head.columns(lambda values: values * _like(inside, values))
        straddling = head.columns(
            lambda values: (values * _like(across, values)).sum(dim=1, keepdim=True)
        )
        room = ((k - head.before) * across).sum(dim=1)
        return cls(whole, straddling, whole.relevant.sum(dim=1), room)

    def chances(self, among: Tensor, counts: Tensor) -> Tensor:
        """(Q, len(counts)): probability that `counts` of the `room` ranks go to `among` items.

        among (Q, 1): a number of items of the straddling group. The distribution is
        hypergeometric, because the group is in random order.
        """
        size, room = self.straddling.sizes, self.room[:, None]
        rest, others = room - counts, size - among
        possible = (counts <= among) & (rest >= 0) & (rest <= others)
        chosen = _log_choose(among, counts) + _log_choose(others, rest)
        return torch.where(possible, (chosen - _log_choose(size, room)).exp(), 0.0)

    def counts(self) -> Tensor:
        """0 … the largest room of any query, float64."""
        most = int(self.room.max()) if len(self.room) else 0
        return torch.arange(most + 1, dtype=torch.float64, device=self.room.device)


def _like(columns: Tensor, values: Tensor) -> Tensor:
    """(Q, G), or (Q, G, 1) if the values are (Q, G, L)."""
    return columns if values.ndim == 2 else columns[..., None]


def _found_average_precision(groups: TieGroups, k: int) -> Tensor:
    cut = Cut.at(groups, k)
    whole = precision_sum(cut.whole).sum(dim=1, keepdim=True)
    # Number of relevant items of the straddling group among the first k: 0 … its room.
    more = cut.counts()
    chances = cut.chances(cut.straddling.relevant, more)
    shape = chances.shape
    room = cut.room[:, None].expand(shape)
    part = TieGroups(
        sizes=room,
        levels=more[:, None].expand(*shape, 1),
        before=cut.straddling.before.expand(shape),
        relevant=more.expand(shape),
        gain=more.expand(shape),
        found=cut.found[:, None].expand(shape),
        gained=cut.found[:, None].expand(shape),
        totals=groups.totals,
    )
    found = part.found + part.relevant
    values = (whole + precision_sum(part)) / found.clamp(min=1)
    return (chances * values * (found > 0)).sum(dim=1)


def _log_choose(total: Tensor, chosen: Tensor) -> Tensor:
    """Logarithm of the binomial coefficient; undefined where the coefficient is 0."""
    chosen = chosen.clamp(min=0).minimum(total)
    return (total + 1).lgamma() - (chosen + 1).lgamma() - (total - chosen + 1).lgamma()
