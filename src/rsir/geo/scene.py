"""A scene, read by windows: any raster that GDAL opens faithfully, local or by ranges over HTTP."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rsir.errors import DataError, ImageError, MissingExtraError
from rsir.geo.bands import Band, assets_of, bands_of, chosen
from rsir.geo.files import digest, stamp
from rsir.geo.footprint import Window, is_flat, to_wgs84
from rsir.geo.georeference import crs_name, gdal_errors, tiff_datetime
from rsir.geo.sources import Asset, Source, is_remote, source

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG", "WEBP", "VRT")
"""GDAL's drivers for what is taken: pictures that are read by windows. COG is GTiff."""

_PLACELESS = ("PNG", "JPEG", "WEBP")
_FORMATS = "GeoTIFF, COG, JPEG 2000, PNG, JPEG, WebP and VRT"

# Our choice: GDAL's block cache would take a twentieth of the machine's memory. Two rows of tiles
# of 20,000 × 512 pixels × 3 bands × 1 byte are 60 MB.
_CACHE_BYTES = 128 << 20
_OPTIONS = {
    "GDAL_CACHEMAX": _CACHE_BYTES,
    # A JPEG that is cut off would otherwise go on in grey.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_MAX_RETRY": "3",
}
# Without it GDAL asks a server for a dozen sidecar files that are not there.
_REMOTE_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}

# Our choice: the map's own unit is taken for a metre of ground where that is true to 1 %.
_TRUE_TO = 0.01
# Our choice: samples for percentiles come from a reduced image of so many pixels a side, or, if
# there are no overviews to reduce from, from a grid of small windows of the scene itself.
_SAMPLE_SIDE = 1024
_SAMPLE_WINDOWS = 8
_SAMPLE_WINDOW_SIDE = 128
_FEW_SAMPLES = 1000

_CONTENT_BYTES = 16  # as rsir.data.images: 32 hex digits


@dataclass(frozen=True, slots=True)
class _Part:
    """An open file of the scene, on the scene's grid. files: it and those that belong to it."""

    asset: Asset
    dataset: DatasetReader
    files: tuple[str, ...]


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
        parts: Sequence[_Part],
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
            parts = [_opened(asset, stack) for asset in assets]
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
            with _environment(self.uri):
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
                f"{self.uri}: window {window} cannot be read ({_reason(error)}); the file is "
                "damaged or cut off: fetch it again"
            ) from error
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).any(axis=0)
        return pixels, valid

    def beside(self, uri: str, stack: ExitStack) -> DatasetReader:
        """Another raster on this scene's grid (nearest), such as a mask; `stack` closes it.

        Errors: DataError if neither has a georeference and their sizes differ.
        """
        other = _opened(Asset(uri), stack)
        return _on_grid(other, self._parts[0].dataset, "nearest", stack).dataset


def quiet_about_plain_images() -> None:
    """Images without a georeference are no cause for a warning.

    Warning filters are shared by all threads, so the filter is set once and stays.
    """
    from rasterio.errors import NotGeoreferencedWarning as Plain

    # Those of some messages, or of some modules only, are other libraries'.
    general = (f for f in warnings.filters if f[1] is None and f[3] is None)
    first = next((what for what, _, kind, *_ in general if issubclass(Plain, kind)), "")
    if first != "ignore":
        warnings.filterwarnings("ignore", category=Plain)


@contextmanager
def _environment(uri: str) -> Iterator[None]:
    import rasterio

    options = _OPTIONS | (_REMOTE_OPTIONS if is_remote(uri) else {})
    with rasterio.Env(**options):
        yield


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before a pixel is read.

    driver: GDAL's name of its format. has_points: its place is told by ground control points.
    bands: how many, without alpha. palette: of colours, or of the two values of a bit.
    opaque: no pixel can be nodata: there is no such value, mask or alpha.
    """

    width: int
    height: int
    dtype: str
    driver: str
    has_crs: bool
    has_points: bool
    bands: int
    palette: bool
    opaque: bool


def header(uri: str) -> Header:
    """The header of one file.

    Errors: DataError if there is no such file; ImageError if GDAL cannot open it.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    with ExitStack() as stack:
        dataset = _dataset(uri, stack)
        colours = dataset.colorinterp
        found = Header(
            width=dataset.width,
            height=dataset.height,
            dtype=dataset.dtypes[0],
            driver=dataset.driver,
            has_crs=bool(dataset.crs),
            has_points=bool(dataset.gcps[0]),
            bands=sum(colour is not ColorInterp.alpha for colour in colours),
            palette=ColorInterp.palette in colours,
            opaque=all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums),
        )
    return found


