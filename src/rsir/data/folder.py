"""Labelled image sets: class folders, or a multi-label table beside a folder of images."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rsir.errors import DataError, UsageError
from rsir.sources.folders import SUFFIXES
from rsir.types import is_unicode

SHOWN = 5
"""Names that a message lists at most; the rest it only counts. Our choice."""


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """N images below one folder, and their classes or labels.

    root: the folder that `paths` are relative to. It may lie below the folder that `load` was
        given, e.g. UCMerced_LandUse/Images below UCMerced_LandUse.
    paths: (N,) posix, relative to `root`; sorted by `load`, in the given order in a subset.
    classes: (L,) names of the classes, or of the labels, sorted.
    targets: (N,) int64 indices into `classes`, or (N, L) uint8 of 0 and 1 if `multi_label`.
    ignored: number of files below the folder that are not images.
    """

    root: Path
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    targets: NDArray[Any]
    multi_label: bool
    ignored: int = 0

    def __post_init__(self) -> None:
        N, L = len(self.paths), len(self.classes)
        shape, dtype = ((N, L), np.uint8) if self.multi_label else ((N,), np.int64)
        if self.targets.shape != shape or self.targets.dtype != dtype:
            raise DataError(
                f"{N} images of {L} classes need targets {shape} {np.dtype(dtype)}, "
                f"not {self.targets.shape} {self.targets.dtype}"
            )
        if N and (self.targets.min(initial=0) < 0 or self.targets.max(initial=0) >= self._bound):
            raise DataError(f"targets must lie in 0 … {self._bound - 1}")

    @property
    def _bound(self) -> int:
        return 2 if self.multi_label else len(self.classes)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def files(self) -> tuple[Path, ...]:
        """(N,) full paths of the images."""
        return tuple(self.root / path for path in self.paths)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(L,) int64: images of each class, or with each label."""
        if self.multi_label:
            return np.asarray(self.targets.sum(axis=0), np.int64)
        return np.asarray(np.bincount(self.targets, minlength=len(self.classes)), np.int64)

    def labels(self, index: int) -> tuple[str, ...]:
        """The name of the class of image `index`, or the names of its labels."""
        if self.multi_label:
            return tuple(self.classes[i] for i in np.flatnonzero(self.targets[index]))
        return (self.classes[int(self.targets[index])],)

    def subset(self, indices: ArrayLike) -> LabelledSet:
        """The images at `indices`, in that order, with the same full list of classes.

        indices: (M,) integers in 0 … N-1, or (N,) bool. Raises UsageError for anything else.
        """
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        elif chosen.dtype == np.bool_ and chosen.shape == (len(self),):
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise UsageError(f"a subset needs (M,) integers or ({len(self)},) bool")
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise UsageError(f"a subset's indices must lie in 0 … {len(self) - 1}")
        return LabelledSet(
            root=self.root,
            paths=tuple(self.paths[i] for i in chosen),
            classes=self.classes,
            targets=self.targets[chosen],
            multi_label=self.multi_label,
            ignored=self.ignored,
        )


@dataclass(frozen=True)
class Listing:
    """The images and folders below a folder, as sorted posix paths relative to it.

    ignored: number of files that are not images.
    """

    images: tuple[str, ...]
    folders: tuple[str, ...]
    ignored: int


def load(root: str | Path, *, labels: str | Path | None = None) -> LabelledSet:
    """The labelled images below `root`.

    Without `labels`, the images lie in class folders, root/class/image. If `root` has no class
    folders but exactly one subfolder has (UCMerced_LandUse/Images), `LabelledSet.root` is that
    subfolder. `labels` is a table separated by tabs or commas: its header names the labels, its
    first column names the images by stem, file name or relative path, and the other values are 0
    or 1. The images of a table may lie anywhere below `root`.

    Hidden files, hidden folders and __MACOSX are ignored. Raises DataError if the folder or the
    table is missing, empty or inconsistent. An empty class folder and an image without a row are
    errors, because they probably mean that files were lost in unpacking.
    """
    root = Path(root)
    listing = scan(root)
    if not listing.images:
        raise DataError(f"{root}: no images here; {_suffix_hint()}")
    if labels is not None:
        return _load_table(root, listing, Path(labels))

    base = class_level(root, listing.images)
    if base is None:
        raise DataError(
            f"{root}: {listed(_direct(listing.images, ''))} in no class folder; put each image "
            "into a folder named for its class, or give a table of labels"
        )
    images = _below(listing.images, base)
    _check_class_folders(root / base, images, _below(listing.folders, base))
    classes = tuple(sorted({path.split("/", 1)[0] for path in images}))
    index = {name: i for i, name in enumerate(classes)}
    return LabelledSet(
        root=root / base,
        paths=images,
        classes=classes,
        targets=np.array([index[path.split("/", 1)[0]] for path in images], np.int64),
        multi_label=False,
        ignored=listing.ignored,
    )


