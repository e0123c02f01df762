"""What queries are compared with: the vectors of a store, and the model that made them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.encoder import Encoder, load_encoder, vectors_for_metric
from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.folder.manifest import MODEL
from rsir.archive.search.calibration import Calibration
from rsir.errors import ArchiveError, ImageError
from rsir.ranking import Metric, metric_named
from rsir.store.base import APPROXIMATE, Store
from rsir.types import Tile

SAMPLE = 5000
"""Vectors, picked at random, that the calibration is made from. Our choice: 10 MB of 512 floats;
100 of them are compared with 200 others each."""

_CALIBRATION_GROWTH = 0.1
_CALIBRATION_SECONDS = 300.0
"""The calibration is made again when the number of records has changed by this share, and after so
many seconds, because images may have been replaced. Our choice."""


class Gallery:
    """The store of an archive, its model, and the calibration of its distances.

    store: the records and vectors. path: the archive's folder, which holds a copy of the model.
    fingerprint, bands: those of the model. encoder: the model; None: loaded when first used.
    version: the number of the store's version if it is an earlier one, which cannot change.
    """

    def __init__(
        self,
        store: Store,
        *,
        path: Path,
        fingerprint: str,
        bands: tuple[str, ...],
        encoder: Encoder | None = None,
    ) -> None:
        self.store = store
        self.path = path
        self.fingerprint = fingerprint
        self.bands = bands
        self.version: int | None = None
        self.loaded_encoder = None if encoder is None else self._checked(encoder)
        self._calibrations: dict[str, tuple[float, int, Calibration]] = {}

    @property
    def metric(self) -> Metric:
        """The distance of the archive's own ranking."""
        return metric_named(self.store.metric)

    @property
    def dimension(self) -> int:
        """D of the embeddings, or bits of the codes."""
        return self.store.dimension

    @property
    def width(self) -> int:
        """Numbers or bytes of a vector."""
        return self.metric.width(self.dimension)

    @property
    def dtype(self) -> type[np.uint8] | type[np.float32]:
        """Of the vectors: bytes for hash codes, float32 for embeddings."""
        return np.uint8 if self.metric.kind == "bits" else np.float32

    @property
    def encoder(self) -> Encoder:
        """The model, loaded when first used; ArchiveError if the copy is another model."""
        if self.loaded_encoder is None:
            self.loaded_encoder = self._checked(load_encoder(self.path / MODEL))
        return self.loaded_encoder

    def __len__(self) -> int:
        with translate_store_errors(self.path):
            return len(self.store)

    def vectors(self, ids: Sequence[str]) -> NDArray[Any]:
        """(N, width) vectors under `ids`, in that order; ArchiveError for an unknown id."""
        with translate_store_errors(self.path):
            rows = [vector for _, vector in self.store.get(ids)]
        return np.stack(rows) if rows else np.empty((0, self.width), self.dtype)

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        """(N, width) vectors of images (C, H, W) uint8, as the store keeps them.

        Raises DataError for an image that the model cannot take, ArchiveError for a model that
        does not give what the archive compares.
        """
        vectors = vectors_for_metric(self.encoder.encode(images), self.metric)
        wanted = (len(images), self.width)
        if vectors is None or vectors.shape != wanted:
            got = "none" if vectors is None else f"an array of shape {vectors.shape}"
            kind = "codes" if self.metric.kind == "bits" else "embeddings"
            raise ArchiveError(f"the model gave {got} for {kind} of shape {wanted}")
        return vectors

    def check_bands(self, tile: Tile) -> None:
        """ImageError if a tile has other bands than the model takes."""
        if tile.bands != self.bands:
            raise other_bands(tile, self.bands)

    def distance_of(self, ranking: str | None) -> str:
        """The name of the distance of a ranking's hits; None: the archive's own ranking."""
        own = ranking in (None, APPROXIMATE)
        return self.store.metric if own else str(ranking)

    def calibration(self, ranking: str | None = None) -> Calibration:
        """The distances of random pairs of the archive, from which percentiles are computed."""
        name = self.distance_of(ranking)
        count, now = len(self), time.monotonic()
        if name in self._calibrations:
            made, old_count, calibration = self._calibrations[name]
            recent = now - made < _CALIBRATION_SECONDS
            if recent and abs(count - old_count) <= _CALIBRATION_GROWTH * old_count:
                return calibration
        with translate_store_errors(self.path):
            vectors = self.store.sample(SAMPLE)
        if name == "hamming" and self.metric.classes:
            vectors = vectors[:, : metric_named(name).width(self.dimension)]
        calibration = Calibration.of(name, vectors)
        self._calibrations[name] = (now, count, calibration)
        return calibration

    def _checked(self, encoder: Encoder) -> Encoder:
        if encoder.fingerprint != self.fingerprint:
            raise ArchiveError(
                f"{self.path} belongs to the model {self.fingerprint}, not to "
                f"{encoder.fingerprint}; use its own model, or index into another archive"
            )
        return encoder


def other_bands(tile: Tile, bands: tuple[str, ...]) -> ImageError:
    """The error for a tile whose bands are not those of the model."""
    return ImageError(
        f"{tile.source}: has the bands {', '.join(tile.bands)}, the archive's model takes "
        f"{', '.join(bands)}"
    )
