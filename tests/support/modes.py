"""The modes of files, under some umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UMASKS = (0o022, 0o027, 0o002)


@contextmanager
def under_umask(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def check_modes(folder: Path, umask: int) -> int:
    """Check all files and folders below `folder`; returns their number."""
    found = [folder, *folder.rglob("*")]
    for path in found:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == wanted, f"{path.relative_to(folder)}: {mode:o}, not {wanted:o}"
    return len(found)
