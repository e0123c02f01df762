"""The layout of the page and the content of its parts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nicegui import html, ui

from rsir.web.page import cards
from rsir.web.page.details import DetailsDialog
from rsir.web.page.elements import (
    Map,
    Results,
    button,
    dropdown,
    icon,
    image,
    pairs_list,
    with_attributes,
)
from rsir.web.page.search_state import SearchState
from rsir.web.page.sidebar import Sidebar
from rsir.web.page.uploads import HOURS

if TYPE_CHECKING:
    from rsir.web.page.actions import Actions
    from rsir.web.page.run_search import SearchResult

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
    """The elements of one page; they call `actions` when the visitor uses them.

    map: None for an archive without georeference. searching: whether the page begins with a search,
    and not with the first view.
    """

    def __init__(self, actions: Actions, *, searching: bool) -> None:
        self._actions = actions
        self._begins_searching = searching
        self.map: Map | None = None
        page = with_attributes(html.div().classes("page"), data_panel="results")
        with page:
            self._build_header()
            with html.div().classes("panels"):  # within NiceGUI's <main>
                side = html.section().classes("side")
                with with_attributes(side, aria_label="Query and filters"):
                    self._sidebar = Sidebar(actions)
                middle = with_attributes(html.section().classes("middle"), aria_label="Results")
                with with_attributes(middle, data_scrolls=""):
                    self._build_middle()
                if actions.overview.scenes:
                    map_panel = html.section().classes("map-panel")
                    with with_attributes(map_panel, aria_label="Map"):
                        self.map = self._build_map()
            self._build_tabs()
        if self.map is None:
            page.classes("no-map")
        self.details = DetailsDialog(actions)
        self._build_keys()
        ui.on("rsir_back", lambda event: actions.open_link(str(event.args)))
        ui.skip_link("Skip to the results", target=middle)

    # -------------------------------------------------------------------------------------- layout

    def _build_header(self) -> None:
        actions = self._actions
        with html.header().classes("bar"):
            home = html.a().classes("brand")
            with with_attributes(home, href=actions.home_address(), title="Start again"):
                icon("satellite_alt")
                html.span("rsir")
            names = {name: name for name in sorted(actions.service.archives)}
            if len(names) > 1:
                dropdown("Archive", names, actions.archive, self._open_archive)
            else:
                html.span(actions.archive).classes("bar-name")
            html.span(f"{actions.overview.count:,} images").classes("bar-count")
            html.span().classes("space")
            button("", lambda: self.keys.open(), symbol="keyboard", label="Keys", kind="quiet keys")
            button("", symbol="contrast", label="Light or dark", kind="quiet", script="rsirShade()")

    def _open_archive(self, name: str) -> None:
        ui.navigate.to("./?" + SearchState(name).to_link())

    def _build_middle(self) -> None:
        actions = self._actions
        self._problem = with_attributes(html.div().classes("problem"), role="alert")
        self._welcome = html.div().classes("welcome")
        # Before the first message to the browser, so that no example is fetched.
        self._welcome.visible = not self._begins_searching
        with self._welcome:
            self._build_welcome()
        self._head = html.div().classes("head")
        with self._head:
            self._build_head()
        self.results = Results(expected=self._begins_searching)
        self.results.on("details", lambda event: actions.show_details(event.args))
        self.results.on(
            "more", lambda event: actions.search(actions.state.with_query(tile=event.args))
        )
        self.results.on("rate", lambda event: actions.rate(event.args["id"], event.args["rating"]))
        self.results.on("selected", lambda event: actions.select(event.args))

    def _build_welcome(self) -> None:
        overview = self._actions.overview
        html.h1("Find places that look alike")
        html.p(IDEA).classes("idea")
        button(
            "Choose an image", symbol="add_photo_alternate", kind="main phone-only",
            script="document.querySelector('.drop input').click()",
        )  # fmt: skip
        if overview.examples:
            html.h2("Try one of these")
            with html.ul().classes("examples"):
                for id, name in overview.examples:
                    with html.li():
                        self._build_example(id, name)
        if overview.scenes:
            html.p(
                "Or click on an image on the map, or draw a rectangle on a scene there."
            ).classes("note")
        html.p(
            "The service stores an image that you choose for "
            f"{HOURS} hours, so that a link to the search works; then it deletes the image."
        ).classes("note")

    def _build_example(self, id: str, name: str) -> None:
        actions = self._actions
        text = f"Search with this example: {name}" if name else "Search with this example"
        search = button(
            "", lambda: actions.search(actions.state.with_query(tile=id)),
            kind="example", label=text,
        )  # fmt: skip
        with search:
            image(cards.picture_address(actions.archive, id), "")
            if name:
                html.span(name)

    def _build_head(self) -> None:
        actions, results = self._actions, self._run_on_results
        html.h1("Search results").classes("unseen")
        self._status = with_attributes(html.p().classes("status"), role="status")
        with html.div().classes("row"):
            self._refine = button("Refine the search", actions.refine, symbol="tune", kind="main")
            button("Select all", lambda: results("selectAll"), kind="quiet")
            self._unselect = button("Select none", lambda: results("select", []), kind="quiet")
            for format, text in (("geojson", "GeoJSON"), ("csv", "CSV")):
                download = button(
                    text, lambda f=format: actions.download(f), symbol="download", kind="quiet"
                )
                label = f"Download as {text}"
                with_attributes(download, aria_label=label, title=label)
            button(
                "Link", symbol="link", label="Copy the link to this search", kind="quiet",
                script="rsirCopy(location.href)",
            )  # fmt: skip

    def _run_on_results(self, method: str, *arguments: Any) -> None:
        self.results.run_method(method, *arguments)

    def _build_map(self) -> Map:
        actions = self._actions
        element = Map()
        element.on("ready", self._fill_map)
        element.on("point", lambda event: actions.search_point(event.args))
        element.on("window", lambda event: actions.search_rectangle(event.args))
        element.on("area", lambda event: actions.filter_by_area(event.args))
        element.on("details", lambda event: actions.show_details(event.args))
        return element

    def _fill_map(self) -> None:
        assert self.map is not None
        actions = self._actions
        archive = cards.quoted(actions.archive)
        tiles = f"api/archives/{archive}/scenes/{{scene}}/tiles/{{z}}/{{x}}/{{y}}.png"
        scenes = sorted(actions.overview.scenes.items(), key=lambda scene: -scene[1].size)
        shown = [(id, scene.bounds, scene.ring) for id, scene in scenes[:MOST_SCENES]]
        self.map.run_method("showScenes", tiles, shown)
        self._show_rectangles(actions.state)

    def _build_tabs(self) -> None:
        """The tabs by which a phone shows one panel at a time."""
        names = {"query": ("tune", "Query"), "results": ("grid_view", "Results")}
        if self.map is not None:
            names["map"] = ("map", "Map")
        with with_attributes(html.nav().classes("tabs"), aria_label="Parts of the page"):
            for name, (symbol, text) in names.items():
                tab = button(text, symbol=symbol, script=f"rsirPanel({json.dumps(name)})")
                with_attributes(tab, data_tab=name)

    def _build_keys(self) -> None:
        self.keys = with_attributes(ui.dialog(), aria_label="Keys")
        with self.keys, html.div().classes("details narrow"):
            html.h2("Keys")
            pairs_list(KEYS)
            button("Close", self.keys.close)

    # ------------------------------------------------------------------------------------- content

    def show_state(self, state: SearchState) -> None:
        """Set all controls to a search."""
        self._problem.visible = False
        self._sidebar.show_state(state)
        self.show_ratings(state)
        self._show_rectangles(state)

    def show_welcome(self) -> None:
        """Show the first view, without a search."""
        self._show_parts(welcome=True)
        self.results.run_method("begin", 0, 0)

    def show_searching(self, keep_panel: bool) -> None:
        """Show that a search runs; keep_panel: whether a phone keeps showing its current panel."""
        self._show_parts(results=True)
        self._show_status("Searching …")
        self.show_selection(0)
        if not keep_panel:
            ui.run_javascript("rsirPanel('results')")

    def show_result(self, result: SearchResult) -> None:
        """Show the number of results, the time that the search took, and its query."""
        count, state = len(result.hits), self._actions.state
        searched = f"{result.hits.searched:,} images"
        if count:
            results = "1 result" if count == 1 else f"{count:,} results"
            milliseconds = f"{1000 * result.hits.seconds:,.0f} ms"
            self._show_status(f"{results} among {searched}, in {milliseconds}")
        elif state.has_filter:
            self._show_status(f"Nothing found: the filters leave {searched}. Clear some of them.")
        else:
            self._show_status(f"Nothing found among {searched}.")
        self._sidebar.show_query(state, result.picture)

    def show_no_result(self) -> None:
        """Hide the results after a failed search; `show_problem` has shown the reason."""
        self._show_status("")
        self._show_parts()
        self.results.run_method("begin", 0, 0)

    def show_problem(self, message: str) -> None:
        """Show what went wrong, as text."""
        self._problem.clear()
        with self._problem:
            icon("error_outline")
            html.span(message)
            button("", self._hide_problem, symbol="close", label="Close this message", kind="quiet")
        self._problem.visible = True

    def _hide_problem(self) -> None:
        self._problem.visible = False

    def show_ratings(self, draft: SearchState) -> None:
        """Show the ratings, and offer to search with them if they have changed."""
        ratings = dict.fromkeys(draft.like, 1) | dict.fromkeys(draft.unlike, -1)
        self.results.run_method("showRatings", ratings)
        self._sidebar.show_ratings(draft)
        state = self._actions.state
        changed = (draft.like, draft.unlike) != (state.like, state.unlike)
        self._refine.visible = changed and bool(draft)

    def show_selection(self, count: int) -> None:
        """Show how many results are selected."""
        self._unselect.visible = count > 0
        self._unselect.clear()
        with self._unselect:
            html.span(f"{count:,} selected")
            icon("close")
        with_attributes(self._unselect, aria_label=f"{count:,} selected; select none")

    def open_map(self, method: str, *arguments: Any) -> None:
        """Show the map, also on a phone, and call a method of its component."""
        ui.run_javascript("rsirPanel('map')")
        if self.map is not None:
            self.map.run_method(method, *arguments)

    def _show_parts(self, *, welcome: bool = False, results: bool = False) -> None:
        self._welcome.visible = welcome
        self._head.visible = self.results.visible = results

    def _show_status(self, text: str) -> None:
        self._status.clear()
        with self._status:
            html.span(text)

    def _show_rectangles(self, state: SearchState) -> None:
        if self.map is not None:
            self.map.run_method("showRectangles", state.window, state.area)
