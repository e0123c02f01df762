"""Every file is read faithfully or refused with a reason."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from rsir.errors import ImageError
from rsir.geo.georeference import ignore_not_georeferenced
from rsir.images.read import read_pixels, read_tile, tile_id
from rsir.sources.folders import find_images

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREY = RGB[..., 0]
BIG = RNG.integers(0, 256, (3, 64, 48), dtype=np.uint8)


def encoded(array: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def png(samples: np.ndarray, depth: int, colour: int, *extra: bytes) -> bytes:
    """A PNG from rows of raw bytes: needed for what Pillow cannot write."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, 0)),
            *extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def tiff(
    array: np.ndarray, photometric: int, *, extra: tuple[int, ...] = (), form: int = 1
) -> bytes:
    """An uncompressed little-endian TIFF with exactly these tags."""
    height, width = array.shape[:2]
    bands = array.shape[2] if array.ndim == 3 else 1
    data = array.tobytes()
    tags: list[tuple[int, tuple[int, ...]]] = [
        (256, (width,)), (257, (height,)), (258, (array.itemsize * 8,) * bands), (259, (1,)),
        (262, (photometric,)), (273, (8,)), (277, (bands,)), (278, (height,)),
        (279, (len(data),)), (339, (form,) * bands),
    ]  # fmt: skip
    if extra:
        tags.insert(-1, (338, extra))
    start = 8 + len(data) + len(data) % 2
    tail = start + 2 + 12 * len(tags) + 4
    entries, outside = b"", b""
    for tag, values in tags:
        value = struct.pack(f"<{len(values)}H", *values)
        if len(value) > 4:
            outside, value = outside + value, struct.pack("<L", tail + len(outside))
        entries += struct.pack("<HHL4s", tag, 3, len(values), value)
    head = b"II*\0" + struct.pack("<L", start) + data + b"\0" * (len(data) % 2)
    return head + struct.pack("<H", len(tags)) + entries + bytes(4) + outside


@pytest.fixture
def put(tmp_path: Path):
    def write(data: bytes, name: str = "image.png") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def chw(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 0, 1)


# ---------------------------------------------------------------------------------------- faithful


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_lossless_rgb_is_kept_to_the_bit(put, form, options):
    tile = read_tile(put(encoded(RGB, form, **options)))
    np.testing.assert_array_equal(tile.pixels, chw(RGB))
    assert tile.pixels.dtype == np.uint8
    assert tile.pixels.flags.c_contiguous
    assert tile.properties == {"width": 17, "height": 13}
    assert (tile.bounds, tile.crs, tile.footprint, tile.datetime) == (None,) * 4


def test_jpeg_is_what_pillow_decodes(put):
    data = encoded(RGB, "JPEG", quality=90)
    want = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(read_pixels(put(data, "a.jpg")), chw(want))


def test_suffix_does_not_matter_content_does(put):
    np.testing.assert_array_equal(read_pixels(put(encoded(RGB, "PNG"), "a.jpg")), chw(RGB))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_is_repeated(put, form):
    tile = read_tile(put(encoded(GREY, form)))
    np.testing.assert_array_equal(tile.pixels, np.stack([GREY] * 3))
    assert tile.properties["converted"] == "grey to RGB"


def test_grey_jpeg_is_repeated(put):
    tile = read_tile(put(encoded(GREY, "JPEG")))
    assert (tile.pixels[0] == tile.pixels[2]).all()
    assert tile.properties["converted"] == "grey to RGB"


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_one_bit(put, form):
    bits = Image.fromarray(GREY > 127)
    tile = read_tile(put(encoded(bits, form)))
    np.testing.assert_array_equal(tile.pixels[1], np.where(GREY > 127, 255, 0))
    assert tile.properties["converted"] == "1-bit to RGB"


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_palette(put, form):
    image = Image.fromarray(RGB).quantize(32)
    tile = read_tile(put(encoded(image, form)))
    np.testing.assert_array_equal(tile.pixels, chw(np.asarray(image.convert("RGB"))))
    assert tile.properties["converted"] == "palette to RGB"


def test_white_is_zero_tiff(put):
    np.testing.assert_array_equal(read_pixels(put(tiff(GREY, 0)))[0], 255 - GREY)


def test_ycbcr_tiff_becomes_rgb(put):
    image = Image.fromarray(RGB).convert("YCbCr")
    want = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_pixels(put(encoded(image, "TIFF"))), chw(want))


