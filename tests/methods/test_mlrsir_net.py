from __future__ import annotations

import pytest
import torch
from torch import nn

from rsir.errors import UsageError
from rsir.methods.base import Output
from rsir.methods.mlrsir_net import MLRSIRNet, MLRSIRNetOptions, concatenated
from rsir.nn.backbone import Backbone

LABELS = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]])


def make(name: str = "resnet10t", **options: str | float | bool) -> MLRSIRNet:
    return MLRSIRNet(Backbone(name, image_size=64), MLRSIRNetOptions(**options), classes=3)


@pytest.mark.parametrize("size", [(32, 32), (96, 160), (64, 64)])  # maps 1 × 1, 3 × 5, 2 × 2
def test_mlrsir_net_agrees_with_the_papers_figure(size: tuple[int, int]) -> None:
    method = make(bits=5, hidden=7).eval()
    net, images = method.backbone.net, torch.randn(2, 3, *size)
    stage2 = net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(images))))))
    stage3 = net.layer3(stage2)
    stage4 = net.layer4(stage3)
    means = [
        stage.reshape(*stage.shape[:2], stage4.shape[2], times, stage4.shape[3], times).mean((3, 5))
        for stage, times in ((stage2, 4), (stage3, 2), (stage4, 1))
    ]
    x = torch.cat(means, dim=1)
    mlp, conv = method.attention.mlp, method.attention.conv
    a_ch = torch.sigmoid(mlp(x.amax((2, 3))) + mlp(x.mean((2, 3))))[:, :, None, None]
    both = torch.stack([(a_ch * x).amax(dim=1), (a_ch * x).mean(dim=1)], dim=1)
    a_sp = torch.sigmoid(conv(both))
    hidden = method.fc((x * a_ch * a_sp).mean((2, 3))).relu()
    norm = method.hash.norm
    h = torch.tanh(method.hash.fc(hidden) / (1 + norm.eps) ** 0.5)
    output = method(images)
    torch.testing.assert_close(output.embedding, h, rtol=1e-4, atol=1e-5)
    assert output.logits is None
    assert x.shape[1] == 128 + 256 + 512
    assert method.dimension == 5
    assert method.ranking == "hamming"


def test_maps_of_indivisible_sizes_are_averaged_to_one_size() -> None:
    maps = [torch.randn(1, 2, 5, 7), torch.randn(1, 3, 3, 4), torch.randn(1, 1, 2, 3)]
    both = concatenated(maps)
    assert both.shape == (1, 6, 2, 3)
    # Cell (1, 2) of 2 × 3 covers rows ⌊5/2⌋ … 4 and columns ⌊14/3⌋ … 6 of 5 × 7.
    torch.testing.assert_close(both[0, :2, 1, 2], maps[0][0, :, 2:, 4:].mean(dim=(1, 2)))
    assert torch.equal(both[:, 5:], maps[2])


@pytest.mark.parametrize(("levels", "channels"), [("multi", 32 + 96 + 1280), ("single", 1280)])
def test_a_head_convolution_is_the_deepest_level(levels: str, channels: int) -> None:
    method = make("mobilenetv2_100", levels=levels)
    assert method.fc.in_features == channels
    method.loss(method(torch.randn(4, 3, 64, 64)), LABELS).backward()
    assert all(p.grad is not None for p in method.parameters())


def test_without_cbam_the_maps_are_only_averaged() -> None:
    method = make(cbam=False, levels="single").eval()
    images = torch.randn(2, 3, 64, 64)
    hidden = method.fc(method.backbone(images).mean((2, 3))).relu()
    torch.testing.assert_close(method(images).embedding, method.hash(hidden))


@pytest.mark.slow
@pytest.mark.parametrize("overlap", ["none", "jaccard"])
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(
    "labels",
    [LABELS.tolist(), [[1, 0]] * 4, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]],
    ids=["some share", "all the same", "none share"],
)
def test_the_loss_agrees_with_eq_6(labels: list[list[int]], overlap: str, balanced: bool) -> None:
    method = make(bits=6, overlap=overlap, balanced=balanced, quantisation=0.2)
    h = torch.tanh(torch.randn(4, 6))
    sets = [{k for k, has in enumerate(row) if has} for row in labels]
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    alike = [(i, j) for i, j in pairs if sets[i] & sets[j]]
    expected = torch.zeros(())
    for i, j in pairs:
        shares = (i, j) in alike
        s = len(sets[i] & sets[j]) / len(sets[i] | sets[j]) if overlap == "jaccard" else shares
        weight = len(pairs) / (len(alike) if shares else len(pairs) - len(alike))
        product = 0.5 * (h[i] @ h[j])
        term = torch.log(1 + product.exp()) - s * product
        expected += (weight if balanced else 1) * term / len(pairs)
    expected += 0.2 * sum((h[i] - h[i].sign()).square().sum() for i in range(4)) / 4
    loss = method.loss(Output(h), torch.tensor(labels))
    torch.testing.assert_close(loss, expected)


def test_classes_count_as_single_labels() -> None:
    method = make(overlap="jaccard")
    output = Output(torch.tanh(torch.randn(4, 48)))
    targets = torch.tensor([0, 2, 1, 0])
    one_hot = nn.functional.one_hot(targets)
    torch.testing.assert_close(method.loss(output, targets), method.loss(output, one_hot))


def test_one_bit_and_one_image() -> None:
    method = make(bits=1).eval()
    output = method(torch.randn(1, 3, 64, 64))
    assert output.embedding.shape == (1, 1)
    assert torch.isfinite(method.loss(output, LABELS[:1]))


def test_in_16_bit_codes_and_gradients_are_finite_float32() -> None:
    method = make()
    with torch.autocast("cpu", torch.bfloat16):
        output = method(100 * torch.randn(4, 3, 64, 64))
        loss = method.loss(output, LABELS)
    assert output.embedding.dtype == loss.dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_a_backbone_without_inner_maps_takes_a_single_level() -> None:
    backbone = Backbone("resnet10t", image_size=64)
    backbone.net.forward_intermediates = None
    with pytest.raises(UsageError, match="no maps of inner stages"):
        MLRSIRNet(backbone, MLRSIRNetOptions(), classes=3)
    method = MLRSIRNet(backbone, MLRSIRNetOptions(levels="single"), classes=3)
    assert method(torch.randn(2, 3, 64, 64)).embedding.shape == (2, 48)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("bits", 0, "at least 1"),
        ("levels", "all", "one of multi, single"),
        ("overlap", "cosine", "one of none, jaccard"),
        ("reduction", 0, "at least 1"),
        ("hidden", 0, "at least 1"),
        ("scale", 0.0, "above 0"),
        ("scale", float("nan"), "above 0"),
        ("quantisation", -1.0, "at least 0"),
        ("quantisation", float("inf"), "finite"),
    ],
)
def test_impossible_options_are_refused(option: str, value: float | str, rule: str) -> None:
    with pytest.raises(UsageError, match=f"{option} must be .*{rule}.*not {value!r}"):
        MLRSIRNetOptions(**{option: value})
