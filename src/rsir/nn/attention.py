"""Attention blocks: (B, C, h, w) → (B, C, h, w).

Attention weights are computed in float32 whatever the precision of the input: the products of
whole channels overflow float16 and lose the softmax's differences in bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Σ_i s_ji · values_i with s_ji = exp(queries_j · keys_i) / Σ_i exp(queries_j · keys_i).

    queries (B, J, D), keys (B, I, D), values (B, I, E) → (B, J, E), float32. The logits are not
    scaled by 1/√D, as neither paper A nor DANet does. The row maximum is subtracted before the
    exponential, so it does not overflow. Where torch's fused kernel applies, no J × I matrix is
    kept (for the 1280 or 2048 channels of a backbone that matrix is most of a step's memory and
    time): on CPUs where D = E, so between channels but not between positions; on GPUs that also
    depends on D and the device. Elsewhere torch makes the matrix; the values are the same.
    """
    with torch.autocast(queries.device.type, enabled=False):
        q, k, v = (t.float().unsqueeze(1).contiguous() for t in (queries, keys, values))
        return functional.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)


class SpatialSelfAttention(nn.Module):
    """P_j = α Σ_i s_ji L_i + F_j over the N = h·w positions (paper A, eqs 4 and 5; DANet).

    J, K and L are 1×1 convolutions of F; s_ji is the softmax over i of J_i · K_j. α is learnt
    and starts at 0, so that the block starts as the identity.

    reduction: J and K have C / reduction channels; 8 as in DANet (Fu et al. 2019, "Dual
    attention network for scene segmentation"): our choice, the paper keeps C.
    """

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.to_j = nn.Conv2d(channels, inner, kernel_size=1)
        self.to_k = nn.Conv2d(channels, inner, kernel_size=1)
        self.to_l = nn.Conv2d(channels, channels, kernel_size=1)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, h, w)."""
        j, k, values = (
            conv(features).flatten(2).transpose(1, 2)  # b c h w -> b (h w) c
            for conv in (self.to_j, self.to_k, self.to_l)
        )
        context = attend(queries=k, keys=j, values=values)
        return features + self.alpha * context.transpose(1, 2).reshape(features.shape)


class ChannelSelfAttention(nn.Module):
    """Q_j = β Σ_i x_ji F_i + F_j over the C channels (paper A, eqs 6 and 7; DANet).

    x_ji is the softmax over i of F_i · F_j; there is no convolution. β is learnt and starts at
    0, so that the block starts as the identity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, h, w)."""
        rows = features.flatten(2)  # b c h w -> b c (h w)
        context = attend(queries=rows, keys=rows, values=rows)
        return features + self.beta * context.reshape(features.shape)
