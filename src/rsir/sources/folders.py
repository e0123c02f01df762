"""The files below folders, where not everything may be looked into, and not everything is one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rsir.errors import DataError

SUFFIXES: frozenset[str] = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"})
"""Lower-case suffixes of the files that `find_images` takes; what is inside decides how it is
read."""

BROKEN_LINK = "is a link to nothing; mend or remove it"
NO_FILE = "is no file or folder but a pipe, a socket or a device; name a file"


def files_below(
    starts: Sequence[Path],
    closed: Path | None,
    passed_over: Callable[[Path, str, OSError | None], None],
) -> Iterator[Path]:
    """The files in some folders and all folders in them, each real folder once.

    Names that begin with a dot are ignored. Links are followed; a folder reached twice is searched
    once, under its own name rather than a link's. closed: a folder, without links in its path, in
    which nothing is looked at. passed_over: called with what is neither file nor folder, or cannot
    be looked at, the reason, and in the second case what the system says; the rest goes on.
    """
    # Stacks, not recursion: depth is the user's. Resolved folders in `seen` stop link loops.
    # A link waits until no real folder is left: the ids of a folder's files come from their paths,
    # and must not change when someone links to it.
    seen: set[Path] = set()
    folders: list[Path] = []
    links: list[Path] = []
    for start in starts:
        (links if start.is_symlink() else folders).append(start)
    while folders or links:
        folder = (folders or links).pop()
        real = folder.resolve()
        if real in seen or (closed is not None and real.is_relative_to(closed)):
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            passed_over(folder, _refused(error), error)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:
                passed_over(path, _refused(error), error)
                continue
            if is_folder:
                (links if entry.is_symlink() else folders).append(path)
            elif is_file:
                yield path
            else:
                broken = entry.is_symlink() and not path.exists()
                passed_over(path, BROKEN_LINK if broken else NO_FILE, None)


def _refused(error: OSError) -> str:
    return f"cannot be looked at ({error.strerror}); check its permissions"


def find_images(
    paths: Iterable[str | os.PathLike[str]], *, exclude: Path | None = None
) -> tuple[list[Path], Counter[str]]:
    """The image files among files and folders, sorted and each once, and what was passed over.

    Folders are searched to the bottom; names that begin with a dot are ignored, links are
    followed, a folder reached twice is searched once, under its own name rather than a link's. A
    file named outright is taken whatever its suffix. The Counter has the lower-case suffixes (""
    for none) of the other files in the folders. What is neither a file nor a folder is not looked
    at.
    exclude: a folder in which nothing is looked at, under whatever name it is reached.

    Errors: DataError if a path is missing or a folder cannot be listed.
    """
    found: set[Path] = set()
    others: Counter[str] = Counter()
    folders: list[Path] = []
    closed = None if exclude is None else exclude.resolve()
    for start in map(Path, paths):
        if start.is_dir():
            folders.append(start)
        elif start.is_file():
            if closed is None or not start.parent.resolve().is_relative_to(closed):
                found.add(start)
        else:
            reason = NO_FILE if start.exists() else "no such file or folder; check the path"
            raise DataError(f"{start}: {reason}")

    def passed_over(path: Path, reason: str, error: OSError | None) -> None:
        if error is not None:
            raise DataError(f"{path}: {reason}") from error

    for file in files_below(folders, closed, passed_over):
        if file.suffix.lower() in SUFFIXES:
            found.add(file)
        else:
            others[file.suffix.lower()] += 1
    return sorted(found), others


def source_name(path: str | os.PathLike[str]) -> str:
    """The name under which a file is known as a source: its absolute path, posix, as text."""
    # abspath, not resolve: a link keeps the name its owner gave it, and 'a/../b' is still 'b'.
    return Path(os.path.abspath(path)).as_posix()  # noqa: PTH100
