"""The contract of every store, checked against a plain sort of all distances."""

import itertools
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rsir.errors import ArchiveError, UsageError
from rsir.ranking import METRICS, packed, pairwise, unpacked
from rsir.store.base import Store, recall_of
from rsir.store.filters.filter import Filter
from rsir.store.lance import rows as lance_rows
from rsir.store.lance import store as lance_module
from rsir.store.lance.store import LanceStore
from rsir.store.memory import ExactStore
from rsir.store.records.record import Record, State
from tests.support.filters import meets

FLOATS = ("euclidean", "cosine", "ncc")
ADAPTIVE = "adaptive-hamming:3"
ALL = (*METRICS, ADAPTIVE)

Make = Callable[[str, int], Store]


@contextmanager
def exact(_request) -> Iterator[Make]:
    yield ExactStore


@contextmanager
def lance(_request) -> Iterator[Make]:
    with tempfile.TemporaryDirectory() as folder:
        places = (Path(folder) / f"{number}.lance" for number in itertools.count())
        yield lambda metric, dimension: LanceStore.create(next(places), metric, dimension)


@contextmanager
def milvus(request) -> Iterator[Make]:
    with request.getfixturevalue("milvus_stores").lent() as make:
        yield make


STORES = {"exact": exact, "lance": lance, "milvus": milvus}


@pytest.fixture(params=STORES)
def name(request) -> str:
    return request.param


@pytest.fixture
def fresh(request, name):
    """A context manager with a function that creates empty stores, deleted at its end."""
    return lambda: STORES[name](request)


@pytest.fixture
def make(fresh) -> Iterator[Make]:
    with fresh() as make:
        yield make


