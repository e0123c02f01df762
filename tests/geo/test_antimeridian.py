"""Cutting at the antimeridian, against two slow oracles.

Continuous longitudes: the shape is shifted by whole turns and clipped, turn by turn. Jumping ones:
random places are taken to the map by PROJ, one by one, and looked up in the shape there.
"""

from __future__ import annotations

import math

import antimeridian
import numpy as np
import pyproj
import pytest
import shapely
from shapely import LineString, MultiPolygon, Point, Polygon, affinity, box

from rsir.geo.antimeridian import bbox, split


def turn_by_turn(shape):
    west, _, east, _ = shape.bounds
    parts = []
    for turn in range(math.floor((west + 180) / 360), math.floor((east + 180) / 360) + 1):
        world = box(360 * turn - 180, -90, 360 * turn + 180, 90)
        parts.append(affinity.translate(shape.intersection(world), -360 * turn))
    return shapely.union_all(parts)


def shapes(kind):
    rng = np.random.default_rng(0)
    for _ in range(100):
        x, y = rng.uniform(-400, 400), rng.uniform(-60, 60)
        if kind == "polygons":
            angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 12)))
            far = rng.uniform(1, 25, len(angle))
            yield Polygon(np.column_stack([x + 2 * far * np.cos(angle), y + far * np.sin(angle)]))
        elif kind == "from exactly 180 degrees":
            edge, width = rng.choice([-540, -180, 180, 540]), rng.uniform(1, 170)
            west = rng.choice([edge, edge - width])
            yield box(west, y, west + width, y + 10)
        elif kind == "with holes":
            yield box(x - 20, y - 20, x + 20, y + 20) - box(x - rng.uniform(1, 19), y - 5, x + 5, y)
        elif kind == "coarse global grids":
            yield box(x, -90, x + 360, 90)
        elif kind == "wider than half the globe":
            width = rng.uniform(180, 360)
            yield Polygon([(x, y), (x + width, y + 20), (x + width, y + 29), (x, y + 5)])
        elif kind == "more than once round":
            width = rng.uniform(360, 900)
            yield Polygon([(x, y), (x + width, y + 20), (x + width, y + 29), (x, y + 5)])
        elif kind == "beyond the poles":
            yield box(x, -91, x + rng.uniform(10, 361), 95)
        else:  # crossing itself
            yield Polygon([(x, y), (x + 60, y + 20), (x + 60, y), (x, y + 20)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["polygons", "from exactly 180 degrees", "with holes", "coarse global grids",
     "wider than half the globe", "more than once round", "beyond the poles", "crossing itself"],
)  # fmt: skip
def test_continuous_longitudes(kind):
    crossed = 0
    for shape in shapes(kind):
        found, wanted = split(shape), turn_by_turn(shapely.make_valid(shape))
        crossed += len(shapely.get_parts(found)) > 1
        assert found.is_valid
        assert box(-180, -90, 180, 90).covers(found)
        # The library rounds latitudes on the antimeridian to 7 decimals.
        assert found.symmetric_difference(wanted).area < 1e-5
        assert all(part.exterior.is_ccw for part in shapely.get_parts(found))
    touching = ("from exactly 180 degrees", "coarse global grids")
    assert (crossed > 5) == (kind not in touching)


def test_the_library_alone_loses_holes_and_folds():
    """Why exteriors and holes are cut one by one, at most once round the globe."""
    holed = box(190, 0, 230, 40) - box(200, 10, 210, 20)
    assert not antimeridian.fix_polygon(holed, fix_winding=True).is_valid
    assert split(holed).equals(box(-170, 0, -130, 40) - box(-160, 10, -150, 20))
    vast = shapely.segmentize(box(-200, 0, 200, 10), 90)
    assert not antimeridian.fix_polygon(vast, fix_winding=True, great_circle=False).is_valid
    assert split(vast).equals(box(-180, 0, 180, 10))


def test_a_ring_that_is_hardly_wider_than_the_globe():
    """Rounding makes such rings; neither a sliver nor a seam may remain."""
    west = -172.36068048421157
    east = np.nextafter(west + 360, 360)
    found = split(Polygon([(west, -90), (east, -90), (east, -88), (0, -89), (west, -88)]))
    assert found.geom_type == "Polygon"
    assert found.bounds == (-180, -90, 180, pytest.approx(-88))


def test_points_and_lines():
    assert split(Point(190, 5)).equals(Point(-170, 5))
    line = split(LineString([(170, 0), (190, 20)]))
    assert line.equals(shapely.MultiLineString([[(170, 0), (180, 10)], [(-180, 10), (-170, 20)]]))
    assert split(LineString([(530, 0), (540, 20)])).equals(LineString([(170, 0), (180, 20)]))
    assert split(box(178, -17, 179, -16)).equals(box(178, -17, 179, -16))


NORTH, SOUTH, FIJI = "EPSG:3995", "EPSG:3031", "EPSG:3460"
SQUARE = shapely.segmentize(box(-2e6, -1e6, 1e6, 2e6), 5e4)
ON_MAPS = {
    "north pole inside": (NORTH, SQUARE),
    "south pole inside": (SOUTH, SQUARE),
    "clockwise": (NORTH, SQUARE.reverse()),
    "clockwise, south": (SOUTH, SQUARE.reverse()),
    "around the north pole": (NORTH, SQUARE - Point(0, 0).buffer(5e5)),
    "around the south pole": (SOUTH, SQUARE - Point(0, 0).buffer(5e5)),
    "hole beside the pole": (NORTH, SQUARE - shapely.segmentize(box(1e5, -2e5, 5e5, 9e5), 1e4)),
    "hole over the antimeridian": (
        NORTH, SQUARE - shapely.segmentize(box(-2e5, 1e5, 2e5, 9e5), 1e4),
    ),
    "beside the north pole": (NORTH, shapely.segmentize(box(-2e5, 2e4, 9e5, 9e5), 1e4)),
    "beside the south pole": (SOUTH, shapely.segmentize(box(-2e5, -9e5, 9e5, -2e4), 1e4)),
    "around the pole and far from it": (
        SOUTH, MultiPolygon([SQUARE, shapely.segmentize(box(-3e5, -4e6, 4e5, -3e6), 5e4)]),
    ),
    "over the antimeridian": (FIJI, shapely.segmentize(box(1.9e6, 3.8e6, 2.3e6, 4.2e6), 1e4)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_MAPS)
def test_jumping_longitudes(name):
    crs, shape = ON_MAPS[name]
    forth = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    back = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    degrees = shapely.transform(
        shapely.orient_polygons(shape), lambda xy: np.column_stack(forth.transform(*xy.T))
    )
    found = split(degrees, unwrapped=False)
    assert found.is_valid
    assert box(-180, -90, 180, 90).covers(found)
    rng = np.random.default_rng(0)
    if crs == FIJI:
        lon, lat = rng.uniform(176, 184, 4000), rng.uniform(-20, -14, 4000)
        lon = (lon + 180) % 360 - 180
    else:
        lat = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(50)), 1, 4000)))
        lon, lat = rng.uniform(-180, 180, 4000), lat if crs == NORTH else -lat
    places = shapely.points(*back.transform(lon, lat))
    near = shapely.distance(shape.boundary, places) < 2e4  # edges are straight in degrees
    wanted = shapely.covers(shape, places)
    assert 20 < wanted[~near].sum() < (~near).sum()
    assert (shapely.covers(found, shapely.points(lon, lat)) == wanted)[~near].all()


