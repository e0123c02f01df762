"""A small model, and archives of it: of labelled images, and of scenes cut into tiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from rsir.geo.georeference import ignore_not_georeferenced
from tests.cli.running import TRAIN, Shell, run

LAND = [(90, 160, 60), (30, 60, 150), (210, 190, 130), (170, 80, 70)]
"""The colours of `coloured_classes`."""


@pytest.fixture(scope="session")
def shell() -> Shell:
    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, coloured_classes: Path) -> Path:
    out = tmp_path_factory.mktemp("model") / "run"
    train = ("train", "pooled", "--data", coloured_classes, "--out", out, "--epochs", 1, *TRAIN)
    assert run(*train).status == 0
    return out


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, model: Path, coloured_classes: Path) -> Path:
    """The archive of the images; do not change it."""
    out = tmp_path_factory.mktemp("images") / "archive"
    assert run("index", out, coloured_classes, "--model", model).status == 0
    return out


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of 4 × 3 fields of 32 pixels, with georeference, date and a cloud mask.

    The first column of fields in the second scene is nodata; a field of each is half cloud.
    """
    ignore_not_georeferenced()
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(3)
    for number, east in enumerate((600_000, 700_000)):
        fields = np.array(LAND)[random.integers(0, 4, (3, 4))]
        pixels = fields.transpose(2, 0, 1).repeat(32, axis=1).repeat(32, axis=2)
        pixels = np.clip(pixels + random.normal(0, 20, pixels.shape), 1, 255).astype(np.uint8)
        pixels[:, :, : 32 * number] = 0
        clouds = np.zeros((1, 96, 128), np.uint8)
        clouds[:, :16, 32:64] = 9
        georeference = {"crs": "EPSG:32633", "transform": Affine(10, 0, east, 0, -10, 5_000_000)}
        size = {"driver": "GTiff", "width": 128, "height": 96, "dtype": "uint8"} | georeference
        path = folder / f"{'east' if number else 'west'}.tif"
        options = {"count": 3, "nodata": 0, "photometric": "rgb"}
        with rasterio.open(path, "w", **size, **options) as scene:
            scene.write(pixels)
            scene.update_tags(TIFFTAG_DATETIME=f"2024:05:0{number + 1} 10:00:00")
        (folder / "masks").mkdir(exist_ok=True)
        with rasterio.open(folder / "masks" / f"{path.stem}_scl.tif", "w", **size, count=1) as mask:
            mask.write(clouds)
    return folder


@pytest.fixture(scope="session")
def tiles(tmp_path_factory: pytest.TempPathFactory, model: Path, scenes: Path) -> Path:
    """The archive of the scenes' tiles, 12 and 9; do not change it."""
    out = tmp_path_factory.mktemp("tiles") / "archive"
    index = ("index", out, f"{scenes}/*.tif", "--model", model, "--tile-size", 32)
    assert run(*index).status == 0
    return out


@pytest.fixture
def copy(tiles: Path, tmp_path: Path) -> Path:
    """The archive of the scenes' tiles, which a test may change."""
    return shutil.copytree(tiles, tmp_path / "copy")


@pytest.fixture
def query(coloured_classes: Path) -> Path:
    return coloured_classes / "lake" / "lake03.png"
