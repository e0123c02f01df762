"""The ranking-motivated losses of paper B, from pytorch-metric-learning."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rsir.errors import UsageError

LOSSES = ("triplet", "n-pairs", "proxy-nca", "lifted")


class MetricLearningLoss(nn.Module):
    """One of `LOSSES` for L2-normalised embeddings, computed in float32.

    "triplet": batch-hard triplets, Σ_a [max_p d² − min_n d² + margin]₊ / the number of anchors that
    have both (paper B, eq 8, which does not divide; Hermans et al. 2017).
    "n-pairs": one pair of each class of the batch; softmax of cosine / temperature (Sohn 2016).
    "proxy-nca": softmax of −d² / temperature to one learnt proxy per class (Movshovitz-Attias
    et al. 2017, with the own proxy in the denominator).
    "lifted": lifted structure with its margin of 1 (Oh Song et al. 2016, eq 4), per pair.

    A batch without the pairs or triplets that the loss needs gives 0.
    """

    def __init__(
        self, name: str, *, margin: float, temperature: float, classes: int, dimension: int
    ) -> None:
        super().__init__()
        if name not in LOSSES:
            raise UsageError(f"loss {name!r}: take one of {', '.join(LOSSES)}")
        try:
            from pytorch_metric_learning import distances, losses, miners, reducers
        except ImportError as error:
            raise UsageError(
                "this loss needs pytorch-metric-learning: pip install pytorch-metric-learning"
            ) from error
        squared = distances.LpDistance(p=2, power=2, normalize_embeddings=False)
        self.name = name
        self.factor = 1.0
        self.miner: Any = None
        self.loss: Any
        if name == "triplet":
            self.miner = miners.BatchHardMiner(distance=squared)
            self.loss = losses.TripletMarginLoss(
                margin, distance=squared, reducer=reducers.MeanReducer()
            )
        elif name == "n-pairs":
            # cos(a, b) / t is the dot product of vectors of length 1/√t.
            self.factor = 1 / math.sqrt(temperature)
            self.loss = losses.NPairsLoss(
                distance=distances.DotProductSimilarity(normalize_embeddings=False)
            )
        elif name == "proxy-nca":
            self.loss = losses.ProxyNCALoss(classes, dimension, softmax_scale=1 / temperature)
        else:
            plain = distances.LpDistance(p=2, power=1, normalize_embeddings=False)
            self.loss = losses.LiftedStructureLoss(distance=plain)

    def forward(self, embedding: Tensor, targets: Tensor) -> Tensor:
        """Embedding (B, D), L2-normalised; targets (B,) int64 classes. UsageError for labels."""
        if targets.ndim != 1:
            raise UsageError(f"the loss {self.name} needs one class per image, not several labels")
        with torch.autocast(embedding.device.type, enabled=False):
            scaled = embedding.float() * self.factor
            triplets = self.miner(scaled, targets) if self.miner is not None else None
            loss: Tensor = self.loss(scaled, targets, triplets)
            return loss
