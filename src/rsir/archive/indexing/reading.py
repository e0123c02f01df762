"""From sources to the tiles that have to be encoded: read ahead, in threads, in order.

A plain image is one tile; several are read at once. A scene is read window by window by one
thread. What the archive knows already, by size and time of change, is not read.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from rsir.errors import RsirError
from rsir.geo.footprint import Window
from rsir.images.read import read_tile
from rsir.scenes.chips import is_picture, usual_tiling
from rsir.scenes.tiling import Tiling
from rsir.sources.file_state import stamp
from rsir.sources.find import STAC_PROPERTIES, Source, Sources, is_remote, normal
from rsir.store.records.record import Record, State
from rsir.types import Tile

if TYPE_CHECKING:
    from rsir.scenes.tiles import SkippedTile

Stamp = tuple[int, int]
"""(bytes, nanoseconds since the epoch of the last change) of a source's files."""

_UNKNOWN: Stamp = (0, 0)

_SCENE_AHEAD = 16
"""Tiles of a scene that are read ahead, at most. Our choice: at 512² they take 12 MB."""

_NAMED = 3
"""Of windows that could not be taken for one reason so many are named. Our choice."""

_NUMBER = re.compile(r"\d+")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is said of a tile that its pixels do not say: `properties` are those of a STAC item."""

    datetime: datetime | None
    properties: Mapping[str, Any]

    @classmethod
    def of(cls, record: Record | State) -> Metadata:
        """What a record says."""
        said = record.properties
        return cls(record.datetime, {name: said[name] for name in STAC_PROPERTIES if name in said})

    def put(self, record: Record) -> Record:
        """The record, saying this."""
        others = {k: v for k, v in record.properties.items() if k not in STAC_PROPERTIES}
        return replace(record, datetime=self.datetime, properties=others | dict(self.properties))


@dataclass(frozen=True, slots=True)
class Known:
    """What the archive has of a tile: when it was read, and what it says; tiles may share it."""

    stamp: Stamp
    content: str
    tiled: bool
    metadata: Metadata


@dataclass(slots=True)
class Refused:
    """Windows that could not be taken, for reasons that differ in numbers at most.

    reason: that of the first. windows: the first _NAMED of them.
    """

    reason: str
    count: int = 0
    windows: list[Window] = field(default_factory=list)

    def __str__(self) -> str:
        named = ", ".join(str(list(window)) for window in self.windows)
        more = ", …" if self.count > len(self.windows) else ""
        what = "window" if self.count == 1 else f"{self.count} windows,"
        return f"{what} {named}{more}: {self.reason}"


@dataclass(slots=True)
class Progress:
    """How one source fares in this run.

    known: what the archive had of it, by id. stamp, content: of its files now; "" of what is not
    read. metadata: what is said of it now, if its records may say otherwise. kept: ids that the
    archive has still, or again. new: tiles that were encoded. restated: whether records are
    written anew for their metadata. left_out: windows, by reason. refused: those that could not be
    taken, by their reason without its numbers. damaged: those of them that cannot be read.
    failed: why all of it, or what had not come out by then, could not be taken. windows: of how
    many it consists; done: how many came out.
    """

    source: str
    known: Mapping[str, Known]
    stamp: Stamp = _UNKNOWN
    content: str = ""
    metadata: Metadata | None = None
    kept: set[str] = field(default_factory=set)
    new: int = 0
    restated: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Refused] = field(default_factory=dict)
    damaged: list[Window] = field(default_factory=list)
    failed: str | None = None
    windows: int = 1
    done: int = 0

    @property
    def stale(self) -> list[str]:
        """The ids of what is no longer so."""
        return [id for id in self.known if id not in self.kept]

    @property
    def replaced(self) -> list[str]:
        """The ids of what the source held before its content changed."""
        return [id for id, known in self.known.items() if self.content not in ("", known.content)]

    def fail(self, reason: str) -> None:
        """Take down why the source could not be taken."""
        self.failed = self._without_name(reason)

    def refuse(self, window: Window, reason: str) -> None:
        """Take down why a window could not be taken."""
        reason = self._without_name(reason).removeprefix(f"window {window} ")
        refused = self.refused.setdefault(_NUMBER.sub("0", reason), Refused(reason))
        refused.count += 1
        if len(refused.windows) < _NAMED:
            refused.windows.append(window)

    def _without_name(self, reason: str) -> str:
        return reason.removeprefix(f"{self.source}: ")


@dataclass(frozen=True, slots=True)
class Read:
    """A tile to be encoded."""

    tile: Tile
    record: Record
    progress: Progress


@dataclass(frozen=True, slots=True)
class Same:
    """A tile that the archive has; current: whether its record, too, is as it would be now."""

    id: str
    current: bool
    progress: Progress


@dataclass(frozen=True, slots=True)
class Left:
    """A window of which there is no tile."""

    window: SkippedTile
    progress: Progress


@dataclass(frozen=True, slots=True)
class End:
    """All of a source has come out."""

    progress: Progress


Item = Read | Same | Left | End


class Reader:
    """Reads sources for an archive of some bands.

    known: what the archive has of each source, by id. tiling: how scenes are cut; None: as
    `rsir.scenes.chips.usual_tiling` says. check: raises DataError for a tile that is not for this
    archive.
    """

    def __init__(
        self,
        sources: Sources,
        roots: Sequence[str | os.PathLike[str]],
        known: Mapping[str, Mapping[str, Known]],
        *,
        bands: tuple[str, ...],
        tiling: Tiling | None,
        check: Callable[[Tile], None],
    ) -> None:
        self._sources = sources.sources
        self._folders = [
            PurePosixPath(root)
            for root in map(normal, roots)
            if not is_remote(root) and Path(root).is_dir()
        ]
        self._known = known
        self._bands = bands
        self._tiling = tiling
        self._check = check

    def items(self, workers: int, ahead: int) -> Generator[Item]:
        """What comes out of the sources, in order; at most `ahead` tiles are held in memory."""
        pool = ThreadPoolExecutor(workers, thread_name_prefix="rsir-read")
        waiting: deque[tuple[Progress, Future[Tile]]] = deque()
        try:
            for source in self._sources:
                progress = Progress(source.uri, self._known.get(source.uri, {}))
                try:
                    whole = self._is_whole(source, progress)
                except RsirError as error:
                    progress.fail(str(error))
                    yield End(progress)
                    continue
                if whole and self._is_current(progress):
                    yield End(progress)
                elif whole:
                    waiting.append((progress, pool.submit(read_tile, source.uri)))
                else:
                    while waiting:
                        yield from self._taken(*waiting.popleft())
                    yield from _ahead(self._scene(source, progress), min(ahead, _SCENE_AHEAD))
                if len(waiting) >= ahead:
                    yield from self._taken(*waiting.popleft())
            while waiting:
                yield from self._taken(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _is_whole(self, source: Source, progress: Progress) -> bool:
        """Whether the source is one tile; that of what is known and not tiled anew is known.

        Errors: ImageError for a file that is gone; those of `rsir.scenes.chips.is_picture`.
        """
        own = [asset.uri for asset in source.assets] == [source.uri]
        if own and not is_remote(source.uri):
            progress.stamp = stamp(source.uri)
        if self._tiling is None and self._same_whole(progress):
            return True
        return is_picture(source, self._tiling)

    def _same_whole(self, progress: Progress) -> list[str]:
        """The ids under which the archive has the source, as it is now, in one tile."""
        now = progress.stamp
        if now == _UNKNOWN:
            return []
        return [
            id for id, known in progress.known.items() if known.stamp == now and not known.tiled
        ]

    def _is_current(self, progress: Progress) -> bool:
        """Whether nothing has to be read, for the file is known as it is."""
        # Others were left by a run that was cut off between the two steps of a commit.
        progress.kept.update(self._same_whole(progress))
        return bool(progress.kept)

    def _taken(self, progress: Progress, future: Future[Tile]) -> Iterator[Item]:
        try:
            tile = future.result()
            self._check(tile)
        except RsirError as error:
            progress.fail(str(error))
        else:
            if tile.id in progress.known:
                yield Same(tile.id, False, progress)
            else:
                yield Read(tile, self._record(tile, progress), progress)
        yield End(progress)

    def _scene(self, source: Source, progress: Progress) -> Iterator[Item]:
        """The tiles of a scene; an error ends it, and what came out before stays."""
        from rsir.scenes.scene import Scene
        from rsir.scenes.tiles import tiles
        from rsir.scenes.tiling import grid

        known = progress.known
        try:
            with Scene.open(source, self._wanted) as scene:
                tiling = self._tiling or usual_tiling(scene)
                progress.stamp = scene.stamp
                same = [tile for tile in known.values() if tile.stamp == progress.stamp]
                if same and all(progress.stamp):
                    scene.trust(same[0].content)
                progress.content = scene.content
                progress.metadata = Metadata(scene.datetime, source.properties)
                progress.windows = len(grid(scene, tiling))
                for one in tiles(scene, tiling, known=known.__contains__):
                    if isinstance(one, Tile):
                        self._check(one)
                        yield Read(one, self._record(one, progress), progress)
                    elif one.reason == "known":
                        restated = known[one.id].metadata != progress.metadata
                        progress.restated |= restated
                        touched = known[one.id].stamp != progress.stamp
                        yield Same(one.id, not (touched or restated), progress)
                    else:
                        yield Left(one, progress)
        except (RsirError, OSError) as error:  # OSError: a folder that may not be looked into
            progress.fail(str(error))
        yield End(progress)

    @property
    def _wanted(self) -> tuple[str, ...] | None:
        """What to read of a scene, as `Scene.open` takes it.

        Bands that were asked for by number or by the file's own names stand for the model's, one
        by one. If none were, red, green and blue are left to `Scene.open`, for a grey scene may
        stand for them.
        """
        asked = self._tiling.bands if self._tiling else None
        if asked is None:
            return None if self._bands == ("red", "green", "blue") else self._bands
        if len(asked) != len(self._bands):
            return asked
        return tuple(
            band if "=" in band or band.lower() in self._bands else f"{name}={band}"
            for name, band in zip(self._bands, asked, strict=True)
        )

    def _record(self, tile: Tile, progress: Progress) -> Record:
        size, changed = progress.stamp
        place = PurePosixPath(tile.source)
        properties = {
            "folder": place.parent.name,
            "width": tile.pixels.shape[2],
            "height": tile.pixels.shape[1],
        }
        for folder in self._folders:
            if place.is_relative_to(folder) and len(place.relative_to(folder).parts) > 1:
                properties["class"] = place.relative_to(folder).parts[0]
        properties |= tile.properties
        if tile.window is not None:
            properties["window"] = list(tile.window)
        if tile.window is not None or tile.crs is not None:
            properties["crs"] = tile.crs
        return Record(
            id=tile.id,
            source=tile.source,
            content=tile.content,
            size=size,
            mtime_ns=changed,
            footprint=tile.footprint,
            datetime=tile.datetime,
            properties=properties,
        )


def _ahead(items: Iterable[T], count: int) -> Generator[T]:
    """The same items, made by a thread that is at most `count` of them ahead."""
    # An item in a tuple of one; an error; None at the end.
    made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(count)
    left = threading.Event()

    def put(value: tuple[T] | BaseException | None) -> None:
        while not left.is_set():
            try:
                made.put(value, timeout=0.1)
            except queue.Full:
                continue
            return

    def make() -> None:
        try:
            for item in items:
                put((item,))
                if left.is_set():
                    return
        except BaseException as error:  # raised again where the items are taken
            put(error)
        else:
            put(None)

    thread = threading.Thread(target=make, name="rsir-scene", daemon=True)
    thread.start()
    try:
        while (value := made.get()) is not None:
            if isinstance(value, BaseException):
                raise value
            yield value[0]
    finally:
        left.set()
        thread.join()