def test_the_box_of_parts():
    def of(*parts):
        return bbox(np.array(parts, np.float64))

    assert of((10, 0, 20, 5)) == (10, 0, 20, 5)
    assert of((10, 0, 20, 5), (-30, 2, 0, 9)) == (-30, 0, 20, 9)
    assert of((-180, 0, -170, 5), (175, 1, 180, 6)) == (175, 0, -170, 6)
    # An island between them; the library's box of three parts leaves out one of them.
    three = [(-180, 0, -170, 5), (175, 1, 180, 6), (100, 0, 110, 5)]
    assert of(*three) == (100, 0, -170, 6)
    assert antimeridian.bbox(MultiPolygon([box(*part) for part in three]))[0] == 175
    assert of((-180, -90, 180, 90)) == (-180, -90, 180, 90)
    assert of((-180, -90, 0, 90), (0, -90, 180, 90)) == (-180, -90, 180, 90)
    # Boxes that cross it themselves.
    assert of((170, 0, -175, 5), (-175, 1, -170, 6)) == (170, 0, -170, 6)
    assert of((170, 0, -175, 5), (160, 1, 165, 6), (-20, 0, 0, 1)) == (160, 0, 0, 6)
    assert of((10, 0, -10, 5), (-20, 1, 20, 6)) == (-180, 0, 180, 6)
