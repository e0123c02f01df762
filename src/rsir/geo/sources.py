"""What the user names – files, folders, globs, STAC, object stores – as a list of scenes."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from urllib.request import Request, url2pathname, urlopen

from rsir.data.images import SUFFIXES, source_name, walk
from rsir.errors import DataError, MissingExtraError, UsageError

if TYPE_CHECKING:
    import pystac

SCENE_SUFFIXES: frozenset[str] = SUFFIXES | {".jp2", ".j2k"}
"""Lower-case suffixes of the files in folders that are taken for scenes. A VRT has to be named:
what it is made of lies in the folder too."""

REMOTE = ("http", "https", "s3", "gs", "az")
"""Schemes that GDAL reads by ranges: web servers, Amazon S3, Google Cloud Storage, Azure."""

_STAC_SUFFIXES = (".json", ".geojson")
_NO_PIXELS = {"thumbnail", "overview", "metadata", "cloud", "cloud-shadow", "data-mask", "date"}
_RASTER_TYPES = ("image/tiff", "image/jp2", "image/jpx", "image/png", "image/jpeg", "image/webp")
_SECONDS = 30  # our choice: a server that is silent for longer is down
_MOST_JSON_BYTES = 256 << 20  # our choice: a result page has megabytes; more is no STAC


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

    uri: its name, from which `source` finds it again: an absolute path or a uri, of the file or of
    the STAC item (`items.geojson#id` in a collection of items). datetime: with a time zone.
    properties: JSON values, of the STAC item.
    """

    uri: str
    assets: tuple[Asset, ...]
    datetime: datetime | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something that was named, or linked to, and is no scene, and why."""

    uri: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sources:
    """What `find_sources` found, in the order of their uris, each once.

    ignored: other files in the folders, by lower-case suffix.
    """

    sources: tuple[Source, ...]
    unusable: tuple[Unusable, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)

    def shard(self, number: int, count: int) -> Sources:
        """Every `count`-th of the sources, from `number` on, counted from 0.

        What is not indexed, `unusable` and `ignored`, is in shard 0 alone: of all shards together
        everything comes out once. Errors: UsageError for a number that is none of them.
        """
        if not 0 <= number < count:
            raise UsageError(
                f"there is no shard {number} of {count}; they count from 0: 0/4, 1/4, 2/4, 3/4"
            )
        some = self.sources[number::count]
        return replace(self, sources=some) if number == 0 else Sources(some)


def find_sources(
    names: Iterable[str | os.PathLike[str]], *, exclude: Path | None = None
) -> Sources:
    """The scenes among what the user names.

    A name is a file (taken whatever its suffix); a folder, searched to the bottom as
    `rsir.data.images.find_images` does; a glob ("scenes/**/*_B04.jp2"), local or on an object
    store; a STAC item, collection, catalogue or collection of items (.json, .geojson), whose links
    are followed; a uri of one object, or of a prefix that ends in "/" on s3, gs or az.
    exclude: a folder in which nothing is looked at.

    A broken link of a catalogue is `unusable`, not fatal. A catalogue on a server that points to
    files of this machine is not followed there.

    Errors: DataError if a name is nothing at all; MissingExtraError for STAC without pystac.
    """
    found: dict[str, Source] = {}
    unusable: list[Unusable] = []
    ignored: Counter[str] = Counter()
    closed = None if exclude is None else exclude.resolve()
    for name in names:
        for one in _found(os.fspath(name), closed, ignored):
            shown = one.uri.encode("utf-8", "backslashreplace").decode()
            if isinstance(one, Unusable):
                unusable.append(one)
            elif shown != one.uri:
                unusable.append(Unusable(shown, "its name is not valid UTF-8; rename the file"))
            else:
                found.setdefault(one.uri, one)
    sources = tuple(found[uri] for uri in sorted(found))
    return Sources(sources, tuple(unusable), dict(sorted(ignored.items())))


def source(uri: str | os.PathLike[str]) -> Source:
    """The one scene of a file, of a uri, or of a STAC item.

    Errors: DataError if there is no such file, or if the JSON is no single STAC item.
    """
    name = normal(uri)
    base, _, item = name.partition("#")
    if not _is_stac(base):
        if not is_remote(name) and not Path(name).is_file():
            raise DataError(f"{name}: no such file; check the path")
        return _plain(name)
    kind = _document(base).get("type")
    if kind != "Feature" and not (kind == "FeatureCollection" and item):
        raise DataError(f"{base}: is not one STAC item; name an item ('#' and its id after a list)")
    items = [one for one in _stac(base) if one.uri == name]
    if len(items) != 1:
        raise DataError(f"{base}: holds no item '{item}' or several; check its id")
    if isinstance(items[0], Unusable):
        raise DataError(f"{items[0].uri}: {items[0].reason}")
    return items[0]


def normal(name: str | os.PathLike[str]) -> str:
    """A uri as it is, and a path or file:// uri as an absolute path."""
    text = os.fspath(name)
    if text.startswith("file://"):
        text = url2pathname(urlsplit(text).path)
    return text if is_remote(text) else source_name(text)


