"""Add images to an archive while the service answers; one addition at a time, in a thread."""

from __future__ import annotations

import logging
import secrets
import threading
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
    from rsir.archive.indexing.report import IndexReport
    from rsir.scenes.tiling import Tiling

log = logging.getLogger("rsir.web")

MOST_RECORDED = 100
"""Number of additions that can be looked up: the newest; our choice."""
MOST_WAITING = 16
"""Number of additions that may wait for their turn; our choice."""

_STAC = (".json", ".geojson")
"""Suffixes of STAC documents, which name files on other machines."""

AdditionState = Literal["waiting", "running", "done", "failed", "stopped"]


@dataclass(slots=True)
class Addition:
    """The progress of one addition. done, total: number of files; problem: why it failed."""

    id: str
    archive: str
    paths: list[str]
    state: AdditionState = "waiting"
    done: int = 0
    total: int | None = None
    report: IndexReport | None = None
    problem: str | None = None


class _StoppedError(Exception):
    """The service stops, so the addition stops too."""


class Additions:
    """The additions of one service."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rsir-adding")
        self._recorded: dict[str, Addition] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def start(
        self, name: str, archive: Archive, paths: Sequence[str], tiling: Tiling | None = None
    ) -> Addition:
        """Add files and folders, as soon as the earlier additions are done.

        Raises ForbiddenError for a path that is not below a folder of `ServiceSettings.allow_add`,
        UsageError for a path that does not exist, BusyError if too many additions wait.
        """
        checked = [self._checked(path) for path in paths]
        addition = Addition(secrets.token_hex(8), name, checked)
        with self._lock:
            if sum(a.state == "waiting" for a in self._recorded.values()) >= MOST_WAITING:
                raise BusyError(
                    f"{MOST_WAITING} additions are waiting already; try again when one is done"
                )
            self._recorded[addition.id] = addition
            for old in [
                a for a in self._recorded.values() if a.state not in ("waiting", "running")
            ]:
                if len(self._recorded) > MOST_RECORDED:
                    del self._recorded[old.id]
        self._thread.submit(self._run, addition, archive, tiling)
        return addition

    def of(self, name: str) -> list[Addition]:
        """The additions to one archive, newest first."""
        with self._lock:
            return [a for a in reversed(self._recorded.values()) if a.archive == name]

    def get(self, name: str, id: str) -> Addition:
        """The addition of an id; NotFoundError if there is none, or if it is no longer recorded."""
        addition = self._recorded.get(id)
        if addition is None or addition.archive != name:
            raise NotFoundError(
                f"there is no addition {id!r}; the service records the last {MOST_RECORDED}"
            )
        return addition

    def close(self) -> None:
        """Stop. Adding the same paths again continues after the images that are committed."""
        self._stop.set()
        self._thread.shutdown(wait=True)

    def _checked(self, path: str) -> str:
        allowed = self._settings.allow_add
        if "://" in path:
            if not self._settings.allow_remote:
                raise ForbiddenError(
                    "this service does not add sources on other machines; --allow-remote allows it"
                )
            return path
        if "\0" in path:
            raise UsageError("a path cannot contain NUL")
        # Follow links before the comparison, because the real location of the file counts.
        real = Path(path).resolve()
        if not any(real.is_relative_to(folder.resolve()) for folder in allowed):
            raise ForbiddenError(
                "this service adds only files below the folders that it was started with "
                "(--allow-add)"
            )
        if not real.exists():
            raise UsageError(f"{path}: no such file or folder on the service's machine")
        if real.suffix.lower() == ".vrt":
            raise ForbiddenError(f"{path}: a VRT names other files; this service adds none")
        if real.suffix.lower() in _STAC and not self._settings.allow_remote:
            raise ForbiddenError(
                f"{path}: a list of files may name files on other machines; see --allow-remote"
            )
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
            addition.problem, addition.state = (
                "the service failed; its log has the reason",
                "failed",
            )
        log.info(
            "addition ends",
            extra={
                "archive": addition.archive,
                "addition": addition.id,
                "state": addition.state,
                "added": None if addition.report is None else addition.report.added,
            },
        )
