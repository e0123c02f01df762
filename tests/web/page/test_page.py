"""The page in a real browser: Chromium, driven by Playwright, on a service of its own process.

The tests compare what the page shows with what the archive returns. They record every request:
none may go to another host.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry import shape

from rsir.archive import Archive
from rsir.archive.search.query import ById, ByWindow, Examples
from rsir.images.read import read_pixels
from rsir.store.filters.filter import Filter
from tests.web.page import page_world


def browser_missing() -> str | None:
    """The reason why no browser is available; None if there is a browser."""
    try:
        import axe_playwright_python  # noqa: F401
        import nicegui  # noqa: F401
        import playwright  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    if chromium() is None:
        return "no Chromium: install it, or set RSIR_CHROMIUM to its path"
    return None


def chromium() -> str | None:
    named = os.environ.get("RSIR_CHROMIUM")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome"]
    return next(filter(None, map(shutil.which, names)), None)


class Server:
    """The service of the generated archives; it can stop and start again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", page_world.__name__, str(self.folder), str(self.port)]
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | cache, cwd=ROOT
        )
        assert self._process.stdout is not None
        word, port = self._process.stdout.readline().split()
        assert word == "ready"
        self.port = int(port)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=20)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def archive(self, name: str = "placed") -> Archive:
        return Archive.open(self.folder / name, page_world.ColourEncoder())


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    missing = browser_missing()
    if missing is not None:
        if os.environ.get("RSIR_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    running = Server(tmp_path_factory.mktemp("world"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


ROOT = Path(__file__).parents[3]
"""The repository's root, from which the package `tests` can be imported."""
MAP = "getElement(Number(document.querySelector('.map').id.slice(1)))"
RESULTS = "getElement(Number(document.querySelector('.results').id.slice(1)))"


class Visit:
    """A visitor's tab, with helpers for the tests."""

    def __init__(self, browser, server: Server, **context) -> None:
        self.server = server
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, "accept_downloads": True} | context
        )
        self.context.set_default_timeout(15_000)
        self.page = self.context.new_page()
        self.seen = 0
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog {dialog.message}"))

    def open(self, link: str = "?archive=placed") -> None:
        self.page.goto(f"http://{self.server.host}/{link}")
        if "=" in re.sub(r"^\?archive=\w+", "", link):
            self.wait_for_results()
        else:
            self.page.get_by_role("heading", name="Find places that look alike").wait_for()
        self.until(f"() => !document.querySelector('.map') || {MAP}.sceneLayers")

    def wait_for_results(self, text: str = " results among ") -> None:
        """Wait for the results of a search that is newer than at the last call."""
        self.until(
            f"(seen) => {{ const c = {RESULTS}; return c.total && c.search !== seen &&"
            "c.items.length === c.total && document.querySelector('.card'); }",
            arg=self.seen,
        )
        self.page.locator(".status", has_text=text).wait_for()
        self.seen = self.component(".results", "c.search")

    @property
    def ids(self) -> list[str]:
        """The ids of all results on the page, in order, also of those out of view."""
        return self.component(".results", "c.items.map((item) => item.id)")

    @property
    def parameters(self) -> dict[str, list[str]]:
        """The parameters of the page's link."""
        return parse_qs(urlsplit(self.page.url).query)

    def component(self, selector: str, expression: str):
        """The value of a JavaScript expression of `c`, the Vue component at a selector."""
        return self.page.evaluate(
            "([selector, expression]) => { const c = getElement(Number("
            "document.querySelector(selector).id.slice(1))); return eval(expression); }",
            [selector, expression],
        )

    def until(self, expression: str, **arguments) -> None:
        """Wait until a JavaScript expression is true; it may fail meanwhile."""
        expression = f"(arg) => {{ try {{ return ({expression})(arg) }} catch {{ return false }} }}"
        self.page.wait_for_function(expression, **arguments)

    def card(self, index: int):
        return self.page.locator(f".card[data-index='{index}']")

    def more_like(self, index: int) -> None:
        """Search with a result, and wait for the new results."""
        before = self.page.url
        self.card(index).hover()
        self.card(index).get_by_role("button", name="More like this").click()
        self.page.wait_for_url(lambda url: url != before)
        self.wait_for_results()

    def example(self, name: str) -> None:
        self.page.get_by_role("button", name=f"Search with this example: {name}").click()
        self.wait_for_results()

    def on_map(self, longitude: float, latitude: float) -> tuple[float, float]:
        """The pixel of the window that shows a point of the map."""
        point = f"c.map.latLngToContainerPoint([{latitude}, {longitude}])"
        x, y = self.component(".map", f"(() => {{ const p = {point}; return [p.x, p.y]; }})()")
        box = self.page.locator(".map-canvas").bounding_box()
        return box["x"] + x, box["y"] + y

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        mouse.move(*end)
        mouse.up()


