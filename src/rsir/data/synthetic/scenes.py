"""Generated overhead scenes of known land use, for demos and tests without a download.

The scenes are drawings, not photographs, and every file says so in its tags. They serve to try the
software, and for tests with a known right answer. They say nothing about the quality of a model on
real images.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.data.synthetic.canvas import SEASONS, Canvas
from rsir.data.synthetic.land_uses import DRAWERS, LAND_USES, LandUse
from rsir.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["GSD", "LAND_USES", "LandUse", "draw", "write_mosaic", "write_scenes"]

_log = logging.getLogger(__name__)

GSD = 0.8
"""Ground sampling distance of `draw`, metres per pixel. Our choice: between UC Merced (0.3) and AID
(up to 8), so that 128 pixels show an aeroplane or a row of houses."""


def draw(land_use: LandUse, *, size: int = 128, seed: int, gsd: float = GSD) -> NDArray[np.uint8]:
    """A synthetic overhead chip of one land use: (3, size, size) uint8, red, green, blue.

    size: pixels, at least 8. gsd: metres per pixel. The same arguments always give the same chip.
    Raises UsageError for an unknown land use and for a size, seed or gsd out of range.
    """
    if land_use not in DRAWERS:
        raise UsageError(f"no land use {land_use!r}; there are {', '.join(LAND_USES)}")
    if size < 8 or seed < 0 or not gsd > 0:
        raise UsageError(f"need size >= 8, seed >= 0, gsd > 0; got {size}, {seed}, {gsd}")
    rng, season = _start(land_use, seed)
    canvas = Canvas(size, gsd, rng, season)
    DRAWERS[land_use](canvas)
    return canvas.finish(size)


def _start(land_use: LandUse, seed: int) -> tuple[Generator, str]:
    rng = np.random.default_rng([seed, LAND_USES.index(land_use)])
    return rng, list(SEASONS)[rng.integers(len(SEASONS))]


def write_scenes(
    folder: str | Path,
    *,
    per_class: int = 60,
    size: int = 128,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `per_class` synthetic chips of each land use into class folders; returns their paths.

    With rasterio, the chips are GeoTIFFs (uint8 RGB, deflate, EPSG:32632, north up). They lie side
    by side in one imaginary region, with ground sampling distances of 0.6 to 1.2 m, a date in the
    season that they show, and a tag that says that they are synthetic. Without rasterio (extra
    'geo'), they are PNGs without location and date; the log says so. Raises UsageError as `draw`
    does, and OSError if the folder cannot be written. on_progress: called with the numbers of chips
    written and in total.
    """
    try:
        import rasterio  # noqa: F401
    except ImportError:
        _log.warning("rasterio is not installed: writing PNG, without location and date")
        write, suffix = _write_png, ".png"
    else:
        write, suffix = _write_geotiff, ".tif"
    number = per_class * len(LAND_USES)
    # A square region with mixed classes, and gaps of half a chip between chips.
    cells = np.random.default_rng(seed).permutation(number)
    columns = math.ceil(math.sqrt(number))
    paths: list[Path] = []
    for land_use in LAND_USES:
        (Path(folder) / land_use).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            chip_seed = seed * 1_000_000 + index
            gsd = (0.6, 0.7, 0.8, 0.9, 1.0, 1.2)[index % 6]
            row, column = divmod(int(cells[len(paths)]), columns)
            path = Path(folder) / land_use / f"{land_use}_{index:04d}{suffix}"
            pixels = draw(land_use, size=size, seed=chip_seed, gsd=gsd)
            pitch = size * 1.2 * 1.5
            # Our choice of a location in UTM zone 32N: north of Ulm, near the middle of the zone.
            west, north = 560_000 + column * pitch, 5_380_000 - row * pitch
            write(path, pixels, west, north, gsd, land_use, chip_seed)
            paths.append(path)
            if on_progress is not None:
                on_progress(len(paths), number)
    return paths


def write_mosaic(
    path: str | Path, *, columns: int = 12, rows: int = 8, size: int = 128, seed: int = 0
) -> list[list[LandUse]]:
    """Write one large synthetic scene, a GeoTIFF of `columns` × `rows` fields; returns their uses.

    Each field is a chip of `draw` at GSD, of `size` pixels. A field has the land use of its left
    neighbour with probability 1/2 or more, so that some areas are larger. The scene lies beside the
    chips of `write_scenes`, in EPSG:32632, in tiles of 256 pixels (deflate), and its tags say that
    it is synthetic.

    Returns the land uses, row by row. Raises UsageError as `draw` does and for less than one field,
    MissingExtraError without rasterio, OSError if the file cannot be written.
    """
    if columns < 1 or rows < 1:
        raise UsageError(f"need at least one field, not {columns} × {rows}")
    try:
        import rasterio  # noqa: F401
    except ImportError:
        raise MissingExtraError("writing scenes with a location", "geo") from None
    rng = np.random.default_rng(seed)
    uses: list[list[LandUse]] = []
    pixels = np.empty((3, rows * size, columns * size), np.uint8)
    for row in range(rows):
        uses.append([])
        for column in range(columns):
            repeat = column > 0 and rng.random() < 0.5
            use = uses[row][-1] if repeat else LAND_USES[rng.integers(len(LAND_USES))]
            uses[row].append(use)
            field_seed = 500_000 + seed * 1_000_000 + row * columns + column
            field = (slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size))
            pixels[:, *field] = draw(use, size=size, seed=field_seed)
    # The chips lie south of 5,380,000.
    north = 5_381_000 + rows * size * GSD
    tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    _write_geotiff(Path(path), pixels, 560_000, north, GSD, uses[0][0], seed, **tiled)
    return uses


def _date(land_use: LandUse, seed: int) -> datetime:
    _, season = _start(land_use, seed)
    _, _, (month, day), length = SEASONS[season]
    rng = np.random.default_rng([seed, LAND_USES.index(land_use), 1])
    # Around noon, like mapping flights.
    start = datetime(int(rng.integers(2019, 2025)), month, day, 9)
    return start + timedelta(days=int(rng.integers(length)), minutes=int(rng.integers(300)))


def _note(land_use: LandUse, seed: int) -> str:
    return f"synthetic scene drawn by rsir: {land_use}, seed {seed}"


def _write_geotiff(
    path: Path,
    pixels: NDArray[np.uint8],
    west: float,
    north: float,
    gsd: float,
    land_use: LandUse,
    seed: int,
    **options: Any,
) -> None:
    import rasterio
    from affine import Affine

    bands, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=bands,
        dtype="uint8",
        photometric="RGB",
        compress="deflate",
        crs="EPSG:32632",
        transform=Affine(gsd, 0, west, 0, -gsd, north),
        **options,
    ) as dataset:
        dataset.write(pixels)
        dataset.update_tags(
            TIFFTAG_DATETIME=_date(land_use, seed).strftime("%Y:%m:%d %H:%M:%S"),
            TIFFTAG_IMAGEDESCRIPTION=_note(land_use, seed),
            TIFFTAG_SOFTWARE="rsir",
        )


def _write_png(
    path: Path,
    pixels: NDArray[np.uint8],
    west: float,
    north: float,
    gsd: float,
    land_use: LandUse,
    seed: int,
) -> None:
    from PIL import Image, PngImagePlugin

    note = PngImagePlugin.PngInfo()
    note.add_text("Description", _note(land_use, seed))
    Image.fromarray(pixels.transpose(1, 2, 0)).save(path, pnginfo=note)
