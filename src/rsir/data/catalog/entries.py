"""The ten benchmark sets of the papers, as sets.toml beside this file lists them."""

from __future__ import annotations

import dataclasses
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from rsir.errors import UsageError


@dataclass(frozen=True)
class Citation:
    """A paper. doi is None where it could not be verified."""

    authors: str
    title: str
    venue: str
    year: int
    doi: str | None = None


@dataclass(frozen=True)
class Archive:
    """One file to download and unpack. size in bytes and sha256 in hex are None where unknown."""

    url: str
    filename: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """One benchmark set.

    classes: (L,) canonical names of the classes or labels; empty if the list is not verified.
    images: how many the set has in all. counts: images of each class folder; empty if not known.
    size: (height, width) of the images in pixels, as published.
    gsd: ground sampling distance, (finest, coarsest) in metres, or None if not stated.
    labels: "single" or "multi". folders: the class folders that the images lie in, where those are
        not the labels; empty if the images lie in one folder.
    torchgeo: the dataset class in `torchgeo.datasets` that downloads it, or None.
    archive: where it is downloaded from otherwise, or None if it must be had by hand.
    layouts: folders, relative to a data root, that hold the class folders (or, without class
        folders, the images) when the set is unpacked in the ways met so far.
    aliases: other names that archives use for a class.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    class_count: int
    images: int
    size: tuple[int, int]
    labels: Literal["single", "multi"]
    citation: Citation
    home: str
    licence: str
    sources: str
    layouts: tuple[str, ...]
    gsd: tuple[float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    folders: tuple[str, ...] | None = None
    torchgeo: str | None = None
    archive: Archive | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        inner = {
            key: None if values[key] is None else dataclasses.asdict(values[key])
            for key in ("citation", "archive")
        }
        return values | inner | {"counts": dict(self.counts), "aliases": dict(self.aliases)}

    @property
    def class_folders(self) -> tuple[str, ...]:
        """The canonical names of the folders that the images lie in; empty if none or unknown."""
        return self.classes if self.folders is None else self.folders


def get(name: str) -> Entry:
    """The entry of that name; case, spaces and punctuation do not matter.

    Raises UsageError listing the names.
    """
    for entry in ENTRIES.values():
        if _key(name) in {_key(entry.name), _key(entry.title)}:
            return entry
    raise UsageError(f"no benchmark set {name!r}; there are {', '.join(ENTRIES)}")


def find_class(entry: Entry, name: str) -> str | None:
    """The canonical name of a class, label or class folder, however it is spelled; else None.

    "DenseResidential", "dense_residential" and "Dense Residential" are "dense residential".
    """
    return _spellings(entry).get(_key(name))


def find_folder(entry: Entry, name: str) -> str | None:
    """As `find_class`, for class folders only; None for a label that no folder is named for."""
    known = find_class(entry, name)
    return known if known in entry.class_folders else None


def _key(name: str) -> str:
    """Letters and digits only, case folded, without a plural s: what all spellings share."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    key = "".join(character for character in plain if character.isalnum())
    return key[:-1] if key.endswith("s") and not key.endswith("ss") else key


def _spellings(entry: Entry) -> dict[str, str]:
    names = {*entry.classes, *entry.class_folders}
    spelled = {_key(name): name for name in names}
    for name, others in entry.aliases.items():
        spelled |= {_key(other): name for other in others}
    return spelled


def _read(text: str) -> dict[str, Entry]:
    """The entries in the text of sets.toml, by name."""
    entries: dict[str, Entry] = {}
    for name, values in tomllib.loads(text).items():
        counts = values.pop("counts", {})
        classes = tuple(values.pop("classes", counts))
        folders = values.pop("folders", None)
        if "folders_of" in values:
            folders = entries[values.pop("folders_of")].classes
        if "images_per_class" in values:
            counts = dict.fromkeys(
                classes if folders is None else folders, values.pop("images_per_class")
            )
        entries[name] = Entry(
            name=name,
            classes=classes,
            counts=MappingProxyType(counts),
            folders=None if folders is None else tuple(folders),
            size=tuple(values.pop("size")),
            gsd=tuple(values.pop("gsd")) if "gsd" in values else None,
            layouts=tuple(values.pop("layouts")),
            citation=Citation(**values.pop("citation")),
            archive=Archive(**values.pop("archive")) if "archive" in values else None,
            aliases={key: tuple(names) for key, names in values.pop("aliases", {}).items()},
            **values,
        )
    return entries


ENTRIES: Mapping[str, Entry] = MappingProxyType(
    _read((resources.files("rsir.data.catalog") / "sets.toml").read_text("utf-8"))
)
"""The benchmark sets by name, in the order in which the papers use them."""
