"""States of a search, their links and their filters."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("nicegui", reason="the page needs the extra 'web'")

from rsir.errors import UsageError
from rsir.store.filters.filter import Filter
from rsir.store.records.record import Record
from rsir.web.page.search_state import SearchState, map_bounds
from tests.support.filters import selected

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ids = st.lists(texts, unique=True, max_size=3).map(tuple)
degrees = st.floats(-180, 180).map(lambda value: round(value, 6) + 0.0)
boxes = st.tuples(degrees, degrees, degrees, degrees).map(
    lambda four: (four[0], min(four[1], four[3]) / 2, four[2], max(four[1], four[3]) / 2)
)
boxes = boxes.map(lambda four: tuple(round(value, 6) + 0.0 for value in four))
queries = st.one_of(
    st.just({}),
    texts.map(lambda id: {"tile": id}),
    texts.map(lambda token: {"image": token}),
    st.tuples(texts, boxes).map(lambda two: {"scene": two[0], "window": two[1]}),
)


@given(
    queries,
    st.builds(
        SearchState,
        archive=st.just("") | texts,
        like=ids,
        unlike=ids,
        area=st.none() | boxes,
        start=st.none() | st.dates(),
        end=st.none() | st.dates(),
        classes=ids,
        ranking=st.none() | texts,
        diverse=st.booleans(),
        count=st.integers(1, 5000),
    ),
)
def test_a_link_describes_the_whole_state(query, other):
    state = replace(other, **query)
    assert SearchState.from_link(state.to_link()) == state
    assert SearchState.from_link("?" + state.to_link() + "&utm_source=mail") == state


@pytest.mark.parametrize(
    "link",
    ["count=0", "count=-1", "count=x", "count=²", "window=1,2,3,4", "scene=a", "from=yesterday",
     "scene=a&window=1,2,3", "area=1,2,3,nan", "area=0,-95,1,0", "area=0,2,1,1", "tile=a&image=b"],
)  # fmt: skip
def test_links_that_make_no_sense_are_refused(link):
    with pytest.raises(UsageError):
        SearchState.from_link(link)


def test_the_default_state_is_an_empty_link():
    assert SearchState().to_link() == ""
    assert not SearchState.from_link("")
    assert not SearchState(unlike=("a",))
    assert SearchState(like=("a",))


def test_another_query_drops_the_ratings_and_keeps_the_filters():
    state = (
        SearchState(tile="a", classes=("x",), diverse=True).with_rating("b", 1).with_rating("c", -1)
    )
    assert (state.rating("b"), state.rating("c"), state.rating("d")) == (1, -1, 0)
    assert state.with_rating("b", -1).with_rating("c", 0) == SearchState(
        tile="a", classes=("x",), diverse=True, unlike=("b",)
    )
    assert state.with_query(image="t") == SearchState(image="t", classes=("x",), diverse=True)


def test_days_of_a_filter_are_whole():
    found = SearchState(start=date(2024, 5, 1), end=date(2024, 5, 1)).filter
    inside = [datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, 23, 59, 59, tzinfo=UTC)]
    times = [*inside, inside[0] + timedelta(days=1)]
    records = [Record("a", "", "", datetime=time) for time in times]
    assert selected(found, *records) == [True, True, False]
    assert SearchState(tile="a").filter is None
    with pytest.raises(UsageError):
        _ = SearchState(start=date(2024, 5, 2), end=date(2024, 5, 1)).filter


@pytest.mark.parametrize(
    ("drawn", "meant"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((361, 2, 363, 4), (1, 2, 3, 4)),
        ((-190, 2, -170, 4), (170, 2, -170, 4)),
        ((170, 2, 190, 4), (170, 2, -170, 4)),
        ((170, 2, -170, 4), (170, 2, -170, 4)),
        ((-500, -10, 500, 10), (-180, -10, 180, 10)),
    ],
)
def test_corners_of_a_map_dragged_round_the_globe_become_degrees(drawn, meant):
    assert map_bounds(drawn) == pytest.approx(meant)


def test_the_filter_of_a_state():
    state = SearchState(area=(1, 2, 3, 4), classes=("x",))
    assert state.filter == Filter(bbox=(1, 2, 3, 4), classes=("x",))
