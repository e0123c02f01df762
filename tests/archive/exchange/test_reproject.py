"""Geometries of imported Parquet files become footprints in WGS 84."""

import json
from pathlib import Path

import geopandas
import pandas as pd
import pytest
from shapely.geometry import Polygon, box, shape

from rsir.archive.exchange.imports import import_parquet
from rsir.archive.exchange.reproject import UNREADABLE
from rsir.errors import UsageError
from tests.support.archives import HOLED, SQUARE, in_memory, vectors
from tests.support.parquet import imported, table


def written(path: Path, shapes, crs) -> Path:
    data = {"id": [f"t{n}" for n in range(len(shapes))]}
    data["embedding"] = list(vectors("cosine", len(shapes)))
    geopandas.GeoDataFrame(pd.DataFrame(data), geometry=shapes, crs=crs).to_parquet(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3857", "EPSG:3035", "EPSG:4326", "EPSG:4979"])
def test_geometries_are_transformed_to_wgs84(tmp_path, crs):
    degrees = geopandas.GeoSeries([shape(SQUARE), shape(HOLED)], crs="EPSG:4326")
    path = written(tmp_path / "a.parquet", degrees.to_crs(crs), crs)
    archive = in_memory("cosine", [])
    import_parquet(archive, path)
    for record, there in zip(archive.records(), degrees, strict=True):
        assert shape(record.footprint).equals_exact(there, 1e-7)


def test_geometries_are_cut_at_the_antimeridian(tmp_path):
    # A box of 130 km across the antimeridian near Fiji: in degrees beyond 180°, and in Fiji's grid.
    west, south, east, north = 179.5, -17.0, 180.75, -16.0
    long = box(west, south, east, north)
    fiji = geopandas.GeoSeries([long, box(178, -17, 179, -16)], crs="EPSG:4326").to_crs("EPSG:3460")
    for shapes, crs in (([long, box(178, -17, 179, -16)], "EPSG:4326"), (list(fiji), "EPSG:3460")):
        archive = in_memory("cosine", [])
        import_parquet(archive, written(tmp_path / "a.parquet", shapes, crs))
        across, beside = (shape(record.footprint) for record in archive.records())
        parts = sorted(across.geoms, key=lambda part: part.bounds)
        assert parts[0].bounds == pytest.approx((-180, south, east - 360, north), abs=1e-6)
        assert parts[1].bounds == pytest.approx((west, south, 180, north), abs=1e-6)
        assert beside.bounds == pytest.approx((178, -17, 179, -16), abs=1e-6)
        assert all(part.exterior.is_ccw for part in parts)


def test_a_wide_geometry_does_not_cross_the_antimeridian(tmp_path):
    world = box(-179, -60, 179, 60)
    archive = in_memory("cosine", [])
    mercator = geopandas.GeoSeries([world], crs="EPSG:4326").to_crs("EPSG:3857")
    import_parquet(archive, written(tmp_path / "a.parquet", list(mercator), "EPSG:3857"))
    import_parquet(archive, written(tmp_path / "b.parquet", [world], "EPSG:4326"))
    (record,) = archive.records()
    assert shape(record.footprint).bounds == pytest.approx((-179, -60, 179, 60))


@pytest.mark.parametrize("crs", ["EPSG:3995", "EPSG:3031"])
def test_a_pole_in_a_geometry_is_in_its_footprint(tmp_path, crs):
    pole = Polygon([(-1e5, -1e5), (-1e5, 1e5), (1e5, 1e5), (1e5, -1e5)])
    archive = in_memory("cosine", [])
    report = import_parquet(archive, written(tmp_path / "a.parquet", [pole], crs))
    assert report.incomplete.reasons == {}
    (record,) = archive.records()
    west, south, east, north = shape(record.footprint).bounds
    assert (west, east) == (-180, 180)
    assert (south, -north)[crs == "EPSG:3995"] == (-90)
    assert 88 < min(abs(south), abs(north)) < 90


def test_rows_without_a_valid_geometry_have_no_footprint(tmp_path):
    far = box(1e12, 1e12, 2e12, 2e12)
    archive = in_memory("cosine", [])
    report = import_parquet(archive, written(tmp_path / "a.parquet", [far, None], "EPSG:32632"))
    assert [record.footprint for record in archive.records()] == [None, None]
    assert dict(report.incomplete.reasons) == {"its geometry cannot be expressed in WGS 84": 1}
    wkb = [shape(SQUARE).wkb, b"12"]
    records, report = imported(tmp_path, table(2, geometry=wkb))
    assert records["t0"].footprint == SQUARE
    assert records["t1"].footprint is None
    assert dict(report.incomplete.reasons) == {UNREADABLE: 1}
    records, report = imported(tmp_path, table(2, geometry=[shape(SQUARE).wkt, "POLYGON(("]))
    assert records["t0"].footprint == SQUARE
    assert report.incomplete.count == 1


def test_the_crs_comes_from_the_file_or_the_argument(tmp_path):
    metres = geopandas.GeoSeries([shape(SQUARE)], crs="EPSG:4326").to_crs("EPSG:32632")
    plain = table(1, geometry=[metres[0].wkb])
    records, _ = imported(tmp_path, plain, crs="EPSG:32632")
    assert shape(records["t0"].footprint).equals_exact(shape(SQUARE), 1e-7)
    records, report = imported(tmp_path, plain)
    assert records["t0"].footprint is None
    assert report.incomplete.count == 1
    archive = in_memory("cosine", [])
    unknown = written(tmp_path / "a.parquet", list(metres), None)
    with pytest.raises(UsageError, match="does not say in which CRS"):
        import_parquet(archive, unknown)
    import_parquet(archive, unknown, crs="EPSG:32632")
    (record,) = archive.records()
    assert shape(record.footprint).equals_exact(shape(SQUARE), 1e-7)
    with pytest.raises(UsageError, match="PROJ does not know the CRS 'EPSG:0'"):
        imported(tmp_path, plain, crs="EPSG:0")
    geometry = {"encoding": "topology", "geometry_types": ["Polygon"]}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    with pytest.raises(UsageError, match="its geometries are topology; write them as WKB"):
        imported(tmp_path, plain.replace_schema_metadata({"geo": json.dumps(geo)}))


def test_bounding_boxes_of_geometries_are_no_property(tmp_path):
    frame = geopandas.GeoDataFrame(
        pd.DataFrame({"id": ["a"], "embedding": list(vectors("cosine", 1)), "x": [1]}),
        geometry=[shape(SQUARE)],
        crs="EPSG:4326",
    )
    frame.to_parquet(tmp_path / "a.parquet", write_covering_bbox=True, schema_version="1.1.0")
    archive = in_memory("cosine", [])
    import_parquet(archive, tmp_path / "a.parquet")
    (record,) = archive.records()
    assert record.properties == {"x": 1}
    assert record.footprint == SQUARE
