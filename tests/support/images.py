"""Pictures and scenes of made-up pixels, for the tests of archives."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

from rsir.geo.georeference import ignore_not_georeferenced

UTM = Affine(10, 0, 600_000, 0, -10, 5_000_000)


def paint(path: Path, seed: int, size: tuple[int, int] = (9, 7)) -> Path:
    """Write a picture of (height, width) pixels around a random colour, and its folder."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 256, 3)
    pixels = np.clip(base + random.integers(-40, 40, (*size, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def land(bands=3, height=160, width=224, seed=0, dtype=np.uint8, most=250):
    """Blocks of 32 pixels, each of another colour, with some noise; no two tiles are alike."""
    random = np.random.default_rng(seed)
    blocks = random.integers(1, most, (bands, height // 32 + 1, width // 32 + 1))
    pixels = blocks.repeat(32, axis=1).repeat(32, axis=2)[:, :height, :width]
    return (pixels * random.uniform(0.9, 1, (bands, height, width)) + 1).astype(dtype)


def write_scene(path, pixels, transform=UTM, crs="EPSG:32633", **options):
    """Write pixels (C, H, W) as a .tif, .jp2 or .png. transform: None for no georeference."""
    ignore_not_georeferenced()
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(pixels) >= 3 and path.suffix == ".tif":
        options = {"photometric": "rgb", **options}
    georeference = {} if transform is None else {"transform": transform, "crs": crs}
    driver = {".tif": "GTiff", ".jp2": "JP2OpenJPEG", ".png": "PNG"}[path.suffix]
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver=driver, count=count, width=width, height=height, dtype=pixels.dtype,
        **georeference, **options,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path
