"""Write and read archive.json, the manifest: created with the archive, checked at every opening."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rsir.archive.folder.encoder import ImageEncoder
from rsir.documents import read_object
from rsir.errors import ArchiveError, UsageError
from rsir.ranking import metric_named
from rsir.version import VERSION

MANIFEST = "archive.json"
NEW_MANIFEST = MANIFEST + ".new"
"""Its name while the archive is being created (`rsir.archive.folder.creation`)."""
MODEL = "model"
ITEMS = "items.lance"
LAST_INDEX = "last-index.json"
SHARD_REPORTS = "last-index"

_FORMAT = "rsir-archive/1"
_REQUIRED = {
    "rsir": str,
    "created": str,
    "metric": str,
    "dimension": int,
    "fingerprint": str,
    "bands": list,
}


def new_manifest(encoder: ImageEncoder, store: str | None, identity: str) -> dict[str, Any]:
    """The manifest of a new archive, as JSON values.

    store: the URI of its records, or None if they are in its folder. identity: of the store.
    """
    manifest = {
        "format": _FORMAT,
        "rsir": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": encoder.ranking,
        "dimension": encoder.dimension,
        "fingerprint": encoder.fingerprint,
        "bands": list(encoder.bands),
        "identity": identity,
    }
    return manifest if store is None else {**manifest, "store": store}


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the archive at `path`; ArchiveError if there is none or it is damaged."""
    file = path / MANIFEST
    damaged = f"{file} is damaged; restore it from a copy, or index into a new archive"
    try:
        manifest = read_object(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        if (path / NEW_MANIFEST).exists():
            raise ArchiveError(
                f"the creation of the archive {path} was cut off, or another process is creating "
                "it now: create it again, which continues or waits"
            ) from error
        raise ArchiveError(
            f"{path} is not an archive (it has no {MANIFEST}); check the path, or index into it "
            "first"
        ) from error
    except OSError as error:
        raise ArchiveError(f"{file} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ArchiveError(f"{damaged} ({error})") from error
    if manifest.get("format") != _FORMAT:
        raise ArchiveError(
            f"{file} has the format {manifest.get('format')!r}, this rsir reads {_FORMAT!r}; "
            "use the rsir that made it, or index into a new archive"
        )
    for name, kind in _REQUIRED.items():
        if not isinstance(manifest.get(name), kind):
            raise ArchiveError(f"{damaged} ('{name}' is missing or of the wrong type)")
    if not all(isinstance(band, str) for band in manifest["bands"]):
        raise ArchiveError(f"{damaged} ('bands' are not names)")
    try:
        metric_named(manifest["metric"]).width(manifest["dimension"])
    except UsageError as error:
        raise ArchiveError(f"{damaged} ({error})") from error
    for name in ("store", "identity"):
        if not isinstance(manifest.get(name, ""), str):
            raise ArchiveError(f"{damaged} ('{name}' is of the wrong type)")
    return manifest


def model_names(folder: Path) -> dict[str, str]:
    """The method and the backbone in the model card of `folder`, if they are there."""
    try:
        card = read_object(folder / "model.json")
    except (OSError, ValueError):
        return {}
    return {name: card[name] for name in ("method", "backbone") if isinstance(card.get(name), str)}
