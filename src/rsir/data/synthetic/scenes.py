"""Generated overhead scenes of known land use, for demos and tests that need no download.

They are drawings, not photographs, and every file says so in its tags. What they are good for:
trying the software, and tests in which a right answer is known. What they are not good for: any
statement about how well a model does on real images.
"""

from __future__ import annotations

import logging
import math
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
"""Ground sampling distance of `draw`, metres per pixel: between UC Merced (0.3) and AID (to 8);
at 128 pixels an aeroplane and a row of houses both fit."""


def draw(land_use: LandUse, *, size: int = 128, seed: int, gsd: float = GSD) -> NDArray[np.uint8]:
    """A synthetic overhead chip of one land use: (3, size, size) uint8, red, green, blue.

    size: pixels, at least 8. gsd: metres per pixel. The same arguments always give the same chip.

    Errors: UsageError for an unknown land use or a size, seed or gsd out of range.
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
    folder: str | Path, *, per_class: int = 60, size: int = 128, seed: int = 0
) -> list[Path]:
    """The paths of `per_class` synthetic chips of each land use, in class folders under `folder`.

    With rasterio they are GeoTIFFs (uint8 RGB, deflate, EPSG:32632, north up), each at its own
    place in one made-up region, its ground sampling distance between 0.6 and 1.2 m, dated
    within the season it shows, with a tag that says it is synthetic. Without rasterio (extra
    'geo') they are PNGs without place and date; the log says so and the suffixes show it.

    Errors: UsageError as in `draw`; OSError if the folder cannot be written.
    """
    try:
        import rasterio  # noqa: F401
    except ImportError:
        _log.warning("rasterio is not installed: writing PNG, without place and date")
        write, suffix = _write_png, ".png"
    else:
        write, suffix = _write_geotiff, ".tif"
    number = per_class * len(LAND_USES)
    # Classes lie mixed, as land use does; square region with a gap of half a chip between chips.
    places = np.random.default_rng(seed).permutation(number)
    columns = math.ceil(math.sqrt(number))
    paths: list[Path] = []
    for land_use in LAND_USES:
        (Path(folder) / land_use).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            one = seed * 1_000_000 + index
            gsd = (0.6, 0.7, 0.8, 0.9, 1.0, 1.2)[index % 6]
            row, column = divmod(int(places[len(paths)]), columns)
            path = Path(folder) / land_use / f"{land_use}_{index:04d}{suffix}"
            pixels = draw(land_use, size=size, seed=one, gsd=gsd)
            pitch = size * 1.2 * 1.5
            # Our choice of a place in UTM zone 32N: north of Ulm, near the zone's middle.
            west, north = 560_000 + column * pitch, 5_380_000 - row * pitch
            write(path, pixels, west, north, gsd, land_use, one)
            paths.append(path)
    return paths


def write_mosaic(
    path: str | Path, *, columns: int = 12, rows: int = 8, size: int = 128, seed: int = 0
) -> list[list[LandUse]]:
    """Write one large synthetic scene, a GeoTIFF of `columns` × `rows` fields; says what they are.

    Each field is `draw` at GSD, of `size` pixels; of two neighbours in a row the second is of the
    same land use as the first in every other case, so that there are larger areas of some. The
    scene lies beside the chips of `write_scenes`, in EPSG:32632, in tiles of 256 pixels (deflate),
    and says in its tags that it is synthetic.

    Returns the land uses, row by row. Errors: UsageError as in `draw`, and for less than one field;
    MissingExtraError without rasterio; OSError if it cannot be written.
    """
    if columns < 1 or rows < 1:
        raise UsageError(f"need at least one field, not {columns} × {rows}")
    try:
        import rasterio  # noqa: F401
    except ImportError:
        raise MissingExtraError("writing scenes with a place", "geo") from None
    rng = np.random.default_rng(seed)
    uses: list[list[LandUse]] = []
    pixels = np.empty((3, rows * size, columns * size), np.uint8)
    for row in range(rows):
        uses.append([])
        for column in range(columns):
            again = column > 0 and rng.random() < 0.5
            use = uses[row][-1] if again else LAND_USES[rng.integers(len(LAND_USES))]
            uses[row].append(use)
            one = 500_000 + seed * 1_000_000 + row * columns + column
            field = (slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size))
            pixels[:, *field] = draw(use, size=size, seed=one)
    # North of the chips, which lie south of 5,380,000.
    north = 5_381_000 + rows * size * GSD
    tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    _write_geotiff(Path(path), pixels, 560_000, north, GSD, uses[0][0], seed, **tiled)
    return uses


def _date(land_use: LandUse, seed: int) -> datetime:
    _, season = _start(land_use, seed)
    _, _, (month, day), length = SEASONS[season]
    rng = np.random.default_rng([seed, LAND_USES.index(land_use), 1])
    # Around noon, as mapping flights are.
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
