"""Distances of a block of embeddings to a gallery, by matrix products, for evaluation.

They equal those of `rsir.ranking` up to rounding: matrix products are fast, but their rounding
depends on the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rsir.errors import DataError


@dataclass(frozen=True)
class Distance:
    """A distance computed by matrix products, on any device: `between` of prepared vectors.

    prepare: (Q, D), (N, D) float32 → both as `between` takes them; DataError if their distances
    would not be finite. between: (Q, D), (N, D) → (Q, N) float32.
    """

    prepare: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    between: Callable[[Tensor, Tensor], Tensor]


def differing_signs(queries: Tensor, gallery: Tensor) -> Tensor:
    """(Q, N) float32: how many of the D values, all 1 or -1, differ."""
    # (D - q · g) / 2: small integers, so exact.
    return _product(queries, gallery).sub_(queries.shape[1]).div_(-2)


def _product(queries: Tensor, gallery: Tensor) -> Tensor:
    # On the CPU NumPy's product takes 0.8 of the time of torch's on the machine of
    # docs/evaluation.md. Both share the tensors' memory.
    if queries.device.type != "cpu":
        return queries @ gallery.T
    return torch.from_numpy(queries.numpy() @ gallery.numpy().T)


def _of_each(
    change: Callable[[Tensor], Tensor],
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A `prepare` that applies `change` to both tensors, once if they are the same."""

    def prepare(queries: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
        changed = change(gallery)
        return changed if queries is gallery else change(queries), changed

    return prepare


def _unit(vectors: Tensor) -> Tensor:
    # Scale the largest value to 1 first, so that no square overflows or underflows.
    unit: Tensor = vectors / torch.linalg.vector_norm(vectors, torch.inf, dim=1, keepdim=True)
    return unit.div_(torch.linalg.vector_norm(unit, dim=1, keepdim=True))


def _centred_unit(vectors: Tensor) -> Tensor:
    # In float64: in float32 the rounding error of a mean far from 0 would distort the vector.
    vectors = vectors.double()
    return _unit(vectors - vectors.mean(dim=1, keepdim=True)).float()


def _around_mean(queries: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    # A common offset does not change distances, but costs digits in a matrix product.
    middle = gallery.mean(dim=0, dtype=torch.float64)
    around = _of_each(lambda vectors: vectors.double().sub_(middle))(queries, gallery)
    reach = sum(float(torch.linalg.vector_norm(part, dim=1).max()) for part in around)
    if reach > torch.finfo(torch.float32).max:
        raise DataError("the model gives values so large that their distances are not finite")
    return around


def _signs(vectors: Tensor) -> Tensor:
    return torch.where(vectors > 0, 1.0, -1.0)


def _one_minus_dot(queries: Tensor, gallery: Tensor) -> Tensor:
    return _product(queries, gallery).neg_().add_(1)


def _root_of_squares(queries: Tensor, gallery: Tensor) -> Tensor:
    # In float64, because the result is a small difference of large numbers.
    squares = _product(queries, gallery).mul_(-2)
    squares += queries.square().sum(dim=1)[:, None]
    squares += gallery.square().sum(dim=1)
    return squares.clamp_(min=0).sqrt_().float()


DISTANCES: Mapping[str, Distance] = {
    "cosine": Distance(_of_each(_unit), _one_minus_dot),
    "euclidean": Distance(_around_mean, _root_of_squares),
    "ncc": Distance(_of_each(_centred_unit), _one_minus_dot),
    "hamming": Distance(_of_each(_signs), differing_signs),
}
"""The metrics of `rsir.ranking`; "hamming" takes relaxed codes, whose signs are the bits."""
