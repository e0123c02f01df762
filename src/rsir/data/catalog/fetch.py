"""Downloads a benchmark set and unpacks it below a data root."""

from __future__ import annotations

import tempfile
from http.client import HTTPException
from pathlib import Path

from rsir.data.catalog.download import Progress, download, extract
from rsir.data.catalog.entries import Archive, Entry
from rsir.data.catalog.locate import by_hand, candidates, locate
from rsir.errors import DataError, MissingExtraError


def fetch(entry: Entry, root: str | Path, *, progress: Progress | None = None) -> Path:
    """The set's folder below `root`, downloaded if it is not there yet.

    Through torchgeo where it has the set (which shows its own progress), else from a known
    address. Raises MissingExtraError without torchgeo; DataError where the set cannot be
    downloaded, saying where to get it by hand and how to lay it out, and where a download or its
    checksum fails.
    """
    root = Path(root)
    if root.is_dir() and candidates(entry, root):
        return locate(entry, root)
    if entry.torchgeo is None and entry.archive is None:
        raise DataError(f"{entry.title} cannot be downloaded. {by_hand(entry)}")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{root}: cannot be made ({error.strerror})") from error
    if entry.torchgeo is not None:
        _fetch_torchgeo(entry, entry.torchgeo, root)
    elif entry.archive is not None:
        _fetch_archive(entry, entry.archive, root, progress)
    return locate(entry, root)


def _fetch_torchgeo(entry: Entry, name: str, root: Path) -> None:
    try:
        import torchgeo.datasets
    except ImportError as error:
        raise MissingExtraError(f"downloading {entry.title}", "datasets") from error
    dataset = getattr(torchgeo.datasets, name)
    try:
        dataset(root=root, download=True, checksum=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataError(
            f"{entry.title}: torchgeo could not download it ({error}). {by_hand(entry)}"
        ) from error


def _fetch_archive(entry: Entry, archive: Archive, root: Path, progress: Progress | None) -> None:
    target = root / entry.name
    if target.exists():
        raise DataError(f"{target} exists but is not {entry.title}; move it away first")
    with tempfile.TemporaryDirectory(prefix=f".{entry.name}-", dir=root) as scratch:
        packed = Path(scratch) / archive.filename
        download(archive.url, packed, size=archive.size, sha256=archive.sha256, progress=progress)
        unpacked = Path(scratch) / "unpacked"
        extract(packed, unpacked)
        unpacked.replace(target)
