"""The location of a Lance table: a folder, or an object store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import lancedb

from rsir.errors import UsageError

SUFFIX = ".lance"
_INDEX = ".index"
_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


@dataclass(frozen=True)
class Location:
    """A table `name` in the LanceDB database `parent`, which is a folder or a uri.

    folder: of the table itself; None on an object store.
    """

    parent: str
    name: str
    folder: Path | None

    @classmethod
    def of(cls, path: str | Path) -> Location:
        """The location at a path or uri that ends in NAME.lance; UsageError for any other."""
        text = str(path)
        scheme, separator, rest = text.partition("://")
        pure = PurePosixPath(rest) if separator else Path(path)
        if pure.suffix != SUFFIX or pure.stem == "" or (separator and len(pure.parts) < 2):
            example = f", such as {scheme}://bucket/name{SUFFIX}" if separator else ""
            raise UsageError(f"the path of a store ends in '{SUFFIX}'{example}, not {pure.name!r}")
        if separator:
            return cls(f"{scheme}://{pure.parent}", pure.stem, None)
        return cls(str(pure.parent), pure.stem, Path(path))

    def __str__(self) -> str:
        parent = self.parent if self.folder is None else str(self.folder.parent)
        return f"{parent}/{self.name}{SUFFIX}" if self.folder is None else str(self.folder)

    @property
    def index(self) -> Path | None:
        """The folder beside the table for its search index; None on an object store."""
        return None if self.folder is None else self.folder.with_suffix(_INDEX)

    def database(self) -> Any:
        """A new connection with empty caches.

        For object stores, the environment supplies the credentials, under the names that the tools
        of each store use (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL,
        …).
        """
        if self.folder is None:
            endpoint = next((os.environ[name] for name in _ENDPOINT if os.environ.get(name)), "")
            # A private server may speak plain HTTP, which LanceDB refuses by default.
            options = {"allow_http": "true"} if endpoint.startswith("http:") else None
            return lancedb.connect(self.parent, storage_options=options)
        return lancedb.connect(self.parent)

    def state(self) -> tuple[int, int] | None:
        """A value that changes with a commit, and if the table is recreated; None if unknown.

        The value is the inode of the folder of versions and its time of change in nanoseconds.
        """
        if self.folder is None:
            return None
        found = (self.folder / "_versions").stat()
        return found.st_ino, found.st_mtime_ns
