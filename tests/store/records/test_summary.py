"""The sources of an archive, by records and by columns."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, box

from rsir.geo.antimeridian import bbox
from rsir.geo.geometry import bbox_of, bounds_of
from rsir.store.lance.store import LanceStore
from rsir.store.memory import ExactStore
from rsir.store.records import summary
from rsir.store.records.record import Record
from rsir.store.records.summary import SourceSummary, summaries, summaries_of_columns

WINDOW = {"window": [0, 0, 8, 8]}


def square(west: float, south: float, side: float = 1.0) -> dict[str, object]:
    east, north = west + side, south + side
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def test_by_hand(tmp_path) -> None:
    crossing = {
        "type": "MultiPolygon",
        "coordinates": [square(179, 5)["coordinates"], square(-180, 5)["coordinates"]],
    }
    records = [
        Record("3", "b.tif", "x", footprint=square(10, 20), properties=WINDOW),
        Record("1", "b.tif", "x", footprint=square(-3, 22), properties={}),
        Record("2", "b.tif", "x"),
        Record("4", "a.png", "y", properties={"class": "window"}),
        Record("5", "é.tif", "z", footprint=crossing, properties={"inner": WINDOW}),
        Record("6", "\U0001f30d", "z", properties={'a "window"': 1, "x": ', "window": '}),
        Record("7", "\uffee", "z", properties={"window": None, "inner": {}}),
    ]
    wanted = [
        SourceSummary("a.png", 1, None, False),
        SourceSummary("b.tif", 3, (-3.0, 20.0, 11.0, 23.0), True),
        SourceSummary("é.tif", 1, (179.0, 5.0, -179.0, 6.0), False),
        SourceSummary("\uffee", 1, None, True),
        SourceSummary("\U0001f30d", 1, None, False),
    ]
    store = LanceStore.create(tmp_path / "items.lance", "cosine", 1)
    assert store.sources() == []
    store.add(records, np.ones((len(records), 1), np.float32))
    assert store.sources() == wanted
    for order in itertools.islice(itertools.permutations(records), 0, None, 501):
        assert summaries(order) == wanted
    exact = ExactStore("cosine", 1)
    exact.add(records, np.ones((len(records), 1), np.float32))
    assert summaries(exact.records()) == wanted
    before = store.version
    store.delete(["3", "5"])
    assert [s.source for s in store.sources()] == ["a.png", "b.tif", "\uffee", "\U0001f30d"]
    assert store.sources()[1] == SourceSummary("b.tif", 2, (-3.0, 22.0, -2.0, 23.0), False)
    assert store.at(before).sources() == wanted


def cut(west: float, south: float) -> dict[str, object]:
    """A square of 3 degrees, cut at the antimeridian."""
    if west + 3 <= 180:
        return square(west, south, 3)
    parts = [box(west, south, 180, south + 3), box(-180, south, west - 357, south + 3)]
    shapes = MultiPolygon([part for part in parts if part.area])
    found: dict[str, object] = json.loads(shapely.to_geojson(shapes))
    return found


names = st.sampled_from(["window", "a", 'x"window', ', "window": ', "{", "\\", "é"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | names,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
places = st.none() | st.tuples(st.integers(-180, 180), st.integers(-80, 80))


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from("abc"), places, st.dictionaries(names, values, max_size=3))),
    st.sampled_from([None, 0]),
)
def test_summaries_of_columns_are_those_of_records(rows, indent) -> None:
    records = [
        Record(str(n), source, "", footprint=None if at is None else cut(*at), properties=said)
        for n, (source, at, said) in enumerate(rows)
    ]
    boxes = [bounds_of(record.footprint) or (None,) * 4 for record in records]
    texts = [json.dumps(said, ensure_ascii=False, indent=indent) for *_, said in rows]
    batch = pa.table(
        [
            pa.array([source for source, *_ in rows], pa.string()),
            *(pa.array([box[side] for box in boxes], pa.float64()) for side in range(4)),
            pa.array(texts, pa.string()),
            pa.array([r.footprint and json.dumps(r.footprint) for r in records], pa.string()),
        ],
        names=summary.SUMMARY_COLUMNS,
    )
    for rows_at_once in (2, 100):
        found = summaries_of_columns(batch.to_batches(rows_at_once))
        assert found == summaries(records)
    # The general rule, from the boxes of the footprints, may find a wider gap elsewhere.
    for one in found:
        around = [bbox_of(record.footprint) for record in records if record.source == one.source]
        placed = [box for box in around if box is not None]
        if len(placed) < 3:
            assert one.bounds == (bbox(np.array(placed, float)) if placed else None)


@pytest.mark.parametrize("count", [0, 1])
def test_few(count: int) -> None:
    records = [Record("1", "a", "x")][:count]
    assert summaries(records) == [SourceSummary("a", 1, None, False)][:count]
