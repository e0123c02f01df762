"""A scene that is read by windows: a raster that GDAL reads faithfully, local or over HTTP."""

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
from rsir.geo.footprint import Window, to_wgs84
from rsir.geo.georeference import Transform, crs_and_transform, tiff_datetime
from rsir.images.gdal import reading
from rsir.scenes.bands import Band, assets_of, bands_of, choose
from rsir.scenes.datasets import SceneFile, on_grid, open_file
from rsir.scenes.stretch import Stretch
from rsir.scenes.units import in_units, units_of
from rsir.sources.file_state import CONTENT_BYTES, digest, stamp
from rsir.sources.find import source
from rsir.sources.gate import guarded
from rsir.sources.source import Asset, Source

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# Our choice: lengths in the unit of the CRS count as lengths on the ground if right to 1 %.
_TRUE_TO = 0.01
# Our choice: a line of pixels is measured in this many parts, 1.8° each for half of a parallel.
_STEPS = 100
# Our choice: samples for percentiles come from a reduced image with this many pixels a side or, if
# the scene has no overviews, from a grid of small windows.
_SAMPLE_SIDE = 1024
_SAMPLE_WINDOWS = 8
_SAMPLE_WINDOW_SIDE = 128
_FEW_SAMPLES = 1000


class Scene:
    """Some bands of one scene, on one grid. Not thread-safe: each thread opens its own.

    uri: as in `Source`. width, height: in pixels. bands: names of the C bands that are read.
    refs: the names by which `open` reads exactly these bands again.
    dtype: the common dtype of the bands. crs, transform: as
    `rsir.geo.georeference.crs_and_transform`; both are None if the scene has no georeference.
    """

    def __init__(
        self,
        source: Source,
        files: Sequence[SceneFile],
        bands: Sequence[Band],
        names: Sequence[str],
    ) -> None:
        first = files[0].dataset
        self.source = source
        self.uri = source.uri
        self.width: int = files[0].width
        self.height: int = files[0].height
        self.bands = tuple(names)
        self.dtype: np.dtype[Any] = np.result_type(
            *(files[band.file].dataset.dtypes[band.stored - 1] for band in bands)
        )
        self._units = [
            units_of(files[b.file].asset, b.stored, files[b.file].dataset.dtypes[b.stored - 1])
            for b in bands
        ]
        if self.has_units:
            self.dtype = np.result_type(self.dtype, np.float32)
        self.refs = tuple(
            f"{name}={files[band.file].asset.key}:{band.index}"
            if files[band.file].asset.key
            else f"{name}={band.index}"
            for name, band in zip(names, bands, strict=True)
        )
        self.crs: str | None = None
        self.transform: Transform | None = None
        if located := crs_and_transform(first):
            self.crs, self.transform = located
        self._files = tuple(files)
        self._bands = tuple(bands)
        self._stack = ExitStack()

    @classmethod
    def open(
        cls, scene: str | os.PathLike[str] | Source, bands: Sequence[str] | None = None
    ) -> Scene:
        """Open a scene, given by its path, its uri, its STAC item or a `Source`.

        bands: the bands to read, in order, by STAC name or common name, STAC asset, description
        in the file, colour interpretation, or number from 1; case does not matter. "red=B04" reads
        B04 and calls it red; "visual:1" is band 1 of asset visual. None: red, green and blue; the
        only band of a grey scene counts as all three.

        Of a STAC item, only the files that hold those bands are opened: one file that holds them
        all (preferably a visual one), or one for each band. Files with other pixel sizes or CRSs
        are resampled (bilinear) to the grid of the finest. Alpha is never a band: it marks nodata.

        Errors: DataError if there is no such file; ImageError if the file cannot be read
        faithfully (damage, several pages, complex numbers, a palette); UsageError for a band that
        the scene does not have; MissingExtraError without rasterio.
        """
        try:
            import rasterio  # noqa: F401
        except ImportError:
            raise MissingExtraError("reading scenes", "geo") from None
        found = scene if isinstance(scene, Source) else source(scene)
        with guarded(found.uri), ExitStack() as stack:
            assets = assets_of(found, bands)
            files = _on_one_grid([open_file(asset, stack) for asset in assets], stack)
            available = [
                band
                for i, file in enumerate(files)
                for band in bands_of(i, file.dataset, file.asset)
            ]
            picked, names = choose(found.uri, available, bands)
            opened = cls(found, files, picked, names)
            opened._stack = stack.pop_all()
        return opened

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

        Measured on the ellipsoid WGS 84. If the pixel size in the unit of a projected CRS is right
        to 1 %, the result is that size, so that a 10 m UTM scene has 10 m and not 10.004.
        """
        if self.transform is None or self.crs is None:
            return None
        from rasterio.crs import CRS

        a, b, _, d, e, _ = self.transform
        crs = CRS.from_user_input(self.crs)
        unit = crs.linear_units_factor[1] if crs.is_projected else math.nan
        nominal = (math.hypot(a, d) * unit, math.hypot(b, e) * unit)
        # Over many pixels, so that the rounding of degrees does not matter.
        reach = min(self.width / 4, 50), min(self.height / 4, 50)
        true = ground_pixel(self.transform, self.crs, (self.width / 2, self.height / 2), reach)
        if true is None:
            return nominal if crs.is_projected else None
        if min(true) <= 0:
            return None
        return nominal if same_pixel_size(nominal, true) else true

    @property
    def has_units(self) -> bool:
        """Whether the STAC item states scale and offset, in whose units the pixels then are."""
        return any(self._units)

    @cached_property
    def datetime(self) -> datetime | None:
        """Acquisition time, from STAC or from the TIFF tag DateTime (read as UTC)."""
        if self.source.datetime is not None:
            return self.source.datetime
        return tiff_datetime(self._files[0].tags.get("TIFFTAG_DATETIME"))

    @cached_property
    def content(self) -> str:
        """Digest of the scene's content, 32 hex digits; it changes when the scene changes.

        Local files: BLAKE2b of their bytes, about two seconds a gigabyte (our choice: a copy with
        another modification time is still the same scene), without overviews (.ovr) and statistics
        (.aux.xml), which viewers write. Files on web servers: BLAKE2b of the ETag, date, size and
        first 64 KiB. Objects in object stores: BLAKE2b of size and modification time.

        Errors: DataError if a file no longer exists or the server does not answer.
        """
        digests = [digest(uri) for file in self._files for uri in file.files]
        if len(digests) == 1:
            return digests[0]
        return hashlib.blake2b("\n".join(digests).encode(), digest_size=CONTENT_BYTES).hexdigest()

    def trust(self, content: str) -> None:
        """Set `content` without reading the files, from a scene with the same `stamp`."""
        self.__dict__["content"] = content

    @property
    def stamp(self) -> tuple[int, int]:
        """(total bytes, last modification in nanoseconds since the epoch) of the scene's files.

        The files are not read. A number that a server does not report is 0.
        """
        stamps = [stamp(uri) for file in self._files for uri in file.files]
        return sum(size for size, _ in stamps), max(changed for _, changed in stamps)

    def read(
        self,
        window: Window | None = None,
        size: tuple[int, int] | None = None,
        resampling: str = "bilinear",
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The pixels of a window, (C, h, w) in `dtype`, and which of them are valid, (h, w) bool.

        They are in the units that a STAC item states (`rsir.scenes.units`), except 8-bit samples.

        window: (column, row, width, height); None: the whole scene. Pixels beyond the right or
        lower edge are 0 and not valid. size: (h, w) to resample to, from overviews where the file
        has them. A pixel is not valid if it is nodata in all bands (by value, mask or alpha 0; NaN
        and infinity always are): rasterio's rule for a dataset's mask.

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

        They come from the overviews if the scene has any, else from 64 windows of 128² on a
        regular grid, or from a reduced read of the whole scene if few pixels of those windows are
        valid. Damaged windows are left out.

        Errors: ImageError if all windows are damaged.
        """
        whole = max(self.width, self.height) <= 2 * _SAMPLE_SIDE
        if whole or all(file.dataset.overviews(1) for file in self._files):
            with suppress(ImageError):  # damaged in one place: read other places
                return self._reduced_samples()
        found: list[list[NDArray[Any]]] = []
        side = _SAMPLE_WINDOW_SIDE
        fractions = [(i + 0.5) / _SAMPLE_WINDOWS for i in range(_SAMPLE_WINDOWS)]
        for down in fractions:
            for across in fractions:
                column = int(max(self.width - side, 0) * across)
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
        # "nearest" gives samples of the scene or its overviews, not means.
        pixels, valid = self.read(window, size, "nearest")
        return [band[valid & np.isfinite(band)] for band in pixels]

    def _read_inside(
        self, window: Window, size: tuple[int, int], resampling: str
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        from rasterio.enums import MaskFlags, Resampling
        from rasterio.windows import Window as RasterWindow

        single = len(self._files) == 1  # then GDAL's array is the result, without a copy
        pixels = np.empty((0 if single else len(self._bands), *size), self.dtype)
        valid = np.zeros(size, dtype=bool)
        for number, file in enumerate(self._files):
            slots = [i for i, band in enumerate(self._bands) if band.file == number]
            indexes = [self._bands[i].stored for i in slots]
            look = file.look
            stored = look.stored(window, file.dataset.width, file.dataset.height)
            region, shape = RasterWindow(*stored), look.stored_size(size)
            # The mean of two indexes of a palette is the index of another colour.
            method = resampling if look.palette is None else "nearest"
            with reading(self.uri, file.options):
                samples = file.dataset.read(
                    indexes, window=region, out_shape=(len(slots), *shape),
                    resampling=Resampling[method],
                )  # fmt: skip
                transparent = look.transparent(samples[0])
                samples = look.shown(samples, [self._bands[i].component for i in slots])
                samples = in_units(look.upright(samples), [self._units[i] for i in slots])
                if single:
                    pixels = samples.astype(self.dtype, copy=False)
                else:
                    pixels[slots] = samples
                flags = [file.dataset.mask_flag_enums[index - 1] for index in indexes]
                if transparent is not None:
                    valid |= ~look.upright(transparent)
                    continue
                if any(MaskFlags.all_valid in flag for flag in flags):
                    alpha = _alpha_of(file.dataset)
                    if alpha is None:
                        valid[:] = True
                        continue
                    # GDAL takes alpha for a mask only beside one band or three.
                    masks = file.dataset.read([alpha], window=region, out_shape=(1, *shape))
                    valid |= look.upright(masks[0] != 0)
                    continue
                if all(MaskFlags.per_dataset in flag for flag in flags):
                    indexes = indexes[:1]  # all bands share a mask
                masks = file.dataset.read_masks(
                    indexes, window=region, out_shape=(len(indexes), *shape)
                )
                valid |= look.upright((masks != 0).any(axis=0))
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).any(axis=0)
        return pixels, valid

    def beside(self, uri: str, stack: ExitStack) -> DatasetReader:
        """A mask beside the scene, resampled (nearest) to its grid; `stack` closes it.

        Errors: DataError if neither has a georeference and their sizes differ.
        """
        if self._files[0].look.orientation != 1:
            raise ImageError(
                f"{self.uri}: is turned by EXIF, so that no mask fits it; save it upright"
            )
        other = open_file(Asset(uri), stack, mask=True)
        return on_grid(other, self._files[0].dataset, "nearest", stack).dataset


