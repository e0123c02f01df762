"""What the page is made of, without a browser: links, uploads, overviews, cards."""

from __future__ import annotations

import asyncio
import itertools
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("nicegui", reason="the page needs the extra 'web'")


from rsir.archive import Archive
from rsir.errors import UsageError
from rsir.store.filters.filter import Filter
from rsir.store.records.record import Record
from rsir.types import Hit
from rsir.web.page import cards, overview
from rsir.web.page.overview import Overview, Overviews
from rsir.web.page.run_search import tile_at
from rsir.web.page.search_state import SearchState, asked, bounds_of
from rsir.web.page.uploads import Uploads
from rsir.web.problems import ForbiddenError, NotFoundError
from rsir.web.service.service import Service
from tests.support.colour_encoder import ColourEncoder

# ------------------------------------------------------------------------------------------- links

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
        varied=st.booleans(),
        count=st.integers(1, 5000),
    ),
)
def test_a_link_says_all_that_is_asked(query, rest):
    wanted = rest.__class__(**{**vars(rest), **query})
    assert asked(wanted.link()) == wanted
    assert asked("?" + wanted.link() + "&utm_source=mail") == wanted


@pytest.mark.parametrize(
    "link",
    ["count=0", "count=-1", "count=x", "count=²", "window=1,2,3,4", "scene=a", "from=yesterday",
     "scene=a&window=1,2,3", "area=1,2,3,nan", "area=0,-95,1,0", "area=0,2,1,1", "tile=a&image=b"],
)  # fmt: skip
def test_links_without_sense_are_refused(link):
    with pytest.raises(UsageError):
        asked(link)


def test_nothing_asked_is_an_empty_link():
    assert SearchState().link() == ""
    assert not asked("")
    assert not SearchState(unlike=("a",))
    assert SearchState(like=("a",))


def test_another_query_drops_the_ratings_and_keeps_the_filters():
    wanted = SearchState(tile="a", classes=("x",), varied=True).rated("b", 1).rated("c", -1)
    assert (wanted.rating("b"), wanted.rating("c"), wanted.rating("d")) == (1, -1, 0)
    assert wanted.rated("b", -1).rated("c", 0) == SearchState(
        tile="a", classes=("x",), varied=True, unlike=("b",)
    )
    assert wanted.by(image="t") == SearchState(image="t", classes=("x",), varied=True)


def test_days_of_a_filter_are_whole():
    found = SearchState(start=date(2024, 5, 1), end=date(2024, 5, 1)).filter
    inside = [datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, 23, 59, 59, tzinfo=UTC)]
    assert all(found.matches(Record("a", "", "", datetime=time)) for time in inside)
    assert not found.matches(Record("a", "", "", datetime=inside[0] + timedelta(days=1)))
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
def test_a_map_that_was_dragged_round_the_globe_gives_degrees(drawn, meant):
    assert bounds_of(drawn) == pytest.approx(meant)


# ----------------------------------------------------------------------------------------- uploads


def test_uploads_are_kept_under_the_hash_of_their_content(tmp_path):
    uploads = Uploads(tmp_path / "deep" / "uploads")
    token = uploads.keep(b"image")
    assert uploads.keep(b"image") == token != uploads.keep(b"other")
    assert Uploads(uploads.folder).read(token) == b"image"
    assert uploads.folder.stat().st_mode & 0o777 == 0o700
    assert (uploads.folder / token).stat().st_mode & 0o777 == 0o600
    uploads.forget(token)
    uploads.forget(token)
    with pytest.raises(NotFoundError, match="24 hours"):
        uploads.read(token)


def test_uploads_are_deleted_after_their_hours(tmp_path):
    uploads = Uploads(tmp_path, hours=1)
    old, fresh = uploads.keep(b"old"), uploads.keep(b"fresh")
    past = datetime.now().timestamp() - 3601
    os.utime(tmp_path / old, (past, past))
    with pytest.raises(NotFoundError):
        uploads.read(old)
    uploads.tidy()
    assert [path.name for path in tmp_path.iterdir()] == [fresh]
    os.utime(tmp_path / fresh, (past, past))
    assert uploads.keep(b"fresh") == fresh  # sent again: its time begins again
    assert uploads.read(fresh) == b"fresh"


