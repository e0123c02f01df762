"""How remarkable a distance is in an archive, compared with distances of random pairs.

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
"""Random pairs that are compared. Our choice: they tell a chance of 1 in 1,000 to a fifth."""
QUERIES = 100
"""Images among them; each is compared with PAIRS / QUERIES others."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The distances of random pairs of an archive, ascending, (P,) float64."""

    distances: NDArray[np.float64]

    @classmethod
    def of(cls, metric: str | Metric, vectors: NDArray[np.generic], seed: int = 0) -> Calibration:
        """From vectors (N, width) of an archive, or of a random sample of it; N may be 0.

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
        """The percentile of a distance nearer than all pairs: no higher one can be told."""
        return 100 * (1 - 1 / (len(self.distances) + 1))

    def chance(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) in (0, 1]: the chance that a random pair is as near.

        Never 0: a distance nearer than all P pairs has the chance 1 / (P + 1).
        """
        nearer = np.searchsorted(self.distances, distances, side="right")
        return (nearer + 1) / (len(self.distances) + 1)

    def percentile(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) in [0, 100): nearer than so many per cent of random pairs."""
        return 100 * (1 - self.chance(distances))
