"""The contrastive loss of paper A, over all pairs of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.losses.pairs import distinct_pairs, similar


def contrastive(embedding: Tensor, targets: Tensor, *, margin: float) -> Tensor:
    """½·Y·d² + ½·(1−Y)·max(0, τ−d)², mean over the batch's pairs i < j, a scalar.

    Paper A, eq 8; Radenović et al. 2018, eq 4. (The ContrastiveLoss of pytorch-metric-learning
    differs: it does not square the distances.)

    embedding: (B, D), L2-normalised; B < 2 has no pair and gives 0.
    targets: (B,) classes or (B, L) multi-hot labels.
    margin: τ, a Euclidean distance like d, so between 0 and 2.
    """
    with torch.autocast(embedding.device.type, enabled=False):
        distance = pairwise_euclidean(embedding.float())
        pull = distance.square()
        push = (margin - distance).clamp(min=0).square()
        loss = 0.5 * torch.where(similar(targets), pull, push)
        pairs = distinct_pairs(len(embedding), embedding.device)
        return loss[pairs].sum() / pairs.sum().clamp(min=1)


def pairwise_euclidean(embedding: Tensor) -> Tensor:
    """(B, B) Euclidean distances of (B, D); the gradient is 0 where two rows are equal.

    Computed without a matrix product, whose d² = |a|² + |b|² − 2ab loses all digits for near rows,
    and without the (B, B, D) differences in memory.
    """
    return torch.cdist(embedding, embedding, compute_mode="donot_use_mm_for_euclid_dist")
