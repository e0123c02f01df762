"""Hostile image files: named attacks, and seeded damage to valid files of every format."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.io import MemoryFile

from rsir.geo.georeference import ignore_not_georeferenced

UTM = Affine(10, 0, 600_000, 0, -10, 5_000_000)


def pixels(height: int = 150, width: int = 200, bands: int = 3) -> np.ndarray:
    """Smooth land with noise, (bands, H, W) uint8 in 1..120."""
    random = np.random.default_rng(7)
    coarse = random.integers(1, 100, (bands, height // 10 + 1, width // 10 + 1))
    fine = coarse.repeat(10, 1).repeat(10, 2)[:, :height, :width]
    return (fine + random.integers(0, 20, fine.shape)).astype(np.uint8)


def by_pillow(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels().transpose(1, 2, 0)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def by_gdal(driver: str, dtype: str = "uint8", bands: int = 3, **options: Any) -> bytes:
    ignore_not_georeferenced()
    samples = pixels(bands=bands).astype(dtype)
    with MemoryFile() as memory:
        with memory.open(
            driver=driver, count=bands, height=samples.shape[1], width=samples.shape[2],
            dtype=dtype, crs="EPSG:32633", transform=UTM, **options,
        ) as dataset:  # fmt: skip
            dataset.write(samples)
        return bytes(memory.read())


def valid_files() -> dict[str, bytes]:
    """A valid file of each kind, by name."""
    exif = Image.Exif()
    exif[274] = 6
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    return {
        "plain.png": by_pillow("PNG"),
        "grey.png": by_pillow("PNG", "L"),
        "palette.png": by_pillow("PNG", "P"),
        "alpha.png": by_pillow("PNG", "RGBA"),
        "plain.jpg": by_pillow("JPEG"),
        "progressive.jpg": by_pillow("JPEG", progressive=True),
        "turned.jpg": by_pillow("JPEG", exif=exif),
        "cmyk.jpg": by_pillow("JPEG", "CMYK"),
        "lossy.webp": by_pillow("WEBP"),
        "lossless.webp": by_pillow("WEBP", lossless=True),
        "strips.tif": by_pillow("TIFF"),
        "lzw.tif": by_pillow("TIFF", compression="tiff_lzw"),
        "tiled.tif": by_gdal("GTiff", photometric="RGB", compress="deflate", **tiled),
        "big.tif": by_gdal("GTiff", BIGTIFF="YES", compress="zstd", **tiled),
        "jpeg.tif": by_gdal("GTiff", compress="jpeg", photometric="YCBCR", **tiled),
        "deep.tif": by_gdal("GTiff", "uint16", 4, interleave="band", compress="lzw", **tiled),
        "float.tif": by_gdal("GTiff", "float32", 2, **tiled),
        "plain.jp2": by_gdal("JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES"),
    }


def damaged(data: bytes, random: np.random.Generator, count: int) -> Iterator[tuple[str, bytes]]:
    """Damage of every kind to the bytes of a valid file: (kind, bytes)."""
    for number in range(count):
        kind = ("cut", "head", "zeros", "flip", "swap")[number % 5]
        changed = bytearray(data)
        if kind == "cut":
            del changed[int(random.integers(1, len(data))) :]
        elif kind == "head":
            # Numbers in the header that lie: sizes, counts, offsets.
            at = int(random.integers(0, min(len(data), 400) - 4))
            value = int(random.choice([0, 1, 255, 65535, 2**31 - 1, 2**32 - 1]))
            changed[at : at + 4] = struct.pack(str(random.choice(["<I", ">I"])), value)
        elif kind == "zeros":
            at = int(random.integers(0, len(data)))
            changed[at : at + int(random.integers(1, 2000))] = b"\0" * 100
        elif kind == "flip":
            for at in random.integers(0, len(data), 12):
                changed[int(at)] ^= 1 << int(random.integers(0, 8))
        else:
            a, b = sorted(int(at) for at in random.integers(0, len(data), 2))
            changed[a:b] = changed[a:b][::-1]
        yield kind, bytes(changed)


def vrt(source: str, side: int = 40, relative: int = 1) -> str:
    band = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename>'
        f"<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}">{band}</VRTDataset>'


def tiff(tags: dict[int, tuple[int, Any]], tail: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory; tags: number: (type, value or list of values)."""
    entries, data, start = b"", b"", 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, value) in sorted(tags.items()):
        values = value if isinstance(value, list) else [value]
        packed = b"".join(struct.pack({1: "<B", 3: "<H", 4: "<I"}[kind], v) for v in values)
        if len(packed) > 4:
            offset, data = start + len(data), data + packed
            packed = struct.pack("<I", offset)
        entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return (
        b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data + tail
    )


