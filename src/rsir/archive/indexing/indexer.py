"""Index sources in this process: read, encode and commit them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.encoder import default_batch_size
from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.indexing.progress import KnownTile, Metadata, SourceProgress
from rsir.archive.indexing.reading import (
    EndOfSource,
    Item,
    LeftOutWindow,
    NewTile,
    Reader,
    UnchangedTile,
)
from rsir.archive.indexing.report import IndexReport, Skipped
from rsir.archive.search.gallery import Gallery
from rsir.errors import DataError
from rsir.scenes.tiling import Tiling
from rsir.sources.find import Sources
from rsir.store.base import COMMIT_TILES, Store
from rsir.store.existing import get_existing
from rsir.store.records.record import Record
from rsir.store.records.summary import WINDOW
from rsir.types import printable

COMMIT_SECONDS = 30.0
"""A run commits after `COMMIT_TILES` tiles or this many seconds, whichever comes first; a crash
loses at most the tiles encoded since the last commit. Our choice."""

_ITEMS_PER_TILE = 8
"""Maximum items of a batch, as a multiple of the number of tiles encoded at once. Our choice."""


class Indexer:
    """Indexes sources into the store of a gallery (a `rsir.archive.indexing.run.Runner`).

    roots: the paths that the user gave. tiling: as of `rsir.archive.indexing.reading.Reader`.
    batch_size: images encoded at once; None: the model's own. workers: threads that read ahead.
    on_progress: called with (done, total), in files and tiles of scenes.
    """

    def __init__(
        self,
        gallery: Gallery,
        sources: Sources,
        roots: Sequence[str | os.PathLike[str]],
        tiling: Tiling | None,
        *,
        batch_size: int | None,
        workers: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._gallery = gallery
        self._store = gallery.store
        self._batch_size = batch_size
        self._workers = workers
        self._ignored = sources.ignored
        self._masks = [Skipped.of(mask.uri, mask.reason) for mask in sources.masks]
        self._on_progress = on_progress
        self._done, self._total = 0, len(sources.sources) + len(sources.unusable)
        # For the report:
        self._counts: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._tiles = 0
        self._skipped: list[Skipped] = []
        # For the next commit: new rows, tiles whose record changed, ids to delete, and the outcomes
        # (keys of `_counts`) of the sources that end with these tiles.
        self._encoded: list[tuple[Record, NDArray[Any]]] = []
        self._to_update: dict[str, SourceProgress] = {}
        self._to_delete: list[str] = []
        self._outcomes: list[str] = []
        self._last_commit = time.monotonic()
        with translate_store_errors(gallery.path):
            known = _known_tiles(self._store, {source.uri for source in sources.sources})
        self._reader = Reader(
            sources, roots, known, bands=gallery.bands, tiling=tiling, check=gallery.check_bands
        )
        for unusable in sources.unusable:
            self._skipped.append(Skipped.of(unusable.uri, unusable.reason))
            self._advance()

    def run(self) -> None:
        """Read, encode and commit all sources."""
        try:
            size = self._batch_size or default_batch_size(self._gallery.encoder)
            with closing(self._reader.items(self._workers, size + self._workers)) as items:
                for batch in _batches(items, size):
                    self._index(batch)
        finally:
            # Keep the encoded tiles, even after Ctrl-C or an error of the encoder.
            self._commit()

    def report(self, seconds: float, complete: bool) -> IndexReport:
        """The report of all commits so far, with these `seconds` and `complete`."""
        return IndexReport(
            added=self._counts["added"],
            replaced=self._counts["replaced"],
            unchanged=self._counts["unchanged"],
            skipped=tuple(sorted(self._skipped, key=lambda skipped: skipped.path)),
            masks=tuple(sorted(self._masks, key=lambda mask: mask.path)),
            ignored={printable(suffix): count for suffix, count in sorted(self._ignored.items())},
            tiles=self._tiles,
            left_out=dict(sorted(self._left_out.items())),
            seconds=seconds,
            complete=complete,
        )

    def _commit(self) -> None:
        """Write the waiting records, then delete the records that they replace.

        After a kill in between, the store has both; the next run recognizes the current record by
        its size and time of change, and deletes the other.
        """
        with translate_store_errors(self._gallery.path):
            rows = list(self._encoded)
            for record, vector in get_existing(self._store, list(self._to_update)):
                progress = self._to_update[record.id]
                if progress.metadata is not None:
                    record = progress.metadata.applied_to(record)
                size, mtime_ns = progress.stamp
                rows.append((replace(record, size=size, mtime_ns=mtime_ns), vector))
            if rows:
                vectors = np.stack([vector for _, vector in rows])
                self._store.add([record for record, _ in rows], vectors)
            if self._to_delete:
                self._store.delete(self._to_delete)
        # Only after the writing: if Ctrl-C interrupts it, the commit at the end repeats it.
        self._counts.update(self._outcomes)
        self._tiles += len(self._encoded)
        self._encoded, self._to_update, self._to_delete, self._outcomes = [], {}, [], []
        self._last_commit = time.monotonic()

    def _index(self, batch: Sequence[Item]) -> None:
        """Encode the new tiles of a batch; commits if a commit is due."""
        vectors = self._vectors([item for item in batch if isinstance(item, NewTile)])
        for item in batch:
            progress = item.progress
            if isinstance(item, EndOfSource):
                self._finish(progress)
                continue
            if isinstance(item, NewTile):
                vector = vectors.get(item.tile.id)
                if vector is not None:
                    self._encoded.append((item.record, vector))
                    progress.current.add(item.tile.id)
                    progress.encoded += 1
            elif isinstance(item, UnchangedTile):
                progress.current.add(item.id)
                if not item.is_current:
                    self._to_update[item.id] = progress
            else:
                _leave_out(item)
            if progress.windows > 1:
                self._advance_in(progress)
                self._commit_if_due()

    def _vectors(self, tiles: Sequence[NewTile]) -> dict[str, NDArray[Any]]:
        """The vectors of tiles by id, without those that the model refuses."""
        if not tiles:
            return {}
        try:
            vectors = self._gallery.encode([new.tile.pixels for new in tiles])
        except DataError as error:
            # The encoder does not say which image it refuses: encode them one at a time.
            if len(tiles) > 1:
                return {id: row for new in tiles for id, row in self._vectors([new]).items()}
            _refuse(tiles[0], str(error))
            return {}
        faults = self._gallery.metric.faults(vectors)
        for row, fault in faults.items():
            _refuse(tiles[row], f"the model's vector for it is not valid: {fault}")
        return {new.tile.id: vectors[i] for i, new in enumerate(tiles) if i not in faults}

    def _finish(self, progress: SourceProgress) -> None:
        """Count a source whose last item is done, and list its skipped parts."""
        self._left_out.update(progress.left_out)
        reasons = [] if progress.failure is None else [progress.failure]
        reasons += map(str, progress.refused.values())
        if progress.current:
            self._outcomes.append(self._outcome(progress))
            if progress.failure is None:  # after a failure, outdated tiles may still be right
                self._to_delete.extend(self._replaced(progress))
        elif not reasons:
            removed = progress.of_other_content
            self._to_delete.extend(removed)
            counts = ", ".join(f"{count} {reason}" for reason, count in progress.left_out.items())
            also = f"; its {len(removed)} old tiles are removed" if removed else ""
            reasons = [f"no tile of it is left: {counts}{also}"]
        self._skipped += [Skipped.of(progress.source, reason) for reason in reasons]
        while progress.done < progress.windows:
            self._advance_in(progress)
        self._commit_if_due()

    def _outcome(self, progress: SourceProgress) -> str:
        """The field of the report that counts a source with current tiles."""
        if not progress.encoded:
            # If there are outdated tiles but no new tiles, an earlier run was cut off.
            return "replaced" if progress.metadata_changed else "unchanged"
        return "replaced" if progress.failure is None and progress.outdated else "added"

    def _replaced(self, progress: SourceProgress) -> list[str]:
        """The ids of outdated tiles, except tiles in parts of the source that are now damaged."""
        outdated = progress.outdated
        if not progress.damaged:
            return outdated
        damaged = np.array(progress.damaged)
        return [
            record.id
            for start in range(0, len(outdated), COMMIT_TILES)
            for record, _ in get_existing(self._store, outdated[start : start + COMMIT_TILES])
            if not _overlaps(damaged, record.properties.get(WINDOW))
        ]

    def _commit_if_due(self) -> None:
        waiting = max(len(self._encoded) + len(self._to_update), len(self._outcomes))
        if waiting >= COMMIT_TILES or time.monotonic() - self._last_commit >= COMMIT_SECONDS:
            self._commit()

    def _advance_in(self, progress: SourceProgress) -> None:
        """Count one window of a source as done."""
        if not progress.done:
            self._total += progress.windows - 1
        progress.done += 1
        self._advance()

    def _advance(self) -> None:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _known_tiles(store: Store, sources: Collection[str]) -> dict[str, dict[str, KnownTile]]:
    """The tiles in the store of each source, by source and id."""
    known: dict[str, dict[str, KnownTile]] = {}
    if not sources:
        return known
    for state in store.states(sources):
        tile = KnownTile(
            (state.size, state.mtime_ns),
            state.content,
            WINDOW in state.properties,
            Metadata.of(state),
        )
        tiles = known.setdefault(state.source, {})
        # The thousands of tiles of a scene share one object, which saves most of the memory.
        previous = next(reversed(tiles.values()), tile)
        tiles[state.id] = previous if previous == tile else tile
    return known


def _leave_out(item: LeftOutWindow) -> None:
    """Count a window without a tile."""
    window, progress = item.window, item.progress
    progress.left_out[window.reason] += 1
    if window.reason == "damaged":
        progress.refuse(window.window, window.detail)
        progress.damaged.append(window.window)


def _refuse(new: NewTile, reason: str) -> None:
    """Record that the model refuses a tile."""
    if new.tile.window is None:
        new.progress.fail(reason)
    else:
        new.progress.refuse(new.tile.window, reason)


def _overlaps(windows: NDArray[np.int_], window: Sequence[int] | None) -> bool:
    """Whether any of `windows`, rows of (column, row, width, height), overlaps `window`.

    window: None for the whole image.
    """
    if window is None:
        return True
    start, size = np.array(window[:2]), np.array(window[2:])
    apart = (windows[:, :2] >= start + size) | (start >= windows[:, :2] + windows[:, 2:])
    return not bool(apart.any(axis=1).all())


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """The items in order, in batches with at most `size` new tiles."""
    batch: list[Item] = []
    tiles = 0
    for item in items:
        batch.append(item)
        tiles += isinstance(item, NewTile)
        if tiles in (0, size) or len(batch) == _ITEMS_PER_TILE * size:
            yield batch
            batch, tiles = [], 0
    if batch:
        yield batch
