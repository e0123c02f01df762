"""Where scenes lie that points or RPCs place, and how large their pixels are on the ground."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine
from shapely.geometry import shape

from rsir.errors import ImageError
from rsir.scenes.scene import Scene
from rsir.scenes.tiles import tiles_of
from rsir.scenes.tiling import Tiling

WGS84 = CRS.from_epsg(4326)
SIDE, WEST, NORTH, DEGREES = 200, 9.99, 50.01, 1e-4
HEIGHT = 300.0  # metres; the RPCs' mean, where they are exact


def along(**terms: float) -> list[float]:
    """Coefficients of an RPC00B polynomial: 1, longitude, latitude, height, …"""
    order = {"one": 0, "longitude": 1, "latitude": 2, "height": 3}
    values = [0.0] * 20
    for name, value in terms.items():
        values[order[name]] = value
    return values


def rpcs(**changed: Any) -> RPC:
    """Of SIDE × SIDE pixels of DEGREES; 100 m of height move a pixel by 10 columns."""
    half = SIDE / 2
    values: dict[str, Any] = {
        "height_off": HEIGHT, "height_scale": 100.0,
        "lat_off": NORTH - half * DEGREES, "lat_scale": half * DEGREES,
        "long_off": WEST + half * DEGREES, "long_scale": half * DEGREES,
        "line_off": half - 0.5, "line_scale": half, "samp_off": half - 0.5, "samp_scale": half,
        "line_num_coeff": along(latitude=-1), "line_den_coeff": along(one=1),
        "samp_num_coeff": along(longitude=1, height=0.1), "samp_den_coeff": along(one=1),
    }  # fmt: skip
    return RPC(**values | changed)


def gradient(side: int = SIDE) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.stack([columns, rows, np.full_like(rows, 7)]).astype(np.uint8)


def placing(name: str, value: Any) -> dict[str, Any]:
    """Options of `write` for a scene with "gcps" or "rpcs" in place of a transform."""
    return {"transform": None, "edit": lambda dataset: setattr(dataset, name, value)}


def check_place(path: Path) -> None:
    """The scene lies where it should, and shows each pixel where it lies."""
    east, south = WEST + SIDE * DEGREES, NORTH - SIDE * DEGREES
    with Scene.open(path) as scene:
        assert scene.crs == "EPSG:4326"
        assert scene.transform is not None
        a, _, c, _, e, f = scene.transform
        pixels, valid = scene.read()
        for column, row in ((20, 30), (100, 100), (170, 60)):
            x = int((WEST + (column + 0.5) * DEGREES - c) / a)
            y = int((NORTH - (row + 0.5) * DEGREES - f) / e)
            assert valid[y, x]
            assert pixels[:, y, x] == pytest.approx([column, row, 7], abs=1.5)
    for tiling in (None, Tiling(size=512)):
        (tile,) = tiles_of(path, tiling or Tiling(size=256, min_valid=0))
        found = shape(tile.footprint).bounds
        assert found == pytest.approx((WEST, south, east, NORTH), abs=3 * DEGREES)


def test_rpcs_place_an_image_at_their_mean_height(write: Any) -> None:
    check_place(write(gradient(), **placing("rpcs", rpcs())))


@pytest.mark.parametrize("kind", ["gcps", "rpcs"])
def test_a_vrt_keeps_the_points_and_rpcs_of_its_file(write: Any, tmp_path: Path, kind: str) -> None:
    points = [
        GroundControlPoint(row, column, WEST + column * DEGREES, NORTH - row * DEGREES)
        for row in (0, SIDE / 2, SIDE)
        for column in (0, SIDE / 2, SIDE)
    ]
    value = (points, WGS84) if kind == "gcps" else rpcs()
    path = write(gradient(), "a.tif", **placing(kind, value))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><ColorInterp>{colour}</ColorInterp>'
        '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename>'
        f"<SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>"
        for n, colour in enumerate(("Red", "Green", "Blue"), 1)
    )
    if kind == "gcps":
        listed = "".join(
            f'<GCP Id="" Pixel="{p.col}" Line="{p.row}" X="{p.x}" Y="{p.y}"/>' for p in points
        )
        place = f'<GCPList Projection="EPSG:4326">{listed}</GCPList>'
    else:
        with rasterio.open(path) as dataset:
            tags = dataset.tags(ns="RPC")
        entries = "".join(f'<MDI key="{key}">{value}</MDI>' for key, value in tags.items())
        place = f'<Metadata domain="RPC">{entries}</Metadata>'
    vrt = tmp_path / "a.vrt"
    size = f'rasterXSize="{SIDE}" rasterYSize="{SIDE}"'
    vrt.write_text(f"<VRTDataset {size}>{place}{bands}</VRTDataset>")
    check_place(vrt)


def test_points_and_rpcs_that_fit_no_grid_are_a_clear_error(write: Any) -> None:
    fold = along(one=1, longitude=0.999999)
    thin = [
        GroundControlPoint(row, column, x, y)
        for row, column, x, y in ((0, 0, 0, 0), (0, 9, 1e-9, 0), (9, 0, 0, 80), (9, 9, 1e-9, 80))
    ]
    values: dict[str, tuple[str, Any]] = {
        "folded": ("rpcs", rpcs(samp_den_coeff=fold, samp_num_coeff=along(longitude=1e-5))),
        "thin": ("gcps", (thin, WGS84)),
        "zero": ("rpcs", rpcs(samp_num_coeff=[0.0] * 20)),
        "huge": ("rpcs", rpcs(samp_num_coeff=[1e300] * 20)),
        "nan": ("rpcs", rpcs(samp_num_coeff=[math.nan] * 20)),
    }
    for name, (kind, value) in values.items():
        path = write(gradient(), f"{name}.tif", **placing(kind, value))
        with pytest.raises(ImageError, match="remove its ground control points or RPCs") as refused:
            Scene.open(path)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)


def parallel(latitude: float) -> float:
    """Metres of a degree of longitude on the ellipsoid WGS 84."""
    a, f = 6_378_137.0, 1 / 298.257223563
    e2 = f * (2 - f)
    phi = math.radians(latitude)
    return math.radians(a * math.cos(phi) / math.sqrt(1 - e2 * math.sin(phi) ** 2))


@pytest.mark.parametrize(
    ("width", "height", "west", "north", "degrees"),
    [
        (36, 18, -180, 90, 10),  # the globe
        (12, 6, -180, 90, 30),
        (4, 2, 0, 90, 90),
        (1440, 721, -0.125, 90.125, 0.25),  # pixels around the positions of a climate model
        (36, 3, -180, 85, 10),  # the north: along its parallel of 70°, not over the pole
        (180, 20, 0, -40, 2),
    ],
)
def test_the_gsd_of_a_coarse_grid_is_that_along_its_parallel(
    write: Any, width: int, height: int, west: float, north: float, degrees: float
) -> None:
    pixels = np.zeros((1, height, width), np.uint8)
    place = Affine(degrees, 0, west, 0, -degrees, north)
    with Scene.open(write(pixels, crs="EPSG:4326", transform=place)) as scene:
        assert scene.gsd is not None
        across, down = scene.gsd
    latitude = north - degrees * height / 2
    assert across == pytest.approx(degrees * parallel(latitude), rel=2e-3)
    assert down == pytest.approx(degrees * 111_132, rel=0.01)
