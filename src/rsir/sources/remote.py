"""Files on other machines: on web servers over HTTP, on object stores with pyarrow."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from http.client import HTTPException
from pathlib import PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rsir.errors import DataError

_SECONDS = 30  # our choice: a server that takes longer is down
_MOST_BYTES = 256 << 20  # our choice: a page of STAC items has megabytes
_GLOB = re.compile(r"[*?\[]")


def http_get(uri: str, *, first: int | None = None) -> tuple[bytes, Mapping[str, str]]:
    """The bytes at an http(s) uri, and the headers by lower-case name.

    first: read only this many bytes from the beginning.

    Errors: DataError if the server does not deliver them.
    """
    headers = {} if first is None else {"Range": f"bytes=0-{first - 1}"}
    if not is_web(uri):
        raise DataError(f"{uri}: give an http or https address")
    try:
        with urlopen(Request(uri, headers=headers), timeout=_SECONDS) as response:
            data: bytes = response.read(first if first is not None else _MOST_BYTES)
            return data, {name.lower(): value for name, value in response.headers.items()}
    except (OSError, ValueError, HTTPException) as error:  # URLError, timeouts; a bad address
        if isinstance(error, HTTPError):  # the response of a refusal is still open
            error.close()
        raise DataError(f"{uri}: cannot be fetched ({error}); check the address") from error


def first_bytes(uri: str, count: int = 1 << 16) -> bytes:
    """The first bytes of a file on a web server or an object store. Errors: DataError."""
    if is_web(uri):
        return http_get(uri, first=count)[0]
    system, path = file_system(uri)
    try:
        with system.open_input_file(path) as stream:
            return bytes(stream.read(count))
    except (OSError, ValueError) as error:
        raise DataError(f"{uri}: cannot be read ({error}); check the access") from error


def is_web(uri: str) -> bool:
    """Whether a uri is an http or https address."""
    return urlsplit(uri).scheme in ("http", "https")


def file_system(uri: str) -> tuple[Any, str]:
    """Pyarrow's file system of an object-store uri, and the path in it.

    Errors: DataError if pyarrow cannot reach it.
    """
    from pyarrow.fs import FileSystem

    scheme, _, path = uri.partition("://")
    try:
        system, root = FileSystem.from_uri(f"{'abfs' if scheme == 'az' else scheme}://{path}")
    except (OSError, ValueError) as error:
        raise DataError(f"{uri}: cannot be reached ({error}); check it and the access") from error
    return system, root


def object_info(uri: str) -> Any:
    """Pyarrow's FileInfo of one object.

    Errors: DataError if the store does not answer.
    """
    system, path = file_system(uri)
    try:
        return system.get_file_info(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{uri}: cannot be looked up ({error}); check the access") from error


def is_glob(name: str) -> bool:
    """Whether a name has wildcards."""
    return _GLOB.search(name) is not None


def objects(uri: str, suffixes: Collection[str]) -> Iterator[str]:
    """The objects of a glob, or with a prefix ("/" at the end) and one of the suffixes.

    Any other uri gives itself.

    Errors: DataError if there are none, or if they cannot be listed.
    """
    scheme, _, path = uri.partition("://")
    if is_web(uri) or not (is_glob(path) or path.endswith("/")):
        yield uri
        return
    fixed = _GLOB.split(path)[0]
    system, root = file_system(f"{scheme}://{fixed.rpartition('/')[0]}")
    from pyarrow.fs import FileSelector, FileType

    try:
        infos = system.get_file_info(FileSelector(root, recursive=True))
    except (OSError, ValueError) as error:
        raise DataError(f"{uri}: cannot be listed ({error}); check it and the access") from error
    found = [
        info.path
        for info in infos
        if info.type == FileType.File
        and (
            _matches(info.path.split("/"), path.split("/"))
            if is_glob(path)
            else PurePosixPath(info.path).suffix.lower() in suffixes
        )
    ]
    if not found:
        raise DataError(f"{uri}: holds no scene; check the address")
    yield from (f"{scheme}://{name}" for name in sorted(found))


def _matches(parts: list[str], patterns: list[str]) -> bool:
    """Whether a glob matches an object's whole name; '**' is any depth, '*' within one part."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_matches(parts[i:], patterns[1:]) for i in range(len(parts) + 1))
    return (
        bool(parts) and fnmatchcase(parts[0], patterns[0]) and (_matches(parts[1:], patterns[1:]))
    )
