"""Where a benchmark set lies below a data root, under whatever name it was unpacked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rsir.data.catalog.entries import ENTRIES, Entry, find_folder
from rsir.data.folder import some
from rsir.errors import DataError

DEPTH = 4
"""Folder levels that `locate` looks below the data root; our choice, one more than any layout."""


def locate(entry: Entry, root: str | Path) -> Path:
    """The folder below a data root that holds the set's class folders, or its images.

    In any of `entry.layouts`, or wherever most of the classes lie, four levels deep at most.
    `root` may be a folder with many sets. Raises DataError if the set is not there, naming the
    layouts, or if it is there more than once.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that the data sets lie in")
    found = candidates(entry, root)
    if not found:
        raise DataError(
            f"{root}: {entry.title} is not below this folder; expected its images in one of "
            f"{', '.join(entry.layouts)}. {by_hand(entry)}"
        )
    if len(found) > 1:
        raise DataError(
            f"{root}: {entry.title} could be {some([str(p) for p in found], 'folder')}; name one"
        )
    return found[0]


def candidates(entry: Entry, root: Path) -> list[Path]:
    """The folders below `root` that look most like the set's; more than one if they tie."""
    ranked = [
        ((*rank, -level), path)
        for path, level in _folders(root, DEPTH)
        if (rank := _rank(entry, path)) is not None
    ]
    top = max((rank for rank, _ in ranked), default=None)
    return sorted(path for rank, path in ranked if rank == top)


def by_hand(entry: Entry) -> str:
    """What to tell someone who has to get the set without us."""
    layout = entry.layouts[0]
    if entry.class_folders or not entry.classes:
        layout += "/<class>/<image>"
    else:
        layout += "/<image>"
    return f"Get it from {entry.home} and lay it out as {layout} below the data root"


def _folders(root: Path, depth: int) -> Iterator[tuple[Path, int]]:
    """`root` and the folders below it that are not hidden, with their levels."""
    level = [root]
    for n in range(depth + 1):
        below = []
        for path in level:
            yield path, n
            if n < depth:
                below += sorted(_subfolders(path).values())
        level = below


def _subfolders(path: Path) -> dict[str, Path]:
    try:
        with os.scandir(path) as entries:
            return {
                entry.name: path / entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.name != "__MACOSX" and entry.is_dir()
            }
    except PermissionError:
        return {}


def _rank(entry: Entry, path: Path) -> tuple[float, int] | None:
    """How well a folder looks like the set's, larger is better; None if it does not.

    A folder of another name must hold half of the classes and not look more like another set:
    17 of the 19 classes of WHU-RS19 are in AID too.
    """
    named = _layout_rank(entry, path)
    names = tuple(_subfolders(path))
    if entry.class_folders:
        overlap = _overlap(entry, names)
        if not overlap:
            return None
        rivals = (_overlap(other, names) for other in ENTRIES.values())
        if not named and (overlap < 0.5 or overlap < max(rivals)):
            return None
        return overlap, named
    if not named:
        return None
    if entry.folders is None:
        return (1.0, named) if 2 * len(names) >= entry.class_count else None
    from rsir.sources.folders import SUFFIXES

    with os.scandir(path) as entries:
        has_image = any(PurePosixPath(e.name).suffix.lower() in SUFFIXES for e in entries)
    return (1.0, named) if has_image else None


def _overlap(entry: Entry, names: tuple[str, ...]) -> float:
    """Classes that both have, as a share of those that either has: 0 … 1."""
    known = {c for c in (find_folder(entry, name) for name in names) if c is not None}
    either = len(names) + len(entry.class_folders) - len(known)
    return len(known) / either if either else 0.0


def _layout_rank(entry: Entry, path: Path) -> int:
    """0 if the path ends in none of the layouts, case aside; else the more, the earlier it is."""
    parts = tuple(part.casefold() for part in path.absolute().parts)
    for n, layout in enumerate(entry.layouts):
        wanted = tuple(layout.casefold().split("/"))
        if parts[-len(wanted) :] == wanted:
            return len(entry.layouts) - n
    return 0
