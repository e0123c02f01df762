"""Measures of graded relevance: the gain of an item is the number of labels in common.

Each takes `TieGroups` with levels and returns (Q,) float64. With one class per image the gain is
0 or 1. Definitions after Zhao et al., "Deep semantic ranking based hashing for multi-label image
retrieval", CVPR 2015; NDCG after Järvelin & Kekäläinen, ACM TOIS 2002.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rsir.errors import UsageError
from rsir.evaluation.metrics.binary import Cut, rank_sum
from rsir.evaluation.metrics.groups import TieGroups, gains_of

Ideal = Literal["gallery", "list"]
"""The ideal order in NDCG@k: of the whole gallery, or of the k retrieved items (DSRH and most
multi-label hashing code), which ignores the items that were not retrieved."""


def acg_at_k(groups: TieGroups, k: int) -> Tensor:
    """ACG@k: labels in common of the query and the first k, divided by k; not bounded by 1."""
    return (groups.gain * groups.within(k) / groups.sizes.clamp(min=1)).sum(dim=1) / k


def weighted_average_precision(groups: TieGroups) -> Tensor:
    """WAP over the whole ranking: (1/R) Σ_{i relevant} ACG@i; its mean is weighted mAP.

    R = items of the gallery with a label in common; a query with R = 0 counts 0. With gains of 0
    and 1 it is AP.
    """
    size = groups.sizes.clamp(min=1)
    share = groups.relevant / size
    # Of two different items of a group: the probability that one is relevant × the other's gain.
    pairs = (groups.relevant - 1).clamp(min=0) * groups.gain / (size * (size - 1).clamp(min=1))
    summed = rank_sum(groups, share * groups.gained + groups.gain / size, pairs, None)
    return summed.sum(dim=1) / groups.total.clamp(min=1)


def ndcg_at_k(groups: TieGroups, k: int, ideal: Ideal) -> Tensor:
    """NDCG@k: DCG@k / the DCG@k of the ideal order; DCG@k = Σ_{i ≤ k} (2^gain - 1) / log2(1 + i).

    A query whose ideal DCG is 0 counts 0. Where ties straddle rank k, the ideal of the list
    depends on which of them it holds: the value is then expected DCG / expected ideal DCG.
    """
    if ideal not in get_args(Ideal):
        raise UsageError(f"ideal {ideal!r}: take one of {', '.join(get_args(Ideal))}")
    ranks = groups.within(k)
    discount = _discounts(k, groups.sizes.device)
    worth = groups.levels @ (gains_of(groups.levels).exp2() - 1) / groups.sizes.clamp(min=1)
    start = groups.before.clamp(max=k)
    end = start + ranks
    dcg = (worth * (discount[end.long()] - discount[start.long()])).sum(dim=1)
    best = _ideal_of_gallery(groups, k) if ideal == "gallery" else _ideal_of_list(groups, k)
    return torch.where(best > 0, dcg / torch.where(best > 0, best, 1.0), 0.0)


def _discounts(k: int, device: torch.device) -> Tensor:
    """(k + 1,) float64: Σ 1 / log2(1 + i) over the first 0 … k ranks."""
    ranks = torch.arange(1, k + 1, dtype=torch.float64, device=device)
    return torch.cat([ranks.new_zeros(1), (1 / (1 + ranks).log2()).cumsum(0)])


def _ideal_of_gallery(groups: TieGroups, k: int) -> Tensor:
    discount = _discounts(k, groups.sizes.device)
    at_least = _at_least(groups.totals).clamp(max=k)
    return discount[at_least.long()] @ _worth_steps(groups)


def _ideal_of_list(groups: TieGroups, k: int) -> Tensor:
    """The expected ideal DCG over the choices of items of the straddling group."""
    cut = Cut.at(groups, k)
    discount = _discounts(k, groups.sizes.device)
    whole = _at_least(cut.whole.levels.sum(dim=1))
    among = _at_least(cut.straddling.levels[:, 0])
    more = cut.counts()
    expected = torch.zeros_like(whole)
    for level in range(whole.shape[1]):
        counts = (whole[:, level, None] + more).clamp(max=k).long()
        chances = cut.chances(among[:, level, None], more)
        expected[:, level] = (chances * discount[counts]).sum(dim=1)
    return expected @ _worth_steps(groups)


def _at_least(counts: Tensor) -> Tensor:
    """(Q, L): items with a gain of at least 1, 2 … L, from the items with exactly that gain."""
    return counts.flip(1).cumsum(1).flip(1)


def _worth_steps(groups: TieGroups) -> Tensor:
    """(L,): the increase of 2^gain - 1 from gain - 1 to gain."""
    gains = gains_of(groups.levels)
    return gains.exp2() - (gains - 1).exp2()
