"""One visitor's page: what happens when something on it is used.

How it looks is in `panels` and style.css. What is asked is an `SearchState`, which stands in the
address
of the page: a search is made by going to another one, and the browser's back button goes back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from nicegui import ui

from rsir.archive.exchange import features
from rsir.errors import RsirError
from rsir.types import Hit
from rsir.web.page import cards
from rsir.web.page.elements import say
from rsir.web.page.panels import Panels
from rsir.web.page.run_search import Found, find, tile_at
from rsir.web.page.search_state import SearchState, asked, bounds_of

if TYPE_CHECKING:
    from rsir.archive.search.hits import Hits
    from rsir.web.page.overview import Overview
    from rsir.web.page.uploads import Uploads
    from rsir.web.service.service import Service

T = TypeVar("T")

log = logging.getLogger("rsir.web")

FIRST, MORE = 60, 500
"""Results that are sent at first, and then at a time; our choice: a screen, and a tenth of the
most, so that the first ones show at once and other visitors are not kept waiting."""


class View:
    """The page of one visitor, of the archive of that name."""

    def __init__(
        self, service: Service, uploads: Uploads, archive: str, overview: Overview
    ) -> None:
        self.service = service
        self.uploads = uploads
        self.archive = archive
        self.overview = overview
        self.asked = SearchState(archive)
        self.draft = self.asked
        """What is asked, with ratings that were not searched with yet."""
        self.hits: Hits | None = None
        self.picked: list[str] = []
        self._run = 0
        self.panels = Panels(self)

    # ------------------------------------------------------------------------------------ searches

    async def go(self, wanted: SearchState, *, stay: bool = False) -> None:
        """Ask for something else; the address of the page changes with it.

        stay: a phone goes on showing the panel that it shows.
        """
        ui.run_javascript(
            f"history.pushState(null, '', './' + {json.dumps(self._address(wanted))})"
        )
        await self._answer(wanted, stay)

    async def arrive(self, link: str) -> None:
        """Show what the address of the page asks for, after it was opened or gone back to."""
        try:
            wanted = asked(link)
        except RsirError as error:
            await self._answer(SearchState(self.archive))
            self.panels.trouble(str(error))
            return
        if wanted.archive not in ("", self.archive):
            ui.navigate.to("./" + self._address(wanted))
            return
        await self._answer(replace(wanted, archive=self.archive))

    async def _answer(self, wanted: SearchState, stay: bool = False) -> None:
        self._run += 1
        run = self._run
        self.asked = self.draft = wanted
        self.hits, self.picked = None, []
        self.panels.ask(wanted)
        if not wanted:
            self.panels.welcome()
            return
        self.panels.search(stay)
        found = await self.tried(find(self.service, self.uploads, wanted))
        if run != self._run:
            return  # something else was asked meanwhile
        if found is None:
            self.panels.nothing()
            return
        self.hits = found.hits
        self.panels.found(found)
        await self._send(run, found)

    async def _send(self, run: int, found: Found) -> None:
        """Send the results, the first of them first."""
        results, hits = self.panels.results, found.hits
        results.run_method("begin", run, len(hits))
        start = 0
        while start < len(hits) and run == self._run:
            stop = min(len(hits), start + (FIRST if start == 0 else MORE))
            shown = await self.tried(self.service.run(self._cards, hits, start, stop))
            if shown is None:
                return
            results.run_method("push", run, shown)
            start = stop

    def _cards(self, hits: Hits, start: int, stop: int) -> list[dict[str, Any]]:
        return [cards.card(self.archive, hit) for hit in hits[start:stop]]

    async def tried(self, work: Awaitable[T]) -> T | None:
        """What `work` gives; if it fails, None, and the visitor is told why."""
        try:
            return await work
        except RsirError as error:
            self.panels.trouble(str(error))
        except Exception:
            log.exception("the page failed")
            self.panels.trouble("That went wrong on the service; its log says why.")
        return None

    def _address(self, wanted: SearchState) -> str:
        """The part of the address that asks for it; the name of the only archive goes unsaid."""
        only = len(self.service.archives) == 1
        link = (replace(wanted, archive="") if only else wanted).link()
        return f"?{link}" if link else ""

    def home(self) -> str:
        """The address of the page with nothing asked."""
        return "./" + self._address(SearchState(self.archive))

    # --------------------------------------------------------------------- what the visitor does

    async def at(self, point: Sequence[float]) -> None:
        """A click on the map: search with the tile that is there."""
        archive = self.service.archive(self.archive)
        known = self._run
        found = await self.tried(self.service.run(lambda: (tile_at(archive, *point),)))
        if found is None or known != self._run:
            return
        if found[0] is None:
            say("No image of the archive is there; click into one of the outlines.")
        else:
            await self.go(self.asked.by(tile=found[0]))

    async def rectangle(self, corners: Sequence[float]) -> None:
        """A rectangle on the map: search with what it shows of the smallest scene around it."""
        window = bounds_of(corners)
        scene = self.overview.scene_of(window)
        if scene is None:
            say("There is no scene under that rectangle.", bad=True)
        else:
            await self.go(self.asked.by(scene=scene, window=window))

    async def within(self, corners: Sequence[float]) -> None:
        """Only results in a rectangle of the map."""
        await self.narrow(area=bounds_of(corners))

    async def narrow(self, **changes: Any) -> None:
        """Other filters or another ranking; ratings that were given come along."""
        await self.go(replace(self.draft, **changes), stay=True)

    def rate(self, id: str, rating: int) -> None:
        """A thumb up, down, or taken back; searched with by `refine`."""
        self.draft = self.draft.rated(id, rating)
        self.panels.rated(self.draft)

    async def refine(self) -> None:
        """Search with the ratings."""
        await self.go(self.draft)

    async def forget(self) -> None:
        """Delete the uploaded image from the service."""
        if self.asked.image is not None:
            await self.tried(self.service.run(self.uploads.forget, self.asked.image))
            say("Your image is deleted from the service.")
        await self.go(self.asked.by())

    def pick(self, ids: Sequence[str]) -> None:
        """These results are selected."""
        self.picked = list(ids)
        self.panels.picked(len(self.picked))

    async def details(self, id: str, step: int = 0) -> None:
        """Show all that is known of a result, or of the one `step` further."""
        if self.hits is None:
            return
        hits = self.hits

        def looked_up() -> tuple[int, Hit] | None:
            place = next((i for i, hit in enumerate(hits) if hit.id == id), None)
            if place is None:
                return None
            place = (place + step) % len(hits)
            return place, hits[place]

        found = await self.tried(self.service.run(looked_up))
        if found is not None and hits is self.hits:
            self.panels.details.show(*found)

    async def save(self, kind: str) -> None:
        """Download the selected results, or all if none is, as "geojson" or "csv"."""
        if self.hits is None:
            return
        hits, picked = self.hits, set(self.picked)

        def written() -> bytes:
            chosen = [hit for hit in hits if not picked or hit.id in picked]
            if kind == "csv":
                return features.table(chosen).encode()
            return json.dumps(features.collection(chosen), ensure_ascii=False).encode()

        data = await self.tried(self.service.run(written))
        if data is not None:
            ui.download(data, f"{self.archive}-results.{kind}", {"csv": "text/csv"}.get(kind, ""))
