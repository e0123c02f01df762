"""The left side of the page: the query, the filters and the ranking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from nicegui import html

from rsir.ranking import metric_named
from rsir.types import Bounds
from rsir.web.page import cards
from rsir.web.page.elements import (
    Drop,
    button,
    checkbox,
    date_field,
    dropdown,
    image,
    with_attributes,
)
from rsir.web.page.search_state import COUNTS, SearchState, day_of
from rsir.web.page.uploads import HOURS

if TYPE_CHECKING:
    from rsir.web.page.actions import Actions


class Sidebar:
    """The controls of one page; `show_state` sets them all to a search."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._classes: dict[str, Any] = {}
        self._ranking: Any = None
        self._build_query()
        self._build_filters()
        self._build_ranking()

    def _build_query(self) -> None:
        actions = self._actions
        html.h2("Search with")
        self._query = html.div().classes("query")
        drop = Drop("page/uploads", actions.service.settings.max_body)
        drop.on("sent", lambda event: actions.search(actions.state.with_query(image=event.args)))
        drop.on("refused", lambda event: actions.show_problem(event.args))
        self._ratings = html.div().classes("ratings")

    def _build_filters(self) -> None:
        actions, overview = self._actions, self._actions.overview
        if overview.scenes or overview.days or overview.classes:
            html.h2("Show only")
        if overview.scenes:
            self._area = html.div().classes("area")
        if overview.days is not None:
            first, last = (day.isoformat() for day in overview.days)
            limits = {"least": first, "most": last}
            with html.div().classes("dates"):
                self._start = date_field(
                    "From", "", lambda v: actions.change(start=day_of(v)), **limits
                )
                self._end = date_field("To", "", lambda v: actions.change(end=day_of(v)), **limits)
        if overview.classes:
            with html.fieldset().classes("classes"):
                html.legend("Class")
                for name, count in overview.classes.items():
                    self._classes[name] = checkbox(
                        name, False, self._toggle_class(name), note=f"{count:,}"
                    )
        self._clear = button(
            "Clear the filters", lambda: actions.change(**SearchState.NO_FILTER), kind="quiet"
        )

    def _toggle_class(self, name: str) -> Callable[[bool], Awaitable[None]]:
        async def toggle(on: bool) -> None:
            others = [c for c in self._actions.draft.classes if c != name]
            await self._actions.change(classes=tuple(sorted([*others, *[name] * on])))

        return toggle

    def _build_ranking(self) -> None:
        actions = self._actions
        html.h2("Ranking")
        rankings = _rankings(actions.service.archive(actions.archive).metric)
        if len(rankings) > 1:
            self._ranking = dropdown(
                "Compare by", rankings, "", lambda v: actions.change(ranking=v or None)
            )
        settings = actions.service.settings
        self._diverse = checkbox(
            "Leave out near-duplicates",
            False,
            lambda v: actions.change(diverse=v),
        )
        most = min(settings.max_diverse, settings.max_hits)
        html.p(f"Then a search shows at most {most:,} results.").classes("note")
        most = min(settings.max_hits, COUNTS[-1])
        counts = {str(n): f"{n:,}" for n in (*(c for c in COUNTS if c < most), most)}
        self._count = dropdown(
            "Results", counts, str(actions.state.count), lambda v: actions.change(count=int(v))
        )

    def show_state(self, state: SearchState) -> None:
        """Set all controls to a search."""
        overview = self._actions.overview
        self.show_query(state, None)
        if overview.scenes:
            self._show_area(state.area)
        if overview.days is not None:
            for field, day in ((self._start, state.start), (self._end, state.end)):
                with_attributes(field, value=day.isoformat() if day else "")
        for name, box in self._classes.items():
            with_attributes(box, checked=name in state.classes)
        self._clear.visible = state.has_filter
        if self._ranking is not None:
            with_attributes(self._ranking, value=state.ranking or "")
        with_attributes(self._diverse, checked=state.diverse)
        with_attributes(self._count, value=str(state.count))

    def show_query(self, state: SearchState, picture: str | None) -> None:
        """Show the query; picture: the address of the picture of an upload or a rectangle."""
        actions = self._actions
        self._query.clear()
        self._query.visible = state.has_query
        with self._query:
            if state.tile is not None:
                image(cards.picture_address(actions.archive, state.tile), "The query image")
                html.p("An image of the archive")
            elif picture is not None:
                image(picture, "The query image")
                html.p("Your image" if state.image else "A rectangle of a scene")
            if state.image is not None:
                delete = button(
                    "Delete it here", actions.delete_upload, symbol="delete", kind="quiet"
                )
                title = f"The service deletes it {HOURS} hours after the upload"
                with_attributes(delete, title=title)
            elif state.has_query:
                button(
                    "Remove", lambda: actions.search(actions.draft.without_query()),
                    symbol="close", kind="quiet",
                )  # fmt: skip

    def show_ratings(self, draft: SearchState) -> None:
        """Show the rated images."""
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
        actions = self._actions
        image(cards.picture_address(actions.archive, id), "")
        button("", lambda: actions.rate(id, 0), symbol="close", label="Take this rating back")

    def _show_area(self, area: Bounds | None) -> None:
        actions = self._actions
        self._area.clear()
        with self._area:
            if area is None:
                html.span("Anywhere").classes("note")
                button("Draw an area", actions.draw_area, symbol="filter_alt", kind="quiet")
            else:
                html.span(cards.box_text(area)).classes("note")
                button("Anywhere", lambda: actions.change(area=None), symbol="close", kind="quiet")


def _rankings(metric: str) -> dict[str, str]:
    """The rankings of an archive with this metric, and their labels; "" (its own) comes first."""
    kind = metric_named(metric)
    if kind.classes:
        return {"": "codes and class probabilities", "hamming": "codes alone"}
    if kind.kind == "bits":
        return {"": "codes"}
    return {
        "": "all vectors (exact)",
        "approximate": "the nearest groups of vectors",
    }
