"""Small images and scenes of random colours, and all that an archive keeps of them."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

from rsir.archive import Archive


def paint(path: Path, seed: int, size: tuple[int, int] = (9, 7)) -> Path:
    """Write an RGB image of one colour with noise."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, 3)
    pixels = np.clip(base + rng.integers(-40, 40, (*size, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_scene(path: Path) -> Path:
    """A scene of 64 × 64 pixels of 10 m."""
    pixels = np.random.default_rng(0).integers(1, 250, (3, 64, 64), dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, width=64, height=64, dtype="uint8", photometric="rgb",
        crs="EPSG:32633", transform=Affine(10, 0, 600_000, 0, -10, 5_000_000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


def contents(archive: Archive) -> dict[str, tuple[str, str, bytes]]:
    """Source, content and vector under each id, which do not depend on the time of indexing."""
    records = list(archive.records())
    vectors = archive.vectors([r.id for r in records])
    assert len({r.id for r in records}) == len(records)
    return {r.id: (r.source, r.content, v.tobytes()) for r, v in zip(records, vectors, strict=True)}
