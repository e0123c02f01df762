"""WebP: lossy or lossless, one frame."""

from __future__ import annotations

from collections.abc import Iterator

from rsir.errors import ImageError
from rsir.images.formats.raster import Raster, as_array, check_size, exif_orientation, load_image


def decode(data: bytes, max_pixels: int) -> Raster:
    """The image in the bytes of a WebP file; ImageError if it is refused."""
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
            orientation = exif_orientation(body)
    if size is None:
        raise ImageError("damaged or cut off: the WebP has no image header; fetch it again")
    check_size(*size, max_pixels)
    if frames > 1:
        raise ImageError("an animation; save the frame that you mean as an image of its own")
    array = as_array(load_image(WebPImageFile, data, size))
    alpha = array[..., 3] if array.shape[2] == 4 else None
    return Raster(array[..., :3], alpha, orientation)


def _little(value: bytes) -> int:
    return int.from_bytes(value, "little")


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    where = 12
    while where + 8 <= len(data):
        length = _little(data[where + 4 : where + 8])
        yield data[where : where + 4], data[where + 8 : where + 8 + length]
        where += 8 + length + length % 2