def examples(name: str, count: int) -> settings:
    """The number of examples; fewer for a server, and no search for smaller failures there."""
    if name != "milvus":
        return settings(max_examples=count, deadline=None)
    return settings(max_examples=count // 3, deadline=None, phases=[Phase.reuse, Phase.generate])


def record(id: str, **more) -> Record:
    return Record(id=id, source=f"/images/{id}.png", content=f"c-{id}", **more)


def dimension(metric: str, width: int) -> int:
    """The dimension for vectors of `width`; bits of codes do not fill the last byte."""
    return width if metric in FLOATS else 8 * width - 3


def vectors(metric: str, rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    if metric in FLOATS:
        return rng.standard_normal((count, width)).astype(np.float32)
    codes = np.packbits(rng.random((count, 8 * width - 3)) < 0.5, axis=1)
    if metric == "hamming":
        return codes
    # From sure (all on one class) to undecided, with equal probabilities among them.
    classes = rng.integers(0, 4, (count, 3)).astype(np.float32) + np.float32(1e-3)
    return packed(codes, classes / classes.sum(axis=1)[:, None])


def agrees(store: Store, kept: dict[str, np.ndarray], queries: np.ndarray, k: int) -> None:
    """Assert that the store finds the first k of all records sorted by (distance, id)."""
    found = store.search(queries, k)
    assert len(found) == len(queries)
    ids = sorted(kept)
    for query, neighbours in zip(queries, found, strict=True):
        far = pairwise(store.metric, query[None], np.stack([kept[id] for id in ids]))[0]
        wanted = sorted(zip(far.tolist(), ids, strict=True))[:k]
        assert [(n.distance, n.record.id) for n in neighbours] == wanted


@pytest.mark.slow
def test_searches_are_exact_after_any_history(fresh, name):
    # Making a collection of another width takes Milvus seconds.
    widths = st.sampled_from([3, 4]) if name == "milvus" else st.integers(2, 9)

    @examples(name, 25)
    @given(data=st.data())
    def holds(data):
        with fresh() as make:
            history(data, make, data.draw(widths, "width"))

    holds()


def history(data: st.DataObject, make: Make, width: int) -> None:
    metric = data.draw(st.sampled_from(ALL), "metric")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    distinct = vectors(metric, rng, data.draw(st.integers(1, 12), "distinct vectors"), width)
    ids = data.draw(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
            min_size=1,
            max_size=25,
            unique=True,
        ),
        "ids",
    )
    store = make(metric, dimension(metric, width))
    kept: dict[str, np.ndarray] = {}
    for _ in range(data.draw(st.integers(1, 5), "steps")):
        some = data.draw(st.lists(st.sampled_from(ids), unique=True, max_size=25), "some")
        if data.draw(st.integers(0, 2), "step") == 0:
            assert store.delete(some) == sum(id in kept for id in some)
            kept = {id: vector for id, vector in kept.items() if id not in some}
        else:
            rows = distinct[rng.integers(0, len(distinct), len(some))]
            store.add([record(id) for id in some], rows)
            kept |= dict(zip(some, rows, strict=True))
        assert len(store) == len(kept)
    k = data.draw(st.integers(1, 30), "k")
    queries = np.concatenate([distinct[:2], vectors(metric, rng, 2, width)])
    if kept:
        agrees(store, kept, queries, k)
    else:
        assert store.search(queries, k) == [[]] * len(queries)
    assert [r.id for r in store.records()] == sorted(kept)
    for id, (got, vector) in zip(kept, store.get(list(kept)), strict=True):
        assert got == record(id)
        np.testing.assert_array_equal(vector, kept[id])


@pytest.mark.slow
@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("k", [1, 10, 150])
def test_thousands_of_equal_vectors_are_ordered_by_id(make, name, metric, k):
    rng = np.random.default_rng(3)
    many = 300 if name == "milvus" else 3000
    store = make(metric, dimension(metric, 4))
    distinct = vectors(metric, rng, 3, 4)
    rows = distinct[np.repeat([0, 1, 2], [5, many, 7])]
    ids = [f"{n:05d}" for n in rng.permutation(len(rows))]
    store.add([record(id) for id in ids], rows)
    agrees(store, dict(zip(ids, rows, strict=True)), distinct, k)


@pytest.mark.slow
@pytest.mark.parametrize("metric", FLOATS)
@pytest.mark.parametrize("offset", [0, 1000])
def test_differences_below_float32_rounding_are_ordered_exactly(make, metric, offset):
    """Far from the origin, |x|² - 2xy + |y|² in float32 cannot tell these vectors apart."""
    rng = np.random.default_rng(4)
    base = rng.standard_normal(16).astype(np.float32) + np.float32(offset)
    noise = rng.integers(-3, 4, (600, 16)).astype(np.float32)
    rows = (base + noise * np.spacing(base)).astype(np.float32)
    store = make(metric, 16)
    ids = [f"{n:03d}" for n in range(600)]
    store.add([record(id) for id in ids], rows)
    # From 20 queries on FAISS takes another way, through matrix products.
    agrees(store, dict(zip(ids, rows, strict=True)), rows[:25], 20)
    agrees(store, dict(zip(ids, rows, strict=True)), rows[:1], 20)


@pytest.mark.slow
@pytest.mark.parametrize("metric", FLOATS)
@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e25, 3e37])
def test_values_whose_squares_do_not_fit_float32(make, metric, scale):
    rng = np.random.default_rng(5)
    rows = (rng.uniform(-1, 1, (200, 6)) * scale).astype(np.float32)
    store = make(metric, 6)
    ids = [f"{n:03d}" for n in range(200)]
    store.add([record(id) for id in ids], rows)
    agrees(store, dict(zip(ids, rows, strict=True)), rows[:3], 7)


def test_near_unit_vectors_of_unequal_length_are_ordered_by_direction(make):
    rng = np.random.default_rng(6)
    angles = np.linspace(0, 1e-3, 500)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows *= rng.uniform(1 - 4e-6, 1 + 4e-6, (500, 1))
    rows = rows.astype(np.float32)
    store = make("cosine", 2)
    ids = [f"{n:03d}" for n in range(500)]
    store.add([record(id) for id in ids], rows)
    agrees(store, dict(zip(ids, rows, strict=True)), rows[::100], 9)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ALL)
def test_a_sample_is_of_different_records(make, metric):
    store = make(metric, dimension(metric, 3))
    assert store.sample(5).shape == vectors(metric, np.random.default_rng(0), 0, 3).shape
    rows = vectors(metric, np.random.default_rng(13), 400, 3)
    rows = rows[np.unique(rows, axis=0, return_index=True)[1]]
    store.add([record(f"{n:03d}") for n in range(len(rows))], rows)
    for count in (1, 20, len(rows), 1000):
        some = store.sample(count, seed=3)
        assert (some.dtype, some.shape[1]) == (rows.dtype, rows.shape[1])
        assert len(some) == min(count, len(rows))
        known = {row.tobytes() for row in rows}
        found = {row.tobytes() for row in some}
        assert len(found) == len(some)
        assert found <= known
        np.testing.assert_array_equal(some, store.sample(count, seed=3))
    assert store.sample(20, seed=4).tobytes() != store.sample(20, seed=3).tobytes()