def is_remote(uri: str) -> bool:
    """Whether a name is a uri of another machine, not a path."""
    return uri.partition("://")[0] in REMOTE and "://" in uri


def get(uri: str, *, first: int | None = None) -> tuple[bytes, Mapping[str, str]]:
    """The bytes of an http(s) uri, or its first ones, and the answer's headers by lower-case name.

    Errors: DataError if the server does not give them.
    """
    headers = {} if first is None else {"Range": f"bytes=0-{first - 1}"}
    if urlsplit(uri).scheme not in ("http", "https"):
        raise DataError(f"{uri}: give an http or https address")
    try:
        with urlopen(Request(uri, headers=headers), timeout=_SECONDS) as answer:
            data: bytes = answer.read(first if first is not None else _MOST_JSON_BYTES)
            return data, {name.lower(): value for name, value in answer.headers.items()}
    except (OSError, ValueError, HTTPException) as error:  # URLError, timeouts; a bad address
        raise DataError(f"{uri}: cannot be fetched ({error}); check the address") from error


def _found(name: str, closed: Path | None, ignored: Counter[str]) -> Iterator[Source | Unusable]:
    """What a name stands for; what the system says of one that it cannot look at, as DataError."""
    try:
        yield from _expanded(name, closed, ignored)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: cannot be looked at ({reason}); check the path") from error


def _expanded(name: str, closed: Path | None, ignored: Counter[str]) -> Iterator[Source | Unusable]:
    if "://" in name and not is_remote(name) and not name.startswith("file://"):
        scheme = name.partition("://")[0]
        raise DataError(f"{name}: cannot read '{scheme}'; give a path or one of {list(REMOTE)}")
    uri = normal(name)
    if _is_stac(uri) and (is_remote(uri) or Path(uri).is_file()):
        yield from _stac(uri)
    elif is_remote(uri):
        yield from map(_plain, _objects(uri))
    elif Path(uri).is_dir():
        for file in walk([Path(uri)], closed):
            if file.suffix.lower() in SCENE_SUFFIXES:
                yield _plain(source_name(file))
            else:
                ignored[file.suffix.lower()] += 1
    elif Path(uri).exists():
        if closed is None or not Path(uri).parent.resolve().is_relative_to(closed):
            yield _plain(uri)
    elif _is_glob(uri):
        matches = sorted(glob.glob(uri, recursive=True))  # noqa: PTH207 – Path cannot start at "/"
        files = [match for match in matches if Path(match).is_file()]
        if not files:
            raise DataError(f"{name}: matches no file; check the pattern")
        for match in files:
            yield from _expanded(match, closed, ignored)
    else:
        raise DataError(f"{uri}: no such file or folder; check the path")


def _plain(uri: str) -> Source:
    return Source(uri, (Asset(uri),))


def _is_glob(name: str) -> bool:
    return re.search(r"[*?\[]", name) is not None


def _is_stac(uri: str) -> bool:
    path = urlsplit(uri).path if is_remote(uri) else uri.partition("#")[0]
    return path.lower().endswith(_STAC_SUFFIXES)


def _objects(uri: str) -> Iterator[str]:
    """The objects of a prefix or a glob on an object store; any other uri is itself one."""
    scheme, _, path = uri.partition("://")
    if scheme in ("http", "https") or not (_is_glob(path) or path.endswith("/")):
        yield uri
        return
    fixed = re.split(r"[*?\[]", path)[0]
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
            _matches(info.path, path)
            if _is_glob(path)
            else PurePosixPath(info.path).suffix.lower() in SCENE_SUFFIXES
        )
    ]
    if not found:
        raise DataError(f"{uri}: holds no scene; check the address")
    yield from (f"{scheme}://{one}" for one in sorted(found))


def _matches(path: str, pattern: str) -> bool:
    """A glob over a whole object name: '**' is any depth, '*' stays within one part."""
    return _part_match(path.split("/"), pattern.split("/"))


def _part_match(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_part_match(parts[i:], patterns[1:]) for i in range(len(parts) + 1))
    return (
        bool(parts)
        and fnmatchcase(parts[0], patterns[0])
        and (_part_match(parts[1:], patterns[1:]))
    )


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


