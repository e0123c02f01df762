"""The similarity of pairs of images, by class or by labels in common."""

from __future__ import annotations

import torch
from torch import Tensor


def similar(targets: Tensor, others: Tensor | None = None) -> Tensor:
    """(B, N) bool: s_ij is true where i and j have the same class, or share at least one label.

    targets: (B,) integer classes, or (B, L) multi-hot labels. others: (N,) or (N, L); by default
    `targets`.
    """
    others = targets if others is None else others
    if targets.ndim == 1:
        return targets[:, None] == others[None, :]
    return (targets.float() @ others.float().T) > 0


def jaccard(targets: Tensor) -> Tensor:
    """(B, B) float32: |labels of both i and j| / |labels of i or j|, in [0, 1]; 0 without labels.

    targets: (B,) integer classes (1 where equal, else 0), or (B, L) multi-hot labels.
    """
    if targets.ndim == 1:
        return similar(targets).float()
    labels = (targets > 0).float()
    shared = labels @ labels.T
    count = labels.sum(dim=1)
    either = count[:, None] + count[None, :] - shared
    return shared / either.clamp(min=1)


def distinct_pairs(count: int, device: torch.device) -> Tensor:
    """(count, count) bool, true above the diagonal: each pair i < j once."""
    return torch.ones(count, count, dtype=torch.bool, device=device).triu(diagonal=1)
