"""One run over sources: it reads, encodes and stores what is new or changed."""

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

from rsir.archive.folder.encoder import default_batch_size
from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.folder.manifest import LAST_INDEX
from rsir.archive.indexing.reading import (
    End,
    Item,
    Known,
    Left,
    Metadata,
    Progress,
    Read,
    Reader,
    Same,
)
from rsir.archive.search.gallery import Gallery
from rsir.atomic import write_json
from rsir.errors import ArchiveError, DataError, UsageError
from rsir.ranking import metric_named
from rsir.scenes.tiling import Tiling
from rsir.sources.find import Sources, find_sources
from rsir.store.base import COMMIT_TILES, Store
from rsir.store.records.record import Record
from rsir.store.records.summary import WINDOW

COMMIT_SECONDS = 30.0
"""A run commits after `COMMIT_TILES` tiles or so many seconds, whichever comes first; a crash loses
at most what it has encoded since. Our choice."""

_BATCH_ITEMS = 8
"""Of those that need no encoding a batch has at most so many times its size. Our choice."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, folder or scene that was not added, or of which some windows were not, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What one `Archive.add` did, in files and scenes.

    added: new. replaced: content changed, cut anew, or described anew by its STAC item (then
    nothing is encoded). unchanged: known already (also if only its time of change is new).
    skipped: could not be added; what the archive had of them it keeps, but of a scene that has
    changed, can be read, and has no tile left, all of it nodata or cloud, the old tiles go.
    Of scenes that were added, windows that are damaged or that the model cannot take are listed
    too, in one line for each scene and reason, with their number and the first of them; where one
    is damaged, what the archive had of that place stays.
    masks: files that are masks of scenes, and of which (`rsir.sources.masks`, and
    `rsir.scenes.tiling.Tiling.cloud_mask`). ignored: other files in the folders, by lower-case
    suffix. tiles: that were encoded, of all of them. left_out: windows of scenes that were not, by
    reason: "nodata", "cloud", "damaged". seconds: duration.
    complete: False, in last-index.json, of a run that was interrupted.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: tuple[Skipped, ...] = ()
    masks: tuple[Skipped, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    tiles: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def index(
    gallery: Gallery,
    paths: str | Path | Sequence[str | Path],
    *,
    tiling: Tiling | None = None,
    shard: tuple[int, int] | None = None,
    batch_size: int | None = None,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Encode the images in `paths` and store them; see `rsir.archive.Archive.add`."""
    if workers < 1 or (batch_size is not None and batch_size < 1):
        raise UsageError("batch_size and workers must be at least 1")
    tiling = with_model_gsd(tiling, gallery)
    start = time.monotonic()
    roots = [paths] if isinstance(paths, str | Path) else list(paths)
    sources = find_sources(roots, exclude=gallery.path)
    sources = sources.without_masks(None if tiling is None else tiling.cloud_mask)
    if shard is not None:
        sources = sources.shard(*shard)
    with translate_store_errors(gallery.path):
        # A run that is killed leaves this report; and a read-only archive fails before any work.
        write_json(gallery.path / LAST_INDEX, IndexReport(complete=False).to_dict())
    indexing = Indexing(gallery, sources, roots, tiling=tiling, on_progress=on_progress)
    complete = False
    try:
        indexing.run(batch_size or default_batch_size(gallery.encoder), workers)
        complete = True
    finally:
        # After Ctrl-C and after an error of the encoder, too: keep what is encoded.
        indexing.commit()
        report = indexing.report(time.monotonic() - start, complete)
        with translate_store_errors(gallery.path):
            write_json(gallery.path / LAST_INDEX, report.to_dict())
    return report


def with_model_gsd(tiling: Tiling | None, gallery: Gallery) -> Tiling | None:
    """The tiling, with the model's ground sampling distance where it is "model"."""
    if tiling is None or tiling.gsd != "model":
        return tiling
    return tiling.told(getattr(gallery.encoder, "gsd", None))


