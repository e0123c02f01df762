"""TIFF: 8 bits a sample, one page; grey, palette, RGB or CMYK, with alpha or a mask."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ImageError
from rsir.geo import tiff_tags as tiff
from rsir.images.formats.raster import (
    Raster,
    as_array,
    check_size,
    cmyk_raster,
    load_image,
    repeated,
)

if TYPE_CHECKING:
    from PIL import Image

# What a decoder needs and nothing more: geometry, samples, compression, where the data lies.
# 266 fill order, 273/278/279 strips, 284 planar, 292/293 fax options, 317 predictor,
# 320 colour map, 322..325 tiles, 347 JPEG tables, 529..532 YCbCr.
_ONE_NUMBER = frozenset({256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323})
_MANY_NUMBERS = frozenset({258, 273, 279, 320, 324, 325, 338, 339, 530, 531})
_NOT_NUMBERS = frozenset({347, 529, 532})
_WHOLE = (3, 4, 16)  # SHORT, LONG, LONG8

_COLOUR_BANDS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # photometric -> samples of colour
# What the libtiff in Pillow's wheels reads: none, CCITT, LZW, JPEG, Deflate, PackBits, LZMA, Zstd.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000})
_UNREAD = {6: "old JPEG", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL"}

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType: an overview, a transparency mask

# Our choice. The alpha of a clipped or mosaicked image is 0 or 255 nearly everywhere; GDAL marks
# the fourth band of any 8-bit image as alpha unless told otherwise, near infrared too.
_MOST_PART_TRANSPARENT = 0.5


def decode(data: bytes, max_pixels: int) -> Raster:
    """The image in the bytes of a TIFF file; ImageError if it is refused."""
    try:
        all_directories = tiff.directories(data)
    except tiff.TiffError as error:
        raise ImageError(f"damaged: {error}; fetch it again") from error
    kinds = [directory.integer(tiff.SUBFILE_TYPE, 0) for directory in all_directories]
    if sum(not kind & (_REDUCED | _MASK) for kind in kinds) > 1:
        raise ImageError("several pages; save the page that you mean as a file of its own")
    main = all_directories[0]
    width, height = main.integer(tiff.WIDTH, 0), main.integer(tiff.HEIGHT, 0)
    photometric, extra = _colour(main)
    check_size(width, height, max_pixels)
    for directory in all_directories:  # a tile is decoded whole, however small the image is
        tile = directory.integer(322, 1), directory.integer(323, 1)
        check_size(*tile, max_pixels)
    image = _load(data, main, (width, height))
    orientation = main.integer(tiff.ORIENTATION, 1)
    alpha: NDArray[np.uint8] | None = None
    for directory, kind in zip(all_directories[1:], kinds[1:], strict=True):
        if kind & _MASK and not kind & _REDUCED:
            _colour(directory)
            mask = as_array(_load(data, directory, (width, height)))
            if mask.ndim != 2:
                raise ImageError("damaged: its transparency mask has several bands")
            alpha = mask
    if photometric == 5:
        _, profile = main.tags.get(tiff.ICC_PROFILE, (0, b""))
        raster = cmyk_raster(image, profile, orientation)
        return Raster(raster.rgb, alpha, orientation, raster.converted)
    if photometric == 3:
        rgb, converted = as_array(image.convert("RGB")), "palette to RGB"
        return Raster(rgb, alpha, orientation, converted)
    array = as_array(image)
    if extra:
        alpha = array[..., -1]
        partial = float(((alpha > 0) & (alpha < 255)).mean())
        if partial > _MOST_PART_TRANSPARENT:
            bands = array.shape[-1]
            raise ImageError(
                f"{bands} bands, and the last, marked as alpha, is part-transparent in "
                f"{partial:.0%} of the pixels: it looks like a band of its own, such as near "
                "infrared; choose the bands to keep and write those"
            )
    if array.ndim == 2 or array.shape[2] == 2:
        grey = array if array.ndim == 2 else array[..., 0]
        bits = main.integer(tiff.BITS_PER_SAMPLE, 1)
        converted = f"{'1-bit' if bits == 1 else 'grey'} to RGB"
        return Raster(repeated(grey), alpha, orientation, converted)
    return Raster(array[..., :3], alpha, orientation)


def _colour(directory: tiff.Directory) -> tuple[int, bool]:
    """Photometric interpretation and whether there is an alpha band; ImageError if refused."""
    photometric = directory.integer(tiff.PHOTOMETRIC, -1)
    bits = set(directory.integers(tiff.BITS_PER_SAMPLE)) or {1}
    formats = set(directory.integers(tiff.SAMPLE_FORMAT)) or {1}
    bands = directory.integer(tiff.SAMPLES_PER_PIXEL, 1)
    if photometric == 4:  # a transparency mask is grey with another name
        photometric = 1
    colours = _COLOUR_BANDS.get(photometric)
    if colours is None:
        raise ImageError(f"its colour space (photometric {photometric}) is not grey, RGB or CMYK")
    # Extra samples are alpha only if the file says so: 1 associated, 2 not; 0 is "unspecified".
    extras = directory.integers(tiff.EXTRA_SAMPLES)
    alpha = bands == colours + 1 and extras in ((1,), (2,)) and photometric in (1, 2)
    problems = []
    if bands == 3 and colours == 1:
        problems.append(
            "3 bands not marked as red, green and blue: say so (gdal_translate -co PHOTOMETRIC=RGB)"
        )
    elif bands != colours and not alpha:
        problems.append(f"{bands} bands: choose three and write those (gdal_translate -b)")
    depth = max(bits)
    if formats != {1}:
        depth_name = {2: "signed", 3: "floating-point"}.get(max(formats), "not plain")
    else:
        depth_name = f"{depth}-bit" if depth > 8 else ""
    if depth_name:
        problems.append(
            f"{depth_name} samples whose stretch to 0..255 is unknown: write it as 8-bit "
            "(gdal_translate -ot Byte -scale)"
        )
    if len(bits) > 1:
        problems.append("bands that differ in depth: write it as 8-bit")
    if problems:
        raise ImageError("; and ".join(problems))
    compression = directory.integer(tiff.COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        raise ImageError(
            f"TIFF compression {_UNREAD.get(compression, compression)} is not read here: write it "
            "with DEFLATE (gdal_translate -co COMPRESS=DEFLATE)"
        )
    return photometric, alpha


def _load(data: bytes, directory: tiff.Directory, size: tuple[int, int]) -> Image.Image:
    from PIL.TiffImagePlugin import TiffImageFile

    for tag in _ONE_NUMBER | _MANY_NUMBERS:
        if tag in directory.tags:
            kind = directory.tags[tag][0]
            if kind not in _WHOLE or (tag in _ONE_NUMBER and len(directory.numbers(tag)) != 1):
                raise ImageError(f"damaged: TIFF tag {tag} has a wrong type or count")
    stream = tiff.with_directory(data, directory, _ONE_NUMBER | _MANY_NUMBERS | _NOT_NUMBERS)
    if directory.integer(tiff.PHOTOMETRIC, 1) == 4:
        tags = directory.tags | {
            tiff.PHOTOMETRIC: (3, struct.pack(f"{directory.endian}H", 1)),
        }
        grey = tiff.Directory(directory.endian, directory.big, tags)
        stream = tiff.with_directory(data, grey, _ONE_NUMBER | _MANY_NUMBERS | _NOT_NUMBERS)
    return load_image(TiffImageFile, stream, size)
