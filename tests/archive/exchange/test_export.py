"""Exported files hold the records of the archive, and other programs read them."""

import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
import shapely
from hypothesis import given, settings
from shapely.geometry import shape

from rsir.archive.exchange import batches
from rsir.archive.exchange.export import CSV_COLUMNS, FORMATS, SUFFIXES, export
from rsir.errors import ArchiveError, DataError, MissingExtraError, UsageError
from tests.support.archives import (
    ACROSS,
    ADAPTIVE,
    DIMENSION,
    HIGH,
    METRICS,
    SQUARE,
    chip,
    in_memory,
    many,
    on_disk,
    vectors,
)

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
NAMES = {format: f"out{suffix}" for suffix, format in reversed(SUFFIXES.items())}


@pytest.fixture
def placed():
    """Four records: with everything, only a date, only a footprint, nothing."""
    return [
        chip(0, footprint=SQUARE, datetime=NOON, properties={"class": "río", "gsd": 10.5}),
        chip(1, datetime=NOON, properties={"bands": ["red"], "eo:cloud_cover": 3}),
        chip(2, footprint=ACROSS),
        chip(3),
    ]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Text formats


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(held=many)
def test_geojson_holds_every_record(tmp_path_factory, held):
    folder = tmp_path_factory.mktemp("out")
    archive = in_memory("cosine", held)
    report = export(archive, folder / "a.geojson")
    export(archive, folder / "a.geojsonl")
    collection = json.loads((folder / "a.geojson").read_text("utf-8"))
    lines = (folder / "a.geojsonl").read_text("utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == collection["features"]
    assert collection["type"] == "FeatureCollection"
    assert report.written == len(held)
    for record, feature in zip(archive.records(), collection["features"], strict=True):
        assert feature["type"] == "Feature"
        assert (feature["id"], feature["geometry"]) == (record.id, record.footprint)
        properties = feature["properties"]
        assert (properties.pop("source"), properties.pop("content")) == (
            record.source,
            record.content,
        )
        time = properties.pop("datetime")
        assert (time and datetime.fromisoformat(time)) == record.datetime
        own = ("source", "content", "datetime")
        renamed = {f"properties.{n}" if n in own else n: v for n, v in record.properties.items()}
        assert properties == renamed


def test_a_property_never_hides_a_field(tmp_path):
    given = {"source": "mine", "properties.source": "too", "datetime": None, "x": 1}
    export(in_memory("cosine", [chip(5, properties=given)]), tmp_path / "a.geojson")
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["properties"] == {
        "source": "/images/5.tif",
        "content": "5",
        "datetime": None,
        "properties.source": "mine",
        "properties.properties.source": "too",
        "properties.datetime": None,
        "x": 1,
    }


@settings(max_examples=20, deadline=None)
@given(held=many)
def test_csv_holds_every_record(tmp_path_factory, held):
    path = tmp_path_factory.mktemp("out") / "a.csv"
    archive = in_memory("hamming", held)
    export(archive, path)
    assert path.read_bytes().startswith(",".join(CSV_COLUMNS).encode() + b"\r\n")
    for record, row in zip(archive.records(), read_csv(path), strict=True):
        assert tuple(row) == CSV_COLUMNS
        for name in ("id", "source", "content"):
            assert row[name] == getattr(record, name)
        assert (int(row["size"]), int(row["mtime_ns"])) == (record.size, record.mtime_ns)
        time = row["datetime"]
        assert (datetime.fromisoformat(time) if time else None) == record.datetime
        assert json.loads(row["properties"]) == record.properties
        if record.footprint is None:
            assert (row["footprint"], row["longitude"], row["latitude"]) == ("", "", "")
            continue
        there = shape(record.footprint)
        assert shapely.from_wkt(row["footprint"]).equals_exact(there, 1e-15)
        assert there.covers(shapely.Point(float(row["longitude"]), float(row["latitude"])))


def test_stac_items_are_valid(tmp_path, placed):
    period = {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-02-01T00:00:00Z"}
    placed.append(chip(4, properties={**period, "platform": "sentinel-2a", "gsd": [10, 10]}))
    placed.append(chip(5, datetime=NOON, properties={"end_datetime": "2024-02-01T00:00:00Z"}))
    placed.append(chip(6, datetime=NOON, footprint=HIGH, properties={"platform": 7, "title": ""}))
    path = tmp_path / "items.json"
    report = export(in_memory("cosine", placed), path)
    assert (report.format, report.written, report.without_footprint) == ("stac", 5, 3)
    assert dict(report.skipped.reasons) == {"a STAC item needs a date": 2}
    assert [named.id for named in report.skipped.first] == [chip(2).id, chip(3).id]
    items = {int(item.id[5:]): item for item in pystac.ItemCollection.from_file(str(path)).items}
    validator = pystac.validation.JsonSchemaSTACValidator()
    for item in items.values():
        validator.validate_core(
            item.to_dict(include_self_link=False), pystac.STACObjectType.ITEM, "1.1.0"
        )
        assert item.assets["image"].href == f"/images/{int(item.id[5:])}.tif"
    assert items[0].geometry == SQUARE
    assert items[0].bbox == [7, 50, 8, 51.5]
    assert items[0].datetime == NOON
    assert items[0].properties["rsir:class"] == "río"
    assert items[0].properties["gsd"] == 10.5
    assert items[1].geometry is None
    assert items[1].bbox is None
    assert items[1].properties["rsir:bands"] == ["red"]
    assert items[1].properties["eo:cloud_cover"] == 3
    assert items[4].datetime is None
    assert items[4].properties["platform"] == "sentinel-2a"
    assert items[4].properties["rsir:gsd"] == [10, 10]
    assert items[5].properties["rsir:end_datetime"] == "2024-02-01T00:00:00Z"
    assert items[6].properties["rsir:platform"] == 7


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([(179, 180), (-180, -178)], [179, -178]),
        ([(-180, -178), (150, 160), (170, 180)], [150, -178]),
        ([(-180, 0), (0, 180)], [-180, 180]),
        ([(-180, 180)], [-180, 180]),
        ([(10, 20), (30, 40)], [10, 40]),
        ([(-180, 20), (-60, -50), (40, 180)], [40, 20]),
    ],
)
def test_the_box_leaves_out_the_widest_gap(tmp_path, parts, wanted):
    rings = [[[[w, 1], [e, 1], [e, 2], [w, 2], [w, 1]]] for w, e in parts]
    footprint = {"type": "MultiPolygon", "coordinates": rings}
    export(in_memory("cosine", [chip(1, datetime=NOON, footprint=footprint)]), tmp_path / "a.json")
    (item,) = json.loads((tmp_path / "a.json").read_text())["features"]
    assert item["bbox"] == [wanted[0], 1, wanted[1], 2]


