"""Reads one image file faithfully: what the encoder sees is what is in the file, or an ImageError.

The containers (PNG chunks, JPEG segments, RIFF chunks, TIFF tags) are read here, and Pillow gets
only the parts that carry pixels. There are two reasons. Sizes, bands and bit depths are checked
before anything is decoded. And Pillow reports oddities in metadata through `warnings`, whose
filters all threads share and which `warnings.catch_warnings` cannot guard in a pool of threads
before Python 3.14: without the metadata there is nothing to warn of.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import DataError, ImageError
from rsir.geo import tiff
from rsir.types import Tile

if TYPE_CHECKING:
    from PIL import Image

    from rsir.geo.georeference import Georeference

SUFFIXES: frozenset[str] = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"})
"""Lower-case suffixes of the files that `find_images` takes; what is inside decides how it is
read."""

MAX_PIXELS = 89_478_485
"""Width × height above which a file is a scene, not a chip: Pillow's own limit against
decompression bombs (`PIL.Image.MAX_IMAGE_PIXELS`, a quarter of a gigabyte of RGB)."""

_ID_BYTES = 12  # 24 hex digits. Our choice: a clash among 10^9 tiles has a chance below 10^-11
_CONTENT_BYTES = 16  # 32 hex digits; 128 bits, as usual for content addresses

# Our choice. The alpha of a clipped or mosaicked image is 0 or 255 nearly everywhere; GDAL marks
# the fourth band of any 8-bit image as alpha unless told otherwise, near infrared too.
_MOST_PART_TRANSPARENT = 0.5


@dataclass(frozen=True, slots=True)
class _Raster:
    """A decoded image before orientation and alpha: rgb (H, W, 3), alpha (H, W), both uint8."""

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None
    orientation: int = 1
    converted: str | None = None


def read_pixels(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The pixels of an image file, (3, H, W) uint8, red, green, blue, in 0..255.

    See `read_tile` for what is converted and what is refused with an ImageError.
    """
    source = _source(path)
    with _named(source):
        return _decode(_bytes(path), max_pixels)[0]


def read_tile(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Tile:
    """One image file as a Tile: pixels (3, H, W) uint8 RGB, identity, and where and when if known.

    The file is read once, so that `content` (BLAKE2b of its bytes, 32 hex digits) and the pixels
    agree. `source` is the absolute path. `bounds`, `crs`, `footprint` and `datetime` come from a
    GeoTIFF's tags (see `rsir.geo.georeference`); without the extra 'geo' they are None.

    Properties: `width`, `height` after orientation; `converted`, if the samples are not the
    file's own; `transparent`, the share of pixels that are nodata by the file's alpha or mask, in
    (0, 1).

    Kept: 8-bit RGB. Converted without loss: grey, 1-bit, palette. Alpha is dropped; pixels with
    alpha 0 are nodata and become 0, all others keep their colour. 16-bit PNG samples span
    0..65535 by its specification and are divided by 257, rounded. CMYK goes through the file's
    colour profile if it has one. A profile on an RGB image is left alone: archives and training
    sets are read as stored samples everywhere, and converting some would move them apart.
    EXIF orientation is applied.

    Refused: 16-bit and float TIFF (their stretch is unknown), any number of bands that is not
    grey or RGB, several pages or frames, wholly transparent, damaged or cut off, more than
    `max_pixels` = width × height (never above Pillow's own limit), and what is no image at all.

    Errors: ImageError, with the path, the reason and what to do.
    """
    source = _source(path)
    with _named(source):
        data = _bytes(path)
        pixels, properties = _decode(data, max_pixels)
    content = hashlib.blake2b(data, digest_size=_CONTENT_BYTES).hexdigest()
    place = _place(data)
    return Tile(
        id=tile_id(source, content),
        pixels=pixels,
        source=source,
        content=content,
        bounds=None if place is None else place.bounds,
        crs=None if place is None else place.crs,
        footprint=None if place is None else place.footprint,
        datetime=None if place is None else place.datetime,
        properties=properties,
    )


def tile_id(source: str, content: str) -> str:
    """The stable id of what `source` holds while its bytes hash to `content`: 24 hex digits."""
    both = f"{source}\0{content}".encode()
    return hashlib.blake2b(both, digest_size=_ID_BYTES).hexdigest()


def find_images(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Path], Counter[str]]:
    """The image files among files and folders, sorted and each once, and what was passed over.

    Folders are searched to the bottom; names that begin with a dot are ignored, links are
    followed, a folder reached twice is searched once. A file named outright is taken whatever its
    suffix. The Counter has the lower-case suffixes ("" for none) of the other files in the folders.

    Errors: DataError if a path is missing or a folder cannot be listed.
    """
    found: set[Path] = set()
    others: Counter[str] = Counter()
    seen: set[Path] = set()
    for start in map(Path, paths):
        if start.is_dir():
            for file in _walk(start, seen):
                if file.suffix.lower() in SUFFIXES:
                    found.add(file)
                else:
                    others[file.suffix.lower()] += 1
        elif start.exists():
            found.add(start)
        else:
            raise DataError(f"{start}: no such file or folder; check the path")
    return sorted(found), others


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    # A stack, not recursion: depth is the user's. Resolved folders in `seen` stop link loops.
    stack = [folder]
    while stack:
        folder = stack.pop()
        real = folder.resolve()
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise DataError(
                f"{folder}: cannot be listed ({error.strerror}); check its permissions"
            ) from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                stack.append(entry)
            elif entry.is_file():
                yield entry


