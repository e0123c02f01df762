"""Global pooling descriptors: feature map (B, C, h, w) → (B, C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rsir.errors import UsageError

SMALLEST_ACTIVATION = 1e-6
"""Activations are clamped to this before a real power (Radenović et al. 2018, their code)."""


class SPoC(nn.Module):
    """Mean over positions (paper A, eq 1; Babenko and Lempitsky 2015)."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C)."""
        return features.mean(dim=(2, 3))


class MAC(nn.Module):
    """Maximum over positions (paper A, eq 2; Razavian et al. 2016)."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C)."""
        return features.amax(dim=(2, 3))


class GeM(nn.Module):
    """Generalised mean over positions, (mean o^p)^(1/p) (paper A, eq 3; Radenović et al. 2018).

    p = 1 is SPoC, p → ∞ is MAC. If `learnable`, p is learnt. It starts at 3: our choice, after
    Radenović et al. Computed in float32: a power of p loses too much precision in 16 bits.
    """

    def __init__(self, p: float = 3.0, *, learnable: bool = True) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(float(p)), requires_grad=learnable)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C), float32."""
        with torch.autocast(features.device.type, enabled=False):
            clamped = features.float().clamp(min=SMALLEST_ACTIVATION)
            return clamped.pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


POOLINGS = {"spoc": SPoC, "mac": MAC, "gem": GeM}


def pooling(name: str) -> nn.Module:
    """A new pooling module: "spoc", "mac" or "gem"; UsageError for another name."""
    if name not in POOLINGS:
        raise UsageError(f"pooling {name!r}: take one of {', '.join(POOLINGS)}")
    made: nn.Module = POOLINGS[name]()
    return made
