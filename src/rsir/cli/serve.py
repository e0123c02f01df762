"""The command that serves archives over HTTP."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from rsir.cli.printing import say
from rsir.errors import MissingExtraError, UsageError

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
    searches: Annotated[int, typer.Option(min=1, help="Number of searches at the same time.")] = 2,
    page: Annotated[bool, typer.Option(help="Serve the page beside the REST interface.")] = True,
) -> None:
    """Serve archives with a REST interface and a page, until Ctrl-C or SIGTERM.

    The interface documents itself at /docs and /openapi.json.
    """
    try:
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
        searches=searches,
    )
    app = create_app(open_archives(archives), settings, page=page)
    logs.configure_logs()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
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
    server.run()


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
