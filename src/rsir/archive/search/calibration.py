"""How remarkable a distance is in an archive: compared with that of images picked at random.

Distances of one model mean nothing beside those of another, and a score of 0.8 may be a twin or
the usual. The percentile says how many per cent of random pairs of the archive's images are farther
apart, which is comparable between models and archives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsir.ranking import Metric, pairwise

PAIRS = 20_000
"""Random pairs that are compared; our choice: chances down to 1 in 1,000 are known to a fifth."""
QUERIES = 100
"""Images whose distances to PAIRS / QUERIES others each are taken."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The distances of random pairs of an archive, ascending, (P,) float64."""

    distances: NDArray[np.float64]

    @classmethod
    def of(cls, metric: str | Metric, vectors: NDArray[np.generic], seed: int = 0) -> Calibration:
        """From vectors (N, width) of an archive, or of a random sample of it; N may be 0."""
        count = len(vectors)
        if count < 2:
            return cls(np.empty(0))
        random = np.random.default_rng(seed)
        queries = random.choice(count, min(QUERIES, count), replace=False)
        found = []
        for query in queries:
            others = random.choice(count - 1, min(PAIRS // QUERIES, count - 1), replace=False)
            others += others >= query  # never itself
            found.append(pairwise(metric, vectors[[query]], vectors[others])[0])
        return cls(np.sort(np.concatenate(found)))

    @property
    def highest(self) -> float:
        """The highest percentile that this many pairs can tell: nearer than all of them."""
        return 100 * (1 - 1 / (len(self.distances) + 1))

    def chance(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """The chance that a random pair is as near: (N,) in (0, 1].

        Never 0: a pair nearer than all P that were seen has 1 / (P + 1).
        """
        nearer = np.searchsorted(self.distances, distances, side="right")
        return (nearer + 1) / (len(self.distances) + 1)

    def percentile(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) in [0, 100): nearer than so many per cent of random pairs."""
        return 100 * (1 - self.chance(distances))
