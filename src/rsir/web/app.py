"""The whole service as an ASGI application: REST, documentation, and the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match, Route
from starlette.types import Scope

from rsir.errors import RsirError, UsageError
from rsir.version import VERSION
from rsir.web.logs import request_id
from rsir.web.middleware import DOCUMENT_POLICY, Forwarded, Guard, problem_response
from rsir.web.problems import PROBLEM_JSON
from rsir.web.rest import api, probes
from rsir.web.rest.documentation import page_of_operations
from rsir.web.service.service import Service
from rsir.web.service.settings import ServiceSettings

if TYPE_CHECKING:
    from rsir.archive.archive import Archive

_OF_PAGE = ("/_nicegui", "/favicon.ico")
"""Where the page's library keeps its files and its connection."""
_READING = {"GET", "HEAD"}
_MOST_ERRORS = 20
"""Validation errors in one response; our choice."""


def create_app(
    archives: Mapping[str, Archive], settings: ServiceSettings | None = None, *, page: bool = True
) -> FastAPI:
    """The service for these archives by name; `app.state.service` is its `Service`.

    page: whether to add the page for people, if NiceGUI is installed.
    """
    with suppress(ImportError):
        # Import it before the threads do: concurrent imports find PROJ half initialised.
        import rio_tiler.io  # noqa: F401
    service = Service(archives, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(service.warm_up())
        yield
        warming.cancel()
        # In a thread, so that running requests can finish meanwhile.
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="rsir",
        summary="Search archives of remote sensing images by example.",
        version=VERSION,
        lifespan=lifespan,
        # FastAPI's own pages load scripts from other machines; ours loads nothing.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.service = service
    app.include_router(probes.probes)
    app.include_router(api.api)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        policy = {"Content-Security-Policy": DOCUMENT_POLICY}
        return HTMLResponse(page_of_operations(app.openapi()), headers=policy)

    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    if page and find_spec("nicegui") is not None:
        from rsir.web.page import mount

        mount(app, service)
        # Before the page, which is the last route and takes every address.
        app.router.routes.insert(-1, _NoAddress(app, page=True))
    else:
        app.router.routes.append(_NoAddress(app, page=False))
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["Location", "Retry-After", "X-Request-Id"],
        )
    app.add_middleware(Forwarded, service=service)
    app.add_middleware(Guard, service=service)
    return app


class _NoAddress(Route):
    """Answers for what is no address, also of the page, which would show its own error as HTML.

    It names all methods of an address; Starlette names those of one of its routes.
    """

    def __init__(self, app: FastAPI, *, page: bool) -> None:
        super().__init__("/{rest:path}", self._refuse, include_in_schema=False)
        self.methods = None  # all
        self._routes = [*app.routes, *api.api.routes, *probes.probes.routes]
        self._page = page

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """FULL for a request that the page does not answer."""
        if scope["type"] != "http":
            return Match.NONE, {}
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        shown = path.startswith(_OF_PAGE) or (path in ("", "/") and scope["method"] in _READING)
        if self._page and shown:
            return Match.NONE, {}
        return super().matches(scope)

    async def _refuse(self, request: Request) -> None:
        """Raise 405 if the address exists with another method, else 404."""
        routes = (r for r in self._routes if r.matches(request.scope)[0] is Match.PARTIAL)
        methods = {m for route in routes for m in getattr(route, "methods", None) or ()}
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        if self._page and path in ("", "/"):
            methods |= _READING
        if methods:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        raise HTTPException(404)


async def _http_problem(_: Request, error: Exception) -> JSONResponse:
    """The problem of a request that Starlette refuses: unknown address, wrong method, bad body."""
    assert isinstance(error, HTTPException)
    # Starlette wraps errors of the limits that are raised while it reads the body.
    if isinstance(error.__cause__, RsirError):
        return problem_response(error.__cause__)
    body = {
        "type": "about:blank",
        "title": error.detail,
        "status": error.status_code,
        "detail": error.detail,
        "request": request_id.get(),
    }
    return JSONResponse(body, error.status_code, error.headers, PROBLEM_JSON)


async def _validation_problem(_: Request, error: Exception) -> JSONResponse:
    """The problem of a request whose values do not fit the types of the address."""
    assert isinstance(error, RequestValidationError)
    errors = [
        {"where": ".".join(map(str, e["loc"])), "what": e["msg"]}
        for e in error.errors()[:_MOST_ERRORS]
    ]
    detail = f"{errors[0]['where']}: {errors[0]['what']}" if errors else "the request is invalid"
    return problem_response(UsageError(detail), errors=errors)
