"""The command that serves archives over HTTP."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from rsir.cli.printing import say, waiting
from rsir.errors import DataError, MissingExtraError, UsageError

app = typer.Typer()

KEY = "RSIR_API_KEY"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_DRAIN_SECONDS = 30
"""Seconds that a stop waits for running requests. Our choice: longer than any search."""


@app.command()
def serve(
    archives: Annotated[
        list[str], typer.Argument(metavar="ARCHIVE", help="Folder of an archive, or NAME=FOLDER.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 listens on all.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8000,
    key_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the API key that adding and deleting need; or set {KEY}."),
    ] = None,
    allow_add: Annotated[
        list[Path] | None, typer.Option(help="Allow adding files below this folder; repeatable.")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow reading sources on other machines.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name that requests may use; repeatable. Default on loopback: only its names."
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Other site, e.g. https://maps.example.org, whose pages may use the service "
            "(CORS); repeatable; * for any."
        ),
    ] = None,
    trust_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a proxy whose X-Forwarded-Host, -Proto and -Prefix count; repeatable; "
            "* for any."
        ),
    ] = None,
    searches: Annotated[int, typer.Option(min=1, help="Number of searches at the same time.")] = 2,
    page: Annotated[bool, typer.Option(help="Serve the page beside the REST interface.")] = True,
) -> None:
    """Serve archives with a REST interface and a page, until Ctrl-C or SIGTERM.

    The interface documents itself at /docs and /openapi.json.
    """
    try:
        with waiting("loading the service"):
            import uvicorn

            from rsir.web import logs
            from rsir.web.app import create_app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("rsir"):
            raise
        raise MissingExtraError("rsir serve", "web") from error
    from rsir.web.service.service import open_archives
    from rsir.web.service.settings import ServiceSettings

    loopback = host in ("localhost", "127.0.0.1", "::1")
    hosts = tuple(name.lower() for name in allow_host or ())
    settings = ServiceSettings(
        api_key=_key(key_file),
        allow_add=tuple(allow_add or ()),
        allow_remote=allow_remote,
        hosts=(*LOOPBACK, *hosts) if loopback or hosts else (),
        origins=tuple(allow_origin or ()),
        proxies=tuple(trust_proxy or ()),
        searches=searches,
    )
    with waiting("opening the archives"):
        opened = open_archives(archives)
    listener = _listener(host, port)
    app = create_app(opened, settings, page=page)
    on_terminal = sys.stderr.isatty()
    logs.configure_logs(plain=on_terminal)
    name = "localhost" if host in ("0.0.0.0", "::") else host
    address = f"http://{_in_address(name)}:{listener.getsockname()[1]}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and on_terminal:
                say(f"open {address} – Ctrl-C stops")
            elif self.started:
                logging.getLogger("rsir.web").info("running on %s", address)

    server = Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # `rsir.web.middleware.Forwarded` has its own rule
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            backlog=512,
        )
    )
    # uvicorn raises the signal again after it has stopped; the default handler would end the
    # process with an error, but a requested stop is no error.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: None)
    if not loopback:
        say(f"other machines can reach {host}; searching needs no key")
    server.run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens there; UsageError if the port is in use or the address is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise DataError(
            f"cannot listen on {_in_address(host)}:{port} ({error.strerror}); choose another "
            "--port, or stop what uses it"
        ) from error
    return listener


def _in_address(host: str) -> str:
    """A host as it stands in an address: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _key(file: Path | None) -> str | None:
    """The API key from a file, or without a file from the environment."""
    if file is None:
        return os.environ.get(KEY) or None
    try:
        key = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: the API key cannot be read from it ({error})") from error
    if not key:
        raise UsageError(f"{file}: is empty; write the API key into it")
    return key
