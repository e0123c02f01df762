"""The interface between an archive and its model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.external import ExternalEncoder
from rsir.ranking import Metric, packed
from rsir.types import Encoding

_BATCH_SIZE = 64
"""Images in a batch for a model without a `batch_size`. Our choice."""


class ImageEncoder(Protocol):
    """What an archive requires of a model; `rsir.models.encoder.Encoder` implements it.

    Two more attributes are optional: `batch_size`, the number of images in a batch, and `gsd`, the
    ground sampling distance in metres of the training images, or None.
    """

    @property
    def fingerprint(self) -> str:
        """Equal only for models that give equal embeddings."""

    @property
    def dimension(self) -> int:
        """D floats, or the number of bits if `ranking` compares hash codes."""

    @property
    def ranking(self) -> str:
        """A name for `rsir.ranking.metric_named`."""

    @property
    def bands(self) -> tuple[str, ...]:
        """The names of the C channels of an image, in order."""

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Encoding:
        """The Encoding of images (C, H, W) uint8, in order; their sizes may differ.

        Raises DataError for an image that it cannot encode.
        """

    def save(self, folder: Path) -> object:
        """Write the model into `folder`."""


def load_encoder(model: Path) -> ImageEncoder:
    """The model in an archive's folder `model`; ModelError if it cannot be used."""
    external = ExternalEncoder.load(model)
    if external is not None:
        return external
    # Imported here, because it may import torch, which external embeddings do not need.
    from rsir.models.encoder import Encoder

    return Encoder.load(model)


def default_batch_size(encoder: ImageEncoder) -> int:
    """The number of images that `encoder` should get at a time."""
    return int(getattr(encoder, "batch_size", _BATCH_SIZE))


def vectors_for_metric(encoding: Encoding, metric: Metric) -> NDArray[Any] | None:
    """The part of `encoding` that `metric` compares, (B, width); None if it is missing."""
    if metric.kind == "float":
        return encoding.embedding
    if not metric.classes:
        return encoding.code
    if encoding.code is None or encoding.probabilities is None:
        return None
    return packed(encoding.code, encoding.probabilities)
