"""A scene, read by windows: any raster that GDAL opens faithfully, local or by ranges over HTTP."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ImageError, MissingExtraError
from rsir.geo.footprint import Window, is_flat, to_wgs84
from rsir.geo.georeference import crs_name, gdal_errors, tiff_datetime
from rsir.scenes.bands import Band, assets_of, bands_of, chosen
from rsir.scenes.datasets import Part, environment, on_grid, opened, reason
from rsir.scenes.stretch import Stretch
from rsir.sources.file_state import digest, stamp
from rsir.sources.find import source
from rsir.sources.source import Asset, Source

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# Our choice: the map's own unit is taken for a metre of ground where that is true to 1 %.
_TRUE_TO = 0.01
# Our choice: samples for percentiles come from a reduced image of so many pixels a side, or, if
# there are no overviews to reduce from, from a grid of small windows of the scene itself.
_SAMPLE_SIDE = 1024
_SAMPLE_WINDOWS = 8
_SAMPLE_WINDOW_SIDE = 128
_FEW_SAMPLES = 1000

_CONTENT_BYTES = 16  # as rsir.images.read: 32 hex digits


class Scene:
    """Some bands of one scene, on one grid. Not for several threads: open it once in each.

    uri: as in `Source`. width, height: pixels. bands: names of the C bands that are read.
    refs: what `open` takes to read the same bands again, whatever it guessed the first time.
    dtype: of all bands together. crs: "EPSG:32632", WKT 2 without such a code, or None.
    transform: (a, b, c, d, e, f) with x = a·column + b·row + c, y = d·column + e·row + f, or
    None; crs and transform are both there or neither is.
    """

    def __init__(
        self,
        source: Source,
        parts: Sequence[Part],
        bands: Sequence[Band],
        names: Sequence[str],
    ) -> None:
        first = parts[0].dataset
        self.source = source
        self.uri = source.uri
        self.width: int = first.width
        self.height: int = first.height
        self.bands = tuple(names)
        self.dtype: np.dtype[Any] = np.result_type(
            *(parts[band.part].dataset.dtypes[band.index - 1] for band in bands)
        )
        self.refs = tuple(
            f"{name}={parts[band.part].asset.key}:{band.index}"
            if parts[band.part].asset.key
            else f"{name}={band.index}"
            for name, band in zip(names, bands, strict=True)
        )
        self.crs, self.transform = _georeference(first)
        self._parts = tuple(parts)
        self._bands = tuple(bands)
        self._stack = ExitStack()

    @classmethod
    def open(
        cls, what: str | os.PathLike[str] | Source, bands: Sequence[str] | None = None
    ) -> Scene:
        """A scene by its path, uri, STAC item or `Source`.

        bands: which to read, in this order, by STAC name or common name, STAC asset, description
        in the file, colour interpretation, or number from 1; upper and lower case are the same.
        "red=B04" reads B04 and calls it red; "visual:1" is band 1 of asset visual. None: red,
        green and blue; the only band of a grey scene stands for all three.

        Of a STAC item the files that hold those bands are opened, and no others: one that holds
        them all (one made to be looked at first), or one for each. Files of other pixel sizes or
        CRSs are resampled (bilinear) to the grid of the finest. Alpha is never a band, it says
        what is nodata.

        Errors: DataError if there is nothing there; ImageError if it cannot be read faithfully:
        damaged, of several pages, complex numbers, palette; UsageError for a band that it has not,
        with those that it has; MissingExtraError without rasterio.
        """
        try:
            import rasterio  # noqa: F401
        except ImportError:
            raise MissingExtraError("reading scenes", "geo") from None
        where = what if isinstance(what, Source) else source(what)
        with ExitStack() as stack:
            assets = assets_of(where, bands)
            parts = [opened(asset, stack) for asset in assets]
            parts = _on_one_grid(parts, stack)
            available = [
                band
                for i, part in enumerate(parts)
                for band in bands_of(i, part.dataset, part.asset)
            ]
            picked, names = chosen(where.uri, available, bands)
            scene = cls(where, parts, picked, names)
            scene._stack = stack.pop_all()
        return scene

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files."""
        self._stack.close()

    @cached_property
    def gsd(self) -> tuple[float, float] | None:
        """Metres of ground in a pixel at the scene's centre, (across, down); None if unknown.

        Along the ellipsoid WGS 84; in a projected CRS whose own unit is true there to 1 % that
        unit is taken, so that a UTM scene of 10 m has 10 m and not 10.004.
        """
        if self.transform is None or self.crs is None:
            return None
        from pyproj import Geod
        from rasterio.crs import CRS

        a, b, _, d, e, _ = self.transform
        crs = CRS.from_user_input(self.crs)
        unit = crs.linear_units_factor[1] if crs.is_projected else math.nan
        nominal = (math.hypot(a, d) * unit, math.hypot(b, e) * unit)
        # Over many pixels, so that rounding in degrees does not count.
        across, down = min(self.width / 2, 50), min(self.height / 2, 50)
        x, y = self.width / 2, self.height / 2
        ends = np.array([(x - across, y), (x + across, y), (x, y - down), (x, y + down)])
        degrees = to_wgs84(self.transform, self.crs, ends)
        if degrees is None:
            return nominal if crs.is_projected else None
        (w, e_, n, s) = degrees
        geod = Geod(ellps="WGS84")
        true = (
            geod.inv(*w, *e_)[2] / (2 * across),
            geod.inv(*n, *s)[2] / (2 * down),
        )
        if min(true) <= 0:
            return None
        near = all(abs(own / real - 1) <= _TRUE_TO for own, real in zip(nominal, true, strict=True))
        return nominal if near else true

    @cached_property
    def datetime(self) -> datetime | None:
        """When it was taken: by STAC, or by the TIFF tag DateTime (taken as UTC)."""
        if self.source.datetime is not None:
            return self.source.datetime
        return tiff_datetime(self._parts[0].dataset.tags().get("TIFFTAG_DATETIME"))

    @cached_property
    def content(self) -> str:
        """Hex digest of what it holds, 32 digits; a changed scene has another.

        Local: BLAKE2b of the bytes of its files, some two seconds a gigabyte (our choice: a copy
        with another time of change is still the same scene). Overviews (.ovr) and statistics
        (.aux.xml) beside a file do not count: viewers write them. On web servers: of the ETag, the
        date, the size and the first 64 KiB. On object stores: of size and time of change.

        Errors: DataError if the files are gone or the server does not answer.
        """
        digests = [digest(file) for part in self._parts for file in part.files]
        if len(digests) == 1:
            return digests[0]
        return hashlib.blake2b("\n".join(digests).encode(), digest_size=_CONTENT_BYTES).hexdigest()

    def trust(self, content: str) -> None:
        """Take `content` for what it would be: its `stamp` is that of a scene whose it was."""
        self.__dict__["content"] = content

    @property
    def stamp(self) -> tuple[int, int]:
        """(bytes, nanoseconds since the epoch of the last change) of its files together.

        What can be asked without reading them; 0 for what a server does not say.
        """
        stamps = [stamp(file) for part in self._parts for file in part.files]
        return sum(size for size, _ in stamps), max(changed for _, changed in stamps)

    def read(
        self,
        window: Window | None = None,
        size: tuple[int, int] | None = None,
        resampling: str = "bilinear",
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The pixels of a window, (C, h, w) in `dtype`, and which of them are valid, (h, w) bool.

        window: (column, row, width, height); None: the whole scene; what lies beyond the right
        and lower edge is 0 and not valid. size: (h, w) to resample to; overviews are used where
        there are. A pixel is not valid if all bands say nodata (value, mask or alpha 0; NaN and
        infinity always): rasterio's rule for a dataset's mask.

        Errors: ImageError if the file is damaged there, or the server fails.
        """
        column, row, width, height = window or (0, 0, self.width, self.height)
        h, w = size or (height, width)
        inner_w, inner_h = min(width, self.width - column), min(height, self.height - row)
        inside = (max(1, round(h * inner_h / height)), max(1, round(w * inner_w / width)))
        pixels, valid = self._read_inside((column, row, inner_w, inner_h), inside, resampling)
        if inside == (h, w):
            return pixels, valid
        beyond = (0, h - inside[0]), (0, w - inside[1])
        return np.pad(pixels, ((0, 0), *beyond)), np.pad(valid, beyond)

    def samples(self) -> list[NDArray[Any]]:
        """Valid finite samples of each band, 1-d, spread over the scene; the same every time.

        From the overviews if it has any, else 64 windows of 128² on a regular grid; from a
        reduced read of everything if those meet hardly anything valid. What is damaged is left
        out.

        Errors: ImageError if all of it is damaged.
        """
        whole = max(self.width, self.height) <= 2 * _SAMPLE_SIDE
        if whole or all(part.dataset.overviews(1) for part in self._parts):
            with suppress(ImageError):  # what is damaged in one place is still seen in others
                return self._reduced_samples()
        found: list[list[NDArray[Any]]] = []
        side = _SAMPLE_WINDOW_SIDE
        places = [(i + 0.5) / _SAMPLE_WINDOWS for i in range(_SAMPLE_WINDOWS)]
        for down in places:
            for along in places:
                column = int(max(self.width - side, 0) * along)
                row = int(max(self.height - side, 0) * down)
                w, h = min(side, self.width - column), min(side, self.height - row)
                with suppress(ImageError):
                    found.append(self._valid_samples((column, row, w, h), (h, w)))
        if not found:
            raise ImageError(f"{self.uri}: is damaged all over; fetch it again")
        joined = [np.concatenate(band) for band in zip(*found, strict=True)]
        if min(map(len, joined)) < _FEW_SAMPLES:
            with suppress(ImageError):
                return self._reduced_samples()
        return joined

    def _reduced_samples(self) -> list[NDArray[Any]]:
        reduce = max(1.0, max(self.width, self.height) / _SAMPLE_SIDE)
        size = max(1, round(self.height / reduce)), max(1, round(self.width / reduce))
        return self._valid_samples((0, 0, self.width, self.height), size)

    def _valid_samples(self, window: Window, size: tuple[int, int]) -> list[NDArray[Any]]:
        # nearest: true samples of the scene (or of its overviews), not means.
        pixels, valid = self.read(window, size, "nearest")
        return [band[valid & np.isfinite(band)] for band in pixels]

    def _read_inside(
        self, window: Window, size: tuple[int, int], resampling: str
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        from rasterio.enums import MaskFlags, Resampling
        from rasterio.windows import Window as RasterWindow

        where = RasterWindow(*window)
        alone = len(self._parts) == 1  # then what GDAL fills is the answer, without a copy
        pixels = np.empty((0 if alone else len(self._bands), *size), self.dtype)
        valid = np.zeros(size, dtype=bool)
        try:
            with environment(self.uri):
                for number, part in enumerate(self._parts):
                    slots = [i for i, band in enumerate(self._bands) if band.part == number]
                    indexes = [self._bands[i].index for i in slots]
                    some = part.dataset.read(
                        indexes, window=where, out_shape=(len(slots), *size),
                        resampling=Resampling[resampling],
                    )  # fmt: skip
                    if alone:
                        pixels = some.astype(self.dtype, copy=False)
                    else:
                        pixels[slots] = some
                    flags = [part.dataset.mask_flag_enums[index - 1] for index in indexes]
                    if any(MaskFlags.all_valid in flag for flag in flags):
                        valid[:] = True
                        continue
                    if all(MaskFlags.per_dataset in flag for flag in flags):
                        indexes = indexes[:1]  # one mask for all
                    masks = part.dataset.read_masks(
                        indexes, window=where, out_shape=(len(indexes), *size)
                    )
                    valid |= (masks != 0).any(axis=0)
        except gdal_errors() as error:
            raise ImageError(
                f"{self.uri}: window {window} cannot be read ({reason(error)}); the file is "
                "damaged or cut off: fetch it again"
            ) from error
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).any(axis=0)
        return pixels, valid

    def beside(self, uri: str, stack: ExitStack) -> DatasetReader:
        """Another raster on this scene's grid (nearest), such as a mask; `stack` closes it.

        Errors: DataError if neither has a georeference and their sizes differ.
        """
        other = opened(Asset(uri), stack, mask=True)
        return on_grid(other, self._parts[0].dataset, "nearest", stack).dataset


def stretched(
    scene: Scene, pixels: NDArray[Any], valid: NDArray[np.bool_], stretch: Stretch
) -> NDArray[np.uint8]:
    """(C, h, w) uint8 of what `Scene.read` gave, by a stretch that is settled here; nodata 0.

    Errors: UsageError for a stretch that does not fit the scene.
    """
    return to_uint8(pixels, valid, settled(scene, stretch))


def to_uint8(pixels: NDArray[Any], valid: NDArray[np.bool_], stretch: Stretch) -> NDArray[np.uint8]:
    """(C, h, w) uint8 of what `Scene.read` gave, by a settled stretch; nodata is 0."""
    stretched = stretch(pixels)
    return stretched if valid.all() else np.where(valid, stretched, np.uint8(0))


def settled(scene: Scene, stretch: Stretch) -> Stretch:
    """The stretch with its numbers; they come from samples of the scene where it needs any.

    Errors: UsageError for a stretch that does not fit the scene.
    """
    # Without samples, `for_samples` still needs the number of bands.
    looked = stretch.needs_samples(scene.dtype)
    samples = scene.samples() if looked else [np.empty(0, scene.dtype)] * len(scene.bands)
    return stretch.for_samples(samples, scene.dtype)


def _georeference(
    dataset: DatasetReader,
) -> tuple[str | None, tuple[float, float, float, float, float, float] | None]:
    transform = dataset.transform[:6]
    if dataset.transform.is_identity:  # what rasterio says where the file says nothing
        return None, None
    if dataset.crs is None or is_flat(transform) or not all(map(math.isfinite, transform)):
        return None, None
    name = crs_name(dataset.crs.to_wkt())
    if name is None:
        return None, None
    a, b, c, d, e, f = map(float, transform)
    return name, (a, b, c, d, e, f)


def _on_one_grid(parts: Sequence[Part], stack: ExitStack) -> list[Part]:
    """All parts on the grid of the one with the most pixels, which keeps its place."""
    finest = max(parts, key=lambda part: part.dataset.width * part.dataset.height)
    return [on_grid(part, finest.dataset, "bilinear", stack) for part in parts]
