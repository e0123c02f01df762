from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rsir.nn.warp import IDENTITY, ParameterNetwork, radiometric_transform, spatial_transform

SIZES = [(1, 1), (1, 5), (5, 7), (8, 6)]


def mirrored(index: int, length: int) -> int:
    """The index of the pixel beyond the edge of a mirrored image, edge pixel included."""
    index %= 2 * length
    return index if index < length else 2 * length - 1 - index


def loop_warp(image: Tensor, affine: list[float]) -> Tensor:
    """(C, H, W) float64 through one affine window, pixel by pixel."""
    _, H, W = image.shape
    a, b, c, d, e, f = affine
    rows = []
    for i in range(H):
        for j in range(W):
            x, y = (2 * j + 1) / W - 1, (2 * i + 1) / H - 1
            u, v = a * x + b * y + c, d * x + e * y + f
            column, row = ((u + 1) * W - 1) / 2, ((v + 1) * H - 1) / 2
            left, top = math.floor(column), math.floor(row)
            rows.append(
                sum(
                    image[:, mirrored(top + dy, H), mirrored(left + dx, W)]
                    * (1 - abs(row - top - dy))
                    * (1 - abs(column - left - dx))
                    for dy in (0, 1)
                    for dx in (0, 1)
                )
            )
    return torch.stack(rows, dim=1).view_as(image)


