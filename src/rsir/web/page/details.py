"""All that is known of one result, in a dialog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import html, ui

from rsir.types import Hit
from rsir.web.page import cards
from rsir.web.page.elements import button, having, image, listed

if TYPE_CHECKING:
    from rsir.web.page.panels import Panels
    from rsir.web.page.view import View

_RATINGS = (("Like this", "thumb_up", 1), ("Not like this", "thumb_down", -1))


class Details:
    """The dialog of one page."""

    def __init__(self, view: View, panels: Panels) -> None:
        self._view = view
        self._panels = panels
        self._dialog = having(ui.dialog(), aria_label="Details of a result")
        with self._dialog:
            self._inside = html.div().classes("details")

    def show(self, place: int, hit: Hit) -> None:
        """Show the hit at a place, from 0, of the results."""
        view = self._view
        name = cards.name(hit.source)
        self._inside.clear()
        with self._inside:
            with html.div().classes("details-top"):
                html.h2(f"{place + 1}. {name}")
                button("", self._dialog.close, symbol="close", label="Close", kind="quiet")
            with html.div().classes("details-body"):
                image(cards.picture(view.archive, hit.id, cards.LARGE), f"Overhead image {name}")
                listed(cards.facts(hit, view.service.archive(view.archive).bands))
            with html.div().classes("row details-acts"):
                self._acts(place, hit)
        self._dialog.open()

    def _acts(self, place: int, hit: Hit) -> None:
        view = self._view
        rating = view.draft.rating(hit.id)
        button("More like this", lambda: self._more(hit.id), symbol="travel_explore", kind="main")
        for text, symbol, value in _RATINGS:
            rate = button(text, lambda v=value: self._rate(place, hit, v), symbol=symbol)
            having(rate, aria_pressed="true" if rating == value else "false")
        if hit.footprint is not None and self._panels.map is not None:
            button("On the map", lambda: self._reveal(hit.id), symbol="place")
        html.span().classes("space")
        for label, symbol, step in (
            ("Previous result", "chevron_left", -1), ("Next result", "chevron_right", 1),
        ):  # fmt: skip
            button("", lambda s=step: view.details(hit.id, s), symbol=symbol, label=label)

    async def _more(self, id: str) -> None:
        self._dialog.close()
        await self._view.go(self._view.asked.by(tile=id))

    def _rate(self, place: int, hit: Hit, rating: int) -> None:
        given = self._view.draft.rating(hit.id)
        self._view.rate(hit.id, 0 if given == rating else rating)
        self.show(place, hit)

    def _reveal(self, id: str) -> None:
        self._dialog.close()
        ui.run_javascript("rsirPanel('map')")
        if self._panels.map is not None:
            self._panels.map.run_method("reveal", id)
