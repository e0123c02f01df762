"""Ranked relevance → numbers. Each measure says which definition it is.

Every function takes `relevant` (Q, N) bool: row q says of each gallery item, best first, whether
it is relevant to query q; the query itself is not among them. `totals` (Q,) is the number of
relevant items in the whole gallery, which is more than a row's sum if the ranking was cut.
Results are (Q,) float64, one value per query, on the device of `relevant`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.errors import UsageError


def average_precision(relevant: Tensor, totals: Tensor | None = None) -> Tensor:
    """AP over the whole ranking: (1/R) Σ_{i relevant} P(i), R = all relevant in the gallery.

    P(i) is the share of relevant items among the first i (paper A, eqs 10–12). A query with
    R = 0 counts 0. Raises UsageError if a row holds more relevant items than `totals` says.
    """
    found = relevant.cumsum(dim=1, dtype=torch.float64)
    ranks = torch.arange(1, relevant.shape[1] + 1, dtype=torch.float64, device=relevant.device)
    summed = (found / ranks * relevant).sum(dim=1)
    held = relevant.sum(dim=1)
    totals = held if totals is None else totals
    if bool((held > totals).any()):
        raise UsageError("a ranking holds more relevant items than its gallery")
    return summed / totals.clamp(min=1)


def precision_at_k(relevant: Tensor, k: int) -> Tensor:
    """P@k: relevant items among the first k, divided by k, also where the gallery is smaller."""
    return relevant[:, : _positive(k)].sum(dim=1, dtype=torch.float64) / k


def hit_at_k(relevant: Tensor, k: int) -> Tensor:
    """R@k as metric learning has it: 1 if any of the first k is relevant, else 0.

    (The share of all relevant items found, the other "recall", is not this.)
    """
    return relevant[:, : _positive(k)].any(dim=1).double()


def _positive(k: int) -> int:
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    return k
