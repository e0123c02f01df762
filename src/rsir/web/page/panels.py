"""How the page is laid out, and how it shows what there is to show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nicegui import html, ui

from rsir.types import Bounds
from rsir.web.page import cards
from rsir.web.page.details import Details
from rsir.web.page.elements import (
    Map,
    Results,
    button,
    having,
    icon,
    image,
    listed,
    select,
)
from rsir.web.page.search_state import SearchState
from rsir.web.page.sidebar import Side
from rsir.web.page.uploads import HOURS

if TYPE_CHECKING:
    from rsir.web.page.run_search import Found
    from rsir.web.page.view import View

IDEA = "Show an image or a place, and see what else in the archive looks like it."
"""The page in one sentence."""

KEYS = (
    ("Arrows, Home, End", "go from result to result"),
    ("Enter", "details of a result"),
    ("M", "more like this"),
    ("+ and -", "like this, not like this"),
    ("Space", "select a result"),
    ("Arrows, + and - on the map", "move it, zoom in and out"),
)
MOST_SCENES = 5000
"""Scenes whose outlines go to the map, the largest first; our choice, some 300 kB."""


class Panels:
    """The elements of one page; `view` is told what is done with them."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.map: Map | None = None
        self._build()

    def _build(self) -> None:
        page = having(html.div().classes("page"), data_panel="results")
        with page:
            self._header()
            with html.div().classes("panels"):  # within NiceGUI's <main>
                with having(html.section().classes("side"), aria_label="Query and filters"):
                    self.side = Side(self.view, self)
                middle = having(html.section().classes("middle"), aria_label="Results")
                with having(middle, data_scrolls=""):
                    self._middle()
                if self.view.overview.scenes:
                    with having(html.section().classes("place-panel"), aria_label="Map"):
                        self._map()
            self._tabs(page)
        if self.map is None:
            page.classes("no-map")
        self.details = Details(self.view, self)
        self._keys()
        ui.on("rsir_back", lambda event: self.view.arrive(str(event.args)))
        ui.skip_link("Skip to the results", target=middle)

    # ------------------------------------------------------------------------------- how it is laid

    def _header(self) -> None:
        view = self.view
        with html.header().classes("bar"):
            with having(html.a().classes("brand"), href=view.home(), title="Start again"):
                icon("satellite_alt")
                html.span("rsir")
            names = {name: name for name in sorted(view.service.archives)}
            if len(names) > 1:
                select("Archive", names, view.archive, self._other_archive)
            else:
                html.span(view.archive).classes("bar-name")
            html.span(f"{view.overview.count:,} images").classes("bar-count")
            html.span().classes("space")
            button("", lambda: self.keys.open(), symbol="keyboard", label="Keys", kind="quiet keys")
            button("", symbol="contrast", label="Light or dark", kind="quiet", script="rsirShade()")

    def _other_archive(self, name: str) -> None:
        ui.navigate.to("./?" + SearchState(name).link())

    def _middle(self) -> None:
        view = self.view
        self.trouble_box = having(html.div().classes("trouble"), role="alert")
        self.start_box = html.div().classes("welcome")
        with self.start_box:
            html.h1("Find places that look alike")
            html.p(IDEA).classes("idea")
            button(
                "Choose an image",
                symbol="add_photo_alternate",
                kind="main phone-only",
                script="document.querySelector('.drop input').click()",
            )
            if view.overview.examples:
                html.h2("Try one of these")
                with html.ul().classes("examples"):
                    for id, name in view.overview.examples:
                        with html.li():
                            self._example(id, name)
            if view.overview.scenes:
                html.p(
                    "Or click on an image on the map, or draw a rectangle on a scene there."
                ).classes("note")
            html.p(
                "An image that you choose stays on this service for "
                f"{HOURS} hours, so that a link to the search works; then it is deleted."
            ).classes("note")
        self.head = html.div().classes("head")
        with self.head:
            html.h1("Search results").classes("unseen")
            self.status = having(html.p().classes("status"), role="status")
            with html.div().classes("row"):
                self.refine = button("Refine the search", view.refine, symbol="tune", kind="main")
                self.select_all = button("Select all", self._select_all, kind="quiet")
                self.unselect = button("Select none", self._select_none, kind="quiet")
                for kind, text in (("geojson", "GeoJSON"), ("csv", "CSV")):
                    save = button(
                        text, lambda k=kind: view.save(k), symbol="download", kind="quiet"
                    )
                    having(save, aria_label=f"Download as {text}", title=f"Download as {text}")
                button(
                    "Link",
                    symbol="link",
                    label="Copy the link to this search",
                    kind="quiet",
                    script="rsirCopy(location.href)",
                )
        self.results = Results()
        self.results.on("details", lambda event: view.details(event.args))
        self.results.on("more", lambda event: view.go(view.asked.by(tile=event.args)))
        self.results.on("rate", lambda event: view.rate(event.args["id"], event.args["rating"]))
        self.results.on("picked", lambda event: view.pick(event.args))

    def _select_all(self) -> None:
        self.results.run_method("chooseAll")

    def _select_none(self) -> None:
        self.results.run_method("choose", [])

    def _example(self, id: str, name: str) -> None:
        view = self.view
        text = f"Search with this example: {name}" if name else "Search with this example"
        with button("", lambda: view.go(view.asked.by(tile=id)), kind="example", label=text):
            image(cards.picture(view.archive, id), "")
            if name:
                html.span(name)

    def _map(self) -> None:
        view = self.view
        self.map = Map()
        self.map.on("ready", self._map_ready)
        self.map.on("point", lambda event: view.at(event.args))
        self.map.on("window", lambda event: view.rectangle(event.args))
        self.map.on("area", lambda event: view.within(event.args))
        self.map.on("details", lambda event: view.details(event.args))

    def _map_ready(self) -> None:
        assert self.map is not None
        scenes = sorted(self.view.overview.scenes.items(), key=lambda scene: -_size(scene[1]))
        self.map.run_method("scenes", self._tiles(), scenes[:MOST_SCENES])
        self._rectangles(self.view.asked)

    def _tiles(self) -> str:
        archive = cards.quoted(self.view.archive)
        return f"api/archives/{archive}/scenes/{{scene}}/tiles/{{z}}/{{x}}/{{y}}.png"

    def _tabs(self, page: Any) -> None:
        """On a phone one panel shows at a time."""
        names = {"query": ("tune", "Query"), "results": ("grid_view", "Results")}
        if self.map is not None:
            names["map"] = ("map", "Map")
        with having(html.nav().classes("tabs"), aria_label="Parts of the page"):
            for name, (symbol, text) in names.items():
                tab = button(text, symbol=symbol, script=f"rsirPanel({json.dumps(name)})")
                having(tab, data_tab=name)

    def _keys(self) -> None:
        self.keys = having(ui.dialog(), aria_label="Keys")
        with self.keys, html.div().classes("details narrow"):
            html.h2("Keys")
            listed(KEYS)
            button("Close", self.keys.close)

    # -------------------------------------------------------------------------------- what it shows

    def ask(self, wanted: SearchState) -> None:
        """Show what is asked, in all controls."""
        self.trouble_box.visible = False
        self.side.ask(wanted)
        self.rated(wanted)
        self._rectangles(wanted)

    def welcome(self) -> None:
        """Nothing is asked."""
        self.start_box.visible, self.head.visible, self.results.visible = True, False, False
        self.results.run_method("begin", 0, 0)

    def search(self, stay: bool) -> None:
        """It is being searched; stay: a phone goes on showing the panel that it shows."""
        self.start_box.visible, self.head.visible, self.results.visible = False, True, True
        self._status("Searching …")
        self.picked(0)
        if not stay:
            ui.run_javascript("rsirPanel('results')")

    def found(self, found: Found) -> None:
        """What a search says of itself."""
        count, wanted = len(found.hits), self.view.asked
        among = f"{found.hits.searched:,} images"
        if count:
            results = "1 result" if count == 1 else f"{count:,} results"
            took = f"{1000 * found.hits.seconds:,.0f} ms"
            self._status(f"{results} among {among}, in {took}")
        elif wanted.filtered:
            self._status(f"Nothing found: the filters leave {among}. Clear some of them.")
        else:
            self._status(f"Nothing found among {among}.")
        self.side.query(wanted, found.picture)

    def nothing(self) -> None:
        """A search failed; `trouble` has said why."""
        self._status("")
        self.head.visible = self.results.visible = False
        self.results.run_method("begin", 0, 0)

    def trouble(self, message: str) -> None:
        """What went wrong, in words; as text."""
        self.trouble_box.clear()
        with self.trouble_box:
            icon("error_outline")
            html.span(message)
            button("", self._untroubled, symbol="close", label="Close this message", kind="quiet")
        self.trouble_box.visible = True

    def _untroubled(self) -> None:
        self.trouble_box.visible = False

    def rated(self, draft: SearchState) -> None:
        """Show the ratings, and whether they are searched with already."""
        given = dict.fromkeys(draft.like, 1) | dict.fromkeys(draft.unlike, -1)
        self.results.run_method("rated", given)
        self.side.rated(draft)
        changed = (draft.like, draft.unlike) != (self.view.asked.like, self.view.asked.unlike)
        self.refine.visible = changed and bool(draft)

    def picked(self, count: int) -> None:
        """So many results are selected."""
        self.unselect.visible = count > 0
        self.unselect.clear()
        with self.unselect:
            html.span(f"{count:,} selected")
            icon("close")
        having(self.unselect, aria_label=f"{count:,} selected; select none")

    def _status(self, text: str) -> None:
        self.status.clear()
        with self.status:
            html.span(text)

    def _rectangles(self, wanted: SearchState) -> None:
        if self.map is not None:
            self.map.run_method("rectangles", wanted.window, wanted.area)


def _size(bounds: Bounds) -> float:
    west, south, east, north = bounds
    return (east - west) * (north - south)
