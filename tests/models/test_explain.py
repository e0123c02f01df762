from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rsir.errors import DataError, UsageError
from rsir.images.read import read_pixels
from rsir.methods import METHODS
from rsir.methods.jsrt import JSRT
from rsir.models.encoder import Encoder
from rsir.models.explain import explain, grad_cam, through_window
from rsir.models.model import build_model
from rsir.nn.warp import IDENTITY, spatial_transform

SIZE = 64

pytestmark = pytest.mark.slow


def make(
    method: str,
    backbone: str = "resnet10t",
    *,
    size: int = SIZE,
    weights: Path | None = None,
    **o: Any,
) -> Encoder:
    model = build_model(
        method,
        backbone=backbone,
        spec=size,
        classes=("a", "b", "c"),
        options=o,
        weights=weights or "none",
    )
    return Encoder(model, device="cpu")


def pictures(count: int = 2, size: int = SIZE) -> Tensor:
    """Smooth random images, so that the maps vary over the image."""
    coarse = torch.rand(count, 3, 4, 4) * 255
    smooth = functional.interpolate(coarse, (size, size), mode="bilinear")
    return (smooth + 20 * torch.rand(smooth.shape)).clamp(0, 255).to(torch.uint8)


def by_loops(maps: list[Tensor], gradients: list[Tensor], size: int) -> NDArray[np.float32]:
    """Grad-CAM as the paper writes it, for maps of one size: (B, size, size) with maximum 1."""
    count, _, height, width = maps[0].shape
    heat = torch.zeros(count, 1, height, width)
    for b in range(count):
        for a, gradient in zip(maps, gradients, strict=True):
            for k in range(a.shape[1]):
                alpha = float(gradient[b, k].sum()) / (height * width)
                heat[b, 0] += alpha * a[b, k]
    heat = torch.where(heat > 0, heat, 0)
    full = functional.interpolate(heat, (size, size), mode="bilinear")[:, 0].numpy()
    return np.asarray(full / full.max(axis=(1, 2), keepdims=True), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["spoc", "mac", "gem"])
@pytest.mark.parametrize("own", [True, False])
def test_the_map_agrees_with_the_papers_formula(pooling: str, own: bool) -> None:
    encoder, images = make("pooled", pooling=pooling), pictures()
    targets = None if own else torch.rand(2, encoder.dimension)
    with torch.no_grad():
        features = encoder.module.backbone(encoder.model.spec.normalise(images))
    features.requires_grad_()
    (pool,) = encoder.module.pools
    descriptor = pool(features)
    embedding = descriptor / descriptor.detach().square().sum(dim=1, keepdim=True).sqrt()
    similarity = (embedding * (embedding.detach() if targets is None else targets)).sum()
    (gradient,) = torch.autograd.grad(similarity, features)
    expected = by_loops([features.detach()], [gradient], SIZE)
    found = explain(encoder, images, targets=targets)
    assert 0 < found.min() < 0.9  # a flat map would pass with any formula
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_with_mean_pooling_the_map_is_each_positions_share_in_the_cosine() -> None:
    encoder, images = make("pooled", pooling="spoc", size=128), pictures(2, 128)
    batch = encoder.model.spec.normalise(images)
    with torch.no_grad():
        features, embedding = encoder.module.backbone(batch), encoder.module(batch).embedding
    first, second = embedding
    shares = torch.einsum("chw,c->hw", features[0], second) / features[0].mean((1, 2)).norm()
    torch.testing.assert_close(shares.mean(), first @ second)
    expected = functional.interpolate(shares[None, None], (128, 128), mode="bilinear")[0, 0]
    found = explain(encoder, images[:1], targets=second[None])[0]
    np.testing.assert_allclose(found, (expected / expected.max()).numpy(), atol=1e-5)


