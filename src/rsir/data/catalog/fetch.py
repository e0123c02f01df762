"""Download a benchmark set and unpack it below a data root."""

from __future__ import annotations

import tempfile
from http.client import HTTPException
from pathlib import Path

from rsir.data.catalog.download import Progress, download, extract
from rsir.data.catalog.entries import Download, Entry
from rsir.data.catalog.locate import candidates, instructions, locate
from rsir.errors import DataError, MissingExtraError


def fetch(entry: Entry, root: str | Path, *, progress: Progress | None = None) -> Path:
    """The set's folder below `root`; the set is downloaded unless it is there.

    torchgeo downloads the sets that it has, and shows its own progress; other sets come from the
    entry's address. Raises MissingExtraError without torchgeo or pooch. Raises DataError if a
    download or its checksum fails, and if there is no download: the message then says where to get
    the set and which folders to put it in.
    """
    root = Path(root)
    if root.is_dir() and candidates(entry, root):
        return locate(entry, root)
    if entry.torchgeo is None and entry.archive is None:
        raise DataError(f"{entry.title} cannot be downloaded. {instructions(entry)}")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{root}: cannot be created ({error.strerror})") from error
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
            f"{entry.title}: torchgeo could not download it ({error}). {instructions(entry)}"
        ) from error


def _fetch_archive(entry: Entry, file: Download, root: Path, progress: Progress | None) -> None:
    target = root / entry.name
    if target.exists():
        raise DataError(f"{target} exists but is not {entry.title}; move it away first")
    with tempfile.TemporaryDirectory(prefix=f".{entry.name}-", dir=root) as scratch:
        packed = Path(scratch) / file.filename
        download(file.url, packed, size=file.size, sha256=file.sha256, progress=progress)
        unpacked = Path(scratch) / "unpacked"
        extract(packed, unpacked)
        unpacked.replace(target)
