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

    transform: transformation of the image: "joint" (spatial, then radiometric), "spatial",
    "radiometric" or "none".
    features: the embedding: "pca", the principal components of FC1's output, or "fc", the output
    of the last fully connected layer (FC2), one value per training class.
    pca_length: number of components; 128, our choice: the paper says "a fixed length".
    fc1: width of FC1; 512, our choice, the channels of ResNet-34. 0: no FC1.
    pgn_size: side in pixels of the reduced image, the input of the parameter generation network;
    64, our choice.
    pgn_scale: factor on the output of that network's last layer; 1 in the paper. Below 1 the
    transformation leaves the identity more slowly, which Adam may need: its steps are as large for
    these few parameters, which move the whole image, as for any other weight.
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
        # A single number has no correlation coefficient.
        self.require("pca_length", self.pca_length >= 2, "at least 2")
        self.require("fc1", self.fc1 >= 0, "at least 0")
        self.require("pgn_size", self.pgn_size >= 4, "at least 4")
        self.require("pgn_scale", 0 < self.pgn_scale <= 1, "above 0 and at most 1")
        if self.features == "pca" and self.fc1:
            fits = self.pca_length <= self.fc1
            self.require("pca_length", fits, f"at most fc1, {self.fc1}")


class JSRT(Method):
    """Transformer → backbone → average pooling → FC1 → FC2 or PCA (fig 1).

    Trained as a classifier. The paper gives no activation between FC1 and FC2, so there is none.

    The PCA is fitted after training, without labels: first to the training images; `rsir adapt`
    (`rsir.models.adapt`) fits it to the gallery to be searched, as the paper does. Before it is
    fitted, during training, the embedding is FC1's whole output.
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
    10. Our "step" schedule multiplies by 0.1 after 20 and 30. The paper gives no momentum, weight
    decay or random views; these are the trainer's. Flips and quarter turns, on by default, leave
    less variation for the spatial transformer to correct."""

    def __init__(self, backbone: Backbone, options: JSRTOptions, *, classes: int) -> None:
        super().__init__(backbone, options, classes=classes)
        # A single number has no correlation coefficient.
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
        embedding = self.pca(features) if self.pca.fitted else features.float()
        return Output(embedding, logits)

    def features(self, images: Tensor) -> Tensor:
        """FC1's output (B, F) for (B, bands, H, W)."""
        transformed = self.transform(images)
        descriptor = self.pool(self.backbone(transformed))
        features: Tensor = self.fc1(descriptor)
        return features

    def transform(self, images: Tensor) -> Tensor:
        """The transformed images (B, bands, H, W): spatially, then radiometrically."""
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
            raise UsageError("jsrt learns one class per image, not several labels")
        assert output.logits is not None
        return functional.cross_entropy(output.logits.float(), targets)

    def learner(self) -> GalleryLearner | None:
        """The method itself, if it has a PCA."""
        return None if self.pca is None else self

    def adapt(self, features: Tensor) -> dict[str, Any]:
        """Fit the PCA to the (N, F) features of a gallery; returns its length and kept variance."""
        assert self.pca is not None
        return {"pca_length": self.options.pca_length, "variance_kept": self.pca.fit(features)}

    @property
    def dimension(self) -> int:  # type: ignore[override]
        """D of the embedding, which changes when the PCA is fitted."""
        if self.pca is None:
            return self.fc2.out_features
        return self.options.pca_length if self.pca.fitted else self.fc2.in_features

    @property
    def is_spatial(self) -> bool:
        """Whether the spatial transformation is on."""
        return self.options.transform in ("joint", "spatial")

    @property
    def is_radiometric(self) -> bool:
        """Whether the radiometric transformation is on."""
        return self.options.transform in ("joint", "radiometric")
