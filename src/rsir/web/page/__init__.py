"""The page for people: search by example in a browser, beside a map.

It needs NiceGUI (extra 'web'), which brings Vue, Quasar and Leaflet along, so the browser requests
nothing from another host. Each visitor has a `view.View`; the address describes their search.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from nicegui import core, ui

from rsir.errors import RsirError, UsageError
from rsir.web.page.overview import Overviews
from rsir.web.page.search_state import SearchState
from rsir.web.page.uploads import Uploads, default_folder
from rsir.web.page.view import View
from rsir.web.problems import WrongTypeError

if TYPE_CHECKING:
    from rsir.web.service.service import Service

STATIC = Path(__file__).parent / "static"
RECONNECT_SECONDS = 30.0
"""A tab that was disconnected for less time continues; otherwise it reloads itself. Our choice."""
DELETE_SECONDS = 900
"""Interval at which uploads that are too old are deleted; our choice."""
BUILD_SECONDS = 60.0
"""Longest time to build a page, which for the first visitor reads a large archive. Our choice."""

_SCOPE_KEY = "rsir.pages"
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'><rect width='24' height='24' "
    "rx='5' fill='#0b6b7a'/><circle cx='10.5' cy='10.5' r='5' fill='none' stroke='white' "
    "stroke-width='2.2'/><path d='M14.3 14.3L19 19' stroke='white' stroke-width='2.4' "
    "stroke-linecap='round'/></svg>"
)


def mount(app: FastAPI, service: Service, uploads: Path | None = None) -> None:
    """Put the page at "/" of `app`, after all its other addresses.

    uploads: the folder for images that visitors send; by default in the user's cache folder
    (`rsir.web.page.uploads`).

    Of several applications in one process, only one at a time can run with its page.
    """
    stored = Uploads(uploads or default_folder())

    @app.post("/page/uploads", include_in_schema=False)
    async def upload(request: Request) -> JSONResponse:
        """Store an image to search with; returns its token."""
        # A form on another site cannot send this type without the browser's preflight request.
        if request.headers.get("content-type") != "application/octet-stream":
            raise WrongTypeError("send application/octet-stream")
        data = await request.body()
        with suppress(UsageError):  # a raster of other bands, which an archive may have
            await service.read(data)
        return JSONResponse({"token": await service.run(stored.store, data)})

    # NiceGUI is one application per process; remove what an earlier application of ours set up.
    core.app.user_middleware.clear()
    core.app.middleware_stack = None
    ui.run_with(app, title="rsir", favicon=ICON, dark=None, tailwind=False,
                show_welcome_message=False, reconnect_timeout=RECONNECT_SECONDS)  # fmt: skip
    # Quasar's bar would show for every request, and has no name for screen readers.
    core.app.config.quasar_config["loadingBar"]["skipHijack"] = True
    ui.page("/", response_timeout=BUILD_SECONDS, language="en-US")(_page)
    app.add_middleware(_WithPages, pages=_Pages(service, stored))
    _delete_old_while_running(app, service, stored)


def _delete_old_while_running(app: FastAPI, service: Service, uploads: Uploads) -> None:
    """Delete uploads that are too old when the service starts, and then regularly."""
    original = app.router.lifespan_context

    async def delete_old() -> None:
        while True:
            with suppress(RsirError, OSError):
                await service.run(uploads.delete_old)
            await asyncio.sleep(DELETE_SECONDS)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        task = asyncio.create_task(delete_old())
        async with AsyncExitStack() as stack:
            with warnings.catch_warnings():
                # NiceGUI inspects all objects of the process, and some of torch's warn then.
                warnings.simplefilter("ignore", FutureWarning)
                state = await stack.enter_async_context(original(app))
            yield state
        task.cancel()

    app.router.lifespan_context = lifespan


class _Pages:
    """The state that all pages of a service share."""

    def __init__(self, service: Service, uploads: Uploads) -> None:
        self._service = service
        self._uploads = uploads
        self._overviews = Overviews(service)

    async def show(self, link: str) -> None:
        """Build the page of one visitor, then show the search of its link (a query string)."""
        style, script = ((STATIC / name).read_text("utf-8") for name in ("style.css", "page.js"))
        ui.add_head_html(f"<style>{style}</style><script>{script}</script>")
        name, dead = min(self._service.archives), None
        try:
            name = SearchState.from_link(link).archive or name
            overview = await self._overviews.of(name)
        except RsirError as error:
            name, dead = min(self._service.archives), error
            overview = await self._overviews.of(name)
        view = View(self._service, self._uploads, name, overview, "" if dead else link)
        await ui.context.client.connected()
        if dead:
            await view.show_dead_link(dead)
        else:
            await view.open_link(link)


async def _page(request: Request) -> None:
    pages: _Pages = request.scope[_SCOPE_KEY]
    await pages.show(request.url.query)


class _WithPages:
    """Middleware that adds `pages` to each request: NiceGUI's pages belong to the process."""

    def __init__(self, app: Any, pages: _Pages) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app({**scope, _SCOPE_KEY: self._pages}, receive, send)