def _alpha_of(dataset: DatasetReader) -> int | None:
    """The number of the band that is marked as alpha, from 1; None if none is."""
    from rasterio.enums import ColorInterp

    colours = list(dataset.colorinterp)
    return colours.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in colours else None


def ground_pixel(
    transform: Transform, crs: str, pixel: tuple[float, float], reach: tuple[float, float]
) -> tuple[float, float] | None:
    """Metres of ground in a pixel around (column, row), (across, down), on the ellipsoid WGS 84.

    Measured along the row and the column, `reach` pixels to each side, (across, down). None outside
    the CRS's domain.
    """
    from pyproj import Geod

    (x, y), (across, down) = pixel, reach
    # In steps, because the shortest way between the ends of a row of a global grid leaves the row.
    steps = np.linspace(-1, 1, _STEPS + 1)
    row = np.column_stack([x + across * steps, np.full_like(steps, y)])
    column = np.column_stack([np.full_like(steps, x), y + down * steps])
    degrees = to_wgs84(transform, crs, np.concatenate([row, column]))
    if degrees is None:
        return None
    geod = Geod(ellps="WGS84")
    wide, high = (geod.line_length(*part.T) for part in np.split(degrees, 2))
    found = (float(wide) / (2 * across), float(high) / (2 * down))
    return found if all(map(math.isfinite, found)) else None


