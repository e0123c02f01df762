"""The archive: images that were encoded by one model, kept, and searched by example.

An archive is a folder:

- archive.json: what it is: format, metric, dimension, bands, the model's fingerprint;
- model/: a copy of the model, so that a search needs nothing else;
- items.lance: records and vectors (`rsir.store.lance.store`), unless archive.json names another
  store;
- last-index.json: the report of the last `Archive.add`.

archive.json appears last, in one step (`rsir.archive.folder.creation`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.creation import ArchiveExistsError, create_folder
from rsir.archive.folder.encoder import (
    Encoder,
    default_batch_size,
    load_encoder,
    vectors_for_metric,
)
from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.folder.manifest import (
    ITEMS,
    LAST_INDEX,
    MANIFEST,
    MODEL,
    model_names,
    read_manifest,
)
from rsir.archive.indexing.pruning import without_file
from rsir.archive.indexing.run import Indexing, IndexReport
from rsir.archive.pictures.thumbnails import thumbnail
from rsir.archive.search.calibration import Calibration
from rsir.archive.search.hits import Hits
from rsir.archive.search.query_vectors import Query, check_bands
from rsir.archive.search.search import Search
from rsir.atomic import write_json
from rsir.errors import ArchiveError, UsageError
from rsir.ranking import metric_named
from rsir.sources.find import find_sources
from rsir.store.base import KEPT_DAYS, Store, recall_of
from rsir.store.filters.filter import Filter
from rsir.store.open import open_store, without_secrets
from rsir.store.records.record import Record
from rsir.store.records.summary import SourceSummary, bytes_of, summaries

if TYPE_CHECKING:
    from rsir.scenes.tiling import Tiling
    from rsir.store.lance.store import LanceStore, Version

__all__ = ["LAST_INDEX", "MODEL", "Archive"]

SAMPLE = 5000
"""Vectors, picked at random, from which distances are calibrated. Our choice: 10 MB of 512 floats;
100 of them are compared with 200 others each."""

_CALIBRATED_TO = 0.1
_CALIBRATED_FOR = 300.0
"""The calibration is made anew once the archive has grown or shrunk by so much, and after so many
seconds, for images may have been replaced. Our choice."""


class Archive:
    """Encoded images in a folder, searched by example.

    It belongs to one model: queries and additions by another are refused, for distances between
    embeddings of different models mean nothing.
    """

    def __init__(
        self, path: Path, said: Mapping[str, Any], store: Store, encoder: Encoder | None
    ) -> None:
        """Use `create`, `open` or `open_or_create`."""
        self.path = path
        self._about = said
        self._store = store
        self._encoder = encoder
        self._calibrations: dict[str, tuple[float, int, Calibration]] = {}
        self._version: int | None = None

    @classmethod
    def create(cls, path: str | Path, encoder: Encoder, *, store: str | None = None) -> Archive:
        """A new, empty archive for images encoded by `encoder`.

        `path` may be an empty folder, or one where an earlier creation was cut off. store: where
        the records are kept, if not in the folder (`rsir.store.open`); user, password and
        token in it are not written down: whoever opens it says them by the environment.

        Raises ArchiveError if anything else is there: an archive, too, that another process makes
        at the same time, which is waited for, ten minutes at most.
        """
        path = Path(path)
        manifest, created = create_folder(path, encoder, store)
        return cls(path, manifest, created, encoder)

    @classmethod
    def open(
        cls, path: str | Path, encoder: Encoder | None = None, *, store: str | None = None
    ) -> Archive:
        """The archive at `path`; its model is loaded by the first image query or addition.

        encoder: the archive's model, if it is loaded already. store: where its records are, with
        the user, password and token that archive.json does not have. Raises ArchiveError if there
        is no archive, if it is damaged, if its records are elsewhere, if what is there now is the
        store of another archive, or if `encoder` is another model.
        """
        path = Path(path)
        said = read_manifest(path)
        written = said.get("store")
        if store is not None and without_secrets(store) != written:
            raise ArchiveError(
                f"{path} keeps its records in {written or ITEMS}, not in {without_secrets(store)}"
            )
        kept = open_store(store or written or path / ITEMS, said.get("identity", ""))
        if (kept.metric, kept.dimension) != (said["metric"], said["dimension"]):
            raise ArchiveError(
                f"{path / MANIFEST} says {said['metric']}, {said['dimension']}, but "
                f"{written or ITEMS} holds {kept.metric}, {kept.dimension}; restore one "
                "of them from a copy"
            )
        archive = cls(path, said, kept, None)
        if encoder is not None:
            archive._encoder = archive._checked(encoder)
        return archive

    @classmethod
    def open_or_create(
        cls, path: str | Path, encoder: Encoder, *, store: str | None = None
    ) -> Archive:
        """The archive at `path` if there is one, else a new one; errors as in both.

        Of several processes that ask for it at once one makes it, and the others wait for that.
        Raises ArchiveError also if there is one whose records are not in `store`, if that is given.
        """
        if not (Path(path) / MANIFEST).exists():
            with suppress(ArchiveExistsError):  # by another, since the line above
                return cls.create(path, encoder, store=store)
        return cls.open(path, encoder, store=store)

    @property
    def metric(self) -> str:
        """The name of the distance, for `rsir.ranking.metric_named`."""
        return self._store.metric

    @property
    def dimension(self) -> int:
        """D of the embeddings, or bits of the codes."""
        return self._store.dimension

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the archive's model."""
        return str(self._about["fingerprint"])

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of the images, in order."""
        return tuple(self._about["bands"])

    @property
    def encoder(self) -> Encoder:
        """The archive's model, loaded when first used; ArchiveError if its copy is not it."""
        if self._encoder is None:
            self._encoder = self._checked(load_encoder(self.path / MODEL))
        return self._encoder

    def __len__(self) -> int:
        with translate_store_errors(self.path):
            return len(self._store)

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
        """Encode and keep the images in `paths`; says what was done.

        paths: files, folders, globs, STAC items and catalogues, uris of object stores
        (`rsir.sources.find.find_sources`). An image of up to 1024 × 1024 pixels is kept as it is,
        larger ones and what is no plain image (JPEG 2000, 16 bits, more bands) are read by windows
        and cut into tiles, of 256 pixels unless `tiling` says otherwise. With a tiling given, only
        a plain image without a georeference that is no larger than a tile stays whole.

        A file with the size and time of change that are known is not read again, and one with
        known content is not encoded again. One whose content has changed replaces what was kept
        of it, but where it is damaged now what was kept of that place stays until it can be read;
        so does one that is now cut in another way, but thresholds of nodata and clouds are for new
        tiles: those that are there stay. A file that cannot be read is listed in the report, never
        fatal. Files that are gone stay in the archive until `prune`. What lies
        in the archive's own folder is left out. Interrupted, it keeps what is encoded, and the
        next call goes on from there.

        shard: (i, n) takes every n-th of the sources, from i on
        (`rsir.sources.find.Sources.shard`):
        n processes or machines that are given the same paths share the work.
        tiling: its gsd may be "model", that of the images that the archive's model learnt from.
        batch_size: images encoded at once; None: as many as the model says, else 64.
        workers: threads that read files ahead.
        on_progress: called with (done, in all), in files and tiles of scenes.

        Raises UsageError for a size below 1, a shard that is none and the gsd of a model that does
        not say it, DataError for a path that does not exist, ArchiveError if the archive cannot be
        written: before any work if it is read-only, else with what was committed until then kept.
        """
        if workers < 1 or (batch_size is not None and batch_size < 1):
            raise UsageError("batch_size and workers must be at least 1")
        self._check_addable()
        tiling = self._told(tiling)
        start = time.monotonic()
        roots = [paths] if isinstance(paths, str | Path) else list(paths)
        found = find_sources(roots, exclude=self.path)
        found = found.without_masks(None if tiling is None else tiling.cloud_mask)
        if shard is not None:
            found = found.shard(*shard)
        with translate_store_errors(self.path):
            # A run that is killed leaves this; and what cannot be written is known before work.
            write_json(self.path / LAST_INDEX, IndexReport(complete=False).to_dict())
        indexing = Indexing(
            self._store,
            found,
            roots,
            path=self.path,
            bands=self.bands,
            tiling=tiling,
            encode=self.encode,
            check=partial(check_bands, self),
            on_progress=on_progress,
        )
        complete = False
        try:
            indexing.run(batch_size or default_batch_size(self.encoder), workers)
            complete = True
        finally:
            # Also on Ctrl-C and on an error of the encoder: what is encoded is kept.
            indexing.commit()
            report = indexing.report(time.monotonic() - start, complete)
            with translate_store_errors(self.path):
                write_json(self.path / LAST_INDEX, report.to_dict())
        return report

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        filter: Filter | None = None,
        ranking: str | None = None,
        diverse: bool = False,
        min_percentile: float | None = None,
    ) -> Hits:
        """The k nearest images to `query`, nearest first, ties by id; fewer if there are fewer.

        query: an image, a vector, the id of a tile, a window of a scene or several examples: see
        `rsir.archive.search.query_vectors`. Tiles named by their id are not among the hits.
        filter: which images may be found. ranking: None for the archive's own, which is exact;
        "hamming" in an archive of adaptive ranking; "two-stage" and "approximate", which are not
        exact, where the store has them.
        diverse: of hits that overlap or are nearly the same only the best
        (`rsir.archive.search.diverse`);
        there can be fewer than k, for it is looked no further down than the first 10,000.
        min_percentile: only hits that are nearer than this percentage of random pairs of the
        archive (`Hit.percentile`), in [0, 100): 99.9 leaves no hit if nothing is nearer to the
        query than one random pair in a thousand.

        Raises UsageError for k < 1, an array that is no query of this archive, a ranking that it
        has not, a percentile out of range, or higher than so small an archive can tell; ImageError
        for a file that cannot be read; UnknownIdError for an unknown id.
        """
        return self.search_many(
            [query],
            k,
            filter=filter,
            ranking=ranking,
            diverse=diverse,
            min_percentile=min_percentile,
        )[0]

    def search_many(
        self,
        queries: Sequence[Query],
        k: int = 10,
        *,
        filter: Filter | None = None,
        ranking: str | None = None,
        diverse: bool = False,
        min_percentile: float | None = None,
    ) -> list[Hits]:
        """`search` for several queries, encoded and searched together; `seconds` is the mean."""
        search = Search(k, filter, ranking, diverse, min_percentile)
        return search.run(self, self._store, queries)

    def recall(
        self, queries: Sequence[Query], k: int, ranking: str, *, filter: Filter | None = None
    ) -> float:
        """Recall@k of a ranking that is not exact (`rsir.store.base.recall_of`).

        Of plain "hamming" in an archive of adaptive ranking, hits are compared by id.
        """
        exact = self.search_many(queries, k, filter=filter)
        found = self.search_many(queries, k, filter=filter, ranking=ranking)
        near = [{hit.id: hit.distance for hit in hits} for hits in exact]
        far = [[hit.distance for hit in hits] for hits in found]
        if self._distance(ranking) != self.metric:
            # How far they are by the exact distance is known of those that it has found too.
            far = [
                [distances.get(hit.id, math.inf) for hit in hits]
                for distances, hits in zip(near, found, strict=True)
            ]
        return recall_of([list(distances.values()) for distances in near], far)

    def _distance(self, ranking: str | None) -> str:
        """The name of the distance that the hits of a ranking have."""
        return self.metric if ranking in (None, "two-stage", "approximate") else str(ranking)

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records under `ids`, in that order; ArchiveError for an unknown id."""
        with translate_store_errors(self.path):
            return [record for record, _ in self._store.get(ids)]

    def vectors(self, ids: Sequence[str]) -> NDArray[Any]:
        """The embeddings (N, D) float32 or rows of bytes (N, width) uint8 under `ids`, in order."""
        width = metric_named(self.metric).width(self.dimension)
        with translate_store_errors(self.path):
            rows = [vector for _, vector in self._store.get(ids)]
        return np.stack(rows) if rows else np.empty((0, width), self.dtype)

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id."""
        with translate_store_errors(self.path):
            yield from self._store.records(filter)

    def count(self, filter: Filter | None = None) -> int:
        """How many records meet `filter`; all, if it is not given."""
        with translate_store_errors(self.path):
            return self._store.count(filter)

    def sources(self) -> list[SourceSummary]:
        """What was indexed, ordered by name: each file or scene, and how many tiles it has."""
        quick = getattr(self._store, "sources", None)  # of a store that has columns
        with translate_store_errors(self.path):
            found: list[SourceSummary] = quick() if quick else summaries(self._store.records())
        return found

    def thumbnail(self, id: str, size: int = 256) -> NDArray[np.uint8]:
        """A tile to look at, (C, h, w) uint8, its longer side at most `size` pixels.

        Raises UnknownIdError for an unknown id, ImageError if its file cannot be read any more,
        UsageError for a size below 1.
        """
        return thumbnail(self.get([id])[0], size)

    def calibration(self, ranking: str | None = None) -> Calibration:
        """The distances of random pairs of the archive, which `Hit.percentile` is computed from."""
        name = self._distance(ranking)
        count, now = len(self), time.monotonic()
        known = self._calibrations.get(name)
        if known is not None:
            made, of, found = known
            if now - made < _CALIBRATED_FOR and abs(count - of) <= _CALIBRATED_TO * of:
                return found
        with translate_store_errors(self.path):
            vectors = self._store.sample(SAMPLE)
        if name == "hamming" and metric_named(self.metric).classes:
            vectors = vectors[:, : metric_named(name).width(self.dimension)]
        found = Calibration.of(name, vectors)
        self._calibrations[name] = (now, count, found)
        return found

    def versions(self) -> list[Version]:
        """The versions that are kept, oldest first; ArchiveError if the store keeps none."""
        with translate_store_errors(self.path):
            return self._history().versions()

    def at(self, version: int) -> Archive:
        """The archive as it was at `version`, to be searched only; ArchiveError if not kept."""
        with translate_store_errors(self.path):
            store = self._history().at(version)
        archive = Archive(self.path, self._about, store, self._encoder)
        archive._version = version
        return archive

    def restore(self, version: int) -> None:
        """Make `version` the latest again, as a new one; ArchiveError if it is not kept."""
        with translate_store_errors(self.path):
            self._history().restore(version)

    def _check_addable(self) -> None:
        """ArchiveError for an earlier version, UsageError if its model is not one of rsir."""
        if self._version is not None:
            raise ArchiveError(
                f"this is version {self._version} of {self.path}, which cannot be changed; open "
                "the archive itself"
            )
        if not self.bands:
            raise UsageError(
                f"{self.path} holds embeddings made elsewhere: add to it with `rsir import`"
            )

    def _told(self, tiling: Tiling | None) -> Tiling | None:
        """The tiling, with the model's gsd if it asks for that."""
        if tiling is None or tiling.gsd != "model":
            return tiling
        return tiling.told(getattr(self.encoder, "gsd", None))

    def _history(self) -> LanceStore:
        from rsir.store.lance.store import LanceStore

        if not isinstance(self._store, LanceStore):
            raise ArchiveError(
                f"{self.path} keeps its records in {self._about['store']}, a store without "
                "versions; keep copies by the store's own tools, or by `rsir export`"
            )
        return self._store

    def delete(self, ids: Sequence[str]) -> int:
        """Forget `ids`; returns how many there were. The files themselves are left alone."""
        with translate_store_errors(self.path):
            return self._store.delete(ids)

    def prune(self, *, everything: bool = False) -> list[str]:
        """Forget the images whose file is gone; returns their ids, sorted.

        Only absolute file paths are looked for, not uris; of an item in a collection of STAC items
        the collection's file. A file that is there but cannot be looked at (permissions) is kept.

        everything: forget also if no file at all is left. Without it that is an ArchiveError
        (`rsir.archive.indexing.pruning.AllGoneError`), and nothing is forgotten: a disk that is
        not mounted
        is the likelier reason.
        """
        with translate_store_errors(self.path):
            gone = sorted(without_file(self._store.states(), everything=everything))
        self.delete(gone)
        return gone

    def optimize(self, *, keep_days: float = KEPT_DAYS) -> None:
        """Merge the small files that many commits leave, so that opening is quick again.

        Versions older than `keep_days` are forgotten; the latest always stays.
        """
        with translate_store_errors(self.path):
            self._store.optimize(keep_days=keep_days)

    def info(self) -> dict[str, Any]:
        """What the archive is, as JSON values: count, metric, dimension, bands, model, bytes.

        bytes: of its folder; None if the records are elsewhere.
        """
        with translate_store_errors(self.path):
            version = getattr(self._store, "version", None)
        return {
            "path": str(self.path),
            "store": self._about.get("store", ITEMS),
            "count": len(self),
            "metric": self.metric,
            "dimension": self.dimension,
            "bands": list(self.bands),
            "model": {"fingerprint": self.fingerprint, **model_names(self.path / MODEL)},
            "bytes": None if "store" in self._about else bytes_of(self.path),
            "version": version,
            "created": self._about["created"],
            "rsir": self._about["rsir"],
        }

    def _checked(self, encoder: Encoder) -> Encoder:
        if encoder.fingerprint != self.fingerprint:
            raise ArchiveError(
                f"{self.path} belongs to the model {self.fingerprint}, not to "
                f"{encoder.fingerprint}; use its own model, or index into another archive"
            )
        return encoder

    @property
    def dtype(self) -> type[np.uint8] | type[np.float32]:
        """Of the vectors: bytes for hash codes, float32 for embeddings."""
        return np.uint8 if metric_named(self.metric).kind == "bits" else np.float32

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        """The vectors (N, width) of images (C, H, W) uint8, as the store keeps them.

        Raises DataError for an image that the model cannot take, ArchiveError for a model that
        does not give what the archive compares.
        """
        encoding = self.encoder.encode(images)
        metric = metric_named(self.metric)
        vectors = vectors_for_metric(encoding, metric)
        wanted = (len(images), metric.width(self.dimension))
        if vectors is None or vectors.shape != wanted:
            got = "none" if vectors is None else f"an array of shape {vectors.shape}"
            what = "codes" if metric.kind == "bits" else "embeddings"
            raise ArchiveError(f"the model gave {got} for {what} of shape {wanted}")
        return vectors