def test_jpeg_with_a_preview_behind_it_is_no_animation(put):
    preview = Image.fromarray(RGB[::2, ::2])
    data = encoded(RGB, "MPO", save_all=True, append_images=[preview])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    want = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(read_pixels(put(data, "a.jpg")), chw(want))


# ------------------------------------------------------------------------------------------- alpha


@pytest.mark.parametrize(
    ("form", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_opaque_alpha_is_dropped_and_transparent_is_nodata(put, form, options):
    rgba = np.dstack([RGB, np.full_like(GREY, 255)])
    tile = read_tile(put(encoded(rgba, form, **options)))
    np.testing.assert_array_equal(tile.pixels, chw(RGB))
    assert "transparent" not in tile.properties
    rgba[:4, :, 3] = 0
    rgba[5, 5, 3] = 100  # part-transparent: keeps its colour
    tile = read_tile(put(encoded(rgba, form, **options)))
    want = RGB.copy()
    want[:4] = 0
    np.testing.assert_array_equal(tile.pixels, chw(want))
    assert tile.properties["transparent"] == pytest.approx(4 / 13)
    rgba[..., 3] = 0
    with pytest.raises(ImageError, match="every pixel is transparent"):
        read_tile(put(encoded(rgba, form, **options)))


def test_grey_with_alpha(put):
    alpha = np.full_like(GREY, 255)
    alpha[0] = 0
    tile = read_tile(put(encoded(Image.fromarray(np.dstack([GREY, alpha]), "LA"), "PNG")))
    np.testing.assert_array_equal(tile.pixels[2, 1:], GREY[1:])
    assert not tile.pixels[:, 0].any()
    assert tile.properties["transparent"] == pytest.approx(1 / 13)


@pytest.mark.parametrize("transparency", [3, bytes([255, 0, 128])])
def test_palette_transparency(put, transparency):
    image = Image.fromarray(RGB).quantize(16)
    index = np.asarray(image)
    tile = read_tile(put(encoded(image, "PNG", transparency=transparency)))
    gone = index == (3 if transparency == 3 else 1)
    assert tile.properties["transparent"] == pytest.approx(gone.mean())
    assert not tile.pixels[:, gone].any()
    np.testing.assert_array_equal(
        tile.pixels[:, ~gone], chw(np.asarray(image.convert("RGB")))[:, ~gone]
    )


def test_colour_key_in_the_files_own_depth(put):
    levels = RNG.integers(0, 4, (6, 8), dtype=np.uint8)  # 2-bit grey, four samples a byte
    packed = (levels.reshape(6, 2, 4) << np.array([6, 4, 2, 0], np.uint8)).sum(-1, dtype=np.uint8)
    data = png(packed, 2, 0, chunk(b"tRNS", b"\0\2"))
    data = data.replace(data[8:33], chunk(b"IHDR", struct.pack(">LLBBBBB", 8, 6, 2, 0, 0, 0, 0)))
    tile = read_tile(put(data))
    want = np.where(levels == 2, 0, levels * 85)
    np.testing.assert_array_equal(tile.pixels[0], want)
    assert tile.properties["transparent"] == pytest.approx((levels == 2).mean())
    colour = RGB[3, 4]
    key = chunk(b"tRNS", np.asarray(colour, ">u2").tobytes())
    assert not read_pixels(put(png(RGB, 8, 2, key)))[:, 3, 4].any()


# ------------------------------------------------------------------------------------------ 16-bit


@pytest.mark.parametrize(("colour", "bands"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_is_divided_by_257_rounded(put, colour, bands):
    wide = RNG.integers(0, 65536, (13, 17, bands), dtype=np.uint16)
    wide[0, :4, 0] = 0, 65535, 128, 129  # 128 / 257 < 0.5 < 129 / 257
    if bands in (2, 4):
        wide[..., -1] = 65535
        wide[2, 2, -1] = 1  # one in 65535 is not nothing
        wide[3, 3, -1] = 0
    tile = read_tile(put(png(wide.astype(">u2"), 16, colour)))
    want = np.floor(wide[..., : 3 if bands > 2 else 1] / 257 + 0.5).astype(np.uint8)
    want = np.repeat(want, 3, axis=2) if bands < 3 else want
    if bands in (2, 4):
        want[3, 3] = 0
        assert tile.properties["transparent"] == pytest.approx(1 / (13 * 17))
    np.testing.assert_array_equal(tile.pixels, chw(want))
    assert tile.properties["converted"].startswith("16-bit")


@pytest.mark.parametrize(("colour", "bands"), [(0, 1), (2, 3)])
def test_16_bit_colour_key_compares_all_16_bits(put, colour, bands):
    wide = np.full((4, 4, bands), 1000, np.uint16)
    wide[0, 0] = 1001  # the same 8-bit value
    key = chunk(b"tRNS", struct.pack(f">{bands}H", *[1001] * bands))
    tile = read_tile(put(png(wide.astype(">u2"), 16, colour, key)))
    assert tile.properties["transparent"] == pytest.approx(1 / 16)
    assert tile.pixels[0, 0].tolist() == [0, 4, 4, 4]


def test_16_bit_png_is_turned_too(put):
    exif = Image.Exif()
    exif[274] = 6
    wide = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
    data = png(wide.astype(">u2"), 16, 2, chunk(b"eXIf", exif.tobytes()[6:]))
    want = np.rot90(np.floor(wide / 257 + 0.5).astype(np.uint8), -1)  # clockwise
    np.testing.assert_array_equal(read_pixels(put(data)), chw(want))


def test_without_rasterio_what_it_alone_reads_is_refused(put, tmp_path, monkeypatch):
    wide = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16).astype(">u2")
    (tmp_path / "mask").mkdir()
    masked = masked_tiff(tmp_path / "mask" / "a.tif")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setitem(sys.modules, "rasterio.enums", None)
    monkeypatch.setitem(sys.modules, "rasterio.io", None)
    for path in (put(png(wide, 16, 2)), masked):
        with pytest.raises(ImageError, match=r"pip install 'rsir\[geo\]'"):
            read_tile(path)
    grey = read_pixels(put(png(wide[..., :1], 16, 0)))
    np.testing.assert_array_equal(grey[0], np.floor(wide[..., 0] / 257 + 0.5))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(GREY.astype("<u2"), 1), "16-bit samples whose stretch"),
        (tiff(RGB.astype("<u2"), 2), "16-bit samples whose stretch"),
        (tiff(GREY.astype("<f4"), 1, form=3), "floating-point samples"),
        (tiff(GREY, 1, form=2), "signed samples"),
        (tiff(np.dstack([RGB, GREY]), 2, extra=(0,)), "4 bands"),
        (tiff(np.dstack([RGB, GREY]), 2), "4 bands"),
        (tiff(np.dstack([RGB, GREY]), 2, extra=(2,)), "4 bands.*near infrared"),
        (tiff(np.dstack([RGB, RGB[..., :2]]), 2, extra=(2, 0)), "5 bands"),
        (tiff(np.dstack([GREY, GREY]), 1, extra=(0,)), "2 bands"),
        (tiff(RGB, 1, extra=(0, 0)), "3 bands not marked as red"),
        (tiff(np.zeros((2, 3, 13), "<u2"), 1, extra=(0,) * 12), "13 bands.*16-bit"),
        (tiff(RGB, 8), "colour space"),
    ],
)
def test_tiff_samples_that_have_no_faithful_reading(put, data, reason):
    with pytest.raises(ImageError, match=reason):
        read_tile(put(data, "a.tif"))


