"""Read sources ahead, in threads, and yield their tiles in order.

A picture is one tile; several pictures are read at once. One thread reads a scene window by window.
Files are not read if the archive has their current size and time of change.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from rsir.archive.indexing.progress import UNKNOWN_STAMP, KnownTile, Metadata, SourceProgress
from rsir.archive.indexing.read_ahead import read_ahead
from rsir.data.folder import class_level
from rsir.errors import DataError, RsirError
from rsir.images.read import read_tile
from rsir.scenes.chips import is_picture, usual_tiling
from rsir.scenes.tiling import Tiling
from rsir.sources.file_state import stamp
from rsir.sources.find import Sources
from rsir.sources.gate import guarded
from rsir.sources.source import Source, is_remote, normal
from rsir.store.records.record import Record
from rsir.types import Tile

if TYPE_CHECKING:
    from rsir.scenes.tiles import SkippedTile

_SCENE_AHEAD = 16
"""Maximum tiles of a scene that are read ahead. Our choice: at 512² they take 12 MB."""


@dataclass(frozen=True, slots=True)
class NewTile:
    """A tile to encode."""

    tile: Tile
    record: Record
    progress: SourceProgress


@dataclass(frozen=True, slots=True)
class UnchangedTile:
    """A tile that is in the archive already. is_current: whether its record is also up to date."""

    id: str
    is_current: bool
    progress: SourceProgress


@dataclass(frozen=True, slots=True)
class LeftOutWindow:
    """A window without a tile."""

    window: SkippedTile
    progress: SourceProgress


@dataclass(frozen=True, slots=True)
class EndOfSource:
    """The source has no more items."""

    progress: SourceProgress


Item = NewTile | UnchangedTile | LeftOutWindow | EndOfSource


class Reader:
    """Reads the sources of one run.

    roots: the paths that the user gave. known: the archive's tiles of each source, by id. bands: of
    the archive. tiling: how to cut scenes; None: `rsir.scenes.chips.usual_tiling` decides. check:
    raises DataError for a tile that does not fit the archive.
    """

    def __init__(
        self,
        sources: Sources,
        roots: Sequence[str | os.PathLike[str]],
        known: Mapping[str, Mapping[str, KnownTile]],
        *,
        bands: tuple[str, ...],
        tiling: Tiling | None,
        check: Callable[[Tile], None],
    ) -> None:
        self._sources = sources.sources
        self._folders = [
            _class_folder(PurePosixPath(root), sources)
            for root in map(normal, roots)
            if not is_remote(root) and Path(root).is_dir()
        ]
        self._known = known
        self._bands = bands
        self._tiling = tiling
        self._check = check

    def items(self, workers: int, ahead: int) -> Generator[Item]:
        """The items of all sources, in order; at most `ahead` tiles are in memory."""
        pool = ThreadPoolExecutor(workers, thread_name_prefix="rsir-read")
        waiting: deque[tuple[SourceProgress, Future[Tile]]] = deque()
        try:
            for source in self._sources:
                progress = SourceProgress(source.uri, self._known.get(source.uri, {}))
                try:
                    with guarded(source.uri):
                        is_one_tile = self._is_one_tile(source, progress)
                except RsirError as error:
                    progress.fail(str(error))
                    yield EndOfSource(progress)
                    continue
                if is_one_tile and self._is_current(progress):
                    yield EndOfSource(progress)
                elif is_one_tile:
                    waiting.append((progress, pool.submit(read_tile, source.uri)))
                else:
                    while waiting:
                        yield from self._picture(*waiting.popleft())
                    scene = self._scene(source, progress)
                    yield from read_ahead(scene, min(ahead, _SCENE_AHEAD))
                if len(waiting) >= ahead:
                    yield from self._picture(*waiting.popleft())
            while waiting:
                yield from self._picture(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _is_one_tile(self, source: Source, progress: SourceProgress) -> bool:
        """Whether the source is one tile; without a tiling, the archive may know this already.

        Errors: ImageError for a file that does not exist; those of `rsir.scenes.chips.is_picture`.
        """
        is_file = [asset.uri for asset in source.assets] == [source.uri]
        if is_file and not is_remote(source.uri):
            progress.stamp = stamp(source.uri)
        if self._tiling is None and self._known_whole(progress):
            return True
        return is_picture(source, self._tiling)

    def _known_whole(self, progress: SourceProgress) -> list[str]:
        """The ids of the archive's tiles that show the whole source with its current stamp."""
        if progress.stamp == UNKNOWN_STAMP:
            return []
        return [
            id
            for id, tile in progress.known.items()
            if tile.stamp == progress.stamp and not tile.is_window
        ]

    def _is_current(self, progress: SourceProgress) -> bool:
        """Whether the archive has the file in its current state, so that it need not be read."""
        # There are several ids if a run was cut off between the two steps of a commit.
        progress.current.update(self._known_whole(progress))
        return bool(progress.current)

    def _picture(self, progress: SourceProgress, future: Future[Tile]) -> Iterator[Item]:
        try:
            with guarded(progress.source):
                tile = future.result()
            self._check(tile)
        except RsirError as error:
            progress.fail(str(error))
        else:
            if tile.id in progress.known:
                yield UnchangedTile(tile.id, False, progress)
            else:
                yield NewTile(tile, self._record(tile, progress), progress)
        yield EndOfSource(progress)

    def _scene(self, source: Source, progress: SourceProgress) -> Iterator[Item]:
        """The tiles of a scene; any error ends the scene only, and its earlier tiles stay."""
        from rsir.scenes.scene import Scene
        from rsir.scenes.tiles import tiles
        from rsir.scenes.tiling import grid

        known = progress.known
        try:
            with guarded(source.uri), Scene.open(source, self._scene_bands) as scene:
                tiling = self._tiling or usual_tiling(scene)
                progress.stamp = scene.stamp
                same = [tile for tile in known.values() if tile.stamp == progress.stamp]
                if same and all(progress.stamp):
                    scene.trust(same[0].content)
                progress.content = scene.content
                progress.metadata = Metadata(scene.datetime, source.properties)
                progress.windows = len(grid(scene, tiling))
                for tile in tiles(scene, tiling, known=known.__contains__):
                    if isinstance(tile, Tile):
                        self._check(tile)
                        yield NewTile(tile, self._record(tile, progress), progress)
                    elif tile.reason == "known":
                        has_new_metadata = known[tile.id].metadata != progress.metadata
                        progress.metadata_changed |= has_new_metadata
                        has_new_stamp = known[tile.id].stamp != progress.stamp
                        is_current = not (has_new_stamp or has_new_metadata)
                        yield UnchangedTile(tile.id, is_current, progress)
                    else:
                        yield LeftOutWindow(tile, progress)
        except RsirError as error:
            progress.fail(str(error))
        yield EndOfSource(progress)

    @property
    def _scene_bands(self) -> tuple[str, ...] | None:
        """The bands to read of a scene, as `Scene.open` takes them.

        If the tiling names bands by number or by the names in the file, they are the model's bands,
        in order. Without bands in the tiling, None lets `Scene.open` choose red, green and blue,
        because only then it also reads a grey scene as these.
        """
        bands = self._tiling.bands if self._tiling else None
        if bands is None:
            return None if self._bands == ("red", "green", "blue") else self._bands
        if len(bands) != len(self._bands):
            return bands
        return tuple(
            band if "=" in band or band.lower() in self._bands else f"{name}={band}"
            for name, band in zip(self._bands, bands, strict=True)
        )

    def _record(self, tile: Tile, progress: SourceProgress) -> Record:
        size, mtime_ns = progress.stamp
        path = PurePosixPath(tile.source)
        properties = {
            "folder": path.parent.name,
            "width": tile.pixels.shape[2],
            "height": tile.pixels.shape[1],
        }
        for folder in self._folders:
            if path.is_relative_to(folder) and len(path.relative_to(folder).parts) > 1:
                properties["class"] = path.relative_to(folder).parts[0]
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
            mtime_ns=mtime_ns,
            footprint=tile.footprint,
            datetime=tile.datetime,
            properties=properties,
        )


def _class_folder(root: PurePosixPath, sources: Sources) -> PurePosixPath:
    """The folder below `root` whose subfolders are the classes, as `rsir.data.folder.load` has it.

    `root` itself if there is none, or if several folders hold class folders.
    """
    paths = [PurePosixPath(source.uri) for source in sources.sources]
    try:
        level = class_level(
            str(root), [str(path.relative_to(root)) for path in paths if path.is_relative_to(root)]
        )
    except DataError:
        return root
    return root / (level or "")
