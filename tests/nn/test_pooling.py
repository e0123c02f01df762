from __future__ import annotations

import pytest
import torch

from rsir.errors import UsageError
from rsir.nn.pooling import EPSILON, MAC, GeM, SPoC, pooling


def loop_gem(features: torch.Tensor, p: float) -> torch.Tensor:
    B, C, h, w = features.shape
    out = torch.zeros(B, C)
    for b in range(B):
        for c in range(C):
            powers = [max(float(v), EPSILON) ** p for v in features[b, c].reshape(-1)]
            out[b, c] = (sum(powers) / (h * w)) ** (1 / p)
    return out


@pytest.mark.parametrize("p", [1.0, 2.5, 3.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_gem_is_eq_3(p: float, size: tuple[int, int]) -> None:
    features = torch.rand(2, 3, *size) - 0.2
    torch.testing.assert_close(GeM(p)(features), loop_gem(features, p), rtol=1e-4, atol=1e-6)


def test_gem_goes_from_spoc_to_mac() -> None:
    features = torch.rand(2, 3, 4, 4) + 0.1
    torch.testing.assert_close(GeM(1.0)(features), SPoC()(features))
    torch.testing.assert_close(GeM(200.0)(features), MAC()(features), rtol=0.02, atol=0)


def test_spoc_and_mac_are_mean_and_maximum() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, -6.0]]]])
    assert SPoC()(features).tolist() == [[0.0]]
    assert MAC()(features).tolist() == [[3.0]]


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


def test_an_unknown_pooling_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="spoc, mac, gem"):
        pooling("median")
