"""Decode the bytes of one image file to pixels.

Pillow decodes most files; GDAL (the extra 'geo') decodes files that Pillow reads only in part.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from rsir.errors import ImageError, MissingExtraError
from rsir.geo import tiff_tags as tiff
from rsir.geo.georeference import ignore_not_georeferenced
from rsir.images.convert import (
    Decoded,
    from_cmyk,
    from_palette,
    from_samples,
    samples_of,
    upright,
)
from rsir.images.gdal import ALONE, reading
from rsir.sources.gate import HEAD_BYTES, format_of, from_header, guarded, pillow_image


def decode(data: bytes, max_pixels: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """The pixels (3, H, W) uint8 RGB and the properties of the image in a file's bytes.

    `rsir.images.read.read_tile` describes both, and the files that raise an ImageError.
    """
    format_name = format_of(data[:HEAD_BYTES])
    # Pillow warns of odd metadata, but no pixel depends on such metadata.
    tiff.ignore_warnings(UserWarning, r"PIL\.")
    with guarded():
        if format_name == "TIFF":
            decoded = _decode_tiff(data, max_pixels)
        elif format_name in ("PNG", "JPEG", "WEBP"):
            decoded = _decode_picture(data, format_name, max_pixels)
        else:
            raise ImageError(f"this is a {format_name}; convert it to PNG, JPEG, WebP or GeoTIFF")
    rgb, transparent, converted = decoded
    properties: dict[str, Any] = {"width": rgb.shape[1], "height": rgb.shape[0]}
    if converted:
        properties["converted"] = converted
    if transparent is not None:
        share = float(transparent.mean())
        if share == 1:
            raise ImageError("every pixel is transparent; there is nothing to see in it")
        if share:
            rgb = np.where(transparent[..., None], np.uint8(0), rgb)
            properties["transparent"] = share
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)), properties


# ------------------------------------------------------------------------------- formats and sizes


def _check_size(width: int, height: int, max_pixels: int) -> None:
    """ImageError for an empty image, and for one above `max_pixels` or Pillow's own limit."""
    if width < 1 or height < 1:
        raise ImageError(f"damaged: its header says {width} × {height} pixels; fetch it again")
    limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
    if width * height > limit:
        raise ImageError(
            f"{width} × {height} pixels, more than {limit}: a scene, not a chip; cut it into tiles"
        )


def _by_gdal(data: bytes, driver: str, *, mask: bool = False) -> NDArray[Any]:
    """The stored samples, (H, W, bands); with `mask`: the mask, (H, W) uint8, 0 for nodata."""
    try:
        from rasterio.enums import MaskFlags
        from rasterio.io import MemoryFile
    except ImportError:
        raise ImageError(str(MissingExtraError("reading a picture of this kind", "geo"))) from None
    ignore_not_georeferenced()
    with reading("", ALONE), MemoryFile(data) as memory, memory.open(driver=driver) as dataset:
        array: NDArray[Any] = dataset.read_masks(1) if mask else dataset.read()
        flags = dataset.mask_flag_enums[0]
    if mask and MaskFlags.per_dataset not in flags:
        raise ImageError("damaged: its transparency mask does not fit it; fetch it again")
    return array if mask else array.transpose(1, 2, 0)


# ------------------------------------------------------------------------------ PNG, JPEG and WebP

# Pillow multiplies the grey values of the file by these, but not a PNG's transparent grey value.
_GREY_SCALE = {"L;2": 85, "L;4": 17}


def _decode_picture(data: bytes, format_name: str, max_pixels: int) -> Decoded:
    image = pillow_image(io.BytesIO(data), format_name)
    _check_size(*image.size, max_pixels)
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError("an animation; save the frame that you mean as an image of its own")
    raw_mode = ""
    if format_name == "PNG":
        # Pillow decodes pixels without checking their checksums; a wrong bit would stay unnoticed.
        pillow_image(io.BytesIO(data), format_name).verify()
        raw_mode = str(image.tile[0].args)
    if format_name == "JPEG":
        samples = _decode_jpeg(data, image)
    elif image.mode != "I;16" and raw_mode.endswith(";16B"):
        samples = _by_gdal(data, format_name)  # Pillow drops the low byte
    else:
        image.load()
        samples = samples_of(image)
    if image.mode in ("P", "CMYK"):
        decoded = from_palette(image) if image.mode == "P" else from_cmyk(image)
        return decoded.upright(_orientation(image))
    transparent: NDArray[np.bool_] | None = None
    colour = image.info.get("transparency")
    if samples.shape[2] in (2, 4):
        transparent = samples[..., -1] == 0
    elif colour is not None:
        transparent = (samples == np.multiply(colour, _GREY_SCALE.get(raw_mode, 1))).all(axis=2)
    decoded = from_samples(samples, transparent, one_bit=image.mode == "1")
    return decoded.upright(_orientation(image))


