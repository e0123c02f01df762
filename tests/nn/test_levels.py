from __future__ import annotations

import pytest
import torch
from torch import nn

from rsir.errors import UsageError
from rsir.nn.backbone import Backbone
from rsir.nn.levels import feature_maps, level_channels

NETS = ["resnet10t", "mobilenetv2_100", "test_vit", "swin_tiny_patch4_window7_224"]
"""Stages of a plain net, a head convolution, tokens, channels last."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:timm")
@pytest.mark.parametrize("name", NETS)
def test_the_deepest_map_is_the_backbones_output(name: str) -> None:
    backbone = Backbone(name, image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        own = backbone(images)
        for levels in (1, 2, 3):
            maps = feature_maps(backbone, images, levels)
            assert [m.shape[1] for m in maps] == level_channels(backbone, levels)
            assert [m.shape[0] for m in maps] == [2] * levels
            torch.testing.assert_close(maps[-1], own)


def test_the_maps_are_the_last_stages_outputs() -> None:
    backbone = Backbone("resnet10t", image_size=64).eval()
    seen = []
    for stage in (backbone.net.layer2, backbone.net.layer3, backbone.net.layer4):
        stage.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    images = torch.randn(1, 3, 64, 48)  # not square
    for found, expected in zip(feature_maps(backbone, images, 3), seen, strict=True):
        assert torch.equal(found, expected)
    assert [tuple(m.shape[2:]) for m in seen] == [(8, 6), (4, 3), (2, 2)]


def test_more_levels_than_stages_are_refused() -> None:
    with pytest.raises(UsageError, match=r"resnet10t.*5 stages, not 6"):
        level_channels(Backbone("resnet10t", image_size=64), 6)


def test_a_net_without_inner_maps_has_its_final_map() -> None:
    backbone = Backbone("resnet10t", image_size=64)
    backbone.net = _Bare(backbone.net)
    assert level_channels(backbone, 1) == [512]
    images = torch.randn(1, 3, 64, 64)
    assert feature_maps(backbone, images, 1)[0].shape == (1, 512, 2, 2)
    with pytest.raises(UsageError, match="no maps of inner stages"):
        level_channels(backbone, 2)


class _Bare(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.forward_features = net.forward_features
