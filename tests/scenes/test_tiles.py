"""Tiles against slices, loops and PROJ."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from shapely.geometry import shape

from rsir.errors import DataError, ImageError, UsageError
from rsir.images.read import read_tile
from rsir.scenes.chips import is_picture
from rsir.scenes.scene import Scene
from rsir.scenes.stretch import Stretch
from rsir.scenes.tile_cut import TileCut
from rsir.scenes.tiles import SkippedTile, tile_ids, tiles, tiles_of
from rsir.scenes.tiling import SCL_CLOUDS, Tiling
from rsir.scenes.windows import tile_thumbnail
from rsir.sources.find import source
from rsir.sources.source import Asset, Source
from rsir.types import Tile

RNG = np.random.default_rng(0)


def noise(bands=3, height=100, width=140, dtype=np.uint8):
    return RNG.integers(1, 255 if dtype == np.uint8 else 10_000, (bands, height, width)).astype(
        dtype
    )


def test_tiles_are_slices_with_their_metadata(write):
    pixels = noise()
    path = write(pixels, edit=lambda d: d.update_tags(TIFFTAG_DATETIME="2021:07:14 10:30:05"))
    forth = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    found = list(tiles_of(path, Tiling(size=64, stride=48)))
    assert len(found) == 3 * 2
    for tile in found:
        column, row, w, h = tile.window
        assert (w, h) == (64, 64)
        assert (tile.pixels == pixels[:, row : row + h, column : column + w]).all()
        assert tile.pixels.dtype == np.uint8
        assert tile.source == str(path)
        assert tile.content == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        assert tile.datetime.year == 2021
        west, north = 600_000 + 10 * column, 5_000_000 - 10 * row
        assert tile.bounds == (west, north - 640, west + 640, north)
        assert tile.crs == "EPSG:32633"
        corners = [forth.transform(x, y) for x in (west, west + 640) for y in (north, north - 640)]
        ring = np.array(tile.footprint["coordinates"][0])
        for corner in corners:
            assert np.abs(ring - corner).max(axis=1).min() < 1e-9
        assert tile.properties == {
            "bands": ["red=1", "green=2", "blue=3"], "stretch": "none", "gsd": [10, 10]
        }  # fmt: skip
    assert len({tile.id for tile in found}) == len(found)


def test_footprints_over_the_antimeridian(write):
    path = write(noise(), transform=Affine(0.1, 0, 175, 0, -0.1, 10), crs="EPSG:4326")
    for tile in tiles_of(path, Tiling(size=50, min_valid=0)):
        column, row, w, h = tile.window
        west, north = 175 + 0.1 * column, 10 - 0.1 * row
        area = shape(tile.footprint).area
        assert area == pytest.approx(0.01 * w * h)
        crosses = west < 180 - 1e-9 and west + 0.1 * w > 180 + 1e-9
        assert (tile.footprint["type"] == "MultiPolygon") == crosses
        assert shape(tile.footprint).bounds[3] == pytest.approx(north)


def test_resampling_to_the_models_gsd(write):
    pixels = noise(3, 128, 160)
    # 10 m to 40 m: each pixel of a tile is the mean of 4 × 4 pixels.
    found = list(tiles_of(write(pixels), Tiling(size=16, gsd=40, resampling="average")))
    assert [tile.window for tile in found] == [
        (c, r, 64, 64) for r in (0, 64) for c in (0, 64, 96)
    ]  # fmt: skip
    for tile in found:
        column, row, w, h = tile.window
        part = pixels[:, row : row + h, column : column + w]
        means = part.reshape(3, 16, 4, 16, 4).mean((2, 4))
        assert np.abs(tile.pixels - means).max() <= 0.5 + 1e-9
        assert tile.properties["gsd"] == [40, 40]
    (metres, *_) = tiles_of(write(pixels), Tiling(size=320, unit="metres"))
    assert metres.pixels.shape == (3, 32, 32)


@pytest.mark.parametrize("edges", ["shift", "pad"])
def test_edges(write, edges):
    pixels = noise(3, 50, 70)
    found = list(tiles_of(write(pixels), Tiling(size=40, edges=edges, min_valid=0)))
    seen = np.zeros((3, 50, 70), np.uint8)
    for tile in found:
        assert tile.pixels.shape == (3, 40, 40)
        column, row, w, h = tile.window
        inner = pixels[:, row : row + h, column : column + w]
        assert (tile.pixels[:, : inner.shape[1], : inner.shape[2]] == inner).all()
        assert tile.pixels.astype(int).sum() == inner.astype(int).sum()  # the rest is 0
        seen[:, row : row + h, column : column + w] = inner
        share = inner[0].size / 1600
        assert tile.properties.get("valid", 1) == pytest.approx(share)
        assert tile.bounds[2] <= 600_700
    assert (seen == pixels).all()
    (small,) = tiles_of(write(pixels), Tiling(size=400, edges=edges, min_valid=0))
    assert small.pixels.shape == ((3, 50, 70) if edges == "shift" else (3, 400, 400))


def test_nodata_tiles_are_skipped_by_threshold(write):
    pixels = noise()
    hole = RNG.random((100, 140)) < np.linspace(0, 1.2, 140)
    pixels[:, hole] = 0
    path = write(pixels, nodata=0)
    for least in (0, 0.3, 0.8, 1):
        for found in tiles_of(path, Tiling(size=20, min_valid=least)):
            column, row, w, h = found.window
            valid = sum(
                not hole[i, j] for i in range(row, row + h) for j in range(column, column + w)
            )
            share = valid / 400
            if share < least or share == 0:
                assert isinstance(found, SkippedTile)
                assert (found.reason, found.share) == ("nodata", share)
            else:
                assert isinstance(found, Tile)
                assert found.properties.get("valid", 1) == share


@pytest.mark.parametrize("how", ["asset", "pattern", "coarse"])
def test_cloudy_tiles_are_skipped(write, tmp_path, how):
    pixels = noise(3, 80, 120)
    path = write(pixels, "scene.tif")
    scl = RNG.choice([4, 5, 8, 9], (1, 40, 60), p=[0.4, 0.2, 0.2, 0.2]).astype(np.uint8)
    scl[:, :20, :20] = 3
    scl = scl if how == "coarse" else scl.repeat(2, 1).repeat(2, 2)
    side = 20 if how == "coarse" else 10
    mask = write(scl, "scene_SCL.tif", transform=Affine(side, 0, 600_000, 0, -side, 5_000_000))
    full = scl[0].repeat(2, 0).repeat(2, 1) if how == "coarse" else scl[0]
    scene = Source(str(path), (Asset(str(path), "data"), Asset(str(mask), "SCL", pixels=False)))
    named = "scl" if how == "asset" else "{folder}/{stem}_SCL.tif"
    tiling = Tiling(size=20, cloud_mask=named, cloud_classes=SCL_CLOUDS, max_cloud=0.4)
    found = list(tiles_of(scene, tiling))
    assert len(found) == 24
    reasons = set()
    for tile in found:
        column, row, w, h = tile.window
        share = sum(
            full[i, j] in (3, 8, 9, 10)
            for i in range(row, row + h)
            for j in range(column, column + w)
        ) / (w * h)
        if share > 0.4:
            assert (tile.reason, tile.share) == ("cloud", share)
            reasons.add("cloud")
        else:
            assert tile.properties["cloud"] == share
            reasons.add("clear")
    assert reasons == {"cloud", "clear"}
    binary = Tiling(size=20, cloud_mask=str(mask), max_cloud=0.99)  # all classes are above 0
    assert all(isinstance(tile, SkippedTile) for tile in tiles_of(scene, binary))
    with pytest.raises(DataError, match=r"missing\.tif"):
        list(tiles_of(scene, Tiling(cloud_mask="{folder}/missing.tif")))


def test_all_tiles_of_a_scene_are_stretched_alike(write):
    pixels = noise(3, 90, 120, np.uint16)
    pixels[:, :30] //= 4
    pixels[:, 80:] = 0
    path = write(pixels, nodata=0, photometric="RGB")
    found = list(tiles_of(path, Tiling(size=30, stretch=Stretch.parse("percentile:1,97"))))
    ends = [np.percentile(band[:80], [1, 97]) for band in pixels]
    for tile in found:
        assert isinstance(tile, Tile)
        column, row, w, h = tile.window
        for c, (low, high) in enumerate(ends):
            part = pixels[c, row : row + h, column : column + w].astype(float)
            wanted = np.rint(np.clip((part - low) / (high - low), 0, 1) * 255)
            wanted[part == 0] = 0
            assert np.abs(tile.pixels[c] - wanted).max() <= 1
        stretch = Stretch.parse(tile.properties["stretch"])
        assert stretch.values == tuple(np.ravel(ends))
    linear = list(tiles_of(path, Tiling(size=30, stretch=Stretch("range", (0, 3000)))))
    assert linear[0].properties["stretch"] == "range:0,3000,0,3000,0,3000"
    assert linear[0].id != found[0].id
    with pytest.raises(UsageError, match="not 8-bit"):
        list(tiles_of(path, Tiling(stretch=Stretch("none"))))


def test_ids_are_stable_and_follow_content_and_pixels(write, tmp_path):
    pixels = noise()
    path = write(pixels)

    def ids(scene=path, **more):
        return [tile.id for tile in tiles_of(scene, Tiling(**{"size": 50, **more}))]

    first = ids()
    os.utime(path, (1, 1))
    assert ids() == first
    assert ids(min_valid=0.1) == first
    with Scene.open(path) as scene:
        planned = list(tile_ids(scene, Tiling(size=50)))
        assert [name for name, _ in planned] == first
        assert [window for _, window in planned] == [
            t.window for t in tiles(scene, Tiling(size=50))
        ]
    others = [
        ids(gsd=5), ids(resampling="cubic"), ids(stretch=Stretch("range", (0, 9))),
        ids(bands=("blue", "green", "red")), ids(edges="pad", size=51),
    ]  # fmt: skip
    copy = tmp_path / "copy.tif"
    shutil.copy(path, copy)
    others.append(ids(copy))
    with rasterio.open(path, "r+") as dataset:
        dataset.write(pixels[:, ::-1])
    others.append(ids())
    for other in others:
        assert not set(other) & set(first)
    # Half the stride: the windows that are the same keep their ids.
    path = write(pixels)
    assert set(first[:1]) <= set(ids(stride=25))


def test_known_tiles_are_not_read(write):
    path = write(noise(dtype=np.uint16), photometric="RGB")
    first = list(tiles_of(path, Tiling(size=50)))
    known = {tile.id for tile in first[1:]}
    again = list(tiles_of(path, Tiling(size=50), known=known.__contains__))
    assert [tile.id for tile in again] == [tile.id for tile in first]
    assert (again[0].pixels == first[0].pixels).all()
    assert {tile.reason for tile in again[1:]} == {"known"}
    with Scene.open(path) as scene:
        scene.read = scene.samples = None  # a known scene is not read
        assert len(list(tiles(scene, Tiling(size=50), known=lambda _: True))) == len(first)


def test_damaged_windows_are_skipped_and_the_others_read(write):
    pixels = noise(3, 512, 512)
    path = write(pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = list(tiles_of(path, Tiling(size=64)))
    good = [tile for tile in found if isinstance(tile, Tile)]
    bad = [tile for tile in found if isinstance(tile, SkippedTile)]
    assert len(found) == 64
    assert 10 < len(good) < 54
    for tile in good:
        column, row, w, h = tile.window
        assert (tile.pixels == pixels[:, row : row + h, column : column + w]).all()
    assert {tile.reason for tile in bad} == {"damaged"}
    assert "cut off" in bad[0].detail


def test_plain_images_small_and_large(tmp_path, write):
    pixels = noise(3, 90, 130)
    path = tmp_path / "plain.png"
    Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    (chip,) = tiles_of(path, Tiling(size=130))
    today = read_tile(path)
    assert (chip.id, chip.source, chip.content) == (today.id, today.source, today.content)
    assert (chip.pixels == today.pixels).all()
    assert chip.window is None
    (known,) = tiles_of(path, Tiling(size=130), known=lambda name: name == today.id)
    assert known.reason == "known"
    found = list(tiles_of(path, Tiling(size=50)))
    assert len(found) == 6
    for tile in found:
        column, row, w, h = tile.window
        assert (tile.pixels == pixels[:, row : row + h, column : column + w]).all()
        assert (tile.crs, tile.bounds, tile.footprint) == (None, None, None)
    with pytest.raises(DataError, match="no georeference"):
        list(tiles_of(path, Tiling(size=500, unit="metres")))


def test_thumbnail_looks_as_the_tile_did(write):
    path = write(noise(4, 100, 140, np.uint16))
    tiling = Tiling(size=48, bands=("red=3", "green=2", "blue=1"))
    tile = list(tiles_of(path, tiling))[4]
    cut = TileCut.of({**tile.properties, "window": list(tile.window)})
    assert (tile_thumbnail(tile.source, cut) == tile.pixels).all()
    small = tile_thumbnail(tile.source, cut, size=12)
    means = tile.pixels.reshape(3, 12, 4, 12, 4).mean((2, 4))
    assert small.shape == (3, 12, 12)
    assert np.abs(small - means).mean() < 2  # the mean before the stretch, not after it
    assert tile_thumbnail(path, TileCut(bands=("1",)), size=70).shape == (1, 50, 70)
    assert tile_thumbnail(write(noise()), size=1).shape == (3, 1, 1)
    with pytest.raises(UsageError, match="not in its 140 × 100"):
        tile_thumbnail(path, TileCut((140, 0, 10, 10), ("1",)))
    with pytest.raises(UsageError, match="size 0"):
        tile_thumbnail(path, size=0)
    path.write_bytes(b"x")
    with pytest.raises(ImageError, match="not an image of a known format"):
        tile_thumbnail(path)


def test_small_pictures_are_read_by_read_tile(tmp_path):
    """Pictures with a palette, turned ones and grey ones, too."""
    picture = Image.fromarray(noise(3, 30, 40).transpose(1, 2, 0))
    picture.convert("P").save(tmp_path / "palette.png")
    exif = Image.Exif()
    exif[274] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif, subsampling=0)
    picture.convert("L").save(tmp_path / "grey.tif")
    for path in tmp_path.iterdir():
        (tile,) = tiles_of(path, Tiling(size=40))
        assert tile.id == read_tile(path).id
        assert (tile.pixels == read_tile(path).pixels).all()
        parts = list(tiles_of(path, Tiling(size=10)))
        for part in parts:
            column, row, width, height = part.window
            whole = tile.pixels[:, row : row + height, column : column + width]
            assert np.abs(part.pixels.astype(int) - whole).max() <= 2 * path.name.endswith("jpg")


def test_a_small_tiff_with_nodata_is_a_scene(write, tmp_path):
    """`read_tile` reads nodata as black, and does not read ground control points."""
    pixels = noise(3, 30, 40)
    pixels[:, :, :30] = 0
    alpha = np.where(pixels.any(axis=0), 255, 0).astype(np.uint8)[None]
    points = [
        GroundControlPoint(row, column, 10 + column / 100, 50 - row / 100)
        for row, column in ((0, 0), (0, 40), (30, 0), (30, 40))
    ]
    with_alpha = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    scenes = {
        "value.tif": write(pixels, "value.tif", nodata=0),
        "mask.tif": write(pixels, "mask.tif", edit=lambda d: d.write_mask(alpha[0])),
        "alpha.tif": write(
            np.concatenate([pixels, alpha]),
            "alpha.tif",
            edit=lambda d: setattr(d, "colorinterp", with_alpha),
        ),
    }
    plain = write(noise(3, 30, 40), "plain.tif")
    for path in scenes.values():
        assert not is_picture(source(path))
        (left,) = tiles_of(path, Tiling(size=40))
        assert (left.reason, left.share) == ("nodata", 0.25)
    assert is_picture(source(plain))
    nowhere = {"crs": None, "transform": None}
    assert is_picture(source(write(noise(3, 30, 40), "chip.tif", **nowhere)), Tiling(size=40))
    unplaced = write(pixels, "unplaced.tif", nodata=0, **nowhere)
    assert not is_picture(source(unplaced), Tiling(size=40))
    located = write(
        noise(3, 30, 40), "points.tif", edit=lambda d: setattr(d, "gcps", (points, "EPSG:4326")),
        **nowhere,
    )  # fmt: skip
    assert not is_picture(source(located))
    (tile,) = tiles_of(located, Tiling(size=64))
    west, south, east, north = shape(tile.footprint).bounds
    assert (west, north) == pytest.approx((10, 50), abs=0.02)
    assert (east, south) == pytest.approx((10.4, 49.7), abs=0.02)


def test_a_crs_without_a_transform_is_no_georeference(write):
    path = write(noise(), transform=None, edit=lambda d: setattr(d, "crs", "EPSG:32633"))
    with rasterio.open(path) as dataset:
        assert dataset.crs.to_epsg() == 32633
    with Scene.open(path) as scene:
        assert (scene.crs, scene.transform, scene.gsd) == (None, None, None)
    (tile,) = tiles_of(path, Tiling(size=256))
    assert (tile.footprint, tile.crs) == (None, None)
