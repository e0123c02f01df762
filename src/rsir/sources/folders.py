"""List the files in folders, skipping what cannot be listed, and name files as sources."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rsir.errors import DataError

SUFFIXES: frozenset[str] = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"})
"""Lower-case suffixes of the files that `find_images` takes. The content of a file, and not its
suffix, decides how it is read."""

BROKEN_LINK = "is a broken link; correct or remove it"
NO_FILE = "is a pipe, a socket or a device, not a file or folder; name a file"


def files_below(
    starts: Sequence[Path],
    excluded: Path | None,
    skip: Callable[[Path, str, OSError | None], None],
) -> Iterator[Path]:
    """The files in folders and their subfolders, each real folder once.

    Names that begin with a dot are ignored. Links are followed; a folder that is reached twice is
    searched once, under its own name rather than a link's. excluded: a folder that is not searched;
    its path has no links. skip: called with each path that is neither file nor folder, or cannot be
    read, with the reason and, in the second case, the error.
    """
    # Stacks, not recursion, because the depth is unknown. `seen` stops loops of links.
    # Links wait until no real folder is left: ids depend on the paths of files, so they must not
    # change when somebody links to a folder.
    seen: set[Path] = set()
    folders: list[Path] = []
    links: list[Path] = []
    for start in starts:
        (links if start.is_symlink() else folders).append(start)
    while folders or links:
        folder = (folders or links).pop()
        real = folder.resolve()
        if real in seen or (excluded is not None and real.is_relative_to(excluded)):
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            skip(folder, _refused(error), error)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:
                skip(path, _refused(error), error)
                continue
            if is_folder:
                (links if entry.is_symlink() else folders).append(path)
            elif is_file:
                yield path
            else:
                broken = entry.is_symlink() and not path.exists()
                skip(path, BROKEN_LINK if broken else NO_FILE, None)


def _refused(error: OSError) -> str:
    return f"cannot be read ({error.strerror}); check its permissions"


def find_images(
    paths: Iterable[str | os.PathLike[str]], *, exclude: Path | None = None
) -> tuple[list[Path], Counter[str]]:
    """The image files among files and folders, sorted and each once; and counts of other files.

    Folders are searched recursively, as by `files_below`. A file in `paths` may have any suffix.
    The Counter has the number of other files in the folders by lower-case suffix ("" for none).
    Pipes, sockets and devices in folders are skipped.
    exclude: a folder that is not searched, even if a link leads to it.

    Errors: DataError if a path is missing or a folder cannot be listed.
    """
    found: set[Path] = set()
    others: Counter[str] = Counter()
    folders: list[Path] = []
    excluded = None if exclude is None else exclude.resolve()
    for start in map(Path, paths):
        if start.is_dir():
            folders.append(start)
        elif start.is_file():
            if excluded is None or not start.parent.resolve().is_relative_to(excluded):
                found.add(start)
        else:
            reason = NO_FILE if start.exists() else "no such file or folder; check the path"
            raise DataError(f"{start}: {reason}")

    def skip(path: Path, reason: str, error: OSError | None) -> None:
        if error is not None:
            raise DataError(f"{path}: {reason}") from error

    for file in files_below(folders, excluded, skip):
        if file.suffix.lower() in SUFFIXES:
            found.add(file)
        else:
            others[file.suffix.lower()] += 1
    return sorted(found), others


def source_name(path: str | os.PathLike[str]) -> str:
    """The name of a file as a source: its absolute path, with forward slashes."""
    # abspath, not resolve: links keep their own names, and 'a/../b' becomes 'b'.
    return Path(os.path.abspath(path)).as_posix()  # noqa: PTH100
