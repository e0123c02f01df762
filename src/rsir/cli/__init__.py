"""The shell: parse, call, print. Nothing is decided here.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong
usage, 130 interrupted. Heavy libraries load inside the commands, so that --help is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rsir.cli import archives, learn, measure, serve, sets
from rsir.cli.printing import say
from rsir.errors import RsirError

app = typer.Typer(
    help="Content-based remote sensing image retrieval: learn, measure, search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (learn, measure, archives, serve):
    app.add_typer(part.app)
app.add_typer(sets.app, name="datasets")

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from rsir.version import VERSION

        typer.echo(VERSION)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="Your own images, instead of generated scenes.")
    ] = None,
    and_serve: Annotated[
        bool, typer.Option("--serve", help="Then serve the page with the map, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve.")] = 8000,
) -> None:
    """Show the whole way, offline: scenes, training, archive, searches, a page."""
    from rsir.cli import demo as demonstration

    made = demonstration.run(out, data, say=say)
    typer.echo(str(made))
    if and_serve:
        serve.serve([f"demo={made.archive}"], port=port)


def main() -> None:
    """Run the shell; a person's mistake is a message and a status, never a traceback."""
    try:
        app()
    except RsirError as error:
        say(f"error: {error}")
        sys.exit(error.exit_status)
    except OSError as error:
        # A full disk, a folder that may not be written: what the system says is all there is.
        say(f"error: {error.filename or 'the system'}: {error.strerror or error}")
        sys.exit(RsirError.exit_status)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            say("interrupted; training and indexing go on from here when run again")
        raise
