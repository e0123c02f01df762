"""The ten benchmark sets of the papers, read from sets.toml."""

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
    """A paper. doi: None if it could not be verified."""

    authors: str
    title: str
    venue: str
    year: int
    doi: str | None = None


@dataclass(frozen=True)
class Download:
    """A file to download and unpack. size (bytes) and sha256 (hex) are None if unknown."""

    url: str
    filename: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """The facts of one benchmark set.

    classes: (L,) canonical names of the classes or labels; empty if the list is not verified.
    images: number of images. counts: images in each class folder; empty if unknown.
    size: (height, width) of the images in pixels, as published.
    gsd: ground sampling distance, (finest, coarsest) in metres, or None if not stated.
    labels: "single" or "multi". folders: names of the class folders if they are not the labels;
        empty if all images lie in one folder; None if the classes are the class folders.
    torchgeo: the class in `torchgeo.datasets` that downloads the set, or None.
    archive: the file that holds the set, or None if rsir cannot download it by itself.
    layouts: known folders, relative to a data root, that hold the class folders, or the images of a
        set without class folders.
    aliases: other names of a class in published copies.
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
    archive: Download | None = None
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
        """The canonical names of the class folders; empty if there are none or they are unknown."""
        return self.classes if self.folders is None else self.folders


def get(name: str) -> Entry:
    """The entry with this name or title; case, spaces and punctuation do not matter.

    Raises UsageError, with all names, for an unknown name.
    """
    for entry in ENTRIES.values():
        if _key(name) in {_key(entry.name), _key(entry.title)}:
            return entry
    raise UsageError(f"no benchmark set {name!r}; there are {', '.join(ENTRIES)}")


def find_class(entry: Entry, name: str) -> str | None:
    """The canonical name of a class, label or class folder in any spelling; None if unknown.

    "DenseResidential", "dense_residential" and "Dense Residential" are "dense residential".
    """
    return _spellings(entry).get(_key(name))


def find_folder(entry: Entry, name: str) -> str | None:
    """As `find_class`, but None for a label that is not the name of a class folder."""
    canonical = find_class(entry, name)
    return canonical if canonical in entry.class_folders else None


def _key(name: str) -> str:
    """The part that all spellings share: letters and digits, case folded, without a plural s."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    key = "".join(character for character in plain if character.isalnum())
    return key[:-1] if key.endswith("s") and not key.endswith("ss") else key


def _spellings(entry: Entry) -> dict[str, str]:
    """Canonical names by the key of each spelling."""
    names = {_key(name): name for name in (*entry.classes, *entry.class_folders)}
    return names | {_key(alias): name for name in entry.aliases for alias in entry.aliases[name]}


def _read(text: str) -> dict[str, Entry]:
    """The entries of sets.toml by name."""
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
            archive=Download(**values.pop("archive")) if "archive" in values else None,
            aliases={key: tuple(names) for key, names in values.pop("aliases", {}).items()},
            **values,
        )
    return entries


ENTRIES: Mapping[str, Entry] = MappingProxyType(
    _read((resources.files("rsir.data.catalog") / "sets.toml").read_text("utf-8"))
)
"""The benchmark sets by name, in the order of their use in the papers."""
