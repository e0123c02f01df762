"""Paper A: dual attention + GeM.

Chen Guangming, Wang Zhuowei, Chen Liyi, Qiu Junhao, He Junlin: "A dual attention deep neural
network for remote sensing image retrieval" (in Chinese), Computer Science and Application
11(3), 515–524, 2021, doi 10.12677/csa.2021.113052.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from rsir.losses.contrastive import contrastive
from rsir.methods.base import Method, Output
from rsir.methods.options import Options
from rsir.nn.attention import ChannelSelfAttention, SpatialSelfAttention
from rsir.nn.backbone import Backbone
from rsir.nn.pooling import POOLINGS, pooling

BRANCHES = {
    "dual": ("spatial", "channel"),
    "spatial": ("spatial",),
    "channel": ("channel",),
    "none": (),
}


@dataclass(frozen=True)
class DualAttentionOptions(Options):
    """Options of `dual-attention`.

    attention: "dual" (the paper), or one branch alone, "spatial" or "channel"; "none" removes both
    branches and the fusing convolution.
    pooling: "gem" (the paper), "spoc" or "mac".
    reduction: J and K have C / reduction channels; 8, our choice as in DANet.
    fusion_kernel: side of the fusing convolution (1, 3, …); 1, our choice: the paper says only
    "a convolution".
    margin: τ of the contrastive loss; 0.9, our choice: the paper gives none.
    """

    attention: str = "dual"
    pooling: str = "gem"
    reduction: int = 8
    fusion_kernel: int = 1
    margin: float = 0.9

    def __post_init__(self) -> None:
        known = self.attention in BRANCHES
        self.require("attention", known, f"one of {', '.join(BRANCHES)}")
        self.require("pooling", self.pooling in POOLINGS, f"one of {', '.join(POOLINGS)}")
        self.require("reduction", self.reduction >= 1, "at least 1")
        odd = self.fusion_kernel >= 1 and self.fusion_kernel % 2 == 1
        self.require("fusion_kernel", odd, "an odd number, at least 1")
        # The distance of L2-normalised embeddings is at most 2.
        self.require("margin", 0 < self.margin <= 2, "above 0 and at most 2")


class DualAttention(Method):
    """backbone → spatial + channel self-attention → conv → GeM → L2 (figs 1 and 2)."""

    title = "dual attention + GeM, contrastive loss (Chen et al. 2021)"
    options_type = DualAttentionOptions

    def __init__(self, backbone: Backbone, options: DualAttentionOptions, *, classes: int) -> None:
        super().__init__(backbone, options, classes=classes)
        channels = backbone.channels
        branches = BRANCHES[options.attention]
        if "spatial" in branches:
            self.spatial = SpatialSelfAttention(channels, reduction=options.reduction)
        if "channel" in branches:
            self.channel = ChannelSelfAttention()
        if branches:
            self.fuse = averaging_conv(channels, options.fusion_kernel, branches=len(branches))
        self.branches = [getattr(self, name) for name in branches]
        self.pool = pooling(options.pooling)
        self.dimension = channels

    def forward(self, images: Tensor) -> Output:
        """(B, bands, H, W) → embedding (B, C), L2-normalised."""
        features = self.backbone(images)
        attended = self.attend(features)
        descriptor = self.pool(attended)
        embedding = functional.normalize(descriptor.float(), dim=1)
        return Output(embedding)

    def attend(self, features: Tensor) -> Tensor:
        """O = conv(P + Q), of the chosen branches; without branches F itself."""
        if not self.branches:
            return features
        attended: Tensor = self.fuse(sum(branch(features) for branch in self.branches))
        return attended

    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """The contrastive loss over the batch's pairs (eq 8)."""
        return contrastive(output.embedding, targets, margin=self.options.margin)


def averaging_conv(channels: int, kernel: int, *, branches: int) -> nn.Conv2d:
    """A C → C convolution, initialised as identity / branches.

    With α = β = 0 both branches start as F. So O = ½·(P + Q) starts as F, and training starts from
    the backbone's own descriptor instead of a random projection of it: our choice.
    """
    conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
    nn.init.dirac_(conv.weight)
    conv.weight.data.div_(branches)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
