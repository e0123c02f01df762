from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from rsir.errors import UsageError
from rsir.methods import METHODS, method_type
from rsir.methods.base import Method
from rsir.methods.dual_attention import DualAttention, DualAttentionOptions, averaging_conv
from rsir.methods.pooled import Pooled, PooledOptions
from rsir.nn.backbone import Backbone


def make(name: str) -> Method:
    kind = method_type(name)
    return kind(Backbone("resnet10t", image_size=64), kind.options_type(), classes=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_embeds_and_learns(name: str) -> None:
    method = make(name)
    output = method(torch.randn(4, 3, 64, 64))
    assert output.embedding.shape == (4, method.dimension)
    assert output.embedding.dtype == torch.float32
    method.loss(output, torch.tensor([0, 0, 1, 2])).backward()
    missing = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


@pytest.mark.parametrize("name", METHODS)
def test_every_option_has_a_plain_default(name: str) -> None:
    for option in dataclasses.fields(method_type(name).options_type):
        assert type(option.default) in (bool, int, float, str)
    assert method_type(name).title


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("attention", "both", "one of dual, spatial, channel, none"),
        ("pooling", "sum", "one of spoc, mac, gem"),
        ("margin", 0.0, "above 0"),
        ("margin", 2.1, "at most 2"),
        ("margin", float("nan"), "at most 2"),
        ("reduction", 0, "at least 1"),
        ("fusion_kernel", 0, "odd"),
        ("fusion_kernel", 2, "odd"),
        ("fusion_kernel", -1, "at least 1"),
    ],
)
def test_impossible_options_are_refused(option: str, value: float | str, rule: str) -> None:
    for kind in (DualAttentionOptions, PooledOptions):
        if option in {field.name for field in dataclasses.fields(kind)}:
            with pytest.raises(UsageError, match=f"{option} must be .*{rule}.*not {value!r}"):
                kind(**{option: value})


def test_the_limits_of_the_options_are_allowed() -> None:
    DualAttentionOptions(pooling="mac", margin=2.0, reduction=1, fusion_kernel=5)
    PooledOptions(pooling="spoc", margin=2)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="dual-attention"):
        method_type("dual_attention")


def test_dual_attention_agrees_with_the_papers_figure() -> None:
    method = DualAttention(
        Backbone("resnet10t", image_size=64), DualAttentionOptions(), classes=3
    ).eval()
    method.spatial.alpha.data.fill_(0.3)
    method.channel.beta.data.fill_(0.2)
    method.pool.p.data.fill_(2.0)
    images = torch.randn(2, 3, 64, 64)
    features = method.backbone(images)
    fused = method.fuse(method.spatial(features) + method.channel(features))
    pooled = fused.clamp(min=1e-6).pow(2).mean(dim=(2, 3)).sqrt()
    expected = pooled / pooled.pow(2).sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(method(images).embedding, expected)


@pytest.mark.parametrize("attention", ["spatial", "channel"])
def test_one_branch_alone_is_fused_alone(attention: str) -> None:
    options = DualAttentionOptions(attention=attention)
    method = DualAttention(Backbone("resnet10t", image_size=64), options, classes=3).eval()
    branch = getattr(method, attention)
    next(branch.parameters()).data.fill_(0.4)
    features = torch.randn(2, 512, 3, 2)
    expected = torch.einsum("oc,bchw->bohw", method.fuse.weight[:, :, 0, 0], branch(features))
    torch.testing.assert_close(method.attend(features), expected, rtol=1e-4, atol=1e-4)
    names = {name.split(".")[0] for name, _ in method.named_parameters()}
    assert names == {"backbone", attention, "fuse", "pool"}


def test_without_attention_only_the_pooling_is_left() -> None:
    options = DualAttentionOptions(attention="none")
    method = DualAttention(Backbone("resnet10t", image_size=64), options, classes=3)
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"backbone", "pool"}


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["dual", "spatial", "channel", "none"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_dual_attention_starts_as_the_plain_backbone(kernel: int, attention: str) -> None:
    backbone = Backbone("resnet10t", image_size=64)
    options = DualAttentionOptions(fusion_kernel=kernel, attention=attention)
    dual = DualAttention(backbone, options, classes=3).eval()
    plain = Pooled(backbone, PooledOptions(), classes=3).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(dual(images).embedding, plain(images).embedding)


def test_the_fusing_convolution_averages_the_branches() -> None:
    features = torch.randn(1, 5, 3, 4)
    torch.testing.assert_close(averaging_conv(5, 3, branches=2)(features), features / 2)


def test_pooled_is_the_normalised_descriptor() -> None:
    method = Pooled(
        Backbone("resnet10t", image_size=64), PooledOptions(pooling="spoc"), classes=3
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = functional.normalize(method.backbone(images).mean(dim=(2, 3)), dim=1)
    torch.testing.assert_close(method(images).embedding, expected)
