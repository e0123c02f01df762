"""Footprints against corners worked out by hand; no answer for files that give none."""

from __future__ import annotations

import math
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from rsir.errors import MissingExtraError
from rsir.geo.georeference import georeference
from rsir.geo.tiff_tags import GEO_KEYS, TIE_POINTS, directories, integers
from rsir.images.read import read_tile

R = 6378137.0  # radius of the sphere of EPSG:3857


@pytest.fixture
def geotiff(tmp_path: Path):
    def write(transform, crs="EPSG:32632", width=50, height=40, name="a.tif", **tags) -> Path:
        path = tmp_path / name
        with rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8",
            crs=crs, transform=transform,
        ) as dataset:  # fmt: skip
            dataset.write(np.full((3, height, width), 9, np.uint8))
            dataset.update_tags(**tags)
        return path

    return write


def ring(footprint) -> list[tuple[float, float]]:
    assert footprint["type"] == "Polygon"
    (points,) = footprint["coordinates"]
    assert points[0] == points[-1]
    return [tuple(point) for point in points]


def area(points) -> float:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(points)) / 2


def same_corners(points, wanted) -> None:
    assert len(points) == 5
    for x, y in wanted:
        assert min(math.hypot(x - a, y - b) for a, b in points) < 1e-9


def test_geographic_is_taken_as_it_is(geotiff):
    found = georeference(geotiff(Affine(0.1, 0, 10, 0, -0.1, 50), "EPSG:4326"))
    assert found.crs == "EPSG:4326"
    assert found.bounds == pytest.approx((10, 46, 15, 50))
    points = ring(found.footprint)
    same_corners(points, [(10, 50), (10, 46), (15, 46), (15, 50)])
    assert area(points) == pytest.approx(20)  # positive: counter-clockwise
    assert found.datetime is None


def test_web_mercator_by_its_formula(geotiff):
    found = georeference(geotiff(Affine(100, 0, 1e6, 0, -100, 6e6), "EPSG:3857"))

    def degrees(x: float, y: float) -> tuple[float, float]:
        return math.degrees(x / R), math.degrees(2 * math.atan(math.exp(y / R)) - math.pi / 2)

    assert found.bounds == (1e6, 6e6 - 4000, 1e6 + 5000, 6e6)
    wanted = [degrees(x, y) for x in (1e6, 1e6 + 5000) for y in (6e6, 6e6 - 4000)]
    same_corners(ring(found.footprint), wanted)
    assert area(ring(found.footprint)) > 0


def test_utm_central_meridian(geotiff):
    found = georeference(geotiff(Affine(1, 0, 500_000, 0, -1, 5_000_000)))
    assert found.crs == "EPSG:32632"
    assert found.bounds == (500_000, 4_999_960, 500_050, 5_000_000)
    lons = sorted({round(lon, 9) for lon, _ in ring(found.footprint)})
    assert lons[0] == 9  # easting 500 km is the meridian 9° E of zone 32
    assert area(ring(found.footprint)) > 0


def test_rotated_gives_its_true_quadrilateral(geotiff):
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    transform = Affine(0.01 * cos, 0.01 * sin, 20, 0.01 * sin, -0.01 * cos, 40)
    found = georeference(geotiff(transform, "EPSG:4326"))
    corners = [
        (20 + 0.01 * (cos * i + sin * j), 40 + 0.01 * (sin * i - cos * j))
        for i, j in ((0, 0), (50, 0), (50, 40), (0, 40))
    ]
    same_corners(ring(found.footprint), corners)
    assert abs(area(ring(found.footprint))) == pytest.approx(0.5 * 0.4)
    xs, ys = zip(*corners, strict=True)
    assert found.bounds == pytest.approx((min(xs), min(ys), max(xs), max(ys)))


