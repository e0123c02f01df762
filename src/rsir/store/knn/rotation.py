"""Vectors turned for approximate search: Euclidean distances, and signs that say about as much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.store.knn.flat import unit

_LEAST_BITS = 256
"""Our choice: short vectors get more signs than dimensions, by a rotation in a larger space."""

_SATURATED = 0.5
"""Vectors within [-1, 1] whose values are this far from 0 in the mean are taken as relaxed hash
codes (tanh outputs), whose signs are the codes themselves. Our choice: a trained hashing network's
are beyond 0.9, those of unit vectors of D values near 1 / sqrt(D)."""


@dataclass(frozen=True, eq=False)
class Space:
    """Turns vectors (N, D) so that Euclidean distances order them as the metric does.

    mean (D,) and rotation (B, D), float32, with orthonormal columns; None for relaxed hash codes,
    which stay as they are. scale: of Euclidean vectors, so that no square overflows.
    """

    metric: str
    scale: float
    mean: NDArray[np.float32]
    rotation: NDArray[np.float32] | None

    @classmethod
    def of(cls, metric: str, sample: NDArray[np.float32], largest: float) -> Space:
        """The space for vectors like those of `sample` (n, D), n at least 1.

        largest: the greatest absolute value of all vectors.
        """
        dimension = sample.shape[1]
        scale = 1 / largest if metric == "euclidean" and largest > 0 else 1.0
        if largest <= 1 and float(np.abs(sample).mean()) >= _SATURATED:
            return cls(metric, 1.0, np.zeros(dimension, np.float32), None)
        plain = cls(metric, scale, np.zeros(dimension, np.float32), None)
        mean = plain(sample).mean(axis=0, dtype=np.float64).astype(np.float32)
        bits = max(_LEAST_BITS, -(-dimension // 64) * 64)
        normal = np.random.default_rng(0).standard_normal((bits, bits))
        rotation = np.linalg.qr(normal)[0][:, :dimension].astype(np.float32)
        return cls(metric, scale, mean, np.ascontiguousarray(rotation))

    @property
    def width(self) -> int:
        """B: coordinates of a turned vector."""
        return len(self.mean) if self.rotation is None else len(self.rotation)

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """`vectors` (N, D) turned, (N, B) float32."""
        if self.metric == "euclidean":
            # In float64, as the smallest of scales is none of float32.
            compared: NDArray[Any] = (vectors * np.float64(self.scale)).astype(np.float32)
        else:
            compared = unit(vectors, self.metric == "ncc")
        if self.rotation is not None:
            compared = (compared - self.mean) @ self.rotation.T
        return np.ascontiguousarray(compared)


def signs(turned: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Codes (N, ceil(B / 8)) of turned vectors; a bit is 1 above 0, as in a stored hash code."""
    return np.packbits(turned > 0, axis=1)
