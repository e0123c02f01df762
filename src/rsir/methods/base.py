"""What every published system is to the rest of rsir."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from rsir.methods.options import Options
from rsir.nn.backbone import Backbone


class Output(NamedTuple):
    """What forward() gives for B images.

    embedding: (B, D) float32, what is ranked; of a hashing method the relaxed codes h in [-1, 1],
    whose signs are the D bits. logits: (B, K) class scores, or None.
    """

    embedding: Tensor
    logits: Tensor | None = None


class GalleryLearner(Protocol):
    """What can learn from a gallery without labels: the PCA of paper D, say."""

    def features(self, images: Tensor) -> Tensor:
        """What it learns from: (B, F) for `images` as in `Method.forward`."""

    def adapt(self, features: Tensor) -> dict[str, Any]:
        """Learn from the (N, F) features of a gallery; says what, in JSON values."""


class Method(nn.Module, ABC):
    """A backbone and what the paper puts on it; its loss; the settings it is trained with.

    A new method is one file with one subclass, and one line in `rsir.methods.METHODS`.
    """

    title: ClassVar[str]
    """One line for `rsir methods`, with the source."""
    ranking: str = "cosine"
    """The metric that its embeddings are ranked by (a name of `rsir.ranking`)."""
    options_type: ClassVar[type[Options]] = Options
    settings: ClassVar[dict[str, Any]] = {}
    """Training settings that differ from the trainer's defaults, with their source."""
    multi_label: ClassVar[bool] = True
    """Whether it learns from images with several labels, too."""

    dimension: int
    """D of the embedding; the bits of a hash code."""

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
        """What reads the last maps (B, C, h, w), its first argument: its own modules named `pool`.

        It is at these maps that `rsir.models.explain` looks.
        """
        modules = self.named_modules()
        own = ((name, module) for name, module in modules if not name.startswith("backbone."))
        return [module for name, module in own if name.split(".")[-1] == "pool"]

    def window(self, images: Tensor) -> Tensor | None:
        """The affine (B, 6) through which the backbone sees `images`, as in `spatial_transform`.

        None if it sees them as they are.
        """
        return None

    def learner(self) -> GalleryLearner | None:
        """What learns from a gallery without labels (`rsir.models.adapt`), or None."""
        return None
