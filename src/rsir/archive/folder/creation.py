"""Create an archive's folder once, even if several processes try it at once or are killed.

Steps: create the folder; write archive.json.new into it; write the model; create the store; rename
archive.json.new to archive.json. After a kill the next creation continues. A lock file makes other
processes wait; the operating system releases the lock when its process ends. Some network file
systems have no locks: there, two simultaneous creations may disturb each other.

A store outside the folder survives a kill. It belongs to the archive only if archive.json.new names
it; this entry is written just before the store is created, and only if the store does not exist.
"""

from __future__ import annotations

import errno
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rsir.archive.folder.encoder import ImageEncoder
from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.folder.manifest import ITEMS, MANIFEST, MODEL, NEW_MANIFEST, new_manifest
from rsir.atomic import write_json
from rsir.errors import ArchiveError
from rsir.ranking import metric_named
from rsir.store.base import Store
from rsir.store.open import create_store, exists, open_store, without_secrets

LOCK = f".{NEW_MANIFEST}.lock"
"""The lock file; it is in the archive's folder while a process creates the archive."""

PATIENCE = 600.0
"""Seconds to wait for another process that creates the same archive. Our choice: longer than the
writing of any model takes; the lock of a process that has ended does not count."""

_POLL_SECONDS = 0.1

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class ArchiveExistsError(ArchiveError):
    """The archive exists already; another process may have just created it."""


def create_folder(
    path: Path, encoder: ImageEncoder, store_uri: str | None
) -> tuple[dict[str, Any], Store]:
    """Create the archive at `path`; returns its manifest and its empty store.

    The arguments are those of `rsir.archive.Archive.create`. Raises ArchiveExistsError if the
    archive exists, even if another process has just created it, and ArchiveError if the folder
    holds anything else.
    """
    metric_named(encoder.ranking).width(encoder.dimension)
    public_uri = None if store_uri is None else without_secrets(store_uri)
    _check_free(path)
    with _locked(path):
        _check_free(path)
        unfinished = _read_unfinished(path)
        claimed = public_uri is not None and public_uri == unfinished.get("store")
        identity = str(unfinished.get("identity", "")) if claimed else ""
        if store_uri is not None and not claimed:
            _check_absent(store_uri, path)
        manifest = new_manifest(encoder, public_uri, identity or uuid.uuid4().hex)
        with translate_store_errors(path):
            if not claimed:
                write_json(path / NEW_MANIFEST, _without_store(manifest))
            for leftover in (path / MODEL, path / ITEMS):
                if leftover.exists():
                    shutil.rmtree(leftover)
        encoder.save(path / MODEL)
        with translate_store_errors(path):
            if store_uri is None:
                store = create_store(
                    path / ITEMS, encoder.ranking, encoder.dimension, manifest["identity"]
                )
            elif claimed and exists(store_uri):
                store = _open_unfinished(store_uri, encoder, identity)
                # The model may differ from the one of the unfinished creation.
                manifest["identity"] = store.identity
                write_json(path / NEW_MANIFEST, manifest)
            else:
                store = _claim(path, manifest, store_uri, encoder)
            (path / NEW_MANIFEST).replace(path / MANIFEST)
    return manifest, store


def _check_free(path: Path) -> None:
    """ArchiveExistsError if `path` is an archive; ArchiveError for a file or other content."""
    with translate_store_errors(path):
        if path.exists() and not path.is_dir():
            raise ArchiveError(f"{path} is a file; choose another path for the archive")
        # The lock and the drafts of `write_json` (.archive.json.new.<hex>.part) do not count.
        temporary = f".{NEW_MANIFEST}."
        taken = path.exists() and any(not e.name.startswith(temporary) for e in path.iterdir())
        being_created = (path / NEW_MANIFEST).exists()
        # Checked last: another process may rename the new manifest between the two checks.
        if (path / MANIFEST).exists():
            raise ArchiveExistsError(
                f"{path} is an archive already; open it, or choose another path"
            )
    if taken and not being_created:
        raise ArchiveError(
            f"{path} is a folder with other files; choose a new or empty one for the archive"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes and threads from creating the archive at `path`."""
    lock = FileLock(path / LOCK, timeout=PATIENCE, poll_interval=_POLL_SECONDS)
    with translate_store_errors(path):
        is_new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise ArchiveError(
                f"{path}: another process has been creating it for {PATIENCE:g} seconds; wait "
                "until that process ends, or end it, and run the same command again. If no machine "
                f"runs such a process, delete {path / LOCK}"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    try:
        yield
    finally:
        # A process that waits for the deleted lock creates a new one and checks the folder again.
        with suppress(OSError):
            (path / LOCK).unlink()
        lock.release()
        if is_new:
            with suppress(OSError):
                path.rmdir()  # succeeds only if the creation left nothing


def _read_unfinished(path: Path) -> dict[str, Any]:
    """The manifest of an unfinished creation; {} if there is none or it cannot be read."""
    try:
        manifest = json.loads((path / NEW_MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _without_store(manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name != "store"}


def _check_absent(store_uri: str, path: Path) -> None:
    with translate_store_errors(path):
        if exists(store_uri):
            raise ArchiveError(
                f"{without_secrets(store_uri)} exists already: choose another store for {path}; "
                "or, if it is left from an archive that you no longer need, delete it first"
            )


def _claim(path: Path, manifest: dict[str, Any], store_uri: str, encoder: ImageEncoder) -> Store:
    """Name the store in the new manifest, then create it."""
    write_json(path / NEW_MANIFEST, manifest)
    try:
        return create_store(store_uri, encoder.ranking, encoder.dimension, manifest["identity"])
    except Exception:
        # Another process may have created the store first; it does not belong to this archive.
        write_json(path / NEW_MANIFEST, _without_store(manifest))
        raise


def _open_unfinished(store_uri: str, encoder: ImageEncoder, identity: str) -> Store:
    """The store that an unfinished creation made; ArchiveError if it does not fit."""
    store = open_store(store_uri)
    uri = without_secrets(store_uri)
    advice = f"delete {uri}, or choose another store"
    if identity and store.identity != identity:
        raise ArchiveError(
            f"{uri} was created by another process after the creation here was cut off: {advice}"
        )
    if count := len(store):
        raise ArchiveError(f"{uri} holds {count} images although no archive exists: {advice}")
    if (store.metric, store.dimension) != (encoder.ranking, encoder.dimension):
        raise ArchiveError(
            f"{uri} is left from a creation that was cut off, for another model ({store.metric}, "
            f"{store.dimension}): {advice}"
        )
    return store
