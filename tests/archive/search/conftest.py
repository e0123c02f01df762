"""An archive of a scene and three chips, made once."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from rsir.archive import Archive
from rsir.scenes.tiling import Tiling
from tests.support.colour_encoder import ColourEncoder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A scene of 7 × 5 fields of 64 pixels with a georeference, and three chips without."""
    root = tmp_path_factory.mktemp("set")
    random = np.random.default_rng(0)
    fields = random.integers(1, 250, (3, 5, 7)).repeat(64, axis=1).repeat(64, axis=2)
    pixels = (fields * random.uniform(0.9, 1, fields.shape)).astype(np.uint8)
    with rasterio.open(
        root / "scene.tif", "w", driver="GTiff", count=3, width=448, height=320, dtype="uint8",
        crs="EPSG:32633", transform=Affine(10, 0, 600_000, 0, -10, 5_000_000), photometric="rgb",
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
        dataset.update_tags(TIFFTAG_DATETIME="2021:07:14 10:30:05")
    (root / "chips").mkdir()
    for name in ("a", "b", "c"):
        chip = (random.integers(1, 250, (3, 1, 1)) * random.uniform(0.8, 1, (3, 40, 40))).astype(
            np.uint8
        )
        Image.fromarray(chip.transpose(1, 2, 0)).save(root / "chips" / f"{name}.png")
    return root


@pytest.fixture(scope="session")
def made(folder, tmp_path_factory):
    archive = Archive.create(tmp_path_factory.mktemp("kept") / "archive", ColourEncoder())
    archive.add(folder, tiling=Tiling(size=64))
    return archive


@pytest.fixture
def archive(made):
    return Archive.open(made.path, ColourEncoder())
