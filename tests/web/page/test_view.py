"""The actions of a page without a browser: what the server searches, shows and sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nicegui", reason="the page needs the extra 'web'")

from nicegui import Client, core
from nicegui.page import page

from rsir.archive import Archive
from rsir.archive.search.query import ById, ByWindow, Examples
from rsir.images.read import read_pixels
from rsir.store.filters.filter import Filter
from rsir.web.page.overview import Overviews
from rsir.web.page.search_state import SearchState
from rsir.web.page.uploads import Uploads
from rsir.web.page.view import View
from rsir.web.service.service import Service
from tests.support.colour_encoder import ColourEncoder
from tests.web.page import page_world

pytestmark = pytest.mark.slow


class Recorder:
    """The calls of a page to its components in the browser, and the problems that it shows."""

    def __init__(self, view: View) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.problems: list[str] = []
        assert view.panels.map is not None
        for component in (view.panels.results, view.panels.map):
            component.run_method = lambda *call: self.calls.append(call)  # type: ignore[method-assign]
        show_problem = view.panels.show_problem

        def record_problem(message: str) -> None:
            self.problems.append(message)
            show_problem(message)

        view.panels.show_problem = record_problem  # type: ignore[method-assign]

    def sent_ids(self) -> list[str]:
        """The ids of the cards that were sent since the last search began."""
        last = max(i for i, call in enumerate(self.calls) if call[0] == "begin")
        return [card["id"] for call in self.calls[last:] if call[0] == "push" for card in call[2]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return page_world.placed(tmp_path_factory.mktemp("view"), ColourEncoder(), per_class=2)


def visit(
    archive: Archive, folder: Path, steps: Callable[[View, Recorder], Awaitable[None]]
) -> None:
    """Build the page of a visitor, then run `steps` on it."""

    @asynccontextmanager
    async def view_of_visitor() -> AsyncIterator[View]:
        core.loop = asyncio.get_running_loop()
        service = Service({"placed": archive})
        overview = await Overviews(service).of("placed")
        client = Client(page("/view"), request=None)
        try:
            with client:
                yield View(service, Uploads(folder), "placed", overview)
        finally:
            client.delete()
            service.close()

    async def run() -> None:
        async with view_of_visitor() as view:
            await steps(view, Recorder(view))

    asyncio.run(run())


def ids_of(hits: Any) -> list[str]:
    return [hit.id for hit in hits]


@pytest.mark.slow
def test_a_link_is_searched_and_its_cards_are_sent(archive: Archive, tmp_path: Path) -> None:
    first = next(archive.records())

    async def steps(view: View, browser: Recorder) -> None:
        await view.open_link(f"tile={first.id}&class=water&class=forest")
        expected = archive.search(ById(first.id), 50, filter=Filter(classes=("water", "forest")))
        assert ids_of(view.hits) == browser.sent_ids() == ids_of(expected)
        assert len(expected) == 4
        await view.change(**SearchState.NO_FILTER)
        assert browser.sent_ids() == ids_of(archive.search(ById(first.id), 50))
        await view.change(diverse=True)
        assert browser.sent_ids() == ids_of(archive.search(ById(first.id), 50, diverse=True))
        await view.open_link("")
        assert view.hits is None
        assert not browser.problems

    visit(archive, tmp_path, steps)


def test_ratings_are_searched_with_after_refine(archive: Archive, tmp_path: Path) -> None:
    tile, like, unlike = (record.id for record in list(archive.records())[:3])

    async def steps(view: View, browser: Recorder) -> None:
        await view.search(view.state.with_query(tile=tile))
        view.rate(like, 1)
        view.rate(unlike, -1)
        assert ("showRatings", {like: 1, unlike: -1}) in browser.calls
        assert view.state.like == ()
        await view.refine()
        query = Examples([ById(like)], [ById(unlike)], ById(tile))
        assert browser.sent_ids() == ids_of(archive.search(query, 50))
        assert view.state == SearchState("placed", tile=tile, like=(like,), unlike=(unlike,))

    visit(archive, tmp_path, steps)


def test_points_and_rectangles_of_the_map(archive: Archive, tmp_path: Path) -> None:
    (mosaic,) = (source for source in archive.sources() if source.tiled)
    assert mosaic.bounds is not None
    west, south, east, north = mosaic.bounds
    window = (west, south, (west + east) / 2, (south + north) / 2)

    async def steps(view: View, browser: Recorder) -> None:
        await view.search_rectangle(window)
        expected = archive.search(ByWindow(mosaic.source, bbox=window), 50)
        assert browser.sent_ids() == ids_of(expected)
        assert ("showRectangles", window, None) in browser.calls
        ring = np.array(next(archive.records()).footprint["coordinates"][0])
        await view.search_point(ring[:4].mean(axis=0).tolist())
        assert view.state.tile is not None
        assert browser.sent_ids() == ids_of(archive.search(ById(view.state.tile), 50))
        await view.filter_by_area(window)
        assert view.state.area == window
        view.show_on_map("some id")
        view.draw_area()
        assert browser.calls[-2:] == [("reveal", "some id"), ("draw", "area")]
        assert not browser.problems

    visit(archive, tmp_path, steps)


def test_an_upload_is_searched_with_and_deleted(archive: Archive, tmp_path: Path) -> None:
    source = Path(next(archive.records(Filter(classes=["water"]))).source)

    async def steps(view: View, browser: Recorder) -> None:
        token = view.uploads.store(source.read_bytes())
        await view.search(view.state.with_query(image=token))
        assert browser.sent_ids() == ids_of(archive.search(read_pixels(source), 50))
        await view.delete_upload()
        assert view.hits is None
        assert not browser.problems
        await view.open_link(f"image={token}")
        (problem,) = browser.problems
        assert "no longer on the service" in problem
        await view.open_link("count=0")
        assert "count" in browser.problems[-1]

    visit(archive, tmp_path, steps)


@pytest.mark.parametrize("format", ["csv", "geojson"])
def test_the_selection_or_everything_is_downloaded(
    archive: Archive, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads: list[tuple[bytes, str]] = []
    monkeypatch.setattr(
        "nicegui.ui.download", lambda data, name, _type: downloads.append((data, name))
    )

    async def steps(view: View, _browser: Recorder) -> None:
        await view.search(view.state.with_query(tile=next(archive.records()).id))
        ids = ids_of(view.hits)
        await view.download(format)
        view.select(ids[1:3])
        await view.download(format)
        (everything, name), (selection, _) = downloads
        assert name == f"placed-results.{format}"
        for id in ids:
            assert id.encode() in everything
            assert (id.encode() in selection) == (id in ids[1:3])

    visit(archive, tmp_path, steps)


def test_details_wrap_around(archive: Archive, tmp_path: Path) -> None:
    async def steps(view: View, _browser: Recorder) -> None:
        shown: list[tuple[int, str]] = []
        show = view.panels.details.show

        def record(rank: int, hit: Any) -> None:
            shown.append((rank, hit.id))
            show(rank, hit)

        view.panels.details.show = record  # type: ignore[method-assign]
        await view.search(view.state.with_query(tile=next(archive.records()).id))
        ids = ids_of(view.hits)
        await view.show_details(ids[0])
        await view.show_details(ids[0], -1)
        await view.show_details(ids[-1], 1)
        await view.show_details("no result")
        assert shown == [(1, ids[0]), (len(ids), ids[-1]), (1, ids[0])]

    visit(archive, tmp_path, steps)
