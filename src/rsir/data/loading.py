"""Labelled sets as torch datasets, images prepared in batches, and the images that can be read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rsir.data.folder import LabelledSet
from rsir.data.samplers import Draw
from rsir.data.transforms import Augmentation, InputSpec
from rsir.errors import DataError, ImageError
from rsir.images.read import read_pixels


class Images(Dataset[tuple[Tensor, Tensor]]):
    """A labelled set as (uint8 image (bands, size, size), target) pairs.

    With `augmentation`, an index is a Draw and the image a random view; without, it is an int.
    """

    def __init__(
        self, images: LabelledSet, spec: InputSpec, augmentation: Augmentation | None
    ) -> None:
        self.files = images.files
        self.targets = torch.from_numpy(np.asarray(images.targets))
        self.spec = spec
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: Draw | int) -> tuple[Tensor, Tensor]:
        """The image and its target. Raises ImageError if the file cannot be read."""
        index = item.index if isinstance(item, Draw) else item
        pixels = read_pixels(self.files[index])
        if self.augmentation is None or not isinstance(item, Draw):
            return self.spec.prepare(pixels), self.targets[index]
        view = self.augmentation(self.spec.checked(pixels), self.spec.size, item.seed)
        return view, self.targets[index]


def prepared_batches(
    images: Sequence[str | Path | NDArray[np.uint8]], spec: InputSpec, batch_size: int
) -> Iterator[tuple[int, list[Tensor | str]]]:
    """Batches of prepared images: (index of the first image, images or reasons for failure).

    images: files, or (bands, H, W) uint8. Two threads read the next batch while the caller encodes
    the current one: two threads decode faster than two cores encode, and decoding releases the GIL.
    """

    def read(image: str | Path | NDArray[np.uint8]) -> Tensor | str:
        try:
            return spec.prepare(
                image if isinstance(image, np.ndarray) else read_pixels(Path(image))
            )
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting: deque[tuple[int, list[Future[Tensor | str]]]] = deque()
        for start in range(0, len(images), batch_size):
            batch = [pool.submit(read, image) for image in images[start : start + batch_size]]
            waiting.append((start, batch))
            if len(waiting) > 1:
                first, ready = waiting.popleft()
                yield first, [future.result() for future in ready]
        for first, ready in waiting:
            yield first, [future.result() for future in ready]


def readable(images: LabelledSet) -> tuple[LabelledSet, list[tuple[str, str]]]:
    """Decode every image once: those that can be read, and (path, reason) of the others."""
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(_reason, images.files))
    good = images.subset([i for i, reason in enumerate(reasons) if reason is None])
    skipped = zip(images.paths, reasons, strict=True)
    return good, [(path, reason) for path, reason in skipped if reason is not None]


def _reason(file: Path) -> str | None:
    try:
        read_pixels(file)
    except ImageError as error:
        return str(error)
    return None
