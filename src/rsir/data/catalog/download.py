"""Files from the net, whole or not at all, and archives unpacked without leaving their folder."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from rsir.errors import DataError, UsageError

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have come so far and the bytes in all, if the server says."""

_CHUNK = 1 << 20
_TIMEOUT = 60.0


def download(
    url: str,
    path: str | Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes what is at `url` to `path`: all of it, checked, or nothing.

    Only https, or http to this machine itself, redirections included. size in bytes and sha256 in
    hex are compared if given. Raises UsageError for other addresses, DataError if it fails.
    """
    path = Path(path)
    _check_url(url)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    got = 0
    opener = urllib.request.build_opener(_OnlySafeRedirects)
    try:
        with opener.open(url, timeout=_TIMEOUT) as answer, draft.open("wb") as file:
            length = answer.headers.get("Content-Length", "")
            expected = int(length) if length.isdecimal() else size
            while chunk := answer.read(_CHUNK):
                got += len(chunk)
                if size is not None and got > size:
                    break
                digest.update(chunk)
                file.write(chunk)
                if progress is not None:
                    progress(got, expected)
        if expected is not None and got != expected:
            raise DataError(f"{url}: {got} bytes came, not {expected}; try again")
        if size is not None and got != size:
            raise DataError(f"{url}: {got} bytes came, not {size}; the file there has changed")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise DataError(
                f"{url}: the SHA-256 is {digest.hexdigest()}, not {sha256}; the file there has "
                "changed, or was damaged on its way"
            )
        draft.replace(path)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise DataError(f"{url}: cannot be downloaded ({error})") from error
    finally:
        draft.unlink(missing_ok=True)


def extract(archive: str | Path, target: str | Path) -> None:
    """Unpacks a zip or tar file into a new folder.

    Raises DataError, leaving nothing behind, for members that would lie outside of it, for links
    in zip files, and for damaged or other files.
    """
    archive, target = Path(archive), Path(target)
    if target.exists():
        raise DataError(f"{target} exists; an archive is unpacked into a new folder only")
    try:
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
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise DataError(f"{archive}: cannot be unpacked ({error})") from error
    except (RuntimeError, NotImplementedError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise DataError(f"{archive}: encrypted or packed in an unknown way ({error})") from error
    except DataError:
        shutil.rmtree(target, ignore_errors=True)
        raise


class _OnlySafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to where `download` itself would go."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _check_url(newurl)
        except UsageError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    raise UsageError(f"{url}: only https addresses are downloaded from")


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
        raise DataError(f"{archive}: the member {member.filename!r} leads out of the archive")