def plain_tags(width: int, height: int, **more: Any) -> dict[int, tuple[int, Any]]:
    return {
        256: (4, width), 257: (4, height), 258: (3, 8), 259: (3, 8), 262: (3, 1), 277: (3, 1),
        273: (4, 8), 278: (4, height), 279: (4, 100),
    } | {int(tag.removeprefix("t")): value for tag, value in more.items()}  # fmt: skip


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def attacks(folder: Path, outside: Path, url: str) -> dict[str, str]:
    """Writes files that name others or waste memory and time; returns what each must come to.

    outside: a raster that is not below the folder. url: a server that must get no request. The
    value is "refused", "read", or "either".
    """
    secret, png, jpg, tif = str(outside), by_pillow("PNG"), by_pillow("JPEG"), by_pillow("TIFF")
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60
    world = "10\n0\n0\n-10\n600000\n5000000\n"
    refused: dict[str, bytes | str] = {
        "vrt.png": vrt(secret, relative=0),
        "vrt.tif": vrt(f"/vsicurl/{url}/a.tif"),
        "spaces.jpg": " \n\t" + vrt(secret, relative=0),
        "mark.tif": "\ufeff" + vrt(secret, relative=0),
        "comment.tif": "<!-- x -->" + vrt(secret, relative=0),
        "outside.vrt": vrt(secret, relative=0),
        "upwards.vrt": vrt("../" * 20 + secret.lstrip("/")),
        "address.vrt": vrt(f"{url}/a.tif"),
        "curl.vrt": vrt(f"/vsicurl/{url}/a.tif"),
        "escaped.vrt": vrt(f"&#47;vsicurl/{url}/a.tif"),
        "zip.vrt": vrt(f"/vsizip/{secret}.zip/a.tif"),
        "inline.vrt": vrt(vrt(secret, relative=0).replace("<", "&lt;")),
        "prefix.vrt": vrt(f"GTIFF_DIR:1:{secret}", relative=0),
        "entity.vrt": f'<!DOCTYPE a [<!ENTITY b SYSTEM "{secret}">]>' + vrt("&b;"),
        "raw.vrt": vrt(secret).replace("Band ", 'Band subClass="VRTRawRasterBand" '),
        "raw-lower.vrt": vrt(secret).replace("Band ", 'Band subclass="VRTRawRasterBand" '),
        # GDAL compares names of elements without case, and takes a text behind a child.
        "lower.vrt": vrt(f"GTIFF_DIR:1:{secret}", relative=0).replace("SourceFile", "sourcefile"),
        "behind.vrt": vrt(f"<b/>{secret}", relative=0),
        "json.vrt": vrt('{"type": "gdal_streamed_alg"}'),
        "capital.tif": tif,
        "capital.tfw": world,
        "capital.tif.OVR": vrt(secret, relative=0),
        "capital-mask.tif": tif,
        "capital-mask.tfw": world,
        "capital-mask.tif.MSK": vrt(secret, relative=0),
        "deep.vrt": "<VRTDataset>" + "<a>" * 5000,
        "self.vrt": vrt("self.vrt"),
        "huge.vrt": '<VRTDataset rasterXSize="2000000000" rasterYSize="2000000000">'
        '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>',
        "index.tif": f"<GDALTileIndexDataset><IndexDataset>{secret}</IndexDataset>"
        "</GDALTileIndexDataset>",
        "wms.tif": f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/</ServerUrl></Service>'
        "</GDAL_WMS>",
        "overviews.tif": tif,
        "overviews.tif.aux.xml": '<PAMDataset><Metadata domain="OVERVIEWS">'
        f'<MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata></PAMDataset>',
        "by-vrt.tif": tif,
        "by-vrt.tif.ovr": vrt(secret, relative=0),
        "masked.tif": tif,
        "masked.tif.msk": vrt(secret, relative=0),
        # A TIFF that is also a VRT: GDAL takes it for a VRT if it may choose the driver.
        "both.tif": tif,
        "both.tif.ovr": tiff(plain_tags(20, 15), vrt(secret, relative=0).encode()),
        "block.tif": tiff(plain_tags(60_000, 60_000, t322=(4, 60_000), t323=(4, 60_000),
                                     t324=(4, 8), t325=(4, 100))),
        "strip.tif": tiff(plain_tags(60_000, 60_000)),
        "long.tif": tiff(plain_tags(2_147_483_647, 1), bytes(16_000)),
        "high.tif": tiff(plain_tags(1, 2_147_483_647, t278=(4, 1)), bytes(16_000)),
        "bands.tif": tiff(plain_tags(20_000, 20_000, t277=(3, 65_535), t258=(3, [8] * 65_535))),
        "loop.tif": tif[:4] + struct.pack("<I", 8) + struct.pack("<HI", 0, 8),
        "size.png": png[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + png[24:],
        "size.webp": by_pillow("WEBP")[:12] + b"VP8X" + struct.pack("<I", 10) + bytes(4)
        + (16_383).to_bytes(3, "little") * 2 + by_pillow("WEBP")[12:],
        "middle.jpg": jpg[: len(jpg) // 2] + b"\xff\xd9",
        "page.jpg": "<!doctype html><html>not found</html>",
        "empty.png": b"",
        "shell.tif": "#!/bin/sh\n",
    }  # fmt: skip
    read: dict[str, bytes | str] = {
        # Broken metadata: the pixels are right.
        "exif.jpg": jpg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + jpg[2:],
        "dimap.tif": tif,
        "METADATA.DIM": "<broken",
    }  # fmt: skip
    either: dict[str, bytes | str] = {
        "text.png": png[:33]
        + png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50 << 20)))
        + png[33:],
        "srs.vrt": vrt("world.png").replace("<VRTR", f"<SRS>{url}/srs</SRS><VRTR", 1),
        "world.png": png,
        "world.pgw": world,
        "polyglot.tif": tiff(plain_tags(20, 15), vrt(secret, relative=0).encode()),
    }
    verdicts: dict[str, str] = {}
    for verdict, files in (("refused", refused), ("read", read), ("either", either)):
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(data)
            if name.endswith((".png", ".tif", ".jpg", ".vrt", ".webp")):
                verdicts[name] = verdict
    return verdicts | _special(folder, outside, tif)


