"""Content-based remote sensing image retrieval: learn, measure, search.

    rsir.load("runs/a").encode(["chip.png"])          # Encoding
    rsir.open("archive").search("chip.png", k=10)     # hits
    rsir.connect("http://127.0.0.1:8000").search("chip.png", k=10)   # hits of a service

Importing rsir is quick: heavy libraries load when they are first used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsir.version import VERSION

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.models.encoder import Encoder
    from rsir.web.client import RemoteArchive

__version__ = VERSION


def load(model: str | Path, *, device: str = "auto") -> Encoder:
    """The encoder of a run folder or of "hf:owner/name". See `rsir.models.encoder.Encoder.load`."""
    from rsir.models.encoder import Encoder

    return Encoder.load(model, device=device)


def open(archive: str | Path) -> Archive:
    """The archive in a folder. See `rsir.archive.Archive.open`."""
    from rsir.archive.archive import Archive

    return Archive.open(archive)


def connect(
    url: str, archive: str | None = None, *, key: str | None = None, timeout: float = 60.0
) -> RemoteArchive:
    """An archive of a service, searched like a local one (`rsir.web.client.connect`)."""
    from rsir.web import client

    return client.connect(url, archive, key=key, timeout=timeout)
