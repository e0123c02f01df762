"""Learnt transformations of the input image (paper D; Jaderberg et al. 2015).

A small network predicts the parameters from the image; the transformations start as the identity.
All are computed in float32 at any precision of the network: a position in an image of 224 pixels
needs more than the 8 or 11 bits of 16-bit floats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The affine parameters (row by row) that leave every position where it is."""


class ParameterNetwork(nn.Module):
    """2 × (conv → max-pool → ReLU) → MLP with one hidden layer → parameters (paper D, section 2).

    start: the initial output for every image: the last layer starts with zero weights.
    size: side in pixels of the reduced input image: our choice, which makes the network small (the
    paper calls it lightweight) and independent of the image size.
    scale: factor on the last layer's output (not on `start`): it sets how fast the parameters leave
    `start`; 1 as in the paper.

    The paper gives no layer sizes. Ours are those of PyTorch's tutorial on spatial transformers: 8
    filters of 7 × 7, 10 of 5 × 5, 32 hidden units; with padding, so that no border is lost.
    """

    def __init__(
        self, start: Sequence[float], *, bands: int = 3, size: int = 64, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.size = size
        self.scale = scale
        self.convs = nn.Sequential(
            nn.Conv2d(bands, 8, kernel_size=7, padding=3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(8, 10, kernel_size=5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        self.hidden = nn.Linear(10 * (size // 4) ** 2, 32)
        self.last = nn.Linear(32, len(start))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.start: Tensor
        self.register_buffer("start", torch.tensor(start), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, bands, H, W) → (B, len(start)), float32."""
        sides = (self.size, self.size)
        with torch.autocast(images.device.type, enabled=False):
            small = functional.interpolate(images.float(), sides, mode="bilinear", antialias=True)
            hidden = functional.relu(self.hidden(self.convs(small).flatten(1)))
            parameters: Tensor = self.start + self.scale * self.last(hidden)
        return parameters


def spatial_transform(images: Tensor, affine: Tensor) -> Tensor:
    """Each image through its own affine window, sampled bilinearly (paper D).

    images (B, C, H, W); affine (B, 6), rows (a, b, c), (d, e, f) of the matrix that takes output
    positions to input positions, (x, y) ↦ (ax + by + c, dx + ey + f), where -1 and 1 are the
    outer edges of the image, x to the right and y downwards → (B, C, H, W), float32.

    ±1 are the edges of the image, not the centres of its outermost pixels (`align_corners`), so
    that a matrix means the same at every size; the identity returns the image, up to rounding.
    Beyond the edge the image is mirrored: our choice, the paper does not specify it. Mirroring
    looks like land; zeros would draw a frame and repeated edge pixels stripes.
    """
    with torch.autocast(images.device.type, enabled=False):
        size = list(images.shape)
        grid = functional.affine_grid(affine.float().view(-1, 2, 3), size, align_corners=False)
        return functional.grid_sample(
            images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )


def radiometric_transform(images: Tensor, gains: Tensor, bias: Tensor) -> Tensor:
    """gain_c · x + bias at every pixel x of band c, the bias shared by the bands (paper D).

    images (B, C, H, W), gains (B, C), bias (B, 1) → (B, C, H, W), float32.
    """
    return images.float() * gains.float()[:, :, None, None] + bias.float()[:, :, None, None]
