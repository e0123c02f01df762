"""Uploaded images, for as long as a link to their search shall work, and no longer."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rsir.errors import UsageError
from rsir.web.problems import ForbiddenError, NotFoundError

HOURS = 24
"""An upload is forgotten after; our choice: a link works for the day on which it is sent."""
TOKEN = re.compile(r"[0-9a-f]{32}")
MOST_BYTES = 256 << 20
MOST_FILES = 1000
"""Of all uploads, the oldest are forgotten beyond; our choice."""


def default_folder() -> Path:
    """rsir/uploads in the user's cache folder, as the XDG base directory specification has it."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rsir" / "uploads"


class Uploads:
    """Files in a folder that nobody else may read, named by the hash of their content.

    The name is the token of a link: it tells nothing of the image, can be guessed by nobody who
    does not have it, and is the same after a restart. Files are deleted HOURS after they were
    uploaded last, or earlier beyond MOST_BYTES; by `tidy`, which is to be called now and then.
    """

    def __init__(self, folder: Path, *, hours: float = HOURS, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self.hours = hours
        self._most_bytes = most_bytes
        self._lock = threading.Lock()

    def keep(self, data: bytes) -> str:
        """Keep an image file; returns its token, 32 hex digits.

        ForbiddenError if the folder cannot be written.
        """
        token = hashlib.blake2b(data, digest_size=16).hexdigest()
        with self._lock, self._told():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = self.folder / f".{token}.{os.getpid()}"
            with os.fdopen(
                os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb"
            ) as file:
                file.write(data)
            partial.replace(self.folder / token)
        self.tidy()
        return token

    def read(self, token: str) -> bytes:
        """The file of a token; NotFoundError if it is not kept, or not any more."""
        path = self._path(token)
        try:
            if self._is_old(path.stat().st_mtime):
                raise FileNotFoundError
            return path.read_bytes()
        except OSError as error:
            raise NotFoundError(
                f"that image is not on the service any more: uploads are deleted {self.hours:g} "
                "hours after they came; please choose it again"
            ) from error

    def forget(self, token: str) -> None:
        """Delete one, if it is there."""
        self._path(token).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete what is too old, and the oldest of what is too much."""
        with self._lock, suppress(FileNotFoundError):
            files = [(entry.stat(), Path(entry.path)) for entry in os.scandir(self.folder)]
            files.sort(key=lambda file: file[0].st_mtime, reverse=True)
            total = 0
            for number, (facts, path) in enumerate(files):
                total += facts.st_size
                too_much = total > self._most_bytes or number >= MOST_FILES
                if too_much or self._is_old(facts.st_mtime):
                    path.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ForbiddenError(
                f"this service cannot keep images, as {self.folder} cannot be written "
                f"({error.strerror}); whoever runs it can set XDG_CACHE_HOME to another folder"
            ) from error

    def _path(self, token: str) -> Path:
        if not TOKEN.fullmatch(token):
            raise UsageError("that is not the token of an image that was uploaded here")
        return self.folder / token

    def _is_old(self, mtime: float) -> bool:
        return time.time() - mtime > 3600 * self.hours
