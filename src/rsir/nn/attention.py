"""Attention blocks: (B, C, h, w) → (B, C, h, w).

Attention weights are computed in float32 at any input precision: products of whole channels
overflow float16, and bfloat16 loses the differences that the softmax needs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Σ_i s_ji · values_i with s_ji = exp(queries_j · keys_i) / Σ_i exp(queries_j · keys_i).

    queries (B, J, D), keys (B, I, D), values (B, I, E) → (B, J, E), float32. The logits are not
    scaled by 1/√D, as in paper A and DANet. The row maximum is subtracted before the exponential,
    which therefore does not overflow. torch's fused kernel keeps no J × I matrix, which for the
    1280 or 2048 channels of a backbone would take most of a step's memory and time. It applies on
    CPUs where D = E, so between channels but not between positions; on GPUs it also depends on D
    and the device. Elsewhere torch computes the matrix; the values are the same.
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


class JointAttention(nn.Module):
    """g_sp = A_sp · (A_ch · g): channel, then spatial attention (paper C, eqs 1 to 4).

    A_ch = σ(W2(W1(max + mean over positions))): the sum comes before the MLP, where CBAM sums
    after it. A_sp = σ(conv 1×1 [max; mean over the channels of A_ch · g]).

    reduction: W1 gives C / reduction channels (at least 1), then a ReLU: 16 and the ReLU as in
    CBAM, our choice: the paper specifies neither.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = bottleneck(channels, reduction)
        self.conv = nn.Conv2d(2, 1, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, h, w), float32."""
        with torch.autocast(features.device.type, enabled=False):
            g = features.float()
            g_ch = torch.sigmoid(self.mlp(g.amax((2, 3)) + g.mean((2, 3))))[:, :, None, None] * g
            return torch.sigmoid(self.conv(max_and_mean(g_ch))) * g_ch


class SqueezeExcitation(nn.Module):
    """σ(W2 ReLU(W1 mean)) · g (Hu et al. 2018), which paper C compares with its attention.

    reduction: W1 gives C / reduction channels (at least 1); 16 as in Hu et al.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = bottleneck(channels, reduction)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, h, w), float32."""
        with torch.autocast(features.device.type, enabled=False):
            g = features.float()
            return torch.sigmoid(self.mlp(g.mean((2, 3))))[:, :, None, None] * g


class CBAM(nn.Module):
    """x · A_ch · A_sp (paper E, eqs 1 to 3; Woo et al. 2018).

    A_ch = σ(MLP(max over positions) + MLP(mean over positions)), one MLP for both.
    A_sp = σ(conv 7×7 [max; mean over the channels of A_ch · x]) as in Woo et al.: eq 2 of paper E
    is garbled. No batch norm after that convolution: our choice, neither paper mentions one.

    reduction: the MLP is C / reduction wide (at least 1); 16 as in Woo et al.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = bottleneck(channels, reduction)
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, h, w), float32."""
        with torch.autocast(features.device.type, enabled=False):
            x = features.float()
            a_ch = torch.sigmoid(self.mlp(x.amax((2, 3))) + self.mlp(x.mean((2, 3))))
            x_ch = a_ch[:, :, None, None] * x
            return torch.sigmoid(self.conv(max_and_mean(x_ch))) * x_ch


def bottleneck(channels: int, reduction: int) -> nn.Sequential:
    """(B, C) → (B, C): W2(ReLU(W1 x)), C / reduction wide, at least 1."""
    inner = max(1, channels // reduction)
    return nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))


def max_and_mean(features: Tensor) -> Tensor:
    """[max; mean] over the channels: (B, C, h, w) → (B, 2, h, w)."""
    return torch.cat((features.amax(1, keepdim=True), features.mean(1, keepdim=True)), dim=1)
