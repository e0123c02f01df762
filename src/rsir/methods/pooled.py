"""The baseline: a plain backbone with pooling, untrained or fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from rsir.losses.contrastive import contrastive
from rsir.methods.base import Method, Output
from rsir.methods.options import Options
from rsir.nn.backbone import Backbone
from rsir.nn.pooling import POOLINGS, pooling


@dataclass(frozen=True)
class PooledOptions(Options):
    """Options of `pooled`.

    pooling: "gem", "spoc" or "mac".
    margin: τ of the contrastive loss; the default is that of `dual-attention`, for comparison.
    """

    pooling: str = "gem"
    margin: float = 0.9

    def __post_init__(self) -> None:
        self.require("pooling", self.pooling in POOLINGS, f"one of {', '.join(POOLINGS)}")
        # The distance of L2-normalised embeddings is at most 2.
        self.require("margin", 0 < self.margin <= 2, "above 0 and at most 2")


class Pooled(Method):
    """backbone → pooling → L2, trained with the contrastive loss."""

    title = "plain backbone + pooling, untrained or fine-tuned (the baseline)"
    options_type = PooledOptions

    def __init__(self, backbone: Backbone, options: PooledOptions, *, classes: int) -> None:
        super().__init__(backbone, options, classes=classes)
        self.pool = pooling(options.pooling)
        self.dimension = backbone.channels

    def forward(self, images: Tensor) -> Output:
        """(B, bands, H, W) → embedding (B, C), L2-normalised."""
        descriptor = self.pool(self.backbone(images))
        embedding = functional.normalize(descriptor.float(), dim=1)
        return Output(embedding)

    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """The contrastive loss over the batch's pairs."""
        return contrastive(output.embedding, targets, margin=self.options.margin)