def _dataset(uri: str, stack: ExitStack) -> DatasetReader:
    import rasterio

    quiet_about_plain_images()
    if not is_remote(uri) and not Path(uri).is_file():
        raise DataError(f"{uri}: no such file; check the path")
    try:
        with _environment(uri):
            # A Path is never taken for a uri, whatever its name holds.
            return stack.enter_context(rasterio.open(uri if is_remote(uri) else Path(uri)))
    except gdal_errors() as error:
        raise ImageError(
            f"{uri}: cannot be opened ({_reason(error)}); {_FORMATS} can; fetch it again if it "
            "should be one"
        ) from error


def _opened(asset: Asset, stack: ExitStack) -> _Part:
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    uri = asset.uri
    dataset = _dataset(uri, stack)
    _refuse_unfaithful(uri, dataset)
    files = (uri,)
    if not is_remote(uri):
        # Overviews and statistics are written by viewers; they change no pixel.
        # But of a picture they can hold its place, where its own format has none.
        placed = dataset.driver in _PLACELESS and dataset.crs is not None
        without = (".ovr",) if placed else (".aux.xml", ".ovr")
        beside = {file for file in dataset.files if not file.endswith(without)}
        files = (uri, *sorted(beside - {uri}))
    points, crs = dataset.gcps
    if dataset.crs is None and crs is not None and len(points) >= 3:
        # Radar scenes as they come: their place is told by points, so they are laid on a grid.
        dataset = stack.enter_context(
            WarpedVRT(dataset, src_crs=crs, crs=crs, resampling=Resampling.bilinear, add_alpha=True)
        )
    return _Part(asset, dataset, files)


def _refuse_unfaithful(uri: str, dataset: DatasetReader) -> None:
    from rasterio.enums import ColorInterp

    if dataset.driver not in DRIVERS:
        raise ImageError(f"{uri}: is {dataset.driver}; {_FORMATS} can be read: convert it to one")
    if dataset.count == 0 or len(dataset.subdatasets) > 1:
        raise ImageError(f"{uri}: holds {len(dataset.subdatasets)} images; save each on its own")
    if any(np.dtype(kind).kind == "c" for kind in dataset.dtypes):
        raise ImageError(f"{uri}: has complex samples; save their amplitude (gdal_calc)")
    if ColorInterp.palette in dataset.colorinterp:
        raise ImageError(f"{uri}: has a palette; expand it (gdal_translate -expand rgb)")
    turned = dataset.tags().get("EXIF_Orientation", "1")
    if turned not in ("0", "1"):
        raise ImageError(f"{uri}: lies on its side (EXIF orientation {turned}); save it upright")


def _reason(error: BaseException) -> str:
    """GDAL's own words, where rasterio only says 'read failed, see the exception above'."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


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


def _on_one_grid(parts: Sequence[_Part], stack: ExitStack) -> list[_Part]:
    """All parts on the grid of the one with the most pixels, which keeps its place."""
    finest = max(parts, key=lambda part: part.dataset.width * part.dataset.height)
    return [_on_grid(part, finest.dataset, "bilinear", stack) for part in parts]


def _on_grid(part: _Part, grid: DatasetReader, resampling: str, stack: ExitStack) -> _Part:
    from rasterio.enums import MaskFlags, Resampling
    from rasterio.vrt import WarpedVRT

    own = part.dataset
    if own.shape == grid.shape and (own.crs, own.transform) == (grid.crs, grid.transform):
        return part
    if own.crs is None or grid.crs is None:
        if own.shape == grid.shape:
            return part
        raise ImageError(
            f"{part.asset.uri}: is {own.width} × {own.height} pixels and the scene {grid.width} × "
            f"{grid.height}, and without georeference of both nobody knows what lies where"
        )
    # What the other does not reach is nodata, not black.
    unmasked = all(MaskFlags.all_valid in flag for flag in own.mask_flag_enums)
    try:
        warped = stack.enter_context(
            WarpedVRT(
                own, crs=grid.crs, transform=grid.transform, width=grid.width, height=grid.height,
                resampling=Resampling[resampling], add_alpha=unmasked,
            )
        )  # fmt: skip
    except gdal_errors() as error:
        raise ImageError(f"{part.asset.uri}: does not fit its scene ({_reason(error)})") from error
    return _Part(part.asset, warped, part.files)