# GeoParquet


@pytest.mark.parametrize("metric", METRICS)
def test_geopandas_reads_geoparquet(tmp_path, placed, metric):
    path = tmp_path / "a.parquet"
    report = export(on_disk(tmp_path / "archive", metric, placed), path)
    assert (report.format, report.written, report.without_footprint) == ("geoparquet", 4, 2)
    frame = geopandas.read_parquet(path)
    assert frame.crs.equals("EPSG:4326", ignore_axis_order=True)
    assert list(frame["id"]) == [record.id for record in placed]
    for record, geometry in zip(placed, frame.geometry, strict=True):
        assert geometry == (None if record.footprint is None else shape(record.footprint))
    assert frame["datetime"][0] == NOON
    assert [json.loads(text) for text in frame["properties"]] == [r.properties for r in placed]
    boxes = pq.read_table(path)["bbox"].to_pylist()
    assert boxes[:2] == [{"xmin": 7, "ymin": 50, "xmax": 8, "ymax": 51.5}, None]
    wanted = vectors(metric, 4)
    if metric in ("hamming", ADAPTIVE):
        codes = np.stack([np.frombuffer(code, np.uint8) for code in frame["code"]])
        np.testing.assert_array_equal(codes, wanted[:, :2])
    else:
        np.testing.assert_array_equal(np.stack(frame["embedding"]), wanted)
    if metric == ADAPTIVE:
        chances = np.ascontiguousarray(wanted[:, 2:]).view("<f4")
        np.testing.assert_array_equal(np.stack(frame["probabilities"]), chances)


def test_the_metadata_of_geoparquet(tmp_path, placed):
    placed.append(chip(4, footprint=HIGH))
    archive = in_memory("cosine", placed)
    export(archive, tmp_path / "a.parquet")
    metadata = pq.read_metadata(tmp_path / "a.parquet").metadata
    assert json.loads(metadata[b"rsir"]) == {
        "format": "rsir-export/1",
        "metric": "cosine",
        "dimension": DIMENSION,
        "fingerprint": archive.fingerprint,
        "bands": ["red"],
    }
    geo = json.loads(metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Point Z", "Polygon"]
    assert column["bbox"] == [-180, -17, 180, 51.5]
    inside = geopandas.read_parquet(tmp_path / "a.parquet", bbox=(7.5, 50.5, 7.6, 50.6))
    assert list(inside["id"]) == [placed[0].id]


# Any format


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_archive_and_one_record(tmp_path, format):
    dated = chip(1, datetime=NOON, footprint=SQUARE)
    for count, held in enumerate(([], [dated])):
        path = tmp_path / f"{count}{NAMES[format]}"
        assert export(in_memory("cosine", held), path).written == count
        if format == "csv":
            assert len(read_csv(path)) == count
        elif format == "geoparquet":
            assert len(geopandas.read_parquet(path)) == count
        elif format == "geojsonl":
            assert len(path.read_text().splitlines()) == count
        else:
            assert len(json.loads(path.read_text())["features"]) == count


@pytest.mark.parametrize("format", FORMATS)
def test_given_records_are_exported_in_their_order(tmp_path, format):
    dated = [chip(n, datetime=NOON) for n in range(9)]
    archive = in_memory("cosine", dated)
    path = tmp_path / "out"
    chosen = [dated[6], dated[2], dated[7]]
    report = export(archive, path, iter(chosen), format=format)
    assert report.written == 3
    if format == "geoparquet":
        ids = pq.read_table(path)["id"].to_pylist()
        rows = np.stack(pq.read_table(path)["embedding"].to_pandas())
        np.testing.assert_array_equal(rows, vectors("cosine", 9)[[6, 2, 7]])
    else:
        text = path.read_text()
        ids = sorted((r.id for r in dated if r.id in text), key=text.index)
    assert ids == [record.id for record in chosen]


@pytest.mark.parametrize("format", FORMATS)
def test_only_one_batch_is_in_memory(tmp_path, format, monkeypatch):
    monkeypatch.setattr(batches, "MAX_RECORDS", 3)
    dated = [chip(n, datetime=NOON, footprint=SQUARE) for n in range(8)]
    taken, seen = [], []

    def stream():
        for record in dated:
            taken.append(record)
            yield record

    def tick(done):
        seen.append((done, len(taken)))

    export(in_memory("cosine", dated), tmp_path / "x", stream(), format=format, on_progress=tick)
    assert seen == [(3, 3), (6, 6), (8, 8)]
    whole = tmp_path / "whole"
    monkeypatch.undo()
    export(in_memory("cosine", dated), whole, format=format)
    if format == "geoparquet":
        assert pq.read_table(whole) == pq.read_table(tmp_path / "x")
        assert pq.ParquetFile(tmp_path / "x").num_row_groups == 3
    else:
        assert whole.read_bytes() == (tmp_path / "x").read_bytes()


def test_wide_vectors_make_smaller_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "MAX_BYTES", 4 * DIMENSION * 2 + 1)
    held = [chip(n) for n in range(5)]
    export(in_memory("cosine", held), tmp_path / "a.parquet")
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3


