"""archive.json: what an archive is, written once, checked whenever it is opened."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsir.errors import ArchiveError
from rsir.version import VERSION

if TYPE_CHECKING:
    from rsir.archive.folder.encoder import Encoder

FORMAT = "rsir-archive/1"
ABOUT = "archive.json"
NEW = ABOUT + ".new"
"""Its name while the archive is made (`rsir.archive.folder.creation`)."""
MODEL = "model"
ITEMS = "items.lance"
LAST_INDEX = "last-index.json"

_KINDS = {
    "rsir": str,
    "created": str,
    "metric": str,
    "dimension": int,
    "fingerprint": str,
    "bands": list,
}


def about(encoder: Encoder, store: str | None, identity: str) -> dict[str, Any]:
    """What is written of a new archive.

    store: the uri of its records, if not in its folder; identity: that of the store.
    """
    said = {
        "format": FORMAT,
        "rsir": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": encoder.ranking,
        "dimension": encoder.dimension,
        "fingerprint": encoder.fingerprint,
        "bands": list(encoder.bands),
        "identity": identity,
    }
    return said if store is None else {**said, "store": store}


def read_about(path: Path) -> dict[str, Any]:
    """What is written of the archive at `path`; ArchiveError if it is none, or damaged."""
    try:
        text = (path / ABOUT).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        if (path / NEW).exists():
            raise ArchiveError(
                f"the creation of the archive {path} was cut off, or another process is at it; "
                "create it again: what is there is taken up, or waited for"
            ) from error
        raise ArchiveError(
            f"{path} is not an archive (it has no {ABOUT}); check the path, or index into it first"
        ) from error
    except (OSError, ValueError) as error:  # a name that no file can have, bytes that are no text
        reason = getattr(error, "strerror", None) or error
        raise ArchiveError(f"{path / ABOUT} cannot be read ({reason})") from error
    damaged = f"{path / ABOUT} is damaged; restore it from a copy, or index into a new archive"
    try:
        said = json.loads(text)
    except ValueError as error:
        raise ArchiveError(f"{damaged} ({error})") from error
    if not isinstance(said, dict):
        raise ArchiveError(damaged)
    if said.get("format") != FORMAT:
        raise ArchiveError(
            f"{path / ABOUT} has the format {said.get('format')!r}, this rsir reads {FORMAT!r}; "
            "use the rsir that made it, or index into a new archive"
        )
    for name, kind in _KINDS.items():
        if not isinstance(said.get(name), kind):
            raise ArchiveError(f"{damaged} ('{name}' is missing or of the wrong kind)")
    for name in ("store", "identity"):
        if not isinstance(said.get(name, ""), str):
            raise ArchiveError(f"{damaged} ('{name}' is of the wrong kind)")
    return said


def model_names(folder: Path) -> dict[str, str]:
    """The method and the backbone that the model's card names, as far as it has them."""
    try:
        card = json.loads((folder / "model.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(card, dict):
        return {}
    return {name: card[name] for name in ("method", "backbone") if isinstance(card.get(name), str)}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON so that `path` is either as before or whole, even after a power cut."""
    # Others, on this machine and on others, may write the same.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
