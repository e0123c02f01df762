"""From sources to the tiles that have to be encoded: read ahead, in threads, in order.

A plain image is one tile; several are read at once. A scene is read window by window by one
thread. What the archive knows already, by size and time of change, is not read.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from rsir.archive.store import Record
from rsir.data.images import read_tile
from rsir.errors import RsirError
from rsir.geo.sources import Source, Sources, is_remote, normal
from rsir.geo.tiling import Tiling
from rsir.types import Tile

Stamp = tuple[int, int]
"""(bytes, nanoseconds since the epoch of the last change) of a source's files."""

_SCENE_AHEAD = 16
"""Tiles of a scene that are read ahead, at most. Our choice: at 512² they take 12 MB."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known:
    """What the archive has of a source: one tile of it, and when it was read."""

    id: str
    stamp: Stamp
    content: str
    tiled: bool


@dataclass(slots=True)
class Progress:
    """How one source fares in this run.

    known: what the archive had of it. kept: ids that it has still, or again. new: tiles that were
    encoded. skipped: windows that were left out, by reason. faults: what could not be taken, and
    why. windows: of how many it consists; done: how many of them came out.
    """

    source: str
    known: Sequence[Known]
    stamp: Stamp = (0, 0)
    kept: set[str] = field(default_factory=set)
    new: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)
    windows: int = 1
    done: int = 0

    @property
    def stale(self) -> list[str]:
        """The ids of what is no longer so."""
        return [known.id for known in self.known if known.id not in self.kept]

    def fault(self, what: str, reason: str) -> None:
        """Take down what could not be taken."""
        self.faults.append((what, reason.removeprefix(f"{self.source}: ")))


@dataclass(frozen=True, slots=True)
class Read:
    """A tile to be encoded."""

    tile: Tile
    record: Record
    progress: Progress


@dataclass(frozen=True, slots=True)
class Same:
    """A tile that the archive has, of a source whose stamp is new."""

    id: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class Passed:
    """A window of which nothing has to be done."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class End:
    """All of a source has come out."""

    progress: Progress


Item = Read | Same | Passed | End


class Reader:
    """Reads sources for an archive of some bands.

    known: what the archive has of each source. tiling: how scenes are cut; None: as
    `rsir.geo.tiles.usual_tiling` says. check: raises DataError for a tile that is not for this
    archive.
    """

    def __init__(
        self,
        sources: Sources,
        roots: Sequence[str | os.PathLike[str]],
        known: Mapping[str, Sequence[Known]],
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
        with ThreadPoolExecutor(workers, thread_name_prefix="rsir-read") as pool:
            waiting: deque[tuple[Progress, Future[Tile]]] = deque()
            try:
                for source in self._sources:
                    progress = Progress(source.uri, self._known.get(source.uri, ()))
                    try:
                        whole = self._is_whole(source, progress)
                    except RsirError as error:
                        progress.fault(source.uri, str(error))
                        yield End(progress)
                        continue
                    if whole and self._is_current(source, progress):
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
        """Whether the source is one tile; that of what is known and not tiled anew is known."""
        if not is_remote(source.uri):
            try:
                stat = Path(source.uri).stat()
            except OSError as error:
                if [asset.uri for asset in source.assets] == [source.uri]:
                    progress.fault(source.uri, f"cannot be read ({error.strerror})")
                    progress.stamp = (-1, -1)
                    return True
            else:
                progress.stamp = (stat.st_size, stat.st_mtime_ns)
        if self._tiling is not None:
            from rsir.geo.tiles import is_chip

            return is_chip(source, self._tiling)
        if any(k.stamp == progress.stamp and not k.tiled for k in progress.known):
            return True
        from rsir.geo.tiles import is_whole

        return is_whole(source)

    def _is_current(self, source: Source, progress: Progress) -> bool:
        """Whether nothing has to be read: the file is known as it is, or cannot be read at all."""
        if progress.faults:
            return True
        current = [k for k in progress.known if k.stamp == progress.stamp and not k.tiled]
        # Others were left by a run that was cut off between the two steps of a commit.
        progress.kept.update(k.id for k in current)
        return bool(current)

    def _taken(self, progress: Progress, future: Future[Tile]) -> Iterator[Item]:
        try:
            tile = future.result()
            self._check(tile)
        except RsirError as error:
            progress.fault(progress.source, str(error))
        else:
            if any(known.id == tile.id for known in progress.known):
                progress.kept.add(tile.id)
                yield Same(tile.id, progress)
            else:
                yield Read(tile, self._record(tile, progress), progress)
        yield End(progress)

    def _scene(self, source: Source, progress: Progress) -> Iterator[Item]:
        """The tiles of a scene; errors are faults of it, and what came out before stays."""
        from rsir.geo.scene import Scene
        from rsir.geo.tiles import tiles, usual_tiling
        from rsir.geo.tiling import grid

        try:
            with Scene.open(source, self._wanted) as scene:
                tiling = self._tiling or usual_tiling(scene)
                progress.stamp = scene.stamp
                same = [known for known in progress.known if known.stamp == scene.stamp]
                if same and all(scene.stamp):
                    scene.trust(same[0].content)
                progress.windows = len(grid(scene, tiling))
                known = {k.id: k for k in progress.known}
                for one in tiles(scene, tiling, known=known.__contains__):
                    if isinstance(one, Tile):
                        self._check(one)
                        yield Read(one, self._record(one, progress), progress)
                    elif one.reason == "known":
                        progress.kept.add(one.id)
                        is_same = known[one.id].stamp == progress.stamp
                        yield Passed(progress) if is_same else Same(one.id, progress)
                    else:
                        progress.skipped[one.reason] = progress.skipped.get(one.reason, 0) + 1
                        if one.reason == "damaged":
                            progress.fault(f"{source.uri} {list(one.window)}", one.detail)
                        yield Passed(progress)
        except RsirError as error:
            progress.fault(source.uri, str(error))
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
