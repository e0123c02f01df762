"""Find the folder of a benchmark set below a data root, whatever its name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from rsir.data.catalog.entries import ENTRIES, Entry, find_folder
from rsir.data.folder import listed
from rsir.errors import DataError
from rsir.sources.folders import SUFFIXES

DEPTH = 4
"""Levels below the data root that `locate` searches. Our choice: one more than any layout has."""


def locate(entry: Entry, root: str | Path) -> Path:
    """The folder below a data root that holds the set's class folders, or its images.

    It is a folder of `entry.layouts`, or the folder that holds most of the classes, at most DEPTH
    levels below `root`, which may hold many sets. Raises DataError, with the layouts, if the set is
    not there, and if it is there more than once.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of the image sets")
    best = candidates(entry, root)
    if not best:
        raise DataError(
            f"{root}: {entry.title} is not below this folder; expected its images in one of "
            f"{', '.join(entry.layouts)}. {instructions(entry)}"
        )
    if len(best) > 1:
        raise DataError(
            f"{root}: {entry.title} could be {listed([str(p) for p in best], 'folder')}; name one"
        )
    return best[0]


def candidates(entry: Entry, root: Path) -> list[Path]:
    """The folders below `root` that match the set best; more than one if they tie."""
    ranked = [
        ((*rank, -level), path)
        for path, level in _folders(root, DEPTH)
        if (rank := _rank(entry, path)) is not None
    ]
    top = max((rank for rank, _ in ranked), default=None)
    return sorted(path for rank, path in ranked if rank == top)


def instructions(entry: Entry) -> str:
    """Where a user gets the set, and the folder layout that rsir expects."""
    layout = entry.layouts[0]
    if entry.class_folders or not entry.classes:
        layout += "/<class>/<image>"
    else:
        layout += "/<image>"
    return f"Get it from {entry.home} and unpack it as {layout} below the data root"


def _folders(root: Path, depth: int) -> Iterator[tuple[Path, int]]:
    """`root` and the folders below it that are not hidden, each with its level."""
    paths = [root]
    for level in range(depth + 1):
        yield from ((path, level) for path in paths)
        if level < depth:
            paths = [path / name for path in paths for name in _subfolders(path)]


def _subfolders(path: Path) -> list[str]:
    """The sorted names of the folders in `path` that are not hidden."""
    try:
        with os.scandir(path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.name != "__MACOSX" and entry.is_dir()
            )
    except PermissionError:
        return []


def _rank(entry: Entry, path: Path) -> tuple[float, int] | None:
    """How well a folder matches the set, larger is better; None if it does not match.

    A folder that is not in `layouts` must hold half of the classes and must not match another set
    better: 17 of the 19 classes of WHU-RS19 are in AID too.
    """
    layout_rank = _layout_rank(entry, path)
    names = _subfolders(path)
    if entry.class_folders:
        overlap = _overlap(entry, names)
        if not overlap:
            return None
        rivals = (_overlap(other, names) for other in ENTRIES.values())
        if not layout_rank and (overlap < 0.5 or overlap < max(rivals)):
            return None
        return overlap, layout_rank
    if not layout_rank:
        return None
    if entry.folders is None:
        return (1.0, layout_rank) if 2 * len(names) >= entry.class_count else None
    with os.scandir(path) as entries:
        has_image = any(PurePosixPath(e.name).suffix.lower() in SUFFIXES for e in entries)
    return (1.0, layout_rank) if has_image else None


def _overlap(entry: Entry, names: Sequence[str]) -> float:
    """Names that are classes of the set, as a share of all names and classes: 0 … 1."""
    common = {find_folder(entry, name) for name in names} - {None}
    union = len(names) + len(entry.class_folders) - len(common)
    return len(common) / union if union else 0.0


def _layout_rank(entry: Entry, path: Path) -> int:
    """0 if the path ends in no layout, ignoring case; else larger for an earlier layout."""
    parts = tuple(part.casefold() for part in path.absolute().parts)
    for n, layout in enumerate(entry.layouts):
        ending = tuple(layout.casefold().split("/"))
        if parts[-len(ending) :] == ending:
            return len(entry.layouts) - n
    return 0