def _source(path: str | os.PathLike[str]) -> str:
    # abspath, not resolve: a link keeps the name its owner gave it, and 'a/../b' is still 'b'.
    source = Path(os.path.abspath(path)).as_posix()  # noqa: PTH100
    try:
        source.encode()
    except UnicodeEncodeError:
        shown = source.encode("ascii", "backslashreplace").decode()
        raise ImageError(f"{shown}: its name is not valid UTF-8; rename the file") from None
    return source


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Puts the file's path before the message of an ImageError."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from error.__cause__


def _bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError("the file is gone; index its folder again to prune it") from None
    except IsADirectoryError:
        raise ImageError("this is a folder; give a file in it") from None
    except PermissionError:
        raise ImageError("permission denied; make the file readable for this user") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"cannot be read ({error}); check the disk and the path") from error
    if not data:
        raise ImageError("the file is empty (0 bytes); fetch it again")
    return data


def _decode(data: bytes, max_pixels: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    raster = _reader(data)(data, max_pixels)
    properties: dict[str, Any] = {}
    if raster.converted:
        properties["converted"] = raster.converted
    rgb = raster.rgb
    if raster.alpha is not None:
        nodata = raster.alpha == 0
        share = float(nodata.mean())
        if share == 1:
            raise ImageError("every pixel is transparent; there is nothing to see in it")
        if share:
            rgb = np.where(nodata[..., None], np.uint8(0), rgb)
            properties["transparent"] = share
    pixels = np.ascontiguousarray(_upright(rgb, raster.orientation).transpose(2, 0, 1))
    return pixels, {"width": pixels.shape[2], "height": pixels.shape[1]} | properties


def _upright(rgb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    # EXIF 2.3 table 6 / TIFF 6.0 page 36: where row 0 and column 0 of the stored image lie.
    match orientation:
        case 2:
            return rgb[:, ::-1]
        case 3:
            return rgb[::-1, ::-1]
        case 4:
            return rgb[::-1]
        case 5:
            return rgb.transpose(1, 0, 2)
        case 6:
            return rgb.transpose(1, 0, 2)[:, ::-1]
        case 7:
            return rgb.transpose(1, 0, 2)[::-1, ::-1]
        case 8:
            return rgb.transpose(1, 0, 2)[::-1]
        case _:
            return rgb


_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\x89HDF", "an HDF5 or NetCDF file"),
    (b"CDF", "a NetCDF file"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
)


def _reader(data: bytes) -> Callable[[bytes, int], _Raster]:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _tiff
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")) or b"<html" in head:
        raise ImageError("this is a web page, not an image: a download that failed; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise ImageError("this is a Git LFS pointer, not the image; run 'git lfs pull'")
    for magic, name in _OTHERS:
        if data.startswith(magic):
            raise ImageError(f"this is {name}; convert it to PNG, JPEG, WebP or GeoTIFF")
    raise ImageError("not an image that can be read; PNG, JPEG, WebP and TIFF can")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    from PIL import Image

    if width < 1 or height < 1:
        raise ImageError(f"damaged: its header says {width} × {height} pixels; fetch it again")
    # Pillow warns above its own limit, and inside its TIFF reader that cannot be avoided.
    limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
    if width * height > limit:
        raise ImageError(
            f"{width} × {height} pixels, more than {limit}: a scene, not a chip; cut it into tiles"
        )


def _image(
    plugin: Callable[[io.BytesIO], Image.Image],
    data: bytes,
    size: tuple[int, int] | None,
    raw: tuple[str, str] | None = None,
) -> Image.Image:
    """The decoded image; `raw` = (mode, rawmode) asks the decoder for other bytes of a sample."""
    try:
        image = plugin(io.BytesIO(data))
        if size is not None and image.size != size:
            raise ImageError("damaged: it gives its size twice and differently; fetch it again")
        if raw is not None:
            # Pillow has no public way to ask for this; `mode` is a property over `_mode`.
            image._mode = raw[0]
            image.tile = [tile._replace(args=raw[1]) for tile in image.tile]  # type: ignore[attr-defined]
        image.load()
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("not enough memory to decode it; lower the number of workers") from None
    except Exception as error:
        # Hostile or damaged bytes make Pillow's readers raise nearly anything: SyntaxError,
        # struct.error, OSError, ValueError, KeyError, IndexError, TypeError, OverflowError,
        # zlib.error, DecompressionBombError. None of these says more than that decoding failed.
        raise ImageError(f"damaged or cut off ({error}); fetch it again") from error
    return image


def _array(image: Image.Image) -> NDArray[np.uint8]:
    # Mode "1" gives booleans; everything else asked for here is uint8 already.
    array = np.asarray(image)
    return array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array


def _repeated(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def _to_8_bits(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # 65535 / 255 = 257 exactly (PNG specification, section 13.12 on sample depth rescaling).
    full = high.astype(np.uint32) * 256 + low
    return ((full + 128) // 257).astype(np.uint8)


def _exif_orientation(exif: bytes) -> int:
    try:
        return tiff.directories(exif.removeprefix(b"Exif\0\0"))[0].integer(tiff.ORIENTATION, 1)
    except tiff.TiffError:
        return 1  # damaged metadata does not make the pixels wrong


# ------------------------------------------------------------------------------------------- PNG

_PNG_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples per pixel
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def _png(data: bytes, max_pixels: int) -> _Raster:
    from PIL.PngImagePlugin import PngImageFile

    chunks = _png_chunks(data)
    header = chunks[0][1]
    width, height = struct.unpack(">LL", header[:8])
    depth, colour = header[8], header[9]
    _check_size(width, height, max_pixels)
    if depth not in _PNG_DEPTHS.get(colour, ()):
        raise ImageError(f"damaged: no PNG has colour type {colour} with {depth} bits")
    extra: dict[bytes, bytes] = {}
    for name, body in chunks:
        extra.setdefault(name, body)
    frames = extra.get(b"acTL", b"")
    if len(frames) >= 4 and struct.unpack(">L", frames[:4])[0] > 1:
        raise ImageError("an animation; save the frame that you mean as an image of its own")
    stream = data[:8] + b"".join(
        struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
        for name, body in chunks
        if name in {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
    )

    def samples(mode: str, rawmode: str) -> NDArray[np.uint8]:
        return _array(_image(PngImageFile, stream, (width, height), (mode, rawmode)))

    key = extra.get(b"tRNS", b"")  # colours that are transparent, section 11.3.2.1
    alpha: NDArray[np.uint8] | None = None
    converted: str | None = None
    if colour == 3:
        image = _image(PngImageFile, stream, (width, height))
        rgb = _array(image.convert("RGB"))
        converted = "palette to RGB"
        if key:
            table = np.frombuffer(key[:256].ljust(256, b"\xff"), np.uint8)
            alpha = table[np.asarray(image)]
    elif depth == 16:
        converted = f"16-bit {'RGB' if colour in (2, 6) else 'grey'} to 8-bit RGB"
        if colour in (0, 4):
            # Two bytes a sample: seen as 8-bit bands they are high, low (, alpha high, alpha low).
            mode = "LA" if colour == 0 else "RGBA"
            both = samples(mode, mode)
        else:
            # RGB;16B takes the first byte of each sample, RGB;16L the second.
            mode = "RGB" if colour == 2 else "RGBA"
            first, second = samples(mode, f"{mode};16B"), samples(mode, f"{mode};16L")
            both = np.stack([first, second], axis=-1).reshape(height, width, -1)
        eight = _to_8_bits(both[..., 0::2], both[..., 1::2])
        bands = eight.shape[2]
        rgb = _repeated(eight[..., 0]) if bands < 3 else eight[..., :3]
        if bands in (2, 4):
            # A sample of 1 in 65535 is not zero alpha: do not let rounding make nodata of it.
            last = both[..., -2:].max(axis=-1)
            alpha = np.where(last > 0, np.maximum(eight[..., -1], 1), 0).astype(np.uint8)
        elif len(key) >= 2 * bands:
            wanted = np.frombuffer(key[: 2 * bands], np.uint8)
            alpha = _opaque_unless((both == wanted).all(axis=2))
    else:
        array = _array(_image(PngImageFile, stream, (width, height)))
        bands = _PNG_BANDS[colour]
        if bands <= 2:
            converted = f"{'1-bit' if depth == 1 else 'grey'} to RGB"
            grey = array if bands == 1 else array[..., 0]
            rgb = _repeated(grey)
        else:
            rgb = array[..., :3]
        if bands in (2, 4):
            alpha = array[..., -1]
        elif len(key) >= 2 * bands:
            # The key counts in the file's own depth; only its low byte has meaning below 16 bits.
            values = np.frombuffer(key[: 2 * bands], ">u2") * (255 // (2**depth - 1))
            alpha = _opaque_unless((rgb[..., :bands] == values).all(axis=2))
    return _Raster(rgb, alpha, _exif_orientation(extra.get(b"eXIf", b"")), converted)


def _opaque_unless(transparent: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(transparent, 0, 255).astype(np.uint8)


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks: list[tuple[bytes, bytes]] = []
    where = 8
    while not chunks or chunks[-1][0] != b"IEND":
        if where + 12 > len(data):
            raise ImageError("cut off: the end of the PNG is missing; fetch it again")
        (length,) = struct.unpack_from(">L", data, where)
        name = data[where + 4 : where + 8]
        body = data[where + 8 : where + 8 + length]
        where += length + 12
        if where > len(data):
            raise ImageError("cut off: the end of the PNG is missing; fetch it again")
        if not chunks and (name != b"IHDR" or length != 13):
            raise ImageError("damaged: the PNG does not begin with its header; fetch it again")
        # Pillow does not check the sums of pixel data, and a wrong bit there is a wrong picture.
        # Bit 5 of the first letter marks chunks that no pixel depends on (section 5.4).
        if zlib.crc32(name + body) != struct.unpack_from(">L", data, where - 4)[0]:
            if name == b"tRNS" or not name[:1].islower():
                shown = name.decode("ascii", "replace")
                raise ImageError(f"damaged: PNG chunk {shown} fails its checksum; fetch it again")
            continue
        chunks.append((name, body))
    return chunks


# ------------------------------------------------------------------------------------------ JPEG


def _jpeg(data: bytes, max_pixels: int) -> _Raster:
    from PIL.JpegImagePlugin import JpegImageFile

    # Frame headers are C0..CF without DHT, JPG and DAC (ITU T.81, table B.1).
    frame_markers = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
    kept = [b"\xff\xd8"]
    orientation, profile = 1, dict[int, bytes]()
    size: tuple[int, int] | None = None
    bands = 0
    for marker, body, where in _jpeg_segments(data):
        if marker == 0xDA:
            kept.append(data[where:])
            break
        if marker in frame_markers and size is None:
            if len(body) < 6:
                raise ImageError("damaged: the JPEG's frame header is cut off; fetch it again")
            depth, height, width, bands = struct.unpack_from(">BHHB", body)
            if depth != 8:
                raise ImageError(f"a JPEG with {depth} bits a sample; convert it to 8 bits")
            _check_size(width, height, max_pixels)
            size = width, height
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(body)
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]] = body[14:]
        # APP0 (JFIF) and APP14 (Adobe) tell the decoder the colour space; no pixel needs the rest.
        if not (0xE1 <= marker <= 0xEF and marker != 0xEE) and marker != 0xFE:
            kept.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
    if size is None:
        raise ImageError("damaged: the JPEG has no frame header; fetch it again")
    image = _image(JpegImageFile, b"".join(kept), size)
    if bands == 4:
        whole = b"".join(profile[part] for part in sorted(profile))
        return _cmyk(image, whole, orientation)
    if bands == 1:
        return _Raster(_repeated(_array(image)), None, orientation, "grey to RGB")
    if image.mode != "RGB":
        raise ImageError(f"a JPEG with {bands} bands; convert it to grey or RGB")
    return _Raster(_array(image), None, orientation)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Each segment up to the first scan as (marker, body, where it begins)."""
    where = 2
    while True:
        where = data.find(b"\xff", where)
        if where < 0 or where + 4 > len(data):
            raise ImageError("cut off: the JPEG ends before its pixels; fetch it again")
        marker = data[where + 1]
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8 or marker == 0x01:
            where += 1  # fill bytes and markers without a body
            continue
        (length,) = struct.unpack_from(">H", data, where + 2)
        body = data[where + 4 : where + 2 + length]
        if length < 2 or len(body) != length - 2:
            raise ImageError("cut off: the JPEG ends before its pixels; fetch it again")
        yield marker, body, where
        where += 2 + length


def _cmyk(image: Image.Image, profile: bytes, orientation: int) -> _Raster:
    from PIL import ImageCms

    if profile:
        try:
            done = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            done = None  # a damaged profile, or one that is not for CMYK: as if there were none
        if done is not None:
            rgb = _array(done)
            return _Raster(rgb, None, orientation, "CMYK to RGB by its colour profile")
    return _Raster(_array(image.convert("RGB")), None, orientation, "CMYK to RGB")


# ------------------------------------------------------------------------------------------ WebP


def _webp(data: bytes, max_pixels: int) -> _Raster:
    from PIL.WebPImagePlugin import WebPImageFile

    size: tuple[int, int] | None = None
    orientation, frames = 1, 0
    for name, body in _riff_chunks(data):
        if name == b"VP8X" and len(body) >= 10:
            size = _little(body[4:7]) + 1, _little(body[7:10]) + 1
        elif name == b"VP8 " and len(body) >= 10:
            size = size or (_little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF)
        elif name == b"VP8L" and len(body) >= 5:
            bits = _little(body[1:5])
            size = size or ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif name == b"ANMF":
            frames += 1
        elif name == b"EXIF":
            orientation = _exif_orientation(body)
    if size is None:
        raise ImageError("damaged or cut off: the WebP has no image header; fetch it again")
    _check_size(*size, max_pixels)
    if frames > 1:
        raise ImageError("an animation; save the frame that you mean as an image of its own")
    array = _array(_image(WebPImageFile, data, size))
    alpha = array[..., 3] if array.shape[2] == 4 else None
    return _Raster(array[..., :3], alpha, orientation)


def _little(value: bytes) -> int:
    return int.from_bytes(value, "little")


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    where = 12
    while where + 8 <= len(data):
        length = _little(data[where + 4 : where + 8])
        yield data[where : where + 4], data[where + 8 : where + 8 + length]
        where += 8 + length + length % 2


# ------------------------------------------------------------------------------------------ TIFF

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


def _tiff(data: bytes, max_pixels: int) -> _Raster:
    try:
        all_directories = tiff.directories(data)
    except tiff.TiffError as error:
        raise ImageError(f"damaged: {error}; fetch it again") from error
    kinds = [directory.integer(tiff.SUBFILE_TYPE, 0) for directory in all_directories]
    if sum(not kind & (_REDUCED | _MASK) for kind in kinds) > 1:
        raise ImageError("several pages; save the page that you mean as a file of its own")
    main = all_directories[0]
    width, height = main.integer(tiff.WIDTH, 0), main.integer(tiff.HEIGHT, 0)
    photometric, extra = _tiff_colour(main)
    _check_size(width, height, max_pixels)
    for directory in all_directories:  # a tile is decoded whole, however small the image is
        tile = directory.integer(322, 1), directory.integer(323, 1)
        _check_size(*tile, max_pixels)
    image = _tiff_image(data, main, (width, height))
    orientation = main.integer(tiff.ORIENTATION, 1)
    alpha: NDArray[np.uint8] | None = None
    for directory, kind in zip(all_directories[1:], kinds[1:], strict=True):
        if kind & _MASK and not kind & _REDUCED:
            _tiff_colour(directory)
            mask = _array(_tiff_image(data, directory, (width, height)))
            if mask.ndim != 2:
                raise ImageError("damaged: its transparency mask has several bands")
            alpha = mask
    if photometric == 5:
        _, profile = main.tags.get(tiff.ICC_PROFILE, (0, b""))
        raster = _cmyk(image, profile, orientation)
        return _Raster(raster.rgb, alpha, orientation, raster.converted)
    if photometric == 3:
        rgb, converted = _array(image.convert("RGB")), "palette to RGB"
        return _Raster(rgb, alpha, orientation, converted)
    array = _array(image)
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
        return _Raster(_repeated(grey), alpha, orientation, converted)
    return _Raster(array[..., :3], alpha, orientation)


def _tiff_colour(directory: tiff.Directory) -> tuple[int, bool]:
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


def _tiff_image(data: bytes, directory: tiff.Directory, size: tuple[int, int]) -> Image.Image:
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
    return _image(TiffImageFile, stream, size)


def _place(data: bytes) -> Georeference | None:
    """Where a GeoTIFF lies; None for any other image, and without the extra 'geo'."""
    if not data.startswith((b"II", b"MM")):
        return None
    from rsir.errors import MissingExtraError
    from rsir.geo.georeference import georeference

    try:
        return georeference(data)
    except MissingExtraError:
        return None
