"""Encode images with a trained model: images → Encoding."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rsir.errors import DataError, ModelError, UsageError
from rsir.images.read import read_pixels
from rsir.methods.base import Output
from rsir.models.model import CARD, WEIGHTS, Model, load_model, read_card, resolve
from rsir.ranking import metric_named, name_with_classes
from rsir.types import Encoding

Image = str | Path | NDArray[np.uint8]
"""A file, or (bands, H, W) uint8 pixels."""


class Encoder:
    """A loaded model that encodes images.

    device: "auto" (CUDA, then Apple's MPS, then CPU) or a torch device name.
    batch_size: images per forward pass. None: 64, which fits into 2 GB at 224² for a ResNet-50; on
    the CPU 16, because larger batches are no faster there. Both are our choice.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.model = model
        self.device = usable_device(device)
        self.batch_size = batch_size or (16 if self.device.type == "cpu" else 64)
        self.module = model.module.eval().to(self.device).to(memory_format=torch.channels_last)
        self.folder = folder
        self._card: dict[str, Any] | None = None

    @classmethod
    def load(
        cls, name: str | Path, *, device: str = "auto", batch_size: int | None = None
    ) -> Encoder:
        """The encoder of a run folder or of "hf:owner/name"; ModelError if there is no model."""
        folder = resolve(name)
        return cls(load_model(folder), device=device, batch_size=batch_size, folder=folder)

    @property
    def card(self) -> dict[str, Any]:
        """The model's `model.json`."""
        if self.folder is None:
            raise ModelError("this model is not saved yet; save it, then load it")
        if self._card is None:
            self._card = read_card(self.folder)
        return self._card

    @property
    def fingerprint(self) -> str:
        """32 hex digits, equal only for models that give the same embeddings."""
        return str(self.card["fingerprint"])

    @property
    def dimension(self) -> int:
        """D of the embedding, or the number of bits of the hash code."""
        return self.model.dimension

    @property
    def ranking(self) -> str:
        """The metric that ranks the embeddings or codes, a name for `metric_named`."""
        return name_with_classes(self.model.ranking, len(self.model.classes))

    @property
    def hashes(self) -> bool:
        """Whether the model's images are ranked by hash codes."""
        return metric_named(self.ranking).kind == "bits"

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of the model's input, in channel order."""
        return self.model.spec.bands

    @property
    def gsd(self) -> float | None:
        """Ground sampling distance of the training images in metres per pixel; None if unknown.

        It is the `TrainingSettings.gsd` of the model's training.
        """
        settings = self.card["training"].get("settings", {})
        return float(settings.get("gsd", 0)) or None

    def encode(self, images: Sequence[Image] | NDArray[np.uint8]) -> Encoding:
        """The Encoding of B images, each a file or (bands, H, W) uint8; sizes may differ.

        Raises ImageError for a file that cannot be read faithfully; DataError for a wrong number
        of bands, and for an image for which a hashing model gives non-finite values.
        """
        spec = self.model.spec
        parts = []
        for start in range(0, len(images), self.batch_size):
            batch = [
                spec.prepare(read_pixels(Path(i)) if isinstance(i, str | Path) else i)
                for i in images[start : start + self.batch_size]
            ]
            parts.append(self.encode_batch(torch.stack(batch)))
        return _concatenated(parts) if parts else self._empty()

    def encode_batch(self, prepared: torch.Tensor) -> Encoding:
        """The Encoding of (B, bands, size, size) uint8 images from `InputSpec.prepare`."""
        output = self.forward(prepared)
        embedding: NDArray[np.float32] = output.embedding.float().cpu().numpy()
        probabilities = output.probabilities
        return Encoding(
            embedding,
            self._code(embedding),
            None if probabilities is None else probabilities.cpu().numpy(),
        )

    @torch.inference_mode()
    def forward(self, prepared: torch.Tensor) -> Output:
        """The method's Output for (B, bands, size, size) uint8 images, on the encoder's device."""
        output: Output = self.module(self.model.spec.normalise(prepared.to(self.device)))
        return output

    def _code(self, embedding: NDArray[np.float32]) -> NDArray[np.uint8] | None:
        """The packed signs of relaxed codes (B, bits); None if the model does not hash."""
        if not self.hashes:
            return None
        if not np.isfinite(embedding).all():
            # The sign of a NaN would look like a valid bit.
            raise DataError("the model gives values that are not finite, which have no hash code")
        return np.packbits(embedding > 0, axis=1)

    def _empty(self) -> Encoding:
        """The Encoding of zero images."""
        metric = metric_named(self.ranking)
        embedding = np.empty((0, self.dimension), np.float32)
        probabilities = np.empty((0, metric.classes), np.float32) if metric.classes else None
        return Encoding(embedding, self._code(embedding), probabilities)

    def save(self, folder: str | Path) -> Path:
        """Copy the model's files into `folder`, so that the fingerprint stays the same."""
        if self.folder is None:
            return self.model.save(folder)
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, CARD):
            shutil.copyfile(self.folder / name, Path(folder) / name)
        return Path(folder)


def usable_device(name: str) -> torch.device:
    """The torch device with that name; "auto" is CUDA, then Apple's MPS, then the CPU.

    Raises UsageError for a name that torch does not know, or a device that is missing here.
    """
    if name == "auto":
        name = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else name
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UsageError(f"device {name!r} cannot be used here: {reason}") from error
    return device


def _concatenated(parts: Sequence[Encoding]) -> Encoding:
    """One Encoding of the images of several Encodings (at least one) by the same model."""

    def column(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else np.concatenate(columns)

    return Encoding(column("embedding"), column("code"), column("probabilities"))
