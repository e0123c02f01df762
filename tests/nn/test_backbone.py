from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import ClassVar

import pytest
import timm
import torch
from safetensors.torch import save_file

from rsir.errors import ModelError, UsageError
from rsir.nn.backbone import REFUSED_OPTIONS, Backbone, parse_name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "cells"),
    [
        ("resnet10t", 65, 3),  # an odd size
        ("mobilenetv2_100:pad_type=same", 64, 2),
        ("vit_tiny_patch16_224", 48, 3),  # tokens, with a class token
        ("swin_tiny_patch4_window7_224", 224, 7),  # channels last
        ("xcit_nano_12_p16_224", 64, 4),  # from here on, tokens without timm's grid size
        ("mvitv2_tiny", 224, 7),
        ("tnt_s_legacy_patch16_224", 224, 14),
        ("levit_128s", 224, 4),
        ("volo_d1_224", 224, 14),  # with a class token, but without num_prefix_tokens
    ],
)
def test_every_kind_of_backbone_gives_a_feature_map(name: str, side: int, cells: int) -> None:
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


def test_weights_from_a_file_give_timms_features(tmp_path: Path) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet18:nonsense=1", 32, "cannot build.*TypeError.*nonsense"),
        ("resnet50.nonsense", 32, "cannot build.*Invalid pretrained tag"),
        ("resnet10t:global_pool=foo", 32, "cannot build.*Invalid pool type: foo"),
        ("resnet10t:output_stride=7", 32, "cannot build.*AssertionError"),
        ("resnet10t:act_layer=foo", 32, "cannot build.*KeyError: 'foo'"),
        ("vit_tiny_patch16_224:patch_size=0", 32, "cannot build.*ZeroDivisionError"),
        ("swin_tiny_patch4_window7_224", 3, "'swin_tiny.*3 × 3 pixels"),
        ("pit_ti_224", 224, "'pit_ti_224' gives 0 patch tokens, .* no 27 × 27 map"),
        ("coat_tiny", 224, "'coat_tiny' gives several maps"),
    ],
)
def test_errors_of_timm_become_usage_errors(name: str, size: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Backbone(name, image_size=size)


class Net(torch.nn.Module):
    """A net that returns `features` for every input."""

    pretrained_cfg: ClassVar[dict[str, tuple[float, ...]]] = {"mean": (0.5,) * 3, "std": (0.5,) * 3}

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.features = features

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.features


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8), "'resnet10t' gives 2-D features"),
        ((1, 2, 3, 4, 5), "'resnet10t' gives 5-D features"),
        ((1, 12, 8), "'resnet10t' gives 12 patch tokens, which make no square map"),
    ],
)
def test_features_without_a_map_are_refused(
    shape: tuple[int, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: Net(torch.zeros(shape)))
    with pytest.raises(UsageError, match=message):
        Backbone("resnet10t", image_size=32)


def test_weights_that_cannot_be_fetched_are_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class NotCachedError(FileNotFoundError, ValueError):
        """Like the hub's LocalEntryNotFoundError, an OSError and a ValueError."""

    def offline(*_: object, **__: object) -> None:
        raise NotCachedError("offline")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match="could not fetch"):
        Backbone("resnet10t", image_size=32, weights="pretrained")


@pytest.mark.parametrize("option", sorted(REFUSED_OPTIONS))
def test_names_cannot_set_files_bands_or_classes(option: str) -> None:
    with pytest.raises(UsageError, match=f"cannot set {option};"):
        parse_name(f"resnet10t:pad_type=same,{option}=1")


def test_a_pickle_in_a_name_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "boom"),)

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UsageError, match="checkpoint_path"):
        Backbone(f"resnet10t:checkpoint_path={tmp_path / 'w.pth'}", image_size=32)
    assert not (tmp_path / "boom").exists()


def test_real_weights_load(weights: Path) -> None:
    backbone = Backbone("mobilenetv2_100:pad_type=same", image_size=64, weights=weights)
    assert backbone.channels == 1280
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
