from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rsir.errors import UsageError
from rsir.nn.residual_attention import (
    ACTIVATIONS,
    ResidualAttention,
    ResidualUnit,
    SoftMask,
    channel,
    mixed,
    spatial,
)

SIZES = [(1, 1), (3, 5), (4, 4)]


def loop(name: str, x: Tensor) -> Tensor:
    """Eqs 4 to 6, one number at a time."""
    out = torch.empty_like(x)
    B, C, h, w = x.shape
    for b in range(B):
        for c in range(C):
            values = [float(v) for v in x[b, c].flatten()]
            mean = sum(values) / len(values)
            std = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
            for i in range(h):
                for j in range(w):
                    v = float(x[b, c, i, j])
                    if name == "mixed":
                        out[b, c, i, j] = 1 / (1 + math.exp(-v))
                    elif name == "channel":
                        norm = math.sqrt(sum(float(x[b, k, i, j]) ** 2 for k in range(C)))
                        out[b, c, i, j] = v / norm
                    else:
                        z = (v - mean) / std if std else 0.0
                        out[b, c, i, j] = 1 / (1 + math.exp(-z))
    return out


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_activations_are_eqs_4_to_6(name: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(ACTIVATIONS[name](x), loop(name, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_the_gradients_of_finite_differences(name: str) -> None:
    x = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ACTIVATIONS[name], (x,))


@pytest.mark.parametrize("activation", [channel, spatial, mixed])
def test_zeros_and_constants_are_finite_with_finite_gradients(activation: object) -> None:
    for value in (0.0, 3.0):
        x = torch.full((1, 4, 2, 2), value, requires_grad=True)
        activation(x).sum().backward()  # type: ignore[operator]
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
    assert (spatial(torch.full((1, 4, 1, 1), 7.0)) == 0.5).all()


def test_the_residual_unit_starts_as_the_identity() -> None:
    x = torch.randn(2, 8, 3, 5)
    assert torch.equal(ResidualUnit(8)(x), x)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5)])
@pytest.mark.parametrize("trunk", [(1, 1), (2, 3), (4, 4)])
def test_the_mask_is_the_bottom_up_top_down_figure(
    size: tuple[int, int], trunk: tuple[int, int]
) -> None:
    mask = SoftMask(4, 6, activation="mixed").eval()
    for parameter in mask.parameters():
        parameter.data.normal_()
    x = torch.randn(2, 4, *size)

    def resized(t: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(t, trunk, mode="bilinear", align_corners=False)

    pooled = torch.nn.functional.max_pool2d(x, 3, 2, 1)
    context = resized(mask.unit(pooled)) + resized(x)
    norm1, _, conv1, norm2, _, conv2 = mask.to_mask
    hidden = conv1(norm1(context).clamp(min=0))
    expected = torch.sigmoid(conv2(norm2(hidden).clamp(min=0)))
    torch.testing.assert_close(mask(x, torch.Size(trunk)), expected)
    assert expected.shape == (2, 6, *trunk)


def test_residual_attention_is_eq_7() -> None:
    block = ResidualAttention(4, 6, activation="spatial").eval()
    x, trunk = torch.randn(1, 4, 6, 6), torch.randn(1, 6, 3, 3)
    mask = block.mask(x, trunk.shape[2:])
    out = block(x, trunk)
    for index in torch.cartesian_prod(torch.arange(6), torch.arange(3), torch.arange(3)).tolist():
        c, i, j = index
        torch.testing.assert_close(out[0, c, i, j], (1 + mask[0, c, i, j]) * trunk[0, c, i, j])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_inputs_stay_finite(name: str, dtype: torch.dtype) -> None:
    block = ResidualAttention(4, 6, activation=name)
    x = torch.full((2, 4, 4, 4), 3e4).to(dtype)
    trunk = torch.rand(2, 6, 2, 2).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x.float() if dtype == torch.float16 else x, trunk)
    out.float().sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters() if p.grad is not None)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(UsageError, match="mixed, channel, spatial"):
        SoftMask(2, 2, activation="relu")
