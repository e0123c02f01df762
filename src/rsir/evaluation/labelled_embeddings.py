"""What an evaluation ranks: the embeddings and labels of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsir.errors import DataError, UsageError
from rsir.ranking import ADAPTIVE

WITHOUT_PROBABILITIES = "needs class probabilities, which the model does not give"


@dataclass(frozen=True, eq=False)
class LabelledEmbeddings:
    """Embeddings and labels of N images.

    embedding: (N, D) float32; relaxed codes for rankings by hash codes. targets: (N,) int64
    classes or (N, L) multi-hot labels. probabilities: (N, K) class probabilities, which
    "adaptive-hamming" needs, or None.
    """

    embedding: Tensor
    targets: Tensor
    probabilities: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[LabelledEmbeddings]) -> LabelledEmbeddings:
        """The images of all parts (at least one) of the same model."""
        probabilities = [p.probabilities for p in parts if p.probabilities is not None]
        return cls(
            torch.cat([part.embedding for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat(probabilities) if probabilities else None,
        )

    def __len__(self) -> int:
        return len(self.embedding)

    def __getitem__(self, rows: slice | Tensor) -> LabelledEmbeddings:
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return LabelledEmbeddings(self.embedding[rows], self.targets[rows], probabilities)

    def with_embedding(self, embedding: Tensor) -> LabelledEmbeddings:
        """The same images with other vectors."""
        return LabelledEmbeddings(embedding, self.targets, self.probabilities)

    def to(self, device: str) -> LabelledEmbeddings:
        """The same tensors on another device."""
        probabilities = self.probabilities
        return LabelledEmbeddings(
            self.embedding.to(device),
            self.targets.to(device),
            None if probabilities is None else probabilities.to(device),
        )

    def check(self, ranking: str) -> None:
        """Raise DataError for values that cannot be ranked, UsageError without probabilities."""
        if not all(math.isfinite(end) for end in self.embedding.aminmax()):
            raise DataError("the model gives values that are not finite; it cannot be ranked")
        if ranking == "cosine" and not bool(self.embedding.any(dim=1).all()):
            raise DataError("the model gives a vector of zeros, which cosine cannot rank")
        # Not after centring: rounding of the mean can make a constant vector non-zero.
        if ranking == "ncc" and bool((self.embedding.amax(1) == self.embedding.amin(1)).any()):
            raise DataError("the model gives a constant vector, which ncc cannot rank")
        if ranking != ADAPTIVE:
            return
        if self.probabilities is None:
            raise UsageError(f"ranking {ranking!r} {WITHOUT_PROBABILITIES}")
        if not bool(((self.probabilities >= 0) & (self.probabilities <= 1)).all()):
            raise DataError("the model gives class probabilities that are not within [0, 1]")
