"""The rounding error of float32 distance kernels, of FAISS and of Milvus."""

from __future__ import annotations

import math

import numpy as np

_UNIT_ROUNDOFF = 2.0**-24
"""The unit roundoff of float32 (IEEE 754, round to nearest)."""

_FLOAT32 = np.finfo(np.float32)

UNIT_TOLERANCE = 1e-5
"""A vector whose squared length differs from 1 by no more than this counts as a unit vector. Our
choice: float32 normalisation leaves about 1e-7; half-precision encoders leave more than the
tolerance, and their vectors are normalised again."""


def rounding_error(
    dimension: int, query_length: float, row_length: float, *, euclidean: bool
) -> float:
    """A bound on the error of a kernel's float32 value; inf where float32 may overflow.

    The value is the squared distance (euclidean) or one minus the inner product of unit vectors,
    between a query of length `query_length` and a row of at most `row_length`.

    A float32 inner product of D terms, summed in any order, is within γ_D |x||y| of the true one,
    γ_n = n u / (1 - n u) (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
    section 3.1). The same holds for the squared distance, computed directly or as
    |x|² - 2xy + |y|², with (|x| + |y|)² in place of |x||y| and a few more terms. The 16 extra
    steps cover those terms, the rounding of the unit vectors, and the float64 steps around the
    kernel; the slack covers vectors that are unit vectors only within `UNIT_TOLERANCE`; the last
    term covers products that underflow.
    """
    steps = dimension + 16
    if steps * _UNIT_ROUNDOFF > 0.5:
        return math.inf
    gamma = steps * _UNIT_ROUNDOFF / (1 - steps * _UNIT_ROUNDOFF)
    scale = (query_length + row_length) ** 2 if euclidean else query_length * row_length
    if scale > float(_FLOAT32.max) / 4:
        return math.inf
    slack = 0.0 if euclidean else 2 * UNIT_TOLERANCE
    return gamma * scale + slack + steps * float(_FLOAT32.tiny)
