"""A decoded image, and what the formats share in making one."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ImageError
from rsir.geo import tiff_tags as tiff

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Raster:
    """A decoded image before orientation and alpha: rgb (H, W, 3), alpha (H, W), both uint8."""

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None
    orientation: int = 1
    converted: str | None = None


def check_size(width: int, height: int, max_pixels: int) -> None:
    """ImageError for an empty image, and for one above `max_pixels` or Pillow's own limit."""
    from PIL import Image

    if width < 1 or height < 1:
        raise ImageError(f"damaged: its header says {width} × {height} pixels; fetch it again")
    # Pillow warns above its own limit, and inside its TIFF reader that cannot be avoided.
    limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
    if width * height > limit:
        raise ImageError(
            f"{width} × {height} pixels, more than {limit}: a scene, not a chip; cut it into tiles"
        )


def load_image(
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


def as_array(image: Image.Image) -> NDArray[np.uint8]:
    """The samples, (H, W) or (H, W, C) uint8; of a 1-bit image 0 and 255."""
    # Mode "1" gives booleans; everything else asked for here is uint8 already.
    array = np.asarray(image)
    return array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array


def repeated(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey (H, W) as red, green and blue (H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=2)


def exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8 where the tag is sound, that an Exif block gives; 1 without one."""
    try:
        return tiff.directories(exif.removeprefix(b"Exif\0\0"))[0].integer(tiff.ORIENTATION, 1)
    except tiff.TiffError:
        return 1  # damaged metadata does not make the pixels wrong


def cmyk_raster(image: Image.Image, profile: bytes, orientation: int) -> Raster:
    """A CMYK image as RGB, through its colour profile (ICC) if that can be used."""
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
            rgb = as_array(done)
            return Raster(rgb, None, orientation, "CMYK to RGB by its colour profile")
    return Raster(as_array(image.convert("RGB")), None, orientation, "CMYK to RGB")