# ------------------------------------------------------------------------------------ CMYK and ICC


def test_cmyk_jpeg_and_tiff(put):
    flat = np.broadcast_to(np.array([200, 30, 60], np.uint8), (16, 16, 3))
    cmyk = Image.fromarray(flat).convert("CMYK")
    for form in ("JPEG", "TIFF"):
        tile = read_tile(put(encoded(cmyk, form)))
        assert tile.properties["converted"] == "CMYK to RGB"
        np.testing.assert_allclose(tile.pixels[:, 8, 8], flat[0, 0], atol=3)
    # A profile that is not for CMYK is as good as none.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for wrong in (profile, b"not a profile"):
        tile = read_tile(put(encoded(cmyk, "JPEG", icc_profile=wrong)))
        assert tile.properties["converted"] == "CMYK to RGB"


def test_cmyk_goes_through_its_profile(put, monkeypatch):
    cmyk = Image.fromarray(RGB).convert("CMYK")
    green = Image.new("RGB", (17, 13), (1, 200, 3))
    calls = []

    def convert(image, profile, target, outputMode):
        calls.append((image.mode, outputMode))
        return green

    # No CMYK profile may be shipped here, so only the way to littleCMS is tested.
    monkeypatch.setattr(ImageCms, "profileToProfile", convert)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tile = read_tile(put(encoded(cmyk, "JPEG", icc_profile=profile)))
    assert calls == [("CMYK", "RGB")]
    assert tile.properties["converted"] == "CMYK to RGB by its colour profile"
    assert tile.pixels[:, 0, 0].tolist() == [1, 200, 3]


