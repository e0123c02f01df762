"""How a scene is cut into tiles: the windows, their order, and the pixels of each tile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from rsir.errors import DataError, UsageError
from rsir.geo.footprint import Window
from rsir.scenes.stretch import Stretch

RESAMPLINGS = ("nearest", "bilinear", "cubic", "average", "lanczos")
"""GDAL's names; its kernels widen with the reduction, so only "nearest" aliases."""

SCL_CLOUDS = (3, 8, 9, 10)
"""Cloud shadow, cloud of medium and of high probability, thin cirrus in the scene classification of
Sentinel-2 Level-2A (ESA, S2 MPC, table 'Scene Classification Labels')."""

# Our choice: a larger tile is a mistake in the units.
_MOST_PIXELS = 16_384
# Metres: the equator of WGS 84, 2 π · 6,378,137 (NGA.STND.0036).
_AROUND_EARTH = 40_075_017


@dataclass(frozen=True, slots=True)
class Tiling:
    """How scenes are cut into tiles.

    size: side of a tile in `unit`. stride: distance from one tile to the next in `unit`, at most
    `size`, so that every pixel is in a tile; None: `size`.
    unit: "pixels" of the tile as the model sees it, which are pixels of the scene unless `gsd` is
    given; or "metres" on the ground at the scene's centre.
    gsd: ground sampling distance of the tiles in metres, to which scenes are resampled. None: the
    gsd of the scene; "model": the gsd of the model's training images, which `with_model_gsd` fills
    in. A window is a whole number of the scene's pixels, so the true gsd of a tile deviates by at
    most half a pixel of the scene per side; the tile's properties have the true gsd.
    edges: "shift" moves the last tile of a row or column inwards, so that every tile is whole and
    has real pixels only, and some tiles overlap; a scene smaller than a tile gives one smaller
    tile. "pad" does not move the last tile; its part outside the scene is nodata (0).
    bands: the bands to read, as in `Scene.open`. stretch: to 0..255, see `Stretch`.
    min_valid: the smallest share in 0..1 of a tile's pixels that must be valid; a tile without any
    valid pixel is always skipped.
    cloud_mask: the raster beside each scene that marks cloud: a path or uri with {folder} and
    {stem} of the scene, or the key of a STAC asset. cloud_classes: its values that mean cloud;
    None: all but 0.
    max_cloud: the greatest share in 0..1 of a tile's valid pixels that may be cloud.

    The defaults are our choice. Errors: UsageError for values that make no sense.
    """

    size: float = 256
    stride: float | None = None
    unit: Literal["pixels", "metres"] = "pixels"
    gsd: float | Literal["model"] | None = None
    edges: Literal["shift", "pad"] = "shift"
    bands: tuple[str, ...] | None = None
    stretch: Stretch = field(default_factory=Stretch)
    resampling: str = "bilinear"
    min_valid: float = 0.5
    cloud_mask: str | None = None
    cloud_classes: tuple[int, ...] | None = None
    max_cloud: float = 0.5

    def __post_init__(self) -> None:
        if self.unit not in ("pixels", "metres"):
            raise UsageError(f"tile unit '{self.unit}': give pixels or metres")
        if isinstance(self.gsd, str) and self.gsd != "model":
            raise UsageError(f"tile gsd '{self.gsd}': give metres, or model")
        lengths = {"size": self.size, "stride": self.step, "gsd": self.gsd}
        for name, value in lengths.items():
            if not isinstance(value, str | None) and not (math.isfinite(value) and value > 0):
                raise UsageError(f"tile {name} {value:g}: give a number above 0")
        if self.unit == "pixels" and any(value != int(value) for value in (self.size, self.step)):
            raise UsageError("tile size and stride in pixels are whole numbers")
        self._check_tile()
        self._check_bands()
        if self.step > self.size:
            raise UsageError(
                f"stride {self.step:g} is more than the tile size {self.size:g}: no search would "
                "find the pixels between tiles; give a smaller stride"
            )
        if self.edges not in ("shift", "pad"):
            raise UsageError(f"edges '{self.edges}': give shift or pad")
        if self.resampling not in RESAMPLINGS:
            raise UsageError(f"resampling '{self.resampling}': give one of {list(RESAMPLINGS)}")
        for name, share in (("min_valid", self.min_valid), ("max_cloud", self.max_cloud)):
            if not 0 <= share <= 1:
                raise UsageError(f"{name} {share:g}: give a share from 0 to 1")

    def _check_tile(self) -> None:
        """UsageError if a tile would have too many pixels, or none, whatever the scene."""
        gsd = None if isinstance(self.gsd, str) else self.gsd
        metres = self.size if self.unit == "metres" else 0
        if max(metres, gsd or 0) > _AROUND_EARTH:
            raise UsageError(
                f"{max(metres, gsd or 0):g} metres is more than the circumference of the Earth"
            )
        if metres and gsd is None:
            return
        pixels = metres / gsd if metres and gsd else self.size
        if not 0.5 <= pixels <= _MOST_PIXELS + 0.5:
            raise UsageError(
                f"a tile of {self.size:g} {self.unit} would have {pixels:g} pixels a side; give a "
                f"size between 1 and {_MOST_PIXELS} pixels"
            )

    def _check_bands(self) -> None:
        """UsageError for bands that no scene can have."""
        if self.bands is None:
            return
        split = [band.strip().rpartition("=") for band in self.bands]
        if not split or not all(band.strip() for _, _, band in split):
            raise UsageError(
                f"bands '{','.join(self.bands)}': a name is empty; write them as A,B,C, or leave "
                "them out"
            )
        names = [name.strip() or band.strip().lower() for name, _, band in split]
        if len(set(names)) != len(names):
            raise UsageError(f"bands {', '.join(self.bands)}: two have the same name")

    @property
    def step(self) -> float:
        """The stride, in `unit`."""
        return self.size if self.stride is None else self.stride

    def with_model_gsd(self, gsd: float | None) -> Tiling:
        """The tiling with gsd "model" replaced by `gsd`, the model's in metres; None: unknown.

        Errors: UsageError if the tiling needs the model's gsd and it is unknown.
        """
        if self.gsd != "model":
            return self
        if gsd is None:
            raise UsageError(
                "the model does not say which ground sampling distance its images had; give the "
                "gsd in metres, or train with gsd=METRES"
            )
        return replace(self, gsd=gsd)


