"""The same file gives the same pixels, place, date and validity whole and window by window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.enums import ColorInterp

from rsir.archive import Archive
from rsir.errors import ImageError
from rsir.geo.georeference import ignore_not_georeferenced
from rsir.images.read import read_pixels
from rsir.scenes.chips import is_picture
from rsir.scenes.scene import Scene
from rsir.sources.find import source
from tests.support.colour_encoder import ColourEncoder

UTM = Affine(10, 0, 600_000, 0, -10, 5_000_000)
SIZE = (48, 64)
JPEG_DIFFERENCE = 8  # GDAL's libjpeg interpolates colours otherwise than libjpeg-turbo


def land(bands: int = 3, dtype: Any = np.uint8) -> np.ndarray:
    """Smooth pixels, so that lossy compression changes them little."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([(20 + 40 * band + x + 2 * y) % 240 + 5 for band in range(bands)]).astype(dtype)


def tiff(
    path: Path, pixels: np.ndarray, *, place: bool = False, blocks: list[int] | None = None,
    edit: Callable[[Any], Any] | None = None, **options: Any,
) -> None:  # fmt: skip
    """blocks: write only these rows of 16 pixels (of a sparse file)."""
    ignore_not_georeferenced()
    if place:
        options |= {"crs": "EPSG:32633", "transform": UTM}
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
        **options,
    ) as dataset:  # fmt: skip
        if blocks is None:
            dataset.write(pixels)
        for block in blocks or ():
            rows = slice(16 * block, 16 * block + 16)
            window = rasterio.windows.Window(0, 16 * block, width, 16)
            dataset.write(pixels[:, rows], window=window)
        if edit is not None:
            edit(dataset)


def pillow(path: Path, mode: str = "RGB", orientation: int = 1, **options: Any) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(land().transpose(1, 2, 0)).convert(mode)
    image.save(path, exif=exif, **options)


def turned_tiff(path: Path, orientation: int, **options: Any) -> None:
    Image.fromarray(land().transpose(1, 2, 0)).save(path, tiffinfo={274: orientation}, **options)


def with_sidecar(path: Path, suffix: str, text: str, write: Callable[[Path], None]) -> None:
    write(path)
    name = (
        path.with_suffix(suffix)
        if suffix.startswith(".")
        else path.with_name(path.name + suffix[1:])
    )
    name.write_text(text)


def colours(dataset: Any) -> None:
    dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


WORLD = "10\n0\n0\n-10\n600005\n4999995\n"
PAM = (
    "<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>600000,10,0,5000000,0,-10</GeoTransform>"
    "</PAMDataset>"
)
SPARSE = {"sparse_ok": True, "blockysize": 16}


