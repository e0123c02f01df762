"""Read one window of a scene: the thumbnail of a tile, or a part that the user chooses."""

from __future__ import annotations

import math
import os

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.geo.footprint import Affine, Points, Window, from_wgs84
from rsir.scenes.scene import Scene, ground_pixel, same_pixel_size, stretched
from rsir.scenes.tile_cut import TileCut
from rsir.types import Bounds

_MOST_SIDE = 2048
"""Maximum pixels of the longer side of a part. Our choice: encoders take a few hundred."""
_POINTS_PER_EDGE = 20
"""Points along each edge of a box in degrees, because the edge is a curve in the scene's CRS. Our
choice."""


def tile_thumbnail(
    uri: str | os.PathLike[str], cut: TileCut | None = None, size: int = 256
) -> NDArray[np.uint8]:
    """A tile of a scene, (C, h, w) uint8, its longer side at most `size` pixels.

    uri: the tile's `source`. cut: which window to read, of which bands, with which stretch; None:
    the whole scene. The thumbnail is never larger than the window. For an image that is not a tile
    of a scene, use `rsir.images.read.read_pixels`.

    Errors: those of `Scene.open`; ImageError if the window cannot be read; UsageError if it is not
    in the scene.
    """
    if size < 1:
        raise UsageError(f"thumbnail size {size}: give at least 1 pixel")
    cut = cut or TileCut()
    with Scene.open(uri, cut.bands) as scene:
        column, row, width, height = cut.window or (0, 0, scene.width, scene.height)
        if not (0 <= column < scene.width and 0 <= row < scene.height and width > 0 < height):
            raise UsageError(
                f"{scene.uri}: window {cut.window} is not in its {scene.width} × {scene.height} "
                "pixels"
            )
        scale = min(1.0, size / max(width, height))
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        pixels, valid = scene.read((column, row, width, height), shape, "average")
        return stretched(scene, pixels, valid, cut.stretch)


def read_window(
    uri: str,
    cut: TileCut,
    *,
    bbox: Bounds | None = None,
    point: tuple[float, float] | None = None,
    size: float | None = None,
    window: Window | None = None,
) -> NDArray[np.uint8]:
    """A part of a scene, (C, h, w) uint8, read like one of its tiles; nodata is 0.

    uri: the tile's `source`. cut: the cut of one of the scene's tiles; the part gets its bands, its
    stretch and its scale. Give one of these: bbox, (west, south, east, north) in degrees, WGS 84;
    point, (longitude, latitude), with size, the side in metres of a square around it; window,
    (column, row, width, height) in pixels of the scene. Without any of them, the part is the whole
    scene. Pixels outside the scene are left out. A part of more than 2048 pixels a side is reduced
    to that size.

    Errors: those of `Scene.open`; UsageError if the part is not in the scene, or is given in
    degrees and the scene has no georeference.
    """
    with Scene.open(uri, cut.bands) as scene:
        if bbox is not None or point is not None:
            window = _window(scene, bbox, point, size)
        part = _inside(scene, window or (0, 0, scene.width, scene.height))
        width, height = np.array(part[2:]) * cut.scale
        fit = min(1.0, _MOST_SIDE / max(width, height))
        shape = (max(1, round(height * fit)), max(1, round(width * fit)))
        pixels, valid = scene.read(part, shape, "bilinear" if fit == 1 else "average")
        return stretched(scene, pixels, valid, cut.stretch)


def _window(
    scene: Scene, bbox: Bounds | None, point: tuple[float, float] | None, size: float | None
) -> Window:
    """The window of a part that is given in degrees, or around a point."""
    if scene.crs is None or scene.transform is None or scene.gsd is None:
        raise UsageError(f"{scene.uri} has no georeference: give the window in its pixels")
    if bbox is not None:
        west, south, east, north = bbox
        if not (south <= north and all(map(math.isfinite, bbox))):
            raise UsageError(f"the box {bbox} is not (west, south, east, north) in degrees")
        east += 360 if east < west else 0
        steps = np.linspace(0, 1, _POINTS_PER_EDGE + 1)
        xs, ys = west + (east - west) * steps, south + (north - south) * steps
        degrees = np.concatenate(
            [np.column_stack([xs, np.full_like(xs, y)]) for y in (south, north)]
            + [np.column_stack([np.full_like(ys, x), ys]) for x in (west, east)]
        )
    else:
        if point is None or size is None or not (math.isfinite(size) and size > 0):
            raise UsageError(f"a point needs a size in metres above 0, not {size}")
        degrees = np.array([point], np.float64)
    pixels = _near(scene, scene.transform, scene.crs, degrees)
    if pixels is None:
        raise UsageError(f"{scene.uri}: its CRS does not cover the window")
    if size is not None:
        centre = (float(pixels[0, 0]), float(pixels[0, 1]))
        gsd = ground_pixel(scene.transform, scene.crs, centre, (0.5, 0.5))
        if gsd is None or min(gsd) <= 0 or same_pixel_size(scene.gsd, gsd):
            gsd = scene.gsd
        sides = np.maximum(np.rint(size / np.array(gsd)), 1)
        first = np.rint(pixels[0] - sides / 2)
        last = first + sides
    else:
        # Slightly inwards: a box that ends on the edge of a pixel does not include the next pixel.
        first = np.floor(pixels.min(axis=0) + 1e-6)
        last = np.maximum(np.ceil(pixels.max(axis=0) - 1e-6), first + 1)
    column, row, width, height = (int(n) for n in (*first, *(last - first)))
    return column, row, width, height


def _near(scene: Scene, transform: Affine, crs: str, degrees: Points) -> Points | None:
    """(column, row) of longitude and latitude, whole turns of the globe moved to be near the scene.

    On cylindrical maps a scene may continue beyond ±180°, or go from 0 to 360°, so a longitude has
    several columns; this takes the column nearest to the scene. None outside the CRS's domain.
    """
    turns = np.floor((degrees[:, :1] + 180) / 360)
    pixels = from_wgs84(transform, crs, degrees - turns * (360, 0))
    # The length of one turn in pixels. On other maps -180° and 180° are one point, or their
    # distance depends on the latitude.
    ends = from_wgs84(transform, crs, np.array([(180.0, y) for y in (0, 45)]))
    starts = from_wgs84(transform, crs, np.array([(-180.0, y) for y in (0, 45)]))
    if pixels is None or ends is None or starts is None:
        return pixels
    turn, other = ends - starts
    length = float(turn @ turn)
    if length < 1 or not np.allclose(turn, other):
        return pixels
    pixels = pixels + turns * turn
    middle = (pixels.min(axis=0) + pixels.max(axis=0)) / 2
    away = np.array([scene.width / 2, scene.height / 2]) - middle
    near: Points = pixels + np.rint(away @ turn / length) * turn
    return near


def _inside(scene: Scene, window: Window) -> Window:
    """The part of a window that is in the scene; UsageError if there is none."""
    column, row, width, height = window
    left, top = max(column, 0), max(row, 0)
    right, bottom = min(column + width, scene.width), min(row + height, scene.height)
    if right <= left or bottom <= top:
        raise UsageError(
            f"the window is not in {scene.uri}: it would be at column {column}, row {row} of its "
            f"{scene.width} × {scene.height} pixels"
        )
    return left, top, right - left, bottom - top
