"""JPEG: 8 bits a sample; grey, colour, or CMYK by its colour profile."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rsir.errors import ImageError
from rsir.images.formats.raster import (
    Raster,
    as_array,
    check_size,
    cmyk_raster,
    exif_orientation,
    load_image,
    repeated,
)


def decode(data: bytes, max_pixels: int) -> Raster:
    """The image in the bytes of a JPEG file; ImageError if it is refused."""
    from PIL.JpegImagePlugin import JpegImageFile

    # Frame headers are C0..CF without DHT, JPG and DAC (ITU T.81, table B.1).
    frame_markers = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
    kept = [b"\xff\xd8"]
    orientation, profile = 1, dict[int, bytes]()
    size: tuple[int, int] | None = None
    bands = 0
    for marker, body, where in _segments(data):
        if marker == 0xDA:
            kept.append(data[where:])
            break
        if marker in frame_markers and size is None:
            if len(body) < 6:
                raise ImageError("damaged: the JPEG's frame header is cut off; fetch it again")
            depth, height, width, bands = struct.unpack_from(">BHHB", body)
            if depth != 8:
                raise ImageError(f"a JPEG with {depth} bits a sample; convert it to 8 bits")
            check_size(width, height, max_pixels)
            size = width, height
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = exif_orientation(body)
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]] = body[14:]
        # APP0 (JFIF) and APP14 (Adobe) tell the decoder the colour space; no pixel needs the rest.
        if not (0xE1 <= marker <= 0xEF and marker != 0xEE) and marker != 0xFE:
            kept.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
    if size is None:
        raise ImageError("damaged: the JPEG has no frame header; fetch it again")
    image = load_image(JpegImageFile, b"".join(kept), size)
    if bands == 4:
        whole = b"".join(profile[part] for part in sorted(profile))
        return cmyk_raster(image, whole, orientation)
    if bands == 1:
        return Raster(repeated(as_array(image)), None, orientation, "grey to RGB")
    if image.mode != "RGB":
        raise ImageError(f"a JPEG with {bands} bands; convert it to grey or RGB")
    return Raster(as_array(image), None, orientation)


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
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
