"""What the user names – files, folders, globs, STAC, object stores – as a list of scenes."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rsir.errors import DataError, UsageError
from rsir.sources.folders import BROKEN_LINK, NO_FILE, files_below, source_name
from rsir.sources.masks import beside, masks_by_name, sidecars
from rsir.sources.remote import is_glob, is_web, objects
from rsir.sources.source import (
    REMOTE,
    SCENE_SUFFIXES,
    Asset,
    NoStacError,
    Source,
    UnfitError,
    Unusable,
    check_file,
    is_remote,
    is_stac,
    kind_of,
    normal,
    suffix_of,
)
from rsir.sources.stac import STAC_PROPERTIES, loaded, scenes_of
from rsir.types import printable

__all__ = [
    "REMOTE", "SCENE_SUFFIXES", "STAC_PROPERTIES", "Asset", "Source", "Sources", "Unusable",
    "document_of", "find_sources", "is_remote", "normal", "source",
]  # fmt: skip

_MASK = "is a mask of %s; named alone it is taken for a scene"
_SAID = "is a mask or preview of %s, which says so; named alone it is taken for a scene"


@dataclass(frozen=True, slots=True)
class Sources:
    """What `find_sources` found, in the order of their uris, each once.

    masks: rasters that are masks of these scenes, and of which. ignored: other files in the
    folders, by lower-case suffix.
    """

    sources: tuple[Source, ...]
    unusable: tuple[Unusable, ...] = ()
    masks: tuple[Unusable, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)

    def shard(self, number: int, count: int) -> Sources:
        """Every `count`-th of the sources, from `number` on, counted from 0.

        What is not indexed, `unusable`, `masks` and `ignored`, is in shard 0 alone: of all shards
        together everything comes out once. Errors: UsageError for a number that is none of them.
        """
        if not 0 <= number < count:
            raise UsageError(
                f"there is no shard {number} of {count}; they count from 0: 0/4, 1/4, 2/4, 3/4"
            )
        some = self.sources[number::count]
        return replace(self, sources=some) if number == 0 else Sources(some)

    def without_masks(self, cloud_mask: str | None) -> Sources:
        """The same, and what is the cloud mask of another source is among `masks`.

        cloud_mask: where the masks are, as in `rsir.scenes.tiling.Tiling`. Asked before
        `shard`, it
        knows the masks of scenes in other shards too.
        """
        if cloud_mask is None:
            return self
        masks: dict[str, str] = {}
        for one in self.sources:
            keyed = [a.uri for a in one.assets if a.key and a.key.lower() == cloud_mask.lower()]
            uri = keyed[0] if keyed else normal(beside(one.uri, cloud_mask))
            if uri != one.uri:
                masks.setdefault(uri, _MASK % one.uri)
        return self._apart(masks)

    def _apart(self, masks: Mapping[str, str]) -> Sources:
        """The same, with what is a mask of another, by uri and reason, among `masks`."""
        found = [one for one in self.sources if one.uri in masks]
        return replace(
            self,
            sources=tuple(one for one in self.sources if one.uri not in masks),
            masks=(*self.masks, *(Unusable(one.uri, masks[one.uri]) for one in found)),
        )


def find_sources(
    names: Iterable[str | os.PathLike[str]], *, exclude: Path | None = None
) -> Sources:
    """The scenes among what the user names.

    A name is a file (taken whatever its suffix); a folder, searched to the bottom as
    `rsir.sources.folders.find_images` does; a glob ("scenes/**/*_B04.jp2"), local or on an object
    store; a STAC item, collection, catalogue or collection of items (.json, .geojson), whose links
    are followed; a uri of one object, or of a prefix that ends in "/" on s3, gs or az.
    exclude: a folder in which nothing is looked at.

    A broken link of a catalogue, a folder below a named one that cannot be listed, and what is
    neither file nor folder are `unusable`, not fatal; so is JSON that is no STAC if anything else
    is named, and in a glob it is among the other files. A catalogue on a server that points to
    files of this machine is not followed there. A raster beside which a scene was found is left
    out if it is a mask of that by its name (`rsir.sources.masks`) or by what the STAC item of the
    scene
    says, or a file of GDAL's that belongs to it (overviews and the like).

    Errors: UsageError for an empty name; DataError if a name is nothing at all; MissingExtraError
    for STAC without pystac.
    """
    found: dict[str, Source] = {}
    unusable: list[Unusable] = []
    ignored: Counter[str] = Counter()
    closed = None if exclude is None else exclude.resolve()
    texts = [os.fspath(name) for name in names]
    unfit: list[UnfitError] = []
    for name in texts:
        try:
            for one in _found(name, closed, ignored):
                shown = printable(one.uri)
                if isinstance(one, Unusable):
                    unusable.append(one)
                elif shown != one.uri:
                    unusable.append(Unusable(shown, "its name is not valid UTF-8; rename the file"))
                else:
                    found.setdefault(one.uri, one)
        except UnfitError as error:
            unfit.append(error)
            unusable.append(Unusable.of(normal(name), error))
    if unfit and len(unfit) == len(texts):
        raise unfit[0]
    for uri, suffix in sidecars(found.keys()).items():
        del found[uri]
        ignored[suffix] += 1
    sources = tuple(found[uri] for uri in sorted(found))
    plain = {one.uri for one in sources if one.assets == _plain(one.uri).assets}
    masks = {uri: _MASK % owner for uri, owner in masks_by_name(plain).items()}
    for one in sources:
        masks |= {a.uri: _SAID % one.uri for a in one.assets if not a.pixels and a.uri in plain}
    return Sources(sources, tuple(unusable), (), dict(sorted(ignored.items())))._apart(masks)


def source(uri: str | os.PathLike[str]) -> Source:
    """The one scene of a file, of a uri, or of a STAC item.

    Errors: DataError if there is no such file, or if the JSON is no single STAC item.
    """
    name = normal(uri)
    document, item = document_of(name)
    if not is_stac(document):
        check_file(name)
        return _plain(name)
    kind = loaded(document).get("type")
    if kind != "Feature" and not (kind == "FeatureCollection" and item):
        raise DataError(
            f"{document}: is not one STAC item; name an item ('#' and its id after a list)"
        )
    items = [one for one in scenes_of(document) if one.uri == name]
    if len(items) != 1:
        raise DataError(f"{document}: holds no item '{item}' or several; check its id")
    if isinstance(items[0], Unusable):
        raise DataError(f"{items[0].uri}: {items[0].reason}")
    return items[0]


def document_of(uri: str) -> tuple[str, str]:
    """The STAC document of a source, and which of its items it is: ("items.geojson", "id").

    Of any other file or uri itself, and "". Folders, files and objects may have a '#' in their
    names too: what is there decides.

    Errors: DataError for what may not be looked at, and if an object store cannot be asked.
    """
    if is_web(uri):  # a server is never told what follows a '#'
        document, _, item = uri.partition("#")
        return (document, item) if is_stac(document) else (uri, "")
    documents = [uri[: m.start()] for m in re.finditer("#", uri) if is_stac(uri[: m.start()])]
    if documents and kind_of(uri) == "NotFound":
        for document in documents:
            if kind_of(document) == "File":
                return document, uri[len(document) + 1 :]
    return uri, ""


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
    if not name:
        raise UsageError("a name is empty; give a file or folder ('.' is the folder you are in)")
    uri = normal(name)
    if document_of(uri)[1]:
        yield source(uri)
        return
    if is_remote(uri):
        yield from scenes_of(uri) if is_stac(uri) else map(_plain, objects(uri, SCENE_SUFFIXES))
        return
    kind = kind_of(uri)
    if kind == "Directory":
        yield from _in_folder(uri, closed, ignored)
    elif kind == "File":
        if closed is None or not Path(uri).parent.resolve().is_relative_to(closed):
            yield from scenes_of(uri) if is_stac(uri) else [_plain(uri)]
    elif kind == "NotFound" and is_glob(uri):
        yield from _matching(uri, closed, ignored)
    elif kind == "NotFound":
        raise DataError(f"{uri}: no such file or folder; check the path")
    else:
        raise UnfitError(f"{uri}: {NO_FILE}")


def _in_folder(
    folder: str, closed: Path | None, ignored: Counter[str]
) -> Iterator[Source | Unusable]:
    unusable: list[Unusable] = []

    def passed_over(path: Path, reason: str, error: OSError | None) -> None:
        if error is not None and path == Path(folder):
            raise error
        unusable.append(Unusable(source_name(path), reason))

    for file in files_below([Path(folder)], closed, passed_over):
        if file.suffix.lower() in SCENE_SUFFIXES:
            yield _plain(source_name(file))
        else:
            ignored[file.suffix.lower()] += 1
    yield from unusable


def _matching(
    pattern: str, closed: Path | None, ignored: Counter[str]
) -> Iterator[Source | Unusable]:
    """What the files that match stand for; folders that do are not looked into."""
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 – Path cannot start at "/"
    others = [match for match in matches if not Path(match).is_dir()]
    if not others:
        raise DataError(f"{pattern}: matches no file; check the pattern")
    for match in others:
        try:
            if kind_of(match) == "NotFound":
                yield Unusable(match, BROKEN_LINK)
            else:
                yield from _expanded(match, closed, ignored)
        except NoStacError:
            ignored[suffix_of(match)] += 1
        except DataError as error:
            yield Unusable.of(match, error)


def _plain(uri: str) -> Source:
    return Source(uri, (Asset(uri),))
