"""Middleware for every request: id, log line, limits of size, time and number, headers."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rsir.errors import RsirError
from rsir.web.logs import request_id
from rsir.web.problems import (
    PROBLEM_JSON,
    ForbiddenError,
    OverloadedError,
    TooLargeError,
    TooSlowError,
    body_of,
    problem_kind,
)

if TYPE_CHECKING:
    from rsir.web.service.service import Service

log = logging.getLogger("rsir.web")

PROBES = ("/health", "/ready", "/metrics")
"""Paths that even a full service answers, so that monitors see that it runs."""

_FILES = ("multipart/", "image/", "application/octet-stream")
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SANE_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9a-fA-F:]{2,39}\](:\d{1,5})?")
_SANE_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]{1,64}){1,8}")
_TAKEN = (b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-prefix")
_SOCKETS = "/_nicegui_ws/"
"""Path of the page's connection, over which a page of another site could act as the user."""

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
API_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Content security policy of everything that is not a page."""
DOCUMENT_POLICY = f"{API_POLICY}; style-src 'unsafe-inline'"
"""Content security policy of the documentation: text with an inline style."""
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'self'"
)
"""Content security policy of the page: NiceGUI has inline scripts and compiles templates."""


def problem_response(error: Exception, **more: object) -> JSONResponse:
    """The response to an error (RFC 9457)."""
    kind = problem_kind(error)
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(error.retry_after)
    if kind.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {**body_of(error), "request": request_id.get(), **more}
    return JSONResponse(body, kind.status, headers, PROBLEM_JSON)


def forwarded_host(scope: Scope, proxies: tuple[str, ...]) -> str:
    """The host that a trusted proxy forwards for its client; else the one of the request."""
    headers = Headers(scope=scope)
    host = headers.get("x-forwarded-host", "").rpartition(",")[2].strip()
    if not (is_from_proxy(scope, proxies) and _SANE_HOST.fullmatch(host)):
        host = headers.get("host", "")
    return host.lower()


def is_from_proxy(scope: Scope, proxies: tuple[str, ...]) -> bool:
    """Whether a request comes from one of the addresses in `proxies`; "*" is any."""
    return "*" in proxies or (scope.get("client") or ("",))[0] in proxies


class Forwarded:
    """Takes the host, the scheme and the prefix that a trusted proxy forwards for its client.

    The addresses in answers (TileJSON, Location, OpenAPI) then are those that the client sees. The
    proxy takes the prefix off the path.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._proxies = service.settings.proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or one websocket."""
        if scope["type"] in ("http", "websocket"):
            self._show_client(scope)
        await self._app(scope, receive, send)

    def _show_client(self, scope: Scope) -> None:
        # In place, because the router leaves its route there for the metrics.
        headers = Headers(scope=scope)
        # The page's library reads the prefix too, from whoever sends it.
        others = [(name, value) for name, value in scope["headers"] if name not in _TAKEN]
        host = forwarded_host(scope, self._proxies)
        scope["headers"] = others
        if not is_from_proxy(scope, self._proxies):
            return
        others = [(name, value) for name, value in others if name != b"host"]
        scope["headers"] = [(b"host", host.encode()), *others]
        scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip()
        if scheme in ("http", "https") and scope["type"] == "http":
            scope["scheme"] = scheme
        prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
        if _SANE_PREFIX.fullmatch(prefix):
            scope["root_path"] = prefix
            scope["path"] = prefix + scope["path"]


class Guard:
    """The outermost middleware; it answers every exception below with a problem."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._running = 0
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or one websocket of the page."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket" and not (
            self._has_known_host(scope) and self._has_known_origin(scope)
        ):
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._app(scope, receive, send)

    def _has_known_host(self, scope: Scope) -> bool:
        """Whether the request's host is one of the names of the service."""
        hosts = self._service.settings.hosts
        if not hosts:
            return True
        name = forwarded_host(scope, self._service.settings.proxies)
        return re.sub(r":\d+$", "", name) in hosts

    def _has_known_origin(self, scope: Scope) -> bool:
        """Whether a request of a browser comes from a page of this service or an allowed site."""
        headers, settings = Headers(scope=scope), self._service.settings
        origin = headers.get("origin")
        if origin is None or origin in settings.origins or "*" in settings.origins:
            return True
        host = forwarded_host(scope, settings.proxies)
        return bool(host) and origin.lower() in (f"http://{host}", f"https://{host}")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        id = headers.get("x-request-id", "")
        if not _SANE_ID.fullmatch(id):
            id = uuid.uuid4().hex
        token = request_id.set(id)
        start = time.monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                response = MutableHeaders(scope=message)
                response["x-request-id"] = id
                for name, value in HEADERS.items():
                    if name != "cross-origin-resource-policy" or not self._service.settings.origins:
                        response.setdefault(name, value)
                html = response.get("content-type", "").startswith("text/html")
                response.setdefault("content-security-policy", PAGE_POLICY if html else API_POLICY)
            await send(message)

        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        is_upload = content_type.startswith(_FILES)
        self._running += 1
        self._uploads += is_upload
        try:
            if not self._has_known_host(scope):
                raise ForbiddenError("this is not a name of the service; see --allow-host")
            if scope["path"].startswith(_SOCKETS) and not self._has_known_origin(scope):
                raise ForbiddenError("the page of another site may not use this connection")
            if self._running > self._service.settings.requests and scope["path"] not in PROBES:
                raise OverloadedError("too many requests at once; try again later")
            # Refuse before the body arrives, because it goes to the disk.
            if is_upload and self._uploads > self._service.settings.waiting + 1:
                raise OverloadedError("too many uploads at once; try again later")
            await self._app(scope, self._limited(scope, receive, content_type), send_with_headers)
        except Exception as error:
            if not isinstance(error, RsirError):
                log.exception("request failed", extra={"path": scope["path"]})
            if status == 0:
                await problem_response(error)(scope, receive, send_with_headers)
        finally:
            self._running -= 1
            self._uploads -= is_upload
            self._record(scope, status, time.monotonic() - start)
            request_id.reset(token)

    def _limited(self, scope: Scope, receive: Receive, content_type: str) -> Receive:
        """`receive` with limits: TooLargeError for a large body, TooSlowError for a slow client."""
        settings = self._service.settings
        most = settings.max_json if content_type == "application/json" else settings.max_body
        deadline = time.monotonic() + settings.body_seconds
        headers = Headers(scope=scope)
        too_large = TooLargeError(f"a request to this service has at most {most} bytes")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise too_large
        received, complete = 0, length == "0" and "transfer-encoding" not in headers

        async def limited() -> Message:
            nonlocal received, complete
            if complete:  # only the client's disconnect can follow
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                seconds = settings.body_seconds
                raise TooSlowError(f"the request did not arrive within {seconds:g} s") from None
            received += len(message.get("body", b""))
            if received > most:
                raise too_large
            complete = not message.get("more_body", False)
            return message

        return limited

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics = self._service.metrics
        metrics.requests.labels(method, route, status).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        level = logging.DEBUG if scope["path"] in PROBES else logging.INFO
        log.log(
            level,
            "request",
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 4),
                "client": (scope.get("client") or ("",))[0],
            },
        )


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
