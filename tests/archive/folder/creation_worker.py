"""The work of the processes in `test_creation`; few imports, so that they start quickly."""

import time
from multiprocessing.connection import Connection
from pathlib import Path

from rsir.archive import Archive
from rsir.store.lance.store import LanceStore
from tests.support.colour_encoder import ColourEncoder

PROCESSES = 4


class SlowEncoder(ColourEncoder):
    """Its `save` is slow, so that creations overlap."""

    def save(self, folder: Path) -> None:
        time.sleep(0.2)
        super().save(folder)


def share(connection: Connection, images: Path, number: int) -> None:
    """Add a shard of the images to each archive whose path arrives."""
    connection.send(None)
    while path := connection.recv():
        archive = Archive.open_or_create(path, SlowEncoder())
        connection.send(archive.add(images, shard=(number, PROCESSES)).added)


def make(connection: Connection, path: Path, step: str) -> None:
    """Begin to create an archive, report when it is at `step`, and hang there."""

    def stop(*_: object) -> None:
        connection.send(step)
        time.sleep(600)

    if step == "save":
        ColourEncoder.save = stop  # type: ignore[method-assign]
    else:
        LanceStore.create = stop  # type: ignore[method-assign, assignment]
    Archive.create(path, ColourEncoder())
