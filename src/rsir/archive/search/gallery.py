"""The gallery of a search: the vectors of a store, and the model that encoded them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.encoder import ImageEncoder, load_encoder, vectors_for_metric
from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.folder.manifest import MODEL
from rsir.archive.search.calibration import Calibration
from rsir.errors import ArchiveError, ImageError
from rsir.ranking import Metric, metric_named
from rsir.store.base import APPROXIMATE, Store
from rsir.types import Tile

SAMPLE = 5000
"""Number of vectors, picked at random, for the calibration. Our choice: 10 MB of 512 floats; 100 of
them are compared with 200 others each."""

_CALIBRATION_GROWTH = 0.1
_CALIBRATION_SECONDS = 300.0
"""The calibration is computed again if the number of records has changed by more than
`_CALIBRATION_GROWTH` of it, and after `_CALIBRATION_SECONDS`, because images may have been
replaced. Our choice."""


class Gallery:
    """The store of an archive, its model, and the calibration of its distances.

    store: the records and vectors. path: the archive's folder, which holds a copy of the model.
    fingerprint, bands: of the model. encoder: the model; None: loaded on first use. version: the
    number of an earlier version of the store, which cannot be changed; None: the latest version.
    """

    def __init__(
        self,
        store: Store,
        *,
        path: Path,
        fingerprint: str,
        bands: tuple[str, ...],
        encoder: ImageEncoder | None = None,
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
        """The dtype of the vectors: uint8 for hash codes, float32 for embeddings."""
        return np.uint8 if self.metric.kind == "bits" else np.float32

    @property
    def encoder(self) -> ImageEncoder:
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
        """The vectors (N, width) for the store of images (C, H, W) uint8.

        Raises DataError for an image that the model cannot encode, ArchiveError for a model that
        does not return the vectors that the archive compares.
        """
        vectors = vectors_for_metric(self.encoder.encode(images), self.metric)
        shape = (len(images), self.width)
        if vectors is None or vectors.shape != shape:
            returned = "none" if vectors is None else f"an array of shape {vectors.shape}"
            kind = "codes" if self.metric.kind == "bits" else "embeddings"
            raise ArchiveError(f"the model returned {returned} for {kind} of shape {shape}")
        return vectors

    def check_bands(self, tile: Tile) -> None:
        """ImageError if a tile has other bands than the model."""
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
            computed, old_count, calibration = self._calibrations[name]
            recent = now - computed < _CALIBRATION_SECONDS
            if recent and abs(count - old_count) <= _CALIBRATION_GROWTH * old_count:
                return calibration
        with translate_store_errors(self.path):
            vectors = self.store.sample(SAMPLE)
        if name == "hamming" and self.metric.classes:
            vectors = vectors[:, : metric_named(name).width(self.dimension)]
        calibration = Calibration.of(name, vectors)
        self._calibrations[name] = (now, count, calibration)
        return calibration

    def _checked(self, encoder: ImageEncoder) -> ImageEncoder:
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