class Indexing:
    """One run of `Archive.add`: what is known, what waits for a commit, what was done.

    gallery: the archive's store and model. roots: the paths that the user gave. tiling: as of
    `rsir.archive.indexing.reading.Reader`. on_progress: called with (done, in all), in files and
    tiles of scenes.
    """

    def __init__(
        self,
        gallery: Gallery,
        sources: Sources,
        roots: Sequence[str | os.PathLike[str]],
        *,
        tiling: Tiling | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._store = gallery.store
        self._path = gallery.path
        self._encode = gallery.encode
        self._ignored = sources.ignored
        self._masks = [_skipped(mask.uri, mask.reason) for mask in sources.masks]
        self._on_progress = on_progress
        self._done, self._total = 0, len(sources.sources) + len(sources.unusable)
        self._counts: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._tiles = 0
        self._skipped: list[Skipped] = []
        self._encoded: list[tuple[Record, NDArray[Any]]] = []
        self._touched: dict[str, Progress] = {}
        self._stale: list[str] = []
        self._outcomes: list[str] = []
        self._committed = time.monotonic()
        with translate_store_errors(self._path):
            known = _known(self._store, {source.uri for source in sources.sources})
        self._reader = Reader(
            sources, roots, known, bands=gallery.bands, tiling=tiling, check=gallery.check_bands
        )
        for unusable in sources.unusable:
            self._skipped.append(_skipped(unusable.uri, unusable.reason))
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
            masks=tuple(sorted(self._masks, key=lambda mask: mask.path)),
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
        with translate_store_errors(self._path):
            rows = list(self._encoded)
            for record, row in self._still_there(list(self._touched)):
                progress = self._touched[record.id]
                said = record if progress.metadata is None else progress.metadata.put(record)
                size, changed = progress.stamp
                rows.append((replace(said, size=size, mtime_ns=changed), row))
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
                progress.kept.add(item.id)
                if not item.current:
                    self._touched[item.id] = progress
            else:
                self._leave_out(item)
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
            _refuse(reads[0], str(error))
            return {}
        faults = metric_named(self._store.metric).faults(vectors)
        for place, fault in faults.items():
            _refuse(reads[place], f"the model cannot describe it: {fault}")
        return {read.tile.id: vectors[i] for i, read in enumerate(reads) if i not in faults}

    def _leave_out(self, left: Left) -> None:
        """Take down a window of which there is no tile."""
        left.progress.left_out[left.window.reason] += 1
        if left.window.reason == "damaged":
            left.progress.refuse(left.window.window, left.window.detail)
            left.progress.damaged.append(left.window.window)

    def _end(self, progress: Progress) -> None:
        """Take down how a source fared."""
        self._left_out.update(progress.left_out)
        reasons = [] if progress.failed is None else [progress.failed]
        reasons += map(str, progress.refused.values())
        if progress.kept:
            whole = progress.failed is None
            if whole:  # else some of it may still be as it was
                self._stale.extend(self._outdated(progress))
            # Without new tiles stale ones are what a run that was cut off has left: no news.
            changed = "replaced" if whole and progress.stale else "added"
            said = "replaced" if progress.restated else "unchanged"
            self._outcomes.append(changed if progress.new else said)
        elif not reasons:
            gone = progress.replaced
            self._stale.extend(gone)
            why = ", ".join(f"{count} {reason}" for reason, count in progress.left_out.items())
            also = f"; what it held before is removed, {len(gone)} in all" if gone else ""
            reasons = [f"no tile of it is left: {why}{also}"]
        self._skipped += [_skipped(progress.source, reason) for reason in reasons]
        while progress.done < progress.windows:
            self._tick(progress)
        self._commit_if_due()

    def _outdated(self, progress: Progress) -> list[str]:
        """The ids of what is no longer so, but for what was where the source is damaged now."""
        stale = progress.stale
        if not progress.damaged:
            return stale
        damaged = np.array(progress.damaged)
        return [
            record.id
            for start in range(0, len(stale), COMMIT_TILES)
            for record, _ in self._still_there(stale[start : start + COMMIT_TILES])
            if not _overlaps(damaged, record.properties.get("window"))
        ]

    def _commit_if_due(self) -> None:
        waiting = len(self._encoded) + len(self._touched)
        due = time.monotonic() - self._committed >= COMMIT_SECONDS
        if max(waiting, len(self._outcomes)) >= COMMIT_TILES or due:
            self.commit()

    def _tick(self, progress: Progress) -> None:
        if not progress.done:
            self._total += progress.windows - 1
        progress.done += 1
        self._progress()

    def _progress(self) -> None:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _known(store: Store, names: Collection[str]) -> dict[str, dict[str, Known]]:
    """What the store has of the sources called `names`, by source and id."""
    known: dict[str, dict[str, Known]] = {}
    if not names:
        return known
    for state in store.states(names):
        one = Known(
            (state.size, state.mtime_ns),
            state.content,
            WINDOW in state.properties,
            Metadata.of(state),
        )
        tiles = known.setdefault(state.source, {})
        # Thousands of tiles of a scene share them, and most of the memory goes to them.
        like = next(reversed(tiles.values()), one)
        tiles[state.id] = like if like == one else one
    return known


def _refuse(read: Read, reason: str) -> None:
    """Take down that the model cannot take a tile."""
    if read.tile.window is None:
        read.progress.fail(reason)
    else:
        read.progress.refuse(read.tile.window, reason)


def _overlaps(windows: NDArray[np.int_], window: Sequence[int] | None) -> bool:
    """Whether one of some windows, rows of (column, row, width, height), meets another.

    None: the other is the whole image.
    """
    if window is None:
        return True
    start, size = np.array(window[:2]), np.array(window[2:])
    apart = (windows[:, :2] >= start + size) | (start >= windows[:, :2] + windows[:, 2:])
    return not bool(apart.any(axis=1).all())


def _skipped(path: str, reason: str) -> Skipped:
    path, reason = _printable(path), _printable(reason)
    return Skipped(path, reason.removeprefix(f"{path}: "))


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
