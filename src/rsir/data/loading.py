"""A labelled set as torch wants it, and which of its images can be read at all."""

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

    With `augmentation` it is indexed by Draws and gives random views; without, by integers.
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
        """The image and its target; ImageError if the file cannot be read."""
        index = item.index if isinstance(item, Draw) else item
        pixels = read_pixels(self.files[index])
        if self.augmentation is None or not isinstance(item, Draw):
            return self.spec.prepare(pixels), self.targets[index]
        view = self.augmentation(self.spec.checked(pixels), self.spec.size, item.seed)
        return view, self.targets[index]


def read_ahead(
    images: Sequence[str | Path | NDArray[np.uint8]], spec: InputSpec, batch_size: int
) -> Iterator[tuple[int, list[Tensor | str]]]:
    """(index of the first, prepared images or reasons why not) batch by batch.

    images: files, or (bands, H, W) uint8. While a batch is encoded the next one is read: two
    threads decode faster than two cores encode, and decoding releases the GIL.
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
    """The images that can be read, decoding each once; and (path, reason) of the others."""
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(_reason, images.files))
    kept = images.subset([i for i, reason in enumerate(reasons) if reason is None])
    skipped = zip(images.paths, reasons, strict=True)
    return kept, [(path, reason) for path, reason in skipped if reason is not None]


def _reason(file: Path) -> str | None:
    try:
        read_pixels(file)
    except ImageError as error:
        return str(error)
    return None
