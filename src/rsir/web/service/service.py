"""The archives of a service and its operations on them; REST and page share this object.

Archives block (disk, CPU), so their calls run in a few threads with short queues: one image is
encoded at a time, a few searches by vector run at once, and pictures have threads of their own.
Calls beyond the queues raise OverloadedError.
"""

from __future__ import annotations

import io
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from rsir.archive.search.query import ByFile, ById, Examples, Query, QueryLike, as_query
from rsir.archive.search.query_vectors import file_pixels
from rsir.errors import DataError, ImageError, UsageError
from rsir.scenes.bands import RGB
from rsir.scenes.datasets import open_dataset
from rsir.store.filters.filter import Filter
from rsir.store.filters.sql import sql_text
from rsir.web.problems import ForbiddenError, GoneError, NotFoundError, TooLargeError
from rsir.web.prometheus import Metrics
from rsir.web.service.additions import Additions
from rsir.web.service.pool import BoundedPool
from rsir.web.service.scenes import Scenes, SceneStyle
from rsir.web.service.settings import ServiceSettings

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.archive.search.hits import Hits
    from rsir.store.records.record import Record

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("rsir.web")

THUMBNAIL_SIDES = (16, 1024)
"""Least and most pixels of a thumbnail's longer side."""
_QUALITY = 85  # of JPEG, as in rsir.archive.pictures.cards


