"""Translate errors of a store into messages: disk full, read-only, deleted, concurrent writers."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsir.errors import ArchiveError, RsirError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}

# LanceDB 0.40 raises a RuntimeError whose text has the error number of the system and a line of
# the source code of LanceDB.
_NUMBER = re.compile(r"\(os error (\d+)\)")
_CODE = re.compile(r",? *\S+\.rs:\d+(:\d+)?")


@contextmanager
def translate_store_errors(path: Path) -> Iterator[None]:
    """Translate the exceptions of the store of the archive at `path` into ArchiveError.

    Put only calls of the store and of the file system into the block: it translates every
    exception except those of rsir. The table of a stranger may hold anything.
    """
    try:
        yield
    except RsirError:
        raise
    except (OSError, RuntimeError) as error:
        raise ArchiveError(f"{path}: {_meaning(path, error)}") from error
    except Exception as error:
        raise ArchiveError(
            f"{path}: its table is damaged ({type(error).__name__}: {_one_line(error)}); restore "
            "it from a copy, or index into a new archive"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(_CODE.sub("", str(error)).split())[:500]


def _meaning(path: Path, error: OSError | RuntimeError) -> str:
    text = _one_line(error)
    found = _NUMBER.search(text)
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    if number in _FULL:
        return (
            "the disk is full (or a quota or a limit on the size of files is reached); the "
            "committed work is kept: make space and run the same command again"
        )
    if number in _FORBIDDEN:
        return (
            f"cannot be written or read ({text}); change its permissions, mount it writable, or "
            "use a copy. A search needs only read access"
        )
    if not path.is_dir():
        return "the folder was deleted or moved while it was in use; open it at its new path"
    if "onflict" in text or "oo many concurrent" in text:
        return (
            "other processes kept changing the archive; the committed work is kept: run the same "
            "again"
        )
    if number == errno.ENOENT or "ot found" in text:
        return f"a part of it is missing ({text}); restore it, or index into a new archive"
    return f"its store failed ({text})"