def test_the_empty_store(make):
    store = make("cosine", 2)
    assert len(store) == 0
    assert store.search(np.ones((2, 2), np.float32), 5) == [[], []]
    assert store.search(np.empty((0, 2), np.float32), 5) == []
    assert list(store.records()) == []
    assert store.get([]) == []
    assert store.delete(["a"]) == 0
    store.add([], np.empty((0, 2), np.float32))
    assert len(store) == 0
    store.add([record("a")], np.ones((1, 2), np.float32))
    assert store.search(np.empty((0, 2), np.float32), 5) == []


def test_a_known_id_is_replaced_whole(make):
    store = make("euclidean", 1)
    store.add([record("a", size=1), record("b")], np.array([[1], [2]], np.float32))
    new = Record("a", "/other.tif", "c2", 7, 8, None, None, {"x": 1})
    store.add([new], np.array([[9]], np.float32))
    assert len(store) == 2
    assert store.get(["a"])[0] == (new, np.array([9], np.float32))
    hits = store.search(np.array([[9]], np.float32), 2)[0]
    assert [(n.record.id, n.distance) for n in hits] == [("a", 0), ("b", 7)]


def test_a_record_comes_back_unchanged(make):
    full = Record(
        id="b",
        source="/städte/münchen 'alt' \"neu\".tif",
        content="00ff",
        size=2**40,
        mtime_ns=1_700_000_000_123_456_789,
        footprint={"type": "Point", "coordinates": [11.5, 48.1]},
        datetime=datetime(2024, 5, 1, 10, 11, 12, 131415, timezone(timedelta(hours=2))),
        properties={"folder": "a\n\\b", "width": 64, "cloud": 0.25, "tags": ["x", None, True]},
    )
    naive = record("a", datetime=datetime(2024, 5, 1))
    store = make("euclidean", 1)
    store.add([full, naive], np.array([[1], [2]], np.float32))
    first, second = store.records()
    assert second == full
    assert second.datetime.utcoffset() == timedelta(0)
    assert first.datetime == datetime(2024, 5, 1, tzinfo=UTC)
    assert store.get(["b"])[0][0] == full
    assert store.search(np.array([[1]], np.float32), 1)[0][0].record == full


HOSTILE = [
    "a'b",
    "''",
    "' OR '1'='1",
    "x'); DROP TABLE items; --",
    'a"b',
    "a\\'b",
    "new\nline",
    "nul\0byte",
    "%",
    "_",
    "`id`",
    "",
    " ",
    "é",
    "e\u0301",
    "中文",
    "\U0001f6f0",
    "\uffff",
]


def test_states_are_those_of_the_records(make):
    store = make("euclidean", 2)
    assert list(store.states()) == list(store.states({"/images/a.png"})) == []
    names = ["/a.tif", "/b's %_.tif", "s3://bucket/ü.tif", ""]
    known = [
        Record(
            f"{source}#{number}",
            source,
            content=f"c{number // 3}",
            size=number,
            mtime_ns=2**62 + number,
            footprint=box(number, 0, 1) if number % 2 else None,
            datetime=datetime(2024, 5, 1, 10, 0, 0, number, tzinfo=UTC) if number % 3 else None,
            properties=properties,
        )
        for source in names
        for number, properties in enumerate(
            [{}, {"window": [0, 0, 8, 8]}, {"a": {"b": "],[{"}, "ü": None}, {"eo:cloud_cover": 1.5}]
        )
    ]
    store.add(known, np.ones((len(known), 2), np.float32))
    wanted = [State.of(record) for record in store.records()]
    assert [(s.id, s.properties) for s in wanted] == [
        (r.id, r.properties) for r in sorted(known, key=lambda record: record.id)
    ]
    assert sorted(store.states(), key=lambda state: state.id) == wanted
    for some in ([], names[:1], {*names[1:]}, ["", "/not/there"], [*names, "/bytes\udc80"]):
        found = sorted(store.states(some), key=lambda state: state.id)
        assert found == [state for state in wanted if state.source in some]


def test_states_of_more_sources_than_fit_one_condition(make, monkeypatch):
    monkeypatch.setattr(lance_module, "_NAMES_IN_SQL", 2)
    monkeypatch.setattr(lance_rows, "_ROWS_AT_ONCE", 7)
    store = make("euclidean", 2)
    store.add([record(f"{n:02d}") for n in range(40)], np.ones((40, 2), np.float32))
    for count in (1, 2, 3, 40):
        names = {f"/images/{n:02d}.png" for n in range(count)}
        assert {state.source for state in store.states(names)} == names
        assert len(list(store.states(names))) == count


