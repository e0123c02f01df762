"""The child processes of the durability tests: each does an operation and reports its progress.

A child sends its parent a message before and after each call that changes the store. The messages
that the parent has received are what the archive has promised, whatever happens to the child.
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
"""A record and the bytes of its vector: all that an archive keeps of an image."""


@dataclass(frozen=True)
class Begin:
    """A call of the store begins that adds `rows` and deletes `ids`."""

    call: str
    rows: tuple[Row, ...] = ()
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """The last call has returned."""


@dataclass(frozen=True)
class Started:
    """The process is about to open or create the archive."""


@dataclass(frozen=True)
class Opened:
    """The archive exists and is open."""


@dataclass(frozen=True)
class Seen:
    """The result of one search of a reader: the ids of all images, and the count just before."""

    ids: frozenset[str]
    count: int


@dataclass(frozen=True)
class End:
    """The operation ended, with the message of an RsirError (`error`) or without an error."""

    encoded: int = 0
    error: str = ""


@dataclass(frozen=True)
class Task:
    """An operation on the archive at `path`; one of OPERATIONS.

    images: to index. ids: to delete. waits: whether to open the archive and wait for a message.
    file_limit: maximum bytes of a file that the process writes.
    """

    operation: str
    path: Path
    images: tuple[Path, ...] = ()
    ids: tuple[str, ...] = ()
    waits: bool = False
    file_limit: int | None = None
    encoder: ColourEncoder = field(default_factory=ColourEncoder)


class ReportingStore:
    """A store that reports each change before it begins and after it has returned."""

    def __init__(self, store, report: Callable[[object], None]) -> None:
        self._store = store
        self._report = report

    def __len__(self) -> int:
        return len(self._store)

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    def add(self, records: Sequence[Record], vectors: np.ndarray) -> None:
        rows = tuple((r, v.tobytes()) for r, v in zip(records, vectors, strict=True))
        self._report(Begin("add", rows=rows))
        self._store.add(records, vectors)
        self._report(Done())

    def delete(self, ids: Sequence[str]) -> int:
        self._report(Begin("delete", ids=tuple(ids)))
        count = self._store.delete(ids)
        self._report(Done())
        return count

    def optimize(self, **options: float) -> None:
        self._report(Begin("optimize"))
        self._store.optimize(**options)
        self._report(Done())


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
    """All operations in turn; a second run changes nothing."""
    for operation in (index, delete, optimize, prune, optimize):
        operation(archive, task)


def grow(archive: Archive, task: Task) -> None:
    """Index folder after folder, and merge the files each time."""
    for folder in task.images:
        archive.add(folder, batch_size=BATCH)
        archive.optimize()


def merge(archive: Archive, task: Task) -> None:
    """Merge the files again and again while others write."""
    for _ in range(5):
        archive.optimize()


OPERATIONS = {f.__name__: f for f in (index, delete, prune, optimize, life, grow, merge)}


def work(connection: Connection, task: Task) -> None:
    """Do `task` and report it; an RsirError becomes the exit status."""
    indexer.COMMIT_TILES = COMMIT_TILES
    if task.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task.file_limit, task.file_limit))
    connection.send(Started())
    try:
        archive = Archive.open_or_create(task.path, task.encoder)
        archive.gallery.store = ReportingStore(archive.store, connection.send)
        connection.send(Opened())
        if task.waits:
            connection.recv()
        OPERATIONS[task.operation](archive, task)
    except RsirError as error:
        connection.send(End(task.encoder.encoded, str(error)))
        sys.exit(error.exit_status)
    connection.send(End(task.encoder.encoded))


def read(connection: Connection, path: Path) -> None:
    """Search all of the archive until a message comes, and once more; report each result."""
    archive = Archive.open(path, ColourEncoder())
    query = np.ones(archive.dimension, np.float32)
    connection.send(Opened())
    stop = False
    while not stop:
        stop = connection.poll()
        count = len(archive)
        hits = archive.search(query, k=10_000)
        distances = [hit.distance for hit in hits]
        assert distances == sorted(distances)
        assert archive.get([hit.id for hit in hits[:3]])[0].id == hits[0].id
        connection.send(Seen(frozenset(hit.id for hit in hits), count))
    connection.send(End())
