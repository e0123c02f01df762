"""What a file is known by: a digest of what it holds, and a stamp that is cheap to ask for.

Local files, and what lies on web servers and object stores. Errors: ImageError for a local file
that cannot be read and an object that is not there, DataError for a server that does not answer.
"""

from __future__ import annotations

import hashlib
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from rsir.errors import ImageError
from rsir.sources.remote import get, info, is_web
from rsir.sources.source import is_remote

_BLOCK = 1 << 20
_HEAD_BYTES = 1 << 16
_CONTENT_BYTES = 16  # as rsir.images.read: 32 hex digits


def digest(file: str) -> str:
    """Hex digest of what a file holds; on a server or an object store, of what tells of it."""
    digested = hashlib.blake2b(digest_size=_CONTENT_BYTES)
    if not is_remote(file):
        try:
            with Path(file).open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digested.update(block)
        except OSError as error:
            raise ImageError(f"{file}: cannot be read ({error.strerror})") from error
    elif is_web(file):
        head, headers = get(file, first=_HEAD_BYTES)
        for name in ("etag", "last-modified"):
            digested.update(headers.get(name, "").encode() + b"\0")
        digested.update(str(_length(headers)).encode() + b"\0" + head)
    else:
        digested.update(repr(stamp(file)).encode())
    return digested.hexdigest()


def stamp(file: str) -> tuple[int, int]:
    """Bytes, and nanoseconds since the epoch of the last change; 0 for what is not said."""
    if not is_remote(file):
        try:
            stat = Path(file).stat()
        except OSError as error:
            raise ImageError(f"{file}: cannot be read ({error.strerror})") from error
        return stat.st_size, stat.st_mtime_ns
    if is_web(file):
        headers = get(file, first=1)[1]
        return _length(headers), _seconds(headers.get("last-modified", "")) * 1_000_000_000
    said = info(file)
    if not said.is_file:
        raise ImageError(f"{file}: there is no such object; check its address")
    return said.size, said.mtime_ns or 0


def _seconds(date: str) -> int:
    """Since the epoch, of an HTTP date; 0 for what is none."""
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except (ValueError, TypeError, OverflowError):
        return 0


def _length(headers: Any) -> int:
    """The size of the whole file, of an answer to a request for a part."""
    whole = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length", "")
    return int(whole) if whole.isdigit() else 0
