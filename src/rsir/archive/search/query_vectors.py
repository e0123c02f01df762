"""Convert queries to vectors: read and encode images, fetch stored vectors by id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.search.feedback import refined
from rsir.archive.search.gallery import Gallery, other_bands
from rsir.archive.search.query import (
    ByFile,
    ById,
    ByPath,
    ByPixels,
    ByVector,
    ByWindow,
    Examples,
    Query,
)
from rsir.errors import ImageError, RsirError, UsageError
from rsir.geo.footprint import Window
from rsir.images.read import read_tile
from rsir.scenes.bands import RGB
from rsir.scenes.stretch import Stretch
from rsir.scenes.tile_cut import TileCut
from rsir.sources.source import normal
from rsir.store.filters.filter import Filter
from rsir.store.filters.sql import one_of
from rsir.store.records.record import Record


def vectors_of(gallery: Gallery, queries: Sequence[Query]) -> NDArray[Any]:
    """The vectors (Q, width) of `queries`; encodes all images in one call.

    Raises UsageError for a query that does not fit this archive, ImageError for a file that cannot
    be read, ArchiveError for an unknown id.
    """
    parts = [part for query in queries for part in query.parts]
    vectors = np.empty((len(parts), gallery.width), gallery.dtype)
    images: dict[int, NDArray[np.uint8]] = {}
    ids: dict[int, str] = {}
    for row, part in enumerate(parts):
        if isinstance(part, ById):
            ids[row] = part.id
        elif isinstance(part, ByVector):
            vectors[row] = gallery.metric.check(part.vector[None], gallery.dimension, "the query")[
                0
            ]
        else:
            images[row] = pixels_of(gallery, part)
    if ids:
        vectors[list(ids)] = gallery.vectors(list(ids.values()))
    if images:
        vectors[list(images)] = gallery.encode(list(images.values()))
    rows = iter(vectors)
    return np.stack([_combined(gallery, query, rows) for query in queries])


def _combined(gallery: Gallery, query: Query, rows: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """The vector of a query, from the vectors of its parts, which are the next of `rows`."""
    rows = iter(rows)
    if not isinstance(query, Examples):
        return next(rows)
    first = None if query.query is None else next(rows)
    like, unlike = (
        np.array(list(islice(rows, len(examples))), gallery.dtype).reshape(-1, gallery.width)
        for examples in (query.like, query.unlike)
    )
    return refined(gallery.metric, gallery.dimension, first, like, unlike)


def pixels_of(gallery: Gallery, query: Query) -> NDArray[np.uint8]:
    """The image of a query for the model, (C, H, W) uint8.

    Errors: those of `file_pixels` and `window_pixels`; UsageError for a query without an image,
    and for an archive of external embeddings.
    """
    if not gallery.bands:
        raise UsageError(
            f"{gallery.path} holds embeddings made elsewhere: search it by id or by vector"
        )
    match query:
        case ByPath() | ByFile():
            return file_pixels(query, gallery.bands)
        case ByWindow():
            return window_pixels(gallery, query)
        case ByPixels(pixels):
            return _checked_pixels(gallery.bands, pixels)
    raise UsageError(f"{query} is not an image")


def file_pixels(query: ByPath | ByFile, bands: tuple[str, ...]) -> NDArray[np.uint8]:
    """The pixels of an image file, (C, H, W) uint8, in the `bands` of an archive.

    Raises ImageError for a file that is missing or not an image, UsageError for bands or a stretch
    that do not fit the file.
    """
    if not Path(query.path).exists():
        raise ImageError(f"{query.path}: no such file; check the path")
    if isinstance(query, ByFile):
        return _scene_pixels(query, bands)
    as_scene = ByFile(query.path)
    try:
        tile = read_tile(query.path)
    except ImageError as not_a_picture:
        try:
            return _scene_pixels(as_scene, bands)
        except UsageError:
            raise  # it is a scene, of other bands; the message names them
        except RsirError:
            raise not_a_picture from None
    if tile.bands == bands:
        return tile.pixels
    try:
        return _scene_pixels(as_scene, bands)
    except RsirError:
        raise other_bands(tile, bands) from None


def _scene_pixels(query: ByFile, bands: tuple[str, ...]) -> NDArray[np.uint8]:
    from rsir.scenes.windows import read_window

    default = None if bands == RGB else bands
    chosen = tuple(query.bands) if query.bands else default
    try:
        cut = TileCut(bands=chosen, stretch=Stretch.parse(query.stretch))
        pixels = read_window(str(Path(query.path).absolute()), cut)
    except UsageError as error:
        if query.bands is not None:
            raise
        raise UsageError(f"{error} (use --bands, or ByFile in Python)") from error
    return _checked_pixels(bands, pixels)


def window_pixels(gallery: Gallery, query: ByWindow) -> NDArray[np.uint8]:
    """The pixels of a window, (C, h, w) uint8, with the bands, stretch and scale of its tiles.

    Raises UsageError for a source that the archive does not have, for a window outside the source,
    and for a window in degrees of a picture without a georeference; ImageError if the source cannot
    be read.
    """
    with translate_store_errors(gallery.path):
        record = next(gallery.store.records(Filter(where=from_sources([query.source]))), None)
    if record is None:
        raise UsageError(f"the archive has no tiles of {query.source}; see its list of sources")
    cut = TileCut.of(record.properties)
    if cut is None and query.window is not None:
        return _crop(record, query.window)
    from rsir.scenes.windows import read_window

    # An image that was indexed whole is shown as it is.
    cut = cut or TileCut(stretch=Stretch("none"))
    return read_window(
        record.source, cut, bbox=query.bbox, point=query.point, size=query.size,
        window=query.window,
    )  # fmt: skip


def from_sources(sources: Iterable[str]) -> str:
    """The SQL condition for records of these sources, given by name or by path."""
    # Records of files have absolute paths; an imported source may have any name.
    names = sorted({name for source in sources for name in (source, normal(source))})
    return one_of("source", names)


def _crop(record: Record, window: Window) -> NDArray[np.uint8]:
    """A window of a picture that was indexed whole."""
    pixels = read_tile(record.source).pixels
    column, row, width, height = window
    left, top = max(column, 0), max(row, 0)
    crop = pixels[:, top : max(row + height, 0), left : max(column + width, 0)]
    if not crop.size:
        raise UsageError(f"the window {window} is not in {record.source}")
    return crop


def _checked_pixels(bands: tuple[str, ...], pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.shape[0] != len(bands) or not pixels.size:
        raise UsageError(
            f"an image is a (C, H, W) uint8 array of the bands {', '.join(bands)}, not "
            f"{pixels.shape} {pixels.dtype}"
        )
    return pixels
