"""One visitor's page: its response to each action of the visitor.

`panels` and style.css determine how the page looks. The address of the page describes its search
(`SearchState`): every search has an address of its own, and the browser's back button goes back to
the search before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from nicegui import ui

from rsir.archive.exchange import features
from rsir.errors import ArchiveError, DataError, RsirError, UnknownIdError, UsageError
from rsir.types import Hit
from rsir.web.page import cards
from rsir.web.page.elements import notify
from rsir.web.page.panels import Panels
from rsir.web.page.run_search import SearchResult, run_search, tile_at
from rsir.web.page.search_state import SearchState, map_bounds

if TYPE_CHECKING:
    from rsir.archive.search.hits import Hits
    from rsir.web.page.overview import Overview
    from rsir.web.page.uploads import Uploads
    from rsir.web.service.service import Service

T = TypeVar("T")

log = logging.getLogger("rsir.web")

FIRST_CARDS, MORE_CARDS = 60, 500
"""Results in the first message to the browser, and in each later message; our choice: a screen, and
a tenth of the largest result, so that the first results show at once and other visitors are served
in between."""


class View:
    """The page of one visitor for one archive; provides `rsir.web.page.actions.Actions`.

    archive: its name. hits: the hits of the last search; None before the first. link: of the
    search that the page begins with (a query string); the caller then opens it.
    """

    def __init__(
        self, service: Service, uploads: Uploads, archive: str, overview: Overview, link: str = ""
    ) -> None:
        self.service = service
        self.uploads = uploads
        self.archive = archive
        self.overview = overview
        self.state = self.draft = SearchState(archive)
        self.hits: Hits | None = None
        self._selected: list[str] = []
        self._searches = 0
        searching = False
        with suppress(RsirError):
            searching = bool(SearchState.from_link(link))
        self.panels = Panels(self, searching=searching)

    # ------------------------------------------------------------------------------------ searches

    async def search(self, state: SearchState, *, keep_panel: bool = False) -> None:
        """Make a search; the address of the page changes with it.

        keep_panel: whether a phone keeps showing its current panel instead of the results.
        """
        address = json.dumps(self._address(state))
        ui.run_javascript(f"history.pushState(null, '', {address})")
        await self._show(state, keep_panel)

    async def open_link(self, link: str) -> None:
        """Show the search of a link (a query string) that the visitor opens or goes back to."""
        try:
            state = SearchState.from_link(link)
        except RsirError as error:
            await self.show_dead_link(error)
            return
        if state.archive not in ("", self.archive):
            ui.navigate.to(self._address(state))
            return
        await self._show(replace(state, archive=self.archive), is_link=True)

    async def show_dead_link(self, error: RsirError) -> None:
        """Say why a link shows nothing, above the first view."""
        await self._show(SearchState(self.archive))
        since = ""
        if isinstance(error, UnknownIdError):
            since = " The image was deleted since, or its file was indexed in another way."
        self.show_problem(f"This link does not work: {error}.{since} Start with another image.")

    async def _show(
        self, state: SearchState, keep_panel: bool = False, is_link: bool = False
    ) -> None:
        self._searches += 1
        number = self._searches
        self.state = self.draft = state
        self.hits, self._selected = None, []
        self.panels.show_state(state)
        if not state:
            self.panels.show_welcome()
            return
        self.panels.show_searching(keep_panel)
        dead: RsirError | None = None

        async def search() -> SearchResult | None:
            nonlocal dead
            try:
                return await run_search(self.service, self.uploads, state)
            except (UsageError, DataError, ArchiveError) as error:
                if not is_link:
                    raise
                dead = error
                return None

        result = await self._attempt(search())
        if number != self._searches:
            return  # the visitor has started another search meanwhile
        if dead is not None:
            await self.show_dead_link(dead)
            return
        if result is None:
            self.panels.show_no_result()
            return
        self.hits = result.hits
        self.panels.show_result(result)
        await self._send(number, result)

    async def _send(self, number: int, result: SearchResult) -> None:
        """Send the cards of the results to the browser, best first."""
        results, hits = self.panels.results, result.hits
        results.run_method("begin", number, len(hits))
        start = 0
        while start < len(hits) and number == self._searches:
            stop = min(len(hits), start + (FIRST_CARDS if start == 0 else MORE_CARDS))
            batch = await self._attempt(self.service.run(self._cards, hits, start, stop))
            if batch is None:
                return
            results.run_method("push", number, batch)
            start = stop

    def _cards(self, hits: Hits, start: int, stop: int) -> list[dict[str, Any]]:
        return [cards.card(self.archive, hit) for hit in hits[start:stop]]

    async def _attempt(self, work: Awaitable[T]) -> T | None:
        """The result of `work`; if it fails, None, and the page shows why."""
        try:
            return await work
        except RsirError as error:
            self.show_problem(str(error))
        except Exception:
            log.exception("the page failed")
            self.show_problem("The service failed; its log has the reason.")
        return None

    def _address(self, state: SearchState) -> str:
        """The address of a search; it does not name the archive if there is only one."""
        only = len(self.service.archives) == 1
        link = (replace(state, archive="") if only else state).to_link()
        return f"./?{link}" if link else "./"

    def home_address(self) -> str:
        """The address of the page without a search."""
        return self._address(SearchState(self.archive))

    # --------------------------------------------------------------------------- visitor's actions

    async def search_point(self, point: Sequence[float]) -> None:
        """Search with the tile under a point of the map (longitude, latitude)."""
        archive = self.service.archive(self.archive)
        number = self._searches
        # In a tuple: None alone would look like a failure.
        found = await self._attempt(self.service.run(lambda: (tile_at(archive, *point),)))
        if found is None or number != self._searches:
            return
        if found[0] is None:
            notify("The archive has no image there; click into one of the outlines.")
        else:
            await self.search(self.state.with_query(tile=found[0]))

    async def search_rectangle(self, corners: Sequence[float]) -> None:
        """Search with a rectangle of the map, cut from the smallest scene around it."""
        window = map_bounds(corners)
        scene = self.overview.scene_of(window)
        if scene is None:
            notify("There is no scene under that rectangle.", bad=True)
        else:
            await self.search(self.state.with_query(scene=scene, window=window))

    async def filter_by_area(self, corners: Sequence[float]) -> None:
        """Show only results in a rectangle of the map."""
        await self.change(area=map_bounds(corners))

    async def change(self, **changes: Any) -> None:
        """Search again with other filters, another ranking or count, and the current ratings."""
        await self.search(replace(self.draft, **changes), keep_panel=True)

    def rate(self, id: str, rating: int) -> None:
        """Rate a result: 1, -1, or 0 to take the rating back; `refine` searches with it."""
        self.draft = self.draft.with_rating(id, rating)
        self.panels.show_ratings(self.draft)

    async def refine(self) -> None:
        """Search again with the ratings."""
        await self.search(self.draft)

    async def delete_upload(self) -> None:
        """Delete the uploaded image from the service."""
        if self.state.image is not None:
            await self._attempt(self.service.run(self.uploads.delete, self.state.image))
            notify("Your image is deleted from the service.")
        await self.search(self.state.with_query())

    def select(self, ids: Sequence[str]) -> None:
        """Take the results of these ids as the selection."""
        self._selected = list(ids)
        self.panels.show_selection(len(self._selected))

    async def show_details(self, id: str, step: int = 0) -> None:
        """Show all that is known of a result, or of the result `step` ranks after it."""
        if self.hits is None:
            return
        hits = self.hits

        def look_up() -> tuple[int, Hit] | None:
            row = next((row for row, hit in enumerate(hits) if hit.id == id), None)
            if row is None:
                return None
            row = (row + step) % len(hits)
            return row + 1, hits[row]

        found = await self._attempt(self.service.run(look_up))
        if found is not None and hits is self.hits:
            self.panels.details.show(*found)

    async def download(self, format: str) -> None:
        """Download the selected results, or all if none is selected, as "geojson" or "csv"."""
        if self.hits is None:
            return
        hits, selected = self.hits, set(self._selected)

        def content() -> bytes:
            chosen = [hit for hit in hits if not selected or hit.id in selected]
            if format == "csv":
                return features.table(chosen).encode()
            return json.dumps(features.collection(chosen), ensure_ascii=False).encode()

        data = await self._attempt(self.service.run(content))
        if data is not None:
            media_type = "text/csv" if format == "csv" else ""
            ui.download(data, f"{self.archive}-results.{format}", media_type)

    def show_problem(self, message: str) -> None:
        """Show what went wrong, as text."""
        self.panels.show_problem(message)

    @property
    def has_map(self) -> bool:
        """Whether the page shows a map."""
        return self.panels.map is not None

    def show_on_map(self, id: str) -> None:
        """Bring the footprint of a result into view on the map."""
        self.panels.open_map("reveal", id)

    def draw_area(self) -> None:
        """Let the visitor draw the rectangle of `filter_by_area` on the map."""
        self.panels.open_map("draw", "area")