class Extent(Protocol):
    """The properties of a scene that a grid depends on."""

    @property
    def uri(self) -> str:
        """Its name, for messages."""

    @property
    def width(self) -> int:
        """Pixels in a row."""

    @property
    def height(self) -> int:
        """Pixels in a column."""

    @property
    def gsd(self) -> tuple[float, float] | None:
        """Metres of ground in a pixel, across and down; None without a georeference."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A tiling laid on one scene.

    scene, window, step: (across, down) in whole pixels of the scene. scale: pixels of the tile for
    each pixel of the scene, (across, down).
    """

    scene: tuple[int, int]
    window: tuple[int, int]
    step: tuple[int, int]
    scale: tuple[float, float]
    pad: bool

    def __len__(self) -> int:
        return len(self._starts(0)) * len(self._starts(1))

    def __iter__(self) -> Iterator[Window]:
        """The windows, row by row from the top, each row from the left."""
        width, height = self._side(0), self._side(1)
        for row in self._starts(1):
            for column in self._starts(0):
                yield column, row, width, height

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of each tile in pixels."""
        return (
            max(1, round(self._side(1) * self.scale[1])),
            max(1, round(self._side(0) * self.scale[0])),
        )

    def _side(self, axis: int) -> int:
        return self.window[axis] if self.pad else min(self.window[axis], self.scene[axis])

    def _starts(self, axis: int) -> list[int]:
        length, side, step = self.scene[axis], self._side(axis), self.step[axis]
        starts = list(range(0, max(length - side, 0), step))
        last = starts[-1] + step if starts else 0
        return [*starts, last if self.pad else length - side]


def grid(scene: Extent, tiling: Tiling) -> Grid:
    """The windows of `tiling` on `scene`; together they cover it.

    Errors: DataError if the tiling is in metres and the scene has no georeference; UsageError if a
    tile would be smaller than a pixel of the scene, or more than 16,384 pixels wide.
    """
    metres = tiling.unit == "metres"
    if scene.gsd is None and (metres or tiling.gsd is not None):
        raise DataError(
            f"{scene.uri}: has no georeference, so metres mean nothing in it; give the tile size "
            "in pixels and no gsd, or give the file a CRS (gdal_translate -a_srs … -a_ullr …)"
        )
    own = scene.gsd or (1.0, 1.0)
    if isinstance(tiling.gsd, str):
        raise UsageError("gsd model: no model is given; give the gsd in metres")
    gsd = own if tiling.gsd is None else (tiling.gsd, tiling.gsd)
    window, step = [], []
    for axis in (0, 1):
        pixel = own[axis] if metres else own[axis] / gsd[axis]  # of the scene, in `unit`
        window.append(round(tiling.size / pixel))
        step.append(max(1, round(tiling.step / pixel)))
    if min(window) < 1:
        raise UsageError(
            f"{scene.uri}: a tile of {tiling.size:g} {tiling.unit} is smaller than its pixels of "
            f"{max(own):.3g} m; give a larger size"
        )
    if metres:
        tile = [round(tiling.size / gsd[0]), round(tiling.size / gsd[1])]
    else:
        tile = [int(tiling.size), int(tiling.size)]
    if max(tile) > _MOST_PIXELS or min(tile) < 1:
        raise UsageError(
            f"{scene.uri}: a tile of {tiling.size:g} {tiling.unit} would have {tile[0]} × {tile[1]}"
            f" pixels; give a size between 1 and {_MOST_PIXELS} pixels"
        )
    return Grid(
        scene=(scene.width, scene.height),
        window=(window[0], window[1]),
        step=(min(step[0], window[0]), min(step[1], window[1])),
        scale=(tile[0] / window[0], tile[1] / window[1]),
        pad=tiling.edges == "pad",
    )
