from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

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
    """Eqs 4 to 6, by loops."""
    out = torch.empty_like(x)
    B, C, h, w = x.shape
    for b in range(B):
        for c in range(C):
            values = [float(v) for v in x[b, c].flatten()]
            mean = sum(values) / len(values)
            std = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + 1e-5)
            for i in range(h):
                for j in range(w):
                    v = float(x[b, c, i, j])
                    if name == "mixed":
                        out[b, c, i, j] = 1 / (1 + math.exp(-v))
                    elif name == "channel":
                        norm = math.sqrt(sum(float(x[b, k, i, j]) ** 2 for k in range(C)))
                        out[b, c, i, j] = v / norm
                    else:
                        z = (v - mean) / std
                        out[b, c, i, j] = 1 / (1 + math.exp(-z))
    return out


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_activations_agree_with_eqs_4_to_6(name: str, size: tuple[int, int]) -> None:
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
def test_the_mask_agrees_with_the_bottom_up_top_down_figure(
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


def test_residual_attention_agrees_with_eq_7() -> None:
    block = ResidualAttention(4, 6, activation="spatial").eval()
    x, trunk = torch.randn(1, 4, 6, 6), torch.randn(1, 6, 3, 3)
    mask = block.mask(x, trunk.shape[2:])
    out = block(x, trunk)
    for index in torch.cartesian_prod(torch.arange(6), torch.arange(3), torch.arange(3)).tolist():
        c, i, j = index
        torch.testing.assert_close(out[0, c, i, j], (1 + mask[0, c, i, j]) * trunk[0, c, i, j])


def randomised(block: nn.Module) -> nn.Module:
    """The module in eval mode, with random weights and running statistics."""
    for name, tensor in block.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif name.endswith(".bias"):
            tensor.uniform_(-0.5, 1.5)  # so that in each layer some ReLU is positive
        elif tensor.is_floating_point():
            tensor.normal_(std=0.5)
    return block.eval()


Weights = dict[str, Tensor]


def at(maps: Tensor, i: int, j: int) -> Tensor:
    """The channels at a position, 0 beyond the edge; (B, C)."""
    inside = 0 <= i < maps.shape[2] and 0 <= j < maps.shape[3]
    return maps[:, :, i, j] if inside else torch.zeros_like(maps[:, :, 0, 0])


def plain_convs(w: Weights, prefix: str, x: Tensor) -> Tensor:
    """Repeated batch norm → ReLU → convolution, position by position."""
    for first in range(0, 9, 3):
        norm, conv = f"{prefix}.{first}", f"{prefix}.{first + 2}"
        if f"{norm}.weight" not in w:
            break
        scale = w[f"{norm}.weight"] / (w[f"{norm}.running_var"] + 1e-5) ** 0.5
        centred = x - w[f"{norm}.running_mean"][:, None, None]
        x = (centred * scale[:, None, None] + w[f"{norm}.bias"][:, None, None]).clamp(min=0)
        kernel, (h, width) = w[f"{conv}.weight"], x.shape[2:]
        reach = kernel.shape[2] // 2
        rows = [
            sum(
                at(x, i + di, j + dj) @ kernel[:, :, di + reach, dj + reach].T
                for di in range(-reach, reach + 1)
                for dj in range(-reach, reach + 1)
            )
            for i in range(h)
            for j in range(width)
        ]
        x = torch.stack(rows, dim=2).unflatten(2, (h, width))
        if f"{conv}.bias" in w:
            x = x + w[f"{conv}.bias"][:, None, None]
    return x


def plain_pool(x: Tensor) -> Tensor:
    """The largest of 3 × 3, at every second position."""
    h, w = x.shape[2:]
    rows = [
        x[:, :, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].flatten(2).max(dim=2).values
        for i in range(0, h, 2)
        for j in range(0, w, 2)
    ]
    return torch.stack(rows, dim=2).unflatten(2, ((h + 1) // 2, (w + 1) // 2))


def plain_resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing with aligned outer edges (not aligned pixel centres)."""

    def weights(length: int, out: int) -> list[tuple[int, int, float]]:
        found = []
        for i in range(out):
            position = min(max((i + 0.5) * length / out - 0.5, 0.0), length - 1.0)
            low = math.floor(position)
            found.append((low, min(low + 1, length - 1), position - low))
        return found

    rows = [
        (1 - v) * ((1 - u) * x[:, :, top, left] + u * x[:, :, top, right])
        + v * ((1 - u) * x[:, :, bottom, left] + u * x[:, :, bottom, right])
        for top, bottom, v in weights(x.shape[2], size[0])
        for left, right, u in weights(x.shape[3], size[1])
    ]
    return torch.stack(rows, dim=2).unflatten(2, size)


def plain_activation(name: str, x: Tensor) -> Tensor:
    if name == "channel":
        return x / x.square().sum(dim=1, keepdim=True).sqrt()
    if name == "spatial":
        centred = x - x.sum(dim=(2, 3), keepdim=True) / x[0, 0].numel()
        variance = centred.square().sum(dim=(2, 3), keepdim=True) / x[0, 0].numel()
        x = centred / (variance + 1e-5).sqrt()
    return 1 / (1 + torch.exp(-x))


def plain_block(w: Weights, name: str, x: Tensor, trunk: Tensor) -> Tensor:
    """(1 + H(x)) ∘ A (eq 7) from the figure, by loops."""
    pooled, size = plain_pool(x), (trunk.shape[2], trunk.shape[3])
    unit = pooled + plain_convs(w, "mask.unit.residual", pooled)
    context = plain_resize(unit, size) + plain_resize(x, size)
    return (1 + plain_activation(name, plain_convs(w, "mask.to_mask", context))) * trunk


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(
    ("batch", "size", "trunk"), [(1, (1, 1), (1, 1)), (2, (3, 5), (2, 3)), (1, (5, 2), (5, 3))]
)
def test_values_and_gradients_of_the_block_agree_with_loops(
    name: str, batch: int, size: tuple[int, int], trunk: tuple[int, int]
) -> None:
    block = randomised(ResidualAttention(12, 3, activation=name))
    x = torch.randn(batch, 12, *size, requires_grad=True)
    a = torch.randn(batch, 3, *trunk, requires_grad=True)
    weights = {k: v.detach().double() for k, v in block.state_dict().items()}
    learnt = [k for k, _ in block.named_parameters()]
    plain = [t.detach().double() for t in (x, a, *(weights[k] for k in learnt))]
    for tensor in plain:
        tensor.requires_grad_()
    expected = plain_block(
        {**weights, **dict(zip(learnt, plain[2:], strict=True))}, name, plain[0], plain[1]
    )
    found, direction = block(x, a), torch.randn_like(a)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    got = torch.autograd.grad((found * direction).sum(), [x, a, *block.parameters()])
    wanted = torch.autograd.grad((expected * direction).sum(), plain)
    for one, other, of in zip(got, wanted, ["x", "trunk", *learnt], strict=True):
        torch.testing.assert_close(
            one, other.float(), rtol=1e-3, atol=1e-4, msg=lambda message, of=of: f"{of}: {message}"
        )
    if trunk != (1, 1):
        assert all(gradient.any() for gradient in got)


@pytest.mark.parametrize("size", [(1, 1), (3, 2)])
def test_the_residual_unit_has_the_gradients_of_finite_differences(size: tuple[int, int]) -> None:
    unit = randomised(ResidualUnit(4)).double()
    x = torch.randn(1, 4, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: unit(x), (x, *unit.parameters()), fast_mode=True)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_inputs_stay_finite(name: str, dtype: torch.dtype) -> None:
    block = ResidualAttention(4, 6, activation=name)
    # Twice the largest value is just below float16's maximum, any square is far above it.
    x = (3e4 * (2 * torch.rand(2, 4, 5, 3) - 1)).to(dtype).requires_grad_()
    trunk = torch.rand(2, 6, 3, 2).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        out = block(x, trunk)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    for tensor in (x, trunk, *block.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_constant_16_bit_maps_stay_finite(name: str, dtype: torch.dtype) -> None:
    block = ResidualAttention(4, 6, activation=name)
    x = torch.full((2, 4, 4, 4), 3e4).to(dtype).requires_grad_()
    trunk = torch.rand(2, 6, 2, 2).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        out = block(x, trunk)
    out.square().sum().backward()
    assert torch.isfinite(out).all()
    for tensor in (x, trunk, *block.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(UsageError, match="mixed, channel, spatial"):
        SoftMask(2, 2, activation="relu")
