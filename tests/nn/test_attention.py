from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rsir.nn.attention import (
    CBAM,
    ChannelSelfAttention,
    JointAttention,
    SpatialSelfAttention,
    SqueezeExcitation,
    attend,
)


def loop_attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The softmax of the paper's equation, by loops."""
    B, J, _ = queries.shape
    out = torch.zeros(B, J, values.shape[2], dtype=values.dtype)
    for b in range(B):
        for j in range(J):
            exps = [math.exp(float(queries[b, j] @ key)) for key in keys[b]]
            for i, value in enumerate(values[b]):
                out[b, j] += exps[i] / sum(exps) * value
    return out


@pytest.mark.parametrize(("rows", "others", "depth", "width"), [(1, 1, 1, 1), (5, 3, 2, 4)])
def test_attend_agrees_with_the_formula(rows: int, others: int, depth: int, width: int) -> None:
    queries, keys = torch.randn(2, rows, depth), torch.randn(2, others, depth)
    values = torch.randn(2, others, width)
    expected = loop_attend(queries, keys, values)
    torch.testing.assert_close(attend(queries, keys, values), expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_attend_agree_with_an_explicit_softmax() -> None:
    inputs = [torch.randn(1, 4, 3, requires_grad=True) for _ in range(3)]
    fused = torch.autograd.grad(attend(*inputs).square().sum(), inputs)
    queries, keys, values = inputs
    plain = (queries @ keys.transpose(1, 2)).softmax(dim=2) @ values
    expected = torch.autograd.grad(plain.square().sum(), inputs)
    for one, other in zip(fused, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4)])
def test_spatial_attention_agrees_with_eqs_4_and_5(size: tuple[int, int]) -> None:
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
def test_channel_attention_agrees_with_eqs_6_and_7(size: tuple[int, int]) -> None:
    block = ChannelSelfAttention()
    block.beta.data.fill_(-0.4)
    features = torch.randn(2, 6, *size)
    rows = features.flatten(2)
    expected = rows - 0.4 * loop_attend(rows, rows, rows)
    torch.testing.assert_close(block(features), expected.view_as(features), rtol=1e-4, atol=1e-5)


def plain_spatial(block: SpatialSelfAttention, features: Tensor) -> Tensor:
    """Eqs 4 and 5, position by position, with gradients."""
    j, k, values = (
        torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], features).flatten(2)
        + conv.bias[:, None]
        for conv in (block.to_j, block.to_k, block.to_l)
    )
    out = []
    for here in range(j.shape[2]):
        exps = [torch.exp((j[:, :, i] * k[:, :, here]).sum(1)) for i in range(j.shape[2])]
        shares = [e / torch.stack(exps).sum(0) for e in exps]
        context = sum(s[:, None] * values[:, :, i] for i, s in enumerate(shares))
        out.append(features.flatten(2)[:, :, here] + block.alpha * context)
    return torch.stack(out, dim=2).view_as(features)


def plain_channel(block: ChannelSelfAttention, features: Tensor) -> Tensor:
    """Eqs 6 and 7, channel by channel."""
    rows = features.flatten(2)
    out = []
    for here in range(rows.shape[1]):
        exps = [torch.exp((rows[:, i] * rows[:, here]).sum(1)) for i in range(rows.shape[1])]
        shares = [e / torch.stack(exps).sum(0) for e in exps]
        context = sum(s[:, None] * rows[:, i] for i, s in enumerate(shares))
        out.append(rows[:, here] + block.beta * context)
    return torch.stack(out, dim=1).view_as(features)