def test_south_up_is_still_counter_clockwise(geotiff):
    found = georeference(geotiff(Affine(0.1, 0, 10, 0, 0.1, 50), "EPSG:4326"))
    assert found.bounds == pytest.approx((10, 50, 15, 54))
    assert area(ring(found.footprint)) > 0


def test_long_edges_bend_and_are_densified(geotiff):
    import pyproj

    # 1000 km of equal-area Europe: its edges are curves in longitude and latitude.
    found = georeference(geotiff(Affine(20_000, 0, 4e6, 0, -20_000, 3e6), "EPSG:3035"))
    points = ring(found.footprint)
    assert len(points) > 40
    assert area(points) > 0
    back = pyproj.Transformer.from_crs(4326, 3035, always_xy=True)
    xs, ys = back.transform(*zip(*points, strict=True))
    left, bottom, right, top = found.bounds
    for x, y in zip(xs, ys, strict=True):  # every vertex lies on the edge of the box
        off = min(abs(x - left), abs(x - right), abs(y - bottom), abs(y - top))
        assert off < 1
    # What lies between vertices is off by less than a tenth of a pixel, 2 km.
    middles = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in pairwise(points)]
    xs, ys = back.transform(*zip(*middles, strict=True))
    for x, y in zip(xs, ys, strict=True):
        assert min(abs(x - left), abs(x - right), abs(y - bottom), abs(y - top)) < 2000


def test_what_crosses_the_antimeridian_is_cut_there(geotiff):
    found = georeference(geotiff(Affine(0.1, 0, 178, 0, -0.1, 10), "EPSG:4326"))
    assert found.bounds[2] == pytest.approx(183)
    assert found.footprint["type"] == "MultiPolygon"
    wests = sorted(min(x for x, _ in ring) for (ring,) in found.footprint["coordinates"])
    assert wests == pytest.approx([-180, 178])
    assert sum(area(ring) for (ring,) in found.footprint["coordinates"]) == pytest.approx(20)


def test_beyond_the_domain_there_is_no_footprint(geotiff):
    beyond = georeference(geotiff(Affine(1e7, 0, 1e9, 0, -1e7, 1e9), "EPSG:3035"))
    assert beyond is None or beyond.footprint is None


def test_crs_without_a_code_is_wkt(geotiff):
    own = "+proj=laea +lat_0=48.123 +lon_0=9.456 +datum=WGS84 +units=m"
    found = georeference(geotiff(Affine(10, 0, 0, 0, -10, 500), own))
    assert found.crs.startswith("PROJCRS[")
    assert rasterio.crs.CRS.from_wkt(found.crs).to_dict()["lat_0"] == pytest.approx(48.123)
    lons, lats = zip(*ring(found.footprint), strict=True)
    assert min(lons) == pytest.approx(9.456, abs=1e-4)
    assert 48.12 < min(lats) < max(lats) < 48.14


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2021:07:14 10:30:05", datetime(2021, 7, 14, 10, 30, 5, tzinfo=UTC)),
        ("2021-07-14", None),
        ("2021:13:40 99:00:00", None),
        ("    :  :     :  :  ", None),
    ],
)
def test_datetime_tag(geotiff, text, wanted):
    path = geotiff(Affine(1, 0, 5e5, 0, -1, 5e6), TIFFTAG_DATETIME=text)
    assert georeference(path).datetime == wanted
    assert read_tile(path).datetime == wanted


def test_none_for_what_says_nothing(geotiff, tmp_path):
    plain = tmp_path / "plain.tif"
    Image.new("RGB", (4, 4)).save(plain)
    (tmp_path / "plain.tfw").write_text("1\n0\n0\n-1\n500000\n5000000\n")  # a sidecar is not read
    assert georeference(plain) is None
    assert georeference(geotiff(Affine(1, 0, 5e5, 0, -1, 5e6), crs=None)) is None
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert georeference(tmp_path / "a.png") is None
    assert georeference(b"") is None
    assert georeference(b"II*\0\xff\xff\xff\xff") is None
    with pytest.raises(OSError, match="missing"):
        georeference(tmp_path / "missing.tif")