def corpus() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Names of files, and functions that write them."""
    for compress, interleave, place in itertools.product(
        ("none", "lzw", "deflate", "packbits", "zstd", "lerc", "webp", "jpeg"),
        ("pixel", "band"),
        (False, True),
    ):
        if (compress, interleave) == ("webp", "band"):
            continue
        more: dict[str, Any] = {"compress": compress, "interleave": interleave, "place": place}
        more["photometric"] = "ycbcr" if (compress, interleave) == ("jpeg", "pixel") else "rgb"
        more |= {"webp_lossless": "YES"} if compress == "webp" else {}
        yield f"{compress}-{interleave}-{place}.tif", lambda p, more=more: tiff(p, land(), **more)
    for photometric, compress in itertools.product(
        ("minisblack", "miniswhite"), ("none", "deflate")
    ):
        more = {"photometric": photometric, "compress": compress}
        yield f"{photometric}-{compress}.tif", lambda p, more=more: tiff(p, land(1), **more)
    for bits, photometric in itertools.product((1, 2, 4), ("minisblack", "miniswhite")):
        values = land(1) % 2**bits
        yield (
            f"{bits}-{photometric}.tif",
            lambda p, v=values, b=bits, m=photometric: tiff(p, v, nbits=b, photometric=m),
        )
    for compress, blocks in itertools.product(
        ("none", "deflate", "lzw", "jpeg"), ([0], [1, 2], [])
    ):
        more = {"compress": compress, "photometric": "rgb", "blocks": blocks} | SPARSE
        yield f"sparse-{compress}-{len(blocks)}.tif", lambda p, more=more: tiff(p, land(), **more)
    yield "nodata.tif", lambda p: tiff(p, land() * (land() > 60), nodata=0, photometric="rgb")
    yield (
        "mask.tif",
        lambda p: tiff(
            p,
            land(),
            photometric="rgb",
            edit=lambda d: d.write_mask((land()[0] > 60).astype("u1") * 255),
        ),
    )
    yield (
        "alpha.tif",
        lambda p: tiff(
            p,
            np.concatenate([land(), (land()[:1] > 60) * np.uint8(255)]),
            photometric="rgb",
            alpha="yes",
        ),
    )
    yield "metadata-colours.tif", lambda p: tiff(p, land(), photometric="minisblack", edit=colours)
    yield "dated.tif", lambda p: tiff(
        p, land(), place=True, photometric="rgb",
        edit=lambda d: d.update_tags(TIFFTAG_DATETIME="2024:05:06 07:08:09"),
    )  # fmt: skip
    yield "dated-without-place.tif", lambda p: tiff(
        p, land(), photometric="rgb",
        edit=lambda d: d.update_tags(TIFFTAG_DATETIME="2024:05:06 07:08:09"),
    )  # fmt: skip
    for orientation in range(1, 9):
        yield f"turned-{orientation}.tif", lambda p, o=orientation: turned_tiff(p, o)
        yield (
            f"turned-{orientation}-lzw.tif",
            lambda p, o=orientation: turned_tiff(p, o, compression="tiff_lzw"),
        )
        for suffix in ("jpg", "png", "webp"):
            yield (
                f"turned-{orientation}.{suffix}",
                lambda p, o=orientation: pillow(
                    p,
                    orientation=o,
                    **({"lossless": True} if p.suffix == ".webp" else {"subsampling": 0}),
                ),
            )
    for mode in ("L", "P", "1", "RGBA", "LA"):
        yield f"{mode}.png", lambda p, m=mode: pillow(p, m)
    yield "palette.tif", lambda p: pillow(p, "P")
    for suffix in (".tfw", ".wld", ":.aux.xml"):
        text = PAM if "xml" in suffix else WORLD
        yield (
            f"sidecar{suffix.strip(':.')}.tif",
            lambda p, s=suffix, t=text: with_sidecar(
                p, s, t, lambda path: tiff(path, land(), photometric="rgb")
            ),
        )
    yield "sidecar.png", lambda p: with_sidecar(p, ":.aux.xml", PAM, pillow)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("corpus")
    written = {}
    for name, write in corpus():
        write(folder / name)
        written[name] = folder / name
    return written


def small(path: Path) -> Any:
    """The record of a file that is indexed without options, with the pixels that are encoded."""
    seen: list[np.ndarray] = []

    class Spy(ColourEncoder):
        def encode(self, images: Any) -> Any:
            seen.extend(images)
            return super().encode(images)

    archive = Archive.create(path.with_suffix(path.suffix + ".archive"), Spy())
    report = archive.add([path])
    records = list(archive.records())
    if not records:
        return str(report.skipped or report.left_out)
    (record,) = records
    return seen[0], record.footprint, record.datetime


@pytest.mark.slow
def test_every_file_is_the_same_small_and_large(files: dict[str, Path]) -> None:
    assert len(files) > 100
    refused = []
    for name, path in files.items():
        whole = small(path)
        with Scene.open(path) as scene:
            pixels, valid = scene.read()
            place = scene.transform
        if isinstance(whole, str):
            refused.append(name)
            assert not valid.any(), (name, whole)  # wholly nodata, and nothing else
            continue
        shown, footprint, time = whole
        assert shown.shape == pixels.shape, name
        lossy = name.endswith("jpg") or "jpeg" in name
        difference = np.abs(shown.astype(int) - np.where(valid, pixels, 0))
        assert difference.max() <= (JPEG_DIFFERENCE if lossy else 0), (name, difference.max())
        assert (footprint is not None) == (place is not None), name
        has_date = name.startswith("dated")
        assert time == (datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC) if has_date else None), name
    assert refused == []


@pytest.mark.slow
def test_windows_are_parts_of_the_whole(files: dict[str, Path]) -> None:
    for name, path in files.items():
        with Scene.open(path) as scene:
            whole, valid = scene.read()
            for window in (
                (0, 0, 16, 16),
                (5, 7, 20, 30),
                (scene.width - 9, scene.height - 11, 9, 11),
            ):
                column, row, width, height = window
                part, known = scene.read(window)
                here = (slice(row, row + height), slice(column, column + width))
                assert (part == whole[:, *here]).all(), (name, window)
                assert (known == valid[here]).all(), (name, window)


@pytest.mark.slow
def test_a_query_and_a_training_image_have_the_same_pixels(files: dict[str, Path]) -> None:
    """`read_pixels` gives what the index has, or refuses the file."""
    read = 0
    for name, path in files.items():
        try:
            pixels = read_pixels(path)
        except ImageError:
            assert not is_picture(source(path)), name
            continue
        read += 1
        with Scene.open(path) as scene:
            wanted, valid = scene.read()
        if name in ("nodata.tif",):  # a picture has no nodata value
            continue
        lossy = name.endswith("jpg") or "jpeg" in name
        difference = np.abs(pixels.astype(int) - np.where(valid, wanted, 0))
        assert difference.max() <= (JPEG_DIFFERENCE if lossy else 0), (name, difference.max())
    assert read > 80
