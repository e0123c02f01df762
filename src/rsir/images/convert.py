"""Convert decoded samples to upright 8-bit RGB."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rsir.geo.tiff_tags import ORIENTATION


class Decoded(NamedTuple):
    """A decoded image.

    rgb: (H, W, 3) uint8. transparent: (H, W), or None if every pixel is opaque. converted: the
    conversion in words, such as "grey to RGB"; None if `rgb` has the samples of the file.
    """

    rgb: NDArray[np.uint8]
    transparent: NDArray[np.bool_] | None = None
    converted: str | None = None

    def upright(self, orientation: int) -> Decoded:
        """The same image turned upright; orientation: as in the function `upright`."""
        transparent = self.transparent
        if transparent is not None:
            transparent = upright(transparent, orientation)
        return Decoded(upright(self.rgb, orientation), transparent, self.converted)


def samples_of(image: Image.Image) -> NDArray[Any]:
    """An image's samples, (H, W, bands), uint8 or uint16; a 1-bit image has samples 0 and 255."""
    array = np.asarray(image)
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    return array if array.ndim == 3 else array[..., None]


def from_samples(
    samples: NDArray[Any], transparent: NDArray[np.bool_] | None = None, *, one_bit: bool = False
) -> Decoded:
    """Grey or RGB samples (H, W, bands), uint8 or uint16, with alpha (2, 4 bands) or without.

    16-bit samples span 0..65535. Grey is repeated in all three bands. Alpha is dropped.
    """
    is_grey = samples.shape[2] < 3
    colours = samples[..., : 1 if is_grey else 3]
    converted = f"{'1-bit' if one_bit else 'grey'} to RGB" if is_grey else None
    if samples.dtype == np.uint16:
        converted = f"16-bit {'grey' if is_grey else 'RGB'} to 8-bit RGB"
        # 65535 / 255 = 257 exactly (PNG specification, section 13.12 on sample depth rescaling).
        colours = ((colours.astype(np.uint32) + 128) // 257).astype(np.uint8)
    rgb = np.repeat(colours, 3, axis=2) if is_grey else colours
    return Decoded(rgb, transparent, converted)


def from_palette(image: Image.Image) -> Decoded:
    """An image of Pillow's mode P (palette) as RGB, with the transparency of its colours."""
    if "transparency" not in image.info:
        return Decoded(np.asarray(image.convert("RGB")), None, "palette to RGB")
    rgba = np.asarray(image.convert("RGBA"))
    return Decoded(rgba[..., :3], rgba[..., 3] == 0, "palette to RGB")


def from_cmyk(image: Image.Image) -> Decoded:
    """An image of Pillow's mode CMYK as RGB, by its colour profile (ICC) if that is usable."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a damaged profile, or one that is not for CMYK: ignored
        if converted is not None:
            return Decoded(np.asarray(converted), None, "CMYK to RGB by its colour profile")
    return Decoded(np.asarray(image.convert("RGB")), None, "CMYK to RGB")


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an image (H, W) or (H, W, 3) upright.

    orientation: of the stored image, 1 (upright) to 8, after EXIF 2.3, table 6.
    """
    if orientation not in range(2, 9):
        return array
    image = Image.fromarray(array)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))
