"""Curves over all queries: precision and recall against rank, recall level or Hamming radius."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rsir.evaluation.metrics.binary import precision_sum
from rsir.evaluation.metrics.groups import TieGroups

RECALL_LEVELS = tuple(level / 10 for level in range(11))
"""Recall levels of the 11-point curve (TREC; Manning et al., "Introduction to information
retrieval", 8.4)."""


class RankCurve:
    """Mean precision and mean recall among the first n items, n = 1 … N.

    Queries are added block by block; the memory is O(N). With ties: expected values.
    A query without relevant items has recall 0.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.queries = 0
        # Second differences, by rank, of the items found (for precision) and of recall.
        self._steps = torch.zeros(2, count + 1, dtype=torch.float64, device=device)

    def add(self, groups: TieGroups) -> None:
        """Add the queries of `groups`, rankings of N items."""
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
        ranks = torch.arange(1, self._steps.shape[1], device=self._steps.device)
        return self._sums(0) / ranks / max(self.queries, 1)

    def recall(self) -> Tensor:
        """(N,) float64: mean over the queries of the share of relevant items found."""
        return self._sums(1) / max(self.queries, 1)

    def _sums(self, row: int) -> Tensor:
        # Clamped, because rounding of differences may leave something like -1e-17.
        return self._steps[row, :-1].cumsum(0).clamp(min=0).cumsum(0)


def interpolated_precision(groups: TieGroups) -> Tensor:
    """(Q, 11): for each of RECALL_LEVELS the highest precision at any rank of that recall or more.

    The mean over the levels is 11-point AP. With ties: computed from the expected number of items
    found at each rank. A query without relevant items counts 0.
    """
    sizes, before, found = groups.sizes, groups.before, groups.found
    total = groups.total[:, None]
    rate = groups.relevant / sizes.clamp(min=1)
    first = (found + rate) / (before + 1) * (sizes > 0)
    end = (found + groups.relevant) / (before + sizes).clamp(min=1) * (sizes > 0)
    # Within a group precision is monotonic: it is highest at the first or at the last rank.
    best = torch.maximum(first, end).flip(1).cummax(dim=1).values.flip(1)
    later = torch.cat([best[:, 1:], torch.zeros_like(best[:, :1])], dim=1)
    columns = []
    for level in RECALL_LEVELS:
        wanted = (level * total - 1e-9).clamp(min=0)  # .3 · 10 is not 3 in binary
        # The group in which recall reaches the level, and the first rank of it that does.
        column = ((found + groups.relevant) < wanted).sum(dim=1, keepdim=True)
        column = column.clamp(max=max(sizes.shape[1] - 1, 0))
        if not sizes.shape[1]:
            columns.append(torch.zeros_like(total[:, 0]))
            continue
        f, r, t = found.gather(1, column), rate.gather(1, column), before.gather(1, column)
        rank = ((wanted - f) / r.clamp(min=1e-300)).ceil().clamp(min=1)
        rank = rank.minimum(sizes.gather(1, column).clamp(min=1))
        here = (f + r * rank) / (t + rank)
        highest = torch.maximum(here, end.gather(1, column)).maximum(later.gather(1, column))
        columns.append((highest * (total > 0))[:, 0])
    return torch.stack(columns, dim=1)


@dataclass(frozen=True, eq=False)
class WithinRadius:
    """Measures of the items within each Hamming radius 0 … bits; (Q, bits + 1) float64.

    precision: share of the items within that is relevant; an empty ball counts 0. recall: share of
    all relevant items that is within. ap: AP of the ranking of the items within, divided by the
    number of relevant items within; 0 if there are none.
    """

    precision: Tensor
    recall: Tensor
    ap: Tensor


def within_radius(groups: TieGroups) -> WithinRadius:
    """The measures of groups with one column per distance 0 … bits, from `counted_groups`."""
    items, found = groups.sizes.cumsum(1), groups.relevant.cumsum(1)
    return WithinRadius(
        found / items.clamp(min=1),
        found / groups.total[:, None].clamp(min=1),
        precision_sum(groups).cumsum(1) / found.clamp(min=1),
    )
