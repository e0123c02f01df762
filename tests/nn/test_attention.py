from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rsir.nn.attention import ChannelSelfAttention, SpatialSelfAttention, attend


def loop_attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The softmax of the paper's equation, one number at a time."""
    B, J, _ = queries.shape
    out = torch.zeros(B, J, values.shape[2], dtype=values.dtype)
    for b in range(B):
        for j in range(J):
            exps = [math.exp(float(queries[b, j] @ key)) for key in keys[b]]
            for i, value in enumerate(values[b]):
                out[b, j] += exps[i] / sum(exps) * value
    return out


@pytest.mark.parametrize(("rows", "others", "depth", "width"), [(1, 1, 1, 1), (5, 3, 2, 4)])
def test_attend_is_the_softmax_of_the_formula(
    rows: int, others: int, depth: int, width: int
) -> None:
    queries, keys = torch.randn(2, rows, depth), torch.randn(2, others, depth)
    values = torch.randn(2, others, width)
    expected = loop_attend(queries, keys, values)
    torch.testing.assert_close(attend(queries, keys, values), expected, rtol=1e-4, atol=1e-5)


def test_attend_gradients_are_those_of_the_written_out_softmax() -> None:
    inputs = [torch.randn(1, 4, 3, requires_grad=True) for _ in range(3)]
    fused = torch.autograd.grad(attend(*inputs).square().sum(), inputs)
    queries, keys, values = inputs
    plain = (queries @ keys.transpose(1, 2)).softmax(dim=2) @ values
    expected = torch.autograd.grad(plain.square().sum(), inputs)
    for one, other in zip(fused, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4)])
def test_spatial_attention_is_eqs_4_and_5(size: tuple[int, int]) -> None:
    block = SpatialSelfAttention(8, reduction=4)
    block.alpha.data.fill_(0.7)
    features = torch.randn(2, 8, *size)
    convs = (block.to_j, block.to_k, block.to_l)
    j, k, values = (conv(features).flatten(2).detach() for conv in convs)
    expected = features.clone().flatten(2)
    N = expected.shape[2]
    for b in range(2):
        for here in range(N):
            exps = [math.exp(float(j[b, :, i] @ k[b, :, here])) for i in range(N)]
            for i in range(N):
                expected[b, :, here] += 0.7 * exps[i] / sum(exps) * values[b, :, i]
    torch.testing.assert_close(block(features), expected.view_as(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_channel_attention_is_eqs_6_and_7(size: tuple[int, int]) -> None:
    block = ChannelSelfAttention()
    block.beta.data.fill_(-0.4)
    features = torch.randn(2, 6, *size)
    rows = features.flatten(2)
    expected = rows - 0.4 * loop_attend(rows, rows, rows)
    torch.testing.assert_close(block(features), expected.view_as(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [SpatialSelfAttention(8), ChannelSelfAttention()])
def test_attention_starts_as_the_identity(block: torch.nn.Module) -> None:
    features = torch.randn(2, 8, 3, 3)
    assert torch.equal(block(features), features)


@pytest.mark.parametrize("block", [SpatialSelfAttention(8), ChannelSelfAttention()])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_does_not_overflow_in_16_bit(block: torch.nn.Module, dtype: torch.dtype) -> None:
    for parameter in block.parameters():
        parameter.data.fill_(1.0)
    features = torch.full((1, 8, 4, 4), 200.0).to(dtype)  # 200² · 16 is beyond float16
    with torch.autocast("cpu", torch.bfloat16):
        out = block(features)
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters() if p.grad is not None)


def test_scalars_learn_from_the_first_step() -> None:
    block = ChannelSelfAttention()
    block(torch.randn(1, 4, 3, 3)).square().sum().backward()
    assert block.beta.grad is not None
    assert block.beta.grad.abs() > 0