def test_profile_of_an_rgb_image_is_left_alone(put):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    np.testing.assert_array_equal(
        read_pixels(put(encoded(RGB, "PNG", icc_profile=profile))), chw(RGB)
    )


# ------------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_orientation_is_applied_as_pillow_does(put, form, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(RGB, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    want = Image.open(io.BytesIO(data))
    want.load()
    if form != "TIFF":  # Pillow turns a TIFF by itself
        from PIL import ImageOps

        want = ImageOps.exif_transpose(want)
    tile = read_tile(put(data))
    np.testing.assert_array_equal(tile.pixels, chw(np.asarray(want)))
    assert (tile.properties["height"], tile.properties["width"]) == tile.pixels.shape[1:]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("block", [b"II*\0\x08\0\0\0\xff\xff" + b"\1" * 40, b"no TIFF at all"])
def test_damaged_exif_is_no_reason_to_refuse_and_does_not_warn(put, form, block):
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(RGB, form, exif=b"Exif\0\0" + block, **options)
    assert read_pixels(put(data)).shape == (3, 13, 17)


# --------------------------------------------------------------------------------- pages and frames


def test_several_pages_or_frames_are_refused(put):
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    several = {"save_all": True, "append_images": pages[1:]}
    with pytest.raises(ImageError, match="several pages"):
        read_tile(put(encoded(pages[0], "TIFF", **several)))
    for form in ("WEBP", "PNG"):
        with pytest.raises(ImageError, match="animation"):
            read_tile(put(encoded(pages[0], form, **several)))


def masked_tiff(path: Path, *, place: bool = True) -> Path:
    """A TIFF of BIG with a mask, its first 16 rows nodata, and with overviews of both."""
    import rasterio
    from affine import Affine

    mask = np.full((64, 48), 255, np.uint8)
    mask[:16] = 0
    options = {"transform": Affine(1, 0, 5e5, 0, -1, 5e6), "crs": "EPSG:32632"} if place else {}
    options |= {"dtype": "uint8", "photometric": "rgb"}
    ignore_not_georeferenced()
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", width=48, height=64, count=3, **options) as dataset,
    ):
        dataset.write(BIG)
        dataset.write_mask(mask)
        dataset.build_overviews([2, 4])
    return path


def test_overviews_and_masks_are_not_pages(tmp_path):
    tile = read_tile(masked_tiff(tmp_path / "a.tif"))
    assert tile.properties["transparent"] == pytest.approx(0.25)
    assert not tile.pixels[:, :16].any()
    np.testing.assert_array_equal(tile.pixels[:, 16:], BIG[:, 16:])


def test_a_mask_is_turned_with_its_image(tmp_path):
    path = masked_tiff(tmp_path / "a.tif", place=False)
    upright = read_pixels(path)
    # In place of the planar configuration, which has the default value: orientation 6.
    planar, turned = struct.pack("<HHLHH", 284, 3, 1, 1, 0), struct.pack("<HHLHH", 274, 3, 1, 6, 0)
    path.write_bytes(path.read_bytes().replace(planar, turned, 1))
    tile = read_tile(path)
    np.testing.assert_array_equal(tile.pixels, np.rot90(upright, -1, axes=(1, 2)))
    assert not tile.pixels[:, :, -16:].any()


def test_a_tiff_that_loses_its_mask_is_refused(tmp_path):
    path = masked_tiff(tmp_path / "a.tif")
    data = path.read_bytes()
    at = data.index(struct.pack("<HHLL", 254, 4, 1, 4))  # NewSubfileType: a mask
    width, other = struct.pack("<HHLHH", 256, 3, 1, 48, 0), struct.pack("<HHLHH", 256, 3, 1, 47, 0)
    for damaged in (data[:at], data[: at + 30], data[:at] + data[at:].replace(width, other, 1)):
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=r"damaged|cut off"):
            read_tile(path)


@pytest.mark.parametrize("photometric", ["RGB", "MINISBLACK"])
def test_compressions_that_only_gdal_reads(tmp_path, photometric):
    import rasterio
    from affine import Affine

    bands = 3 if photometric == "RGB" else 1
    options = {"transform": Affine(1, 0, 5e5, 0, -1, 5e6), "crs": "EPSG:32632", "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "a.tif", "w", width=48, height=64, count=bands, compress="LERC",
        photometric=photometric, **options,
    ) as dataset:  # fmt: skip
        dataset.write(BIG[:bands])
    want = np.broadcast_to(BIG[:bands], BIG.shape)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.tif"), want)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("compress", ["none", "deflate", "lzw", "zstd"])
