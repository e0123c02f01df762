"""The archive: images that were encoded by one model, kept, and searched by example.

An archive is a folder:

- archive.json: what it is: format, metric, dimension, bands, the model's fingerprint;
- model/: a copy of the model, so that a search needs nothing else;
- items.lance: records and vectors (`rsir.archive.lance`);
- last-index.json: the report of the last `Archive.add`.

archive.json appears last, in one step: a folder that has archive.json.new instead is a creation
that was cut off, and creating again starts it afresh.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

import rsir
from rsir.archive.failures import told
from rsir.archive.hits import Hits, Query
from rsir.archive.indexing import Indexing, IndexReport
from rsir.archive.store import Neighbour, Record
from rsir.data.images import find_images, read_tile
from rsir.errors import ArchiveError, ImageError, UsageError
from rsir.ranking import Metric, metric_named, packed, score
from rsir.types import Encoding, Hit, Tile

if TYPE_CHECKING:
    from rsir.archive.lance import LanceStore

FORMAT = "rsir-archive/1"

ABOUT = "archive.json"
MODEL = "model"
ITEMS = "items.lance"
LAST_INDEX = "last-index.json"
_NEW = ABOUT + ".new"


class Encoder(Protocol):
    """What an archive needs of a model; `rsir.encode.Encoder` is one."""

    @property
    def fingerprint(self) -> str:
        """Equal only for models that give equal embeddings."""

    @property
    def dimension(self) -> int:
        """D floats, or bits if `ranking` compares hash codes."""

    @property
    def ranking(self) -> str:
        """A name for `rsir.ranking.metric_named`."""

    @property
    def bands(self) -> tuple[str, ...]:
        """What the C channels of an image are, in order."""

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Encoding:
        """The Encoding of images (C, H, W) uint8, in order; their sizes may differ.

        Raises DataError for an image that it cannot take.
        """

    def save(self, folder: Path) -> object:
        """Write the model into `folder`."""


class Archive:
    """Encoded images in a folder, searched by example.

    It belongs to one model: queries and additions by another are refused, for distances between
    embeddings of different models mean nothing.
    """

    def __init__(
        self, path: Path, about: Mapping[str, Any], store: LanceStore, encoder: Encoder | None
    ) -> None:
        """Use `create`, `open` or `open_or_create`."""
        self.path = path
        self._about = about
        self._store = store
        self._encoder = encoder

    @classmethod
    def create(cls, path: str | Path, encoder: Encoder) -> Archive:
        """A new, empty archive for images encoded by `encoder`.

        `path` may be an empty folder, or one where an earlier creation was cut off. Raises
        ArchiveError if anything else is there.
        """
        from rsir.archive.lance import LanceStore

        path = Path(path)
        if (path / ABOUT).exists():
            raise ArchiveError(f"{path} is an archive already; open it, or choose another path")
        if path.exists() and not path.is_dir():
            raise ArchiveError(f"{path} is a file; choose another path for the archive")
        # A hidden file of this name is all that a kill within `_write` can leave.
        others = path.exists() and any(not e.name.startswith(f".{_NEW}.") for e in path.iterdir())
        if others and not (path / _NEW).exists():
            raise ArchiveError(
                f"{path} is a folder with other files; choose a new or empty one for the archive"
            )
        metric_named(encoder.ranking).width(encoder.dimension)
        about = {
            "format": FORMAT,
            "rsir": rsir.__version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "metric": encoder.ranking,
            "dimension": encoder.dimension,
            "fingerprint": encoder.fingerprint,
            "bands": list(encoder.bands),
        }
        with told(path):
            path.mkdir(parents=True, exist_ok=True)
            _write(path / _NEW, about)
            for leftover in (path / MODEL, path / ITEMS):
                if leftover.exists():
                    shutil.rmtree(leftover)
        encoder.save(path / MODEL)
        with told(path):
            store = LanceStore.create(path / ITEMS, encoder.ranking, encoder.dimension)
            (path / _NEW).replace(path / ABOUT)
        return cls(path, about, store, encoder)

    @classmethod
    def open(cls, path: str | Path, encoder: Encoder | None = None) -> Archive:
        """The archive at `path`; its model is loaded by the first image query or addition.

        encoder: the archive's model, if it is loaded already. Raises ArchiveError if there is no
        archive, if it is damaged, or if `encoder` is another model.
        """
        from rsir.archive.lance import LanceStore

        path = Path(path)
        about = _read_about(path)
        store = LanceStore.open(path / ITEMS)
        if (store.metric, store.dimension) != (about["metric"], about["dimension"]):
            raise ArchiveError(
                f"{path / ABOUT} says {about['metric']}, {about['dimension']}, but {ITEMS} holds "
                f"{store.metric}, {store.dimension}; restore one of them from a copy"
            )
        archive = cls(path, about, store, None)
        if encoder is not None:
            archive._encoder = archive._checked(encoder)
        return archive

    @classmethod
    def open_or_create(cls, path: str | Path, encoder: Encoder) -> Archive:
        """The archive at `path` if there is one, else a new one; errors as in both."""
        if (Path(path) / ABOUT).exists():
            return cls.open(path, encoder)
        return cls.create(path, encoder)

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
            from rsir.encode import load

            self._encoder = self._checked(load(self.path / MODEL))
        return self._encoder

    def __len__(self) -> int:
        with told(self.path):
            return len(self._store)

    def __repr__(self) -> str:
        return f"Archive({str(self.path)!r}: {len(self)} images, {self.metric}, {self.dimension})"

    def add(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        batch_size: int = 64,
        workers: int = 2,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Encode and keep the images in `paths` (files and folders); says what was done.

        A file with the size and time of change that are known is not read again, and one with
        known content is not encoded again. One whose content has changed replaces what was kept
        of it. A file that cannot be read is listed in the report, never fatal. Files that are
        gone stay in the archive until `prune`. What lies in the archive's own folder is left out.
        Interrupted, it keeps what is encoded, and the next call goes on from there.

        batch_size: images encoded at once. workers: threads that read files ahead.
        on_progress: called with (files done, files in all).

        Raises UsageError for a size below 1, DataError for a path that does not exist,
        ArchiveError if the archive cannot be written: before any work if it is read-only, else
        with what was committed until then kept.
        """
        if batch_size < 1 or workers < 1:
            raise UsageError("batch_size and workers must be at least 1")
        start = time.monotonic()
        paths = [paths] if isinstance(paths, str | Path) else paths
        files, ignored = find_images(paths, exclude=self.path)
        with told(self.path):
            # A run that is killed leaves this; and what cannot be written is known before work.
            _write(self.path / LAST_INDEX, IndexReport(complete=False).to_dict())
        indexing = Indexing(
            self._store,
            files,
            path=self.path,
            encode=self._encode,
            check=self._check_bands,
            on_progress=on_progress,
        )
        complete = False
        try:
            indexing.run(batch_size, workers)
            complete = True
        finally:
            # Also on Ctrl-C and on an error of the encoder: what is encoded is kept.
            indexing.commit()
            report = indexing.report(ignored, time.monotonic() - start, complete)
            with told(self.path):
                _write(self.path / LAST_INDEX, report.to_dict())
        return report

    def search(self, query: Query, k: int = 10) -> Hits:
        """The k nearest images to `query`, nearest first, ties by id; fewer if there are fewer.

        Raises UsageError for k < 1 or an array that is no query of this archive, ImageError for
        a file that cannot be read.
        """
        return self.search_many([query], k)[0]

    def search_many(self, queries: Sequence[Query], k: int = 10) -> list[Hits]:
        """`search` for several queries, encoded and searched together; `seconds` is the mean."""
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        if not queries:
            return []
        start = time.monotonic()
        vectors = self._vectors_of(queries)
        with told(self.path):
            found = self._store.search(vectors, k)
            searched = len(self._store)
        seconds = (time.monotonic() - start) / len(queries)
        return [
            Hits([self._hit(n) for n in neighbours], query, seconds, searched)
            for query, neighbours in zip(queries, found, strict=True)
        ]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records under `ids`, in that order; ArchiveError for an unknown id."""
        with told(self.path):
            return [record for record, _ in self._store.get(ids)]

    def vectors(self, ids: Sequence[str]) -> NDArray[Any]:
        """The embeddings (N, D) float32 or rows of bytes (N, width) uint8 under `ids`, in order."""
        width = metric_named(self.metric).width(self.dimension)
        with told(self.path):
            rows = [vector for _, vector in self._store.get(ids)]
        return np.stack(rows) if rows else np.empty((0, width), self._dtype)

    def records(self) -> Iterator[Record]:
        """All records, ordered by id."""
        with told(self.path):
            yield from self._store.records()

    def delete(self, ids: Sequence[str]) -> int:
        """Forget `ids`; returns how many there were. The files themselves are left alone."""
        with told(self.path):
            return self._store.delete(ids)

    def prune(self, *, everything: bool = False) -> list[str]:
        """Forget the images whose file is gone; returns their ids, sorted.

        Only absolute file paths are looked for, not uris. A file that is there but cannot be
        looked at (permissions) is kept.

        everything: forget also if no file at all is left. Without it that is an ArchiveError, and
        nothing is forgotten: a disk that is not mounted is the likelier reason.
        """
        gone: list[str] = []
        files, last = 0, ""
        for record in self.records():
            if Path(record.source).is_absolute():
                files, last = files + 1, record.source
                if _is_gone(record.source):
                    gone.append(record.id)
        if gone and len(gone) == files and not everything:
            raise ArchiveError(
                f"none of the {files} files that {self.path} knows is there, e.g. {last}; is a "
                "disk not mounted? To forget them all, prune with everything=True"
            )
        self.delete(gone)
        return gone

    def optimize(self) -> None:
        """Merge the small files that many commits leave, so that opening is quick again."""
        with told(self.path):
            self._store.optimize()

    def info(self) -> dict[str, Any]:
        """What the archive is, as JSON values: count, metric, dimension, bands, model, bytes."""
        with told(self.path):
            version = self._store.version
        return {
            "path": str(self.path),
            "count": len(self),
            "metric": self.metric,
            "dimension": self.dimension,
            "bands": list(self.bands),
            "model": {"fingerprint": self.fingerprint, **_model_names(self.path / MODEL)},
            "bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
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
    def _dtype(self) -> type[np.uint8] | type[np.float32]:
        return np.uint8 if metric_named(self.metric).kind == "bits" else np.float32

    def _encode(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        encoding = self.encoder.encode(images)
        metric = metric_named(self.metric)
        vectors = _compared(encoding, metric)
        wanted = (len(images), metric.width(self.dimension))
        if vectors is None or vectors.shape != wanted:
            got = "none" if vectors is None else f"an array of shape {vectors.shape}"
            what = "codes" if metric.kind == "bits" else "embeddings"
            raise ArchiveError(f"the model gave {got} for {what} of shape {wanted}")
        return vectors

    def _vectors_of(self, queries: Sequence[Query]) -> NDArray[Any]:
        """(Q, width) vectors of `queries`; the images among them are encoded in one call."""
        vectors = np.empty(
            (len(queries), metric_named(self.metric).width(self.dimension)), self._dtype
        )
        images: dict[int, NDArray[np.uint8]] = {}
        for place, query in enumerate(queries):
            if isinstance(query, str | Path):
                tile = read_tile(Path(query))
                self._check_bands(tile)
                images[place] = tile.pixels
                continue
            array = np.asarray(query)
            if array.ndim == 3:
                images[place] = self._checked_pixels(array)
            elif array.ndim == 1:
                metric = metric_named(self.metric)
                vectors[place] = metric.check(array[None], self.dimension, "the query")[0]
            else:
                raise UsageError(
                    "a query is an image file, pixels (C, H, W) uint8, or a vector "
                    f"({self.dimension} long), not a {array.ndim}-D array"
                )
        if images:
            vectors[list(images)] = self._encode(list(images.values()))
        return vectors

    def _checked_pixels(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if pixels.dtype != np.uint8 or pixels.shape[0] != len(self.bands) or not pixels.size:
            raise UsageError(
                f"an image is a (C, H, W) uint8 array of the bands {', '.join(self.bands)}, not "
                f"{pixels.shape} {pixels.dtype}"
            )
        return pixels

    def _check_bands(self, tile: Tile) -> None:
        if tile.bands != self.bands:
            raise ImageError(
                f"{tile.source}: has the bands {', '.join(tile.bands)}, the archive's model "
                f"takes {', '.join(self.bands)}"
            )

    def _hit(self, neighbour: Neighbour) -> Hit:
        record = neighbour.record
        return Hit(
            id=record.id,
            score=score(self.metric, neighbour.distance, bits=self.dimension),
            distance=neighbour.distance,
            source=record.source,
            footprint=record.footprint,
            datetime=record.datetime,
            properties=record.properties,
        )


def _compared(encoding: Encoding, metric: Metric) -> NDArray[Any] | None:
    """What `metric` compares of `encoding`, (B, width); None if the model did not give it."""
    if metric.kind == "float":
        return encoding.embedding
    if not metric.classes:
        return encoding.code
    if encoding.code is None or encoding.probabilities is None:
        return None
    return packed(encoding.code, encoding.probabilities)


def _is_gone(source: str) -> bool:
    if not Path(source).is_absolute():
        return False
    try:
        Path(source).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _read_about(path: Path) -> dict[str, Any]:
    try:
        text = (path / ABOUT).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        if (path / _NEW).exists():
            raise ArchiveError(
                f"the creation of the archive {path} was cut off; create it again"
            ) from error
        raise ArchiveError(
            f"{path} is not an archive (it has no {ABOUT}); check the path, or index into it first"
        ) from error
    except OSError as error:
        raise ArchiveError(f"{path / ABOUT} cannot be read ({error.strerror})") from error
    damaged = f"{path / ABOUT} is damaged; restore it from a copy, or index into a new archive"
    try:
        about = json.loads(text)
    except ValueError as error:
        raise ArchiveError(f"{damaged} ({error})") from error
    if not isinstance(about, dict):
        raise ArchiveError(damaged)
    if about.get("format") != FORMAT:
        raise ArchiveError(
            f"{path / ABOUT} has the format {about.get('format')!r}, this rsir reads {FORMAT!r}; "
            "use the rsir that made it, or index into a new archive"
        )
    kinds = {
        "rsir": str,
        "created": str,
        "metric": str,
        "dimension": int,
        "fingerprint": str,
        "bands": list,
    }
    for name, kind in kinds.items():
        if not isinstance(about.get(name), kind):
            raise ArchiveError(f"{damaged} ('{name}' is missing or of the wrong kind)")
    return about


def _model_names(folder: Path) -> dict[str, str]:
    """The method and the backbone that the model's card names, as far as it has them."""
    try:
        card = json.loads((folder / "model.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(card, dict):
        return {}
    return {name: card[name] for name in ("method", "backbone") if isinstance(card.get(name), str)}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON so that `path` is either as before or whole, even after a power cut."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