def test_no_two_stores_have_the_same_identity(make):
    one, other = make("euclidean", 3), make("euclidean", 4)
    assert one.identity
    assert one.identity != other.identity


@pytest.mark.slow
def test_ids_with_quotes_sql_and_unicode_are_just_ids(make):
    store = make("euclidean", 1)
    rows = np.zeros((len(HOSTILE), 1), np.float32)
    store.add([record(id) for id in HOSTILE], rows)
    found = store.search(rows[:1], 100)[0]
    assert [n.record.id for n in found] == sorted(HOSTILE)
    for id in HOSTILE:
        assert store.get([id])[0][0].id == id
        assert store.delete([id]) == 1
        assert store.delete([id]) == 0
        assert len(store) == len(HOSTILE) - 1
        store.add([record(id)], rows[:1])
    assert store.delete([*HOSTILE, *HOSTILE, "absent", "\udcff"]) == len(HOSTILE)
    assert len(store) == 0


@pytest.mark.parametrize("metric", ALL)
def test_invalid_vectors_are_refused_and_nothing_changes(make, metric):
    store = make(metric, dimension(metric, 3))
    rows = vectors(metric, np.random.default_rng(7), 2, 3)
    store.add([record("a")], rows[:1])
    two = [record("a", size=5), record("b")]
    bad = {
        "columns": rows[:, :2],
        "2-D": rows[0],
        "2 records with 1": rows[:1],
    }
    if metric not in FLOATS:
        bad["uint8"] = rows.astype(np.float32)
        padding = rows.copy()
        padding[1, 2] |= 0b001
        bad["row 1: the code has bits set beyond its 21"] = padding
    else:
        bad["finite"] = np.where([[False], [True]], np.float32(np.nan), rows)
        bad["not finite"] = np.where([[False], [True]], np.float32(np.inf), rows)
    if metric == ADAPTIVE:
        codes, probabilities = unpacked(rows, 3)
        wrong = np.where([[False, False, False], [False, True, False]], 1.5, probabilities)
        bad["row 1: a class probability"] = packed(codes, wrong)
    if metric == "cosine":
        bad["zero vector"] = rows * np.array([[1], [0]], np.float32)
    if metric == "ncc":
        bad["constant"] = np.where([[False], [True]], np.float32(0.1), rows)
    for reason, unfit in bad.items():
        with pytest.raises(UsageError, match=reason):
            store.add(two, unfit)
        if "records" not in reason:
            with pytest.raises(UsageError, match=reason):
                store.search(unfit, 1)
    with pytest.raises(UsageError, match="'b' occurs twice"):
        store.add([record("b"), record("b")], rows)
    with pytest.raises(UsageError, match="JSON"):
        store.add([record("b", properties={"x": float("nan")})], rows[:1])
    with pytest.raises(UsageError, match="Unicode"):
        store.add([record("\udcff")], rows[:1])
    with pytest.raises(UsageError, match="k must be at least 1"):
        store.search(rows, 0)
    assert list(store.records()) == [record("a")]


def test_an_unknown_id_is_an_error_and_order_is_kept(make):
    store = make("euclidean", 1)
    store.add([record(id) for id in "abc"], np.array([[0], [1], [2]], np.float32))
    got = store.get(["c", "a", "c"])
    assert [(r.id, v.tolist()) for r, v in got] == [("c", [2]), ("a", [0]), ("c", [2])]
    with pytest.raises(ArchiveError, match="'x'"):
        store.get(["a", "x"])


def test_changing_a_returned_vector_does_not_change_the_store(make):
    store = make("euclidean", 2)
    row = np.ones((1, 2), np.float32)
    store.add([record("a")], row)
    row[:] = 5
    store.get(["a"])[0][1][:] = 7
    np.testing.assert_array_equal(store.get(["a"])[0][1], [1, 1])


@pytest.mark.parametrize("metric", ["l1", ""])
def test_unknown_metrics_and_dimensions_are_refused(make, metric):
    with pytest.raises(UsageError, match="no metric"):
        make(metric, 8)
    with pytest.raises(UsageError, match="number of classes"):
        make("adaptive-hamming", 12)
    with pytest.raises(UsageError, match="at least 1"):
        make("hamming", 0)
    with pytest.raises(UsageError, match="at least 1"):
        make("cosine", 0)


