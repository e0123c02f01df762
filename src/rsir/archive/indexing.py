"""One run over files: what is new or changed is read, encoded and kept in the store."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.failures import told
from rsir.archive.store import Record, Store
from rsir.data.images import read_tile, source_name
from rsir.errors import DataError
from rsir.ranking import metric_named
from rsir.types import Tile

COMMIT_TILES = 1024
COMMIT_SECONDS = 30.0
"""What is encoded is committed after so many tiles or so many seconds, whichever comes first. Our
choice: a commit costs some 10 ms, and this is what a crash can lose."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not added, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What one `Archive.add` did, in files.

    added: new. replaced: content changed. unchanged: known already (also if only its time of
    change is new). skipped: could not be added; what the archive had of them it keeps.
    ignored: files in the folders that are no images, by lower-case suffix. seconds: duration.
    complete: False, in last-index.json, of a run that was interrupted.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: tuple[Skipped, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the archive has of a source."""

    id: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class _Read:
    """A file that was read and is to be encoded: its tile, its record, and the ids it replaces."""

    tile: Tile
    record: Record
    stale: tuple[str, ...]


class Indexing:
    """One run of `Archive.add`: what is known, what waits for a commit, what was done.

    path: the archive's folder, for messages. encode: (N, C, H, W) uint8 images, of sizes that may
    differ, to the store's vectors; DataError if there is one that the model cannot take. check:
    raises DataError for a tile that is not for this archive. on_progress: called with (files
    done, files in all).
    """

    def __init__(
        self,
        store: Store,
        files: Iterable[Path],
        *,
        path: Path,
        encode: Callable[[Sequence[NDArray[np.uint8]]], NDArray[Any]],
        check: Callable[[Tile], None],
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._store = store
        self._path = path
        self._encode = encode
        self._check = check
        # By source: the same file can be named in several ways.
        self._files = {source_name(file): file for file in files}
        self._on_progress = on_progress
        self._done = 0
        self._counts: Counter[str] = Counter()
        self._skipped: list[Skipped] = []
        self._encoded: list[tuple[Record, NDArray[Any]]] = []
        self._touched: list[Record] = []
        self._stale: list[str] = []
        self._outcomes: list[str] = []
        self._committed = time.monotonic()
        self._known: dict[str, list[_Known]] = {}
        with told(self._path):
            for r in self._store.records():
                if r.source in self._files:
                    self._known.setdefault(r.source, []).append(_Known(r.id, r.size, r.mtime_ns))

    def run(self, batch_size: int, workers: int) -> None:
        """Read, encode and keep all files; the last of them wait for `commit`."""
        with closing(self._images(workers, batch_size + workers)) as reads:
            for batch in _batches(reads, batch_size):
                self._encode_batch(batch)

    def report(self, ignored: Mapping[str, int], seconds: float, complete: bool) -> IndexReport:
        """What was done so far; the arguments are those of the report."""
        return IndexReport(
            added=self._counts["added"],
            replaced=self._counts["replaced"],
            unchanged=self._counts["unchanged"],
            skipped=tuple(sorted(self._skipped, key=lambda skipped: skipped.path)),
            ignored={_printable(suffix): count for suffix, count in sorted(ignored.items())},
            seconds=seconds,
            complete=complete,
        )

    def _images(self, workers: int, ahead: int) -> Generator[_Read]:
        """The files that have to be encoded, in order; at most `ahead` are held in memory."""
        with ThreadPoolExecutor(workers, thread_name_prefix="rsir-read") as pool:
            waiting: deque[tuple[str, os.stat_result, Future[Tile]]] = deque()
            try:
                for source, file in self._files.items():
                    stat = self._changed(source, file)
                    if stat is not None:
                        waiting.append((source, stat, pool.submit(read_tile, file)))
                    if len(waiting) >= ahead:
                        yield from self._taken(*waiting.popleft())
                while waiting:
                    yield from self._taken(*waiting.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _encode_batch(self, batch: Sequence[_Read]) -> None:
        """Encode `batch` and keep it for the next commit; commits if it is time to."""
        try:
            vectors = self._encode([read.tile.pixels for read in batch])
        except DataError as error:
            # The encoder does not say which image it was: take them one at a time.
            if len(batch) > 1:
                for read in batch:
                    self._encode_batch([read])
            else:
                self._skip(batch[0].record.source, str(error))
            return
        faults = metric_named(self._store.metric).faults(vectors)
        for row, read in enumerate(batch):
            if row in faults:
                self._skip(read.record.source, f"the model cannot describe it: {faults[row]}")
                continue
            self._encoded.append((read.record, vectors[row]))
            self._keep(read.stale, "replaced" if read.stale else "added")

    def commit(self) -> None:
        """Write what waits: first the new records, then the deletion of those they replace.

        Cut off in between, both are there; the next run knows the current one by its size and
        time of change, and deletes the other.
        """
        with told(self._path):
            touched = self._store.get([record.id for record in self._touched])
            rows = [*self._encoded, *zip(self._touched, [row for _, row in touched], strict=True)]
            if rows:
                self._store.add([record for record, _ in rows], np.stack([row for _, row in rows]))
            if self._stale:
                self._store.delete(self._stale)
        # Only now, so that what Ctrl-C cuts off is done again when the run is left.
        self._counts.update(self._outcomes)
        self._encoded, self._touched, self._stale, self._outcomes = [], [], [], []
        self._committed = time.monotonic()

    def _changed(self, source: str, file: Path) -> os.stat_result | None:
        """The file's stat if it has to be read; None if it is known as it is, or is gone."""
        try:
            stat = file.stat()
        except OSError as error:
            self._skip(source, f"cannot be read ({error.strerror})")
            return None
        known = self._known.get(source, [])
        current = [k for k in known if (k.size, k.mtime_ns) == (stat.st_size, stat.st_mtime_ns)]
        if not current:
            return stat
        # Left by a run that was cut off between the two steps of a commit.
        self._stale.extend(k.id for k in known if k not in current)
        self._counts["unchanged"] += 1
        self._progress()
        return None

    def _taken(self, source: str, stat: os.stat_result, future: Future[Tile]) -> Iterator[_Read]:
        try:
            tile = future.result()
            self._check(tile)
        except DataError as error:
            self._skip(source, str(error))
            return
        record = Record(
            id=tile.id,
            source=tile.source,
            content=tile.content,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            footprint=tile.footprint,
            datetime=tile.datetime,
            properties={
                "folder": Path(source).parent.name,
                "width": tile.pixels.shape[2],
                "height": tile.pixels.shape[1],
                **tile.properties,
            },
        )
        known = self._known.get(source, [])
        stale = tuple(k.id for k in known if k.id != tile.id)
        if any(k.id == tile.id for k in known):
            self._touched.append(record)
            self._keep(stale, "unchanged")
        else:
            yield _Read(tile, record, stale)

    def _keep(self, stale: Sequence[str], outcome: str) -> None:
        self._stale.extend(stale)
        self._outcomes.append(outcome)
        self._progress()
        due = time.monotonic() - self._committed >= COMMIT_SECONDS
        if len(self._outcomes) >= COMMIT_TILES or due:
            self.commit()

    def _skip(self, source: str, reason: str) -> None:
        source, reason = _printable(source), _printable(reason)
        self._skipped.append(Skipped(source, reason.removeprefix(f"{source}: ")))
        self._progress()

    def _progress(self) -> None:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, len(self._files))


def _batches(reads: Iterator[_Read], size: int) -> Iterator[list[_Read]]:
    batch: list[_Read] = []
    for read in reads:
        batch.append(read)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _printable(name: str) -> str:
    """A file name as text that can be written: bytes that are not UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
