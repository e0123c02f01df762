"""The archive: images encoded by one model, stored, and searched by example.

An archive is a folder:

- archive.json, the manifest: format, metric, dimension, bands, the model's fingerprint;
- model/: a copy of the model, so that a search needs nothing else;
- items.lance: records and vectors (`rsir.store.lance.store`), unless archive.json names another
  store;
- last-index.json: the report of the last `Archive.add`.

archive.json appears last, in one step (`rsir.archive.folder.creation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.creation import ArchiveExistsError, create_folder
from rsir.archive.folder.encoder import ImageEncoder
from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.folder.manifest import ITEMS, MANIFEST, MODEL, model_names
from rsir.archive.folder.opening import open_folder
from rsir.archive.indexing.pruning import without_file
from rsir.archive.indexing.report import IndexReport
from rsir.archive.indexing.run import index
from rsir.archive.pictures.thumbnails import thumbnail
from rsir.archive.search.calibration import Calibration
from rsir.archive.search.gallery import Gallery
from rsir.archive.search.hits import Hits
from rsir.archive.search.query import QueryLike, as_query
from rsir.archive.search.query_vectors import pixels_of
from rsir.archive.search.search import GallerySearch, recall
from rsir.errors import ArchiveError
from rsir.store.base import KEPT_DAYS, Store
from rsir.store.filters.filter import Filter
from rsir.store.records.record import Record
from rsir.store.records.summary import SourceSummary, bytes_of, summaries

if TYPE_CHECKING:
    from rsir.scenes.tiling import Tiling
    from rsir.store.lance.store import LanceStore, Version


class Archive:
    """Encoded images in a folder, searched by example.

    An archive belongs to one model and refuses queries and additions by another, because distances
    between embeddings of different models mean nothing.

    gallery: the store and the model, for those who need more than the methods here.
    """

    def __init__(
        self, path: Path, manifest: Mapping[str, Any], store: Store, encoder: ImageEncoder | None
    ) -> None:
        """Use `create`, `open` or `open_or_create`."""
        self.path = path
        self._manifest = manifest
        self.gallery = Gallery(
            store,
            path=path,
            fingerprint=str(manifest["fingerprint"]),
            bands=tuple(manifest["bands"]),
            encoder=encoder,
        )

    @classmethod
    def create(
        cls, path: str | Path, encoder: ImageEncoder, *, store: str | None = None
    ) -> Archive:
        """A new, empty archive for images encoded by `encoder`.

        path: an empty or a new folder, or a folder where an earlier creation was cut off. store:
        the uri of a store outside the folder (`rsir.store.open`); None: a table in the folder. The
        manifest does not keep the user, password and token of the uri: give them again to open the
        archive, or set them in the environment.

        Raises ArchiveError if the folder has any other content. If another process creates the same
        archive at the same time, waits up to ten minutes for that process and then raises
        ArchiveError, too.
        """
        path = Path(path)
        manifest, created = create_folder(path, encoder, store)
        return cls(path, manifest, created, encoder)

    @classmethod
    def open(
        cls, path: str | Path, encoder: ImageEncoder | None = None, *, store: str | None = None
    ) -> Archive:
        """The archive at `path`; the first image query or addition loads its model.

        encoder: the archive's model, if you have loaded it already. store: the uri of the archive's
        store, with the user, password and token that archive.json does not keep. Raises
        ArchiveError if there is no archive, if it is damaged, if `store` is not its store, if its
        store now belongs to another archive, or if `encoder` is another model.
        """
        path = Path(path)
        manifest, opened = open_folder(path, store)
        return cls(path, manifest, opened, encoder)

    @classmethod
    def open_or_create(
        cls, path: str | Path, encoder: ImageEncoder, *, store: str | None = None
    ) -> Archive:
        """The archive at `path` if there is one, else a new one; errors as in both.

        If several processes call this at once, one process creates the archive and the others wait
        for it. Raises ArchiveError also for an archive whose records are not in `store`.
        """
        if not (Path(path) / MANIFEST).exists():
            with suppress(ArchiveExistsError):  # another process has just created it
                return cls.create(path, encoder, store=store)
        return cls.open(path, encoder, store=store)

    @property
    def store(self) -> Store:
        """The records and vectors."""
        return self.gallery.store

    @property
    def metric(self) -> str:
        """The name of the distance, for `rsir.ranking.metric_named`."""
        return self.store.metric

    @property
    def dimension(self) -> int:
        """D of the embeddings, or bits of the codes."""
        return self.store.dimension

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the archive's model."""
        return self.gallery.fingerprint

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of the images, in order."""
        return self.gallery.bands

    @property
    def encoder(self) -> ImageEncoder:
        """The archive's model, loaded on first use; ArchiveError if the copy is another model."""
        return self.gallery.encoder

    def __len__(self) -> int:
        return len(self.gallery)

    def __repr__(self) -> str:
        return f"Archive({str(self.path)!r}: {len(self)} images, {self.metric}, {self.dimension})"

    def add(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        tiling: Tiling | None = None,
        shard: tuple[int, int] | None = None,
        batch_size: int | None = None,
        workers: int = 2,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Encode the images in `paths` and store them; returns a report of what was done.

        paths: files, folders, globs, STAC items and catalogues, URIs of object stores
        (`rsir.sources.find.find_sources`), but not the archive's own folder. Plain pictures of up
        to 1024 × 1024 pixels stay whole; others (larger, JPEG 2000, 16 bits, more bands) are read
        by windows and cut into tiles, by default of 256 pixels. With a `tiling`, only a plain
        picture without a georeference that fits into a tile stays whole.

        A file whose size and time of change are known is not read again, and known content is not
        encoded again. If the content or the tiling of a file has changed, new tiles replace its old
        tiles; but old tiles in a part that is now damaged stay until it can be read. Thresholds of
        nodata and clouds apply to new tiles only. Files that cannot be read raise no error; the
        report lists them. Records of files that no longer exist stay in the archive until `prune`.
        An interrupted run keeps the tiles that it has encoded; the next call continues from there.

        shard: (i, n) takes every n-th of the sources, from i on
        (`rsir.sources.find.Sources.shard`): n processes or machines with the same paths share the
        work. tiling: gsd="model" means the gsd of the training images of the archive's model.
        batch_size: images encoded at once; None: the model's own, else 64. workers: threads that
        read files ahead. on_progress: called with (done, total), in files and tiles of scenes.

        Raises UsageError for a size below 1, an impossible shard, and gsd="model" if the model's
        gsd is unknown; DataError for a path that does not exist; ArchiveError if the archive cannot
        be written: if it is read-only, before any work; else all earlier commits stay.
        """
        return index(
            self.gallery,
            paths,
            tiling=tiling,
            shard=shard,
            batch_size=batch_size,
            workers=workers,
            on_progress=on_progress,
        )

    def search(
        self,
        query: QueryLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        ranking: str | None = None,
        diverse: bool = False,
        min_percentile: float | None = None,
    ) -> Hits:
        """The k nearest images to `query`, nearest first, ties by id; fewer if there are fewer.

        query: an image file, pixels, a vector, or a query of `rsir.archive.search.query`: the id of
        a tile, a window of a scene, several examples. Tiles that the query names by id are not
        among the hits. filter: the condition on hits. ranking: None for the archive's own, which is
        exact; "hamming" in an archive of adaptive ranking; "approximate", which is not exact, if
        the store has it. diverse: of hits that overlap or are nearly the same, return only the best
        (`rsir.archive.search.diverse`); the search ends after 10,000 hits, so it may return fewer
        than k. min_percentile: return only hits that are nearer than this percentage of random
        pairs of the archive (`Hit.percentile`), in [0, 100): 99.9 leaves no hit if nothing is
        nearer to the query than one random pair in a thousand.

        Raises UsageError for k < 1, an array that does not fit this archive, a ranking that it does
        not have, and a percentile that is out of range or too high for the size of the archive;
        ImageError for a file that cannot be read; UnknownIdError for an unknown id.
        """
        search = GallerySearch(self.gallery, k, filter, ranking, diverse, min_percentile)
        return search.run([query])[0]

    def search_many(
        self,
        queries: Sequence[QueryLike],
        k: int = 10,
        *,
        filter: Filter | None = None,
        ranking: str | None = None,
        diverse: bool = False,
        min_percentile: float | None = None,
    ) -> list[Hits]:
        """`search` for several queries, encoded and searched together; `seconds` is the mean."""
        search = GallerySearch(self.gallery, k, filter, ranking, diverse, min_percentile)
        return search.run(queries)

    def recall(
        self, queries: Sequence[QueryLike], k: int, ranking: str, *, filter: Filter | None = None
    ) -> float:
        """Recall@k of a ranking that is not exact (`rsir.store.base.recall_of`).

        In an archive of adaptive ranking, hits of plain "hamming" are compared by id.
        """
        return recall(self.gallery, queries, k, ranking, filter)

    def calibration(self, ranking: str | None = None) -> Calibration:
        """The distances of random pairs of the archive, from which percentiles are computed."""
        return self.gallery.calibration(ranking)

    def pixels(self, query: QueryLike) -> NDArray[np.uint8]:
        """The image of a query, (C, H, W) uint8, in the archive's bands.

        Raises UsageError for a query without an image, else as `search` does.
        """
        return pixels_of(self.gallery, as_query(query))

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records under `ids`, in that order; ArchiveError for an unknown id."""
        with translate_store_errors(self.path):
            return [record for record, _ in self.store.get(ids)]

    def vectors(self, ids: Sequence[str]) -> NDArray[Any]:
        """The embeddings (N, D) float32 or rows of bytes (N, width) uint8 under `ids`, in order."""
        return self.gallery.vectors(ids)

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id."""
        with translate_store_errors(self.path):
            yield from self.store.records(filter)

    def count(self, filter: Filter | None = None) -> int:
        """The number of records that meet `filter`; None: of all records."""
        with translate_store_errors(self.path):
            return self.store.count(filter)

    def sources(self) -> list[SourceSummary]:
        """The indexed files and scenes with their numbers of tiles, ordered by name."""
        from_columns = getattr(self.store, "sources", None)  # faster; not all stores have it
        with translate_store_errors(self.path):
            found: list[SourceSummary]
            found = from_columns() if from_columns else summaries(self.store.records())
        return found

    def thumbnail(self, id: str, size: int = 256) -> NDArray[np.uint8]:
        """The thumbnail of a tile, (C, h, w) uint8, its longer side at most `size` pixels.

        Raises UnknownIdError for an unknown id, ImageError if its file can no longer be read,
        UsageError for a size below 1.
        """
        return thumbnail(self.get([id])[0], size)

    def versions(self) -> list[Version]:
        """The versions that the store keeps, oldest first; ArchiveError if it keeps none."""
        with translate_store_errors(self.path):
            return self._history().versions()

    def at(self, version: int) -> Archive:
        """The archive at `version`, read-only; ArchiveError if the version no longer exists."""
        with translate_store_errors(self.path):
            store = self._history().at(version)
        archive = Archive(self.path, self._manifest, store, self.gallery.loaded_encoder)
        archive.gallery.version = version
        return archive

    def restore(self, version: int) -> None:
        """Make `version` the latest by a new commit; ArchiveError if it no longer exists."""
        with translate_store_errors(self.path):
            self._history().restore(version)

    def _history(self) -> LanceStore:
        from rsir.store.lance.store import LanceStore

        if not isinstance(self.store, LanceStore):
            raise ArchiveError(
                f"{self.path} keeps its records in {self._manifest['store']}, a store without "
                "versions; keep copies by the store's own tools, or by `rsir export`"
            )
        return self.store

    def delete(self, ids: Sequence[str]) -> int:
        """Remove `ids` from the archive, but not the files; returns how many of them existed."""
        with translate_store_errors(self.path):
            return self.store.delete(ids)

    def prune(self, *, everything: bool = False) -> list[str]:
        """Remove the images whose file no longer exists; returns their ids, sorted.

        Checks absolute file paths, not URIs; for an item of a collection of STAC items, the
        collection's file. Images of a file that cannot be accessed (permissions) stay.

        everything: remove the images even if no file at all is left. By default that raises
        ArchiveError (`rsir.archive.indexing.pruning.AllGoneError`) and removes nothing, because a
        disk that is not mounted is the likelier reason.
        """
        with translate_store_errors(self.path):
            gone = sorted(without_file(self.store.states(), everything=everything))
        self.delete(gone)
        return gone

    def optimize(self, *, keep_days: float = KEPT_DAYS) -> None:
        """Merge the small files that many commits leave, so that opening is quick again.

        Removes versions older than `keep_days`; the latest always stays.
        """
        with translate_store_errors(self.path):
            self.store.optimize(keep_days=keep_days)

    def info(self) -> dict[str, Any]:
        """A description as JSON values: count, metric, dimension, bands, model, bytes and more.

        bytes: of its folder; None if the records are elsewhere.
        """
        with translate_store_errors(self.path):
            version = getattr(self.store, "version", None)
        return {
            "path": str(self.path),
            "store": self._manifest.get("store", ITEMS),
            "count": len(self),
            "metric": self.metric,
            "dimension": self.dimension,
            "bands": list(self.bands),
            "model": {"fingerprint": self.fingerprint, **model_names(self.path / MODEL)},
            "bytes": None if "store" in self._manifest else bytes_of(self.path),
            "version": version,
            "created": self._manifest["created"],
            "rsir": self._manifest["rsir"],
        }