def test_the_oldest_uploads_make_room(tmp_path):
    uploads = Uploads(tmp_path, most_bytes=25)
    tokens = []
    for i in range(4):
        tokens.append(uploads.keep(bytes([i]) * 10))
        os.utime(tmp_path / tokens[-1], (1e9 + i, datetime.now().timestamp() - 10 + i))
    uploads.tidy()
    assert {path.name for path in tmp_path.iterdir()} == set(tokens[2:])


def test_there_are_not_too_many_uploads(tmp_path, monkeypatch):
    monkeypatch.setattr("rsir.web.page.uploads.MOST_FILES", 3)
    uploads = Uploads(tmp_path)
    for i in range(6):
        token = uploads.keep(bytes([i]))
        os.utime(tmp_path / token, (1e9, datetime.now().timestamp() - 10 + i))
    assert len(list(tmp_path.iterdir())) == 3
    assert uploads.read(token) == bytes([5])


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ForbiddenError, match="XDG_CACHE_HOME"):
        Uploads(tmp_path / "file" / "uploads").keep(b"image")


def test_a_token_is_no_path(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    uploads = Uploads(tmp_path / "uploads")
    uploads.keep(b"image")
    for token in ("../secret", str(tmp_path / "secret"), "", "A" * 32, "a" * 32 + "\n"):
        with pytest.raises(UsageError):
            uploads.read(token)
        with pytest.raises(UsageError):
            uploads.forget(token)
    assert (tmp_path / "secret").exists()


def test_tidying_no_folder_is_nothing(tmp_path):
    Uploads(tmp_path / "none").tidy()
    assert not (tmp_path / "none").exists()


# --------------------------------------------------------------------------------------- overviews


def square(west: float, south: float, side: float = 1.0) -> dict:
    east, north = west + side, south + side
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def archive_of(folder: Path, records: list[Record]) -> Archive:
    archive = Archive.create(folder, ColourEncoder())
    if records:
        vectors = np.random.default_rng(0).standard_normal((len(records), 16))
        archive._store.add(records, vectors.astype(np.float32))
    return archive


def overview_of(archive: Archive) -> Overview:
    return overview.overview(archive, Service({"a": archive}).scenes["a"])


def test_an_overview_counts_classes_days_and_places(tmp_path):
    random, first = np.random.default_rng(2), datetime(2020, 1, 1, 5, tzinfo=UTC)
    records = [
        Record(
            f"{i:03d}", f"/s{i % 7}", "", footprint=square(i % 7, 0) if i % 7 else None,
            datetime=first + timedelta(days=int(random.integers(999))),
            properties={"class": f"c{i % 12}"} if i % 5 else {"class": 3},
        )
        for i in range(60)
    ]  # fmt: skip
    found = overview_of(archive_of(tmp_path / "a", records))
    classes = [r.properties["class"] for r in records if isinstance(r.properties["class"], str)]
    assert found.count == 60
    assert found.classes == {name: classes.count(name) for name in sorted(set(classes))}
    days = [record.datetime.date() for record in records]
    assert found.days == (min(days), max(days))
    assert sorted(found.scenes.values()) == [(i, 0, i + 1, 1) for i in range(1, 7)]
    assert len(found.examples) == overview.EXAMPLES
    assert len({name for _, name in found.examples}) == overview.EXAMPLES
    by_id = {record.id: record for record in records}
    assert all(by_id[id].properties["class"] == name for id, name in found.examples)


def test_overviews_of_little(tmp_path):
    assert overview_of(archive_of(tmp_path / "a", [])) == Overview(0)
    one = overview_of(archive_of(tmp_path / "b", [Record("x", "/x", "")]))
    assert one == Overview(1, examples=(("x", ""),))
    two = [Record(id, "/x", "", properties={"class": "same"}) for id in "yz"]
    assert overview_of(archive_of(tmp_path / "c", two)).examples == (("y", "same"), ("z", "same"))


def test_an_overview_is_made_anew_when_the_archive_has_changed(tmp_path):
    archive = archive_of(tmp_path / "a", [Record("x", "/x", "")])
    service = Service({"a": archive})
    overviews = Overviews(service)

    async def look() -> tuple[Overview, Overview, Overview]:
        first, same = await overviews.of("a"), await overviews.of("a")
        archive._store.add([Record("y", "/y", "")], np.ones((1, 16), np.float32))
        return first, same, await overviews.of("a")

    first, same, later = asyncio.run(look())
    assert first is same
    assert (first.count, later.count) == (1, 2)
    with pytest.raises(NotFoundError):
        asyncio.run(Overviews(service).of("b"))


def test_a_rectangle_belongs_to_the_scene_that_it_shows_most_of():
    scenes = {"large": (0, 0, 10, 10), "small": (2, 2, 4, 4), "far": (50, 50, 51, 51)}
    found = Overview(3, scenes=scenes)
    assert found.scene_of((2.5, 2.5, 3, 3)) == "small"
    assert found.scene_of((1, 1, 3, 3)) == "large"
    assert found.scene_of((50.5, 50.5, 60, 60)) == "far"
    assert found.scene_of((20, 20, 21, 21)) is None
    assert found.scene_of((10, 0, 11, 1)) is None  # touches


def test_a_click_finds_the_tile_around_it(tmp_path):
    # Overlapping tiles: every point is nearest to the middle of one of them.
    corners = list(itertools.product(np.arange(0, 4, 0.5), repeat=2))
    records = [
        Record(f"{i:02d}", "/s", "", footprint=square(west, south))
        for i, (west, south) in enumerate(corners)
    ]
    archive = archive_of(tmp_path / "a", records)
    for x, y in np.random.default_rng(0).uniform(-1, 6, (40, 2)):
        middles = [(abs(x - w - 0.5), abs(y - s - 0.5), i) for i, (w, s) in enumerate(corners)]
        around = [(dx**2 + dy**2, i) for dx, dy, i in middles if max(dx, dy) <= 0.5]
        expected = f"{min(around)[1]:02d}" if around else None
        assert tile_at(archive, x, y) == expected
        assert tile_at(archive, x + 360, y) == expected


# ------------------------------------------------------------------------------------------- cards


def test_a_card_says_what_a_hit_is():
    hit = Hit(
        "a/b?c", 0.51234, 0.9, "/images/<b>.tif", square(9, -49),
        datetime(2024, 5, 1, 12, tzinfo=UTC),
        {"class": "water", "cloud": 3, "bands": ["4", "8"]}, 99.3,
    )  # fmt: skip
    card = cards.card("my archive", hit)
    assert card["picture"] == "api/archives/my%20archive/items/a%2Fb%3Fc/thumbnail?size=256"
    assert (card["score"], card["class"], card["date"]) == ("0.512", "water", "2024-05-01")
    assert (card["name"], card["place"]) == ("<b>.tif", "48.5000° S, 9.5000° E")
    facts = dict(cards.facts(hit, ("red", "nir")))
    assert (facts["Bands"], facts["Bands of the file"]) == ("red, nir", "4, 8")
    assert facts["Source"] == "/images/<b>.tif"
    assert facts["Nearer than"] == "99.3 % of random pairs"
    assert facts["Extent"] == "9.000000, -49.000000, 10.000000, -48.000000"
    assert facts["cloud"] == "3"


def test_a_card_of_a_hit_of_which_little_is_known():
    hit = Hit("a", -0.5, 1.5, "x")
    card = cards.card("a", hit)
    assert (card["class"], card["place"], card["date"], card["footprint"]) == ("", "", "", None)
    facts = dict(cards.facts(hit, ("red", "green")))
    assert facts["Bands"] == "red, green"
    assert "Place" not in facts
    assert "Date" not in facts


def test_the_filters_of_the_page_are_those_of_archives():
    wanted = SearchState(area=(1, 2, 3, 4), classes=("x",))
    assert wanted.filter == Filter(bbox=(1, 2, 3, 4), classes=("x",))


# ------------------------------------------------------------------------------------ without page


def test_uploads_come_from_the_page_alone(tmp_path, monkeypatch):
    from starlette.testclient import TestClient

    from rsir.web.app import create_app

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    archive = archive_of(tmp_path / "a", [Record("x", "/x", "")])
    for _ in range(2):  # a second application in one process has a page, too
        with TestClient(create_app({"a": archive})) as client:
            assert "rsir" in client.get("/").text
            # A form of another site could send these.
            for kind in ("text/plain", "multipart/form-data; boundary=x", ""):
                refused = client.post("/page/uploads", content=data, headers={"content-type": kind})
                assert refused.status_code == 415
            kind = {"content-type": "application/octet-stream"}
            taken = client.post("/page/uploads", content=data, headers=kind)
            assert taken.status_code == 200
            kept = Uploads(tmp_path / "rsir" / "uploads").read(taken.json()["token"])
            assert kept == data
            bad = client.post("/page/uploads", content=b"no image", headers=kind)
            assert (bad.status_code, bad.json()["type"]) == (422, "/problems/image")