def test_geotiff_layouts_of_gdal(tmp_path, compress, interleave):
    import rasterio
    from affine import Affine

    big = RNG.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    for more in ({}, {"tiled": True, "blockxsize": 16, "blockysize": 32}, {"BIGTIFF": "YES"}):
        options = {"compress": compress, "interleave": interleave} | more
        if compress in ("deflate", "lzw"):
            options["predictor"] = 2
        with rasterio.open(
            tmp_path / "a.tif", "w", width=50, height=40, count=3, dtype="uint8",
            crs="EPSG:32632", transform=Affine(1, 0, 5e5, 0, -1, 5e6), **options,
        ) as dataset:  # fmt: skip
            dataset.write(big)
        np.testing.assert_array_equal(read_pixels(tmp_path / "a.tif"), big)


# ------------------------------------------------------------------------------ refused, and why


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, world", "not an image"),
        (b"\n <!DOCTYPE html><html><body>404", "web page"),
        (b"<?xml version='1.0'?><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"GIF89a" + bytes(20), "a GIF"),
        (b"PK\3\4" + bytes(20), "ZIP"),
        (
            tiff(GREY, 1).replace(
                struct.pack("<HHLL", 259, 3, 1, 1), struct.pack("<HHLL", 259, 3, 1, 34887)
            ),
            "LERC",
        ),
    ],
)
def test_not_an_image(put, data, reason):
    path = put(data, "photo.jpg")
    with pytest.raises(ImageError, match=reason) as caught:
        read_tile(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_cut_off_files(put, form, options):
    data = encoded(np.kron(RGB, np.ones((3, 3, 1), np.uint8)), form, **options)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ImageError, match=r"cut off|damaged"):
            read_tile(put(data[: int(len(data) * share)]))


def test_one_wrong_bit_in_a_png_is_found(put):
    data = bytearray(encoded(RGB, "PNG"))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(ImageError, match=r"damaged.*checksum in b'IDAT'"):
        read_tile(put(bytes(data)))


def test_gone_folder_and_permission(put, tmp_path, monkeypatch):
    with pytest.raises(ImageError, match="no longer exists"):
        read_tile(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="folder"):
        read_tile(tmp_path)
    path = put(encoded(RGB, "PNG"))

    def refuse(path: object, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    with pytest.raises(ImageError, match="permission denied"):
        read_tile(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such name")
def test_name_that_is_not_utf8_is_refused(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")  # noqa: PTH118 - bytes
    Path(os.fsdecode(path)).write_bytes(encoded(RGB, "PNG"))
    with pytest.raises(ImageError, match="UTF-8"):
        read_tile(os.fsdecode(path))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_scene_is_refused_before_it_is_decoded(put, form, monkeypatch):
    data = encoded(RGB, form)
    for name in ("Jpeg", "Png", "Tiff", "WebP"):
        reader = f"PIL.{name}ImagePlugin.{name}ImageFile.load"
        monkeypatch.setattr(reader, lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"17 × 13 pixels, more than 220: a scene, not a chip"):
        read_tile(put(data), max_pixels=220)


def test_pillows_own_limit_stays(put):
    data = png(np.zeros((1, 1), np.uint8), 8, 0)
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    with pytest.raises(ImageError, match="a scene"):
        read_tile(put(data.replace(data[8:33], header)), max_pixels=10**12)


def test_a_webp_beyond_pillows_own_limit_is_refused_by_its_header(put):
    canvas = (16_383).to_bytes(3, "little") * 2  # 16,384 × 16,384
    body = b"WEBPVP8X" + struct.pack("<L", 10) + bytes(4) + canvas
    with pytest.raises(ImageError, match=r"268435456 pixels.*a scene"):
        read_tile(put(b"RIFF" + struct.pack("<L", len(body)) + body))


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1)])
def test_degenerate_shapes(put, shape):
    array = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read_pixels(put(encoded(array, form))), chw(array))


# ---------------------------------------------------------------------------------------- identity


