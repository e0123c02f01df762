"""Conditions against small truth tables, and whole columns against one record at a time."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rsir.errors import UsageError
from rsir.geo.geometry import bounds_of
from rsir.store.filters.fields import FieldColumn
from rsir.store.filters.filter import Filter
from rsir.store.filters.sql import condition, properties_in
from rsir.store.records.record import Record
from tests.support.filters import meets, selected

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2, 0.5, 10, 1e300, -0.0, 2**53, 10**400]),
    st.sampled_from(
        ["", "a", "A", "ab", "a'b", "50%", "a_b", "a\nb", "é", "\U0001f6f0", "\0", "1"]
    ),
    st.just(["a"]),
    st.just({"a": 1}),
)
NAMES = ("cloud", "folder", "my name", "tags")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


LITERALS = st.one_of(
    st.sampled_from(["0", "1", "-1", "0.5", "10", "1e300", "2", "TRUE", "FALSE", "NULL"]),
    st.sampled_from(["", "a", "A", "ab", "a'b", "50%", "a\nb", "é", "\U0001f6f0", "1"]).map(quoted),
)
FIELDS = st.sampled_from(
    ["cloud", "folder", '"my name"', "tags", "properties.cloud", "missing", "id", "size", "source"]
)
PATTERNS = st.sampled_from(
    ["%", "_", "a%", "%b", "a_b", "", "a", "%'%", "50%", "%\n%", ".", "__", r"\%", "[a]", "%é%"]
).map(quoted)
LEAVES = st.one_of(
    st.builds(
        "{} {} {}".format,
        FIELDS,
        st.sampled_from(["=", "<>", "<", "<=", ">", ">="]),
        st.one_of(LITERALS, FIELDS),
    ),
    st.builds("{1} < {0}".format, FIELDS, LITERALS),
    st.builds(
        "{} {} ({})".format,
        FIELDS,
        st.sampled_from(["IN", "NOT IN"]),
        st.lists(LITERALS, min_size=1, max_size=4).map(", ".join),
    ),
    st.builds("{} {} {}".format, FIELDS, st.sampled_from(["LIKE", "NOT LIKE"]), PATTERNS),
    st.builds("{} BETWEEN {} AND {}".format, FIELDS, LITERALS, LITERALS),
    st.builds("{} {}".format, FIELDS, st.sampled_from(["IS NULL", "IS NOT NULL"])),
    st.sampled_from(["footprint IS NULL", "footprint IS NOT NULL"]),
    FIELDS,
    st.sampled_from(["datetime >= '2024-05-01'", "datetime < '2024-05-01T10:00:00+02:00'"]),
    st.sampled_from(["TRUE", "FALSE", "NULL", "1 = 1", "'a' < 'b'", "1 = NULL"]),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("({}) AND ({})".format, inner, inner),
        st.builds("({}) OR ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=5,
)
TIMES = st.one_of(
    st.none(),
    st.sampled_from(
        [
            datetime(2024, 5, 1, tzinfo=UTC),
            datetime(2024, 5, 1, 10, tzinfo=timezone(timedelta(hours=2))),
            datetime(2024, 5, 1, 8, 0, 0, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        ]
    ),
)


def square(west: float, south: float, size: float) -> dict:
    east, north = west + size, south + size
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


TRIANGLE = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [0, 4], [0, 0]]]}
BOWTIE = {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]}
OVER_180 = {
    "type": "MultiPolygon",
    "coordinates": [square(179, 0, 1)["coordinates"], square(-180, 0, 1)["coordinates"]],
}
HOLE = {
    "type": "Polygon",
    "coordinates": [*square(-5, -5, 10)["coordinates"], square(-4, -4, 8)["coordinates"][0][::-1]],
}
FOOTPRINTS = st.one_of(
    st.none(),
    st.builds(square, st.integers(-8, 8), st.integers(-8, 8), st.sampled_from([0.5, 1, 3])),
    st.sampled_from(
        [
            TRIANGLE,
            BOWTIE,
            OVER_180,
            HOLE,
            {"type": "Point", "coordinates": [1, 1]},
            {"type": "LineString", "coordinates": [[3, -3], [3, 3]]},
            {"type": "Polygon", "coordinates": []},
        ]
    ),
)
BOXES = st.one_of(
    st.none(),
    st.tuples(st.integers(-9, 9), st.integers(-9, 0), st.integers(-9, 9), st.integers(0, 9)),
    st.sampled_from([(170, -10, -170, 10), (-180, -90, 180, 90), (1, 1, 1, 1), (0, 2, 5, 2)]),
)
POLYGONS = st.one_of(st.none(), st.sampled_from([TRIANGLE, OVER_180, HOLE, square(-3, -3, 6)]))
FILTERS = st.builds(
    Filter,
    bbox=BOXES,
    geometry=POLYGONS,
    start=st.sampled_from([None, datetime(2024, 5, 1, 8)]),
    end=st.sampled_from([None, datetime(2024, 5, 1, 8), datetime(2030, 1, 1, tzinfo=UTC)]),
    where=st.one_of(st.none(), CONDITIONS),
    classes=st.sampled_from([None, (), ("a",), ("a", "é")]),
)
RECORDS = st.builds(
    Record,
    id=st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    source=st.sampled_from(["a", "/x/a.tif", "é"]),
    content=st.just("c"),
    size=st.integers(0, 2),
    footprint=FOOTPRINTS,
    datetime=TIMES,
    properties=st.dictionaries(st.sampled_from([*NAMES, "class"]), VALUES),
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(records=st.lists(RECORDS, max_size=8), filter=FILTERS)
@example([Record("a", "s", "c", footprint=OVER_180)], Filter(bbox=(170, -10, -170, 10)))
@example([Record("a", "s", "c", footprint=square(-1, -1, 1))], Filter(geometry=HOLE))
def test_columns_agree_with_single_records(records, filter):
    assert selected(filter, *records) == [meets(filter, record) for record in records]


def matches(where: str, **properties) -> bool:
    record = Record("i'd", "/a/b.tif", "c", 7, properties=properties)
    return selected(Filter(where=where), record) == [True]


def test_a_footprint_can_be_there_or_not():
    nowhere, empty, here = (
        Record("a", "s", "c", footprint=footprint)
        for footprint in (None, {"type": "Polygon", "coordinates": []}, square(0, 0, 1))
    )
    without, having = Filter(where="footprint IS NULL"), Filter(where="footprint IS NOT NULL")
    assert selected(without, nowhere, empty, here) == [True, True, False]
    assert selected(having, nowhere, empty, here) == [False, False, True]


@pytest.mark.parametrize("name", ["footprint", "geometry", "score", "distance"])
def test_names_of_hits_are_refused(name):
    """As a property that no record has, `name IS NULL` would select all records for deletion."""
    wheres = [f"{name} < 1", f"{name} IN (1, 2)", f"{name} LIKE 'a%'"]
    for where in wheres + [f"{name} IS NULL"] * (name != "footprint"):
        with pytest.raises(UsageError, match=f"properties.{name}"):
            Filter(where=where)
    assert matches(f"properties.{name} = 1", **{name: 1})
    assert matches(f"properties.{name} IS NULL")


def test_properties_of_a_condition():
    where = "a = 1 AND (NOT b LIKE 'x%' OR c IN (1, 2)) AND id = 'd' AND properties.id IS NULL"
    assert properties_in(condition(where)) == {"a", "b", "c", "id"}
    assert properties_in(condition("footprint IS NULL AND source = 'a' OR 1 = 1")) == set()


@pytest.mark.parametrize(
    ("where", "truth"),
    [
        ("cloud < 10 AND folder = 'Harbor'", True),
        ("cloud < 10 AND folder = 'harbor'", False),
        ("cloud >= 9.5 OR missing = 1", True),
        ("cloud <> 9.5", False),
        ("missing = 1", None),
        ("missing <> 1", None),
        ("cloud <> '9.5'", None),  # a number and a text do not compare
        ("missing = 1 AND cloud > 100", False),
        ("missing = 1 OR cloud < 100", True),
        ("missing IS NULL", True),
        ("cloud IS NOT NULL", True),
        ("nothing IS NULL", True),
        ("nothing = NULL", None),
        ("cloud IN (1, 9.5)", True),
        ("cloud IN (1, NULL)", None),
        ("cloud NOT IN (1, 2)", True),
        ("cloud BETWEEN 9.5 AND 10", True),
        ("cloud BETWEEN 10 AND 9", False),
        ("folder LIKE 'H%r'", True),
        ("folder LIKE 'h%'", False),
        ("folder LIKE '_arbo_'", True),
        ("folder LIKE 'H.*'", False),
        ("folder NOT LIKE 'x%'", True),
        ("missing LIKE '%'", None),
        ("flag", True),
        ("NOT flag", False),
        ("flag = TRUE", True),
        ("flag = 1", None),
        ("cloud", None),
        ("\"my name\" = 'it''s'", True),
        ("properties.id = 3", True),
        ("id = 'i''d' AND size = 7 AND source LIKE '%.tif'", True),
        ("-1 < cloud", True),
        ("folder < 'I' AND folder > 'G'", True),
        ("((cloud = 9.5))", True),
    ],
)
def test_truth_values_are_those_of_sql(where, truth):
    properties = {"cloud": 9.5, "folder": "Harbor", "nothing": None, "flag": True}
    properties |= {"my name": "it's", "id": 3}
    assert matches(where, **properties) is (truth is True)
    assert matches(f"NOT ({where})", **properties) is (truth is False)


@pytest.mark.parametrize(
    "where",
    [
        "",
        "cloud <",
        "f(cloud) = 1",
        "CAST(cloud AS INT) = 1",
        "cloud::int = 1",
        "cloud IN (SELECT 1)",
        "EXISTS (SELECT 1)",
        "(SELECT 1) = 1",
        "cloud = 1; DROP TABLE items",
        "cloud + 1 = 2",
        "cloud || 'a' = 'b'",
        "a < b < c",
        "CASE WHEN cloud = 1 THEN TRUE END",
        "cloud = ?",
        "cloud = :name",
        "cloud = @name",
        "folder LIKE 'a' ESCAPE 'b'",
        "folder LIKE other",
        "folder LIKE ANY ('a', 'b')",
        "folder ILIKE 'a'",
        "folder ~ 'a'",
        "cloud IN ()",
        "cloud IN (other)",
        "cloud IS TRUE",
        "cloud IS DISTINCT FROM 1",
        "cloud BETWEEN SYMMETRIC 2 AND 1",
        "a.b.c = 1",
        "other.cloud = 1",
        "day = DATE '2024-01-01'",
        "tags[1] = 'a'",
        "*",
        "1",
        "'a'",
        "'unclosed",
    ],
)
def test_any_other_sql_is_refused(where):
    with pytest.raises(UsageError, match="a condition compares fields with literals"):
        Filter(where=where)


def test_too_long_and_too_deep_conditions_are_refused():
    with pytest.raises(UsageError, match="nested"):
        Filter(where="(" * 150 + "a = 1" + ")" * 150)
    with pytest.raises(UsageError, match="nested"):
        Filter(where="NOT " * 20_000 + "a = 1")
    with pytest.raises(UsageError, match="characters"):
        Filter(where="a = 1 OR " * 20_000 + "a = 1")
    many = Filter(where="a IN (" + ", ".join(map(str, range(3000))) + ")")
    assert selected(many, Record("a", "s", "c", properties={"a": 2999})) == [True]


def test_times_are_a_closed_interval_in_utc():
    noon = datetime(2024, 5, 1, 12)
    record = Record("a", "s", "c", datetime=noon.replace(tzinfo=UTC))
    second = timedelta(seconds=1)
    assert selected(Filter(start=noon, end=noon), record) == [True]
    earlier = noon.replace(tzinfo=timezone(timedelta(hours=1)))
    assert selected(Filter(start=earlier), record) == [True]
    assert selected(Filter(start=noon + second), record) == [False]
    assert selected(Filter(end=noon - second), record) == [False]
    assert selected(Filter(end=noon), Record("b", "s", "c")) == [False]
    same = Filter(where="datetime = '2024-05-01T14:00:00+02:00'")
    assert selected(same, record) == [True]
    with pytest.raises(UsageError, match="after its end"):
        Filter(start=noon, end=noon - second)
    with pytest.raises(UsageError, match="ISO 8601"):
        Filter(where="datetime > 'last May'")


def test_boxes_touch_and_reach_over_the_antimeridian():
    def found(bbox, footprint) -> bool:
        return selected(Filter(bbox=bbox), Record("a", "s", "c", footprint=footprint)) == [True]

    assert found((0, 0, 1, 1), square(1, 1, 1))
    assert not found((0, 0, 0.9, 1), square(1, 0, 1))
    assert found((179, -1, -179, 1), OVER_180)
    assert found((179, -1, -179, 1), square(-180, 0, 0.5))
    assert not found((179, -1, -179, 1), square(0, 0, 1))
    assert not found((-179, -1, 179, 1), square(179.5, 0, 0.4))
    # Within the triangle's bounds, but not within the triangle.
    assert not found((3, 3, 4, 4), TRIANGLE)
    assert not found((0, 0, 1, 1), None)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"bbox": (0, 0, 1)}, "west, south, east, north"),
        ({"bbox": (0, 5, 1, 4)}, "latitudes"),
        ({"bbox": (0, 0, 181, 1)}, "longitudes"),
        ({"bbox": (math.nan, 0, 1, 1)}, "longitudes"),
        ({"geometry": {"type": "Point", "coordinates": [1, 1]}}, "Polygon or MultiPolygon"),
        ({"geometry": {"type": "Polygon", "coordinates": []}}, "empty"),
        ({"geometry": BOWTIE}, "Self-intersection"),
        ({"geometry": square(179, 0, 2)}, "antimeridian"),
        ({"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}}, "2 positions"),
        ({"classes": "abc"}, "sequence of names"),
        ({"start": "2024-05-01"}, "datetimes"),
    ],
)
def test_invalid_filters_are_refused(given, reason):
    with pytest.raises(UsageError, match=reason):
        Filter(**given)


@given(footprint=FOOTPRINTS)
def test_bounds_are_those_of_shapely(footprint):
    shape = None if footprint is None else shapely.from_geojson(json.dumps(footprint))
    if shape is None or shape.is_empty:
        assert bounds_of(footprint) is None
    else:
        assert bounds_of(footprint) == shape.bounds


@pytest.mark.parametrize(
    "footprint",
    [
        {},
        {"type": "Circle", "coordinates": [0, 0]},
        {"type": "Point"},
        {"type": "Point", "coordinates": [0]},
        {"type": "Point", "coordinates": ["0", "0"]},
        {"type": "Polygon", "coordinates": [0, 0]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]},
        {"type": "Polygon", "coordinates": [[]]},
        {"type": "LineString", "coordinates": [[0, 0]]},
    ],
)
def test_an_invalid_geometry_is_refused(footprint):
    with pytest.raises(UsageError, match="not a GeoJSON geometry"):
        bounds_of(footprint)


def test_equal_filters_have_equal_keys():
    one = Filter(bbox=(0, 0, 1, 1), classes=["a"], end=datetime(2024, 5, 1))
    two = Filter(bbox=(0.0, 0, 1, 1), classes=("a",), end=datetime(2024, 5, 1, tzinfo=UTC))
    assert one == two
    assert one.key == two.key
    assert hash(one) == hash(two)
    assert one.key != Filter(bbox=(0, 0, 1, 1)).key


def test_columns_of_arrow_text_hold_nulls():
    column = FieldColumn.of_texts(pa.chunked_array([["b", None], ["a", "b"]]))
    texts = column.texts.to_pylist()
    assert [None if c < 0 else texts[c] for c in column.codes] == ["b", None, "a", "b"]


@pytest.mark.parametrize("where", ["source = '\udcff'", "source LIKE '\udcff%'", '"\udcff" = 1'])
def test_a_condition_that_is_not_unicode_is_refused(where):
    with pytest.raises(UsageError, match="not valid Unicode"):
        Filter(where=where)


def test_a_time_before_the_first_year_is_refused():
    with pytest.raises(UsageError, match="years 1 to 9999"):
        Filter(where="datetime > '0001-01-01T00:00:00+10:00'")


@pytest.mark.parametrize(
    ("ring", "words"),
    [
        ([[190, 0], [170, 0], [170, 5], [190, 0]], "antimeridian"),
        ([[1, 97], [2, 97], [2, 98], [1, 97]], "longitude comes first"),
        ([[600_000, 5e6], [700_000, 5e6], [700_000, 5.1e6], [600_000, 5e6]], "not degrees"),
    ],
)
def test_polygons_beyond_the_globe(ring, words):
    with pytest.raises(UsageError, match=words) as refused:
        Filter(geometry={"type": "Polygon", "coordinates": [ring]})
    assert ("antimeridian" in str(refused.value)) == (words == "antimeridian")