AFFINES = [
    (0.6, 0.2, 0.1, -0.3, 0.8, -0.15),  # a window that is zoomed, sheared, shifted
    (1.73, 0.1, 0.41, 0.2, 1.4, -0.63),  # one that looks beyond the edge on all sides
    (0.0, -1.0, 0.0, 1.0, 0.0, 0.0),  # a quarter turn
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("affine", AFFINES)
def test_the_warp_is_bilinear_sampling(size: tuple[int, int], affine: tuple[float, ...]) -> None:
    images = torch.randn(2, 3, *size)
    other = (0.9, 0.0, 0.05, 0.0, 1.1, 0.0)
    warped = spatial_transform(images, torch.tensor([affine, other]))
    for image, row, got in zip(images.double(), (affine, other), warped, strict=True):
        torch.testing.assert_close(got, loop_warp(image, list(row)).float(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("affine", AFFINES[:2])
def test_gradients_of_the_warp_agree_with_the_formula(affine: tuple[float, ...]) -> None:
    image, weights = torch.randn(1, 2, 5, 7), torch.randn(2, 5, 7, dtype=torch.float64)
    parameters = torch.tensor([affine], requires_grad=True)
    image.requires_grad_()
    (spatial_transform(image, parameters)[0] * weights.float()).sum().backward()
    assert parameters.grad is not None
    assert image.grad is not None

    def value(changed: Tensor, row: list[float]) -> float:
        return float((loop_warp(changed, row) * weights).sum())

    pixels = image.detach()[0].double()
    for i in range(6):
        step = [1e-6 * (k == i) for k in range(6)]
        up = [p + s for p, s in zip(affine, step, strict=True)]
        down = [p - s for p, s in zip(affine, step, strict=True)]
        slope = (value(pixels, up) - value(pixels, down)) / 2e-6
        assert float(parameters.grad[0, i]) == pytest.approx(slope, rel=1e-3, abs=1e-3)
    plain = pixels.requires_grad_()
    (loop_warp(plain, list(affine)) * weights).sum().backward()
    assert plain.grad is not None
    torch.testing.assert_close(image.grad[0], plain.grad.float(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [*SIZES, (224, 224), (65, 300)])
def test_the_identity_returns_the_image(size: tuple[int, int]) -> None:
    images = torch.randn(1, 3, *size)
    warped = spatial_transform(images, torch.tensor([IDENTITY]))
    # Positions are rounded to float32: errors of a few 1e-5 pixels.
    torch.testing.assert_close(warped, images, atol=2e-4, rtol=0)


def test_direction_of_the_window() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 4, 8)
    right = torch.tensor([(1.0, 0, 0.5, 0, 1, 0)])  # a quarter of the width: two columns
    assert spatial_transform(ramp, right)[0, 0, 0].tolist() == pytest.approx(
        [2, 3, 4, 5, 6, 7, 7, 6], abs=1e-4
    )
    down = torch.tensor([(1.0, 0, 0, 0, 1, 0.5)])
    warped = spatial_transform(ramp.transpose(2, 3), down)[0, 0, :, 0]
    assert warped.tolist() == pytest.approx([2, 3, 4, 5, 6, 7, 7, 6], abs=1e-4)


def test_the_radiometric_transform_is_linear() -> None:
    images, gains, bias = torch.randn(2, 3, 4, 5), torch.randn(2, 3), torch.randn(2, 1)
    stretched = radiometric_transform(images, gains, bias)
    for b in range(2):
        for c in range(3):
            for i in range(4):
                for j in range(5):
                    expected = float(gains[b, c]) * float(images[b, c, i, j]) + float(bias[b, 0])
                    assert float(stretched[b, c, i, j]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_of_the_radiometric_transform_agree_with_the_formula(
    size: tuple[int, int], batch: int
) -> None:
    images, gains = torch.randn(batch, 3, *size), torch.randn(batch, 3)
    inputs = [t.requires_grad_() for t in (images, gains, torch.randn(batch, 1))]
    direction = torch.randn(batch, 3, *size)
    got = torch.autograd.grad((radiometric_transform(*inputs) * direction).sum(), inputs)
    wanted = [torch.zeros_like(t) for t in inputs]
    for b in range(batch):
        for c in range(3):
            for i in range(size[0]):
                for j in range(size[1]):
                    slope = direction[b, c, i, j]
                    wanted[0][b, c, i, j] = slope * gains[b, c].detach()
                    wanted[1][b, c] += slope * images[b, c, i, j].detach()
                    wanted[2][b, 0] += slope
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_radiometric_transform_starts_as_the_identity() -> None:
    images = torch.randn(1, 4, 5, 3)
    assert torch.equal(radiometric_transform(images, torch.ones(1, 4), torch.zeros(1, 1)), images)


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (33, 90)])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_network_starts_at_its_start_values(size: tuple[int, int], batch: int) -> None:
    network = ParameterNetwork((*IDENTITY, 1.0, 1.0, 0.0), bands=2)
    numbers = network(torch.randn(batch, 2, *size))
    assert torch.equal(numbers, torch.tensor([(*IDENTITY, 1.0, 1.0, 0.0)] * batch))


def loop_reduced(image: Tensor, size: int) -> Tensor:
    """(C, H, W) → (C, size, size) with a tent filter, as wide as the step or at least a pixel."""
    for dim in (1, 2):
        length = image.shape[dim]
        step = max(length / size, 1.0)
        lines = []
        for out in range(size):
            centre = (out + 0.5) * length / size
            tent = [max(0.0, 1 - abs(i + 0.5 - centre) / step) for i in range(length)]
            parts = [image.select(dim, i) * (w / sum(tent)) for i, w in enumerate(tent) if w]
            lines.append(sum(parts[1:], start=parts[0]))
        image = torch.stack(lines, dim=dim)
    return image


def loop_network(image: Tensor, weights: dict[str, Tensor], size: int, scale: float) -> Tensor:
    """(bands, H, W) → start + scale · MLP of 2 × (conv → max-pool → ReLU), without torch.nn."""
    x = loop_reduced(image, size)
    for conv in ("convs.0", "convs.3"):
        kernel, bias = weights[f"{conv}.weight"], weights[f"{conv}.bias"]
        side, reach = x.shape[1], kernel.shape[2] // 2
        padded = x.new_zeros(len(x), side + 2 * reach, side + 2 * reach)
        padded[:, reach : reach + side, reach : reach + side] = x
        values = {
            (i, j): (kernel * padded[:, i : i + 2 * reach + 1, j : j + 2 * reach + 1]).sum(
                (1, 2, 3)
            )
            + bias
            for i in range(side)
            for j in range(side)
        }
        halved = [
            torch.stack([values[2 * i + di, 2 * j + dj] for di in (0, 1) for dj in (0, 1)]).amax(0)
            for i in range(side // 2)
            for j in range(side // 2)
        ]
        x = torch.stack(halved, dim=1).view(-1, side // 2, side // 2).clamp(min=0)
    hidden = (weights["hidden.weight"] @ x.flatten() + weights["hidden.bias"]).clamp(min=0)
    return weights["start"] + scale * (weights["last.weight"] @ hidden + weights["last.bias"])


@pytest.mark.parametrize(("batch", "sides"), [(2, (13, 30)), (1, (5, 3)), (1, (1, 1))])
@pytest.mark.parametrize("size", [8, 7])
def test_values_and_gradients_of_the_network_agree_with_loops(
    batch: int, sides: tuple[int, int], size: int
) -> None:
    network = ParameterNetwork((*IDENTITY, 1.0, 0.0), bands=2, size=size, scale=0.3)
    torch.nn.init.normal_(network.last.weight)
    torch.nn.init.normal_(network.last.bias)
    images = torch.randn(batch, 2, *sides, requires_grad=True)
    names = [name for name, _ in network.named_parameters()]
    plain = [t.detach().double().requires_grad_() for t in (images, *network.parameters())]
    weights = {**dict(zip(names, plain[1:], strict=True)), "start": network.start.double()}
    expected = torch.stack([loop_network(image, weights, size, 0.3) for image in plain[0]])
    found, direction = network(images), torch.randn(batch, 8)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    got = torch.autograd.grad((found * direction).sum(), [images, *network.parameters()])
    wanted = torch.autograd.grad((expected * direction).sum(), plain)
    for one, other, of in zip(got, wanted, ["images", *names], strict=True):
        torch.testing.assert_close(
            one, other.float(), rtol=1e-3, atol=1e-5, msg=lambda message, of=of: f"{of}: {message}"
        )
        assert one.abs().max() > 0


def test_the_network_learns_from_the_first_step() -> None:
    network = ParameterNetwork(IDENTITY)
    images = torch.randn(2, 3, 32, 32)
    step = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # in the first step only the last layer has a non-zero gradient
        step.zero_grad()
        (network(images) * torch.arange(12.0).view(2, 6)).sum().backward()
        step.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0, name
    assert not torch.equal(network(images)[0], network(images)[1])


def test_the_scale_does_not_change_the_start_values() -> None:
    whole, tenth = ParameterNetwork(IDENTITY), ParameterNetwork(IDENTITY, scale=0.1)
    tenth.load_state_dict(whole.state_dict())
    for network in (whole, tenth):
        torch.nn.init.ones_(network.last.bias)
    images, start = torch.randn(1, 3, 16, 16), torch.tensor(IDENTITY)
    torch.testing.assert_close(tenth(images) - start, 0.1 * (whole(images) - start))


@pytest.mark.parametrize("size", [4, 6, 7, 64])
def test_the_network_accepts_images_of_any_size(size: int) -> None:
    assert ParameterNetwork(IDENTITY, size=size)(torch.randn(1, 3, 20, 20)).shape == (1, 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_are_accurate_in_16_bit(dtype: torch.dtype) -> None:
    network = ParameterNetwork((*IDENTITY, 1.0, 1.0, 1.0, 0.0))
    torch.nn.init.normal_(network.last.weight, std=0.1)
    images = torch.randn(2, 3, 224, 224)

    def transformed() -> Tensor:
        numbers = network(images)
        moved = spatial_transform(images, numbers[:, :6])
        return radiometric_transform(moved, numbers[:, 6:9], numbers[:, 9:])

    with torch.autocast("cpu", dtype):
        inside = transformed()
        from_half = spatial_transform(images.to(dtype), torch.tensor([IDENTITY] * 2))
    assert inside.dtype == torch.float32
    assert torch.equal(inside, transformed())
    torch.testing.assert_close(from_half, images.to(dtype).float(), atol=2e-4, rtol=0)
