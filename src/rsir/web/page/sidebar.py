"""The left side of the page: what is searched with, and what may be found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from nicegui import html, ui

from rsir.ranking import metric_named
from rsir.types import Bounds
from rsir.web.page import cards
from rsir.web.page.elements import Drop, button, checkbox, date_field, having, image, select
from rsir.web.page.search_state import COUNTS, SearchState, day
from rsir.web.page.uploads import HOURS

if TYPE_CHECKING:
    from rsir.web.page.panels import Panels
    from rsir.web.page.view import View


class Side:
    """The controls of one page; they show what `ask` is given, whoever asked it."""

    def __init__(self, view: View, panels: Panels) -> None:
        self._view = view
        self._panels = panels
        self._classes: dict[str, Any] = {}
        self._ranking: Any = None
        self._search()
        self._filters()
        self._order()

    def _search(self) -> None:
        view = self._view
        html.h2("Search with")
        self._query = html.div().classes("query")
        drop = Drop("page/uploads", view.service.settings.max_body)
        drop.on("sent", lambda event: view.go(view.asked.by(image=event.args)))
        drop.on("refused", lambda event: self._panels.trouble(event.args))
        self._ratings = html.div().classes("ratings")

    def _filters(self) -> None:
        view, overview = self._view, self._view.overview
        if overview.scenes or overview.days or overview.classes:
            html.h2("Show only")
        if overview.scenes:
            self._area = html.div().classes("area")
        if overview.days is not None:
            first, last = (one.isoformat() for one in overview.days)
            with html.div().classes("dates"):
                limits = {"least": first, "most": last}
                self._start = date_field("From", "", lambda v: view.narrow(start=day(v)), **limits)
                self._end = date_field("To", "", lambda v: view.narrow(end=day(v)), **limits)
        if overview.classes:
            with html.fieldset().classes("classes"):
                html.legend("Class")
                for name, count in overview.classes.items():
                    ticked = self._class_ticked(name)
                    self._classes[name] = checkbox(name, False, ticked, note=f"{count:,}")
        self._clear = button(
            "Clear the filters", lambda: view.narrow(**SearchState.NO_FILTER), kind="quiet"
        )

    def _class_ticked(self, name: str) -> Callable[[bool], Awaitable[None]]:
        async def ticked(on: bool) -> None:
            others = [c for c in self._view.draft.classes if c != name]
            await self._view.narrow(classes=tuple(sorted([*others, *[name] * on])))

        return ticked

    def _order(self) -> None:
        view = self._view
        html.h2("Ranking")
        rankings = _rankings(view.service.archive(view.archive).metric)
        if len(rankings) > 1:
            self._ranking = select(
                "Compare by", rankings, "", lambda v: view.narrow(ranking=v or None)
            )
        settings = view.service.settings
        self._varied = checkbox(
            "Only one of what looks alike",
            False,
            lambda v: view.narrow(varied=v),
            note=f"≤ {min(settings.max_diverse, settings.max_hits):,}",
        )
        most = min(settings.max_hits, COUNTS[-1])
        counts = {str(n): f"{n:,}" for n in (*(c for c in COUNTS if c < most), most)}
        self._count = select(
            "Results", counts, str(view.asked.count), lambda v: view.narrow(count=int(v))
        )

    def ask(self, wanted: SearchState) -> None:
        """Show what is asked, in all controls."""
        overview = self._view.overview
        self.query(wanted, None)
        if overview.scenes:
            self._show_area(wanted.area)
        if overview.days is not None:
            having(self._start, value=wanted.start.isoformat() if wanted.start else "")
            having(self._end, value=wanted.end.isoformat() if wanted.end else "")
        for name, box in self._classes.items():
            having(box, checked=name in wanted.classes)
        self._clear.visible = wanted.filtered
        if self._ranking is not None:
            having(self._ranking, value=wanted.ranking or "")
        having(self._varied, checked=wanted.varied)
        having(self._count, value=str(wanted.count))

    def query(self, wanted: SearchState, picture: str | None) -> None:
        """Show what is searched with; picture: of an upload or a rectangle, as an address."""
        view = self._view
        self._query.clear()
        self._query.visible = wanted.has_query
        with self._query:
            if wanted.tile is not None:
                image(cards.picture(view.archive, wanted.tile), "The image that is searched with")
                html.p("An image of the archive")
            elif picture is not None:
                image(picture, "The image that is searched with")
                html.p("Your image" if wanted.image else "A rectangle of a scene")
            if wanted.image is not None:
                forget = button("Delete it here", view.forget, symbol="delete", kind="quiet")
                having(forget, title=f"It is deleted from the service {HOURS} hours after it came")
            elif wanted.has_query:
                button(
                    "Remove", lambda: view.go(view.draft.queryless()), symbol="close", kind="quiet"
                )

    def rated(self, draft: SearchState) -> None:
        """Show the ratings."""
        self._ratings.clear()
        with self._ratings:
            for title, ids in (("Like these", draft.like), ("Not like these", draft.unlike)):
                if not ids:
                    continue
                html.h3(title)
                with html.ul().classes("thumbs"):
                    for id in ids:
                        with html.li():
                            self._rating(id)

    def _rating(self, id: str) -> None:
        view = self._view
        image(cards.picture(view.archive, id), "")
        button("", lambda: view.rate(id, 0), symbol="close", label="Take this rating back")

    def _show_area(self, area: Bounds | None) -> None:
        view = self._view
        self._area.clear()
        with self._area:
            if area is None:
                html.span("Anywhere").classes("note")
                button("Draw an area", self._draw_area, symbol="filter_alt", kind="quiet")
            else:
                html.span(cards.box(area)).classes("note")
                button("Anywhere", lambda: view.narrow(area=None), symbol="close", kind="quiet")

    def _draw_area(self) -> None:
        ui.run_javascript("rsirPanel('map')")
        if self._panels.map is not None:
            self._panels.map.run_method("arm", "area")


def _rankings(metric: str) -> dict[str, str]:
    """Rankings that an archive of this metric can be searched by, with what they are; "" first."""
    kind = metric_named(metric)
    if kind.classes:
        return {"": "codes and class probabilities", "hamming": "codes alone"}
    if kind.kind == "bits":
        return {"": "codes"}
    return {
        "": "all vectors (exact)",
        "two-stage": "codes, then vectors",
        "approximate": "the nearest groups of vectors",
    }
