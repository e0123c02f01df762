"""Compare a distance with the distances of random pairs of an archive.

Distances of different models are not comparable: a score of 0.8 may mean a duplicate or an average
pair. The percentile of a distance is the percentage of random pairs of the archive's images that
are farther apart, and is comparable between models and archives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsir.ranking import Metric, pairwise

PAIRS = 20_000
"""Number of random pairs. Our choice: they estimate a chance of 1 in 1,000 to within a fifth."""
QUERIES = 100
"""Number of images in these pairs that are compared with PAIRS / QUERIES others each."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The distances of random pairs of an archive, ascending, (P,) float64."""

    distances: NDArray[np.float64]

    @classmethod
    def of(cls, metric: str | Metric, vectors: NDArray[np.generic], seed: int = 0) -> Calibration:
        """The calibration from vectors (N, width) of an archive, or of a random sample; N may be 0.

        seed: the same vectors and seed give the same pairs.
        """
        count = len(vectors)
        if count < 2:
            return cls(np.empty(0))
        random = np.random.default_rng(seed)
        queries = random.choice(count, min(QUERIES, count), replace=False)
        found = []
        for query in queries:
            others = random.choice(count - 1, min(PAIRS // QUERIES, count - 1), replace=False)
            others += others >= query  # never the query itself
            found.append(pairwise(metric, vectors[[query]], vectors[others])[0])
        return cls(np.sort(np.concatenate(found)))

    @property
    def highest(self) -> float:
        """The highest possible percentile: of a distance nearer than all pairs."""
        return 100 * (1 - 1 / (len(self.distances) + 1))

    def chance(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) in (0, 1]: the chance that a random pair is as near.

        Never 0: a distance nearer than all P pairs has the chance 1 / (P + 1).
        """
        nearer = np.searchsorted(self.distances, distances, side="right")
        return (nearer + 1) / (len(self.distances) + 1)

    def percentile(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) in [0, 100): the percentage of random pairs that are farther apart."""
        return 100 * (1 - self.chance(distances))
