"""What a method learns from a gallery, without labels: the PCA of paper D, say.

Training ends with it, on the training images, so that every trained model is whole; `fit_on` does
it again on the gallery that is to be searched.
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

from rsir.data.loading import read_ahead
from rsir.errors import DataError, UsageError
from rsir.models import encoder as encode
from rsir.models.encoder import Encoder, Image

SPLIT = "split.csv"
"""In a run's folder: what the model was trained on, and so must not be measured on."""


@dataclass(frozen=True)
class Adapted:
    """What was learnt from a gallery.

    images: how many it was learnt from. skipped: (path, reason) of those that could not be read.
    learnt: what the method says of it (`Method.adapt`).
    """

    images: int
    skipped: tuple[tuple[str, str], ...]
    learnt: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The plain JSON values that a model keeps of it."""
        return {"images": self.images, "skipped": len(self.skipped), **self.learnt}


def adapt(
    encoder: Encoder,
    images: Sequence[Image],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Adapted:
    """Fit the encoder's method to a gallery, in place: its embeddings are others afterwards.

    images: files, or (bands, H, W) uint8. An unreadable one is skipped and listed. All features
    are held in memory, 4·F bytes an image; of a very large gallery give a sample.
    on_progress: called with (images done, images in all).

    Raises UsageError for a method with nothing to fit, DataError if no image can be read, or if
    they are too few or too much alike.
    """
    module, spec = encoder.module, encoder.model.spec
    learner = module.learner()
    if learner is None:
        raise UsageError(
            f"a {encoder.model.method} model with these options learns nothing from a gallery: "
            "it is used as it is"
        )
    features: list[Tensor] = []
    skipped: list[tuple[str, str]] = []
    with torch.no_grad():
        for start, batch in read_ahead(images, spec, encoder.batch_size):
            ready = [prepared for prepared in batch if isinstance(prepared, Tensor)]
            skipped += [
                (_name(images[index], index), prepared)
                for index, prepared in enumerate(batch, start)
                if isinstance(prepared, str)
            ]
            if ready:
                normalised = spec.normalise(torch.stack(ready).to(encoder.device))
                stacked = normalised.contiguous(memory_format=torch.channels_last)
                features.append(learner.features(stacked).float().cpu())
            if on_progress is not None:
                on_progress(start + len(batch), len(images))
    if not features:
        first = f"; the first: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"none of the {len(images)} images can be read{first}")
    learnt = learner.adapt(torch.cat(features))
    return Adapted(sum(map(len, features)), tuple(skipped), learnt)


def fit_on(
    encoder: Encoder,
    images: Sequence[Image],
    out: str | Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Encoder, Adapted]:
    """A copy of the model, fitted to a gallery and saved in the folder `out`; and what it learnt.

    It gives other embeddings, so it has another fingerprint: an archive of the old model does not
    take it. `encoder` stays as it is. The split that the model was trained on goes with it.

    Raises UsageError if `out` is not empty, and what `adapt` raises.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty; choose another folder")
    copied = dataclasses.replace(encoder.model, module=copy.deepcopy(encoder.model.module))
    device = str(encoder.device)
    fresh = Encoder(copied, device=device, batch_size=encoder.batch_size)
    adapted = adapt(fresh, images, on_progress=on_progress)
    training = {**copied.training, "fitted_on": adapted.to_dict()}
    dataclasses.replace(copied, training=training).save(out)
    if encoder.folder is not None and (encoder.folder / SPLIT).is_file():
        shutil.copyfile(encoder.folder / SPLIT, out / SPLIT)
    return encode.load(out, device=device, batch_size=encoder.batch_size), adapted


def _name(image: Image, index: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {index}"
