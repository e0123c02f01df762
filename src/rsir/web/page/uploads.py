"""Uploaded images, stored for as long as the link of a search works."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rsir import atomic
from rsir.errors import UsageError
from rsir.web.problems import ForbiddenError, NotFoundError

HOURS = 24
"""Age at which an upload is deleted; our choice: a link works on the day on which it is sent."""
TOKEN = re.compile(r"[0-9a-f]{32}")
MOST_BYTES = 256 << 20
MOST_FILES = 1000
"""Limits for all uploads together: beyond them the oldest are deleted; our choice."""


def default_folder() -> Path:
    """rsir/uploads in the user's cache folder (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rsir" / "uploads"


class Uploads:
    """Files in a folder that no other user may read, named by the hash of their content.

    The name is the token of a link: it reveals nothing of the image, nobody without the image can
    guess it, and it stays the same after a restart. `delete_old` deletes a file HOURS after its
    last upload, or earlier beyond MOST_BYTES or MOST_FILES; the caller runs it regularly.
    """

    def __init__(self, folder: Path, *, hours: float = HOURS, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self.hours = hours
        self._most_bytes = most_bytes
        self._lock = threading.Lock()

    def store(self, data: bytes) -> str:
        """Store an image file; returns its token, 32 hex digits.

        ForbiddenError if the folder cannot be written.
        """
        token = hashlib.blake2b(data, digest_size=16).hexdigest()
        with self._lock, self._folder_errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic.replacing(self.folder / token) as draft:
                draft.touch(mode=0o600)
                draft.write_bytes(data)
        self.delete_old()
        return token

    def read(self, token: str) -> bytes:
        """The file of a token; NotFoundError if it was never stored, or is deleted."""
        path = self._path(token)
        try:
            if self._is_old(path.stat().st_mtime):
                raise FileNotFoundError
            return path.read_bytes()
        except OSError as error:
            raise NotFoundError(
                "that image is no longer on the service, which deletes uploads after "
                f"{self.hours:g} hours; please choose it again"
            ) from error

    def delete(self, token: str) -> None:
        """Delete the file of a token, if there is one."""
        self._path(token).unlink(missing_ok=True)

    def delete_old(self) -> None:
        """Delete the files that are too old, and the oldest beyond the limits."""
        with self._lock, suppress(FileNotFoundError):
            files = [(entry.stat(), Path(entry.path)) for entry in os.scandir(self.folder)]
            files.sort(key=lambda file: file[0].st_mtime, reverse=True)
            total = 0
            for number, (status, path) in enumerate(files):
                total += status.st_size
                too_much = total > self._most_bytes or number >= MOST_FILES
                if too_much or self._is_old(status.st_mtime):
                    path.unlink(missing_ok=True)

    @contextmanager
    def _folder_errors(self) -> Iterator[None]:
        """Translate OSErrors of the folder into ForbiddenError."""
        try:
            yield
        except OSError as error:
            raise ForbiddenError(
                f"this service cannot store images, because it cannot write to {self.folder} "
                f"({error.strerror}); whoever runs it can set XDG_CACHE_HOME to another folder"
            ) from error

    def _path(self, token: str) -> Path:
        if not TOKEN.fullmatch(token):
            raise UsageError("that is not the token of an uploaded image")
        return self.folder / token

    def _is_old(self, mtime: float) -> bool:
        return time.time() - mtime > 3600 * self.hours
