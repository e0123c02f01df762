"""The options that select images: their meaning, and the values that they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import Point, shape

from rsir.archive.search.query_vectors import from_sources
from rsir.cli.filters import box, filter_of, polygons
from rsir.errors import DataError, UsageError
from rsir.store.filters.filter import Filter
from rsir.store.records.record import Record
from tests.support.filters import selected

NOTHING = (None,) * 6


def square(west: float, south: float, side: float = 1) -> dict:
    ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    return {"type": "Polygon", "coordinates": [[[west + x, south + y] for x, y in ring]]}


def test_no_options_are_no_filter() -> None:
    assert filter_of(*NOTHING) is None
    assert filter_of(None, None, None, None, [], []) is None


def test_an_interval_backwards_is_refused() -> None:
    with pytest.raises(UsageError, match="after its end"):
        filter_of(None, None, "2024-05/2024-04", None, None, None)


def test_boxes() -> None:
    assert box("-10, 48.5,1e1,50", "--bbox") == (-10, 48.5, 10, 50)
    for text in ("", "1,2,3", "1,2,3,4,5", "1,2,3,x", "nan,0,1,1", "0,0,inf,1", "1 2 3 4"):
        with pytest.raises(UsageError, match="--bbox"):
            box(text, "--bbox")
    for text in ("181,0,182,1", "0,50,1,49", "0,-91,1,0"):
        with pytest.raises(UsageError):
            filter_of(text, None, None, None, None, None)


def test_polygons_of_a_file_become_one_geometry(tmp_path: Path) -> None:
    # Two overlapping polygons, which one MultiPolygon may not contain as they are, and a third.
    polygon_list = [square(0, 0), square(0.5, 0.5), square(5, 5)]
    features = [
        {"type": "Feature", "properties": {}, "geometry": polygon} for polygon in polygon_list
    ]
    file = tmp_path / "area.geojson"
    for document, within in (
        (polygon_list[0], polygon_list[:1]),
        (features[0], polygon_list[:1]),
        ({"type": "FeatureCollection", "features": features}, polygon_list),
        ({"type": "FeatureCollection", "features": features[:1]}, polygon_list[:1]),
    ):
        file.write_text(json.dumps(document))
        filter = filter_of(None, file, None, None, None, None)
        assert filter is not None
        for x in (0.25, 0.75, 1.25, 3, 5.5):
            for y in (0.25, 0.75, 1.25, 5.5):
                point = {"type": "Point", "coordinates": [x, y]}
                record = Record("a", "a", "", footprint=point)
                wanted = any(shape(polygon).contains(Point(x, y)) for polygon in within)
                assert selected(filter, record) == [wanted], (x, y)


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "Point", "coordinates": [1, 2]}',
        '{"type": "FeatureCollection", "features": []}',
        '{"type": "FeatureCollection", "features": 3}',
        '{"type": "FeatureCollection", "features": [null, 3]}',
        '{"type": "Feature", "geometry": null}',
        '{"type": "Topology"}',
        "[]",
        "null",
        json.dumps(square(600_000, 5_000_000)),
        json.dumps(square(0, 0) | {"coordinates": [[[0, 0], [1, 1]]]}),
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {"type": "Feature", "geometry": square(0, 0)},
                    {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": "x"}},
                ],
            }
        ),
    ],
)
def test_files_without_polygons_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "area.geojson"
    file.write_text(text)
    with pytest.raises(UsageError):
        filter_of(None, file, None, None, None, None)


def test_a_file_that_is_no_geojson_is_named(tmp_path: Path) -> None:
    (tmp_path / "area.geojson").write_bytes(b"\xff\xfe<xml>")
    for file in (tmp_path / "area.geojson", tmp_path / "none.geojson", tmp_path):
        with pytest.raises((DataError, UsageError), match=file.name):
            polygons(file)


def test_sources_by_any_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = (tmp_path / "it's.tif").as_posix()
    remote = "s3://bucket/scene.tif"
    records = [Record(str(i), name, "") for i, name in enumerate((here, remote, "f.parquet#3"))]
    for name, found in (
        ("it's.tif", [0]), ("./it's.tif", [0]), (here, [0]), (remote, [1]), ("f.parquet#3", [2]),
        ("scene.tif", []),
    ):  # fmt: skip
        filter = Filter(where=from_sources([name]))
        assert np.flatnonzero(selected(filter, *records)).tolist() == found
    both = filter_of(None, None, None, "id = '0' OR id = '1'", None, ["it's.tif", "f.parquet#3"])
    assert both is not None
    assert selected(both, *records) == [True, False, False]


def test_a_condition_cannot_escape_its_parentheses() -> None:
    with pytest.raises(UsageError):
        filter_of(None, None, None, "id = '0') OR (id = '1'", None, ["a.tif"])
