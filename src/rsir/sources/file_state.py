"""Recognise changed files by a digest of their content, or by a stamp that is cheap to read.

The files are local, on web servers or on object stores. Errors: ImageError for a local file that
cannot be read and for an object that does not exist, DataError for a server that fails.
"""

from __future__ import annotations

import hashlib
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from rsir.errors import ImageError
from rsir.sources.remote import http_get, is_web, object_info
from rsir.sources.source import is_remote

_BLOCK = 1 << 20
_HEAD_BYTES = 1 << 16
CONTENT_BYTES = 16
"""Bytes of a digest, 32 hex digits: 128 bits, as usual for content addresses."""


def digest(file: str) -> str:
    """Hex digest of a local file's bytes, or of a remote file's state (see `Scene.content`)."""
    digested = hashlib.blake2b(digest_size=CONTENT_BYTES)
    if not is_remote(file):
        try:
            with Path(file).open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digested.update(block)
        except OSError as error:
            raise ImageError(f"{file}: cannot be read ({error.strerror})") from error
    elif is_web(file):
        head, headers = http_get(file, first=_HEAD_BYTES)
        for name in ("etag", "last-modified"):
            digested.update(headers.get(name, "").encode() + b"\0")
        digested.update(str(_length(headers)).encode() + b"\0" + head)
    else:
        digested.update(repr(stamp(file)).encode())
    return digested.hexdigest()


def stamp(file: str) -> tuple[int, int]:
    """(bytes, last modification in nanoseconds since the epoch); 0 if a server omits the number."""
    if not is_remote(file):
        try:
            stat = Path(file).stat()
        except OSError as error:
            raise ImageError(f"{file}: cannot be read ({error.strerror})") from error
        return stat.st_size, stat.st_mtime_ns
    if is_web(file):
        headers = http_get(file, first=1)[1]
        return _length(headers), _seconds(headers.get("last-modified", "")) * 1_000_000_000
    state = object_info(file)
    if not state.is_file:
        raise ImageError(f"{file}: there is no such object; check its address")
    return state.size, state.mtime_ns or 0


def _seconds(date: str) -> int:
    """Seconds since the epoch of an HTTP date; 0 for an invalid one."""
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except (ValueError, TypeError, OverflowError):
        return 0


def _length(headers: Any) -> int:
    """The size of the whole file, from the headers of a response with a part of it."""
    whole = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length", "")
    return int(whole) if whole.isdigit() else 0
