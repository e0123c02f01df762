"""Parquet files as other programs and as attackers write them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio.crs
import shapely
from pyproj import CRS
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box, shape

from rsir.archive.exchange.imports import dimension_of, import_parquet
from rsir.errors import UsageError
from rsir.geo.parse import MOST_PARTS, from_geojson, from_wkb, from_wkt, names_file
from tests.support.archives import DIMENSION, in_memory, vectors
from tests.support.parquet import imported, table

SHAPES = {
    "point": [Point(1, 2), Point(-3, 4)],
    "linestring": [LineString([(0, 0), (1, 1)]), LineString([(5, 5), (6, 7), (8, 8)])],
    "polygon": [
        Polygon([(0, 0), (4, 0), (4, 4), (0, 4)], [[(1, 1), (1, 2), (2, 2), (2, 1)]]),
        box(7, 8, 9, 10),
    ],
    "multipoint": [shapely.MultiPoint([(1, 2), (3, 4)]), shapely.MultiPoint([(5, 6)])],
    "multipolygon": [
        MultiPolygon([box(0, 0, 1, 1), box(2, 2, 3, 3)]), MultiPolygon([box(5, 5, 6, 6)]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", SHAPES)
def test_geoarrow_geometries_are_read(tmp_path: Path, kind: str) -> None:
    shapes = [SHAPES[kind][0], None, SHAPES[kind][1]]
    data = {"id": ["a", "b", "c"], "embedding": list(vectors("cosine", 3))}
    frame = geopandas.GeoDataFrame(pd.DataFrame(data), geometry=shapes, crs="EPSG:4326")
    path = tmp_path / "a.parquet"
    frame.to_parquet(path, geometry_encoding="geoarrow")
    archive = in_memory("cosine", [])
    report = import_parquet(archive, path)
    assert (report.added, report.incomplete.count) == (3, 0)
    found = {record.id: record.footprint for record in archive.records()}
    assert found["b"] is None
    for id, wanted in zip("ac", SHAPES[kind], strict=True):
        assert shape(found[id]).normalize() == wanted.normalize()


def test_one_damaged_geometry_leaves_the_others_readable(tmp_path: Path) -> None:
    rings = [[[(7.0, 50.0), (8.0, 50.0), (8.0, 51.0), (7.0, 50.0)]] for _ in range(9)]
    rings[5], rings[7] = [[(7.0, 50.0)]], [[(7.0, 50.0), (7.0, 50.0)]]  # no rings
    points = [[[{"x": x, "y": y} for x, y in ring] for ring in rows] for rows in rings]
    coordinates = pa.struct([("x", pa.float64()), ("y", pa.float64())])
    geometry = pa.array(points, pa.list_(pa.list_(coordinates)))
    columns = {"geometry": {"encoding": "polygon", "geometry_types": []}}
    metadata = {b"geo": json.dumps({"primary_column": "geometry", "columns": columns}).encode()}
    ids = [str(number) for number in range(9)]
    rows = pa.table({"id": ids, "embedding": list(vectors("cosine", 9)), "geometry": geometry})
    path = tmp_path / "a.parquet"
    pq.write_table(rows.replace_schema_metadata(metadata), path)
    archive = in_memory("cosine", [])
    report = import_parquet(archive, path)
    assert (report.added, report.incomplete.count) == (9, 2)
    placed = {record.id for record in archive.records() if record.footprint is not None}
    assert placed == set(ids) - {"5", "7"}


@pytest.mark.parametrize(
    "crs",
    [
        "+proj=longlat +nadgrids=/dev/zero +type=crs",
        "+proj=longlat +datum=WGS84 +geoidgrids=/etc/hostname",
        "+init=/etc/hostname:1",
        {"type": "BoundCRS", "transformation": {"parameters": [{"name": "A file", "value": "x"}]}},
    ],
)  # fmt: skip
def test_a_crs_that_names_a_file_is_refused(tmp_path: Path, crs: Any) -> None:
    data = {"id": ["a"], "embedding": list(vectors("cosine", 1))}
    frame = geopandas.GeoDataFrame(pd.DataFrame(data), geometry=[box(0, 0, 1, 1)], crs="EPSG:4326")
    path = tmp_path / "a.parquet"
    frame.to_parquet(path)
    rows = pq.read_table(path)
    about = json.loads(rows.schema.metadata[b"geo"])
    about["columns"]["geometry"]["crs"] = crs
    pq.write_table(rows.replace_schema_metadata({b"geo": json.dumps(about).encode()}), path)
    with pytest.raises(UsageError, match="its CRS names a file"):
        import_parquet(in_memory("cosine", []), path)


@pytest.mark.parametrize("code", [4326, 32632, 3857, 27700, 2193, 3031, 5070, 7415])
def test_a_usual_crs_names_no_file(code: int) -> None:
    system, gdals = CRS.from_epsg(code), rasterio.crs.CRS.from_epsg(code)
    # GDAL's WKT of EPSG:3857 has "+nadgrids=@null".
    assert not any(map(names_file, (system.to_wkt(), system.to_json(), gdals.to_wkt())))


def test_geoarrow_without_metadata_of_geoparquet_is_known_by_its_extension(tmp_path: Path) -> None:
    data = {"id": ["a"], "embedding": list(vectors("cosine", 1))}
    frame = geopandas.GeoDataFrame(pd.DataFrame(data), geometry=[box(0, 0, 1, 1)], crs="EPSG:4326")
    rows = pa.table(frame.to_arrow(geometry_encoding="geoarrow"))
    path = tmp_path / "a.parquet"
    pq.write_table(rows.replace_schema_metadata(None), path)
    archive = in_memory("cosine", [])
    assert import_parquet(archive, path).incomplete.count == 0
    (record,) = archive.records()
    assert shape(record.footprint).normalize() == box(0, 0, 1, 1).normalize()


def test_tensors_of_a_fixed_shape_are_vectors(tmp_path: Path) -> None:
    rows = vectors("cosine", 3).astype(np.float32)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(rows))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "c"], "embedding": tensors}), path)
    assert dimension_of(path) == DIMENSION
    archive = in_memory("cosine", [])
    assert import_parquet(archive, path).added == 3
    assert (archive.vectors(["a", "b", "c"]) == rows).all()


def test_a_source_url_is_a_source(tmp_path: Path) -> None:
    rows = table(2).append_column("source_url", pa.array(["s3://a/1.tif", "s3://a/2.tif"]))
    records, _ = imported(
        tmp_path, rows.drop_columns(["source"]) if "source" in rows.column_names else rows
    )
    assert {record.source for record in records.values()} == {"s3://a/1.tif", "s3://a/2.tif"}


def test_partitions_with_equal_names_lose_no_row(tmp_path: Path) -> None:
    """Made-up ids carry the whole path, in one call and in several."""
    for year in (2020, 2021):
        (tmp_path / "in" / f"year={year}").mkdir(parents=True)
        rows = pa.table({"embedding": list(vectors("cosine", 4, year))})
        pq.write_table(rows, tmp_path / "in" / f"year={year}" / "data_0.parquet")
    at_once, in_turns = in_memory("cosine", []), in_memory("cosine", [])
    report = import_parquet(at_once, tmp_path / "in")
    assert (report.added, report.replaced, report.skipped.count) == (8, 0, 0)
    for year in (2020, 2021):
        report = import_parquet(in_turns, tmp_path / "in" / f"year={year}")
        assert (report.added, report.replaced) == (4, 0)
    assert {r.id for r in at_once.records()} == {r.id for r in in_turns.records()}
    again = import_parquet(in_turns, tmp_path / "in")
    assert (again.added, again.replaced) == (0, 8)


def nested_wkb(levels: int, kind: int = 7, order: str = "<") -> bytes:
    mark = b"\x01" if order == "<" else b"\x00"
    head = mark + struct.pack(f"{order}II", kind, 1)
    return head * levels + mark + struct.pack(f"{order}Idd", 1, 1.0, 2.0)


@pytest.mark.parametrize("levels", [3, MOST_PARTS, MOST_PARTS + 1, 20_000])
def test_nested_geometries_never_end_the_process(levels: int) -> None:
    fits = levels <= MOST_PARTS
    good = Point(1, 2)
    for kind in (7, 1007, 2007, 3007, 7 | 0x20000000):
        for order in "<>":
            (found, plain) = from_wkb([nested_wkb(levels, kind, order), good.wkb])
            assert plain == good
            assert fits or found is None
    assert (from_wkb([nested_wkb(levels)])[0] is not None) == fits
    text = "GEOMETRYCOLLECTION(" * levels + "POINT(1 2)" + ")" * levels
    assert (from_wkt([text])[0] is not None) == fits
    inner = '{"type":"GeometryCollection","geometries":['
    text = inner * (levels - 1) + '{"type":"Point","coordinates":[1,2]}' + "]}" * (levels - 1)
    assert (from_geojson([text])[0] is not None) == fits


def test_deep_geometries_of_rows_are_counted_and_the_rest_is_imported(tmp_path: Path) -> None:
    rows = table(3).append_column(
        "geometry", pa.array([nested_wkb(5000), b"\x01", box(0, 0, 1, 1).wkb])
    )
    records, report = imported(tmp_path, rows)
    assert len(records) == 3
    assert report.incomplete.count == 2
    assert [r.footprint is None for _, r in sorted(records.items())] == [True, True, False]


@pytest.mark.parametrize(
    "geo", ["[" * 90_000, '{"columns": 3}', '{"columns": {"geometry": 3}}', "1" * 5000, "{}", "\0"]
)
def test_damaged_metadata_of_geometries_is_as_none(tmp_path: Path, geo: str) -> None:
    rows = table(1).append_column("geometry", pa.array([box(0, 0, 1, 1).wkb]))
    path = tmp_path / "theirs.parquet"
    pq.write_table(rows.replace_schema_metadata({"geo": geo}), path)
    archive = in_memory("cosine", [])
    assert import_parquet(archive, path).added == 1
    assert json.loads(json.dumps(next(archive.records()).footprint))["type"] == "Polygon"
