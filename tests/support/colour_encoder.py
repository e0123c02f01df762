"""A small real encoder: colours on a coarse grid and their histogram, projected."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsir.errors import DataError
from rsir.ranking import metric_named
from rsir.types import Encoding


class ColourEncoder:
    bands = ("red", "green", "blue")

    def __init__(self, ranking: str = "euclidean", dimension: int = 16, seed: int = 0) -> None:
        self.ranking = ranking
        self.dimension = dimension
        self.seed = seed
        self.encoded = 0
        self.projection = np.random.default_rng(seed).standard_normal((24, dimension))

    @property
    def fingerprint(self) -> str:
        return f"colour-{self.ranking}-{self.dimension}-{self.seed}"

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Encoding:
        # One image at a time: the summation order of a matrix product depends on its shape.
        features = np.stack([self._features(image) @ self.projection for image in images])
        self.encoded += len(images)
        metric = metric_named(self.ranking)
        code = np.packbits(features > 0, axis=1) if metric.kind == "bits" else None
        # A class for each of the first features.
        powers = np.exp(3 * features[:, : metric.classes])
        probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return Encoding(
            features.astype(np.float32), code, probabilities if metric.classes else None
        )

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        card = {"fingerprint": self.fingerprint, "method": "colour", "backbone": "none"}
        (folder / "model.json").write_text(json.dumps(card))

    def _features(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        if min(image.shape[1:]) < 4:
            raise DataError("is smaller than 4 × 4")
        values = image / 255
        rows, columns = image.shape[1] // 2, image.shape[2] // 2
        grid = [
            values[:, r * rows : (r + 1) * rows, c * columns : (c + 1) * columns].mean((1, 2))
            for r in (0, 1)
            for c in (0, 1)
        ]
        bins = [np.bincount(band.ravel() >> 6, minlength=4) / band.size for band in image]
        return np.concatenate([*grid, *bins])
