"""Find the images whose file is gone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from rsir.errors import ArchiveError, DataError
from rsir.sources.find import document_of
from rsir.store.records.record import Record, State

_REMEMBERED_FILES = 1 << 16
"""Files whose state is remembered, because all tiles of a scene need the same one. Our choice."""


class AllGoneError(ArchiveError):
    """Every file is gone: a disk that is not mounted is the likelier reason.

    finding: the message without the advice for Python.
    """

    def __init__(self, finding: str) -> None:
        super().__init__(f"{finding} To forget them all, prune with everything=True")
        self.finding = finding


def without_file(records: Iterable[Record | State], *, everything: bool) -> list[str]:
    """The ids of the records whose file is gone, in their order; see `Archive.prune`.

    Raises AllGoneError if every file is gone, unless `everything` is true.
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
            f"none of the {files} files that the archive knows is there, e.g. {last}; is a disk "
            "not mounted?"
        )
    return gone


def _is_gone(source: str) -> bool:
    """Whether there is neither such a file nor, for "items.geojson#id", its collection."""
    try:
        Path(source).stat()
    except (FileNotFoundError, NotADirectoryError):
        try:
            return not document_of(source)[1]
        except DataError:  # without permission to look, the file may exist
            return False
    except OSError:
        return False
    return False
