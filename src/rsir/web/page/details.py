"""The dialog with all information about a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import html, ui

from rsir.types import Hit
from rsir.web.page import cards
from rsir.web.page.elements import button, image, pairs_list, with_attributes

if TYPE_CHECKING:
    from rsir.web.page.actions import Actions

_RATINGS = (("Like this", "thumb_up", 1), ("Not like this", "thumb_down", -1))


class DetailsDialog:
    """The dialog of one page."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._dialog = with_attributes(ui.dialog(), aria_label="Details of a result")
        with self._dialog:
            self._content = html.div().classes("details")

    def show(self, rank: int, hit: Hit) -> None:
        """Show a hit; rank: its rank in the results, from 1."""
        actions = self._actions
        name = cards.name(hit.source)
        bands = actions.service.archive(actions.archive).bands
        self._content.clear()
        with self._content:
            with html.div().classes("details-top"):
                html.h2(f"{rank}. {name}")
                button("", self._dialog.close, symbol="close", label="Close", kind="quiet")
            with html.div().classes("details-body"):
                image(
                    cards.picture_address(actions.archive, hit.id, cards.LARGE),
                    f"Overhead image {name}",
                )
                pairs_list(cards.facts(hit, bands))
            with html.div().classes("row details-actions"):
                self._buttons(rank, hit)
        self._dialog.open()

    def _buttons(self, rank: int, hit: Hit) -> None:
        actions = self._actions
        rating = actions.draft.rating(hit.id)
        button("More like this", lambda: self._more(hit.id), symbol="travel_explore", kind="main")
        for text, symbol, value in _RATINGS:
            rate = button(text, lambda v=value: self._rate(rank, hit, v), symbol=symbol)
            with_attributes(rate, aria_pressed="true" if rating == value else "false")
        if hit.footprint is not None and actions.has_map:
            button("On the map", lambda: self._show_on_map(hit.id), symbol="place")
        html.span().classes("space")
        for label, symbol, step in (
            ("Previous result", "chevron_left", -1), ("Next result", "chevron_right", 1),
        ):  # fmt: skip
            button("", lambda s=step: actions.show_details(hit.id, s), symbol=symbol, label=label)

    async def _more(self, id: str) -> None:
        self._dialog.close()
        await self._actions.search(self._actions.state.with_query(tile=id))

    def _rate(self, rank: int, hit: Hit, rating: int) -> None:
        current = self._actions.draft.rating(hit.id)
        self._actions.rate(hit.id, 0 if current == rating else rating)
        self.show(rank, hit)

    def _show_on_map(self, id: str) -> None:
        self._dialog.close()
        self._actions.show_on_map(id)