def _special(folder: Path, outside: Path, tif: bytes) -> dict[str, str]:
    """Links, pipes and sparse files, and metadata that names another file."""
    for name, target in {
        "kernel.png": "/proc/kmsg", "memory.tif": "/proc/self/mem", "zero.jpg": "/dev/zero",
        "folder.png": str(folder), "gone.png": str(folder / "missing"),
    }.items():  # fmt: skip
        os.symlink(target, folder / name)  # noqa: PTH211
    os.mkfifo(folder / "pipe.png")
    (folder / "piped.tif").write_bytes(tif)
    os.mkfifo(folder / "piped.tfw")
    (folder / "endless.tif").write_bytes(tif)
    (folder / "endless.tif.aux.xml").symlink_to("/dev/zero")
    with (folder / "sparse.png").open("wb") as stream:
        stream.truncate(10 << 30)
    with (folder / "sparse-tail.png").open("wb") as stream:
        stream.write(by_pillow("PNG"))
        stream.truncate(10 << 30)
    with rasterio.open(
        folder / "inside.tif", "w", driver="GTiff", count=3, height=150, width=200, dtype="uint8",
        crs="EPSG:32633", transform=UTM, photometric="RGB",
    ) as dataset:  # fmt: skip
        dataset.write(pixels())
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(outside))
    names = ("kernel.png", "memory.tif", "zero.jpg", "folder.png", "gone.png", "pipe.png")
    names += ("piped.tif", "endless.tif", "sparse.png", "sparse-tail.png", "inside.tif")
    return dict.fromkeys(names, "refused")
