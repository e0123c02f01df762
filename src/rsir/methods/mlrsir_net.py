"""Paper E: MLRSIR-NET, hash codes for images with several labels.

Marwa Sayed Moustafa, Sayed Ahmed, Amal Ahmed Hamed: "Learning to hash with convolutional network
for multi-label remote sensing image retrieval".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsir.losses.hashing import pairwise_likelihood, quantisation
from rsir.losses.pairs import jaccard, similar
from rsir.methods.base import Method, Output
from rsir.methods.options import Options
from rsir.nn.attention import CBAM
from rsir.nn.backbone import Backbone
from rsir.nn.hashing import HashLayer
from rsir.nn.levels import feature_maps, level_channels
from rsir.nn.pooling import SPoC

LEVELS = {"multi": 3, "single": 1}
"""Number of last stages whose maps are used; 3 is our choice: the paper gives no number."""
OVERLAPS = {"none": similar, "jaccard": jaccard}


@dataclass(frozen=True)
class MLRSIRNetOptions(Options):
    """Options of `mlrsir-net`; the paper prints neither the terms of its loss nor their weights.

    bits: κ, length of the code; the paper has 12, 24, 32, 36 and 48.
    levels: "multi" (the paper, the last 3 stages) or "single" (the last one).
    cbam: whether CBAM attention is applied. reduction: its MLP is C / reduction wide; 16 as in Woo
    et al. 2018.
    hidden: width of the first FC; 500 in the paper.
    batch_norm: standardise each bit before the tanh; our choice (`rsir.nn.hashing.HashLayer`).
    overlap: s_ij of two images with a label in common: "none", 1 (the paper), or "jaccard", the
    share of their labels in common, our choice: the more labels a pair shares, the more bits of
    its codes agree.
    balanced: similar pairs have the same total weight as dissimilar pairs; our choice, after
    paper C.
    scale: I_ij = scale · ⟨h_i, h_j⟩; ½, our choice, as in DPSH (Li et al. 2016).
    quantisation: weight of the quantisation loss; 0.03, our choice as in `dah`. Eq 6 has no weight,
    but a weight of 1 soon fixes the initial signs of h.
    """

    bits: int = 48
    levels: str = "multi"
    cbam: bool = True
    reduction: int = 16
    hidden: int = 500
    batch_norm: bool = True
    overlap: str = "none"
    balanced: bool = True
    scale: float = 0.5
    quantisation: float = 0.03

    def __post_init__(self) -> None:
        self.require("levels", self.levels in LEVELS, f"one of {', '.join(LEVELS)}")
        self.require("overlap", self.overlap in OVERLAPS, f"one of {', '.join(OVERLAPS)}")
        for name in ("bits", "reduction", "hidden"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("scale", 0 < self.scale < float("inf"), "above 0 and finite")
        weighs = 0 <= self.quantisation < float("inf")
        self.require("quantisation", weighs, "at least 0 and finite")


class MLRSIRNet(Method):
    """Maps of several levels → CBAM → mean → FC → ReLU → FC → tanh = h (fig. 1).

    The maps are averaged to the size of the deepest map and concatenated, and the attended map is
    averaged over its positions: our choices, the paper specifies neither. A ReLU follows the first
    FC, as in section 4.2; eq 4 has a tanh there.

    The paper trains with SGD, learning rate 1e-5, momentum 0.9, weight decay 5e-4, batches of 32
    and images of 100 × 100; our choice is the trainer's defaults.
    """

    title = "multi-label hash codes, multi-level features + CBAM (MLRSIR-NET, Moustafa et al.)"
    ranking = "hamming"
    options_type = MLRSIRNetOptions

    def __init__(self, backbone: Backbone, options: MLRSIRNetOptions, *, classes: int) -> None:
        super().__init__(backbone, options, classes=classes)
        self.levels = LEVELS[options.levels]
        channels = sum(level_channels(backbone, self.levels))
        self.attention: nn.Module = nn.Identity()
        if options.cbam:
            self.attention = CBAM(channels, reduction=options.reduction)
        self.pool = SPoC()
        self.fc = nn.Linear(channels, options.hidden)
        self.hash = HashLayer(options.hidden, options.bits, batch_norm=options.batch_norm)
        self.dimension = options.bits

    def forward(self, images: Tensor) -> Output:
        """(B, bands, H, W) → embedding h (B, bits)."""
        maps = feature_maps(self.backbone, images, self.levels)
        attended = self.attention(concatenated(maps))
        descriptor = self.pool(attended.float())
        h = self.hash(functional.relu(self.fc(descriptor)))
        return Output(h)

    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """Similarity-preserving + quantisation (eq 6); targets (B, L) labels or (B,) classes."""
        h, options = output.embedding, self.options
        similarity = OVERLAPS[options.overlap](targets).float()
        preserving = pairwise_likelihood(
            h, similarity, scale=options.scale, balanced=options.balanced
        )
        loss: Tensor = preserving + options.quantisation * quantisation(h, power=2)
        return loss


def concatenated(maps: list[Tensor]) -> Tensor:
    """Maps (B, C_l, h_l, w_l) → (B, ΣC_l, h, w), averaged to h × w of the last map."""
    size = maps[-1].shape[2], maps[-1].shape[3]
    return torch.cat([functional.adaptive_avg_pool2d(m.float(), size) for m in maps], dim=1)
