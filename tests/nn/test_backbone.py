from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from rsir.errors import ModelError, UsageError
from rsir.nn.backbone import Backbone, parse_name


@pytest.mark.parametrize(
    ("name", "side", "cells"),
    [
        ("resnet10t", 65, 3),  # an odd size
        ("mobilenetv2_100:pad_type=same", 64, 2),
        ("vit_tiny_patch16_224", 48, 3),  # tokens, with a class token
        ("swin_tiny_patch4_window7_224", 224, 7),  # channels last
    ],
)
def test_any_kind_of_backbone_gives_a_feature_map(name: str, side: int, cells: int) -> None:
    backbone = Backbone(name, image_size=side)
    features = backbone.eval()(torch.randn(2, 3, side, side))
    assert features.shape == (2, backbone.channels, cells, cells)


def test_tokens_become_a_map_in_reading_order() -> None:
    backbone = Backbone("vit_tiny_patch16_224", image_size=48)
    images = torch.randn(1, 3, 48, 48)
    tokens = backbone.eval().net.forward_features(images)
    features = backbone(images)
    for row in range(3):
        for column in range(3):
            expected = tokens[0, 1 + 3 * row + column]
            torch.testing.assert_close(features[0, :, row, column], expected)


def test_more_bands_than_three() -> None:
    backbone = Backbone("resnet10t", image_size=32, bands=5)
    assert backbone.eval()(torch.randn(1, 5, 32, 32)).shape[1] == backbone.channels
    assert len(backbone.mean) == len(backbone.std) == 5


def test_weights_from_a_file_give_timms_own_features(tmp_path: Path) -> None:
    net = timm.create_model("resnet10t", num_classes=7)
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    metadata = {"mean": "0.5,0.4,0.3", "std": "0.1,0.2,0.3"}
    save_file(state, tmp_path / "w.safetensors", metadata)
    backbone = Backbone("resnet10t", image_size=32, weights=tmp_path / "w.safetensors")
    images = torch.randn(2, 3, 32, 32)
    expected = net.eval().forward_features(images)
    torch.testing.assert_close(backbone.eval()(images), expected)
    assert (backbone.mean, backbone.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no weights file"):
        Backbone("resnet10t", image_size=32, weights=tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelError, match="not a safetensors file"):
        Backbone("resnet10t", image_size=32, weights=tmp_path / "text.safetensors")
    other = timm.create_model("resnet14t", num_classes=0).state_dict()
    other["conv1.0.weight"] = torch.zeros(1)
    del other["bn1.weight"]
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"1 missing.*bn1\.weight.*20 differently shaped.*conv1"):
        Backbone("resnet10t", image_size=32, weights=tmp_path / "other.safetensors")


def test_names_are_parsed_and_unknown_ones_get_a_hint() -> None:
    assert parse_name("resnet18") == ("resnet18", {})
    name, options = parse_name("mobilenetv2_100:pad_type=same,drop_rate=0.5,a=true,b=3")
    assert name == "mobilenetv2_100"
    assert options == {"pad_type": "same", "drop_rate": 0.5, "a": True, "b": 3}
    with pytest.raises(UsageError, match="resnet50"):
        parse_name("esnet50")
    with pytest.raises(UsageError, match="key=value"):
        parse_name("resnet18:fast")
    with pytest.raises(UsageError, match="does not take these options"):
        Backbone("resnet18:nonsense=1", image_size=32)


def test_the_weights_at_hand_fit(weights: Path) -> None:
    backbone = Backbone("mobilenetv2_100:pad_type=same", image_size=64, weights=weights)
    assert backbone.channels == 1280
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
