"""The actions of a visitor. The parts of the page call them and do not know each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rsir.web.page.overview import Overview
    from rsir.web.page.search_state import SearchState
    from rsir.web.service.service import Service


class Actions(Protocol):
    """One visitor's page, as its parts see it; `rsir.web.page.view.View` provides it.

    service, archive, overview: the page's service, and the name and the overview of its archive.
    state: the last search. draft: the last search, with the ratings that the visitor gave since.
    """

    service: Service
    archive: str
    overview: Overview
    state: SearchState
    draft: SearchState

    async def search(self, state: SearchState, *, keep_panel: bool = False) -> None:
        """Make a search; the address of the page changes with it."""

    async def open_link(self, link: str) -> None:
        """Show the search that the page's address describes."""

    async def change(self, **changes: Any) -> None:
        """Search again with other filters, another ranking or count."""

    async def refine(self) -> None:
        """Search again with the ratings."""

    def rate(self, id: str, rating: int) -> None:
        """Rate a result: 1 for like this, -1 for not like this, 0 for neither."""

    async def delete_upload(self) -> None:
        """Delete the uploaded image from the service."""

    async def search_point(self, point: Sequence[float]) -> None:
        """Search with the tile under a point of the map (longitude, latitude)."""

    async def search_rectangle(self, corners: Sequence[float]) -> None:
        """Search with a rectangle of the map (west, south, east, north)."""

    async def filter_by_area(self, corners: Sequence[float]) -> None:
        """Show only results in a rectangle of the map (west, south, east, north)."""

    def select(self, ids: Sequence[str]) -> None:
        """Take the results of these ids as the selection."""

    async def show_details(self, id: str, step: int = 0) -> None:
        """Show all that is known of a result, or of the result `step` ranks after it."""

    async def download(self, format: str) -> None:
        """Download the selected results, or all if none is selected, as "geojson" or "csv"."""

    def show_problem(self, message: str) -> None:
        """Show what went wrong, as text."""

    def home_address(self) -> str:
        """The address of the page without a search."""

    @property
    def has_map(self) -> bool:
        """Whether the page shows a map."""

    def show_on_map(self, id: str) -> None:
        """Bring the footprint of a result into view on the map."""

    def draw_area(self) -> None:
        """Let the visitor draw the rectangle of `filter_by_area` on the map."""
