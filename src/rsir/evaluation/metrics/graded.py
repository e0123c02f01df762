"""Measures of how much two images have in common. The gain of an item: labels that it shares.

Each takes `TieGroups` with levels and gives (Q,) float64. For one class an image the gain is 0 or
1. Definitions after Zhao et al., "Deep semantic ranking based hashing for multi-label image
retrieval", CVPR 2015; NDCG is of Järvelin & Kekäläinen, ACM TOIS 2002.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rsir.errors import UsageError
from rsir.evaluation.metrics.binary import Cut, place_sum
from rsir.evaluation.metrics.groups import TieGroups, gains_of

Ideal = Literal["gallery", "list"]
"""The best order that NDCG@k compares with: of the whole gallery, or of the k that were retrieved
(DSRH and most multi-label hashing code), which ignores what was not retrieved."""


def acg_at_k(groups: TieGroups, k: int) -> Tensor:
    """ACG@k: labels that the first k share with the query, divided by k; not bounded by 1."""
    return (groups.gain * groups.within(k) / groups.sizes.clamp(min=1)).sum(dim=1) / k


def weighted_average_precision(groups: TieGroups) -> Tensor:
    """WAP over the whole ranking: (1/R) Σ_{i relevant} ACG@i; its mean is weighted mAP.

    R = items of the gallery with a shared label; a query with R = 0 counts 0. With gains of 0 and
    1 it is AP.
    """
    size = groups.sizes.clamp(min=1)
    share = groups.relevant / size
    # Two different items of a group: that one is relevant, times the other's gain.
    pairs = (groups.relevant - 1).clamp(min=0) * groups.gain / (size * (size - 1).clamp(min=1))
    summed = place_sum(groups, share * groups.gained + groups.gain / size, pairs, None)
    return summed.sum(dim=1) / groups.total.clamp(min=1)


def ndcg_at_k(groups: TieGroups, k: int, ideal: Ideal) -> Tensor:
    """NDCG@k: DCG@k / the DCG@k of the ideal order, DCG@k = Σ_{i ≤ k} (2^gain - 1) / log2(1 + i).

    A query whose ideal is 0 counts 0. Where ties straddle k, the ideal of the list depends on
    which of them are in it: the value is then expected DCG / expected ideal DCG.
    """
    if ideal not in get_args(Ideal):
        raise UsageError(f"ideal {ideal!r}: take one of {', '.join(get_args(Ideal))}")
    places = groups.within(k)
    discount = _discounts(k, groups.sizes.device)
    worth = groups.levels @ (gains_of(groups.levels).exp2() - 1) / groups.sizes.clamp(min=1)
    start = groups.before.clamp(max=k)
    end = start + places
    dcg = (worth * (discount[end.long()] - discount[start.long()])).sum(dim=1)
    best = _ideal_of_gallery(groups, k) if ideal == "gallery" else _ideal_of_list(groups, k)
    return torch.where(best > 0, dcg / torch.where(best > 0, best, 1.0), 0.0)


def _discounts(k: int, device: torch.device) -> Tensor:
    """(k + 1,) float64: Σ 1 / log2(1 + i) over the first 0 … k places."""
    places = torch.arange(1, k + 1, dtype=torch.float64, device=device)
    return torch.cat([places.new_zeros(1), (1 / (1 + places).log2()).cumsum(0)])


def _ideal_of_gallery(groups: TieGroups, k: int) -> Tensor:
    discount = _discounts(k, groups.sizes.device)
    at_least = _at_least(groups.totals).clamp(max=k)
    return discount[at_least.long()] @ _worth_steps(groups)


def _ideal_of_list(groups: TieGroups, k: int) -> Tensor:
    """Expected, over who of a straddling group is in the list."""
    cut = Cut.at(groups, k)
    discount = _discounts(k, groups.sizes.device)
    whole = _at_least(cut.whole.levels.sum(dim=1))
    among = _at_least(cut.straddling.levels[:, 0])
    more = cut.counts()
    expected = torch.zeros_like(whole)
    for level in range(whole.shape[1]):
        places = (whole[:, level, None] + more).clamp(max=k).long()
        chances = cut.chances(among[:, level, None], more)
        expected[:, level] = (chances * discount[places]).sum(dim=1)
    return expected @ _worth_steps(groups)


def _at_least(counts: Tensor) -> Tensor:
    """(Q, L) how many items have a gain of 1, 2, … L or more, from how many have just that."""
    return counts.flip(1).cumsum(1).flip(1)


def _worth_steps(groups: TieGroups) -> Tensor:
    """(L,) what the last of so many labels adds to 2^gain - 1."""
    gains = gains_of(groups.levels)
    return gains.exp2() - (gains - 1).exp2()
