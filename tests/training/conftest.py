"""A small set of textures, its splits, and a trained run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsir.data import folder, splits
from rsir.data.splits import Split
from tests.support.runs import run


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of textures of different scale: hard enough that mAP is not 1."""
    root = tmp_path_factory.mktemp("textures")
    random = np.random.default_rng(0)
    for cells in (2, 4, 8):
        (root / f"cells{cells}").mkdir()
        for i in range(16):
            grey = random.integers(0, 256, (cells, cells), dtype=np.uint8)
            picture = Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC)
            picture.convert("RGB").save(root / f"cells{cells}" / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def split(images: Path) -> Split:
    return splits.make(folder.load(images), train=0.75, val=0.4, seed=0)


@pytest.fixture(scope="session")
def no_val(images: Path) -> Split:
    return splits.make(folder.load(images), train=0.75, val=0.0, seed=0)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, split: Split, images: Path) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "one", split, images)
