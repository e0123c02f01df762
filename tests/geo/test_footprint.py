"""Footprints against the question itself: is this place, taken to pixels by PROJ, in the window?"""

from __future__ import annotations

import sys

import numpy as np
import pyproj
import pytest
import shapely
from shapely.geometry import shape

from rsir.errors import MissingExtraError
from rsir.geo.footprint import bounds, footprint, is_flat, to_wgs84

SINUSOIDAL = "+proj=sinu +lon_0=0 +R=6371007.181 +units=m +no_defs"
GEOSTATIONARY = "+proj=geos +h=35785831 +lon_0=0 +sweep=y +units=m"

# name: (transform, CRS, window)
WINDOWS = {
    "UTM": ((10, 0, 5e5, 0, -10, 5e6), "EPSG:32632", (100, 200, 1000, 800)),
    "UTM, rotated": ((8, 6, 5e5, 6, -8, 5e6), "EPSG:32632", (0, 0, 5000, 3000)),
    "UTM over the antimeridian": ((1000, 0, 7e5, 0, -1000, 1e6), "EPSG:32660", (0, 0, 300, 300)),
    "geographic": ((0.01, 0, 10, 0, -0.01, 50), "EPSG:4326", (0, 0, 512, 256)),
    "geographic over the antimeridian": ((0.1, 0, 178, 0, -0.1, 10), "EPSG:4326", (0, 0, 50, 40)),
    "the globe": ((1, 0, -180, 0, -1, 90), "EPSG:4326", (0, 0, 360, 180)),
    "the globe from Greenwich": ((1, 0, 0, 0, -1, 90), "EPSG:4326", (0, 0, 360, 180)),
    "the globe by pixel centres": ((1, 0, -0.5, 0, -1, 90.5), "EPSG:4326", (0, 0, 360, 181)),
    "web mercator": ((1000, 0, 1e6, 0, -1000, 6e6), "EPSG:3857", (0, 0, 500, 700)),
    "web mercator, wide": ((1e5, 0, -1.5e7, 0, -1e5, 1e7), "EPSG:3857", (0, 0, 300, 200)),
    "web mercator over the edge": ((1e4, 0, 1.9e7, 0, -1e4, 1e6), "EPSG:3857", (0, 0, 400, 100)),
    "Pacific mercator": ((1e4, 0, 2e6, 0, -1e4, 3e6), "EPSG:3832", (0, 0, 300, 300)),
    "equal-area Europe": ((20_000, 0, 4e6, 0, -20_000, 3e6), "EPSG:3035", (0, 0, 50, 40)),
    "north pole inside": ((1e4, 0, -2e6, 0, -1e4, 1e6), "EPSG:3995", (0, 0, 300, 300)),
    "south pole inside": ((1e4, 0, -5e5, 0, -1e4, 2e6), "EPSG:3031", (0, 0, 300, 300)),
    "pole in a corner": ((1e4, 0, 0, 0, -1e4, 1e6), "EPSG:3413", (0, 0, 100, 100)),
    "pole on an edge": ((1e4, 0, -3e5, 0, -1e4, 1e6), "EPSG:3413", (0, 0, 100, 100)),
    "pole off the samples": ((1e4, 0, -4.1e5, 0, -1e4, 0), "EPSG:3031", (0, 0, 101, 77)),
    "pole just inside": ((1e4, 0, -3e5, 0, -1e4, 0.9e4), "EPSG:3413", (0, 0, 100, 100)),
    "pole just outside": ((1e4, 0, -3e5, 0, -1e4, -1e2), "EPSG:3413", (0, 0, 100, 100)),
    "antimeridian, polar": ((1e4, 0, -2.5e6, 0, -1e4, 1e6), "EPSG:3995", (0, 0, 100, 300)),
    "MODIS tile at the edge": ((4633, 0, 1.45e7, 0, -4633, 5.5e6), SINUSOIDAL, (0, 0, 240, 240)),
    "full disk": ((6e4, 0, -5.5e6, 0, -6e4, 5.5e6), GEOSTATIONARY, (0, 0, 184, 184)),
    "UTM at the pole": ((1e4, 0, 4e5, 0, -1e4, 1.01e7), "EPSG:32633", (0, 0, 30, 40)),
}
# Made of whole cells: those at the edge of the globe are left out.
BY_CELLS = {"MODIS tile at the edge", "full disk"}


def in_window(lon, lat, transform, crs, window, margin):
    """True well inside, False well outside, and which of both holds; by PROJ, point by point."""
    a, b, c, d, e, f = transform
    column, row, width, height = window
    back = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    x, y = back.transform(lon, lat)
    turns = [-360.0, 0.0, 360.0] if crs == "EPSG:4326" else [0.0]
    if crs == "EPSG:3857":
        turns = [-40075016.68557849, 0.0, 40075016.68557849]
    inside = np.zeros(len(lon), bool)
    outside = np.ones(len(lon), bool)
    for turn in turns:
        with np.errstate(invalid="ignore"):
            u, v = x + turn - c, y - f
            i = (e * u - b * v) / (a * e - b * d) - column
            j = (a * v - d * u) / (a * e - b * d) - row
            depth = np.minimum(np.minimum(i, width - i), np.minimum(j, height - j))
        depth[~np.isfinite(depth)] = -np.inf
        inside |= depth > margin
        outside &= depth < -margin
    return inside, outside


