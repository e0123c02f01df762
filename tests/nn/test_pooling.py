from __future__ import annotations

import math

import pytest
import torch

from rsir.errors import UsageError
from rsir.nn.pooling import MAC, SMALLEST_ACTIVATION, GeM, SPoC, pooling


def loop_gem(features: torch.Tensor, p: float) -> torch.Tensor:
    B, C, h, w = features.shape
    out = torch.zeros(B, C)
    for b in range(B):
        for c in range(C):
            powers = [max(float(v), SMALLEST_ACTIVATION) ** p for v in features[b, c].reshape(-1)]
            out[b, c] = (sum(powers) / (h * w)) ** (1 / p)
    return out


@pytest.mark.parametrize("p", [1.0, 2.5, 3.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_gem_agrees_with_eq_3(p: float, size: tuple[int, int]) -> None:
    features = torch.rand(2, 3, *size) - 0.2
    torch.testing.assert_close(GeM(p)(features), loop_gem(features, p), rtol=1e-4, atol=1e-6)


def test_gem_ranges_from_spoc_to_mac() -> None:
    features = torch.rand(2, 3, 4, 4) + 0.1
    torch.testing.assert_close(GeM(1.0)(features), SPoC()(features))
    torch.testing.assert_close(GeM(200.0)(features), MAC()(features), rtol=0.02, atol=0)


def test_spoc_and_mac_are_mean_and_maximum() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, -6.0]]]])
    assert SPoC()(features).tolist() == [[0.0]]
    assert MAC()(features).tolist() == [[3.0]]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 2)])
@pytest.mark.parametrize("batch", [1, 2])
def test_spoc_and_mac_and_their_gradients_agree_with_a_loop(
    size: tuple[int, int], batch: int
) -> None:
    features = torch.randn(batch, 3, *size, requires_grad=True)
    direction = torch.randn(batch, 3)
    means, maxima = torch.zeros(batch, 3), torch.zeros(batch, 3)
    of_mean, of_maximum = torch.zeros(batch, 3, *size), torch.zeros(batch, 3, *size)
    for b in range(batch):
        for c in range(3):
            values = features[b, c].flatten().tolist()
            means[b, c], maxima[b, c] = sum(values) / len(values), max(values)
            for position, value in enumerate(values):
                i, j = divmod(position, size[1])
                of_mean[b, c, i, j] = direction[b, c] / len(values)
                of_maximum[b, c, i, j] = direction[b, c] * (value == max(values))
    for pool, value, slope in ((SPoC(), means, of_mean), (MAC(), maxima, of_maximum)):
        found = pool(features)
        torch.testing.assert_close(found, value)
        (got,) = torch.autograd.grad((found * direction).sum(), features)
        torch.testing.assert_close(got, slope)


@pytest.mark.parametrize("p", [1.0, 2.5, 3.0, 4.7])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
@pytest.mark.parametrize("batch", [1, 2])
def test_gem_has_the_gradient_of_eq_3(p: float, size: tuple[int, int], batch: int) -> None:
    features = (torch.rand(batch, 3, *size) - 0.2).requires_grad_()
    gem, direction = GeM(p), torch.randn(batch, 3)
    slope_of_p, slopes = 0.0, torch.zeros(batch, 3, *size)
    for b in range(batch):
        for c in range(3):
            values = features[b, c].flatten().tolist()
            clamped, n = [max(v, SMALLEST_ACTIVATION) for v in values], len(values)
            mean = sum(v**p for v in clamped) / n
            weight = float(direction[b, c])
            for position, (value, v) in enumerate(zip(values, clamped, strict=True)):
                i, j = divmod(position, size[1])
                if value > SMALLEST_ACTIVATION:
                    slopes[b, c, i, j] = weight * mean ** (1 / p - 1) * v ** (p - 1) / n
            logs = sum(v**p * math.log(v) for v in clamped) / n
            pooled = mean ** (1 / p)
            slope_of_p += weight * pooled * (logs / (mean * p) - math.log(mean) / p**2)
    loss = (gem(features) * direction).sum()
    got, got_p = torch.autograd.grad(loss, (features, gem.p))
    torch.testing.assert_close(got, slopes, rtol=1e-3, atol=1e-5)
    assert got_p.item() == pytest.approx(slope_of_p, rel=1e-3, abs=1e-5)


def test_gem_learns_p_and_keeps_finite_gradients_at_zero() -> None:
    gem = GeM()
    features = torch.zeros(1, 2, 3, 3, requires_grad=True)
    gem(features).sum().backward()
    assert gem.p.grad is not None
    assert torch.isfinite(gem.p.grad)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert not GeM(learnable=False).p.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gem_is_computed_in_float32(dtype: torch.dtype) -> None:
    features = torch.full((1, 1, 2, 2), 100.0, dtype=dtype)  # 100³ is beyond float16
    with torch.autocast("cpu", torch.bfloat16):
        assert GeM()(features).item() == pytest.approx(100.0, rel=1e-3)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(UsageError, match="spoc, mac, gem"):
        pooling("median")
