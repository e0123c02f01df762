"""Find the scenes that a user names: by files, folders, globs, STAC or object stores."""

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
from rsir.sources.masks import beside, has_one_band, masks_by_name, sidecars
from rsir.sources.products import products
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
    file_type,
    is_remote,
    is_stac,
    normal,
    suffix_of,
)
from rsir.sources.stac import load_json, scenes_of
from rsir.types import printable

_VARIABLE = re.compile(r"(NETCDF|HDF5|HDF4_SDS|HDF4_EOS):", re.IGNORECASE)
_MASK = "is a mask of %s; to index it as a scene, name it without that scene"
_STAC_MASK = (
    "is a mask or preview of %s by its STAC item; to index it as a scene, name it without that item"
)


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources that `find_sources` found, ordered by uri, each once.

    unusable: names, links and files that are not scenes, with reasons. masks: rasters that are
    masks of these scenes; the reason names the scene. ignored: number of other files in the
    folders, by lower-case suffix.
    """

    sources: tuple[Source, ...]
    unusable: tuple[Unusable, ...] = ()
    masks: tuple[Unusable, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)

    def shard(self, number: int, count: int) -> Sources:
        """Every `count`-th source, from the source `number` (from 0) on.

        `unusable`, `masks` and `ignored` are in shard 0 only, so that all shards together report
        them once. Errors: UsageError for a number that is not in 0..count-1.
        """
        if not 0 <= number < count:
            raise UsageError(
                f"there is no shard {number} of {count}; they count from 0: 0/4, 1/4, 2/4, 3/4"
            )
        share = self.sources[number::count]
        return replace(self, sources=share) if number == 0 else Sources(share)

    def without_masks(self, cloud_mask: str | None) -> Sources:
        """Move the sources that are cloud masks of other sources to `masks`.

        cloud_mask: the location of the masks, as in `rsir.scenes.tiling.Tiling`. Call this before
        `shard`, so that it finds the masks of scenes in other shards too.
        """
        if cloud_mask is None:
            return self
        masks: dict[str, str] = {}
        for scene in self.sources:
            keyed = [a.uri for a in scene.assets if a.key and a.key.lower() == cloud_mask.lower()]
            uri = keyed[0] if keyed else normal(beside(scene.uri, cloud_mask))
            if uri != scene.uri:
                masks.setdefault(uri, _MASK % scene.uri)
        return self._separate(masks)

    def _separate(self, masks: Mapping[str, str]) -> Sources:
        """Move the sources whose uris are in `masks` (uri: reason) to the attribute `masks`."""
        found = [source.uri for source in self.sources if source.uri in masks]
        return replace(
            self,
            sources=tuple(source for source in self.sources if source.uri not in masks),
            masks=(*self.masks, *(Unusable(uri, masks[uri]) for uri in found)),
        )


def find_sources(
    names: Iterable[str | os.PathLike[str]], *, exclude: Path | None = None
) -> Sources:
    """The scenes behind the names that a user gives.

    A name is a file (of any suffix); a folder, searched recursively as by
    `rsir.sources.folders.find_images`, except products of a file for each band, which are unusable
    (`rsir.sources.products`); a glob ("scenes/**/*_B04.jp2"), local or on an object
    store; a STAC item, collection, catalogue or collection of items (.json, .geojson), whose links
    are followed; the uri of one object, or of a prefix that ends in "/" on s3, gs or az.
    exclude: a folder that is not searched.

    These are `unusable` and raise no error: a broken link of a catalogue, a subfolder that cannot
    be listed, anything that is neither file nor folder, and, if there are other names, JSON that is
    not STAC (from a glob, it counts as `ignored`). A catalogue on a server may not link to files of
    this machine. A raster beside a scene is left out if it is one of GDAL's sidecar files, or if it
    is a mask of that scene by its name (`rsir.sources.masks`) or by the scene's STAC item.

    Errors: UsageError for an empty name; DataError for a name under which nothing exists;
    MissingExtraError for STAC without pystac.
    """
    found: dict[str, Source] = {}
    unusable: list[Unusable] = []
    ignored: Counter[str] = Counter()
    excluded = None if exclude is None else exclude.resolve()
    texts = [os.fspath(name) for name in names]
    unfit: list[UnfitError] = []
    for name in texts:
        try:
            for item in _sources_of(name, excluded, ignored):
                shown = printable(item.uri)
                if isinstance(item, Unusable):
                    unusable.append(item)
                elif shown != item.uri:
                    unusable.append(Unusable(shown, "its name is not valid UTF-8; rename the file"))
                else:
                    found.setdefault(item.uri, item)
        except UnfitError as error:
            unfit.append(error)
            unusable.append(Unusable.of(normal(name), error))
    if unfit and len(unfit) == len(texts):
        raise unfit[0]
    for uri, suffix in sidecars(found.keys()).items():
        del found[uri]
        ignored[suffix] += 1
    sources = tuple(found[uri] for uri in sorted(found))
    files = {scene.uri for scene in sources if scene.assets == _file_source(scene.uri).assets}
    masks = {
        uri: _MASK % owner
        for uri, owner in masks_by_name(files).items()
        if is_remote(uri) or has_one_band(uri)
    }
    for scene in sources:
        masks |= {
            asset.uri: _STAC_MASK % scene.uri
            for asset in scene.assets
            if not asset.pixels and asset.uri in files
        }
    return Sources(sources, tuple(unusable), (), dict(sorted(ignored.items())))._separate(masks)


def source(uri: str | os.PathLike[str]) -> Source:
    """The scene of one file, uri or STAC item.

    Errors: DataError if there is no such file, or if the JSON is not one STAC item.
    """
    name = normal(uri)
    document, item = document_of(name)
    if not is_stac(document):
        check_file(name)
        return _file_source(name)
    kind = load_json(document).get("type")
    if kind != "Feature" and not (kind == "FeatureCollection" and item):
        raise DataError(
            f"{document}: is not one STAC item; name an item ('#' and its id after a list)"
        )
    items = [found for found in scenes_of(document) if found.uri == name]
    if len(items) != 1:
        raise DataError(f"{document}: holds no item '{item}' or several; check its id")
    if isinstance(items[0], Unusable):
        raise DataError(f"{items[0].uri}: {items[0].reason}")
    return items[0]


def document_of(uri: str) -> tuple[str, str]:
    """The STAC document and the item that a source names: ("items.geojson", "id").

    For any other file or uri: (uri, ""). Folders, files and objects may also have a '#' in their
    names, so the result depends on which of them exist.

    Errors: DataError if the file system or the object store refuses to say what exists.
    """
    if is_web(uri):  # the part after a '#' is never sent to a server
        document, _, item = uri.partition("#")
        return (document, item) if is_stac(document) else (uri, "")
    documents = [uri[: m.start()] for m in re.finditer("#", uri) if is_stac(uri[: m.start()])]
    if documents and file_type(uri) == "NotFound":
        for document in documents:
            if file_type(document) == "File":
                return document, uri[len(document) + 1 :]
    return uri, ""


def _sources_of(
    name: str, excluded: Path | None, ignored: Counter[str]
) -> Iterator[Source | Unusable]:
    """The sources that one name stands for. Errors: DataError for a path that cannot be read."""
    try:
        yield from _expanded(name, excluded, ignored)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: cannot be read ({reason}); check the path") from error


def _expanded(
    name: str, excluded: Path | None, ignored: Counter[str]
) -> Iterator[Source | Unusable]:
    if _VARIABLE.match(name):
        raise UnfitError(
            f"{name}: a variable of a NetCDF or HDF5 file is not read in place: such a file may "
            "name others, and a damaged one may end the process; write it as a GeoTIFF: "
            f"gdal_translate '{name}' OUT.tif"
        )
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
        yield from (
            scenes_of(uri) if is_stac(uri) else map(_file_source, objects(uri, SCENE_SUFFIXES))
        )
        return
    kind = file_type(uri)
    if kind == "Directory":
        yield from _in_folder(uri, excluded, ignored)
    elif kind == "File":
        if excluded is None or not Path(uri).parent.resolve().is_relative_to(excluded):
            yield from scenes_of(uri) if is_stac(uri) else [_file_source(uri)]
    elif kind == "NotFound" and is_glob(uri):
        yield from _matching(uri, excluded, ignored)
    elif kind == "NotFound":
        raise DataError(f"{uri}: no such file or folder; check the path")
    else:
        raise UnfitError(f"{uri}: {NO_FILE}")


def _in_folder(
    folder: str, excluded: Path | None, ignored: Counter[str]
) -> Iterator[Source | Unusable]:
    unusable: list[Unusable] = []

    def skip(path: Path, reason: str, error: OSError | None) -> None:
        if error is not None and path == Path(folder):
            raise error
        unusable.append(Unusable(source_name(path), reason))

    files = list(files_below([Path(folder)], excluded, skip))
    parts = products(files)
    for product, reason in dict(parts.values()).items():
        unusable.append(Unusable(source_name(product), reason))
    for file in files:
        if file in parts:
            ignored[file.suffix.lower()] += 1
        elif file.suffix.lower() in SCENE_SUFFIXES:
            yield _file_source(source_name(file))
        else:
            ignored[file.suffix.lower()] += 1
    yield from unusable


def _matching(
    pattern: str, excluded: Path | None, ignored: Counter[str]
) -> Iterator[Source | Unusable]:
    """The sources of the files that match a glob; folders that match are not searched."""
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 – Path cannot start at "/"
    others = [match for match in matches if not Path(match).is_dir()]
    if not others:
        raise DataError(f"{pattern}: matches no file; check the pattern")
    for match in others:
        try:
            if file_type(match) == "NotFound":
                yield Unusable(match, BROKEN_LINK)
            else:
                yield from _expanded(match, excluded, ignored)
        except NoStacError:
            ignored[suffix_of(match)] += 1
        except DataError as error:
            yield Unusable.of(match, error)


def _file_source(uri: str) -> Source:
    return Source(uri, (Asset(uri),))
