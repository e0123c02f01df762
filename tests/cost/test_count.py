from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import torch

from rsir import cli
from rsir.cost.count import Cost, cost, ready
from rsir.models.model import Model, build_model

CLASSES = 10


class Work(NamedTuple):
    """Parameters and multiply-adds."""

    parameters: int
    multiply_adds: int

    def __add__(self, other: tuple[int, int]) -> Work:  # type: ignore[override]
        return Work(self[0] + other[0], self[1] + other[1])


def conv(into: int, out: int, kernel: int, positions: int, *, bias: bool = True) -> Work:
    weights = into * out * kernel**2
    return Work(weights + bias * out, weights * positions)


def linear(into: int, out: int) -> Work:
    return conv(into, out, 1, positions=1)


def norm(channels: int) -> Work:
    return Work(2 * channels, 0)


def resnet50() -> list[Work]:
    """The stem and the four stages at 224², from the architecture's table (He et al. 2016).

    With the stride in the 3 × 3 convolution, as torchvision and timm have it ("v1.5").
    """
    stages = [conv(3, 64, 7, 112**2, bias=False) + norm(64)]
    into = 64
    for blocks, width, side in ((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)):
        work = Work(0, 0)
        for block in range(blocks):
            before = side * 2 if block == 0 and width > 64 else side
            out = 4 * width
            work += conv(into, width, 1, before**2, bias=False) + norm(width)
            work += conv(width, width, 3, side**2, bias=False) + norm(width)
            work += conv(width, out, 1, side**2, bias=False) + norm(out)
            if block == 0:
                work += conv(into, out, 1, side**2, bias=False) + norm(out)
            into = out
        stages.append(work)
    return stages


BACKBONE = sum(resnet50(), start=Work(0, 0))


def pgn(numbers: int) -> Work:
    """Paper D's network on 64²: two convolutions, each halved, and an MLP."""
    convs = conv(3, 8, 7, 64**2) + conv(8, 10, 5, 32**2)
    return convs + linear(10 * 16**2, 32) + linear(32, numbers)


def warping() -> Work:
    """The grid's matrix product, and four neighbours for each of three bands."""
    return Work(0, 224**2 * (3 * 2 + 4 * 3))


def submodule(bits: int) -> Work:
    """Paper B's: residual attention from stage 3 (1024 × 14²) to stage 4 (2048 × 7²), an FC, α."""
    unit = norm(1024) + conv(1024, 256, 1, 49, bias=False)
    unit += norm(256) + conv(256, 256, 3, 49, bias=False)
    unit += norm(256) + conv(256, 1024, 1, 49, bias=False)
    mask = norm(1024) + conv(1024, 1024, 1, 49, bias=False)
    mask += norm(1024) + conv(1024, 2048, 1, 49)
    return unit + mask + linear(2048, bits) + (1, 0)


def head(method: str, options: Mapping[str, Any]) -> Work:
    """The cost of a method's own layers, by hand."""
    if method == "pooled":
        return Work(int(options.get("pooling", "gem") == "gem"), 0)  # p
    if method == "dual-attention":
        spatial = conv(2048, 256, 1, 49) + conv(2048, 256, 1, 49) + conv(2048, 2048, 1, 49)
        spatial += (1, 49 * 49 * (256 + 2048))  # α; J·K and s·L
        channel = Work(1, 2 * 2048 * 2048 * 49)  # β; F·F and x·F
        return spatial + channel + conv(2048, 2048, 1, 49) + (1, 0)  # p
    if method == "jsrt":
        transform = options.get("transform", "joint")
        numbers = {"joint": 10, "spatial": 6, "radiometric": 4, "none": 0}[transform]
        work = pgn(numbers) if numbers else Work(0, 0)
        work += warping() if transform in ("joint", "spatial") else (0, 0)
        width = options.get("fc1", 512)
        work += linear(2048, width) if width else (0, 0)
        width = width or 2048
        if options.get("features", "pca") == "fc":
            return work + linear(width, CLASSES)
        pca = Work(128 * width + width, 128 * width)
        return work + pca + (0, width * CLASSES)  # FC2 is computed, but search does not use it
    if method == "eara":
        # A second stage 4, and p of GeM: fixed, but the embedding depends on it.
        return submodule(768) + submodule(768) + resnet50()[-1] + (1, 0)
    if method == "dah":
        attention = linear(2048, 128) + linear(128, 2048) + conv(2, 1, 1, 49)
        classifier = (64 * CLASSES, 64 * CLASSES)
        if options.get("ranking") == "hamming":
            classifier = (0, 64 * CLASSES)  # computed, but search does not use it
        return attention + linear(2048, 64) + norm(64) + classifier
    assert method == "mlrsir-net"
    width = 512 + 1024 + 2048
    mlp = linear(width, width // 16) + linear(width // 16, width)
    attention = mlp + Work(0, mlp.multiply_adds) + conv(2, 1, 7, 49)  # the MLP runs twice
    return attention + linear(width, 500) + linear(500, 48) + norm(48)


def make(method: str, size: int = 224, backbone: str = "resnet50", **options: Any) -> Model:
    names = tuple(f"c{i}" for i in range(CLASSES))
    return build_model(method, backbone=backbone, spec=size, classes=names, options=options)


def test_resnet50_has_its_published_cost() -> None:
    assert round(BACKBONE.parameters / 1e6, 3) == 23.508
    whole = BACKBONE + linear(2048, 1000)
    assert round(whole.parameters / 1e6, 3) == 25.557
    assert round(whole.multiply_adds / 1e9, 2) == 4.09


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("pooled", {}),
        ("pooled", {"pooling": "spoc"}),
        ("dual-attention", {}),
        ("jsrt", {}),
        ("jsrt", {"features": "fc"}),
        ("jsrt", {"transform": "spatial"}),
        ("jsrt", {"transform": "radiometric"}),
        ("jsrt", {"transform": "none", "fc1": 0}),
        ("eara", {}),
        ("dah", {"bits": 64}),
        ("dah", {"bits": 64, "ranking": "hamming"}),
        ("mlrsir-net", {"bits": 48}),
    ],
)
def test_the_cost_is_the_sum_of_the_layers(method: str, options: dict[str, Any]) -> None:
    expected = BACKBONE + head(method, options)
    assert cost(make(method, **options)) == Cost(*expected, image_size=(224, 224))


