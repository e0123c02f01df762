"""Around every request: its id, its line in the log, limits of size, time and number, headers."""

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
    kind_of,
)

if TYPE_CHECKING:
    from rsir.web.service.service import Service

log = logging.getLogger("rsir.web")

PROBES = ("/health", "/ready", "/metrics")
"""Answered also when the service is full: whoever watches it must see that it lives."""

_FILES = ("multipart/", "image/", "application/octet-stream")
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
API_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Content security policy of what is no page."""
DOCUMENT_POLICY = f"{API_POLICY}; style-src 'unsafe-inline'"
"""Of the documentation: text with a style of its own."""
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'self'"
)
"""Of the page: its library makes scripts in the page itself and compiles templates there."""


def problem_response(error: Exception, **more: object) -> JSONResponse:
    """The answer to an error, as RFC 9457 has it."""
    kind = kind_of(error)
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(error.retry_after)
    if kind.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {**body_of(error), "request": request_id.get(), **more}
    return JSONResponse(body, kind.status, headers, PROBLEM_JSON)


class Guard:
    """The outermost layer. What fails below it, in whatever way, is answered as a problem."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._running = 0
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one connection of the page."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket" and not self._may_be_called(scope):
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._app(scope, receive, send)

    def _may_be_called(self, scope: Scope) -> bool:
        """Whether the name by which the service was called is one of its own."""
        hosts = self._service.settings.hosts
        if not hosts:
            return True
        name = Headers(scope=scope).get("host", "").lower()
        return re.sub(r":\d+$", "", name) in hosts

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        token = request_id.set(id)
        start = time.monotonic()
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                html = headers.get("content-type", "").startswith("text/html")
                headers.setdefault("content-security-policy", PAGE_POLICY if html else API_POLICY)
            await send(message)

        kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        upload = kind.startswith(_FILES)
        self._running += 1
        self._uploads += upload
        try:
            if not self._may_be_called(scope):
                raise ForbiddenError("the service is not called by this name; see --allow-host")
            if self._running > self._service.settings.requests and scope["path"] not in PROBES:
                raise OverloadedError("too many requests at once; try again later")
            # Before it is received: what is being received lies on the disk.
            if upload and self._uploads > self._service.settings.waiting + 1:
                raise OverloadedError("too many uploads at once; try again later")
            await self._app(scope, self._limited(scope, receive, kind), sent)
        except Exception as error:
            if not isinstance(error, RsirError):
                log.exception("request failed", extra={"path": scope["path"]})
            if status == 0:
                await problem_response(error)(scope, receive, sent)
        finally:
            self._running -= 1
            self._uploads -= upload
            self._finished(scope, status, time.monotonic() - start)
            request_id.reset(token)

    def _limited(self, scope: Scope, receive: Receive, kind: str) -> Receive:
        """`receive`, while the body, of the type `kind`, comes in time and is not too large."""
        settings = self._service.settings
        most = settings.max_json if kind == "application/json" else settings.max_body
        deadline = time.monotonic() + settings.body_seconds
        headers = Headers(scope=scope)
        said = headers.get("content-length", "0")
        if said.isdecimal() and int(said) > most:
            raise TooLargeError(f"a request has {most} bytes at most here")
        got, whole = 0, said == "0" and "transfer-encoding" not in headers

        async def limited() -> Message:
            nonlocal got, whole
            if whole:  # What comes now is only that the client has gone.
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                seconds = settings.body_seconds
                raise TooSlowError(f"the request did not come within {seconds:g} s") from None
            got += len(message.get("body", b""))
            if got > most:
                raise TooLargeError(f"a request has {most} bytes at most here")
            whole = not message.get("more_body", False)
            return message

        return limited

    def _finished(self, scope: Scope, status: int, seconds: float) -> None:
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