def surely_on_the_globe(lon, lat, transform, crs, cell):
    """Whether a place's pixel, and those one and a half cells round it, are places at all."""
    forth = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    back = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    x, y = back.transform(lon, lat)
    sure = np.isfinite(x)
    for right in (-1.5, 0, 1.5):
        for down in (-1.5, 0, 1.5):
            u, v = x + right * cell * transform[0], y + down * cell * transform[4]
            again = back.transform(*forth.transform(u, v))
            with np.errstate(invalid="ignore"):
                sure &= np.hypot(again[0] - u, again[1] - v) < transform[0] / 10
    return sure


@pytest.mark.parametrize("name", WINDOWS)
def test_every_place_is_in_both_or_in_neither(name):
    transform, crs, window = WINDOWS[name]
    found = footprint(transform, crs, window)
    polygon = shape(found)
    assert polygon.is_valid
    west, south, east, north = polygon.bounds
    assert west >= -180
    assert east <= 180
    assert max(abs(south), abs(north)) <= 90
    for part in getattr(polygon, "geoms", [polygon]):
        assert part.exterior.is_ccw
        assert not any(ring.is_ccw for ring in part.interiors)
    rng = np.random.default_rng(0)
    lon, lat = [rng.uniform(-180, 180, 3000)], [np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))]
    for part in getattr(polygon, "geoms", [polygon]):  # all over the globe, and round each part
        west, south, east, north = part.bounds
        more = np.array([east - west, north - south]) / 4
        lon.append(rng.uniform(max(west - more[0], -180), min(east + more[0], 180), 4000))
        lat.append(rng.uniform(max(south - more[1], -90), min(north + more[1], 90), 4000))
    lon, lat = np.concatenate(lon), np.concatenate(lat)
    # Between two of 21 points an edge may be off by what an arc rises over its chord.
    inside, outside = in_window(lon, lat, transform, crs, window, max(window[2:]) / 100)
    if name in BY_CELLS:
        inside &= surely_on_the_globe(lon, lat, transform, crs, window[2] / 64)
    covered = shapely.contains_xy(polygon, lon, lat)
    assert inside.sum() > 100
    assert outside.sum() > 100 or name.startswith("the globe")
    assert not (covered & outside).any()
    assert covered[inside].all()


@pytest.mark.parametrize("name", ["UTM", "equal-area Europe", "web mercator", "UTM, rotated"])
def test_vertices_are_the_windows_edge(name):
    transform, crs, (column, row, width, height) = WINDOWS[name]
    ring = np.array(footprint(transform, crs, (column, row, width, height))["coordinates"][0])
    assert (ring[0] == ring[-1]).all()
    back = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    a, b, c, d, e, f = transform
    for lon, lat in ring:
        x, y = back.transform(lon, lat)
        i, j = np.linalg.solve([[a, b], [d, e]], [x - c, y - f]) - (column, row)
        assert min(abs(i), abs(i - width), abs(j), abs(j - height)) < 1e-3
        assert -1e-3 < i < width + 1e-3
        assert -1e-3 < j < height + 1e-3


@pytest.mark.parametrize("pole", ["north pole inside", "south pole inside"])
def test_a_pole_inside_is_covered(pole):
    polygon = shape(footprint(*WINDOWS[pole]))
    latitude = 90 if pole.startswith("north") else -90
    for lon in range(-180, 181, 15):
        assert polygon.covers(shapely.Point(lon, latitude))
    assert polygon.geom_type == "Polygon"


def test_the_globe_is_one_rectangle():
    for name in ("the globe", "the globe from Greenwich", "the globe by pixel centres"):
        polygon = shape(footprint(*WINDOWS[name]))
        assert polygon.equals(shapely.box(-180, -90, 180, 90)), name


def test_antimeridian_touched_is_not_crossed():
    west = footprint((0.1, 0, 175, 0, -0.1, 10), "EPSG:4326", (0, 0, 50, 40))
    east = footprint((0.1, 0, 180, 0, -0.1, 10), "EPSG:4326", (0, 0, 50, 40))
    assert shape(west).bounds == pytest.approx((175, 6, 180, 10))
    assert shape(east).bounds == pytest.approx((-180, 6, -175, 10))
    assert {west["type"], east["type"]} == {"Polygon"}


def test_none_where_there_is_no_place():
    assert footprint((1e7, 0, 1e9, 0, -1e7, 1e9), "EPSG:3035", (0, 0, 10, 10)) is None
    assert footprint((1, 0, 0, 0, -1, 0), "EPSG:999999", (0, 0, 10, 10)) is None
    assert to_wgs84((1e7, 0, 1e9, 0, -1e7, 1e9), "EPSG:3035", np.zeros((1, 2))) is None


def test_bounds_are_those_of_all_corners():
    assert bounds((8, 6, 100, 6, -8, 50), (0, 0, 10, 10)) == (100, -30, 240, 110)
    assert is_flat((1, 2, 0, 2, 4, 0))
    assert not is_flat((1, 0, 0, 0, -1, 0))


def test_without_pyproj(monkeypatch):
    import rsir.geo.footprint as module

    monkeypatch.setattr(module, "_per_thread", type(module._per_thread)())
    monkeypatch.setitem(sys.modules, "pyproj", None)
    with pytest.raises(MissingExtraError, match=r"rsir\[geo\]"):
        footprint((1, 0, 0, 0, -1, 0), "EPSG:4326", (0, 0, 10, 10))