PROPERTIES = st.dictionaries(
    st.sampled_from(["cloud", "folder", "an odd 'name'", "class"]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 2),
        st.sampled_from([0.5, 1e300, 10**400, 2**63, "a", "", "é'", "\n", "\0", "cloud", "1"]),
        st.just([1]),
        st.just({"cloud": 1}),
    ),
)


def box(west: float, south: float, size: float) -> dict:
    east, north = west + size, south + size
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


PLACES = st.one_of(
    st.none(),
    st.builds(box, st.integers(-3, 3), st.integers(-3, 3), st.sampled_from([0.5, 2])),
    st.just({"type": "Point", "coordinates": [0.5, 0.5]}),
    st.just({"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]}),
)
ENDS = st.sampled_from(
    [None, None, "2024-05-01T00:00:00Z", "2024-05-01T02:00:00.000001+02:00", "2024-04-30", "x", 7]
)
TIMES = st.sampled_from([None, datetime(2024, 5, 1), datetime(2024, 5, 1, 0, 0, 0, 1)])
CONDITIONS = st.recursive(
    st.one_of(
        st.builds(
            "{} {} {}".format,
            st.sampled_from(["cloud", "folder", "\"an odd 'name'\"", "id", "size", "missing"]),
            st.sampled_from(["=", "<>", "<", ">="]),
            st.sampled_from(["1", "0.5", "-1", "'a'", "'é'''", "TRUE", "NULL", "cloud", "'5'"]),
        ),
        st.sampled_from(
            [
                "cloud IS NULL",
                "folder LIKE '%a'",
                "id IN ('1', '12', '30')",
                "id LIKE '1_'",
                "cloud BETWEEN 0 AND 1",
                "datetime > '2024-05-01'",
                "source = '/images/7.png'",
            ]
        ),
    ),
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=4,
)
FILTERS = st.builds(
    Filter,
    bbox=st.sampled_from([None, None, (0, 0, 1, 1), (-180, -90, 180, 90), (2, -9, -2, 9)]),
    geometry=st.sampled_from(
        [None, None, {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [0, 4], [0, 0]]]}]
    ),
    start=TIMES,
    end=st.sampled_from([None, datetime(2024, 5, 1, 0, 0, 0, 1), datetime(2024, 6, 1)]),
    where=st.one_of(st.none(), CONDITIONS),
    classes=st.sampled_from([None, None, ("a", "1")]),
)


@pytest.mark.slow
def test_filters_find_what_the_reference_finds(fresh, name):
    @examples(name, 12)
    @given(data=st.data())
    def holds(data):
        with fresh() as make:
            filtered(data, make)

    holds()


def interval(start: object, end: object) -> dict[str, object]:
    ends = {"start_datetime": start, "end_datetime": end}
    return {name: value for name, value in ends.items() if value is not None}