def class_root(root: str | Path) -> Path:
    """The folder whose subfolders are the classes: `root`, or the one below it that `load` takes.

    Returns `root` if there is no such folder. Raises DataError if `root` is not a folder, or if
    several of its subfolders hold class folders.
    """
    root = Path(root)
    base = class_level(root, scan(root).images)
    return root if base is None else root / base


def scan(root: Path) -> Listing:
    """Everything below `root`; links are followed.

    Raises DataError if `root` is missing or not a folder, and for folders that cannot be read,
    broken links to images, links to a folder above, and names that are not valid unicode.
    """
    if not root.exists():
        raise DataError(f"{root}: no such folder; check the path")
    if not root.is_dir():
        raise DataError(f"{root} is a file; give the folder that the images lie in")
    images: list[str] = []
    folders: list[str] = []
    ignored = 0

    def walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        nonlocal ignored
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise DataError(f"{folder}: a link that leads back to a folder above it; remove it")
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
        for entry in entries:
            hidden = entry.name.startswith(".") or entry.name == "__MACOSX"
            if entry.is_dir():
                if not hidden:
                    name = _unicode(entry.name, folder)
                    folders.append(prefix + name)
                    walk(folder / name, f"{prefix}{name}/", above | {identity})
            elif hidden or PurePosixPath(entry.name).suffix.lower() not in SUFFIXES:
                ignored += 1
            elif not entry.is_file():
                raise DataError(f"{folder / entry.name}: a broken link or no plain file")
            else:
                images.append(prefix + _unicode(entry.name, folder))

    try:
        walk(root, "", frozenset())
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror})") from error
    return Listing(tuple(sorted(images)), tuple(sorted(folders)), ignored)


def _unicode(name: str, folder: Path) -> str:
    if not is_unicode(name):
        raise DataError(f"{folder}: the name {name!r} is not valid UTF-8; rename it")
    return name


def _suffix_hint() -> str:
    return "image files end in " + " ".join(sorted(SUFFIXES))


def _below(paths: Iterable[str], base: str) -> tuple[str, ...]:
    if not base:
        return tuple(paths)
    return tuple(path[len(base) + 1 :] for path in paths if path.startswith(base + "/"))


def _direct(paths: Iterable[str], base: str) -> list[str]:
    return [path for path in _below(paths, base) if "/" not in path]


def listed(names: Sequence[str], noun: str = "image", plural: str = "s") -> str:
    """The number of names and the first few of them: '3 images (a, b, c)'."""
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} {noun}{plural if len(names) != 1 else ''} ({shown})"


def class_level(root: str | Path, paths: Iterable[str]) -> str | None:
    """The folder, relative to `root`, whose subfolders directly hold images; None if none does.

    paths: of the images, posix, relative to `root`. Raises DataError if several folders hold class
    folders.
    """
    base, found = "", tuple(paths)
    while True:
        images = _below(found, base)
        if any("/" not in path for path in images) and not any(p.count("/") == 1 for p in images):
            return None
        if any(path.count("/") == 1 for path in images):
            return base
        holders = sorted({path.split("/", 1)[0] for path in images})
        if not holders:
            return None
        if len(holders) > 1:
            raise DataError(
                f"{Path(root, base)}: {listed(holders, 'folder')} hold class folders; name one "
                "of them"
            )
        base = f"{base}/{holders[0]}" if base else holders[0]


