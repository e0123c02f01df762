"""The curves of an evaluation, as means over its queries."""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.evaluation.metrics.curves import RECALL_LEVELS, RankCurve, interpolated_precision
from rsir.evaluation.ranked_block import RankedBlock


class MeanCurves:
    """The curves of an evaluation, accumulated block by block.

    `to_dict` gives "retrieved" {"k", "precision", "recall"}: means over the queries among the first
    k; "precision_recall" {"recall", "precision"}: the same values, one against the other;
    "interpolated" {"recall", "precision"}: 11 points; for hash codes "radius" {"radius",
    "precision", "recall", "map"}: within each Hamming radius.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.by_rank = RankCurve(count, device)
        self.interpolated = torch.zeros(len(RECALL_LEVELS), dtype=torch.float64, device=device)
        self.radius: list[Tensor] = []

    def add(self, ranked: RankedBlock) -> None:
        """Add a block of queries."""
        self.by_rank.add(ranked.groups)
        self.interpolated += interpolated_precision(ranked.groups).sum(dim=0)
        if ranked.within is not None:
            within = ranked.within
            means = [v.sum(dim=0) for v in (within.precision, within.recall, within.ap)]
            self.radius.append(torch.stack(means))

    def to_dict(self) -> dict[str, dict[str, list[float]]]:
        """The curves as plain lists."""
        precision, recall = self.by_rank.precision(), self.by_rank.recall()
        ranks = _shown_ranks(len(precision))
        at = torch.tensor(ranks, device=precision.device) - 1
        p, r = precision[at].tolist(), recall[at].tolist()
        queries = self.by_rank.queries
        found = {
            "retrieved": {"k": [float(k) for k in ranks], "precision": p, "recall": r},
            "precision_recall": {"recall": r, "precision": p},
            "interpolated": {
                "recall": list(RECALL_LEVELS),
                "precision": (self.interpolated / queries).tolist(),
            },
        }
        if self.radius:
            within = torch.stack(self.radius).sum(dim=0) / queries
            radii = [float(r) for r in range(within.shape[1])]
            names = ("precision", "recall", "map")
            found["radius"] = {"radius": radii, **dict(zip(names, within.tolist(), strict=True))}
        return found


def _shown_ranks(count: int) -> list[int]:
    """The ranks of 1 … count that a curve shows: the first hundred, then 1 % apart."""
    ranks = list(range(1, min(count, 100) + 1))
    while ranks[-1] < count:
        ranks.append(min(count, int(ranks[-1] * 1.01) + 1))
    return ranks
