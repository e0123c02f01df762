from __future__ import annotations

import math

import pytest
import torch

from rsir.nn.hashing import HashLayer, binary_sign


def test_the_sign_of_zero_is_minus_one() -> None:
    relaxed = torch.tensor([[-1.0, -1e-30, -0.0, 0.0, 1e-30, 0.2, 1.0]])
    codes = binary_sign(relaxed)
    assert codes.tolist() == [[-1, -1, -1, -1, 1, 1, 1]]
    assert torch.equal(codes > 0, relaxed > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_codes_are_exact_in_any_precision(dtype: torch.dtype) -> None:
    relaxed = (torch.randn(50, 7) * 10).to(dtype)
    codes = binary_sign(relaxed)
    assert codes.dtype == dtype
    assert set(codes.flatten().tolist()) == {-1.0, 1.0}


def test_the_gradient_passes_straight_through_the_sign() -> None:
    relaxed = torch.tensor([[-2.0, 0.0, 0.3]], requires_grad=True)
    binary_sign(relaxed).backward(torch.tensor([[5.0, -7.0, 0.5]]))
    assert relaxed.grad is not None
    assert relaxed.grad.tolist() == [[5.0, -7.0, 0.5]]


def test_a_classifier_on_the_codes_trains_the_layers_before() -> None:
    layer = HashLayer(4, 3, batch_norm=False)
    descriptor, weight = torch.randn(2, 4), torch.randn(3)
    binary_sign(layer(descriptor)).mul(weight).sum().backward()
    h = layer(descriptor)
    expected = ((1 - h**2) * weight).T @ descriptor  # d tanh = 1 − h²
    torch.testing.assert_close(layer.fc.weight.grad, expected)


def test_without_batch_norm_the_layer_is_tanh_of_the_fc() -> None:
    layer = HashLayer(3, 2, batch_norm=False)
    descriptor = torch.randn(1, 3)
    weight, bias = layer.fc.weight.tolist(), layer.fc.bias.tolist()
    row = descriptor[0].tolist()
    expected = [
        math.tanh(sum(w * x for w, x in zip(weight[k], row, strict=True)) + bias[k])
        for k in range(2)
    ]
    torch.testing.assert_close(layer(descriptor)[0], torch.tensor(expected))


def test_batch_norm_standardises_each_bit_over_the_batch() -> None:
    layer = HashLayer(3, 2, batch_norm=True)
    descriptor = torch.randn(5, 3) + 100  # all images nearly alike
    before = layer.fc(descriptor)
    centred = before - before.mean(dim=0)
    expected = torch.tanh(centred / (before.var(dim=0, unbiased=False) + layer.norm.eps).sqrt())
    torch.testing.assert_close(layer(descriptor), expected)


def test_a_code_does_not_depend_on_the_batch() -> None:
    layer = HashLayer(6, 4, batch_norm=True)
    descriptors = torch.randn(5, 6)
    layer(descriptors)
    layer.eval()
    torch.testing.assert_close(layer(descriptors[:1]), layer(descriptors)[:1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_descriptors_give_float32_codes(dtype: torch.dtype) -> None:
    layer = HashLayer(64, 8, batch_norm=True)
    descriptor = torch.full((3, 64), 60000.0).to(dtype)
    descriptor[0] = -descriptor[0]
    with torch.autocast("cpu", torch.bfloat16):
        h = layer(descriptor)
    assert h.dtype == torch.float32
    assert h.abs().max() <= 1
    h.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
