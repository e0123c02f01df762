"""The losses of the hashing papers C and E, for relaxed codes h (B, bits) in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rsir.losses.pairs import distinct_pairs


def pairwise_likelihood(
    relaxed: Tensor, similarity: Tensor, *, scale: float, balanced: bool
) -> Tensor:
    """Mean over the pairs i < j of w_ij · (log(1 + e^I_ij) − s_ij · I_ij), a scalar.

    Paper C, eqs 7 to 9; with w = 1 and scale ½ our reading of paper E's first term. It is the
    negative log-likelihood of s_ij under P(s_ij = 1) = σ(I_ij). The paper sums; the mean over pairs
    is our choice, because it does not depend on the batch size. A batch of one gives 0.

    relaxed: h (B, bits); I_ij = scale · ⟨h_i, h_j⟩.
    similarity: s (B, B) in [0, 1], symmetric.
    balanced: w_ij = |Ω| / |Ω_1| where s_ij > 0, else |Ω| / |Ω_2| (eq 8), counted in the batch:
    similar pairs have the same total weight as dissimilar pairs. Otherwise w_ij = 1.
    """
    with torch.autocast(relaxed.device.type, enabled=False):
        h, s = relaxed.float(), similarity.float()
        product = scale * (h @ h.T)
        pairs = distinct_pairs(len(h), h.device)
        # The formula above, in a form that does not overflow.
        terms = functional.binary_cross_entropy_with_logits(product, s, reduction="none")
        total = pairs.sum()
        if balanced:
            alike = (s > 0) & pairs
            similar, dissimilar = alike.sum(), total - alike.sum()
            weight = torch.where(
                s > 0, total / similar.clamp(min=1), total / dissimilar.clamp(min=1)
            )
            terms = weight * terms
        return terms[pairs].sum() / total.clamp(min=1)


def quantisation(relaxed: Tensor, *, power: int) -> Tensor:
    """Mean over images of Σ_bits |h − b|^power with b = sign(h), a scalar.

    power 3: paper C, eq 11. power 2: our reading of paper E's second term (our choice).
    b is a constant here: a straight-through gradient of b would cancel the gradient of h.
    """
    with torch.autocast(relaxed.device.type, enabled=False):
        # |h − sign h| = |1 − |h||, for any definition of sign(0).
        return (1 - relaxed.float().abs()).abs().pow(power).sum(dim=1).mean()
