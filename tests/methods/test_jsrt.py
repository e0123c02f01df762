from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rsir.errors import UsageError
from rsir.methods.jsrt import FEATURES, JSRT, TRANSFORMS, JSRTOptions
from rsir.nn.backbone import Backbone
from rsir.nn.warp import IDENTITY, radiometric_transform, spatial_transform


def make(bands: int = 3, **options: int | float | str) -> JSRT:
    backbone = Backbone("resnet10t", image_size=64, bands=bands)
    return JSRT(backbone, JSRTOptions(**options), classes=5).eval()  # type: ignore[arg-type]


def stirred(method: JSRT) -> JSRT:
    """The method with random weights in its transformations, which then depend on the image."""
    assert method.pgn is not None
    torch.nn.init.normal_(method.pgn.last.weight, std=0.3)
    return method


def test_joint_agrees_with_the_papers_figure() -> None:
    method, images = stirred(make()), torch.randn(3, 3, 64, 64)
    assert method.pgn is not None
    numbers = method.pgn(images)
    assert numbers.shape == (3, 10)
    moved = spatial_transform(images, numbers[:, :6])
    corrected = radiometric_transform(moved, numbers[:, 6:9], numbers[:, 9:])
    assert not torch.allclose(corrected, images, atol=0.1)
    pooled = method.backbone(corrected).mean(dim=(2, 3))
    fc1 = pooled @ method.fc1.weight.T + method.fc1.bias
    output = method(images)
    torch.testing.assert_close(output.embedding, fc1)
    torch.testing.assert_close(output.logits, fc1 @ method.fc2.weight.T + method.fc2.bias)

    method.adapt(torch.randn(300, 512))
    assert method.pca is not None
    projected = (fc1 - method.pca.mean) @ method.pca.components.T
    torch.testing.assert_close(method(images).embedding, projected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transform", "numbers"), [("spatial", 6), ("radiometric", 4), ("joint", 10)]
)
def test_each_variant_changes_its_part(transform: str, numbers: int) -> None:
    method, images = stirred(make(transform=transform)), torch.randn(2, 3, 64, 64)
    assert method.pgn is not None
    found = method.pgn(images)
    assert found.shape == (2, numbers)
    expected = images
    if transform != "radiometric":
        expected = spatial_transform(expected, found[:, :6])
    if transform != "spatial":
        expected = radiometric_transform(expected, found[:, -4:-1], found[:, -1:])
    assert torch.equal(method.transform(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("features", FEATURES)
def test_every_variant_starts_as_the_plain_network(transform: str, features: str) -> None:
    plain = make(transform="none", features=features)
    method = make(transform=transform, features=features)
    missing = method.load_state_dict(plain.state_dict(), strict=False)
    assert all(name.startswith("pgn.") for name in missing.missing_keys)
    assert not missing.unexpected_keys
    images = torch.randn(1, 3, 64, 64)
    expected, output = plain(images), method(images)
    torch.testing.assert_close(output.embedding, expected.embedding, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-3, rtol=1e-3)


def test_each_band_has_a_gain() -> None:
    method = stirred(make(bands=4))
    assert method.pgn is not None
    assert method.pgn.start.tolist() == [*IDENTITY, 1, 1, 1, 1, 0]
    assert method(torch.randn(2, 4, 64, 64)).embedding.shape == (2, 512)


def test_features_fc_is_the_output_of_fc2() -> None:
    method = make(features="fc")
    output = method(torch.randn(2, 3, 64, 64))
    assert method.dimension == 5
    assert output.logits is not None
    assert torch.equal(output.embedding, output.logits)
    assert method.learner() is None


def test_without_fc1_the_pca_is_of_the_pooled_features() -> None:
    method, images = make(transform="none", fc1=0, pca_length=4), torch.randn(2, 3, 64, 64)
    pooled = method.backbone(images).mean(dim=(2, 3))
    torch.testing.assert_close(method(images).embedding, pooled)
    assert method.dimension == method.backbone.channels


def test_the_dimension_before_and_after_the_fit() -> None:
    method, images = make(fc1=32, pca_length=7), torch.randn(2, 3, 64, 64)
    assert (method.dimension, method(images).embedding.shape) == (32, (2, 32))
    learnt = method.adapt(method.features(torch.randn(9, 3, 64, 64)).detach())
    assert learnt["pca_length"] == 7
    assert 0 < learnt["variance_kept"] <= 1
    assert (method.dimension, method(images).embedding.shape) == (7, (2, 7))


def test_the_loss_is_cross_entropy() -> None:
    method, targets = make(), torch.tensor([0, 4])
    output = method(torch.randn(2, 3, 64, 64))
    assert output.logits is not None
    expected = functional.nll_loss(output.logits.log_softmax(dim=1), targets)
    torch.testing.assert_close(method.loss(output, targets), expected)
    with pytest.raises(UsageError, match="one class per image"):
        method.loss(output, torch.ones(2, 5))


def test_the_embedding_stays_float32_inside_autocast() -> None:
    method, images = stirred(make()), torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert method(images).embedding.dtype == torch.float32
        assert torch.equal(method.transform(images), stirred_again(method, images))
        method.adapt(torch.randn(20, 512))
        output = method(images)
    assert output.embedding.dtype == torch.float32
    assert torch.isfinite(output.embedding).all()


def stirred_again(method: JSRT, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return method.transform(images)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("transform", "both", "one of joint, spatial, radiometric, none"),
        ("features", "fc1", "one of pca, fc"),
        ("pca_length", 1, "at least 2"),
        ("pca_length", 513, "at most fc1, 512"),
        ("fc1", -1, "at least 0"),
        ("pgn_size", 3, "at least 4"),
        ("pgn_scale", 0.0, "above 0"),
        ("pgn_scale", 1.5, "at most 1"),
        ("pgn_scale", float("nan"), "at most 1"),
    ],
)
def test_impossible_options_are_refused(option: str, value: float | str, rule: str) -> None:
    with pytest.raises(UsageError, match=f"{option} must be .*{rule}.*not {value!r}"):
        JSRTOptions(**{option: value})  # type: ignore[arg-type]


def test_more_components_than_channels_are_refused_without_fc1() -> None:
    with pytest.raises(UsageError, match="pca_length must be at most the 512 features, not 600"):
        make(fc1=0, pca_length=600)
    make(fc1=0, pca_length=600, features="fc")
    JSRTOptions(fc1=64, features="fc")
