"""What scenes and their files are called, here and on other machines."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rsir.errors import DataError
from rsir.sources.folders import NO_FILE, SUFFIXES, source_name
from rsir.sources.remote import info, is_web

SCENE_SUFFIXES: frozenset[str] = SUFFIXES | {".jp2", ".j2k"}
"""Lower-case suffixes of the files in folders that are taken for scenes. A VRT has to be named:
what it is made of lies in the folder too."""

REMOTE = ("http", "https", "s3", "gs", "az")
"""Schemes that GDAL reads by ranges: web servers, Amazon S3, Google Cloud Storage, Azure."""

_STAC_SUFFIXES = (".json", ".geojson")


class UnfitError(DataError):
    """What was named is there but cannot be a scene: an error only if nothing else was named."""


class NoStacError(UnfitError):
    """JSON that is no STAC at all: in folders and globs a file like any other that is no image."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of a scene.

    bands: what its bands are called, each by all of its names, the common one ("red") first;
    () if nobody said. visual: made to be looked at, 8-bit (STAC role "visual").
    pixels: whether it is imagery, not a mask, a preview or metadata.
    """

    uri: str
    key: str = ""
    bands: tuple[tuple[str, ...], ...] = ()
    visual: bool = False
    pixels: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """One scene: the files that hold it, and what was said of it elsewhere.

    uri: its name, from which `rsir.sources.find.source` finds it again: an absolute path or a uri,
    of the file or of the STAC item (`items.geojson#id` in a collection of items). datetime: with a
    time zone.
    properties: JSON values, of the STAC item, by the names in `rsir.sources.stac.STAC_PROPERTIES`.
    """

    uri: str
    assets: tuple[Asset, ...]
    datetime: datetime | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something that was named, linked to or met in a folder, and is no scene, and why."""

    uri: str
    reason: str

    @classmethod
    def of(cls, uri: str, error: BaseException) -> Unusable:
        """With the message of an error, without the name before it."""
        return cls(uri, str(error).removeprefix(f"{uri}: "))


def normal(name: str | os.PathLike[str]) -> str:
    """A uri as it is, and a path or file:// uri as an absolute path."""
    text = os.fspath(name)
    if text.startswith("file://"):
        text = url2pathname(urlsplit(text).path)
    return text if is_remote(text) else source_name(text)


def is_remote(uri: str) -> bool:
    """Whether a name is a uri of another machine, not a path."""
    return uri.partition("://")[0] in REMOTE and "://" in uri


def kind_of(uri: str) -> str:
    """Whether there is a "File" or a "Directory" of just that name, or "NotFound".

    "Unknown": something else, a pipe or a device, which must not be opened.
    """
    if is_remote(uri):
        return str(info(uri.rstrip("/")).type.name)
    try:
        mode = Path(uri).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return "NotFound"
    except OSError as error:
        raise DataError(f"{uri}: cannot be looked at ({error.strerror}); check the path") from error
    return "File" if stat.S_ISREG(mode) else "Directory" if stat.S_ISDIR(mode) else "Unknown"


def check_file(uri: str) -> None:
    """Errors: DataError if a local name is not that of a file."""
    if not is_remote(uri) and (kind := kind_of(uri)) != "File":
        reason = NO_FILE if kind == "Unknown" else "no such file; check the path"
        raise DataError(f"{uri}: {reason}")


def suffix_of(uri: str) -> str:
    """The lower-case suffix of a path or uri, without what asks a web server for more."""
    return PurePosixPath(urlsplit(uri).path if is_web(uri) else uri).suffix.lower()


def is_stac(uri: str) -> bool:
    """Whether a path or uri is named as STAC documents are."""
    return suffix_of(uri) in _STAC_SUFFIXES
