"""What an archive needs of a model, and what it keeps of what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.external import ExternalEncoder
from rsir.ranking import Metric, packed
from rsir.types import Encoding

_AT_ONCE = 64
"""Images that are encoded at once by a model that does not say. Our choice."""


class Encoder(Protocol):
    """What an archive needs of a model; `rsir.models.encoder.Encoder` is one.

    It may also say its `batch_size`, how many images it takes at once, and its `gsd`, the metres of
    ground in a pixel of the images that it learnt from, or None (`rsir.scenes.tiling.Tiling.told`).
    """

    @property
    def fingerprint(self) -> str:
        """Equal only for models that give equal embeddings."""

    @property
    def dimension(self) -> int:
        """D floats, or bits if `ranking` compares hash codes."""

    @property
    def ranking(self) -> str:
        """A name for `rsir.ranking.metric_named`."""

    @property
    def bands(self) -> tuple[str, ...]:
        """What the C channels of an image are, in order."""

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Encoding:
        """The Encoding of images (C, H, W) uint8, in order; their sizes may differ.

        Raises DataError for an image that it cannot take.
        """

    def save(self, folder: Path) -> object:
        """Write the model into `folder`."""


def loaded(model: Path) -> Encoder:
    """The model in an archive's folder; ModelError if it cannot be used."""
    foreign = ExternalEncoder.load(model)
    if foreign is not None:
        return foreign
    from rsir.models.encoder import load  # torch, which embeddings made elsewhere do not need

    return load(model)


def default_batch_size(encoder: Encoder) -> int:
    """How many images it should be given at once."""
    return int(getattr(encoder, "batch_size", _AT_ONCE))


def vectors_for_metric(encoding: Encoding, metric: Metric) -> NDArray[Any] | None:
    """What `metric` compares of `encoding`, (B, width); None if the model did not give it."""
    if metric.kind == "float":
        return encoding.embedding
    if not metric.classes:
        return encoding.code
    if encoding.code is None or encoding.probabilities is None:
        return None
    return packed(encoding.code, encoding.probabilities)