@pytest.mark.parametrize("format", ["geoparquet", "csv", "stac"])
def test_an_invalid_footprint_is_counted_not_fatal(tmp_path, format, monkeypatch):
    held = [chip(n, datetime=NOON, footprint=SQUARE) for n in range(3)]
    archive = in_memory("cosine", held)
    # Stores refuse it now; a store of an older version may hold it.
    held[1] = chip(1, datetime=NOON, footprint={"type": "Blob", "coordinates": [1]})
    rows = list(zip(held, vectors("cosine", 3), strict=True))
    monkeypatch.setattr(archive.store, "get", lambda ids: rows)
    report = export(archive, tmp_path / "x", held, format=format)
    assert report.written == 2
    assert dict(report.skipped.reasons) == {"its footprint is not a GeoJSON geometry": 1}
    assert report.skipped.first[0].id == held[1].id
    assert json.loads(json.dumps(report.to_dict()))["skipped"]["count"] == 1


@pytest.mark.parametrize("format", FORMATS)
def test_an_existing_file_stays_without_overwrite(tmp_path, format):
    path = tmp_path / NAMES[format]
    path.write_text("mine")
    archive = in_memory("cosine", [chip(1, datetime=NOON)])
    with pytest.raises(UsageError, match="exists already"):
        export(archive, path)
    assert path.read_text() == "mine"
    export(archive, path, overwrite=True)
    assert chip(1).id.encode() in path.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_a_failure_leaves_nothing_behind(tmp_path, format):
    path = tmp_path / NAMES[format]
    path.write_text("mine")

    def stream():
        yield chip(1, datetime=NOON)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(in_memory("cosine", [chip(1)]), path, stream(), overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "mine"


def test_a_record_deleted_in_the_meantime_is_an_error(tmp_path):
    with pytest.raises(ArchiveError, match="no record 'chip 00002'"):
        export(in_memory("cosine", [chip(1)]), tmp_path / "a.parquet", [chip(1), chip(2)])
    assert not list(tmp_path.iterdir())


def test_wrong_paths_and_formats_are_refused(tmp_path):
    archive = in_memory("cosine", [chip(1)])
    with pytest.raises(UsageError, match=r"out.xyz: give the format .* end the name in one of"):
        export(archive, tmp_path / "out.xyz")
    with pytest.raises(UsageError, match="no format 'shp'; there are: geoparquet"):
        export(archive, tmp_path / "out", format="shp")
    with pytest.raises(UsageError, match="is a folder"):
        export(archive, tmp_path, format="csv", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        export(archive, tmp_path / "file" / "out.csv")


def test_folders_are_created_and_suffixes_have_any_case(tmp_path):
    report = export(in_memory("cosine", [chip(1)]), tmp_path / "new" / "OUT.CSV")
    assert report.format == "csv"
    assert len(read_csv(tmp_path / "new" / "OUT.CSV")) == 1


def test_geojson_needs_no_shapely(tmp_path, monkeypatch):
    archive = in_memory("cosine", [chip(1, footprint=SQUARE, datetime=NOON)])
    monkeypatch.setitem(sys.modules, "shapely", None)
    for format in ("geoparquet", "csv", "stac"):
        with pytest.raises(MissingExtraError, match=r"rsir\[geo\]"):
            export(archive, tmp_path / "x", format=format)
    assert export(archive, tmp_path / "x", format="geojson").written == 1
