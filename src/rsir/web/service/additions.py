"""Images that are added while the archive is served: one addition after the other, in a thread."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rsir.errors import RsirError, UsageError
from rsir.web.problems import BusyError, ForbiddenError, NotFoundError
from rsir.web.service.settings import ServiceSettings

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.archive.indexing.run import IndexReport
    from rsir.scenes.tiling import Tiling

log = logging.getLogger("rsir.web")

KEPT = 100
"""Additions that are remembered."""
WAITING = 16
"""Additions that may wait for their turn. Both our choice."""

_LISTS = (".json", ".geojson", ".vrt")
"""Files that name other files, or addresses: whoever may add them may read those."""

State = Literal["waiting", "running", "done", "failed", "stopped"]


@dataclass(slots=True)
class Addition:
    """One addition, as far as it is. done, total: files; problem: why it failed."""

    id: str
    archive: str
    paths: list[str]
    state: State = "waiting"
    done: int = 0
    total: int | None = None
    report: IndexReport | None = None
    problem: str | None = None


class _StoppedError(Exception):
    """The service stops."""


class Additions:
    """The additions of one service."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rsir-adding")
        self._known: OrderedDict[str, Addition] = OrderedDict()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def start(
        self, name: str, archive: Archive, paths: Sequence[str], tiling: Tiling | None = None
    ) -> Addition:
        """Begin to add files and folders as soon as those before it are done.

        Raises ForbiddenError for a path that is not below a folder of `ServiceSettings.allow_add`,
        UsageError for one that does not exist, BusyError if too many wait.
        """
        checked = [self._checked(path) for path in paths]
        addition = Addition(secrets.token_hex(8), name, checked)
        with self._lock:
            if sum(a.state == "waiting" for a in self._known.values()) >= WAITING:
                raise BusyError(f"{WAITING} additions wait already; try again when one is done")
            self._known[addition.id] = addition
            for old in [a for a in self._known.values() if a.state not in ("waiting", "running")]:
                if len(self._known) > KEPT:
                    del self._known[old.id]
        self._thread.submit(self._run, addition, archive, tiling)
        return addition

    def of(self, name: str) -> list[Addition]:
        """The additions to one archive, newest first."""
        with self._lock:
            return [a for a in reversed(self._known.values()) if a.archive == name]

    def get(self, name: str, id: str) -> Addition:
        """One of them; NotFoundError if there is none, or if it is forgotten."""
        found = self._known.get(id)
        if found is None or found.archive != name:
            raise NotFoundError(f"there is no addition {id!r}; the last {KEPT} are remembered")
        return found

    def close(self) -> None:
        """Stop: what is encoded is kept, and adding the same again goes on from there."""
        self._stop.set()
        self._thread.shutdown(wait=True)

    def _checked(self, path: str) -> str:
        allowed = self._settings.allow_add
        if "://" in path:
            if not self._settings.allow_remote:
                raise ForbiddenError(
                    "addresses of other machines are not added here; the service can allow it "
                    "with --allow-remote"
                )
            return path
        if "\0" in path:
            raise UsageError("a path holds no NUL")
        # Links are followed before it is compared: what counts is where it is.
        real = Path(path).resolve()
        if not any(real.is_relative_to(folder.resolve()) for folder in allowed):
            raise ForbiddenError(
                "only what lies below the folders that the service was started with (--allow-add) "
                "can be added"
            )
        if not real.exists():
            raise UsageError(f"{path}: no such file or folder on the service's machine")
        if real.suffix.lower() in _LISTS and not self._settings.allow_remote:
            raise ForbiddenError(f"{path}: lists of files may name others; see --allow-remote")
        return str(real)

    def _run(self, addition: Addition, archive: Archive, tiling: Tiling | None) -> None:
        def progress(done: int, total: int) -> None:
            addition.done, addition.total = done, total
            if self._stop.is_set():
                raise _StoppedError

        if self._stop.is_set():
            addition.state = "stopped"
            return
        addition.state = "running"
        log.info("addition begins", extra={"archive": addition.archive, "addition": addition.id})
        try:
            addition.report = archive.add(addition.paths, tiling=tiling, on_progress=progress)
            addition.state = "done"
        except _StoppedError:
            addition.state = "stopped"
        except RsirError as error:
            addition.problem, addition.state = str(error), "failed"
        except Exception:
            log.exception("addition failed", extra={"addition": addition.id})
            addition.problem, addition.state = "an error of the service; see its log", "failed"
        log.info(
            "addition ends",
            extra={
                "archive": addition.archive,
                "addition": addition.id,
                "state": addition.state,
                "added": None if addition.report is None else addition.report.added,
            },
        )