def test_the_maps_of_all_submodules_are_summed() -> None:
    encoder, images = make("eara", dimension=32), pictures()
    method: Any = encoder.module
    with torch.no_grad():
        for submodule, alpha in zip(method.submodules, (0.3, 1.7), strict=True):
            submodule.alpha.fill_(alpha)
        shared, trunks = method.backbone(encoder.model.spec.normalise(images))
    maps, parts = [], []
    for submodule, trunk in zip(method.submodules, trunks, strict=True):
        maps.append(submodule.attention(shared, trunk).detach().requires_grad_())
        descriptor = submodule.fc(submodule.pool(maps[-1]))
        parts.append(submodule.alpha * descriptor / descriptor.detach().norm(dim=1, keepdim=True))
    # The outer norm is one number per image, so the map does not depend on it.
    embedding = torch.cat(parts, dim=1)
    gradients = torch.autograd.grad((embedding * embedding.detach()).sum(), maps)
    expected = by_loops([m.detach() for m in maps], list(gradients), SIZE)
    np.testing.assert_allclose(explain(encoder, images), expected, atol=1e-5)
    alone = by_loops([maps[0].detach()], [gradients[0]], SIZE)
    assert np.abs(alone - expected).max() > 1e-3


def test_maps_of_several_sizes_are_summed_at_the_largest_size() -> None:
    small, large = torch.full((1, 1, 1, 1), 2.0), torch.arange(4.0).view(1, 1, 2, 2)
    heat = grad_cam([small, large], [torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 2, 2), -5.0)])
    assert heat.tolist() == [[[[6.0, 1.0], [0.0, 0.0]]]]


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 2), (2, 0), (2, 2)])
def test_an_embedding_of_one_quadrant_has_its_heat_there(rows: int, columns: int) -> None:
    encoder, images = make("dual-attention", attention="spatial", size=128), pictures(2, 128)

    class Quadrant(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            mask = torch.zeros_like(features)
            mask[:, :, rows : rows + 2, columns : columns + 2] = 1
            return features * mask

    method: Any = encoder.module
    method.branches = [Quadrant()]
    heat = explain(encoder, images)
    inside = heat[:, 32 * rows : 32 * rows + 64, 32 * columns : 32 * columns + 64]
    assert inside.max() == 1
    assert inside.sum() > 0.75 * heat.sum()
    # Interpolation spreads half a cell, 16 pixels, over the border; beyond that there is no heat.
    near = (slice(max(0, 32 * n - 16), 32 * n + 80) for n in (rows, columns))
    heat[:, *near] = 0
    assert not heat.any()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv2_035", "test_vit"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_explained_and_stays_unchanged(name: str, backbone: str) -> None:
    if (name, backbone) == ("eara", "test_vit"):
        pytest.skip("eara refuses a backbone without stages")
    encoder, images = make(name, backbone), pictures(3)
    module = encoder.module
    frozen = next(module.backbone.parameters()).requires_grad_(False)
    before = state_of(module)
    embedding = encoder.encode_batch(images).embedding
    heat = explain(encoder, images)
    assert heat.shape == (3, SIZE, SIZE)
    assert heat.dtype == np.float32
    assert np.isfinite(heat).all()
    assert heat.min() >= 0
    assert (heat.max(axis=(1, 2)) == 1).all()
    assert state_of(module) == before
    assert not frozen.requires_grad
    assert all(p.grad is None for p in module.parameters())
    assert torch.is_grad_enabled()
    assert np.array_equal(encoder.encode_batch(images).embedding, embedding)
    alone = np.concatenate([explain(encoder, image[None]) for image in images])
    np.testing.assert_allclose(alone, heat, atol=2e-4)
    backwards = explain(encoder, images, targets=embedding[::-1].copy())
    assert np.abs(backwards - heat).max() > 1e-4


def state_of(module: nn.Module) -> list[Any]:
    """The state that an explanation could change, except the values of the weights."""
    flags = [(n, p.requires_grad, p._version) for n, p in module.named_parameters()]
    buffers = [(n, b._version) for n, b in module.named_buffers()]
    inner = [
        (n, m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for n, m in module.named_modules()
    ]
    return [flags, buffers, inner]


@pytest.mark.parametrize("broken", ["classifier", "backbone"])
def test_after_an_error_the_model_is_unchanged(broken: str) -> None:
    encoder, images = make("dah"), pictures()

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    hook = encoder.module.get_submodule(broken).register_forward_pre_hook(fail)
    before = state_of(encoder.module)
    with pytest.raises(RuntimeError, match="out of memory"):
        explain(encoder, images)
    assert state_of(encoder.module) == before
    assert torch.is_grad_enabled()
    # The gradient of norms is the normal one again.
    x = torch.ones(1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(functional.normalize(x)[0, 0], x)
    assert gradient[0, 1] != 0
    hook.remove()
    assert explain(encoder, images).max() == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_without_gradients(mode: Any) -> None:
    encoder, images = make("jsrt"), pictures()
    expected = explain(encoder, images, targets=torch.ones(2, encoder.dimension).cumsum(1))
    encoder.module.requires_grad_(False)
    with mode():
        targets = torch.ones(2, encoder.dimension).cumsum(1)
        found = explain(encoder, images.clone(), targets=targets)
        assert not torch.is_grad_enabled()
    assert np.array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_in_bfloat16_the_maps_are_float32_and_similar(name: str) -> None:
    encoder, images = make(name), pictures()
    expected = explain(encoder, images)
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(encoder, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_the_mean_of_a_target_has_no_effect_under_ncc() -> None:
    encoder, images = make("jsrt"), pictures()
    targets = torch.randn(2, encoder.dimension)
    heat = explain(encoder, images, targets=targets)
    np.testing.assert_allclose(explain(encoder, images, targets=targets + 7), heat, atol=1e-4)
    np.testing.assert_allclose(explain(encoder, images, targets=targets * 9), heat, atol=1e-4)


def test_without_support_for_the_target_the_map_is_zero() -> None:
    encoder, images = make("pooled", pooling="spoc"), pictures()
    heat = explain(encoder, images, targets=-encoder.encode_batch(images).embedding)
    assert not heat.any()
    assert not explain(encoder, images, targets=np.zeros((2, encoder.dimension))).any()


def test_no_images_give_no_maps() -> None:
    assert explain(make("pooled"), pictures(0)).shape == (0, SIZE, SIZE)


def test_wrong_targets_and_models_are_refused() -> None:
    encoder, images = make("pooled"), pictures()
    with pytest.raises(UsageError, match=r"targets must be 2 × 512.*not 1 × 512"):
        explain(encoder, images, targets=np.zeros((1, 512)))
    with pytest.raises(DataError, match="not finite"):
        explain(encoder, images, targets=np.full((2, 512), np.nan))
    with pytest.raises(DataError, match="not finite"):
        explain(encoder, images, targets=np.full((2, 512), np.inf))
    next(encoder.module.backbone.parameters()).data.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        explain(encoder, images)
    del encoder.module.pool
    with pytest.raises(UsageError, match=r"pooled cannot be explained.*Method\.pools"):
        explain(encoder, images)


# ---- the window of the network (JSRT) ----


def moved_back(heat: Tensor, down: int, right: int) -> Tensor:
    """Heat of a view shifted `down` and `right`, mirrored at the edges, moved back by loops."""
    height, width = heat.shape
    found = torch.zeros_like(heat)
    for y in range(height):
        for x in range(width):
            at_y, at_x = mirrored(y + down, height), mirrored(x + right, width)
            found[at_y, at_x] = torch.maximum(found[at_y, at_x], heat[y, x])
    return found


def mirrored(index: int, size: int) -> int:
    index = index % (2 * size)
    return min(index, 2 * size - 1 - index)


def shift(down: int, right: int, height: int, width: int) -> Tensor:
    return torch.tensor([[1.0, 0.0, 2 * right / width, 0.0, 1.0, 2 * down / height]])


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (0, -3), (-1, 4), (6, 8), (-5, 7)])
def test_a_shifted_window_is_shifted_back(down: int, right: int) -> None:
    heat = torch.rand(1, 1, 6, 8)
    found = through_window(heat, shift(down, right, 6, 8))
    torch.testing.assert_close(found[0, 0], moved_back(heat[0, 0], down, right), atol=1e-5, rtol=0)


def test_a_rotated_window_is_rotated_back() -> None:
    heat = torch.rand(2, 1, 8, 8)
    quarter = torch.tensor([[0.0, -1.0, 0.0, 1.0, 0.0, 0.0], list(IDENTITY)])
    seen = spatial_transform(heat, quarter)
    assert not torch.allclose(seen[0], heat[0], atol=0.1)
    torch.testing.assert_close(through_window(seen, quarter), heat, atol=1e-5, rtol=0)


def test_there_is_no_heat_outside_a_narrow_window() -> None:
    heat = through_window(torch.ones(1, 1, 16, 16), torch.tensor([[0.5, 0, 0, 0, 0.5, 0]]))[0, 0]
    assert torch.equal(heat[4:12, 4:12], torch.ones(8, 8))
    assert heat.sum() == 64


def test_a_wide_window_maps_its_centre_to_the_image() -> None:
    seen = torch.zeros(1, 1, 16, 16)
    seen[:, :, 4:12, 4:12] = 1
    heat = through_window(seen, torch.tensor([[2.0, 0, 0, 0, 2.0, 0]]))[0, 0]
    assert torch.equal(heat[1:-1, 1:-1], torch.ones(14, 14))


def test_a_window_without_an_inverse_gives_finite_heat() -> None:
    window = torch.tensor([[0.0, 0, 0, 0, 0, 0], [1.0, 1, 0, 1, 1, 0]])
    assert torch.isfinite(through_window(torch.rand(2, 1, 8, 8), window)).all()


@pytest.mark.parametrize(("down", "right"), [(0, 16), (-24, 8)])
def test_heat_of_a_shifting_transformer_is_in_input_coordinates(down: int, right: int) -> None:
    plain = make("jsrt", transform="none")
    moving = make("jsrt", transform="spatial")
    assert isinstance(moving.module, JSRT)
    assert moving.module.pgn is not None
    moving.module.load_state_dict(plain.module.state_dict(), strict=False)
    affine = shift(down, right, SIZE, SIZE)[0] - torch.tensor(IDENTITY)
    moving.module.pgn.last.bias.data.copy_(affine)
    images = pictures()
    ys = [mirrored(y + down, SIZE) for y in range(SIZE)]
    xs = [mirrored(x + right, SIZE) for x in range(SIZE)]
    seen = explain(plain, images[:, :, ys][:, :, :, xs])
    back = torch.stack([moved_back(torch.from_numpy(heat), down, right) for heat in seen])
    found = explain(moving, images)
    np.testing.assert_allclose(found, back.numpy(), atol=2e-3)
    assert np.abs(found - seen).max() > 0.1


# ---- real images ----


def test_in_a_mosaic_the_heat_is_on_the_target_image(data_root: Path, weights: Path) -> None:
    classes = ("Forest", "StorageTanks", "Desert", "DenseResidential")
    encoder = make("pooled", "mobilenetv2_100:pad_type=same", size=256, weights=weights)
    files = [min((data_root / "AID" / name).glob("*.jpg")) for name in classes]
    parts = torch.stack([encoder.model.spec.prepare(read_pixels(file)) for file in files])
    quarters = parts[:, :, ::2, ::2]
    rows = [torch.cat(tuple(quarters[i : i + 2]), dim=2) for i in (0, 2)]
    mosaic = torch.cat(rows, dim=1).expand(4, -1, -1, -1)
    heat = explain(encoder, mosaic, targets=encoder.encode_batch(parts).embedding)
    means = heat.reshape(4, 2, 128, 2, 128).mean(axis=(2, 4)).reshape(4, 4)
    # Rows have a common part; in each column the maximum is the class's own quarter.
    assert (means - means.mean(axis=0)).argmax(axis=1).tolist() == [0, 1, 2, 3]
