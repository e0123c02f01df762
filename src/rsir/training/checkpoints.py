"""Write and read the checkpoints of a training run, whole or not at all."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from rsir.atomic import write_bytes
from rsir.errors import ModelError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM)
"""Reasons of the file system why a run cannot be written."""


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoints, written with `rsir.atomic`.

    Lightning's own way writes to the system's temporary folder and moves the file: across file
    systems that is a copy, which a full disk cuts off, and the earlier checkpoint is gone.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Replace the checkpoint at `path`; OSError if it cannot be written."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(Path(path), buffer.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """The checkpoint at `path`; ModelError if it is damaged."""
        try:
            loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:  # damaged files make torch raise nearly anything
            raise ModelError(
                f"the checkpoint {path} is damaged; delete it to begin this run again"
            ) from error
        return loaded


@contextmanager
def naming_full_disks(folder: Path) -> Iterator[None]:
    """Turn the OSError of a run that cannot be written into a ModelError that names the run."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ModelError(
            f"{folder}: the run cannot be written ({error.strerror or error}); its last checkpoint "
            "is kept: make space, and run the same command again"
        ) from error
