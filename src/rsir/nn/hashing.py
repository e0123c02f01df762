"""Hash codes of a descriptor: relaxed codes in [-1, 1] and their signs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def binary_sign(relaxed: Tensor) -> Tensor:
    """The codes b = sign(h) in {−1, +1} (paper C, eq 10), with the gradient of the identity.

    sign(0) = −1, so that b and the stored bit h > 0 (paper E, eq 5) always agree. The gradient
    passes straight through (Bengio et al. 2013): our choice; the sign's own gradient is 0.
    """
    codes = torch.where(relaxed > 0, 1.0, -1.0).to(relaxed.dtype)
    return codes.detach() + (relaxed - relaxed.detach())


class HashLayer(nn.Module):
    """h = tanh(FC(x)) (paper C, eq 5; paper E, eq 4), in float32 at any precision.

    batch_norm: standardise each bit over the batch before the tanh: our choice. Pooled descriptors
    of all images are mostly alike, so without it a fresh layer gives all images nearly the same
    code, which a quantisation loss soon fixes.
    """

    def __init__(self, features: int, bits: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(features, bits)
        self.norm = nn.BatchNorm1d(bits) if batch_norm else nn.Identity()

    def forward(self, descriptor: Tensor) -> Tensor:
        """(B, features) → the relaxed codes h (B, bits), float32 in [-1, 1]."""
        with torch.autocast(descriptor.device.type, enabled=False):
            return torch.tanh(self.norm(self.fc(descriptor.float())))
