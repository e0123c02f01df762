"""Fixtures that more than one test file uses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# The nets of these tests are small: a second thread costs more than it brings, and with one the
# same seed gives the same sums on any machine.
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real image sets: RSIR_DATA, or ../shared/data beside the repository."""
    root = Path(os.environ.get("RSIR_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        message = f"no real images at {root}; set RSIR_DATA to the folder that holds them"
        if os.environ.get("RSIR_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return root


@pytest.fixture(scope="session")
def weights(data_root: Path) -> Path:
    """ImageNet weights of mobilenetv2_100, beside the real images."""
    file = data_root.parent / "weights" / "mobilenetv2_100_imagenet.safetensors"
    if not file.is_file():
        message = f"no weights at {file}"
        if os.environ.get("RSIR_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return file


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def coloured_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes that a small net learns at once: 12 images of 32² each, a colour a class."""
    root = tmp_path_factory.mktemp("coloured")
    random = np.random.default_rng(0)
    colours = {"field": (90, 160, 60), "lake": (30, 60, 150), "sand": (210, 190, 130)}
    colours["roof"] = (170, 80, 70)
    for name, colour in colours.items():
        (root / name).mkdir()
        for i in range(12):
            noise = random.normal(0, 40, (32, 32, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}{i:02d}.png")
    return root
