"""Open the folder of an archive, and check that its manifest and its store fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsir.archive.folder.manifest import ITEMS, MANIFEST, read_manifest
from rsir.errors import ArchiveError
from rsir.store.base import Store
from rsir.store.open import open_store, without_secrets


def open_folder(path: Path, store: str | None) -> tuple[dict[str, Any], Store]:
    """The manifest and the store of the archive at `path`; see `rsir.archive.Archive.open`."""
    manifest = read_manifest(path)
    written = manifest.get("store")
    if store is not None and without_secrets(store) != written:
        raise ArchiveError(
            f"{path} keeps its records in {written or ITEMS}, not in {without_secrets(store)}"
        )
    identity = manifest.get("identity", "")
    opened = open_store(store or written or path / ITEMS, identity, by_user=store is not None)
    if (opened.metric, opened.dimension) != (manifest["metric"], manifest["dimension"]):
        raise ArchiveError(
            f"{path / MANIFEST} says {manifest['metric']}, {manifest['dimension']}, but "
            f"{written or ITEMS} holds {opened.metric}, {opened.dimension}; restore one "
            "of them from a copy"
        )
    return manifest, opened
