"""Principal component analysis as a layer: fitted, not trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rsir.errors import DataError


class PCA(nn.Module):
    """The first `length` principal components of (B, F) features.

    `fitted`, () bool, is false before `fit`; forward() must not be called then. The mean and the
    components are parameters without gradient, saved and counted with the model's weights.
    """

    def __init__(self, features: int, length: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(features), requires_grad=False)
        self.components = nn.Parameter(torch.zeros(length, features), requires_grad=False)
        self.fitted: Tensor
        self.register_buffer("fitted", torch.tensor(False))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) → (B, length) float32, centred and projected; not whitened."""
        with torch.autocast(features.device.type, enabled=False):
            return (features.float() - self.mean) @ self.components.T

    @torch.no_grad()
    def fit(self, features: Tensor) -> float:
        """Fit to (N, F) features; returns the share of their variance that is kept, 0 … 1.

        Computed in float64 from the eigenvectors of the covariance. Their signs are arbitrary, but
        correlation coefficients between projections depend on them. So each component's entry of
        largest magnitude is made positive (as in scikit-learn).

        If the features have a rank below `length` (for example from fewer than length + 1 images),
        the last components are zero, not arbitrary directions. Raises DataError if there is no
        variance at all, or if a value is not finite.
        """
        if not torch.isfinite(features).all():
            raise DataError("the features have values that are not finite; nothing was fitted")
        values = features.cpu().double()
        mean = values.mean(dim=0) if len(values) else torch.zeros_like(self.mean)
        centred = values - mean
        # In ascending order: the last eigenvectors are the first components.
        variances, vectors = torch.linalg.eigh(centred.T @ centred)
        variances, components = variances.flip(0).clamp(min=0), vectors.T.flip(0)
        rounding = max(values.shape) * torch.finfo(torch.float64).eps
        rank = int((variances > rounding * values.square().sum()).sum())
        if rank == 0:
            raise DataError(
                f"the features of the {len(values)} images do not differ, so they have no "
                "principal components; use more, or different, images"
            )
        components[rank:] = 0
        peaks = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
        components = components * peaks.sign()
        length = len(self.components)
        self.mean.copy_(mean)
        self.components.copy_(components[:length])
        self.fitted.fill_(True)
        return float(variances[:length].sum() / variances.sum())
