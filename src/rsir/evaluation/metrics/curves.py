"""Curves over all queries: precision and recall against rank, recall level or Hamming radius."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rsir.evaluation.metrics.binary import precision_sum
from rsir.evaluation.metrics.groups import TieGroups

RECALL_LEVELS = tuple(level / 10 for level in range(11))
"""Of the 11-point curve (TREC; Manning et al., "Introduction to information retrieval", 8.4)."""


class RankCurve:
    """Mean precision and mean recall after each of the first n places, n = 1 … N.

    Queries are added block by block; memory is that of N numbers. With ties: expected values.
    A query with nothing relevant has recall 0.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.queries = 0
        # How much more is found at each place than at the one before: precision's, recall's.
        self._steps = torch.zeros(2, count + 1, dtype=torch.float64, device=device)

    def add(self, groups: TieGroups) -> None:
        """Take in the queries of `groups`, rankings of N items."""
        self.queries += len(groups.sizes)
        found = groups.relevant / groups.sizes.clamp(min=1)
        total = groups.total[:, None].clamp(min=1)
        last = self._steps.shape[1] - 1
        start = groups.before.clamp(max=last).long().flatten()
        end = (groups.before + groups.sizes).clamp(max=last).long().flatten()
        for steps, added in zip(self._steps, (found, found / total), strict=True):
            steps.index_add_(0, start, added.flatten())
            steps.index_add_(0, end, -added.flatten())

    def precision(self) -> Tensor:
        """(N,) float64: mean over the queries of P@n."""
        places = torch.arange(1, self._steps.shape[1], device=self._steps.device)
        return self._sums(0) / places / max(self.queries, 1)

    def recall(self) -> Tensor:
        """(N,) float64: mean over the queries of the share of the relevant that is found."""
        return self._sums(1) / max(self.queries, 1)

    def _sums(self, row: int) -> Tensor:
        # Clamped, because a difference of sums may leave something like -1e-17.
        return self._steps[row, :-1].cumsum(0).clamp(min=0).cumsum(0)


def interpolated_precision(groups: TieGroups) -> Tensor:
    """(Q, 11): the highest precision at any rank of at least each of RECALL_LEVELS.

    The mean over the levels is 11-point AP. With ties: of the expected number found at each rank.
    A query with nothing relevant counts 0.
    """
    sizes, before, found = groups.sizes, groups.before, groups.found
    total = groups.total[:, None]
    rate = groups.relevant / sizes.clamp(min=1)
    first = (found + rate) / (before + 1) * (sizes > 0)
    end = (found + groups.relevant) / (before + sizes).clamp(min=1) * (sizes > 0)
    # Within a group precision only rises or only falls: its first and last place are the highest.
    best = torch.maximum(first, end).flip(1).cummax(dim=1).values.flip(1)
    later = torch.cat([best[:, 1:], torch.zeros_like(best[:, :1])], dim=1)
    columns = []
    for level in RECALL_LEVELS:
        wanted = (level * total - 1e-9).clamp(min=0)  # .3 · 10 is not 3 in binary
        # The group in which so many are found, and the first of its places where they are.
        column = ((found + groups.relevant) < wanted).sum(dim=1, keepdim=True)
        column = column.clamp(max=max(sizes.shape[1] - 1, 0))
        if not sizes.shape[1]:
            columns.append(torch.zeros_like(total[:, 0]))
            continue
        f, r, t = found.gather(1, column), rate.gather(1, column), before.gather(1, column)
        place = ((wanted - f) / r.clamp(min=1e-300)).ceil().clamp(min=1)
        place = place.minimum(sizes.gather(1, column).clamp(min=1))
        here = (f + r * place) / (t + place)
        highest = torch.maximum(here, end.gather(1, column)).maximum(later.gather(1, column))
        columns.append((highest * (total > 0))[:, 0])
    return torch.stack(columns, dim=1)


@dataclass(frozen=True, eq=False)
class WithinRadius:
    """What is found within each Hamming radius 0 … bits; (Q, bits + 1) float64.

    precision: relevant among the items within; an empty ball counts 0. recall: share of all
    relevant that is within. ap: AP of the ranking of the items within, divided by the relevant
    within; 0 where there are none.
    """

    precision: Tensor
    recall: Tensor
    ap: Tensor


def within_radius(groups: TieGroups) -> WithinRadius:
    """For groups with one column for each distance 0 … bits, as `counted_groups` makes them."""
    items, found = groups.sizes.cumsum(1), groups.relevant.cumsum(1)
    return WithinRadius(
        found / items.clamp(min=1),
        found / groups.total[:, None].clamp(min=1),
        precision_sum(groups).cumsum(1) / found.clamp(min=1),
    )
