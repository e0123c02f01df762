"""The verbs of archives, each in a module of its own."""

from __future__ import annotations

import typer

from rsir.cli import exchange, index, search, upkeep

app = typer.Typer()
for part in (index, search, upkeep, exchange):
    app.add_typer(part.app)
