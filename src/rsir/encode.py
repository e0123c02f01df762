"""Images → Encoding."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rsir import model as models
from rsir.data.images import read_pixels
from rsir.errors import ModelError, UsageError
from rsir.model import Model
from rsir.types import Encoding

Image = str | Path | NDArray[np.uint8]
"""A file, or (bands, H, W) uint8 pixels."""


class Encoder:
    """A model in use: `encode` turns images into what an archive keeps.

    device: "auto" (CUDA, then Apple's MPS, then CPU) or a torch device name.
    batch_size: images at a time; 64 is our choice, it fits 2 GB at 224² for a ResNet-50.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        batch_size: int = 64,
        folder: Path | None = None,
    ) -> None:
        self.model = model
        self.device = usable_device(device)
        self.batch_size = batch_size
        self.module = model.module.eval().to(self.device).to(memory_format=torch.channels_last)
        self.folder = folder
        self._card: dict[str, Any] | None = None

    @property
    def card(self) -> dict[str, Any]:
        """The model's `model.json`."""
        if self.folder is None:
            raise ModelError("the model was not saved yet; save it, then load it")
        if self._card is None:
            self._card = models.read_card(self.folder)
        return self._card

    @property
    def fingerprint(self) -> str:
        """Equal only for models that give the same embeddings."""
        return str(self.card["fingerprint"])

    @property
    def dimension(self) -> int:
        """D of the embedding."""
        return self.model.dimension

    @property
    def ranking(self) -> str:
        """The metric that the embeddings are ranked by."""
        return self.model.ranking

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands that the model takes, in order."""
        return self.model.spec.bands

    def encode(self, images: Sequence[Image] | NDArray[np.uint8]) -> Encoding:
        """The Encoding of B images, each a file or (bands, H, W) uint8; sizes may differ.

        Raises ImageError for a file that cannot be read faithfully, DataError for other bands.
        """
        spec = self.model.spec
        parts = [np.empty((0, self.dimension), np.float32)]
        for start in range(0, len(images), self.batch_size):
            batch = [
                spec.prepare(read_pixels(Path(i)) if isinstance(i, str | Path) else i)
                for i in images[start : start + self.batch_size]
            ]
            parts.append(self.encode_batch(torch.stack(batch)))
        return Encoding(embedding=np.concatenate(parts))

    @torch.inference_mode()
    def encode_batch(self, prepared: torch.Tensor) -> NDArray[np.float32]:
        """(B, D) embeddings of (B, bands, size, size) uint8 images from `InputSpec.prepare`."""
        batch = self.model.spec.normalise(prepared.to(self.device))
        output = self.module(batch.contiguous(memory_format=torch.channels_last))
        embedding: NDArray[np.float32] = output.embedding.float().cpu().numpy()
        return embedding

    def save(self, folder: str | Path) -> Path:
        """Copy the model into `folder`, bit for bit, so that its fingerprint stays."""
        if self.folder is None:
            return self.model.save(folder)
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in (models.WEIGHTS, models.CARD):
            shutil.copyfile(self.folder / name, Path(folder) / name)
        return Path(folder)


def load(name: str | Path, *, device: str = "auto", batch_size: int = 64) -> Encoder:
    """The encoder of a run folder, or of "hf:owner/name"; ModelError if there is none."""
    folder = models.resolve(name)
    return Encoder(models.load(folder), device=device, batch_size=batch_size, folder=folder)


def usable_device(name: str) -> torch.device:
    """The torch device of that name; "auto" is CUDA, then Apple's MPS, then the CPU.

    Raises UsageError for a name that torch does not know, or a device that is not there.
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
