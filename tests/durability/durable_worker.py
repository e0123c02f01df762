"""What the child processes of the durability tests do: an operation, told as it goes.

A child sends its parent a message before and after each call that changes the store. What the
parent has got is what the archive has promised, whatever happens to the child then.
"""

import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from rsir.archive import Archive
from rsir.archive.indexing import indexer
from rsir.errors import RsirError
from rsir.store.records.record import Record
from tests.support.colour_encoder import ColourEncoder

COMMIT_TILES = 4
BATCH = 3

Row = tuple[Record, bytes]
"""A record and its vector: all that an archive keeps of an image."""


@dataclass(frozen=True)
class Begin:
    """A call of the store begins that shall put `rows` and take away `ids`."""

    what: str
    rows: tuple[Row, ...] = ()
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """The call that began last has come back."""


@dataclass(frozen=True)
class Started:
    """The archive is going to be opened, or made."""


@dataclass(frozen=True)
class Opened:
    """The archive exists and is open."""


@dataclass(frozen=True)
class Seen:
    """What one search of a reader gave: the ids of all images, and the number it counted then."""

    ids: frozenset[str]
    count: int


@dataclass(frozen=True)
class End:
    """The operation ended: by an error that a person is told of (`error`), or well."""

    encoded: int = 0
    error: str = ""


@dataclass(frozen=True)
class Task:
    """An operation on the archive at `path`; one of OPERATIONS.

    images: what to index. ids: what to delete. waits: until told to go on, with the archive open.
    file_limit: bytes above which this process can grow no file.
    """

    operation: str
    path: Path
    images: tuple[Path, ...] = ()
    ids: tuple[str, ...] = ()
    waits: bool = False
    file_limit: int | None = None
    encoder: ColourEncoder = field(default_factory=ColourEncoder)


class Telling:
    """A store that tells of each change before it begins and after it has come back."""

    def __init__(self, store, tell: Callable[[object], None]) -> None:
        self._store = store
        self._tell = tell

    def __len__(self) -> int:
        return len(self._store)

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    def add(self, records: Sequence[Record], vectors: np.ndarray) -> None:
        rows = tuple((r, v.tobytes()) for r, v in zip(records, vectors, strict=True))
        self._tell(Begin("add", rows=rows))
        self._store.add(records, vectors)
        self._tell(Done())

    def delete(self, ids: Sequence[str]) -> int:
        self._tell(Begin("delete", ids=tuple(ids)))
        count = self._store.delete(ids)
        self._tell(Done())
        return count

    def optimize(self, **how: float) -> None:
        self._tell(Begin("optimize"))
        self._store.optimize(**how)
        self._tell(Done())


def index(archive: Archive, task: Task) -> None:
    archive.add(task.images, batch_size=BATCH)


def delete(archive: Archive, task: Task) -> None:
    for start in range(0, len(task.ids), COMMIT_TILES):
        archive.delete(task.ids[start : start + COMMIT_TILES])


def prune(archive: Archive, task: Task) -> None:
    archive.prune()


def optimize(archive: Archive, task: Task) -> None:
    archive.optimize()


def life(archive: Archive, task: Task) -> None:
    """All of it, one after the other; twice gives what once gives."""
    for operation in (index, delete, optimize, prune, optimize):
        operation(archive, task)


def grow(archive: Archive, task: Task) -> None:
    """Folder after folder, merged each time."""
    for folder in task.images:
        archive.add(folder, batch_size=BATCH)
        archive.optimize()


def merge(archive: Archive, task: Task) -> None:
    """Merged again and again, while others write."""
    for _ in range(5):
        archive.optimize()


OPERATIONS = {f.__name__: f for f in (index, delete, prune, optimize, life, grow, merge)}


def work(connection: Connection, task: Task) -> None:
    """Do `task`, and tell; exit status 1 if it ended with an error that a person is told of."""
    indexer.COMMIT_TILES = COMMIT_TILES
    if task.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task.file_limit, task.file_limit))
    connection.send(Started())
    try:
        archive = Archive.open_or_create(task.path, task.encoder)
        archive.gallery.store = Telling(archive.store, connection.send)
        connection.send(Opened())
        if task.waits:
            connection.recv()
        OPERATIONS[task.operation](archive, task)
    except RsirError as error:
        connection.send(End(task.encoder.encoded, str(error)))
        sys.exit(error.exit_status)
    connection.send(End(task.encoder.encoded))


def read(connection: Connection, path: Path) -> None:
    """Search all of the archive until told to stop, and once more, and tell what was seen."""
    archive = Archive.open(path, ColourEncoder())
    query = np.ones(archive.dimension, np.float32)
    connection.send(Opened())
    told_to_stop = False
    while not told_to_stop:
        told_to_stop = connection.poll()
        count = len(archive)
        hits = archive.search(query, k=10_000)
        distances = [hit.distance for hit in hits]
        assert distances == sorted(distances)
        assert archive.get([hit.id for hit in hits[:3]])[0].id == hits[0].id
        connection.send(Seen(frozenset(hit.id for hit in hits), count))
    connection.send(End())
