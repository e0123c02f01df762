"""Download a file whole or not at all, and unpack an archive inside its folder only."""

from __future__ import annotations

import ipaddress
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from rsir.atomic import replacing
from rsir.errors import DataError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from requests import Response

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the total, which is None if the server omits it."""

_CHUNK = 1 << 20
_TIMEOUT = 60.0
"""Seconds without a byte after which a download fails; our choice."""


def download(
    url: str,
    path: str | Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Download `url` to `path`, whole or not at all; needs the extra 'datasets'.

    Only https addresses are allowed, and http addresses of this machine itself; the same holds for
    redirections. size: bytes; sha256: hex; both are checked if given. Raises UsageError for other
    addresses, DataError if the download or a check fails, MissingExtraError without pooch.
    """
    path = Path(path)
    _check_url(url)
    try:
        import pooch
        import requests
    except ImportError as error:
        raise MissingExtraError("downloading an image set", "datasets") from error
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(
        progressbar=_Progress(url, size, progress),
        chunk_size=_CHUNK,
        timeout=_TIMEOUT,
        hooks={"response": _check_redirect},
        headers={"Accept-Encoding": "identity"},
    )
    try:
        with replacing(path) as draft:
            checksum = None if sha256 is None else f"sha256:{sha256}"
            pooch.retrieve(url, checksum, draft.name, path.parent, downloader=downloader)
            received = draft.stat().st_size
            if size is not None and received != size:
                raise DataError(
                    f"{url}: received {received} bytes, not {size}; the file has changed"
                )
    except requests.HTTPError as error:
        reason = "" if error.response is None else error.response.reason
        status = "an error" if error.response is None else error.response.status_code
        raise DataError(f"{url}: the server responds {status} {reason}") from error
    except (OSError, requests.RequestException) as error:
        raise DataError(f"{url}: cannot be downloaded ({error})") from error
    except ValueError as error:  # raised by pooch for another checksum
        raise DataError(
            f"{url}: the SHA-256 is not {sha256}; the file has changed, or was damaged in transit "
            f"({error})"
        ) from error


class _Progress:
    """A progress bar for pooch that calls `progress` and stops a download that is too large.

    pooch counts whole chunks, even if the last chunk is smaller.
    """

    def __init__(self, url: str, size: int | None, progress: Progress | None) -> None:
        self.total = 0  # bytes; pooch sets it from the response's header, or to 0 without one
        self._url = url
        self._size = size
        self._progress = progress
        self._got = 0

    def update(self, count: int) -> None:
        self._got += count
        expected = self.total or self._size
        if self._size is not None and self._got > self._size + _CHUNK:
            raise DataError(
                f"{self._url}: received more than {self._size} bytes; the file has changed"
            )
        if self._progress is not None:
            self._progress(self._got if expected is None else min(self._got, expected), expected)

    def reset(self) -> None:
        """Start again from 0; pooch does so before it counts the whole file at the end."""
        self._got = 0

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def extract(archive: str | Path, target: str | Path) -> None:
    """Unpack a zip or tar file into a new folder.

    Raises DataError and leaves nothing behind if a member would lie outside the folder, if a zip
    file holds a link, or if the file is damaged or of another format.
    """
    archive, target = Path(archive), Path(target)
    if target.exists():
        raise DataError(f"{target} exists; give a new folder")
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, target, ignore_errors=True)
        try:
            _unpack(archive, target)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise DataError(f"{archive}: cannot be unpacked ({error})") from error
        except (RuntimeError, NotImplementedError) as error:
            raise DataError(
                f"{archive}: encrypted, or packed in an unknown way ({error})"
            ) from error
        undo.pop_all()


def _unpack(archive: Path, target: Path) -> None:
    target.mkdir(parents=True)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                _check_member(archive, member)
            packed.extractall(target)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as packed_tar:
            packed_tar.extractall(target, filter="data")
    else:
        raise DataError(f"{archive}: neither a zip nor a tar file; unpack it by hand")


def _check_redirect(response: Response, **_: object) -> None:
    """Raise UsageError for a redirection to an address that `download` refuses."""
    if response.is_redirect:
        _check_url(urljoin(response.url, response.headers["location"]))


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    raise UsageError(f"{url}: only https addresses are allowed")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename.replace("\\", "/")
    pure = PurePosixPath(name)
    unix_mode = member.external_attr >> 16
    is_link = unix_mode & 0o170000 == 0o120000
    if pure.is_absolute() or ".." in pure.parts or re.match("[A-Za-z]:", name) or is_link:
        raise DataError(
            f"{archive}: the member {member.filename!r} would lie outside the new folder"
        )
