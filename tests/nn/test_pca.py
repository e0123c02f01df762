from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rsir.errors import DataError
from rsir.nn.pca import PCA


def correlated(count: int, width: int) -> Tensor:
    """Features with different variances in all directions, and a mean."""
    generator = torch.Generator().manual_seed(1)
    scales = torch.linspace(3, 0.2, width)
    turned = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return torch.randn(count, width, generator=generator) * scales @ turned + 5


def oracle(features: Tensor, length: int) -> tuple[np.ndarray, float]:
    """Projections and kept variance by NumPy's SVD; largest entries of components positive."""
    values = features.double().numpy()
    centred = values - values.mean(axis=0)
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    for row in components:
        row *= np.sign(row[np.abs(row).argmax()])
    kept = (singular[:length] ** 2).sum() / (singular**2).sum()
    return centred @ components[:length].T, float(kept)


@pytest.mark.parametrize(("count", "width", "length"), [(50, 8, 3), (50, 8, 8), (9, 20, 5)])
def test_the_projection_agrees_with_numpys_svd(count: int, width: int, length: int) -> None:
    features = correlated(count, width)
    pca = PCA(width, length)
    kept = pca.fit(features)
    expected, share = oracle(features, length)
    np.testing.assert_allclose(pca(features).numpy(), expected, atol=1e-4)
    assert kept == pytest.approx(share, rel=1e-9)
    assert pca.fitted


def test_the_order_of_the_images_does_not_matter() -> None:
    features = correlated(40, 6)
    one, other = PCA(6, 4), PCA(6, 4)
    one.fit(features)
    other.fit(features.flip(0))
    torch.testing.assert_close(one.components, other.components)
    torch.testing.assert_close(one.mean, other.mean)


def test_components_without_variance_are_zero() -> None:
    features = correlated(4, 10)  # four points span three directions
    pca = PCA(10, 6)
    assert pca.fit(features) == pytest.approx(1)
    assert not pca.components[3:].any()
    expected, _ = oracle(features, 3)
    np.testing.assert_allclose(pca(features)[:, :3].numpy(), expected, atol=1e-4)


def test_a_large_mean_adds_no_variance() -> None:
    features = torch.full((20, 5), 1e4) + torch.arange(20.0)[:, None] * torch.eye(5)[0]
    pca = PCA(5, 3)
    pca.fit(features)
    assert pca.components[0].tolist() == pytest.approx([1, 0, 0, 0, 0])
    assert not pca.components[1:].any()


@pytest.mark.parametrize("count", [0, 1, 7])
def test_equal_features_have_no_components(count: int) -> None:
    pca = PCA(5, 2)
    with pytest.raises(DataError, match=f"the features of the {count} images do not differ"):
        pca.fit(torch.full((count, 5), 0.1))
    assert not pca.fitted


def test_values_that_are_not_finite_are_refused() -> None:
    features = correlated(5, 4)
    features[2, 1] = torch.nan
    with pytest.raises(DataError, match="not finite"):
        PCA(4, 2).fit(features)


def test_the_fit_is_saved_in_the_state_and_has_no_gradient() -> None:
    saved, loaded = PCA(6, 2), PCA(6, 2)
    saved.fit(correlated(30, 6))
    loaded.load_state_dict(saved.state_dict())
    assert loaded.fitted
    features = correlated(3, 6)
    assert torch.equal(loaded(features), saved(features))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_projection_is_float32_inside_autocast() -> None:
    pca, features = PCA(6, 2), correlated(30, 6)
    pca.fit(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pca(features), pca(features.float()))
        assert pca(features.bfloat16()).dtype == torch.float32
