"""Paper B: EARA, an ensemble of residual attention and pooling descriptors.

Cheng Qimin, Gan Deqiao, Fu Peng, Huang Haiyan, Zhou Yuzhuo: "A novel ensemble architecture of
residual attention-based deep metric learning for remote sensing image retrieval", Remote Sensing
13, 3445, 2021, doi 10.3390/rs13173445.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsir.losses.metric_learning import LOSSES, MetricLearningLoss
from rsir.methods.base import Method, Output
from rsir.methods.options import Options
from rsir.nn.backbone import Backbone
from rsir.nn.pooling import MAC, GeM, SPoC
from rsir.nn.residual_attention import ACTIVATIONS, ResidualAttention
from rsir.nn.stages import ReplicatedStages

DESCRIPTORS: dict[str, Callable[[], nn.Module]] = {
    "S": SPoC,
    "M": MAC,
    "G": lambda: GeM(3.0, learnable=False),
}
"""SPoC, MAC, and GeM with fixed p = 3 (section 3.1.1)."""
COMBINATIONS = ("S", "M", "G", "SM", "SG", "MG", "SGM")


@dataclass(frozen=True)
class EARAOptions(Options):
    """Options of `eara`.

    descriptors: one submodule per letter; "S", "M", "G", "SM", "SG" (the paper's default), "MG",
    "SGM".
    activation: H of the soft mask, "mixed" (default), "channel" or "spatial"; "none" removes the
    residual attention.
    dimension: D of the embedding, split evenly over the submodules; 1536 (the paper's default) or
    512.
    loss: "triplet" (batch-hard, default), "n-pairs", "proxy-nca" or "lifted".
    margin: of the triplet loss; 0.1. temperature: of the softmax losses; 0.5.
    """

    descriptors: str = "SG"
    activation: str = "mixed"
    dimension: int = 1536
    loss: str = "triplet"
    margin: float = 0.1
    temperature: float = 0.5

    def __post_init__(self) -> None:
        known = self.descriptors in COMBINATIONS
        self.require("descriptors", known, f"one of {', '.join(COMBINATIONS)}")
        activations = (*ACTIVATIONS, "none")
        known = self.activation in activations
        self.require("activation", known, f"one of {', '.join(activations)}")
        parts = len(self.descriptors)
        splits = self.dimension >= parts and self.dimension % parts == 0
        self.require("dimension", splits, f"a positive multiple of {parts}")
        self.require("loss", self.loss in LOSSES, f"one of {', '.join(LOSSES)}")
        # The squared distance of L2-normalised embeddings is at most 4.
        self.require("margin", 0 < self.margin <= 4, "above 0 and at most 4")
        self.require("temperature", 0 < self.temperature <= 100, "above 0 and at most 100")


class EARA(Method):
    """stages 1–3 → n × (stage 4 ∘ residual attention → descriptor → FC → L2) → concat → L2."""

    title = "EARA: residual attention, ensemble of descriptors (Cheng et al. 2021)"
    options_type = EARAOptions
    multi_label = False
    settings: ClassVar[dict[str, Any]] = {
        "optimizer": "adam",
        "lr": 1e-4,
        "head_lr": 1e-4,
        "schedule": "step",
        "warmup_epochs": 0.0,
        "batch_size": 128,
    }
    """Section 4.2: Adam, 1e-4, a step decay, batches of 128. The paper does not give the steps, the
    number of epochs or the weight decay; these are the trainer's. So are the random views, which
    vary more than the paper's crops of 224² from 256² and mirror images."""

    def __init__(self, backbone: Backbone, options: EARAOptions, *, classes: int) -> None:
        super().__init__(backbone, options, classes=classes)
        parts = options.descriptors
        stages = ReplicatedStages(backbone, copies=len(parts))
        self.backbone: ReplicatedStages = stages  # type: ignore[assignment]
        self.submodules = nn.ModuleList(
            Submodule(stages, name, options.activation, options.dimension // len(parts))
            for name in parts
        )
        self.dimension = options.dimension
        self.criterion = MetricLearningLoss(
            options.loss,
            margin=options.margin,
            temperature=options.temperature,
            classes=classes,
            dimension=options.dimension,
        )

    def forward(self, images: Tensor) -> Output:
        """(B, bands, H, W) → embedding (B, D), L2-normalised."""
        shared, trunks = self.backbone(images)
        parts = [
            submodule(shared, trunk)
            for submodule, trunk in zip(self.submodules, trunks, strict=True)
        ]
        embedding = functional.normalize(torch.cat(parts, dim=1), dim=1)
        return Output(embedding)

    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """The chosen ranking loss of the whole embedding (algorithm 1, line 16)."""
        loss: Tensor = self.criterion(output.embedding, targets)
        return loss


class Submodule(nn.Module):
    """Residual attention on a copy of stage 4, then Z = α · FC(F) / ‖FC(F)‖ (eqs 2 and 7).

    α is learnt and starts at 1. In eq 2 α is inside the norm, where a positive α cancels; ours is
    outside, so that it weights the submodule: our choice. The FC starts orthogonal, so that
    distances start as those of the descriptors: our choice.
    """

    def __init__(
        self, stages: ReplicatedStages, descriptor: str, activation: str, dimension: int
    ) -> None:
        super().__init__()
        self.attention = (
            None
            if activation == "none"
            else ResidualAttention(stages.shared_channels, stages.channels, activation=activation)
        )
        self.pool = DESCRIPTORS[descriptor]()
        self.fc = nn.Linear(stages.channels, dimension)
        nn.init.orthogonal_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self.alpha = nn.Parameter(torch.ones(()))

    def forward(self, shared: Tensor, trunk: Tensor) -> Tensor:
        """Maps of stage 3 (B, C', h', w') and of stage 4 (B, C, h, w) → (B, D / n), norm |α|."""
        attended = trunk if self.attention is None else self.attention(shared, trunk)
        descriptor = self.fc(self.pool(attended))
        return self.alpha * functional.normalize(descriptor.float(), dim=1)
