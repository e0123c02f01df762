"""The page for people: search by example in a browser, beside a map.

It needs NiceGUI (extra 'web'), which brings Vue, Quasar and Leaflet along: nothing is asked of
another host. Per visitor there is a `view.View`; what they ask stands in the address.
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

from rsir.errors import RsirError
from rsir.web.page.overview import Overviews
from rsir.web.page.search_state import asked
from rsir.web.page.uploads import Uploads, default_folder
from rsir.web.page.view import View
from rsir.web.problems import WrongTypeError

if TYPE_CHECKING:
    from rsir.web.service.service import Service

STATIC = Path(__file__).parent / "static"
RECONNECT_SECONDS = 30.0
"""A tab that slept for so long goes on where it was; later it loads itself anew. Our choice."""
TIDY_SECONDS = 900
"""Between looks for uploads that are too old; our choice."""
BUILD_SECONDS = 60.0
"""In which the first visitor's page must be ready: a large archive is looked through for it."""

_SERVICE = "rsir.service"
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'><rect width='24' height='24' "
    "rx='5' fill='#0b6b7a'/><circle cx='10.5' cy='10.5' r='5' fill='none' stroke='white' "
    "stroke-width='2.2'/><path d='M14.3 14.3L19 19' stroke='white' stroke-width='2.4' "
    "stroke-linecap='round'/></svg>"
)


def mount(app: FastAPI, service: Service, uploads: Path | None = None) -> None:
    """Put the page at "/" of `app`, below everything that is there already.

    uploads: the folder where images that visitors send are kept for a while; the user's cache
    folder, if not given (`rsir.web.page.uploads`).

    Of several applications in one process one at a time can run with its page.
    """
    kept = Uploads(uploads or default_folder())

    @app.post("/page/uploads", include_in_schema=False)
    async def upload(request: Request) -> JSONResponse:
        """Keep an image to search with; answers with its token."""
        # A form on another site cannot send this type without being asked first.
        if request.headers.get("content-type") != "application/octet-stream":
            raise WrongTypeError("send application/octet-stream")
        data = await request.body()
        await service.read(data)
        return JSONResponse({"token": await service.run(kept.keep, data)})

    # NiceGUI is one application per process; what an earlier one of ours set up goes.
    core.app.user_middleware.clear()
    core.app.middleware_stack = None
    ui.run_with(app, title="rsir", favicon=ICON, dark=None, tailwind=False,
                show_welcome_message=False, reconnect_timeout=RECONNECT_SECONDS)  # fmt: skip
    # Quasar's bar would show for every request, and has no name for screen readers.
    core.app.config.quasar_config["loadingBar"]["skipHijack"] = True
    ui.page("/", response_timeout=BUILD_SECONDS, language="en-US")(_page)
    app.add_middleware(_Carry, pages=_Pages(service, kept))
    _tidy_while_running(app, service, kept)


def _tidy_while_running(app: FastAPI, service: Service, uploads: Uploads) -> None:
    """Look for uploads that are too old when the service starts, and then now and then."""
    other = app.router.lifespan_context

    async def tidy() -> None:
        while True:
            with suppress(RsirError, OSError):
                await service.run(uploads.tidy)
            await asyncio.sleep(TIDY_SECONDS)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[Any]:
        task = asyncio.create_task(tidy())
        async with AsyncExitStack() as stack:
            with warnings.catch_warnings():
                # NiceGUI looks at all objects of the process, and torch has some that warn then.
                warnings.simplefilter("ignore", FutureWarning)
                state = await stack.enter_async_context(other(app))
            yield state
        task.cancel()

    app.router.lifespan_context = life


class _Pages:
    """What the pages of one service have in common."""

    def __init__(self, service: Service, uploads: Uploads) -> None:
        self.service = service
        self.uploads = uploads
        self.overviews = Overviews(service)

    async def show(self, link: str) -> None:
        """Build the page of one visitor, then answer what its address asks."""
        style, script = ((STATIC / name).read_text("utf-8") for name in ("style.css", "page.js"))
        ui.add_head_html(f"<style>{style}</style><script>{script}</script>")
        name, problem = min(self.service.archives), ""
        try:
            name = asked(link).archive or name
            overview = await self.overviews.of(name)
        except RsirError as error:
            name, problem = min(self.service.archives), str(error)
            overview = await self.overviews.of(name)
        view = View(self.service, self.uploads, name, overview)
        await ui.context.client.connected()
        if problem:
            await view.arrive("")
            view.panels.trouble(problem)
        else:
            await view.arrive(link)


async def _page(request: Request) -> None:
    pages: _Pages = request.scope[_SERVICE]
    await pages.show(request.url.query)


class _Carry:
    """Tells the page which service it is of: NiceGUI's pages are the process's, not the app's."""

    def __init__(self, app: Any, pages: _Pages) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app({**scope, _SERVICE: self._pages}, receive, send)