def _decode_jpeg(data: bytes, image: Image.Image) -> NDArray[np.uint8]:
    """The samples of a JPEG, (H, W, bands); ValueError for damage.

    Both libraries use libjpeg-turbo and give the same pixels. Pillow takes a JPEG whose middle is
    missing, because libjpeg only warns of that; simplejpeg refuses it.
    """
    import simplejpeg

    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    if (width, height) != image.size:
        raise ValueError("its header gives two sizes")
    colours = {"L": "GRAY"}.get(image.mode, image.mode)
    samples: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours)
    return samples


def orientation_of(path: str | os.PathLike[str]) -> int:
    """The orientation in the metadata of a local image file, 1 (upright) to 8; 1 if unknown."""
    return from_header(path, _orientation, 1)


def size_and_place(path: str | os.PathLike[str]) -> tuple[int, int, bool]:
    """(width, height, whether it is a GeoTIFF) of a local image file; (0, 0, False) if unknown."""

    def read(image: ImageFile) -> tuple[int, int, bool]:
        width, height = image.size
        return width, height, tiff.GEO_KEYS in getattr(image, "tag_v2", {})

    return from_header(path, read, (0, 0, False))


def _orientation(image: Image.Image) -> int:
    """The orientation that the metadata gives, as `rsir.images.convert.upright` takes it."""
    try:
        orientation = image.getexif().get(tiff.ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # damaged metadata raises nearly anything; the pixels are right all the same
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


# -------------------------------------------------------------------------------------------- TIFF

_COLOUR_BANDS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # photometric: number of colour bands
# Compressions that the libtiff in Pillow's wheels reads: none, CCITT, LZW, Deflate, PackBits, LZMA,
# Zstd. It reads JPEG too, but fills what is missing with grey and does not tell.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000})
_RARE_COMPRESSIONS = {
    6: "old JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType: an overview, a transparency mask

# Our choice. The alpha of a clipped or mosaicked image is 0 or 255 nearly everywhere; but by
# default GDAL marks the fourth band of any 8-bit image as alpha, even if it is near infrared.
_MOST_PART_TRANSPARENT = 0.5


def _decode_tiff(data: bytes, max_pixels: int) -> Decoded:
    tags, has_mask = _main_directory(data, max_pixels)
    has_alpha = _check_samples(tags)
    # The transform of a GeoTIFF is that of the stored image.
    stored = tiff.integer(tags, tiff.ORIENTATION, 1)
    orientation = 1 if tiff.GEO_KEYS in tags else stored
    if _is_plain(tags) and orientation == stored:
        image = pillow_image(io.BytesIO(data), "TIFF")
        image.load()  # this turns a TIFF upright; Pillow turns no other format by itself
        if image.mode == "P":
            decoded = from_palette(image)
        elif image.mode == "CMYK":
            decoded = from_cmyk(image)
        else:
            samples = samples_of(image.convert("RGB") if image.mode == "YCbCr" else image)
            transparent = _transparent(samples) if has_alpha else None
            decoded = from_samples(samples, transparent, one_bit=image.mode == "1")
    else:
        samples = _samples_by_gdal(data, tags)
        transparent = _transparent(samples) if has_alpha else None
        decoded = from_samples(samples, transparent).upright(orientation)
    if has_mask:
        mask = _by_gdal(data, "GTiff", mask=True)
        decoded = decoded._replace(transparent=upright(mask == 0, orientation))
    return decoded


def _main_directory(data: bytes, max_pixels: int) -> tuple[tiff.Directory, bool]:
    """The tags of the image, and whether a transparency mask belongs to it."""
    found: list[tiff.Directory] = []
    pages, has_mask = 0, False
    for tags in tiff.directories(data):
        kind = tiff.integer(tags, tiff.SUBFILE_TYPE, 0) & (_REDUCED | _MASK)
        pages += kind == 0
        has_mask = has_mask or kind == _MASK
        # A tile is decoded whole, however small the image is.
        for across, down in ((tiff.WIDTH, tiff.HEIGHT), (tiff.TILE_WIDTH, tiff.TILE_HEIGHT)):
            width, height = tiff.integer(tags, across, 1), tiff.integer(tags, down, 1)
            _check_size(width, height, max_pixels)
        found = found or [tags]
    if pages > 1:
        raise ImageError("several pages; save the page that you mean as a file of its own")
    return found[0], has_mask


def _check_samples(tags: tiff.Directory) -> bool:
    """Whether there is an alpha band; ImageError for samples that cannot be read faithfully."""
    photometric = tiff.integer(tags, tiff.PHOTOMETRIC, -1)
    bits = set(tiff.integers(tags, tiff.BITS_PER_SAMPLE)) or {1}
    formats = set(tiff.integers(tags, tiff.SAMPLE_FORMAT)) or {1}
    bands = tiff.integer(tags, tiff.SAMPLES_PER_PIXEL, 1)
    colours = _COLOUR_BANDS.get(photometric)
    if colours is None:
        raise ImageError(f"its colour space (photometric {photometric}) is not grey, RGB or CMYK")
    # Extra samples are alpha only with these values: 1 associated, 2 unassociated; 0: unspecified.
    extras = tiff.integers(tags, tiff.EXTRA_SAMPLES)
    has_alpha = bands == colours + 1 and extras in ((1,), (2,)) and photometric in (1, 2)
    problems = []
    if bands == 3 and colours == 1:
        problems.append(
            "3 bands not marked as red, green and blue: mark them (gdal_translate -co "
            "PHOTOMETRIC=RGB)"
        )
    elif bands != colours and not has_alpha:
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
    return has_alpha


def is_plain_tiff(path: str | os.PathLike[str]) -> bool:
    """Whether Pillow reads a local TIFF with the same pixels as GDAL; reads only its tags."""

    def read(image: ImageFile) -> bool:
        if not isinstance(image, TiffImageFile):
            return False
        _check_samples(image.tag_v2)
        return _is_plain(image.tag_v2)

    return from_header(path, read, False)


def _is_plain(tags: tiff.Directory) -> bool:
    """Whether Pillow reads the compression, and no strip or tile is left out (a sparse file)."""
    offsets = (
        number
        for tag in (tiff.STRIP_OFFSETS, tiff.STRIP_BYTES, tiff.TILE_OFFSETS, tiff.TILE_BYTES)
        for number in tiff.integers(tags, tag)
    )
    return tiff.integer(tags, tiff.COMPRESSION, 1) in _COMPRESSIONS and all(offsets)


def _samples_by_gdal(data: bytes, tags: tiff.Directory) -> NDArray[np.uint8]:
    """The samples (H, W, bands), grey or RGB, of a TIFF that Pillow does not read faithfully."""
    compression = tiff.integer(tags, tiff.COMPRESSION, 1)
    problem = f"TIFF compression {_RARE_COMPRESSIONS.get(compression, compression)} is not read"
    advice = "write it with DEFLATE (gdal_translate -co COMPRESS=DEFLATE)"
    if compression in _COMPRESSIONS:
        problem = "a TIFF that is sparse, or is georeferenced and turned, is not read"
    photometric = tiff.integer(tags, tiff.PHOTOMETRIC, 1)
    # GDAL gives the stored samples, and JPEG's YCbCr as RGB; any others are not grey or RGB.
    if (
        photometric not in (0, 1, 2, 6 if compression == 7 else 1)
        or tiff.integer(tags, tiff.BITS_PER_SAMPLE, 1) != 8
    ):
        raise ImageError(f"{problem} with these samples: {advice}")
    try:
        samples: NDArray[np.uint8] = _by_gdal(data, "GTiff")
    except ImageError as error:
        raise ImageError(f"{problem} here ({error}): {advice}") from error
    return np.uint8(255) - samples if photometric == 0 else samples


def _transparent(samples: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where alpha, the last band, is 0, (H, W); ImageError if the band does not look like alpha."""
    alpha = samples[..., -1]
    partial = float(((alpha > 0) & (alpha < 255)).mean())
    if partial > _MOST_PART_TRANSPARENT:
        raise ImageError(
            f"{samples.shape[2]} bands, and the last, marked as alpha, is part-transparent in "
            f"{partial:.0%} of the pixels: it looks like a band of its own, such as near infrared; "
            "choose the bands to keep and write those"
        )
    transparent: NDArray[np.bool_] = alpha == 0
    return transparent