def _check_class_folders(base: Path, images: Sequence[str], folders: Sequence[str]) -> None:
    loose = [path for path in images if "/" not in path]
    if loose:
        raise DataError(
            f"{base}: {listed(loose)} beside the class folders; move each into its class's folder"
        )
    deep = [path for path in images if path.count("/") > 1]
    if deep:
        raise DataError(
            f"{base}: {listed(deep)} in folders inside class folders; a class is one folder level"
        )
    empty = sorted({f for f in folders if "/" not in f} - {p.split("/", 1)[0] for p in images})
    if empty:
        raise DataError(
            f"{base}: {listed(empty, 'class folder')} without images; unpack the set again, "
            "or remove the folder if that class is not wanted"
        )


def _load_table(root: Path, listing: Listing, table: Path) -> LabelledSet:
    base = class_level(root, listing.images) or ""
    images = _below(listing.images, base)
    names, rows = _read_table(table)

    by_path = {path: [path] for path in images}
    by_name: dict[str, list[str]] = defaultdict(list)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in images:
        pure = PurePosixPath(path)
        by_name[pure.name].append(path)
        by_stem[pure.stem].append(path)
        if "/" in path:
            by_stem[str(pure.with_suffix(""))].append(path)

    values: dict[str, tuple[int, ...]] = {}
    lost: list[str] = []
    repeated: list[str] = []
    for name, row in rows:
        matches = by_path.get(name) or by_name.get(name) or by_stem.get(name) or []
        if not matches:
            lost.append(name)
        elif len(matches) > 1:
            raise DataError(
                f"{table}: {name!r} could be any of {listed(matches)} in {root / base}; "
                "write the path from that folder in the table"
            )
        elif matches[0] in values:
            repeated.append(name)
        else:
            values[matches[0]] = row
    if repeated:
        raise DataError(f"{table}: {listed(repeated, 'row')} for images that had a row already")
    if lost:
        raise DataError(f"{table}: {listed(lost, 'row')} without an image below {root / base}")
    unlabelled = [path for path in images if path not in values]
    if unlabelled:
        raise DataError(f"{root / base}: {listed(unlabelled)} without a row in {table}")

    order = sorted(range(len(names)), key=names.__getitem__)
    targets = np.array([values[path] for path in images], np.uint8)[:, order]
    classes = tuple(names[i] for i in order)
    unused = [name for name, n in zip(classes, targets.sum(axis=0), strict=True) if n == 0]
    if unused:
        raise DataError(f"{table}: {listed(unused, 'label')} on no image; remove the column")
    return LabelledSet(
        root=root / base,
        paths=images,
        classes=classes,
        targets=targets,
        multi_label=True,
        ignored=listing.ignored,
    )


def _read_table(table: Path) -> tuple[list[str], list[tuple[str, tuple[int, ...]]]]:
    """The label names, and for each row the image's name and its values."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not a UTF-8 text table ({error.reason})") from error
    if not text.strip():
        raise DataError(f"{table}: empty; the first line must name the labels")
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows: list[tuple[str, tuple[int, ...]]] = []
    try:
        names = [cell.strip() for cell in next(reader)][1:]
        if not names or not all(names):
            raise DataError(
                f"{table}, line 1: a header must name the image column and then each label, "
                "separated by tabs or commas"
            )
        repeated = [name for name, n in Counter(names).items() if n > 1]
        if repeated:
            raise DataError(f"{table}, line 1: {listed(repeated, 'label')} named more than once")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            line = f"{table}, line {reader.line_num}"
            if len(cells) != len(names) + 1:
                raise DataError(f"{line}: {len(cells)} columns, not {len(names) + 1}")
            name, *values = (cell.strip() for cell in cells)
            if not name:
                raise DataError(f"{line}: no image name in the first column")
            wrong = [value for value in values if value not in ("0", "1")]
            if wrong:
                raise DataError(f"{line} ({name}): values must be 0 or 1, not {wrong[0]!r}")
            rows.append((name, tuple(int(value) for value in values)))
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: {error}") from error
    if not rows:
        raise DataError(f"{table}: a header but no rows")
    return names, rows
