"""Adapt a model to a gallery without labels: fit the PCA of paper D, for example.

Training ends with this step, on the training images, so that every trained model is complete;
`adapt_to` repeats it on the gallery that is to be searched.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsir.data.loading import prepared_batches
from rsir.errors import DataError, UsageError
from rsir.models.encoder import Encoder, Image

SPLIT = "split.csv"
"""File in a run's folder: the split with the training images, which no evaluation may use."""


@dataclass(frozen=True)
class Adapted:
    """The result of adapting a model to a gallery.

    images: number of images used. skipped: (path, reason) of each unreadable image.
    learnt: the report of the method (`GalleryLearner.adapt`).
    """

    images: int
    skipped: tuple[tuple[str, str], ...]
    learnt: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The JSON values that are stored in `model.json`."""
        return {"images": self.images, "skipped": len(self.skipped), **self.learnt}


def adapt(
    encoder: Encoder,
    images: Sequence[Image],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Adapted:
    """Adapt the encoder's method to a gallery, in place; its embeddings change.

    images: files, or (bands, H, W) uint8 arrays. An unreadable image is skipped and listed. All
    features are held in memory, 4·F bytes per image; sample a very large gallery first.
    on_progress: called with (images done, images in total).

    Raises UsageError for a method that learns nothing from a gallery; DataError if no image can be
    read, or if the images are too few or too similar.
    """
    module, spec = encoder.module, encoder.model.spec
    learner = module.learner()
    if learner is None:
        raise UsageError(
            f"a {encoder.model.method} model with these options learns nothing from a gallery: "
            "use it as it is"
        )
    features: list[Tensor] = []
    skipped: list[tuple[str, str]] = []
    with torch.no_grad():
        for start, batch in prepared_batches(images, spec, encoder.batch_size):
            readable = [prepared for prepared in batch if isinstance(prepared, Tensor)]
            skipped += [
                (_name(images[index], index), reason)
                for index, reason in enumerate(batch, start)
                if isinstance(reason, str)
            ]
            if readable:
                normalised = spec.normalise(torch.stack(readable).to(encoder.device))
                features.append(learner.features(normalised).float().cpu())
            if on_progress is not None:
                on_progress(start + len(batch), len(images))
    if not features:
        first = f"; the first: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"none of the {len(images)} images can be read{first}")
    learnt = learner.adapt(torch.cat(features))
    return Adapted(sum(map(len, features)), tuple(skipped), learnt)


def adapt_to(
    encoder: Encoder,
    images: Sequence[Image],
    out: str | Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Encoder, Adapted]:
    """Save a copy of the model, adapted to a gallery, in the folder `out`; `encoder` is unchanged.

    Returns the new encoder and the result. Its embeddings differ, so its fingerprint does too:
    an archive of the original model refuses it. The copy includes the training split.

    Raises UsageError if `out` is not empty, and the errors of `adapt`.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty; choose another folder")
    copied = dataclasses.replace(encoder.model, module=copy.deepcopy(encoder.model.module))
    device = str(encoder.device)
    fresh = Encoder(copied, device=device, batch_size=encoder.batch_size)
    adapted = adapt(fresh, images, on_progress=on_progress)
    training = {**copied.training, "adapted_to": adapted.to_dict()}
    dataclasses.replace(copied, training=training).save(out)
    if encoder.folder is not None and (encoder.folder / SPLIT).is_file():
        shutil.copyfile(encoder.folder / SPLIT, out / SPLIT)
    return Encoder.load(out, device=device, batch_size=encoder.batch_size), adapted


def _name(image: Image, index: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {index}"
