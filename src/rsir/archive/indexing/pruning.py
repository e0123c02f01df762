"""Find the images whose file no longer exists."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from rsir.errors import ArchiveError, DataError
from rsir.sources.find import document_of
from rsir.store.records.record import Record, State

_REMEMBERED_FILES = 1 << 16
"""Files whose existence is cached, because all tiles of a scene have the same file. Our choice."""


class AllGoneError(ArchiveError):
    """No file exists; probably a disk is not mounted.

    finding: the message without the advice for Python.
    """

    def __init__(self, finding: str) -> None:
        super().__init__(f"{finding} To remove all their records, prune with everything=True")
        self.finding = finding


def without_file(records: Iterable[Record | State], *, everything: bool) -> list[str]:
    """The ids of the records whose file no longer exists, in order; see `Archive.prune`.

    Raises AllGoneError if no file exists, unless `everything` is true.
    """
    is_gone = lru_cache(maxsize=_REMEMBERED_FILES)(_is_gone)
    gone: list[str] = []
    files, last = 0, ""
    for record in records:
        if Path(record.source).is_absolute():
            files, last = files + 1, record.source
            if is_gone(record.source):
                gone.append(record.id)
    if gone and len(gone) == files and not everything:
        raise AllGoneError(
            f"none of the archive's {files} files exists, e.g. {last}; is a disk not mounted?"
        )
    return gone


def _is_gone(source: str) -> bool:
    """Whether the file, or the collection "items.geojson" of "items.geojson#id", does not exist."""
    try:
        Path(source).stat()
    except (FileNotFoundError, NotADirectoryError):
        try:
            return not document_of(source)[1]
        except DataError:  # without permission to read the folder, the file may exist
            return False
    except OSError:
        return False
    return False