@pytest.mark.parametrize("kind", ["spatial", "channel"])
@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (1, 6, 3, 5), (2, 5, 2, 3)])
def test_self_attention_has_the_gradient_of_the_formula(
    kind: str, shape: tuple[int, int, int, int]
) -> None:
    features = (0.7 * torch.randn(*shape)).requires_grad_()
    block: torch.nn.Module
    if kind == "spatial":
        block = SpatialSelfAttention(shape[1], reduction=2)
        block.alpha.data.fill_(0.7)
        expected = plain_spatial(block, features)
    else:
        block = ChannelSelfAttention()
        block.beta.data.fill_(-0.4)
        expected = plain_channel(block, features)
    found, direction = block(features), torch.randn(*shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    inputs = [features, *block.parameters()]
    got = torch.autograd.grad((found * direction).sum(), inputs)
    wanted = torch.autograd.grad((expected * direction).sum(), inputs)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert got[0].abs().max() > 0
    if kind == "spatial":  # the softmax over a single position is 1 for any J and K
        j_and_k = [gradient.abs().max().item() for gradient in (got[2], got[4])]
        assert all(j_and_k) if shape[2:] != (1, 1) else not any(j_and_k)


@pytest.mark.parametrize("block", [SpatialSelfAttention(8), ChannelSelfAttention()])
def test_attention_starts_as_the_identity(block: torch.nn.Module) -> None:
    features = torch.randn(2, 8, 3, 3)
    assert torch.equal(block(features), features)


@pytest.mark.parametrize("block", [SpatialSelfAttention(8), ChannelSelfAttention()])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_does_not_overflow_in_16_bit(block: torch.nn.Module, dtype: torch.dtype) -> None:
    for parameter in block.parameters():
        parameter.data.fill_(1.0)
    features = torch.full((1, 8, 4, 4), 200.0).to(dtype)  # 200² · 16 is above float16's maximum
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


def loop_bottleneck(mlp: torch.nn.Module, row: Tensor) -> Tensor:
    """W2(ReLU(W1 x)), neuron by neuron."""
    first, _, second = mlp
    hidden = [max(0.0, float(w @ row + b)) for w, b in zip(first.weight, first.bias, strict=True)]
    return second.weight @ torch.tensor(hidden) + second.bias


def loop_attention(block: torch.nn.Module, features: Tensor) -> Tensor:
    """Papers C (eqs 1 to 4) and E (eqs 1 to 3), and SE, position by position."""
    out = torch.zeros_like(features)
    B, C, h, w = features.shape
    for b in range(B):
        means = torch.stack([features[b, c].sum() / (h * w) for c in range(C)])
        maxima = torch.stack([max(features[b, c].flatten()) for c in range(C)])
        if isinstance(block, JointAttention):
            logits = loop_bottleneck(block.mlp, maxima + means)
        elif isinstance(block, CBAM):
            logits = loop_bottleneck(block.mlp, maxima) + loop_bottleneck(block.mlp, means)
        else:
            logits = loop_bottleneck(block.mlp, means)
        attended = features[b] / (1 + torch.exp(-logits))[:, None, None]
        if not isinstance(block, SqueezeExcitation):
            attended = attended * loop_spatial(block.conv, attended)
        out[b] = attended
    return out


def loop_spatial(conv: torch.nn.Conv2d, features: Tensor) -> Tensor:
    """σ(conv [max; mean over channels]) with zeros around, (h, w)."""
    C, h, w = features.shape
    reach = conv.kernel_size[0] // 2
    weights = torch.zeros(h, w)
    for y in range(h):
        for x in range(w):
            logit = float(conv.bias)
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if 0 <= y + dy < h and 0 <= x + dx < w:
                        here = features[:, y + dy, x + dx]
                        kernel = conv.weight[0, :, dy + reach, dx + reach]
                        logit += float(kernel[0] * max(here) + kernel[1] * sum(here) / C)
            weights[y, x] = 1 / (1 + math.exp(-logit))
    return weights


REWEIGHTING = [JointAttention, SqueezeExcitation, CBAM]


@pytest.mark.parametrize("kind", REWEIGHTING)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 9)])
def test_reweighting_agrees_with_a_loop(kind: type[torch.nn.Module], size: tuple[int, int]) -> None:
    block = kind(6, reduction=2)
    features = 3 * torch.randn(2, 6, *size)
    with torch.no_grad():
        expected = loop_attention(block, features)
        torch.testing.assert_close(block(features), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(block(features[:1]), expected[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", REWEIGHTING)
def test_reweighting_has_the_gradient_of_the_formula(kind: type[torch.nn.Module]) -> None:
    block = kind(4, reduction=2)
    features = torch.randn(2, 4, 3, 5, requires_grad=True)
    inputs = [features, *block.parameters()]
    got = torch.autograd.grad(block(features).square().sum(), inputs)
    expected = torch.autograd.grad(plain_attention(block, features).square().sum(), inputs)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def plain_attention(block: torch.nn.Module, x: Tensor) -> Tensor:
    """The same in torch operations with gradients, without loops."""

    def mlp(row: Tensor) -> Tensor:
        first, _, second = block.mlp
        hidden = (row @ first.weight.T + first.bias).relu()
        return hidden @ second.weight.T + second.bias

    maxima, means = x.flatten(2).max(dim=2).values, x.flatten(2).mean(dim=2)
    if isinstance(block, JointAttention):
        logits = mlp(maxima + means)
    elif isinstance(block, CBAM):
        logits = mlp(maxima) + mlp(means)
    else:
        logits = mlp(means)
    attended = torch.einsum("bc,bchw->bchw", logits.sigmoid(), x)
    if isinstance(block, SqueezeExcitation):
        return attended
    pooled = torch.stack([attended.max(dim=1).values, attended.mean(dim=1)], dim=1)
    side = block.conv.kernel_size[0]
    patches = torch.nn.functional.unfold(pooled, side, padding=side // 2)
    weights = (block.conv.weight.flatten() @ patches + block.conv.bias).sigmoid()
    return attended * weights.view(len(x), 1, *x.shape[2:])


def test_joint_attention_sums_before_the_mlp_and_cbam_after() -> None:
    joint, cbam = JointAttention(8, reduction=2), CBAM(8, reduction=2)
    cbam.mlp.load_state_dict(joint.mlp.state_dict())
    for block in (joint, cbam):
        torch.nn.init.zeros_(block.conv.weight)
        torch.nn.init.zeros_(block.conv.bias)
    joint.mlp[2].bias.data.fill_(1.0)
    cbam.mlp[2].bias.data.fill_(1.0)
    for block, biases in ((joint, 1.0), (cbam, 2.0)):
        block.mlp[2].weight.data.zero_()
        expected = 0.5 / (1 + math.exp(-biases))  # σ(0) of the spatial attention
        torch.testing.assert_close(
            block(torch.ones(1, 8, 2, 2)), torch.full((1, 8, 2, 2), expected)
        )


@pytest.mark.parametrize("kind", REWEIGHTING)
def test_a_bottleneck_is_at_least_one_wide(kind: type[torch.nn.Module]) -> None:
    block = kind(3, reduction=16)
    assert block.mlp[0].out_features == 1
    assert block(torch.randn(1, 3, 2, 2)).shape == (1, 3, 2, 2)


@pytest.mark.parametrize("kind", REWEIGHTING)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reweighting_does_not_overflow_in_16_bit(
    kind: type[torch.nn.Module], dtype: torch.dtype
) -> None:
    block = kind(32)
    features = torch.full((2, 32, 8, 8), 60000.0).to(dtype)  # twice this is above float16's maximum
    features[1] = -features[1]
    features.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = block(features)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    out.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters() if p.grad is not None)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
