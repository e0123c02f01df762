"""Read one image file as pixels or as a Tile; ImageError if that is not faithfully possible."""

from __future__ import annotations

import hashlib
import os

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ImageError, MissingExtraError
from rsir.geo.georeference import Georeference, acquired, georeference
from rsir.images.decode import decode
from rsir.sources.file_state import CONTENT_BYTES
from rsir.sources.folders import source_name
from rsir.sources.gate import guarded, read_bytes
from rsir.types import Tile, is_unicode

MAX_PIXELS = 89_478_485
"""Width × height above which a file is a scene, not a chip: Pillow's limit against
decompression bombs (`PIL.Image.MAX_IMAGE_PIXELS`, a quarter of a gigabyte of RGB)."""

_MAX_BYTES = 8 * MAX_PIXELS
"""Bytes of the largest picture without compression: four samples of 16 bits a pixel."""

ID_BYTES = 12
"""Bytes of a tile's id, 24 hex digits. Our choice: among 10^9 tiles, the probability that two have
the same id is below 10^-11."""


def read_pixels(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The pixels of an image file, (3, H, W) uint8, red, green, blue, in 0..255.

    `read_tile` lists the conversions, and the files that raise an ImageError.
    """
    source = _source(path)
    with guarded(source):
        return decode(read_bytes(path, _MAX_BYTES), max_pixels)[0]


def read_tile(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Tile:
    """One image file as a Tile: pixels (3, H, W) uint8 RGB, identity, location and time if known.

    The file is read once, so that `content` (BLAKE2b of its bytes, 32 hex digits) and the pixels
    agree. `source` is the absolute path. `bounds`, `crs`, `footprint` and `datetime` come from a
    GeoTIFF's tags (see `rsir.geo.georeference`); without the extra 'geo' they are None.

    Properties: `width` and `height`, after orientation; `converted`, the conversion in words, if
    the samples were converted; `transparent`, the share of pixels in (0, 1) that the file's alpha
    or mask marks as nodata.

    8-bit RGB stays as it is. Grey, 1-bit and palette images are converted without loss. Alpha is
    dropped; pixels with alpha 0 are nodata and become 0, and all others keep their colour. 16-bit
    PNG samples, which span 0..65535 by its specification, are divided by 257 and rounded. CMYK is
    converted by the file's colour profile if it has one. The profile of an RGB image is ignored:
    archives and training sets hold stored samples, and converting some images would make these
    differ from the others. The orientation of EXIF or XMP is applied.

    These raise an ImageError: TIFFs of more than 8 bits (their stretch is unknown), other bands
    than grey or RGB, several pages or frames, images that are wholly transparent, damaged or cut
    off, images of more than `max_pixels` = width × height (never above Pillow's own limit), and
    files of other formats. Three kinds need the extra 'geo': 16-bit PNG unless it is grey without
    alpha, TIFF with a transparency mask, and TIFF of a compression that Pillow lacks (LERC).

    Errors: ImageError, with the path, the reason and what to do.
    """
    source = _source(path)
    with guarded(source):
        data = read_bytes(path, _MAX_BYTES)
        pixels, properties = decode(data, max_pixels)
    content = hashlib.blake2b(data, digest_size=CONTENT_BYTES).hexdigest()
    found = _georeference(data)
    return Tile(
        id=tile_id(source, content),
        pixels=pixels,
        source=source,
        content=content,
        bounds=None if found is None else found.bounds,
        crs=None if found is None else found.crs,
        footprint=None if found is None else found.footprint,
        datetime=acquired(data),
        properties=properties,
    )


def tile_id(source: str, content: str) -> str:
    """The stable id, 24 hex digits, of a source whose bytes hash to `content`."""
    both = f"{source}\0{content}".encode()
    return hashlib.blake2b(both, digest_size=ID_BYTES).hexdigest()


def _source(path: str | os.PathLike[str]) -> str:
    source = source_name(path)
    if not is_unicode(source):
        shown = source.encode("ascii", "backslashreplace").decode()
        raise ImageError(f"{shown}: its name is not valid UTF-8; rename the file")
    return source


def _georeference(data: bytes) -> Georeference | None:
    """The georeference of a GeoTIFF; None for any other image, and without the extra 'geo'."""
    try:
        return georeference(data)
    except MissingExtraError:
        return None
