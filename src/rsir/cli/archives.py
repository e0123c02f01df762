"""The commands on archives, grouped by module."""

from __future__ import annotations

import typer

from rsir.cli import exchange, index, search, upkeep

app = typer.Typer()
for part in (index, search, upkeep, exchange):
    app.add_typer(part.app)