def filtered(data: st.DataObject, make: Make) -> None:
    metric = data.draw(st.sampled_from(ALL), "metric")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    count = data.draw(st.integers(0, 40), "count")
    rows = vectors(metric, rng, count + 2, 3)
    records = [
        record(
            str(n),
            size=n % 3,
            properties=data.draw(PROPERTIES) | interval(data.draw(ENDS), data.draw(ENDS)),
            footprint=data.draw(PLACES),
            datetime=data.draw(TIMES),
        )
        for n in range(count)
    ]
    reference = ExactStore(metric, dimension(metric, 3))
    store = make(metric, dimension(metric, 3))
    for some in (slice(0, count // 2), slice(count // 2, count)):
        for each in (reference, store):
            each.add(records[some], rows[:count][some])
    gone = [str(n) for n in range(0, count, 7)]
    assert store.delete(gone) == reference.delete(gone)
    for chosen in data.draw(st.lists(FILTERS, min_size=1, max_size=8), "filters"):
        matches = [record for record in reference.records() if meets(chosen, record)]
        assert store.count(chosen) == len(matches)
        assert list(store.records(chosen)) == matches
        for k in (1, 5, 50):
            found = store.search(rows[-2:], k, filter=chosen)
            assert found == reference.search(rows[-2:], k, filter=chosen)
            assert found.searched == store.count(chosen) == reference.count(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ALL)
def test_filters_of_any_share_search_exactly(make, name, metric):
    rng = np.random.default_rng(9)
    count = 300 if name == "milvus" else 2000
    store = make(metric, dimension(metric, 4))
    rows = vectors(metric, rng, 40, 4)[rng.integers(0, 40, count)]
    ids = [f"{n:04d}" for n in rng.permutation(count)]
    store.add([record(id, properties={"n": int(id)}) for id in ids], rows)
    for below in (0, 1, 20, count // 2, count - 1, count):
        chosen = Filter(where=f"n < {below}")
        assert store.count(chosen) == below
        kept = {id: row for id, row in zip(ids, rows, strict=True) if int(id) < below}
        for k in (1, 30, 3000):
            found = store.search(rows[:3], k, filter=chosen)
            if not kept:
                assert found == [[], [], []]
                continue
            far = pairwise(metric, rows[:3], np.stack(list(kept.values())))
            for neighbours, row in zip(found, far, strict=True):
                wanted = sorted(zip(row.tolist(), kept, strict=True))[:k]
                assert [(n.distance, n.record.id) for n in neighbours] == wanted


def test_adaptive_codes_are_searched_by_plain_hamming_too(make):
    rng = np.random.default_rng(10)
    store = make(ADAPTIVE, dimension(ADAPTIVE, 3))
    rows = vectors(ADAPTIVE, rng, 300, 3)
    store.add([record(f"{n:03d}", size=n) for n in range(300)], rows)
    codes, _ = unpacked(rows, 3)
    for chosen, count in ((None, 300), (Filter(where="size < 50"), 50)):
        far = pairwise("hamming", codes[:4], codes[:count])
        for queries in (rows[:4], np.ascontiguousarray(codes[:4])):
            found = store.search(queries, 40, filter=chosen, metric="hamming")
            for neighbours, row in zip(found, far, strict=True):
                wanted = sorted(zip(row.tolist(), range(count), strict=True))[:40]
                assert [(n.distance, int(n.record.id)) for n in neighbours] == wanted
    with pytest.raises(UsageError, match="or 'hamming', not by 'cosine'"):
        store.search(rows, 1, metric="cosine")


@pytest.mark.parametrize("metric", ["hamming", *FLOATS])
def test_other_stores_are_searched_by_their_own_metric_only(make, metric):
    store = make(metric, dimension(metric, 3))
    rows = vectors(metric, np.random.default_rng(11), 2, 3)
    assert store.search(rows, 1, metric=metric) == [[], []]
    with pytest.raises(UsageError, match=f"by '{metric}', not by"):
        store.search(rows, 1, metric=ADAPTIVE)


def test_an_invalid_footprint_is_refused(make):
    store = make("euclidean", 1)
    with pytest.raises(UsageError, match="not a GeoJSON geometry"):
        store.add([record("a", footprint={"type": "Disc"})], np.ones((1, 1), np.float32))
    assert len(store) == 0


# Promises of a store on disk only.


def test_a_reopened_store_is_the_same(tmp_path):
    path = tmp_path / "deep" / "items.lance"
    rng = np.random.default_rng(8)
    rows = vectors("hamming", rng, 300, 8)
    ids = [f"{n:03d}" for n in range(300)]
    LanceStore.create(path, "hamming", 64).add([record(id) for id in ids], rows)
    store = LanceStore.open(path)
    assert (store.metric, store.dimension, len(store)) == ("hamming", 64, 300)
    agrees(store, dict(zip(ids, rows, strict=True)), rows[:5], 40)


def test_the_next_search_sees_changes_of_another_handle(tmp_path):
    one = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    two = LanceStore.open(tmp_path / "items.lance")
    query = np.zeros((1, 1), np.float32)
    assert two.search(query, 3) == [[]]
    one.add([record("a"), record("b")], np.array([[1], [2]], np.float32))
    assert len(two) == 2
    assert [n.record.id for n in two.search(query, 3)[0]] == ["a", "b"]
    one.delete(["a"])
    assert [n.record.id for n in two.search(query, 3)[0]] == ["b"]
    one.optimize()
    assert [n.record.id for n in two.search(query, 3)[0]] == ["b"]
    two.add([record("c")], np.array([[0]], np.float32))
    assert [r.id for r in one.records()] == ["b", "c"]


def test_an_addition_is_one_commit(tmp_path):
    store = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    rows = np.arange(500, dtype=np.float32)[:, None]
    before = store.version
    store.add([record(str(n)) for n in range(500)], rows)
    assert store.version == before + 1
    store.add([record(str(n)) for n in range(250, 750)], rows)
    assert store.version == before + 2
    store.delete([str(n) for n in range(600)])
    assert store.version == before + 3
    assert len(store) == 150


def test_long_lists_of_ids_are_split(tmp_path, monkeypatch):
    monkeypatch.setattr("rsir.store.lance.store._IDS_AT_ONCE", 7)
    store = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    ids = [f"{n:02d}" for n in range(50)]
    store.add([record(id) for id in ids], np.arange(50, dtype=np.float32)[:, None])
    assert [r.id for r in store.records()] == ids
    assert [v.item() for _, v in store.get(ids[::-1])] == list(range(49, -1, -1))
    assert store.delete([*ids[:40], *ids[:40], "absent"]) == 40
    assert [r.id for r in store.records()] == ids[40:]


def test_searches_beside_a_writer_always_see_one_whole_version(tmp_path):
    """Every commit moves all ten vectors; a mixture of two versions has unequal distances."""
    store = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    ids = [record(str(n)) for n in range(10)]
    store.add(ids, np.zeros((10, 1), np.float32))
    stop = threading.Event()
    wrong = []

    def look() -> None:
        while not stop.is_set():
            found = store.search(np.zeros((1, 1), np.float32), 20)[0]
            if len(found) != 10 or len({n.distance for n in found}) != 1:
                wrong.append(found)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    writer = LanceStore.open(tmp_path / "items.lance")
    for step in range(1, 15):
        writer.add(ids, np.full((10, 1), step, np.float32))
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_records_are_the_same_from_the_table_and_from_the_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("rsir.store.lance.record_cache._BATCH_ROWS", 30)
    store = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    many = [record(f"{n:03d}", size=n, properties={"n": n}) for n in range(200)]
    for start in (150, 0, 50, 100):
        rows = np.arange(start, start + 50, dtype=np.float32)[:, None]
        store.add(many[start : start + 50], rows)
    for query in (3, 120, 77, 199):  # the first ones are read from the table
        found = store.search(np.array([[query]], np.float32), 60)[0]
        assert [n.record for n in found] == [many[n.record.size] for n in found]
        assert found[0].record == many[query]


def test_without_room_for_the_copy_records_come_from_the_table(tmp_path, monkeypatch, caplog):
    store = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    many = [record(f"{n:03d}", size=n) for n in range(40)]
    store.add(many, np.arange(40, dtype=np.float32)[:, None])
    monkeypatch.setattr("rsir.store.lance.record_cache.tempfile.tempdir", str(tmp_path / "absent"))
    for query in (3, 20, 7, 39):
        found = store.search(np.array([[query]], np.float32), 20)[0]
        assert [n.record for n in found] == [many[n.record.size] for n in found]
    assert [r.message for r in caplog.records if "slower" in r.message]


def test_every_version_answers_as_it_did(tmp_path):
    store = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    query = np.zeros((1, 1), np.float32)
    states: dict[int, ExactStore] = {}
    kept: dict[str, float] = {}
    for step in range(4):
        new = {f"{step}{n}": float(step * n) for n in range(step + 2)}
        store.add([record(id) for id in new], np.array([[v] for v in new.values()], np.float32))
        kept |= new
        if step == 2:
            store.delete(["00", "11"])
            kept = {id: value for id, value in kept.items() if id not in ("00", "11")}
        states[store.version] = ExactStore("euclidean", 1)
        rows = np.array([[value] for value in kept.values()], np.float32)
        states[store.version].add([record(id) for id in kept], rows)
    known = {v.version: v for v in store.versions()}
    assert sorted(known) == list(known)
    assert list(known)[-1] == store.version
    some = Filter(where="id LIKE '1%'")
    for version, state in states.items():
        old = store.at(version)
        assert known[version].rows == len(old) == len(state)
        assert abs(known[version].time - datetime.now(UTC)) < timedelta(hours=1)
        assert old.version == version
        assert old.search(query, 50) == state.search(query, 50)
        assert old.search(query, 50, filter=some) == state.search(query, 50, filter=some)
        assert list(old.records()) == list(state.records())

    first = min(states)
    old = store.at(first)
    for change in (
        lambda: old.add([record("x")], query),
        lambda: old.delete(["00"]),
        lambda: old.optimize(),
        lambda: old.restore(first),
    ):
        with pytest.raises(ArchiveError, match=f"version {first} of .* cannot be changed"):
            change()
    before = store.version
    store.restore(first)
    assert store.version > before
    assert store.search(query, 50) == states[first].search(query, 50)
    store.add([record("new")], query)
    assert len(store) == len(states[first]) + 1
    assert list(old.records()) == list(states[first].records())
    with pytest.raises(ArchiveError, match="does not keep a version 999"):
        store.at(999)
    with pytest.raises(ArchiveError, match="does not keep a version 999"):
        store.restore(999)


def test_optimising_removes_old_versions(tmp_path):
    store = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    for n in range(3):
        store.add([record(str(n))], np.array([[n]], np.float32))
    versions = len(store.versions())
    store.optimize()
    assert len(store.versions()) >= versions  # none is a week old
    store.optimize(keep_days=0)
    assert len(store.versions()) == 1
    assert len(store) == 3
    assert len(store.search(np.zeros((1, 1), np.float32), 9)[0]) == 3
    with pytest.raises(ArchiveError, match="does not keep a version 2"):
        store.at(2)
    with pytest.raises(UsageError, match="keep_days"):
        store.optimize(keep_days=-1)


def test_a_commit_of_another_handle_is_seen_even_long_after_the_last(tmp_path, monkeypatch):
    """Even if the time of change stays the same."""
    monkeypatch.setattr("rsir.store.lance.handle._SETTLED_NS", 0)
    one = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    two = LanceStore.open(tmp_path / "items.lance")
    query = np.zeros((1, 1), np.float32)
    for n in range(4):
        one.add([record(str(n))], query)
        time.sleep(0.02)
        assert len(two.search(query, 9)[0]) == n + 1
        table = two._handle.table
        checkout_latest = table.checkout_latest
        monkeypatch.setattr(table, "checkout_latest", None)  # nothing calls it
        assert len(two.search(query, 9)[0]) == len(two) == n + 1
        monkeypatch.setattr(table, "checkout_latest", checkout_latest)


def test_a_store_of_another_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("rsir.store.lance.handle.FORMAT", "rsir-store/1")
        LanceStore.create(tmp_path / "items.lance", "cosine", 2)
    with pytest.raises(ArchiveError, match="format 'rsir-store/1', this rsir reads"):
        LanceStore.open(tmp_path / "items.lance")


WRITER = """
import sys, numpy as np
from pathlib import Path
from rsir.store.lance.store import LanceStore
from rsir.store.records.record import Record
store = LanceStore.open(Path(sys.argv[1]))
for start in range(0, 200, 20):
    ids = [f"{n:03d}" for n in range(start, start + 20)]
    store.add([Record(i, i, i) for i in ids], np.array([[float(i)] for i in ids], np.float32))
"""


@pytest.mark.slow
def test_concurrent_additions_of_the_same_ids_leave_each_once(tmp_path):
    path = tmp_path / "items.lance"
    LanceStore.create(path, "euclidean", 1)
    writers = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER, str(path)]) for _ in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert [r.id for r in LanceStore.open(path).records()] == [f"{n:03d}" for n in range(200)]


def test_anything_but_a_store_is_refused(tmp_path):
    with pytest.raises(ArchiveError, match="does not exist"):
        LanceStore.open(tmp_path / "items.lance")
    (tmp_path / "items.lance").mkdir()
    with pytest.raises(ArchiveError, match="not a store of rsir"):
        LanceStore.open(tmp_path / "items.lance")
    with pytest.raises(ArchiveError, match="exists already"):
        LanceStore.create(tmp_path / "items.lance", "cosine", 2)
    with pytest.raises(UsageError, match=r"ends in '\.lance'"):
        LanceStore.open(tmp_path / "items")


@pytest.mark.slow
def test_stores_do_not_import_torch():
    code = (
        "import sys, rsir.store.lance.store, rsir.store.memory, rsir.archive;"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("seed", range(5))
def test_recall_agrees_with_a_loop(seed):
    rng = np.random.default_rng(seed)
    exact, found, shares = [], [], []
    for _ in range(6):
        every = np.sort(rng.integers(0, 6, 20)).tolist()
        k = int(rng.integers(0, 8))
        exact.append(every[:k])
        found.append(sorted(rng.choice(every, min(k, int(rng.integers(0, 8))), replace=False)))
        if k:
            near = 0
            for distance in found[-1]:
                near += distance <= every[k - 1]
            shares.append(near / k)
    assert recall_of(exact, found) == (sum(shares) / len(shares) if shares else 1.0)
    assert recall_of([], []) == recall_of([[]], [[]]) == 1.0