def _stac(uri: str) -> Iterator[Source | Unusable]:
    """The items of a STAC document and of all that it links to, depth first, each once."""
    try:
        import pystac
        from pystac.errors import STACError, STACTypeError
    except ImportError:
        raise MissingExtraError("reading STAC", "geo") from None
    # What pystac raises for JSON that is not as it should be is of all kinds.
    unsound = (STACError, STACTypeError, ValueError, LookupError, TypeError, AttributeError)
    waiting, seen = [uri], set()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        try:
            document = _document(here)
            if document.get("type") == "FeatureCollection":
                yield from _of_collection(here, document)
            elif document.get("type") == "Feature":
                yield _of_item(here, pystac.Item.from_dict(document, href=here))
            elif document.get("type") in ("Catalog", "Collection"):
                links = [x for x in document.get("links", []) if x.get("rel") in ("child", "item")]
                hrefs = [_joined(here, link["href"]) for link in links]
                for href in hrefs:
                    if _escapes(here, href):
                        yield Unusable(href, f"{here} is on a server and names a file of this one")
                waiting += [href for href in reversed(hrefs) if not _escapes(here, href)]
            else:
                raise DataError(f"{here}: no STAC: its type is {document.get('type')!r}")
        except (DataError, *unsound) as error:
            if here == uri:
                if isinstance(error, DataError):
                    raise
                raise DataError(f"{here}: not a sound STAC document ({error!r})") from error
            yield Unusable(here, str(error).removeprefix(f"{here}: "))


def _document(uri: str) -> dict[str, Any]:
    try:
        text = get(uri)[0] if is_remote(uri) and not uri.startswith(("s3", "gs", "az")) else None
        if text is None and is_remote(uri):
            system, path = file_system(uri)
            text = system.open_input_stream(path).read()
        document = json.loads(text if text is not None else Path(uri).read_bytes())
    except OSError as error:
        raise DataError(f"{uri}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{uri}: not JSON ({error}); is it a STAC document?") from error
    if not isinstance(document, dict):
        raise DataError(f"{uri}: JSON, but no STAC document")
    return document


def _joined(here: str, href: str) -> str:
    """A link in the document `here` as a uri or an absolute path."""
    if "://" in href:
        return normal(href)
    if not is_remote(here):
        return normal(Path(here).parent / href)
    # urljoin knows http, not s3.
    scheme, _, rest = here.partition("://")
    return f"{scheme}://{urljoin('http://' + rest, href).removeprefix('http://')}"


def _escapes(here: str, href: str) -> bool:
    """Whether a document of another machine points to a file of this one."""
    return is_remote(here) and not is_remote(href)


def _of_collection(uri: str, document: dict[str, Any]) -> Iterator[Source | Unusable]:
    import pystac

    for feature in document.get("features", []):
        item = pystac.Item.from_dict(feature, href=uri)
        yield _of_item(f"{uri}#{item.id}", item)
    if any(link.get("rel") == "next" for link in document.get("links", [])):
        yield Unusable(uri, "has further pages (a link 'next'); only this one was read")


def _of_item(uri: str, item: pystac.Item) -> Source | Unusable:
    here = uri.partition("#")[0]
    assets = []
    for key, asset in item.assets.items():
        href = _joined(here, asset.href)
        if not _is_raster(href, asset.media_type):
            continue
        if _escapes(here, href):
            return Unusable(uri, f"asset '{key}' is on a server and names a file of this machine")
        roles = set(asset.roles or ())
        visual = "visual" in roles or key == "visual"
        pixels = not (roles & _NO_PIXELS) or visual
        pixels = pixels and key.lower() not in {"scl", "thumbnail", "preview", "overview"}
        assets.append(Asset(href, key, _band_names(asset), visual, pixels))
    if not any(asset.pixels for asset in assets):
        return Unusable(uri, "has no asset with imagery (GeoTIFF, JPEG 2000, PNG, JPEG, WebP)")
    when = item.datetime or item.common_metadata.start_datetime
    if when is not None and when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    properties = {"stac_id": item.id}
    if item.collection_id:
        properties["collection"] = item.collection_id
    for name in ("platform", "constellation", "eo:cloud_cover"):
        if name in item.properties:
            properties[name] = item.properties[name]
    return Source(uri, tuple(assets), when, properties)


def _is_raster(href: str, media_type: str | None) -> bool:
    if media_type:
        return media_type.lower().startswith(_RASTER_TYPES)
    return PurePosixPath(urlsplit(href).path).suffix.lower() in SCENE_SUFFIXES


def _band_names(asset: pystac.Asset) -> tuple[tuple[str, ...], ...]:
    """STAC 1.1 `bands`, or `eo:bands` of 1.0: the common name first, then the producer's."""
    bands = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    return tuple(
        tuple(
            str(band[name]) for name in ("eo:common_name", "common_name", "name") if band.get(name)
        )
        for band in bands
    )
