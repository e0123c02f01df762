"""From uint8 pixels to a model's input: deterministic for search, random for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from rsir.errors import DataError, UsageError

RESIZE_RULES = ("squash", "crop")


@dataclass(frozen=True)
class InputSpec:
    """A model's input: bands, their statistics, size, and the rule that resizes images to it.

    bands: names in channel order. mean, std: per band, of values scaled to [0, 1].
    size: H = W in pixels.
    resize: "squash" resizes both sides to `size` (chips are square, and other shapes lose nothing);
    "crop" resizes the shorter side to `size` and takes the centre.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bands: tuple[str, ...] = ("red", "green", "blue")
    resize: str = "squash"

    def __post_init__(self) -> None:
        if self.resize not in RESIZE_RULES:
            raise UsageError(f"resize {self.resize!r}: take one of {', '.join(RESIZE_RULES)}")
        if self.size < 1:
            raise UsageError(f"the input size must be at least 1 pixel, not {self.size}")
        if not len(self.mean) == len(self.std) == len(self.bands):
            raise UsageError("a model's input needs one mean and one std for each band")

    def prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Resize one (bands, H, W) uint8 image to (bands, size, size) uint8; bilinear, antialiased.

        Raises DataError for another number of bands; bands are never repeated or dropped to fit.
        """
        # torch warns of read-only arrays.
        image = torch.from_numpy(np.require(self.checked(pixels), requirements=["C", "W"]))
        sides = [self.size, self.size] if self.resize == "squash" else [self.size]
        resized = functional.resize(image, sides, antialias=True)
        prepared: Tensor = functional.center_crop(resized, [self.size, self.size])
        return prepared

    def normalise(self, batch: Tensor) -> Tensor:
        """(B, bands, H, W) uint8 → float32, scaled to [0, 1], then (x - mean) / std per band.

        The memory format is channels_last, in which convolutions run fastest.
        """
        mean = torch.tensor(self.mean, device=batch.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=batch.device).view(1, -1, 1, 1)
        normalised = (batch.float() / 255 - mean) / std
        return normalised.contiguous(memory_format=torch.channels_last)

    def checked(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`pixels` as they are. Raises DataError unless they are (bands, H, W) uint8, H, W ≥ 1."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape:
            raise DataError(
                f"an image must be (bands, H, W) uint8, not {pixels.shape} {pixels.dtype}"
            )
        if len(pixels) != len(self.bands):
            raise DataError(
                f"the model takes {len(self.bands)} bands ({', '.join(self.bands)}), "
                f"the image has {len(pixels)}"
            )
        return pixels


@dataclass(frozen=True)
class Augmentation:
    """Random views for training. Overhead images have no upright orientation, so all eight occur.

    min_area: the smallest share of the image's area in a crop, (0, 1]; 1 crops nothing. A crop has
    the aspect ratio of the image and is resized to a square, as search resizes the whole image.
    flips, quarter_turns: random mirror images and turns by 90°.
    jitter: j in [0, 1); 0 changes nothing. Each band is multiplied by a factor in 1 - j … 1 + j,
    and all bands get a common offset in -j/4 … j/4 of the whole range, to imitate other light, haze
    and sensors (the form of paper D's radiometric transformation; the quarter is our choice).
    """

    min_area: float = 0.5
    flips: bool = True
    quarter_turns: bool = True
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 1:
            raise UsageError(f"jitter must be in [0, 1), not {self.jitter}")
        if not 0 < self.min_area <= 1:
            raise UsageError(f"min_area must be in (0, 1], not {self.min_area}")

    def __call__(self, pixels: NDArray[np.uint8], size: int, seed: int) -> Tensor:
        """A (C, size, size) uint8 view of (C, H, W) uint8 pixels; `seed` fixes the view."""
        image = torch.from_numpy(np.ascontiguousarray(pixels))
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also reseed the GPUs, whose state is not restored here.
            torch.default_generator.manual_seed(seed)
            return self._view(image, size)

    def _view(self, image: Tensor, size: int) -> Tensor:
        height, width = image.shape[1:]
        crop = v2.RandomResizedCrop(
            size, scale=(self.min_area, 1.0), ratio=(width / height,) * 2, antialias=True
        )
        view: Tensor = crop(image)
        turns, mirrored = int(torch.randint(4, ())), bool(torch.randint(2, ()))
        if self.quarter_turns:
            view = view.rot90(turns, (1, 2))
        if self.flips and mirrored:
            view = view.flip(2)
        if self.jitter:
            gains = 1 + self.jitter * (2 * torch.rand(len(view), 1, 1) - 1)
            offset = self.jitter / 4 * (2 * torch.rand(1) - 1)
            view = (view * gains + 255 * offset).round().clamp(0, 255).to(torch.uint8)
        return view.contiguous()
