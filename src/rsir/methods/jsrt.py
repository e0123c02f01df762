"""Paper D: the joint spatial and radiometric transformer (JSRT).

Y. Wang, D. Yu, S. Ji, Q. Cheng, M. Luo: "The joint spatial and radiometric transformer for remote
sensing image retrieval", ISPRS Archives XLIII-B3-2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from rsir.errors import UsageError
from rsir.methods.base import GalleryLearner, Method, Output
from rsir.methods.options import Options
from rsir.nn.backbone import Backbone
from rsir.nn.pca import PCA
from rsir.nn.pooling import SPoC
from rsir.nn.warp import (
    IDENTITY,
    ParameterNetwork,
    radiometric_transform,
    spatial_transform,
)

TRANSFORMS = ("joint", "spatial", "radiometric", "none")
FEATURES = ("pca", "fc")


@dataclass(frozen=True)
class JSRTOptions(Options):
    """Options of `jsrt`.

    The rows of the paper's tables are

        ST+RT+ResNet34(FC1+PCA)   the defaults
        ST+…, RT+…                transform=spatial, transform=radiometric
        …(FC1+FC2)                features=fc
        ResNet34(PCA), (FC)       transform=none fc1=0, features=pca or fc

    transform: what is done to the image: "joint" (spatial, then radiometric), "spatial",
    "radiometric" or "none".
    features: what is retrieved: "pca", the principal components of FC1's output, or "fc", the
    output of the last fully connected layer (FC2), which has one number per training class.
    pca_length: components; 128, our choice, the paper says "a fixed length".
    fc1: numbers of FC1's output; 512, our choice, as many as ResNet-34 has channels. 0: no FC1.
    pgn_size: side in pixels of the reduced image that the parameter generation network looks at;
    64, our choice.
    pgn_scale: what the network's last layer is multiplied by. 1, the paper; below 1 the
    transformation leaves the identity more slowly, which Adam may need: its steps are as large
    for these few numbers, that move the whole image, as for any weight.
    """

    transform: str = "joint"
    features: str = "pca"
    pca_length: int = 128
    fc1: int = 512
    pgn_size: int = 64
    pgn_scale: float = 1.0

    def __post_init__(self) -> None:
        self.require("transform", self.transform in TRANSFORMS, f"one of {', '.join(TRANSFORMS)}")
        self.require("features", self.features in FEATURES, f"one of {', '.join(FEATURES)}")
        # One number alone has no correlation with another.
        self.require("pca_length", self.pca_length >= 2, "at least 2")
        self.require("fc1", self.fc1 >= 0, "at least 0")
        self.require("pgn_size", self.pgn_size >= 4, "at least 4")
        self.require("pgn_scale", 0 < self.pgn_scale <= 1, "above 0 and at most 1")
        if self.features == "pca" and self.fc1:
            fits = self.pca_length <= self.fc1
            self.require("pca_length", fits, f"at most fc1, {self.fc1}")


class JSRT(Method):
    """Transformer → backbone → average pooling → FC1 → FC2 or PCA (paper D, fig 1).

    Trained as a classifier. The paper gives no activation between FC1 and FC2, so there is none.

    The PCA is fitted after training, without labels: to the training images at first, to the
    gallery that is searched with `rsir adapt` (`rsir.models.adapt`), as the paper does. Until it is
    fitted, in training, the embedding is FC1's whole output.
    """

    title = "joint spatial and radiometric transformer, PCA (Wang et al. 2020)"
    ranking = "ncc"
    options_type = JSRTOptions
    multi_label = False
    settings: ClassVar[dict[str, Any]] = {
        "epochs": 40,
        "batch_size": 64,
        "sampler": "shuffle",
        "optimizer": "sgd",
        "lr": 1e-3,
        "head_lr": 1e-3,
        "schedule": "step",
        "warmup_epochs": 0.0,
        "image_size": 224,
    }
    """Section 3.2: SGD, 40 epochs, batches of 64, 224²; 1e-3 for 15 epochs, 1e-4 for 15, 1e-5 for
    10. Our "step" takes the tenths after 20 and 30. Momentum and decay are the trainer's: the paper
    gives none, nor any random views. Flips and quarter turns, on by default, leave the spatial
    transformer less to do."""

    def __init__(self, backbone: Backbone, options: JSRTOptions, *, classes: int) -> None:
        super().__init__(backbone, options, classes=classes)
        # One number alone has no correlation with another.
        options.require(
            "features", options.features != "fc" or classes >= 2, "pca with fewer than 2 classes"
        )
        self.bands = backbone.bands
        start: list[float] = [*IDENTITY] if self.is_spatial else []
        start += [1.0] * self.bands + [0.0] if self.is_radiometric else []
        self.pgn = (
            ParameterNetwork(
                start, bands=self.bands, size=options.pgn_size, scale=options.pgn_scale
            )
            if start
            else None
        )
        self.pool = SPoC()
        width = options.fc1 or backbone.channels
        self.fc1 = nn.Linear(backbone.channels, width) if options.fc1 else nn.Identity()
        self.fc2 = nn.Linear(width, classes)
        self.pca: PCA | None = None
        if options.features == "pca":
            options.require(
                "pca_length", options.pca_length <= width, f"at most the {width} features"
            )
            self.pca = PCA(width, options.pca_length)

    def forward(self, images: Tensor) -> Output:
        """(B, bands, H, W) → embedding (B, D), not normalised; logits (B, classes)."""
        features = self.features(images)
        logits = self.fc2(features)
        if self.pca is None:
            return Output(logits.float(), logits)
        return Output(self.pca(features) if self.pca.fitted else features.float(), logits)

    def features(self, images: Tensor) -> Tensor:
        """FC1's output (B, F) for (B, bands, H, W)."""
        features: Tensor = self.fc1(self.pool(self.backbone(self.transform(images))))
        return features

    def transform(self, images: Tensor) -> Tensor:
        """The corrected images (B, bands, H, W): spatial, then radiometric."""
        if self.pgn is None:
            return images
        parameters = self.pgn(images)
        if self.is_spatial:
            images = spatial_transform(images, parameters[:, :6])
        if self.is_radiometric:
            gains, bias = parameters[:, -self.bands - 1 : -1], parameters[:, -1:]
            images = radiometric_transform(images, gains, bias)
        return images

    def window(self, images: Tensor) -> Tensor | None:
        """The affine (B, 6) of the spatial transformation; None without one."""
        return None if self.pgn is None or not self.is_spatial else self.pgn(images)[:, :6]

    def loss(self, output: Output, targets: Tensor) -> Tensor:
        """Cross-entropy over the classes; UsageError for multi-hot targets."""
        if targets.ndim != 1:
            raise UsageError("jsrt is trained on one class an image, not on several labels")
        assert output.logits is not None
        return functional.cross_entropy(output.logits.float(), targets)

    def learner(self) -> GalleryLearner | None:
        """Itself, if it has a PCA."""
        return None if self.pca is None else self

    def adapt(self, features: Tensor) -> dict[str, Any]:
        """Fit the PCA to the (N, F) features of a gallery; the share of variance that it keeps."""
        assert self.pca is not None
        return {"pca_length": self.options.pca_length, "variance_kept": self.pca.fit(features)}

    @property
    def dimension(self) -> int:  # type: ignore[override]  # others set it once
        """D of the embedding: it changes when the PCA is fitted."""
        if self.pca is None:
            return self.fc2.out_features
        return self.options.pca_length if self.pca.fitted else self.fc2.in_features

    @property
    def is_spatial(self) -> bool:
        """Whether positions are transformed."""
        return self.options.transform in ("joint", "spatial")

    @property
    def is_radiometric(self) -> bool:
        """Whether pixel values are transformed."""
        return self.options.transform in ("joint", "radiometric")