def test_identity(put, tmp_path, monkeypatch):
    path = put(encoded(RGB, "PNG"))
    tile = read_tile(path)
    assert tile.source == path.as_posix()
    assert tile.id == tile_id(tile.source, tile.content)
    assert len(tile.id) == 24
    assert int(tile.id, 16) >= 0
    assert len(tile.content) == 32
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    assert read_tile("sub/../image.png").id == tile.id
    other = read_tile(put(encoded(RGB, "PNG"), "copy.png"))
    assert (other.content, other.id != tile.id) == (tile.content, True)
    changed = read_tile(put(encoded(RGB[::-1], "PNG")))
    assert changed.source == tile.source
    assert changed.content != tile.content
    assert changed.id != tile.id
    # Fixed for good: archives keep these.
    assert tile_id("/a/b.png", "00ff") == "af08837e5dd698e3993aa538"


# ----------------------------------------------------------------------------------- hostile bytes


def seeds() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[274], exif[306] = 6, "2020:01:01 00:00:00"
    rgba = np.dstack([RGB, GREY])
    wide = RNG.integers(0, 65536, (13, 17, 3)).astype(">u2")
    return {
        "png": encoded(RGB, "PNG", exif=exif),
        "palette": encoded(Image.fromarray(RGB).quantize(16), "PNG", transparency=2),
        "png16": png(wide, 16, 2),
        "jpeg": encoded(RGB, "JPEG", exif=exif),
        "progressive": encoded(RGB, "JPEG", progressive=True),
        "cmyk": encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
        "webp": encoded(RGB, "WEBP", exif=exif),
        "webp-lossless": encoded(rgba, "WEBP", lossless=True),
        "tiff": encoded(RGB, "TIFF", exif=exif),
        "tiff-lzw": encoded(RGB, "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": encoded(RGB, "TIFF", compression="jpeg"),
        "tiff-bits": encoded(Image.fromarray(GREY > 99), "TIFF", compression="group4"),
        "bigtiff": encoded(RGB, "TIFF", big_tiff=True),
    }


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    if rng.random() < 0.3:
        changed = changed[: int(rng.integers(1, len(changed)))]
    for _ in range(int(rng.integers(1, 6))):
        # Headers and directories are at the ends, where a flip does the most.
        within = len(changed) if rng.random() < 0.5 else min(len(changed), 300)
        offset = int(rng.integers(within))
        if rng.random() < 0.3:
            offset = len(changed) - 1 - offset
        changed[offset] = int(rng.integers(256))
    return bytes(changed)


def resealed(data: bytes) -> bytes:
    """The same PNG with true checksums, so that damage reaches the decoder."""
    parts, where = [data[:8]], 8
    while where + 12 <= len(data):
        (length,) = struct.unpack_from(">L", data, where)
        if where + 12 + length > len(data):
            break
        parts.append(chunk(data[where + 4 : where + 8], data[where + 8 : where + 8 + length]))
        where += 12 + length
    return b"".join([*parts, data[where:]])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(seeds()))
def test_only_image_errors_come_out_of_damaged_bytes(put, name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    data = seeds()[name]
    outcomes: Counter[bool] = Counter()
    for _ in range(150):
        hostile = mutated(data, rng)
        if data.startswith(b"\x89PNG"):
            hostile = resealed(hostile)
        try:
            tile = read_tile(put(hostile))
        except ImageError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert tile.pixels.dtype == np.uint8
            assert tile.pixels.shape[0] == 3
    assert outcomes[False]


def test_threads_agree_and_let_no_warning_out(tmp_path):
    # Warnings are errors here, for all threads alike; catch_warnings would race.
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\1" * 40
    kinds = {**seeds(), "bad-exif": encoded(RGB, "JPEG", exif=exif), "none": b"<html>"}
    rng = np.random.default_rng(3)
    paths = []
    for name, data in kinds.items():
        for i in range(12):
            paths.append(tmp_path / f"{name}{i}")
            paths[-1].write_bytes(data if i < 6 else mutated(data, rng))

    def outcome(path: Path) -> bytes | str:
        try:
            return read_tile(path).pixels.tobytes()
        except ImageError as error:
            return str(error)

    alone = [outcome(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(outcome, paths))
    # A decoder's message may name an address or not; what is read must be the same.
    assert [isinstance(a, bytes) and a for a in alone] == [
        isinstance(b, bytes) and b for b in together
    ]


# ------------------------------------------------------------------------------------- real files


def test_uc_merced(data_root):
    found, _ = find_images([data_root / "UCMerced_LandUse"])
    tiles = [read_tile(path) for path in found[::300]]
    assert len(tiles) >= 7
    for tile in tiles:
        assert tile.pixels.shape[0] == 3
        assert 200 < tile.properties["height"] <= 256  # a few chips miss some rows
        assert tile.pixels.std() > 5
        assert tile.crs is None
