"""The residual attention of paper B: A' = (1 + H(x)) ∘ A (eq 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsir.errors import UsageError

SMALLEST_NORM = 1e-6
"""Smallest norm in a division: our choice."""
VARIANCE_EPSILON = 1e-5
"""Added to the variance in a division, as in batch norm: our choice. With much less, the gradients
of a constant channel overflow 16 bits."""


def mixed(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)) per element (eq 4)."""
    return torch.sigmoid(x)


def channel(x: Tensor) -> Tensor:
    """X / ‖x‖₂ over the channels of each position (eq 5). (B, C, h, w) float32."""
    return functional.normalize(x, dim=1, eps=SMALLEST_NORM)


def spatial(x: Tensor) -> Tensor:
    """The sigmoid of x standardised over the positions of each channel (eq 6).

    (B, C, h, w) float32. A constant channel, such as a single position, gives ½ everywhere.
    """
    centred = x - x.mean(dim=(2, 3), keepdim=True)
    variance = centred.square().mean(dim=(2, 3), keepdim=True)
    return torch.sigmoid(centred / (variance + VARIANCE_EPSILON).sqrt())


ACTIVATIONS = {"mixed": mixed, "channel": channel, "spatial": spatial}
"""The paper's names; its table 1 numbers them in another order than its equations."""


class ResidualUnit(nn.Module):
    """x + a pre-activated bottleneck of x, C / 4 channels wide (He et al. 2016; Wang et al. 2017).

    Its last convolution starts at zero, so that the unit starts as the identity: our choice.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.residual = nn.Sequential(
            *_activated_conv(channels, inner, 1),
            *_activated_conv(inner, inner, 3),
            *_activated_conv(inner, channels, 1),
        )
        nn.init.zeros_(self.residual[-1].weight)  # type: ignore[arg-type]  # a Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, h, w)."""
        out: Tensor = x + self.residual(x)
        return out


class SoftMask(nn.Module):
    """The soft mask branch of Wang et al. 2017 ("Residual attention network"), as in paper B.

    Bottom-up top-down: max-pool → residual unit → resize to the trunk's size, and add x, resized
    to that size too; then two 1 × 1 convolutions (C' → C' → C) and H. Bilinear interpolation,
    3 × 3 pooling with stride 2, and batch norm before each convolution as in Wang et al.
    """

    def __init__(self, in_channels: int, channels: int, *, activation: str = "mixed") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UsageError(f"activation {activation!r}: take one of {', '.join(ACTIVATIONS)}")
        self.activation = ACTIVATIONS[activation]
        self.down = nn.MaxPool2d(3, stride=2, padding=1)
        self.unit = ResidualUnit(in_channels)
        self.to_mask = nn.Sequential(
            *_activated_conv(in_channels, in_channels, 1),
            *_activated_conv(in_channels, channels, 1, bias=True),
        )

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """H of x (B, C', h', w') at the trunk's `size` (h, w): (B, C, h, w) float32."""
        context = _resized(self.unit(self.down(x)), size) + _resized(x, size)
        mask = self.to_mask(context)
        with torch.autocast(x.device.type, enabled=False):
            return self.activation(mask.float())


class ResidualAttention(nn.Module):
    """A' = (1 + H(x)) ∘ A (eq 7): the mask of the stage's input x on the stage's output A."""

    def __init__(self, in_channels: int, channels: int, *, activation: str = "mixed") -> None:
        super().__init__()
        self.mask = SoftMask(in_channels, channels, activation=activation)

    def forward(self, x: Tensor, trunk: Tensor) -> Tensor:
        """(1 + H(x)) ∘ A of x (B, C', h', w'), trunk A (B, C, h, w) → (B, C, h, w)."""
        attended: Tensor = (1 + self.mask(x, trunk.shape[2:])) * trunk
        return attended


def _activated_conv(
    in_channels: int, channels: int, kernel: int, *, bias: bool = False
) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=bias)
    return nn.BatchNorm2d(in_channels), nn.ReLU(), conv


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[2:] == size:
        return x
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