LEVELS = 512 + 1024 + 2048
ABLATIONS: list[tuple[str, dict[str, Any], Work]] = [
    # An MLP 2048 → 128 → 2048 with its biases, and a 1 × 1 convolution of 2 maps of 7².
    ("dah", {"attention": "none"}, Work(-(2 * 2048 * 128 + 128 + 2048) - 3, -2 * 2048 * 128 - 98)),
    ("dah", {"attention": "se"}, Work(-3, -98)),  # the same MLP
    # An MLP of 3584 → 224 → 3584, that runs twice, and a 7 × 7 convolution of 2 maps of 7².
    (
        "mlrsir-net",
        {"cbam": False},
        Work(-(2 * LEVELS * 224 + 224 + LEVELS) - (98 + 1), -4 * LEVELS * 224 - 98 * 49),
    ),
    # The MLP is 2048 → 128 → 2048, and the FC of 500 has 1536 fewer to read.
    (
        "mlrsir-net",
        {"levels": "single"},
        Work(
            -2 * (LEVELS * 224 - 2048 * 128) - (224 - 128) - 1536 - 1536 * 500,
            -4 * (LEVELS * 224 - 2048 * 128) - 1536 * 500,
        ),
    ),
    # Twice: batch norms (1024, 256, 256; 1024, 1024), convolutions 1024 → 256 → 256 → 1024 with
    # 3 × 3 in the middle, then 1024 → 1024 → 2048, the last one with a bias; all at 7².
    (
        "eara",
        {"activation": "none"},
        Work(
            -2 * (2 * 3584 + 2 * 1024 * 256 + 9 * 256**2 + 1024**2 + 1024 * 2048 + 2048),
            -2 * 49 * (2 * 1024 * 256 + 9 * 256**2 + 1024**2 + 1024 * 2048),
        ),
    ),
    # A third stage 4 with its submodule; the FCs share 1536 numbers, as before.
    (
        "eara",
        {"descriptors": "SGM"},
        resnet50()[-1] + submodule(0),
    ),
]


@pytest.mark.parametrize(("method", "options", "difference"), ABLATIONS)
def test_an_ablation_changes_the_cost_of_its_layers(
    method: str, options: dict[str, Any], difference: Work
) -> None:
    bits = {"dah": 64, "mlrsir-net": 48}.get(method)
    default = BACKBONE + head(method, {"bits": bits} if bits else {})
    expected = default + difference
    assert cost(make(method, **options)) == Cost(*expected, image_size=(224, 224))


def test_a_classifier_adds_its_weights() -> None:
    plain = cost(make("pooled", pooling="spoc"))
    with_classifier = cost(make("jsrt", transform="none", features="fc", fc1=0))
    assert with_classifier.parameters - plain.parameters == 2048 * CLASSES + CLASSES
    assert with_classifier.multiply_adds - plain.multiply_adds == 2048 * CLASSES


def test_counting_does_not_change_the_model() -> None:
    model = make("jsrt", size=64, backbone="resnet10t")
    model.module.train()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    learnt = [p.requires_grad for p in model.module.parameters()]
    found = cost(model)
    assert model.module.training
    assert [p.requires_grad for p in model.module.parameters()] == learnt
    assert all(p.grad is None for p in model.module.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert model.dimension == 512  # not adapted, although it is counted in its adapted state
    assert cost(model) == found


def test_the_cost_is_the_same_before_and_after_adapting() -> None:
    model = make("jsrt", size=64, backbone="resnet10t")
    before = cost(model)
    model.module.adapt(torch.randn(5, 512))
    assert cost(model) == before
    assert before.image_size == (64, 64)


def test_a_copy_is_ready_to_search() -> None:
    model = make("jsrt", size=64, backbone="resnet10t")
    model.module.train()
    copied = ready(model)
    assert copied.dimension == 128
    assert not any(m.training for m in copied.modules())
    assert copied(torch.randn(2, 3, 64, 64)).embedding.shape == (2, 128)
    assert model.dimension == 512
    assert all(m.training for m in model.module.modules())
    shared = {p.data_ptr() for p in model.module.parameters()}
    assert not shared & {p.data_ptr() for p in copied.parameters()}


def test_proxies_of_a_loss_are_not_counted() -> None:
    small = {"size": 64, "backbone": "resnet10t", "descriptors": "S"}
    assert cost(make("eara", loss="proxy-nca", **small)) == cost(make("eara", **small))


def test_rsir_cost(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cost", "jsrt", "--backbone", "resnet10t", "--size", "64", "-s", "fc1=200"]
    cli.app([*words, "--classes", "10"], standalone_mode=False)
    expected = cost(make("jsrt", size=64, backbone="resnet10t", fc1=200))
    assert capsys.readouterr().out == (
        f"jsrt on resnet10t: {expected.parameters / 1e6:.3f} M parameters, "
        f"{expected.multiply_adds / 1e9:.3f} G multiply-adds for an image of 64 × 64\n"
    )
    cli.app([*words, "--classes", "10", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == {
        "parameters": expected.parameters,
        "multiply_adds": expected.multiply_adds,
        "image_size": [64, 64],
    }
