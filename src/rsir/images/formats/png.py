"""PNG: every colour type and depth of the specification, one frame."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ImageError
from rsir.images.formats.raster import (
    Raster,
    as_array,
    check_size,
    exif_orientation,
    load_image,
    repeated,
)

_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples per pixel
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def decode(data: bytes, max_pixels: int) -> Raster:
    """The image in the bytes of a PNG file; ImageError if it is refused."""
    from PIL.PngImagePlugin import PngImageFile

    chunks = _chunks(data)
    header = chunks[0][1]
    width, height = struct.unpack(">LL", header[:8])
    depth, colour = header[8], header[9]
    check_size(width, height, max_pixels)
    if depth not in _DEPTHS.get(colour, ()):
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
        return as_array(load_image(PngImageFile, stream, (width, height), (mode, rawmode)))

    key = extra.get(b"tRNS", b"")  # colours that are transparent, section 11.3.2.1
    alpha: NDArray[np.uint8] | None = None
    converted: str | None = None
    if colour == 3:
        image = load_image(PngImageFile, stream, (width, height))
        rgb = as_array(image.convert("RGB"))
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
        rgb = repeated(eight[..., 0]) if bands < 3 else eight[..., :3]
        if bands in (2, 4):
            # A sample of 1 in 65535 is not zero alpha: do not let rounding make nodata of it.
            last = both[..., -2:].max(axis=-1)
            alpha = np.where(last > 0, np.maximum(eight[..., -1], 1), 0).astype(np.uint8)
        elif len(key) >= 2 * bands:
            wanted = np.frombuffer(key[: 2 * bands], np.uint8)
            alpha = _opaque_unless((both == wanted).all(axis=2))
    else:
        array = as_array(load_image(PngImageFile, stream, (width, height)))
        bands = _BANDS[colour]
        if bands <= 2:
            converted = f"{'1-bit' if depth == 1 else 'grey'} to RGB"
            grey = array if bands == 1 else array[..., 0]
            rgb = repeated(grey)
        else:
            rgb = array[..., :3]
        if bands in (2, 4):
            alpha = array[..., -1]
        elif len(key) >= 2 * bands:
            # The key counts in the file's own depth; only its low byte has meaning below 16 bits.
            values = np.frombuffer(key[: 2 * bands], ">u2") * (255 // (2**depth - 1))
            alpha = _opaque_unless((rgb[..., :bands] == values).all(axis=2))
    return Raster(rgb, alpha, exif_orientation(extra.get(b"eXIf", b"")), converted)


def _opaque_unless(transparent: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(transparent, 0, 255).astype(np.uint8)


def _to_8_bits(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # 65535 / 255 = 257 exactly (PNG specification, section 13.12 on sample depth rescaling).
    full = high.astype(np.uint32) * 256 + low
    return ((full + 128) // 257).astype(np.uint8)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
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
