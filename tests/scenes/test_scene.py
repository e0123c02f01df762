"""Scenes, against the arrays that they were written from."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.enums import ColorInterp, Resampling

from rsir.errors import DataError, ImageError, MissingExtraError, UsageError
from rsir.geo.georeference import ignore_not_georeferenced
from rsir.images.read import read_tile
from rsir.scenes.scene import Scene
from rsir.sources.source import Asset, Source

RNG = np.random.default_rng(0)


def noise(bands=3, height=100, width=140, dtype=np.uint8):
    top = 255 if dtype == np.uint8 else 10_000
    return RNG.integers(1, top, (bands, height, width)).astype(dtype)


def test_a_window_is_the_slice(write):
    pixels = noise()
    with Scene.open(write(pixels, tiled=True, blockxsize=32, blockysize=32)) as scene:
        assert (scene.width, scene.height, scene.dtype) == (140, 100, np.uint8)
        assert scene.bands == ("red", "green", "blue")
        assert scene.crs == "EPSG:32633"
        assert scene.transform == (10, 0, 600_000, 0, -10, 5_000_000)
        for column, row, w, h in [(0, 0, 140, 100), (31, 17, 40, 50), (139, 99, 1, 1)]:
            found, valid = scene.read((column, row, w, h))
            assert (found == pixels[:, row : row + h, column : column + w]).all()
            assert valid.all()
        assert (scene.read()[0] == pixels).all()


def test_beyond_the_edge_is_nodata(write):
    pixels = noise()
    with Scene.open(write(pixels)) as scene:
        found, valid = scene.read((120, 90, 40, 30))
        assert (found[:, :10, :20] == pixels[:, 90:, 120:]).all()
        assert valid.sum() == 200
        assert valid[:10, :20].all()
        assert found.sum() == pixels[:, 90:, 120:].astype(int).sum()
        halved, valid = scene.read((120, 90, 40, 30), (15, 20))
        assert valid.sum() == 50
        assert not halved[:, 5:].any()


def test_reduced_reads_are_means_and_use_overviews(write):
    pixels = noise(height=128, width=128)
    means = pixels.reshape(3, 32, 4, 32, 4).mean((2, 4))
    with Scene.open(write(pixels)) as scene:
        found, _ = scene.read(None, (32, 32), "average")
        assert np.abs(found - means).max() <= 0.5 + 1e-9
    path = write(
        pixels, "overviews.tif", overviews=(2, 4), tiled=True, blockxsize=16, blockysize=16
    )
    with rasterio.open(path, "r+") as dataset:  # the full resolution is gone, overviews are not
        dataset.write(np.zeros_like(pixels))
    with Scene.open(path) as scene:
        found, _ = scene.read(None, (32, 32), "nearest")
        assert np.abs(found - means).max() <= 1


def test_bands_by_name_and_number(write):
    def edit(dataset):
        dataset.descriptions = ("B02", "B03", "B04", "B08")
        dataset.colorinterp = [
            ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined
        ]  # fmt: skip

    pixels = noise(4, dtype=np.uint16)
    path = write(pixels, edit=edit)
    for wanted, numbers, names in [
        (None, [2, 1, 0], ("red", "green", "blue")),
        (("B08", "b04"), [3, 2], ("b08", "b04")),
        (("red", "4"), [2, 3], ("red", "b08")),
        (("red=4", "green=B04", "blue=green"), [3, 2, 1], ("red", "green", "blue")),
    ]:
        with Scene.open(path, wanted) as scene:
            assert scene.bands == names
            assert (scene.read()[0] == pixels[numbers]).all()
            refs, found = scene.refs, scene.read()[0]
        with Scene.open(path, refs) as again:
            assert again.bands == names
            assert (again.read()[0] == found).all()
    with pytest.raises(UsageError, match=r"no band 'nir'; it has b02, b03, b04, b08"):
        Scene.open(path, ("red", "nir"))
    with pytest.raises(UsageError, match="same name"):
        Scene.open(path, ("a=1", "a=2"))
    with pytest.raises(UsageError, match="no bands"):
        Scene.open(path, ())


def test_bands_without_names_are_not_guessed(write):
    path = write(noise(5, dtype=np.uint16))
    with pytest.raises(UsageError, match=r"no band 'red'; it has 1, 2, 3, 4, 5.*'red=3'"):
        Scene.open(path)
    with Scene.open(path, ("red=3", "green=2", "blue=1")) as scene:
        assert scene.bands == ("red", "green", "blue")

    def twice(dataset):
        dataset.descriptions = ("a", "a")

    with pytest.raises(UsageError, match="'a' is more than one band"):
        Scene.open(write(noise(2), "twice.tif", edit=twice), ("a",))


def test_the_only_band_of_a_grey_scene_counts_as_all_three(write):
    pixels = noise(1)
    with Scene.open(write(pixels)) as scene:
        assert scene.bands == ("red", "green", "blue")
        assert (scene.read()[0] == np.repeat(pixels, 3, axis=0)).all()
        assert scene.refs == ("red=1", "green=1", "blue=1")


@pytest.mark.parametrize("how", ["nodata", "alpha", "mask", "nan"])
def test_invalid_pixels(write, how):
    hole = RNG.random((100, 140)) < 0.3
    pixels = noise()
    if how == "alpha":
        path = write(
            np.concatenate([pixels, np.where(hole, 0, 255).astype(np.uint8)[None]]),
            photometric="RGB", alpha="yes",
        )  # fmt: skip
    elif how == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            path = write(pixels, edit=lambda d: d.write_mask(~hole))
    else:
        pixels = pixels.astype(np.float32 if how == "nan" else np.uint8)
        nothing = np.nan if how == "nan" else 0
        pixels[:, hole] = nothing
        pixels[0, 5, :7] = nothing  # one band alone is no hole
        hole[5, :7] = False
        pixels[1:, 5, :7] = 9
        path = write(pixels, nodata=None if how == "nan" else 0, photometric="RGB")
    with Scene.open(path) as scene:
        assert len(scene.bands) == 3
        found, valid = scene.read((3, 2, 90, 80))
        wanted = np.zeros((80, 90), bool)
        for i in range(80):
            for j in range(90):
                wanted[i, j] = not hole[2 + i, 3 + j]
        assert (valid == wanted).all()
        assert (found[:, valid] == pixels[:, 2:82, 3:93][:, valid]).all() or how == "nan"


def test_a_mask_in_a_sidecar_file_counts_for_validity_and_content(write, tmp_path):
    path = write(noise())
    with Scene.open(path) as scene:
        before = scene.content
        assert before == read_tile(path).content
        assert before == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        assert scene.stamp == (path.stat().st_size, path.stat().st_mtime_ns)
    hole = np.zeros((100, 140), bool)
    hole[:50] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(~hole)
    assert (tmp_path / "scene.tif.msk").exists()
    with Scene.open(path) as scene:
        assert (scene.read()[1] == ~hole).all()
        masked = scene.content
        assert masked != before
    (tmp_path / "scene.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    with Scene.open(path) as scene:
        assert scene.content == masked
    os.utime(path, (1, 1))
    with Scene.open(path) as scene:
        assert scene.content == masked


@pytest.mark.parametrize(
    ("transform", "crs", "wanted"),
    [
        (Affine(10, 0, 600_000, 0, -10, 5_000_000), "EPSG:32633", (10, 10)),
        (Affine(8, 6, 600_000, 6, -8, 5_000_000), "EPSG:32633", (10, 10)),
        (Affine(10, 0, 3e6, 0, -10, 1e6), "EPSG:2263", (10 * 1200 / 3937,) * 2),  # US survey feet
        (Affine(1e-4, 0, 10, 0, -1e-4, 60), "EPSG:4326", None),
        (Affine(10, 0, 1e6, 0, -10, 8e6), "EPSG:3857", None),
        (Affine(25_000, 0, 0, 0, -25_000, 0), "EPSG:3413", None),
    ],
)
def test_gsd_in_metres_on_the_ground(write, transform, crs, wanted):
    with Scene.open(write(noise(), transform=transform, crs=crs)) as scene:
        found = scene.gsd
    if wanted is None:  # the ellipsoid's own: distance over one pixel in the middle
        forth = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
        geod = pyproj.Geod(ellps="WGS84")
        a, e = transform.a, transform.e
        x, y = transform.c + 70 * a, transform.f + 50 * e
        (w, n), (o, p) = forth.transform(x - a / 2, y), forth.transform(x + a / 2, y)
        across = geod.inv(w, n, o, p)[2]
        (w, n), (o, p) = forth.transform(x, y - e / 2), forth.transform(x, y + e / 2)
        wanted = (across, geod.inv(w, n, o, p)[2])
        assert found == pytest.approx(wanted, rel=0.02 if crs == "EPSG:3413" else 1e-4)
    else:
        assert found == pytest.approx(wanted, rel=1e-9)


def test_the_gsd_of_web_mercator_at_60_degrees_is_half(write):
    path = write(noise(), transform=Affine(10, 0, 1e6, 0, -10, 8_399_738), crs="EPSG:3857")
    with Scene.open(path) as scene:
        assert scene.gsd == pytest.approx((5, 5), rel=0.005)


def test_without_georeference_there_is_no_warning(write):
    Image.fromarray(noise().transpose(1, 2, 0)).save(path := write(noise()).parent / "plain.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Scene.open(path) as scene:
            assert (scene.crs, scene.transform, scene.gsd, scene.datetime) == (None,) * 4
            assert (scene.read()[0] == read_tile(path).pixels).all()
    with Scene.open(write(noise(), transform=None)) as scene:
        assert scene.crs is None


def test_date_from_the_tag(write):
    path = write(noise(), edit=lambda d: d.update_tags(TIFFTAG_DATETIME="2021:07:14 10:30:05"))
    with Scene.open(path) as scene:
        assert scene.datetime == datetime(2021, 7, 14, 10, 30, 5, tzinfo=UTC)
    stac_time = datetime(2022, 1, 1, tzinfo=UTC)
    with Scene.open(Source(str(path), (Asset(str(path)),), stac_time)) as scene:
        assert scene.datetime == stac_time


def test_jpeg_2000(write):
    pixels = noise(4, 300, 260, np.uint16)
    path = write(pixels, "scene.jp2", QUALITY="100", REVERSIBLE="YES")
    with Scene.open(path, ("red=3", "green=2", "blue=1")) as scene:
        assert scene.crs == "EPSG:32633"
        assert (scene.read((50, 60, 100, 90))[0] == pixels[[2, 1, 0], 60:150, 50:150]).all()


def test_each_band_in_its_own_file(write):
    """As in Sentinel-2 products: several pixel sizes, one grid."""
    fine = noise(1, 80, 120, np.uint16)
    coarse = RNG.integers(1, 9999, (1, 40, 60)).astype(np.uint16)
    other = noise(1, 80, 120, np.uint16)
    twice = Affine(20, 0, 600_000, 0, -20, 5_000_000)
    source = Source(
        "item.json",
        (
            Asset(str(write(other, "b2.tif")), "B02", (("blue", "B02"),)),
            Asset(str(write(fine, "b4.tif")), "B04", (("red", "B04"),)),
            Asset(str(write(coarse, "b11.tif", transform=twice)), "B11", (("swir16", "B11"),)),
            Asset("/not/there.tif", "B99", (("nir", "B99"),)),
        ),
    )
    with Scene.open(source, ("red", "B02", "swir16")) as scene:
        assert scene.bands == ("red", "blue", "swir16")
        assert (scene.width, scene.height, scene.uri) == (120, 80, "item.json")
        found, valid = scene.read((10, 20, 64, 40))
        assert (found[0] == fine[0, 20:60, 10:74]).all()
        assert (found[1] == other[0, 20:60, 10:74]).all()
        assert valid.all()
        # At its own resolution the coarse band is unchanged; at finer ones it is interpolated.
        own = scene.read(None, (40, 60), "nearest")[0][2]
        near = np.abs(own.astype(int) - coarse[0]) / 9999
        assert np.median(near) < 0.4
        assert scene.refs == ("red=B04:1", "blue=B02:1", "swir16=B11:1")
        digest = scene.content
    with Scene.open(source, ("B11",)) as scene:
        assert (scene.read()[0] == coarse).all()
        assert scene.content != digest
    with pytest.raises(UsageError, match=r"no band 'green'; its assets are B02 \(blue\), B04"):
        Scene.open(source)
    with pytest.raises(DataError, match="no such file"):
        Scene.open(source, ("nir",))


def test_a_visual_asset_comes_first(write):
    single = [noise(1, dtype=np.uint16) for _ in range(3)]
    visual = noise()
    assets = [
        Asset(str(write(pixels, f"{name}.tif")), name, ((name,),))
        for name, pixels in zip(("red", "green", "blue"), single, strict=True)
    ]
    look = Asset(str(write(visual, "tci.tif")), "visual", (("red",), ("green",), ("blue",)), True)
    with Scene.open(Source("x", (*assets, look))) as scene:
        assert (scene.read()[0] == visual).all()
        assert scene.refs == ("red=visual:1", "green=visual:2", "blue=visual:3")
    with Scene.open(Source("x", tuple(assets))) as scene:
        assert (scene.read()[0] == np.concatenate(single)).all()
    with Scene.open(Source("x", (*assets, look)), ("visual:3", "x=red:red")) as scene:
        assert (scene.read()[0][0] == visual[2]).all()
        assert (scene.read()[0][1] == single[0][0]).all()


def test_percentile_samples(write):
    pixels = noise(3, 60, 50, np.uint16)
    pixels[:, :10] = 0
    with Scene.open(write(pixels, nodata=0, photometric="RGB")) as scene:
        for found, band in zip(scene.samples(), pixels, strict=True):
            assert (np.sort(found) == np.sort(band[10:].ravel())).all()
    # 2500 × 2300 without overviews: 64 windows, each sample from another position
    rows, columns = np.mgrid[:2300, :2500]
    large = (rows * 10 + columns).astype(np.uint16)[None]
    with Scene.open(write(large, "large.tif", tiled=True)) as scene:
        (found, _, _) = scene.samples()
        assert len(found) == 64 * 128 * 128
        off = np.percentile(found, [2, 50, 98]) - np.percentile(large, [2, 50, 98])
        assert np.abs(off).max() < 0.05 * large.max()
    hidden = np.zeros_like(large)
    hidden[0, 140:160, 140:160] = 500  # between the windows
    with Scene.open(write(hidden, "hidden.tif", nodata=0, tiled=True)) as scene:
        (found, _, _) = scene.samples()
        assert set(found.tolist()) == {500}


def test_over_http_by_ranges(write, server):
    pixels = noise(3, 1024, 1024)
    path = write(pixels, tiled=True, blockxsize=128, blockysize=128, overviews=(2, 4))
    uri = f"{server.url}/{path.name}"
    with Scene.open(uri) as scene:
        found, _ = scene.read((256, 128, 128, 128))
        assert (found == pixels[:, 128:256, 256:384]).all()
        assert scene.uri == uri
        assert sum(sent for _, sent, _ in server.requests) < path.stat().st_size / 4
        assert {path for path, _, _ in server.requests} == {f"/{path.name}"}  # not for sidecars
        first = scene.content
        assert scene.stamp == (path.stat().st_size, int(path.stat().st_mtime) * 10**9)
    with Scene.open(uri) as scene:
        assert scene.content == first
        os.utime(path, (1e9, 1e9))
    with Scene.open(uri) as scene:
        assert scene.content != first
    with pytest.raises(ImageError, match="cannot be opened"):
        Scene.open(f"{server.url}/missing.tif")


def test_damaged_files(write, tmp_path):
    pixels = noise(3, 512, 512)
    path = write(pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    data = path.read_bytes()
    with rasterio.open(path) as dataset:
        assert dataset.read().shape == pixels.shape
    path.write_bytes(data[: len(data) // 2])  # GDAL writes the directory before the pixels
    with Scene.open(path) as scene:
        assert (scene.read((0, 0, 64, 64))[0] == pixels[:, :64, :64]).all()
        with pytest.raises(ImageError, match="damaged or cut off"):
            scene.read()
    for content in (b"", b"II*\0", b"no image at all", data[:100]):
        path.write_bytes(content)
        with pytest.raises(
            ImageError,
            match=r"scene\.tif: (cannot be opened|the file is empty|this is not an image)",
        ):
            Scene.open(path)
    with pytest.raises(DataError, match="no such file"):
        Scene.open(tmp_path / "missing.tif")


def test_files_that_cannot_be_read_faithfully_are_refused(write, tmp_path):
    complex_ = noise().astype(np.complex64)
    with pytest.raises(ImageError, match="complex"):
        Scene.open(write(complex_))
    page = Image.fromarray(noise()[0])
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    with pytest.raises(ImageError, match="2 images"):
        Scene.open(tmp_path / "pages.tif")


def test_a_mask_with_a_palette_is_read_by_its_values(write):
    scene = write(noise())
    values = noise()[:1] % 3
    colours = {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 0)}
    mask = write(values, "mask.tif", edit=lambda dataset: dataset.write_colormap(1, colours))
    with Scene.open(scene) as opened, ExitStack() as stack:
        assert (opened.beside(str(mask), stack).read() == values).all()
    with Scene.open(mask) as opened:  # as a scene, it has the colours of the palette
        wanted = np.array([colours[n] for n in range(3)], np.uint8)[values[0]].transpose(2, 0, 1)
        assert (opened.read()[0] == wanted).all()


def test_names_that_look_like_uris(write, tmp_path):
    pixels = noise()
    path = write(pixels)
    for name in ("a b.tif", "ä#1.tif", "zip:x.tif", "50%.tif", "q?x=1.tif", "[1].tif"):
        other = path.with_name(name)
        other.write_bytes(path.read_bytes())
        with Scene.open(other) as scene:
            assert (scene.read()[0] == pixels).all()
            assert scene.uri == str(other)


def test_each_thread_with_its_own_scene(write):
    pixels = noise()
    path = write(pixels)

    def read(i: int) -> bool:
        with Scene.open(path) as scene:
            return bool((scene.read((i, i, 20, 20))[0] == pixels[:, i : i + 20, i : i + 20]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(40)))


def test_without_rasterio(write, monkeypatch):
    path = write(noise())
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingExtraError, match=r"rsir\[geo\]"):
        Scene.open(path)


def test_resamplings_have_gdals_names():
    from rsir.scenes.tiling import RESAMPLINGS

    assert all(name in Resampling.__members__ for name in RESAMPLINGS)


def test_a_truncated_jpeg_is_not_filled_with_grey(tmp_path):
    path = tmp_path / "large.jpg"
    Image.fromarray(noise(3, 600, 600).transpose(1, 2, 0)).save(path, quality=90)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Scene.open(path) as scene:
        scene.read((0, 0, 600, 100))
        with pytest.raises(ImageError, match="cut off"):
            scene.read((0, 500, 600, 100))


def test_a_scene_located_by_ground_control_points(write):
    pixels = noise(1, 60, 80, np.uint16)

    def edit(dataset):
        transform = Affine(1e-3, 2e-4, 10, 2e-4, -1e-3, 50)
        points = []
        for row in (0, 30, 60):
            for column in (0, 40, 80):
                a, b, c, d, e, f = transform[:6]
                x, y = a * column + b * row + c, d * column + e * row + f
                points.append(rasterio.control.GroundControlPoint(row, column, x, y))
        dataset.gcps = points, rasterio.crs.CRS.from_epsg(4326)
        dataset.update_tags(TIFFTAG_DATETIME="2024:05:06 07:08:09")

    with Scene.open(write(pixels, transform=None, edit=edit), ("1",)) as scene:
        assert scene.crs == "EPSG:4326"
        assert scene.datetime == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
        a, _, c, _, e, f = scene.transform
        found, valid = scene.read()
    assert 0.6 < valid.mean() < 0.95  # it lies askew
    # The centre of the scene, by the points, is the centre of the pixels that were read.
    x, y = 10 + 1e-3 * 40.5 + 2e-4 * 30.5, 50 + 2e-4 * 40.5 - 1e-3 * 30.5
    column, row = int((x - c) / a), int((y - f) / e)
    near = pixels[0, 29:33, 39:43]
    assert valid[row, column]
    assert near.min() <= found[0, row, column] <= near.max()


def test_samples_of_a_damaged_scene(write):
    pixels = noise(3, 512, 512, np.uint16)
    path = write(
        pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate", photometric="RGB"
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Scene.open(path) as scene:
        assert min(map(len, scene.samples())) > 1000
    path.write_bytes(path.read_bytes()[:2000])
    with Scene.open(path) as scene, pytest.raises(ImageError, match="all over"):
        scene.samples()


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
def test_alpha_marks_nodata_beside_any_number_of_bands(tmp_path, bands):
    pixels = noise(bands + 1, 40, 50)
    pixels[-1] = 255
    pixels[:, :, :20] = 0  # black and transparent

    path = tmp_path / "scene.tif"
    ignore_not_georeferenced()
    with rasterio.open(
        path, "w", driver="GTiff", count=bands + 1, height=40, width=50, dtype="uint8",
        photometric="minisblack",
    ) as dataset:  # fmt: skip
        dataset.colorinterp = [ColorInterp.undefined] * bands + [ColorInterp.alpha]
        dataset.write(pixels)
    names = [str(number) for number in range(1, bands + 1)]
    with Scene.open(path, names) as scene:
        found, valid = scene.read()
    assert (found == pixels[:-1]).all()
    assert (valid == (pixels[-1] != 0)).all()
