"""The interface of a method, by which the rest of rsir uses every published system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from rsir.methods.options import Options
from rsir.nn.backbone import Backbone


class Output(NamedTuple):
    """The result of a method's forward() for B images.

    embedding: (B, D) float32, ranked in search; a hashing method returns its relaxed codes h in
    [-1, 1], whose signs are the D bits. logits: (B, K) class scores, or None.
    """

    embedding: Tensor
    logits: Tensor | None = None

    @property
    def probabilities(self) -> Tensor | None:
        """(B, K) float32, the softmax of the logits; None without logits."""
        return None if self.logits is None else self.logits.float().softmax(dim=1)


class GalleryLearner(Protocol):
    """The part of a method that learns from a gallery without labels: the PCA of paper D."""

    def features(self, images: Tensor) -> Tensor:
        """The (B, F) features to learn from; `images` as in `Method.forward`."""

    def adapt(self, features: Tensor) -> dict[str, Any]:
        """Learn from the (N, F) features of a gallery; returns JSON values for the report."""


class Method(nn.Module, ABC):
    """A backbone with the layers that the paper adds, its loss and its training settings.

    A new method is one file with one subclass, and one line in `rsir.methods.METHODS`.
    """

    title: ClassVar[str]
    """One line for `rsir methods`, with the source."""
    ranking: str = "cosine"
    """The metric that ranks the embeddings (a name of `rsir.ranking`)."""
    options_type: ClassVar[type[Options]] = Options
    settings: ClassVar[dict[str, Any]] = {}
    """Training settings that differ from the trainer's defaults, with their source."""
    multi_label: ClassVar[bool] = True
    """Whether the method can also learn from images with several labels."""

    dimension: int
    """D of the embedding; for a hash code the number of bits."""

    def __init__(self, backbone: Backbone, options: Any, *, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.options = options
        self.classes = classes

    @abstractmethod
    def forward(self, images: Tensor) -> Output:
        """Output for `images` (B, bands, H, W), normalised float32."""

    @abstractmethod
    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """A scalar; targets (B,) int64 classes or (B, L) multi-hot labels."""

    @property
    def pools(self) -> list[nn.Module]:
        """The modules that read the last feature maps (B, C, h, w) as their first argument.

        By default: every module named `pool` outside the backbone. `rsir.models.explain` computes
        its heat maps from the feature maps that reach them.
        """
        modules = self.named_modules()
        own = ((name, module) for name, module in modules if not name.startswith("backbone."))
        return [module for name, module in own if name.split(".")[-1] == "pool"]

    def window(self, images: Tensor) -> Tensor | None:
        """The affine window (B, 6) through which the backbone sees `images`, or None.

        The parameters are those of `rsir.nn.warp.spatial_transform`; None means no window.
        """
        return None

    def learner(self) -> GalleryLearner | None:
        """The part that learns from a gallery (`rsir.models.adapt`), or None."""
        return None
