"""Paper C: DAH, hash codes with joint attention and distance-adaptive ranking.

Yichao Zhang, Xiangtao Zheng, Xiaoqiang Lu: "Remote sensing image retrieval by deep attention
hashing with distance-adaptive ranking", IEEE JSTARS, 2023, doi 10.1109/JSTARS.2023.3271303.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from rsir.errors import UsageError
from rsir.losses.hashing import pairwise_likelihood, quantisation
from rsir.losses.pairs import similar
from rsir.methods.base import Method, Output
from rsir.methods.options import Options
from rsir.nn.attention import JointAttention, SqueezeExcitation
from rsir.nn.backbone import Backbone
from rsir.nn.hashing import HashLayer, binary_sign

ATTENTIONS = {"joint": JointAttention, "se": SqueezeExcitation}


@dataclass(frozen=True)
class DAHOptions(Options):
    """Options of `dah`. The paper's ablations: DAH-A is attention=none, DAH-D is ranking=hamming.

    bits: length of the code; the paper has 16, 32, 48 and 64.
    attention: "joint" (the paper), "se" (its comparison) or "none".
    reduction: the attention's MLP is C / reduction wide; 16, our choice.
    grid: the attended map is averaged to grid × grid cells and flattened for the FC; 1, our choice
    (any image size, fewest weights). The paper flattens the whole map.
    batch_norm: standardise each bit before the tanh; our choice (`rsir.nn.hashing.HashLayer`).
    scale: I_ij = scale · ⟨h_i, h_j⟩; 1 in the paper.
    alpha: weight of the quantisation loss; 0.03, our choice. The paper has 1, with a sum over the
    pairs; with our mean, 1 soon fixes the initial signs of h.
    beta: weight of the classification loss; 1 as in the paper, though L_w is a mean here.
    ranking: "adaptive-hamming" (the paper) or "hamming".
    """

    bits: int = 64
    attention: str = "joint"
    reduction: int = 16
    grid: int = 1
    batch_norm: bool = True
    scale: float = 1.0
    alpha: float = 0.03
    beta: float = 1.0
    ranking: str = "adaptive-hamming"

    def __post_init__(self) -> None:
        self.require("bits", self.bits >= 1, "at least 1")
        attentions = (*ATTENTIONS, "none")
        self.require("attention", self.attention in attentions, f"one of {', '.join(attentions)}")
        self.require("reduction", self.reduction >= 1, "at least 1")
        self.require("grid", self.grid >= 1, "at least 1")
        self.require("scale", 0 < self.scale < float("inf"), "above 0 and finite")
        for weight in ("alpha", "beta"):
            self.require(weight, 0 <= getattr(self, weight) < float("inf"), "at least 0 and finite")
        rankings = ("adaptive-hamming", "hamming")
        self.require("ranking", self.ranking in rankings, f"one of {', '.join(rankings)}")


class DAH(Method):
    """backbone → channel–spatial attention → FC → tanh = h → sign = b → classifier (fig. 3).

    The paper trains with SGD, learning rate 0.01, momentum 0.9, weight decay 5e-4, batches of 36
    and 30 epochs; our choice is the trainer's defaults.
    """

    title = "hash codes, joint attention, distance-adaptive ranking (DAH, Zhang et al. 2023)"
    ranking = "adaptive-hamming"
    options_type = DAHOptions
    multi_label = False

    def __init__(self, backbone: Backbone, options: DAHOptions, *, classes: int) -> None:
        super().__init__(backbone, options, classes=classes)
        channels = backbone.channels
        self.attention: nn.Module = nn.Identity()
        if options.attention != "none":
            self.attention = ATTENTIONS[options.attention](channels, reduction=options.reduction)
        self.pool = nn.AdaptiveAvgPool2d(options.grid)
        self.hash = HashLayer(
            channels * options.grid**2, options.bits, batch_norm=options.batch_norm
        )
        self.classifier = nn.Linear(options.bits, classes, bias=False)  # θᵀb, eq 12
        self.dimension = options.bits
        self.ranking = options.ranking

    def forward(self, images: Tensor) -> Output:
        """(B, bands, H, W) → embedding h (B, bits), logits θᵀb (B, K) of the codes b = sign(h)."""
        features = self.backbone(images)
        attended = self.attention(features)
        pooled = self.pool(attended.float()).flatten(1)
        h = self.hash(pooled)
        b = binary_sign(h)
        return Output(h, logits=self.classifier(b).float())

    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """L_w + α·L_q + β·L_class (eq 13); targets (B,), one class per image."""
        if targets.ndim != 1:
            raise UsageError("dah learns one class per image, not several labels")
        h, logits = output
        assert logits is not None
        preserving = pairwise_likelihood(
            h, similar(targets), scale=self.options.scale, balanced=True
        )
        classification = functional.cross_entropy(logits, targets)
        alpha, beta = self.options.alpha, self.options.beta
        loss: Tensor = preserving + alpha * quantisation(h, power=3) + beta * classification
        return loss
