"""Generated archives for the browser tests, served by a process of their own.

python -m tests.web.page.page_world FOLDER [PORT]: make the archives that are missing, then serve
them; the process prints "ready PORT" when it takes requests.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from rsir.archive import Archive
from rsir.data.synthetic import scenes
from tests.support.colour_encoder import ColourEncoder

CHIP = 128
"""Pixels of a chip, and of a tile of the large scene."""
SIDE = 73
"""Rows and columns of tiles in the archive `many`: more tiles than a page may have results."""


def placed(folder: Path, encoder: object, per_class: int = 8) -> Archive:
    """Georeferenced chips in class folders, and a large scene cut into tiles."""
    from rsir.scenes.tiling import Tiling

    archive = Archive.open_or_create(folder / "placed", encoder)
    if not len(archive):
        scenes.write_scenes(folder / "chips", per_class=per_class)
        archive.add(folder / "chips")
        scenes.write_mosaic(folder / "scene.tif", columns=6, rows=5, size=CHIP)
        archive.add(folder / "scene.tif", tiling=Tiling(size=CHIP))
    return archive


def plain(folder: Path, encoder: object) -> Archive:
    """Images without georeference and date; some names contain HTML, to be shown as text."""
    archive = Archive.open_or_create(folder / "plain", encoder)
    if not len(archive):
        for i, use in enumerate(5 * scenes.LAND_USES):
            class_folder = folder / "plain-images" / ("<b>bold", "plain")[i % 2]
            class_folder.mkdir(parents=True, exist_ok=True)
            hostile = "<img src=x onerror=alert(1)>" if i == 0 else ""
            pixels = scenes.draw(use, size=64, seed=i).transpose(1, 2, 0)
            Image.fromarray(pixels).save(class_folder / f"image{i:04d}{hostile}.png")
        archive.add(folder / "plain-images")
    return archive


def codes(folder: Path) -> Archive:
    """The same images as hash codes with class probabilities."""
    archive = Archive.open_or_create(folder / "codes", ColourEncoder("adaptive-hamming:4", 24))
    if not len(archive):
        archive.add(folder / "plain-images")
    return archive


def many(folder: Path, encoder: object) -> Archive:
    """One picture of SIDE × SIDE patches, each a tile."""
    from rsir.scenes.tiling import Tiling

    archive = Archive.open_or_create(folder / "many", encoder)
    if not len(archive):
        random = np.random.default_rng(1)
        patches = random.integers(30, 225, (SIDE, SIDE, 3)).repeat(8, axis=0).repeat(8, axis=1)
        pixels = np.clip(patches + random.normal(0, 12, patches.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "patches.png")
        archive.add(folder / "patches.png", tiling=Tiling(size=8), batch_size=512)
    return archive


def serve(folder: Path, port: int) -> None:
    """Serve the archives in `folder` until the process ends."""
    import uvicorn

    from rsir.web.app import create_app
    from rsir.web.service.settings import ServiceSettings

    encoder = ColourEncoder()
    archives = {
        "placed": placed(folder, encoder),
        "plain": plain(folder, encoder),
        "codes": codes(folder),
        "many": many(folder, encoder),
    }
    app = create_app(archives, ServiceSettings(max_hits=5000))
    listening = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, log_level="warning")
    print("ready", listening.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
