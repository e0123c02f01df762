"""How an archive comes to be: once, whoever else makes it at the same time, and after a kill.

Steps: the folder; archive.json.new in it; the model; the store; archive.json.new becomes
archive.json. What a kill leaves of them, the next creation takes up. A lock that the system gives
up with its process keeps others waiting meanwhile. Where it has none (some network file systems),
two that create at the same time are not kept apart.

A store that is not in the folder stays after a kill, and is the archive's own only if
archive.json.new names it: that is written when there is none of that name yet, just before it is
made.
"""

from __future__ import annotations

import errno
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.folder.manifest import ABOUT, ITEMS, MODEL, NEW, about, write_json
from rsir.errors import ArchiveError
from rsir.ranking import metric_named
from rsir.store.open import create_store, exists, open_store, without_secrets

if TYPE_CHECKING:
    from rsir.archive.folder.encoder import Encoder
    from rsir.store.base import Store

LOCK = f".{NEW}.lock"
"""In the folder of the archive, while it is made."""

PATIENCE = 600.0
"""Seconds that one waits for another process that makes the same archive. Our choice: longer than
writing any model takes; of a process that is gone the lock is, too."""

_POLL_SECONDS = 0.1

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class MadeAlreadyError(ArchiveError):
    """There is an archive, maybe since a moment ago."""


def make(path: Path, encoder: Encoder, store: str | None) -> tuple[dict[str, Any], Store]:
    """Make the archive at `path`: what archive.json says, and the empty store.

    See `rsir.archive.Archive.create`. Raises MadeAlreadyError if there is one, also one that
    another process has made meanwhile, and ArchiveError for anything else that is in the way.
    """
    metric_named(encoder.ranking).width(encoder.dimension)
    uri = None if store is None else without_secrets(store)
    _check_free(path)
    with _alone(path):
        _check_free(path)
        mark = _mark(path)
        claimed = uri is not None and uri == mark.get("store")
        identity = str(mark.get("identity", "")) if claimed else ""
        if store is not None and not claimed:
            _check_absent(store, path)
        said = about(encoder, uri, identity or uuid.uuid4().hex)
        with translate_store_errors(path):
            if not claimed:
                write_json(path / NEW, _unclaimed(said))
            for leftover in (path / MODEL, path / ITEMS):
                if leftover.exists():
                    shutil.rmtree(leftover)
        encoder.save(path / MODEL)
        with translate_store_errors(path):
            if store is None:
                kept = create_store(
                    path / ITEMS, encoder.ranking, encoder.dimension, said["identity"]
                )
            elif claimed and exists(store):
                kept = _left(store, encoder, identity)
                # By now the model may be another one.
                said["identity"] = kept.identity
                write_json(path / NEW, said)
            else:
                kept = _claim(path, said, store, encoder)
            (path / NEW).replace(path / ABOUT)
    return said, kept


def _check_free(path: Path) -> None:
    """MadeAlreadyError, or ArchiveError if what is at `path` is not ours."""
    with translate_store_errors(path):
        if path.exists() and not path.is_dir():
            raise ArchiveError(f"{path} is a file; choose another path for the archive")
        # A hidden file of this name is all that a kill within `write_json` can leave.
        taken = path.exists() and any(not e.name.startswith(f".{NEW}.") for e in path.iterdir())
        being_made = (path / NEW).exists()
        # Last, for while another process makes it, one name becomes the other.
        if (path / ABOUT).exists():
            raise MadeAlreadyError(f"{path} is an archive already; open it, or choose another path")
    if taken and not being_made:
        raise ArchiveError(
            f"{path} is a folder with other files; choose a new or empty one for the archive"
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process, and no other thread, makes the archive meanwhile."""
    lock = FileLock(path / LOCK, timeout=PATIENCE, poll_interval=_POLL_SECONDS)
    with translate_store_errors(path):
        new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise ArchiveError(
                f"{path}: another process has been making it for {PATIENCE:g} seconds; wait until "
                "it is done or end it, and run the same again. If there is none on any machine, "
                f"delete {path / LOCK}"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    try:
        yield
    finally:
        # Whoever waits for a lock that is deleted makes it anew, and looks what there is then.
        with suppress(OSError):
            (path / LOCK).unlink()
        lock.release()
        if new:
            with suppress(OSError):
                path.rmdir()  # nothing came of it


def _mark(path: Path) -> dict[str, Any]:
    """What a creation that was cut off has written: also the store that it may have made."""
    try:
        said = json.loads((path / NEW).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _unclaimed(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name != "store"}


def _check_absent(store: str, path: Path) -> None:
    with translate_store_errors(path):
        if exists(store):
            raise ArchiveError(
                f"{without_secrets(store)} exists already: choose another store for {path}; or "
                "delete it first, if it is what is left of an archive that is not wanted any more"
            )


def _claim(path: Path, said: dict[str, Any], store: str, encoder: Encoder) -> Store:
    write_json(path / NEW, said)
    try:
        return create_store(store, encoder.ranking, encoder.dimension, said["identity"])
    except Exception:
        # Of another, perhaps, that was quicker.
        write_json(path / NEW, _unclaimed(said))
        raise


def _left(store: str, encoder: Encoder, identity: str) -> Store:
    """The store that a creation has made which was cut off; ArchiveError if it does not fit."""
    kept = open_store(store)
    uri = without_secrets(store)
    advice = f"delete {uri}, or choose another store"
    if identity and kept.identity != identity:
        raise ArchiveError(
            f"{uri} was made by somebody else since the creation here was cut off: {advice}"
        )
    if count := len(kept):
        raise ArchiveError(f"{uri} holds {count} images although no archive was made: {advice}")
    if (kept.metric, kept.dimension) != (encoder.ranking, encoder.dimension):
        raise ArchiveError(
            f"{uri} is left of a creation that was cut off, for another model ({kept.metric}, "
            f"{kept.dimension}): {advice}"
        )
    return kept