class Service:
    """Open archives by name, and their settings.

    archives: name → Archive. scenes: name → the archive's sources by id; its methods block, so
    call them by `run`. metrics: for Prometheus. unready: name → reason, of the archives that are
    not ready. The coroutines belong to one event loop.
    """

    def __init__(
        self, archives: Mapping[str, Archive], settings: ServiceSettings | None = None
    ) -> None:
        self.archives = dict(archives)
        self.settings = settings or ServiceSettings()
        s = self.settings
        self.encoding = BoundedPool("encoding", 1, s.waiting, s.patience)
        self.searching = BoundedPool("searching", s.searches, s.waiting, s.patience)
        self.pictures = BoundedPool("pictures", 2, 4 * s.waiting, s.patience)
        self.unready = dict.fromkeys(self.archives, "is being opened")
        self.metrics = Metrics()
        for pool in (self.encoding, self.searching, self.pictures):
            self.metrics.inside.labels(pool.name).set_function(partial(getattr, pool, "inside"))
        for name in self.archives:
            self.metrics.ready.labels(name).set_function(partial(self.is_ready, name))
        self._thumbnails: LRUCache[tuple[str, str, int], bytes] = LRUCache(
            s.thumbnail_bytes, getsizeof=len
        )
        self.additions = Additions(s)
        self.scenes = {name: Scenes(archive) for name, archive in self.archives.items()}
        self._lock = threading.Lock()

    def archive(self, name: str) -> Archive:
        """The archive of that name; NotFoundError if there is none."""
        try:
            return self.archives[name]
        except KeyError:
            raise NotFoundError(
                f"there is no archive {name!r} here, but {', '.join(sorted(self.archives))}"
            ) from None

    def is_ready(self, name: str) -> bool:
        """Whether the model and the vectors of an archive are loaded."""
        return name not in self.unready

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function that encodes nothing (records, counts …) in a search thread."""
        return await self.searching.run(function, *args, **kwargs)

    async def search(
        self,
        name: str,
        query: QueryLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        ranking: str | None = None,
        diverse: bool = False,
        min_percentile: float | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> Hits:
        """Search an archive as `Archive.search`, in a thread.

        offset, limit: the hits whose records the thread reads; reading other hits blocks the
        caller. query: as in `Archive.search`, but no file name, because that would name a file
        of the service's machine; images come from `read`.

        Raises what `Archive.search` does; NotFoundError for an unknown archive, UsageError for
        more than the settings allow, ForbiddenError for a window of a source on another machine.
        """
        archive = self.archive(name)
        if not 1 <= k <= self.settings.max_hits:
            raise UsageError(f"on this service k is 1 to {self.settings.max_hits}, not {k}")
        if diverse and k > self.settings.max_diverse:
            raise UsageError(
                f"on this service k is at most {self.settings.max_diverse} if diverse, not {k}"
            )
        parsed = as_query(query)
        self._check_query(parsed)
        pool = self.encoding if parsed.holds_image else self.searching
        start = time.monotonic()

        def searched() -> Hits:
            for source in parsed.sources:
                self.check_source(source)
            hits = archive.search(
                query,
                k,
                filter=filter,
                ranking=ranking,
                diverse=diverse,
                min_percentile=min_percentile,
            )
            _ = hits[offset : None if limit is None else offset + limit]
            return hits

        hits = await pool.run(searched)
        seconds = time.monotonic() - start
        self.metrics.searched(name, pool.name, seconds)
        log.info(
            "search",
            extra={
                "archive": name,
                "query": parsed.kind,
                "k": k,
                "hits": len(hits),
                "searched": hits.searched,
                "seconds": round(seconds, 4),
                "work_seconds": round(hits.seconds, 4),
            },
        )
        return hits

    async def read(
        self,
        file: IO[bytes] | bytes,
        bands: tuple[str, ...] = RGB,
        *,
        choice: Sequence[str] | None = None,
        stretch: str = "auto",
    ) -> NDArray[np.uint8]:
        """The pixels (C, H, W) uint8 of an uploaded picture or raster, in the bands of an archive.

        bands: of the archive. choice, stretch: as in `ByFile`; a picture needs neither. The raster
        lies in a folder of its own while it is read.

        Errors: ImageError, or TooLargeError, for an unfit file; UsageError for bands that it lacks.
        """
        return await self.encoding.run(self._read, file, bands, choice, stretch)

    async def thumbnail(self, name: str, id: str, size: int = 256) -> bytes:
        """A JPEG of an item whose longer side has at most `size` pixels; kept in memory.

        NotFoundError for an unknown archive or id; GoneError if the item's file is gone or
        unreadable; ForbiddenError for a file on another machine, unless the settings allow
        such files.
        """
        low, high = THUMBNAIL_SIDES
        if not low <= size <= high:
            raise UsageError(f"the size of a thumbnail is {low} to {high} pixels, not {size}")
        archive = self.archive(name)
        key = (name, id, size)
        with self._lock:
            thumbnail = self._thumbnails.get(key)
        if thumbnail is not None:
            self.metrics.thumbnails.labels("cached").inc()
            return thumbnail
        thumbnail = await self.pictures.run(self._thumbnail, archive, id, size)
        self.metrics.thumbnails.labels("new").inc()
        with self._lock:
            if len(thumbnail) <= self._thumbnails.maxsize:
                self._thumbnails[key] = thumbnail
        return thumbnail

    async def scene_style(self, name: str, scene: str) -> SceneStyle:
        """How to show a scene; NotFoundError, or ForbiddenError as for `thumbnail`."""
        self.archive(name)

        def checked() -> SceneStyle:
            style = self.scenes[name].style(scene)
            self.check_source(style.source)
            return style

        return await self.pictures.run(checked)

    async def delete(self, name: str, ids: Sequence[str]) -> int:
        """Delete items from an archive, but not their files; returns how many it had."""
        deleted = await self.run(self.archive(name).delete, ids)
        with self._lock:
            for key in [key for key in self._thumbnails if key[0] == name]:
                del self._thumbnails[key]
        log.info("deleted", extra={"archive": name, "items": deleted})
        return deleted

    def check_source(self, source: str) -> None:
        """Raise ForbiddenError for a VRT, and for a source on another machine unless allowed.

        This method reads the file to find out, so it blocks.
        """
        from rsir.sources.reach import is_elsewhere, is_list_of_files

        try:
            if is_list_of_files(source):
                raise ForbiddenError("the source is a VRT, which this service does not follow")
            if not self.settings.allow_remote and is_elsewhere(source):
                raise ForbiddenError(
                    "the source is on another machine, or names files there; this service does "
                    "not read those; --allow-remote allows it"
                )
        except DataError:  # reading its pixels will report the error
            return

    async def warm_up(self) -> None:
        """Load the models and vectors of all archives; archives that fail stay in `unready`."""
        for name, archive in self.archives.items():
            try:
                await self.encoding.run(_warm, archive)
            except Exception as error:
                log.exception("archive is not ready", extra={"archive": name})
                self.unready[name] = str(error)
            else:
                del self.unready[name]

    def close(self) -> None:
        """Wait for the running calls, then stop."""
        self.additions.close()
        for pool in (self.encoding, self.searching, self.pictures):
            pool.close()

    def _check_query(self, query: Query) -> None:
        """UsageError for queries that an archive takes from its owner, but not from a stranger."""
        most = self.settings.max_examples
        if isinstance(query, Examples) and max(len(query.like), len(query.unlike)) > most:
            raise UsageError(f"at most {most} positive and {most} negative examples")
        if "file" in {part.kind for part in query.parts}:
            raise UsageError("a file of the service's machine cannot be a query; upload the image")

    def _read(
        self,
        file: IO[bytes] | bytes,
        bands: tuple[str, ...],
        choice: Sequence[str] | None,
        stretch: str,
    ) -> NDArray[np.uint8]:
        from rsir.images.decode import decode

        data = file if isinstance(file, bytes) else file.read()
        if len(data) > self.settings.max_body:
            raise TooLargeError(f"the image has more than {self.settings.max_body} bytes")
        no_picture: ImageError | None = None
        if bands == RGB and choice is None and stretch == "auto":
            try:
                return decode(data, self.settings.max_pixels)[0]
            except ImageError as error:
                no_picture = ImageError(f"the uploaded image: {error}")
        # The content decides the format; no file beside it can be meant.
        with tempfile.TemporaryDirectory(prefix="rsir-") as folder:
            path = Path(folder, "upload.tif")
            path.write_bytes(data)
            try:
                with ExitStack() as stack:
                    raster, _ = open_dataset(str(path), stack)
                    if raster.width * raster.height > self.settings.max_pixels:
                        raise ImageError(
                            f"{path}: {raster.width} × {raster.height} pixels, more than "
                            f"{self.settings.max_pixels}: cut out what you search for"
                        )
                return file_pixels(ByFile(path, choice, stretch), bands)
            except UsageError as error:
                raise UsageError(_of_upload(error, path)) from error
            except DataError as error:
                raise no_picture or ImageError(_of_upload(error, path)) from error

    def _thumbnail(self, archive: Archive, id: str, size: int) -> bytes:
        (record,) = archive.get([id])
        self.check_source(record.source)
        try:
            return as_jpeg(archive.thumbnail(id, size))
        except ImageError as error:
            raise GoneError(str(error)) from error


def _of_upload(error: Exception, path: Path) -> str:
    """An error's message without the place where the service keeps an upload."""
    text = str(error).replace(str(path), "the uploaded image")
    return text.removesuffix(" (use --bands, or ByFile in Python)")


