"""A scene as a source: its name, its files and its STAC metadata; and the kinds of names."""

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
from rsir.sources.remote import is_web, object_info

SCENE_SUFFIXES: frozenset[str] = SUFFIXES | {".jp2", ".j2k"}
"""Lower-case suffixes of the files in folders that count as scenes. VRTs do not count, because
the files that a VRT refers to are usually in the same folder; the user must name a VRT."""

REMOTE = ("http", "https", "s3", "gs", "az")
"""Schemes of uris that GDAL reads by ranges: web, Amazon S3, Google Cloud Storage, Azure."""

_STAC_SUFFIXES = (".json", ".geojson")


class UnfitError(DataError):
    """A name exists but cannot be a scene; fatal only if there are no other names."""


class NoStacError(UnfitError):
    """JSON that is not STAC; in folders and globs it counts as any other file without an image."""


Units = tuple[float, float]
"""(scale, offset): the physical value is scale · sample + offset."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of a scene.

    bands: the names of each band, the common one ("red") first; () if unknown. visual: whether it
    is meant for display, 8-bit (STAC role "visual"). pixels: whether it is imagery, not a mask, a
    preview or metadata. units: of each band of the file, what its item states; () if nothing.
    """

    uri: str
    key: str = ""
    bands: tuple[tuple[str, ...], ...] = ()
    visual: bool = False
    pixels: bool = True
    units: tuple[Units | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """One scene: its files, and the metadata of its STAC item.

    uri: its name, from which `rsir.sources.find.source` makes the same source: an absolute path or
    a uri, of the file or of the STAC item (`items.geojson#id` in a collection of items). datetime:
    with a time zone, or None. properties: JSON values of the STAC item, by the names in
    `rsir.sources.stac.STAC_PROPERTIES`.
    """

    uri: str
    assets: tuple[Asset, ...]
    datetime: datetime | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something that is not a scene, and the reason: a name, a link's target or a file."""

    uri: str
    reason: str

    @classmethod
    def of(cls, uri: str, error: BaseException) -> Unusable:
        """Take the reason from the message of an error, without the uri at its start."""
        return cls(uri, str(error).removeprefix(f"{uri}: "))


def normal(name: str | os.PathLike[str]) -> str:
    """A uri unchanged; a path or file:// uri as an absolute path."""
    text = os.fspath(name)
    if text.startswith("file://"):
        text = url2pathname(urlsplit(text).path)
    return text if is_remote(text) else source_name(text)


def is_remote(uri: str) -> bool:
    """Whether a name is a uri of another machine, not a path."""
    return uri.partition("://")[0] in REMOTE and "://" in uri


def file_type(uri: str) -> str:
    """What exists under a name: "File", "Directory" or "NotFound".

    "Unknown" is anything else, such as a pipe or a device, which must not be opened.
    """
    if is_remote(uri):
        return str(object_info(uri.rstrip("/")).type.name)
    try:
        mode = Path(uri).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return "NotFound"
    except OSError as error:
        raise DataError(f"{uri}: cannot be read ({error.strerror}); check the path") from error
    return "File" if stat.S_ISREG(mode) else "Directory" if stat.S_ISDIR(mode) else "Unknown"


def check_file(uri: str) -> None:
    """Check that a local name is that of a file. Errors: DataError if not."""
    if not is_remote(uri) and (kind := file_type(uri)) != "File":
        reason = NO_FILE if kind == "Unknown" else "no such file; check the path"
        raise DataError(f"{uri}: {reason}")


def suffix_of(uri: str) -> str:
    """The lower-case suffix of a path or uri, of a web address without its query."""
    return PurePosixPath(urlsplit(uri).path if is_web(uri) else uri).suffix.lower()


def is_stac(uri: str) -> bool:
    """Whether a path or uri has a suffix of STAC documents."""
    return suffix_of(uri) in _STAC_SUFFIXES
