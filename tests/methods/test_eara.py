from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rsir.errors import UsageError
from rsir.methods.eara import COMBINATIONS, EARA, EARAOptions
from rsir.nn.backbone import Backbone
from rsir.training.loop import parameter_groups
from rsir.training.settings import TrainingSettings


def make(**options: object) -> EARA:
    backbone = Backbone("resnet10t", image_size=64)
    return EARA(backbone, EARAOptions(**options), classes=4)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("descriptors", COMBINATIONS)
def test_the_embedding_is_split_evenly_and_weighted_by_alpha(descriptors: str) -> None:
    method = make(descriptors=descriptors, dimension=24).eval()
    for weight, submodule in enumerate(method.submodules, start=1):
        submodule.alpha.data.fill_(float(weight))
    found = method(torch.randn(2, 3, 64, 64)).embedding
    parts = found.split(24 // len(descriptors), dim=1)
    lengths = torch.stack([part.norm(dim=1) for part in parts], dim=1)
    weights = torch.arange(1.0, len(descriptors) + 1)
    expected = (weights / weights.norm()).expand_as(lengths)
    torch.testing.assert_close(lengths, expected)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["mixed", "channel", "spatial", "none"])
def test_eara_agrees_with_the_papers_figure(activation: str) -> None:
    method = make(descriptors="SGM", dimension=12, activation=activation).eval()
    images = torch.randn(2, 3, 64, 64)
    shared, trunks = method.backbone(images)
    parts = []
    for submodule, trunk, name in zip(method.submodules, trunks, "SGM", strict=True):
        attended = trunk
        if activation != "none":
            mask = submodule.attention.mask(shared, trunk.shape[2:])
            attended = (1 + mask) * trunk
        pooled = {
            "S": attended.mean(dim=(2, 3)),
            "M": attended.amax(dim=(2, 3)),
            "G": attended.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3),
        }[name]
        projected = pooled @ submodule.fc.weight.T + submodule.fc.bias
        parts.append(submodule.alpha * projected / projected.norm(dim=1, keepdim=True))
    expected = functional.normalize(torch.cat(parts, dim=1), dim=1)
    torch.testing.assert_close(method(images).embedding, expected)


def test_p_of_gem_is_fixed() -> None:
    assert not make(descriptors="G").submodules[0].pool.p.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["triplet", "n-pairs", "proxy-nca", "lifted"])
def test_every_loss_reaches_every_submodule(loss: str) -> None:
    method = make(loss=loss, dimension=8, margin=4.0)
    output = method(torch.randn(4, 3, 64, 64))
    method.loss(output, torch.tensor([0, 0, 1, 1])).backward()
    missing = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "loss", "size"),
    [
        ("mixed", "triplet", (96, 160)),
        ("channel", "n-pairs", (64, 64)),
        ("spatial", "lifted", (64, 64)),
        ("spatial", "triplet", (32, 32)),  # maps of a single position
        ("none", "proxy-nca", (32, 32)),
    ],
)
def test_in_16_bit_embeddings_and_gradients_are_finite_float32(
    activation: str, loss: str, size: tuple[int, int]
) -> None:
    method = make(descriptors="SGM", dimension=12, activation=activation, loss=loss, margin=4.0)
    with torch.autocast("cpu", torch.bfloat16):
        output = method(100 * torch.randn(4, 3, *size))
        found = method.loss(output, torch.tensor([0, 0, 1, 1]))
    assert output.embedding.dtype == found.dtype == torch.float32
    torch.testing.assert_close(output.embedding.norm(dim=1), torch.ones(4))
    assert torch.isfinite(found)
    assert found > 0
    found.backward()
    learnt = {name: p.grad for name, p in method.named_parameters() if p.requires_grad}
    for name, gradient in learnt.items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
    first = learnt["backbone.shared.conv1.0.weight"]
    assert first is not None
    assert first.abs().max() > 0


def test_copies_of_the_last_stage_learn_at_the_backbones_rate() -> None:
    method = make(dimension=8)
    settings = TrainingSettings(lr=1e-5, head_lr=1e-2)
    rates = {
        id(p): group["lr"] for group in parameter_groups(method, settings) for p in group["params"]
    }
    assert {rates[id(p)] for p in method.backbone.parameters()} == {1e-5}
    assert {rates[id(p)] for p in method.submodules.parameters() if p.requires_grad} == {1e-2}


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("descriptors", "GS", "one of S, M, G"),
        ("activation", "relu", "one of mixed"),
        ("dimension", 1537, "a positive multiple of 2"),
        ("dimension", 0, "a positive multiple of 2"),
        ("loss", "contrastive", "one of triplet"),
        ("margin", 0.0, "above 0"),
        ("temperature", 0.0, "above 0"),
    ],
)
def test_impossible_options_are_refused(option: str, value: object, rule: str) -> None:
    with pytest.raises(UsageError, match=f"{option} must be .*{rule}"):
        EARAOptions(**{option: value})  # type: ignore[arg-type]