@pytest.fixture
def visit(browser, server) -> Iterator[Visit]:
    visitor = Visit(browser, server)
    yield visitor
    visitor.context.close()
    check_clean(visitor)


@pytest.fixture
def phone(browser, server) -> Iterator[Visit]:
    size = {"width": 390, "height": 844}
    visitor = Visit(browser, server, viewport=size, has_touch=True, is_mobile=True)
    yield visitor
    visitor.context.close()
    check_clean(visitor)


def check_clean(visitor: Visit) -> None:
    """No request went to another host, and no script failed."""
    elsewhere = [url for url in visitor.requests if not_ours(url, visitor.server.host)]
    assert visitor.requests
    assert not elsewhere
    assert not visitor.faults


def not_ours(url: str, host: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.netloc != host


def ids_of(hits) -> list[str]:
    return [hit.id for hit in hits]


@pytest.fixture(scope="module")
def archive(server) -> Archive:
    return server.archive()


@pytest.fixture(scope="module")
def mosaic(archive) -> tuple[str, tuple[float, float, float, float]]:
    """The large scene's source, and its bounds."""
    (summary,) = [s for s in archive.sources() if s.tiled]
    return summary.source, summary.bounds


# ------------------------------------------------------------------------------------------- tests


def test_first_view_explains_itself_and_offers_examples(visit, archive):
    visit.open()
    assert visit.page.locator(".idea").count() == 1
    assert visit.page.locator(".examples img").count() == 8
    visit.page.get_by_text(f"{len(archive)} images").wait_for()
    visit.example("forest")
    (tile,) = visit.parameters["tile"]
    assert archive.get([tile])[0].properties["class"] == "forest"
    assert visit.ids == ids_of(archive.search(ById(tile), k=50))
    assert f"50 results among {len(archive)} images, in " in visit.page.inner_text(".status")


def test_an_uploaded_image_is_searched_with_stored_and_deleted(visit, archive, tmp_path):
    chip = next(r for r in archive.records(Filter(classes=["water"])))
    picture = tmp_path / "query.png"
    pixels = read_pixels(chip.source)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(picture)
    visit.open()
    visit.page.set_input_files(".drop input", picture)
    visit.wait_for_results()
    assert visit.ids == ids_of(archive.search(pixels, k=50))
    assert visit.ids[0] == chip.id
    (token,) = visit.parameters["image"]
    stored = visit.server.folder / "cache" / "rsir" / "uploads" / token
    assert stored.read_bytes() == picture.read_bytes()

    visit.page.reload()
    visit.wait_for_results()
    assert visit.ids[0] == chip.id

    link = visit.page.url
    visit.page.get_by_role("button", name="Delete it here").click()
    visit.page.get_by_role("heading", name="Find places that look alike").wait_for()
    assert not stored.exists()
    visit.page.goto(link)
    visit.page.get_by_role("alert").get_by_text("no longer on the service").wait_for()


def test_an_image_can_be_dropped_anywhere(visit, archive):
    record = next(archive.records(Filter(classes=["airport"])))
    data = list(Path(record.source).read_bytes())
    visit.open()
    visit.page.evaluate(
        "(data) => { const files = new DataTransfer();"
        "files.items.add(new File([new Uint8Array(data)], 'dropped.tif'));"
        "for (const type of ['dragenter', 'dragover', 'drop']) document.body.dispatchEvent("
        "new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: files })); }",
        data,
    )
    visit.wait_for_results()
    assert visit.ids[0] == record.id


def test_a_file_that_is_no_image_is_refused_with_a_message(visit, tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    visit.open()
    visit.page.set_input_files(".drop input", tmp_path / "notes.png")
    visit.page.get_by_role("alert").get_by_text("the uploaded image").wait_for()
    assert "image" not in visit.parameters


def test_a_click_on_the_map_searches_with_the_tile_under_it(visit, archive, mosaic):
    source, _ = mosaic
    quoted = source.replace("'", "''")
    record = list(archive.records(Filter(where=f"source = '{quoted}'")))[7]
    ring = np.array(record.footprint["coordinates"][0])
    visit.open()
    visit.until("() => document.querySelectorAll('.leaflet-tile-loaded').length > 0")
    visit.page.mouse.click(*visit.on_map(*ring[:4].mean(axis=0)))
    visit.wait_for_results()
    assert visit.parameters["tile"] == [record.id]
    assert visit.ids == ids_of(archive.search(ById(record.id), k=50))


def test_a_rectangle_on_a_scene_is_searched_with(visit, archive, mosaic):
    source, (west, south, east, north) = mosaic
    visit.open()
    visit.page.get_by_role("button", name="Search here").click()
    width, height = east - west, north - south
    start = visit.on_map(west + 0.1 * width, north - 0.1 * height)
    end = visit.on_map(west + 0.45 * width, north - 0.5 * height)
    visit.drag(start, end)
    visit.wait_for_results()
    window = tuple(map(float, visit.parameters["window"][0].split(",")))
    np.testing.assert_allclose(
        window,
        [west + 0.1 * width, north - 0.5 * height, west + 0.45 * width, north - 0.1 * height],
        atol=0.03 * width,
    )
    assert visit.ids == ids_of(archive.search(ByWindow(source, bbox=window), k=50))
    assert visit.page.get_by_alt_text("The query image").count() == 1


def test_thumbs_refine_the_search(visit, archive):
    visit.open()
    visit.example("road")
    tile = visit.parameters["tile"][0]
    like, unlike = visit.ids[4], visit.ids[1]
    visit.card(4).hover()
    visit.card(4).get_by_role("button", name="Like this, result 5", exact=True).click()
    visit.card(1).hover()
    visit.card(1).get_by_role("button", name="Not like this, result 2").click()
    assert visit.page.locator(".card.liked").get_attribute("data-index") == "4"
    visit.page.locator(".ratings img").nth(1).wait_for()
    visit.page.get_by_role("button", name="Refine the search").click()
    visit.page.wait_for_url("**like=**")
    visit.wait_for_results()
    assert (visit.parameters["like"], visit.parameters["unlike"]) == ([like], [unlike])
    query = Examples([ById(like)], [ById(unlike)], ById(tile))
    assert visit.ids == ids_of(archive.search(query, k=50))


def test_filters_narrow_the_search(visit, archive):
    visit.open()
    visit.example("field")
    tile = visit.parameters["tile"][0]

    visit.page.get_by_role("checkbox", name="forest").check()
    visit.page.get_by_role("checkbox", name="water").check()
    visit.wait_for_results("16 results among 16 images")
    assert visit.ids == ids_of(
        archive.search(ById(tile), k=50, filter=Filter(classes=["forest", "water"]))
    )

    visit.page.get_by_label("From").fill("2021-01-01")
    visit.wait_for_results()
    visit.page.get_by_label("To", exact=True).fill("2022-12-31")
    visit.wait_for_results()
    dated = Filter(
        classes=["forest", "water"],
        start=datetime(2021, 1, 1, tzinfo=UTC),
        end=datetime(2022, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    )
    expected = ids_of(archive.search(ById(tile), k=50, filter=dated))
    assert visit.ids == expected
    assert 0 < len(expected) < 16

    visit.page.get_by_role("button", name="Clear the filters").click()
    visit.wait_for_results(f"50 results among {len(archive)}")


def test_an_area_is_drawn_on_the_map(visit, archive, mosaic):
    _, (west, south, east, north) = mosaic
    visit.open()
    visit.example("water")
    visit.page.get_by_role("button", name="Only here").click()
    visit.drag(visit.on_map(west, north), visit.on_map((west + east) / 2, south))
    visit.page.wait_for_url("**area=**")
    area = tuple(map(float, visit.parameters["area"][0].split(",")))
    expected = archive.search(ById(visit.parameters["tile"][0]), k=50, filter=Filter(bbox=area))
    visit.wait_for_results(f"{len(expected)} results among")
    assert visit.ids == ids_of(expected)
    assert 0 < len(expected) < 50
    visit.page.get_by_role("button", name="Anywhere").click()
    visit.wait_for_results("50 results among")


def test_near_duplicates_can_be_left_out(visit, archive):
    visit.open()
    visit.example("carpark")
    tile = visit.parameters["tile"][0]
    visit.page.get_by_role("checkbox", name="Leave out near-duplicates").check()
    visit.page.wait_for_url("**diverse=1**")
    visit.wait_for_results()
    assert visit.ids == ids_of(archive.search(ById(tile), k=50, diverse=True))


@pytest.mark.parametrize(("name", "ranking"), [("codes", "hamming"), ("placed", "approximate")])
def test_another_ranking_can_be_chosen(visit, name, ranking):
    visit.open(f"?archive={name}")
    visit.page.locator(".examples button").first.click()
    visit.wait_for_results()
    own = visit.ids
    visit.page.get_by_label("Compare by").select_option(ranking)
    visit.wait_for_results()
    (tile,) = visit.parameters["tile"]
    archive = Archive.open(visit.server.folder / name)
    assert visit.ids == ids_of(archive.search(ById(tile), k=50, ranking=ranking))
    assert set(visit.parameters["ranking"]) == {ranking}
    visit.page.get_by_label("Compare by").select_option("")
    visit.wait_for_results()
    assert visit.ids == own


def test_the_selection_is_exported(visit, archive, tmp_path):
    visit.open()
    visit.example("industry")
    for index in (2, 0):
        visit.card(index).hover()
        visit.card(index).get_by_role("checkbox").check()
    visit.page.get_by_role("button", name="2 selected; select none").wait_for()
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download as GeoJSON").click()
    download.value.save_as(tmp_path / "some.geojson")
    some = json.loads((tmp_path / "some.geojson").read_text("utf-8"))
    assert [feature["id"] for feature in some["features"]] == [visit.ids[0], visit.ids[2]]
    (record,) = archive.get([visit.ids[0]])
    assert some["features"][0]["geometry"] == record.footprint
    assert some["features"][0]["properties"]["source"] == record.source

    visit.page.get_by_role("button", name="2 selected; select none").click()
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download as CSV").click()
    download.value.save_as(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == visit.ids


def test_back_and_forward_go_through_the_searches(visit):
    visit.open()
    visit.example("forest")
    first, found = visit.page.url, visit.ids
    visit.more_like(3)
    second, more = visit.page.url, visit.ids
    assert (second, more) != (first, found)
    visit.page.go_back()
    visit.wait_for_results()
    assert (visit.page.url, visit.ids) == (first, found)
    visit.page.go_forward()
    visit.wait_for_results()
    assert (visit.page.url, visit.ids) == (second, more)
    visit.page.go_back()
    visit.page.go_back()
    visit.page.get_by_role("heading", name="Find places that look alike").wait_for()


def test_a_link_restores_the_search(visit, archive):
    names = ["forest", "road", "water"]
    tile, like, unlike = (next(archive.records(Filter(classes=[n]))).id for n in names)
    visit.open(
        f"?archive=placed&tile={tile}&like={like}&unlike={unlike}&class=forest&class=road"
        "&from=2019-06-01&diverse=1&count=200"
    )
    filter = Filter(classes=["forest", "road"], start=datetime(2019, 6, 1, tzinfo=UTC))
    query = Examples([ById(like)], [ById(unlike)], ById(tile))
    found = archive.search(query, k=100, filter=filter, diverse=True)
    assert visit.ids == ids_of(found)
    for name in ("forest", "road", "Leave out near-duplicates"):
        assert visit.page.get_by_role("checkbox", name=name).is_checked()
    assert not visit.page.get_by_role("checkbox", name="water").is_checked()
    assert visit.page.get_by_label("From").input_value() == "2019-06-01"
    assert visit.page.locator(".ratings img").count() == 2
    assert not visit.page.get_by_role("button", name="Refine the search").is_visible()

    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.page.get_by_role("button", name="Copy the link to this search").click()
    visit.page.get_by_text("The link is copied.").wait_for()
    assert visit.page.evaluate("navigator.clipboard.readText()") == visit.page.url


def test_light_or_dark_is_remembered(visit):
    visit.open()
    shade = "document.documentElement.dataset.shade"
    assert visit.page.evaluate(shade) == "light"
    visit.page.get_by_role("button", name="Light or dark").click()
    assert visit.page.evaluate(shade) == "dark"
    visit.page.reload()
    assert visit.page.evaluate(shade) == "dark"


def test_a_result_whose_picture_is_gone_says_so(visit):
    visit.page.route("**/thumbnail?size=256", lambda route: route.fulfill(status=410))
    visit.open()
    visit.example("forest")
    visit.card(0).get_by_text("No picture").wait_for()


def test_hovering_links_card_and_footprint(visit, archive):
    visit.open()
    visit.example("residential")
    visit.card(3).hover()
    visit.until(f"(id) => {MAP}.highlighted === id", arg=visit.ids[3])
    # A chip that overlaps no other: its footprint is under the pointer.
    index, record = next(
        (index, record)
        for index, record in enumerate(archive.get(visit.ids))
        if "window" not in record.properties
    )
    ring = np.array(record.footprint["coordinates"][0])
    x, y = visit.on_map(*ring[:4].mean(axis=0))
    visit.page.mouse.move(x - 2, y)
    visit.page.wait_for_timeout(60)  # Leaflet looks at the pointer every 32 ms
    visit.page.mouse.move(x, y)
    visit.until(f"(id) => {RESULTS}.highlighted === id", arg=visit.ids[index])


def test_details_show_all_that_is_known(visit, archive):
    visit.open()
    visit.example("water")
    (record,) = archive.get([visit.ids[1]])
    visit.card(1).locator(".picture").click()
    dialog = visit.page.get_by_role("dialog", name="Details of a result")
    dialog.wait_for()
    shown = dialog.inner_text()
    assert record.source in shown
    assert "red, green, blue" in shown
    assert record.datetime.strftime("%Y-%m-%d %H:%M UTC") in shown
    assert "° N, 9." in shown
    dialog.get_by_role("button", name="Next result").click()
    (following,) = archive.get([visit.ids[2]])
    dialog.get_by_text(following.source).wait_for()
    visit.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_the_keyboard_suffices(visit):
    visit.open()
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the results"
    visit.page.get_by_role("button", name="Search with this example: road").focus()
    visit.page.keyboard.press("Enter")
    visit.wait_for_results()
    visit.until("() => document.activeElement.dataset.index === '0'")
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowDown")
    columns = visit.component(".results", "c.columns")
    visit.until("(index) => document.activeElement.dataset.index === index", arg=str(1 + columns))
    visit.page.keyboard.press("End")
    visit.until("() => document.activeElement.dataset.index === '49'")
    visit.page.keyboard.press("Home")
    visit.until("() => document.activeElement.dataset.index === '0'")
    visit.page.keyboard.press("Space")
    visit.page.keyboard.press("+")
    visit.page.locator(".card.liked.selected[data-index='0']").wait_for()
    visit.page.keyboard.press("Enter")
    visit.page.get_by_role("dialog", name="Details of a result").wait_for()
    visit.page.keyboard.press("Escape")
    visit.page.get_by_role("dialog").wait_for(state="hidden")
    visit.until("() => document.activeElement.dataset.index === '0'")
    found = visit.ids
    visit.page.keyboard.press("m")
    visit.page.wait_for_url(f"**tile={found[0]}**")


def test_the_view_of_the_map_can_replace_dragging(visit):
    visit.open()
    visit.example("road")
    visit.page.get_by_role("button", name="Only here").press("Enter")
    visit.page.get_by_role("button", name="Use this view").press("Enter")
    visit.page.wait_for_url("**area=**")


def test_five_thousand_results_stay_quick(visit):
    visit.open("?archive=many")
    tile = visit.page.locator(".examples button").first
    tile.click()
    visit.wait_for_results("50 results among 5,329 images")
    visit.page.locator("label", has_text="Results").get_by_role("combobox").select_option("5000")
    visit.wait_for_results("5,000 results among 5,329 images")
    assert visit.ids == ids_of(
        visit.server.archive("many").search(ById(visit.parameters["tile"][0]), k=5000)
    )
    assert visit.page.locator(".card").count() < 100
    assert visit.card(0).get_attribute("aria-setsize") == "5000"
    visit.page.locator(".card").first.focus()
    visit.page.keyboard.press("End")
    visit.card(4999).wait_for()
    visit.until("() => document.activeElement.dataset.index === '4999'")
    assert visit.page.locator(".card").count() < 100
    visit.card(4999).locator("img").wait_for()


def test_a_restart_of_the_service_restores_the_search(visit, tmp_path):
    picture = tmp_path / "grey.png"
    Image.fromarray(np.full((40, 40, 3), 120, np.uint8)).save(picture)
    visit.open()
    visit.page.set_input_files(".drop input", picture)
    visit.wait_for_results()
    found, url = visit.ids, visit.page.url
    visit.page.evaluate("window.before = true")
    visit.server.stop()
    visit.page.get_by_text("Connection lost").wait_for()
    visit.server.start()
    # The page notices the restart and reloads itself.
    visit.until("() => !window.before && window.did_handshake")
    visit.seen = 0
    visit.wait_for_results()
    assert (visit.ids, visit.page.url) == (found, url)
    visit.more_like(2)


def test_without_georeference_there_is_no_map(visit):
    visit.open("?archive=plain")
    assert visit.page.locator(".map").count() == 0
    assert visit.page.get_by_label("From").count() == 0
    visit.page.locator(".examples button").first.click()
    visit.wait_for_results("39 results among 40 images")


def test_names_of_files_and_classes_are_text(visit):
    visit.open("?archive=plain")
    visit.page.get_by_role("checkbox", name="<b>bold").wait_for()
    visit.page.locator(".examples button").last.click()
    visit.wait_for_results()
    archive = visit.server.archive("plain")
    hostile = next(r for r in archive.records() if "onerror" in r.source)
    index = visit.ids.index(hostile.id)
    visit.component(".results", f"c.go({index})")
    visit.card(index).locator(".class", has_text="<b>bold").wait_for()
    visit.page.keyboard.press("Enter")
    dialog = visit.page.get_by_role("dialog", name="Details of a result")
    dialog.get_by_role("heading", name="<img src=x onerror=alert(1)>.png").wait_for()
    assert visit.page.locator("img[src='x']").count() == 0
    assert visit.page.locator(".card b", has_text="bold").count() == 0


def test_links_that_make_no_sense_show_a_problem(visit):
    for link, words in (
        ("?archive=placed&count=-3", "count"),
        ("?archive=placed&window=1,2", "without a rectangle"),
        ("?archive=nowhere", "nowhere"),
        ("?archive=placed&tile=unknown", "was deleted since"),
        ("?archive=placed&like=unknown&tile=unknown2", "was deleted since"),
        ("?archive=placed&scene=0123456789abcdef&window=1,2,3,4", "has no scene"),
        (f"?archive=placed&image={32 * '0'}", "deletes uploads after"),
        ("?archive=placed&from=2024-13-01&tile=a", "2024-13-01"),
        ("?archive=placed&image=../../etc/passwd", "not the token of an uploaded image"),
    ):
        visit.page.goto(f"http://{visit.server.host}/{link}")
        visit.page.get_by_role("alert").get_by_text(words).wait_for()
        visit.page.get_by_role("alert").get_by_text("This link does not work: ").wait_for()
        # The visitor can go on from here.
        visit.page.get_by_role("heading", name="Find places that look alike").wait_for()


SLOW_LINK = 0.25
"""Seconds that each picture takes in the tests of a slow link."""


def slow_down(visit: Visit) -> list[tuple[str, str]]:
    """Delay all pictures; returns the list of ("asked" or "there", address), which grows."""
    log: list[tuple[str, str]] = []

    def answer(route: Any) -> None:
        log.append(("asked", route.request.url))
        response = route.fetch()
        time.sleep(SLOW_LINK)
        route.fulfill(response=response)
        log.append(("there", route.request.url))

    visit.page.route(re.compile(r"/thumbnail|/tiles/"), answer)
    return log


def test_on_a_slow_link_the_pictures_in_view_come_first(visit, archive):
    tile = next(record.id for record in archive.records() if record.properties.get("class"))
    log = slow_down(visit)
    visit.open(f"?archive=placed&tile={tile}")
    visit.until(
        "() => document.querySelectorAll('.leaflet-tile-loaded').length > 0", timeout=60_000
    )
    shown = visit.page.evaluate(
        "() => { const view = document.querySelector('.middle').getBoundingClientRect();"
        "return [...document.querySelectorAll('.results img')].filter((img) =>"
        "img.getBoundingClientRect().top < view.bottom).map((img) => img.src) }"
    )
    assert len(shown) > 6
    first_tile = next(n for n, (_, url) in enumerate(log) if "/tiles/" in url)
    there = {url for what, url in log[:first_tile] if what == "there"}
    assert set(shown) <= there
    # Pictures of the first view are not fetched: it never shows.
    query = f"/items/{tile}/thumbnail"
    results = set(visit.ids)
    thumbnails = [url for what, url in log if what == "asked" and "/thumbnail" in url]
    assert all(
        query in url or url.split("/items/")[1].split("/")[0] in results for url in thumbnails
    )


def test_a_hidden_map_fetches_no_tiles(phone):
    phone.open()
    phone.example("forest")
    phone.page.wait_for_timeout(500)
    assert not [url for url in phone.requests if "/tiles/" in url]
    phone.page.get_by_role("button", name="Map", exact=True).tap()
    phone.until("() => document.querySelectorAll('.leaflet-tile-loaded').length > 0")
    assert [url for url in phone.requests if "/tiles/" in url]


def test_scenes_are_outlined_by_their_footprints(visit, mosaic):
    visit.open()
    rings = visit.component(".map", "c.sceneLayers.map(({ ring }) => ring)")
    source, bounds = mosaic
    footprints = [r.footprint for r in visit.server.archive().records() if r.source == source]
    whole = shapely.union_all([shape(footprint) for footprint in footprints]).convex_hull
    outline = max((shapely.Polygon(ring) for ring in rings), key=lambda ring: ring.area)
    assert outline.symmetric_difference(whole).area < 1e-3 * whole.area  # to 6 decimals
    assert whole.area < 0.999 * shapely.box(*bounds).area  # it is turned against the meridians


def test_on_a_phone_one_panel_shows_at_a_time(phone):
    phone.open()
    phone.page.get_by_role("button", name="Choose an image").wait_for()
    assert not phone.page.locator(".map-canvas").is_visible()
    phone.example("forest")
    phone.page.get_by_role("button", name="Map", exact=True).tap()
    phone.page.locator(".map-canvas").wait_for()
    phone.until("() => document.querySelectorAll('.leaflet-tile-loaded').length > 0")
    assert not phone.card(0).is_visible()
    phone.page.get_by_role("button", name="Query", exact=True).tap()
    phone.page.get_by_role("checkbox", name="forest").check()
    # The panel stays, because the visitor may want to set another filter.
    phone.page.get_by_role("button", name="Clear the filters").wait_for()
    phone.page.get_by_role("button", name="Results", exact=True).tap()
    phone.wait_for_results("7 results among")
    wide = phone.page.evaluate("document.documentElement.scrollWidth")
    assert wide == 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(browser, server, scheme):
    """axe finds no violation of WCAG 2.2 AA: names and roles, contrast of 4.5, and so on."""
    visit = Visit(browser, server, color_scheme=scheme)
    visit.open()
    check_accessible(visit)
    visit.example("forest")
    visit.card(0).hover()
    visit.card(0).get_by_role("button", name="Like this, result 1", exact=True).click()
    visit.page.get_by_role("button", name="Only here").click()
    check_accessible(visit)
    visit.card(2).locator(".picture").click()
    visit.page.get_by_role("dialog").get_by_role("heading").wait_for()
    visit.page.wait_for_timeout(400)  # the dialog fades in, which lowers the contrast
    check_accessible(visit)
    visit.context.close()
    check_clean(visit)


def check_accessible(visit: Visit) -> None:
    from axe_playwright_python.sync_playwright import Axe

    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"runOnly": {"type": "tag", "values": tags}, "resultTypes": ["violations"]}
    found = Axe().run(visit.page, options=options).response["violations"]
    violations = [(v["id"], v["help"], [n["html"][:150] for n in v["nodes"]][:3]) for v in found]
    assert not violations