PIXEL_SCALE = 33550
SHORT, DOUBLE = (3, 2), (12, 8)  # type numbers and bytes of a value, TIFF 6.0 page 15


def changed(data: bytes, tag: int, kind: tuple[int, int], value: bytes) -> bytes:
    """The same little-endian TIFF with another value, of more than 4 bytes, of one tag."""
    number, size = kind
    (directory,) = struct.unpack_from("<L", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry) == (tag,):
            there = struct.pack("<HHLL", tag, number, len(value) // size, len(data))
            return data[:entry] + there + data[entry + 12 :] + value
    raise KeyError(tag)


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        (PIXEL_SCALE, (0.0, 0.0, 0.0)),
        (PIXEL_SCALE, (math.nan, 1.0, 0.0)),
        (PIXEL_SCALE, (1.0,)),
        (TIE_POINTS, (0.0, 0.0)),
        (TIE_POINTS, (0.0, 0.0, 0.0, math.inf, 0.0, 0.0)),
    ],
)
def test_broken_transform_is_none_without_a_warning(geotiff, tag, values):
    data = geotiff(Affine(1, 0, 5e5, 0, -1, 5e6)).read_bytes()
    assert (
        georeference(changed(data, tag, DOUBLE, struct.pack(f"<{len(values)}d", *values))) is None
    )


def test_broken_crs_never_crashes(geotiff):
    path = geotiff(Affine(1, 0, 5e5, 0, -1, 5e6))
    data = path.read_bytes()
    keys = integers(next(directories(data)), GEO_KEYS)
    rng = np.random.default_rng(0)
    for _ in range(60):
        other = list(keys)
        for _ in range(3):
            other[rng.integers(4, len(other))] = int(rng.integers(65536))
        hostile = changed(data, GEO_KEYS, SHORT, struct.pack(f"<{len(other)}H", *other))
        found = georeference(hostile)
        assert found is None or found.crs
    # No such EPSG code.
    unknown = [65000 if key == 32632 else key for key in keys]
    hostile = changed(data, GEO_KEYS, SHORT, struct.pack(f"<{len(unknown)}H", *unknown))
    found = georeference(hostile)
    assert found is None or found.footprint is None


def test_threads_and_no_warning(geotiff, tmp_path):
    paths = [geotiff(Affine(1, 0, 5e5 + 100 * i, 0, -1, 5e6), name=f"{i}.tif") for i in range(10)]
    plain = tmp_path / "plain.tif"
    Image.new("RGB", (4, 4)).save(plain)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(georeference, (paths + [plain] * 10) * 3))
    for i in range(30):
        assert (found[i % 10 + 20 * (i // 10)]).bounds[0] == 5e5 + 100 * (i % 10)
        assert found[i % 10 + 20 * (i // 10) + 10] is None


def test_tile_carries_it(geotiff):
    path = geotiff(Affine(1, 0, 5e5, 0, -1, 5e6), TIFFTAG_DATETIME="2021:07:14 10:30:05")
    tile, found = read_tile(path), georeference(path)
    assert (tile.bounds, tile.crs, tile.datetime) == (found.bounds, found.crs, found.datetime)
    assert tile.footprint == found.footprint


def test_without_rasterio(geotiff, monkeypatch, tmp_path):
    path = geotiff(Affine(1, 0, 5e5, 0, -1, 5e6))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setitem(sys.modules, "rasterio.io", None)
    with pytest.raises(MissingExtraError, match=r"rsir\[geo\]"):
        georeference(path)
    tile = read_tile(path)
    assert tile.pixels.shape == (3, 40, 50)
    assert tile.footprint is None
    plain = tmp_path / "plain.tif"
    Image.new("RGB", (4, 4)).save(plain)
    assert georeference(plain) is None