def as_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (C, H, W) uint8 as a JPEG: three bands in colour, else the first band in grey."""
    from PIL import Image

    shown = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def page_of(
    archive: Archive, filter: Filter | None, offset: int, limit: int, after: str | None = None
) -> list[Record]:
    """A page of the records that meet `filter`, ordered by id: `limit` records from `offset` on.

    after: return only records with greater ids; skipping the smaller ids takes no time.
    """
    # The empty filter excludes nothing, and lets the store use the columns in memory.
    chosen = filter or Filter()
    if after is not None:
        greater = f"id > {sql_text(after)}"
        where = greater if chosen.where is None else f"({chosen.where}) AND {greater}"
        chosen = replace(chosen, where=where)
    return list(islice(archive.records(chosen), offset, offset + limit))


def open_archives(paths: Sequence[str | Path]) -> dict[str, Archive]:
    """Open archives from PATH or NAME=PATH; the default name is the folder's.

    Raises UsageError for a name that occurs twice or does not fit into an address; ArchiveError
    for a path that is not an archive.
    """
    from rsir.archive.archive import Archive

    archives: dict[str, Archive] = {}
    for path in map(str, paths):
        name, equals, folder = path.partition("=")
        if not equals or "/" in name:
            name, folder = Path(path).resolve().name, path
        if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
            raise UsageError(
                f"{path}: the name of an archive in addresses consists of letters, digits, '-', "
                "'_' and '.'; give one with NAME=PATH"
            )
        if name in archives:
            raise UsageError(f"two archives are named {name!r}; name them with NAME=PATH")
        archives[name] = Archive.open(folder)
    return archives


def _warm(archive: Archive) -> None:
    """Load everything that the first search needs."""
    first = next(archive.records(Filter()), None)
    if first is not None:
        _ = archive.search(ById(first.id), 1)[:]
    _ = archive.encoder
