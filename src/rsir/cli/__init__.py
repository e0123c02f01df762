"""The shell: parse arguments, call the library, print results. It decides nothing itself.

Results go to stdout, messages to stderr. Exit status: 0 for success, 1 for failure, 2 for wrong
usage, 130 after an interrupt. A command imports heavy libraries only when it runs, so that --help
is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rsir.cli import archives, learn, measure, serve, sets
from rsir.cli.printing import say, waiting
from rsir.errors import RsirError

app = typer.Typer(
    help="Content-based remote sensing image retrieval: learn, measure, search.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (learn, measure, archives, serve):
    app.add_typer(part.app)
app.add_typer(sets.app, name="datasets")

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, the convention of shells."""


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from rsir.version import VERSION

        typer.echo(VERSION)
        raise typer.Exit


@app.command("demo")
def demo_(
    out: Annotated[Path, typer.Option(help="Folder for all results.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="Use these images instead of generated scenes.")
    ] = None,
    and_serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page with the map at the end, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for --serve.")] = 8000,
) -> None:
    """Show all steps, offline: draw scenes, train, index, search, write a page."""
    with waiting("loading torch"):
        from rsir.cli import demo

    result = demo.run(out, data, say=say)
    typer.echo(str(result))
    if and_serve:
        serve.serve([f"demo={result.archive}"], port=port)


def main() -> None:
    """Run the shell. A user's mistake ends with a message and a status, never a traceback."""
    try:
        app()
    except RsirError as error:
        say(f"error: {error}")
        sys.exit(error.exit_status)
    except OSError as error:
        # A full disk or a folder without write permission: the system's message is enough.
        say(f"error: {error.filename or 'the system'}: {error.strerror or error}")
        sys.exit(RsirError.exit_status)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            say("interrupted; run the same command again to continue training or indexing")
        raise
