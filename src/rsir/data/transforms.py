"""From uint8 pixels to what a model takes, for search (deterministic) and for training (random)."""

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
    """The images that a model takes: bands, their statistics, size and how it is reached.

    bands: names in channel order. mean, std: per band, of values scaled to [0, 1].
    size: H = W in pixels.
    resize: "squash" (both sides to `size`, whatever the shape: chips are square, and nothing is
    lost of those that are not) or "crop" (shorter side to `size`, then the centre).
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
            raise UsageError("bands, mean and std of a model's input must be equally many")

    def prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(bands, size, size) uint8 from one (bands, H, W) uint8 image; bilinear, antialiased.

        Raises DataError for another number of bands: they are never tiled or cut to fit.
        """
        # Writable, for torch warns of an array that is not, as some of one pixel are.
        image = torch.from_numpy(np.require(self.checked(pixels), requirements=["C", "W"]))
        sides = [self.size, self.size] if self.resize == "squash" else [self.size]
        resized = functional.resize(image, sides, antialias=True)
        prepared: Tensor = functional.center_crop(resized, [self.size, self.size])
        return prepared

    def normalise(self, batch: Tensor) -> Tensor:
        """(B, bands, H, W) uint8 → float32, scaled to [0, 1], then (x - mean) / std per band.

        The memory format is channels_last, which convolutions run fastest in.
        """
        mean = torch.tensor(self.mean, device=batch.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=batch.device).view(1, -1, 1, 1)
        normalised = (batch.float() / 255 - mean) / std
        return normalised.contiguous(memory_format=torch.channels_last)

    def checked(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`pixels`, if they are (bands, H, W) uint8 with H, W ≥ 1; else DataError."""
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
    """The random views of training; overhead images have no up, so all eight turns are the same.

    min_area: the crop's least share of the image's area, (0, 1]; 1 crops nothing. A crop has the
    image's own shape, and is squashed as the whole image is in search.
    flips, quarter_turns: random mirror images and turns by 90°.
    jitter: j in [0, 1); each band is multiplied by a factor from 1 - j … 1 + j, and all of them
    get a common offset from -j/4 … j/4 of the whole range, as other light, haze and sensors do
    (the form of paper D's radiometric transformation; the quarter is our choice). 0: as they are.
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
        """A (C, size, size) uint8 view of (C, H, W) uint8 pixels; the same seed, the same view."""
        image = torch.from_numpy(np.ascontiguousarray(pixels))
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: it would reseed the GPUs too, which fork_rng leaves out here.
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