def same_pixel_size(nominal: tuple[float, float], true: tuple[float, float]) -> bool:
    """Whether the pixel size `nominal` is within 1 % of `true`; both are (across, down)."""
    return all(abs(own / real - 1) <= _TRUE_TO for own, real in zip(nominal, true, strict=True))


def stretched(
    scene: Scene, pixels: NDArray[Any], valid: NDArray[np.bool_], stretch: Stretch
) -> NDArray[np.uint8]:
    """Stretch the pixels that `Scene.read` returned to (C, h, w) uint8; nodata is 0.

    The numbers of `stretch` are settled first (see `settled`).

    Errors: UsageError for a stretch that does not fit the scene.
    """
    return to_uint8(pixels, valid, settled(scene, stretch))


def to_uint8(pixels: NDArray[Any], valid: NDArray[np.bool_], stretch: Stretch) -> NDArray[np.uint8]:
    """Stretch the pixels that `Scene.read` returned to (C, h, w) uint8; nodata is 0.

    stretch: with its numbers settled.
    """
    scaled = stretch(pixels)
    return scaled if valid.all() else np.where(valid, scaled, np.uint8(0))


def settled(scene: Scene, stretch: Stretch) -> Stretch:
    """The stretch with its numbers settled, from samples of the scene if it needs any.

    Errors: UsageError for a stretch that does not fit the scene.
    """
    # Without samples, `for_samples` still needs the number of bands.
    needs_samples = stretch.needs_samples(scene.dtype)
    samples = scene.samples() if needs_samples else [np.empty(0, scene.dtype)] * len(scene.bands)
    return stretch.for_samples(samples, scene.dtype)


def _on_one_grid(files: Sequence[SceneFile], stack: ExitStack) -> list[SceneFile]:
    """All files on the grid of the one with the most pixels."""
    finest = max(files, key=lambda file: file.dataset.width * file.dataset.height)
    return [on_grid(file, finest.dataset, "bilinear", stack) for file in files]
