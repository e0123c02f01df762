from __future__ import annotations

import pytest
import torch

from rsir.errors import UsageError
from rsir.nn.backbone import Backbone
from rsir.nn.stages import ReplicatedStages

STAGED = [
    "resnet10t",
    "mobilenetv2_100:pad_type=same",
    "convnext_atto",
    "regnety_002",
    "densenet121",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGED)
def test_every_copy_starts_as_the_backbone(name: str) -> None:
    backbone = Backbone(name, image_size=64).eval()
    images = torch.randn(2, 3, 64, 96)
    expected = backbone(images)
    stages = ReplicatedStages(backbone, copies=2)
    shared, maps = stages(images)
    assert stages.channels == expected.shape[1]
    assert stages.shared_channels == shared.shape[1]
    for found in maps:
        torch.testing.assert_close(found, expected)


def test_the_cut_is_before_the_last_stage() -> None:
    backbone = Backbone("resnet10t", image_size=64).eval()
    images = torch.randn(1, 3, 64, 64)
    net = backbone.net
    stem = net.maxpool(net.act1(net.bn1(net.conv1(images))))
    third = net.layer3(net.layer2(net.layer1(stem)))
    stages = ReplicatedStages(backbone, copies=3)
    shared, maps = stages(images)
    torch.testing.assert_close(shared, third)
    assert len(maps) == 3


def test_early_stages_exist_once_and_the_last_stage_per_copy() -> None:
    backbone = Backbone("resnet10t", image_size=64)
    whole = sum(p.numel() for p in backbone.parameters())
    last = sum(p.numel() for p in backbone.net.layer4.parameters())
    stages = ReplicatedStages(backbone, copies=3)
    assert sum(p.numel() for p in stages.parameters()) == whole + 2 * last


def test_copies_learn_independently() -> None:
    stages = ReplicatedStages(Backbone("resnet10t", image_size=64), copies=2).eval()
    _, (one, _) = stages(torch.randn(2, 3, 64, 64))
    one.sum().backward()
    assert all(p.grad is not None for p in stages.copies[0].parameters())
    assert all(p.grad is None for p in stages.copies[1].parameters())
    assert all(p.grad is not None for p in stages.shared.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_unchanged(training: bool) -> None:
    backbone = Backbone("resnet10t", image_size=64).train(training)
    stages = ReplicatedStages(backbone, copies=2)
    parts = (stages.shared, *stages.copies)
    assert {m.training for part in parts for m in part.modules()} == {training}


@pytest.mark.slow
def test_channels_last_nets_give_channels_first() -> None:
    stages = ReplicatedStages(Backbone("swinv2_cr_tiny_224", image_size=224), copies=1).eval()
    shared, (last,) = stages(torch.zeros(1, 3, 224, 224))
    assert shared.shape == (1, 384, 14, 14)
    assert last.shape == (1, 768, 7, 7)


def test_a_backbone_without_stages_is_refused() -> None:
    with pytest.raises(UsageError, match="has no stages"):
        ReplicatedStages(Backbone("vit_tiny_patch16_224", image_size=64), copies=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xception41", "hrnet_w18_small", "vgg11"])
def test_a_backbone_without_a_chain_of_weighted_stages_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be cut before its last stage"):
        ReplicatedStages(Backbone(name, image_size=64), copies=2)


def test_unused_modules_are_removed() -> None:
    stages = ReplicatedStages(Backbone("mobilenetv3_small_050", image_size=64), copies=2).eval()
    shared, maps = stages(torch.randn(1, 3, 64, 64))
    (shared.sum() + sum(m.sum() for m in maps)).backward()
    assert all(p.grad is not None for p in stages.parameters())
