"""One run over sources: what is new or changed is read, encoded and kept in the store."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.failures import told
from rsir.archive.filters import Filter
from rsir.archive.reading import End, Item, Known, Progress, Read, Reader, Same, Stamp
from rsir.archive.store import Record, Store
from rsir.errors import ArchiveError, DataError
from rsir.geo.sources import Sources
from rsir.geo.tiling import Tiling
from rsir.ranking import metric_named
from rsir.types import Tile

COMMIT_TILES = 1024
COMMIT_SECONDS = 30.0
"""What is encoded is committed after so many tiles or so many seconds, whichever comes first. Our
choice: a commit costs some 10 ms, and this is what a crash can lose."""

_FEW = 200
_FEW_CHARACTERS = 50_000
"""Of so many sources, whose names have so many characters together, the store is asked what it
knows; for more all its records are read. Our choice: the names are compared one by one."""

_BATCH_ITEMS = 8
"""Of those that need no encoding a batch has at most so many times its size. Our choice."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or a window of a scene, that was not added, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What one `Archive.add` did, in files and scenes.

    added: new. replaced: content changed, or cut anew. unchanged: known already (also if only its
    time of change is new). skipped: could not be added; what the archive had of them it keeps.
    Damaged windows of scenes are listed too. ignored: files in the folders that are no images, by
    lower-case suffix. tiles: that were encoded, of all of them. left_out: windows of scenes that
    were not, by reason: "nodata", "cloud", "damaged". seconds: duration.
    complete: False, in last-index.json, of a run that was interrupted.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: tuple[Skipped, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    tiles: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


class Indexing:
    """One run of `Archive.add`: what is known, what waits for a commit, what was done.

    roots: what the user named. path: the archive's folder, for messages. encode: (N, C, H, W) uint8
    images, of sizes that may differ, to the store's vectors; DataError if there is one that the
    model cannot take. on_progress: called with (done, in all), in files and tiles of scenes.
    bands, tiling, check: as of `rsir.archive.reading.Reader`.
    """

    def __init__(
        self,
        store: Store,
        sources: Sources,
        roots: Sequence[str | os.PathLike[str]],
        *,
        path: Path,
        bands: tuple[str, ...],
        tiling: Tiling | None,
        encode: Callable[[Sequence[NDArray[np.uint8]]], NDArray[Any]],
        check: Callable[[Tile], None],
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._store = store
        self._path = path
        self._encode = encode
        self._ignored = sources.ignored
        self._on_progress = on_progress
        self._done, self._total = 0, len(sources.sources) + len(sources.unusable)
        self._counts: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._tiles = 0
        self._skipped: list[Skipped] = []
        self._encoded: list[tuple[Record, NDArray[Any]]] = []
        self._touched: dict[str, Stamp] = {}
        self._stale: list[str] = []
        self._outcomes: list[str] = []
        self._committed = time.monotonic()
        with told(self._path):
            known = _known(self._store, {source.uri for source in sources.sources})
        self._reader = Reader(sources, roots, known, bands=bands, tiling=tiling, check=check)
        for unusable in sources.unusable:
            self._skip(unusable.uri, unusable.reason)
            self._progress()

    def run(self, batch_size: int, workers: int) -> None:
        """Read, encode and keep all sources; the last of them wait for `commit`."""
        with closing(self._reader.items(workers, batch_size + workers)) as items:
            for batch in _batches(items, batch_size):
                self._take(batch)

    def report(self, seconds: float, complete: bool) -> IndexReport:
        """What was done so far; the arguments are those of the report."""
        return IndexReport(
            added=self._counts["added"],
            replaced=self._counts["replaced"],
            unchanged=self._counts["unchanged"],
            skipped=tuple(sorted(self._skipped, key=lambda skipped: skipped.path)),
            ignored={_printable(suffix): count for suffix, count in sorted(self._ignored.items())},
            tiles=self._tiles,
            left_out=dict(sorted(self._left_out.items())),
            seconds=seconds,
            complete=complete,
        )

    def commit(self) -> None:
        """Write what waits: first the new records, then the deletion of those they replace.

        Cut off in between, both are there; the next run knows the current one by its size and
        time of change, and deletes the other.
        """
        with told(self._path):
            rows = list(self._encoded)
            for record, row in self._still_there(list(self._touched)):
                size, changed = self._touched[record.id]
                rows.append((replace(record, size=size, mtime_ns=changed), row))
            if rows:
                self._store.add([record for record, _ in rows], np.stack([row for _, row in rows]))
            if self._stale:
                self._store.delete(self._stale)
        # Only now, so that what Ctrl-C cuts off is done again when the run is left.
        self._counts.update(self._outcomes)
        self._tiles += len(self._encoded)
        self._encoded, self._touched, self._stale, self._outcomes = [], {}, [], []
        self._committed = time.monotonic()

    def _still_there(self, ids: Sequence[str]) -> list[tuple[Record, NDArray[Any]]]:
        """The records and vectors under `ids`, but for those that were deleted meanwhile."""
        try:
            return self._store.get(ids)
        except ArchiveError:
            if len(ids) == 1:
                return []
            half = len(ids) // 2
            return [*self._still_there(ids[:half]), *self._still_there(ids[half:])]

    def _take(self, batch: Sequence[Item]) -> None:
        """Encode the tiles of a batch and keep them for the next commit; commits if it is time."""
        vectors = self._vectors([item for item in batch if isinstance(item, Read)])
        for item in batch:
            progress = item.progress
            if isinstance(item, End):
                self._end(progress)
                continue
            if isinstance(item, Read):
                row = vectors.get(item.tile.id)
                if row is not None:
                    self._encoded.append((item.record, row))
                    progress.kept.add(item.tile.id)
                    progress.new += 1
            elif isinstance(item, Same):
                self._touched[item.id] = progress.stamp
            if progress.windows > 1:
                self._tick(progress)
                self._commit_if_due()

    def _vectors(self, reads: Sequence[Read]) -> dict[str, NDArray[Any]]:
        """The vectors of tiles by id, without those that the model cannot take."""
        if not reads:
            return {}
        try:
            vectors = self._encode([read.tile.pixels for read in reads])
        except DataError as error:
            # The encoder does not say which image it was: take them one at a time.
            if len(reads) > 1:
                return {id: row for read in reads for id, row in self._vectors([read]).items()}
            self._fault(reads[0], str(error))
            return {}
        faults = metric_named(self._store.metric).faults(vectors)
        for place, fault in faults.items():
            self._fault(reads[place], f"the model cannot describe it: {fault}")
        return {read.tile.id: vectors[i] for i, read in enumerate(reads) if i not in faults}

    def _fault(self, read: Read, reason: str) -> None:
        window = read.tile.window
        what = read.record.source if window is None else f"{read.record.source} {list(window)}"
        read.progress.fault(what, reason)

    def _end(self, progress: Progress) -> None:
        """Take down how a source fared."""
        self._left_out.update(progress.skipped)
        for what, reason in progress.faults:
            self._skip(what, reason)
        if not progress.kept and not progress.faults:
            why = ", ".join(f"{count} {reason}" for reason, count in progress.skipped.items())
            self._skip(progress.source, f"no tile of it is left: {why or 'it has none'}")
        if progress.kept:
            whole = not any(what == progress.source for what, _ in progress.faults)
            if whole:  # else some of it may still be as it was
                self._stale.extend(progress.stale)
            # Without new tiles stale ones are what a run that was cut off has left: no news.
            changed = "replaced" if whole and progress.stale else "added"
            outcome = changed if progress.new else "unchanged"
            self._outcomes.append(outcome)
        while progress.done < progress.windows:
            self._tick(progress)
        self._commit_if_due()

    def _commit_if_due(self) -> None:
        waiting = len(self._encoded) + len(self._touched)
        due = time.monotonic() - self._committed >= COMMIT_SECONDS
        if max(waiting, len(self._outcomes)) >= COMMIT_TILES or due:
            self.commit()

    def _skip(self, source: str, reason: str) -> None:
        source, reason = _printable(source), _printable(reason)
        self._skipped.append(Skipped(source, reason.removeprefix(f"{source}: ")))

    def _tick(self, progress: Progress) -> None:
        if not progress.done:
            self._total += progress.windows - 1
        progress.done += 1
        self._progress()

    def _progress(self) -> None:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _known(store: Store, names: Collection[str]) -> dict[str, list[Known]]:
    """What the store has of the sources called `names`."""
    known: dict[str, list[Known]] = {}
    if not names:
        return known
    some = None
    if len(names) <= _FEW and sum(map(len, names)) <= _FEW_CHARACTERS:
        quoted = ("'" + name.replace("'", "''") + "'" for name in names)
        some = Filter(where=f"source IN ({', '.join(quoted)})")
    for record in store.records(some):
        if record.source in names:
            tiled = "window" in record.properties
            stamp, content = (record.size, record.mtime_ns), record.content
            tiles = known.setdefault(record.source, [])
            if tiles and (tiles[-1].stamp, tiles[-1].content) == (stamp, content):
                # Thousands of tiles of a scene share them, and half of the memory goes to them.
                stamp, content = tiles[-1].stamp, tiles[-1].content
            tiles.append(Known(record.id, stamp, content, tiled))
    return known


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """The items in order, so many tiles at once."""
    batch: list[Item] = []
    tiles = 0
    for item in items:
        batch.append(item)
        tiles += isinstance(item, Read)
        if tiles in (0, size) or len(batch) == _BATCH_ITEMS * size:
            yield batch
            batch, tiles = [], 0
    if batch:
        yield batch


def _printable(name: str) -> str:
    """A file name as text that can be written: bytes that are not UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
