from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rsir.errors import UsageError
from rsir.methods.base import Output
from rsir.methods.dah import DAH, DAHOptions
from rsir.nn.attention import JointAttention, SqueezeExcitation
from rsir.nn.backbone import Backbone


def make(classes: int = 3, **options: str | float | bool) -> DAH:
    return DAH(Backbone("resnet10t", image_size=64), DAHOptions(**options), classes=classes)


@pytest.mark.parametrize("size", [(32, 32), (96, 160), (64, 64)])  # maps 1 × 1, 3 × 5, 2 × 2
def test_dah_agrees_with_the_papers_figure(size: tuple[int, int]) -> None:
    method = make(bits=5).eval()
    method.hash.norm.running_mean.copy_(torch.randn(5))
    images = torch.randn(2, 3, *size)
    g = method.backbone(images)
    w1, _, w2 = method.attention.mlp
    g_ch = torch.sigmoid(w2(w1(g.amax((2, 3)) + g.mean((2, 3))).relu()))[:, :, None, None] * g
    both = torch.stack([g_ch.amax(dim=1), g_ch.mean(dim=1)], dim=1)
    g_sp = torch.sigmoid(method.attention.conv(both)) * g_ch
    before = method.hash.fc(g_sp.mean(dim=(2, 3)))
    norm = method.hash.norm
    h = torch.tanh((before - norm.running_mean) / (norm.running_var + norm.eps).sqrt())
    codes = torch.tensor([[1.0 if value > 0 else -1.0 for value in row] for row in h.tolist()])
    output = method(images)
    torch.testing.assert_close(output.embedding, h, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits, codes @ method.classifier.weight.T)
    assert method.dimension == 5


def test_a_grid_keeps_positions() -> None:
    method = make(bits=4, grid=2, attention="none", batch_norm=False).eval()
    images = torch.randn(1, 3, 128, 128)
    g = method.backbone(images)  # 4 × 4
    cells = torch.stack(
        [g[:, :, y : y + 2, x : x + 2].mean((2, 3)) for y in (0, 2) for x in (0, 2)]
    )
    flat = cells.permute(1, 2, 0).flatten(1)
    expected = torch.tanh(flat @ method.hash.fc.weight.T + method.hash.fc.bias)
    torch.testing.assert_close(method(images).embedding, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("joint", JointAttention), ("se", SqueezeExcitation), ("none", torch.nn.Identity)],
)
def test_the_option_chooses_the_attention(name: str, kind: type[torch.nn.Module]) -> None:
    method = make(attention=name, reduction=64)
    assert type(method.attention) is kind
    if name != "none":
        assert method.attention.mlp[0].out_features == 512 // 64


@pytest.mark.parametrize("ranking", ["adaptive-hamming", "hamming"])
def test_the_ranking_is_an_option(ranking: str) -> None:
    assert make(ranking=ranking).ranking == ranking
    assert DAH.ranking == "adaptive-hamming"


@pytest.mark.parametrize("targets", [[0, 1, 0, 2], [1, 1, 1, 1], [0, 1, 2, 3]])
def test_the_loss_agrees_with_eq_13(targets: list[int]) -> None:
    method = make(classes=4, bits=6, alpha=0.3, beta=0.7, scale=2.0)
    h = torch.tanh(torch.randn(4, 6))
    logits = torch.randn(4, 4)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    alike = [(i, j) for i, j in pairs if targets[i] == targets[j]]
    expected = torch.zeros(())
    for i, j in pairs:
        s, product = float((i, j) in alike), 2 * (h[i] @ h[j])
        weight = len(pairs) / (len(alike) if s else len(pairs) - len(alike))
        expected += weight * (torch.log(1 + product.exp()) - s * product) / len(pairs)
    expected += 0.3 * sum((h[i] - h[i].sign()).abs().pow(3).sum() for i in range(4)) / 4
    expected -= 0.7 * sum(logits[i].log_softmax(0)[targets[i]] for i in range(4)) / 4
    loss = method.loss(Output(h, logits), torch.tensor(targets))
    torch.testing.assert_close(loss, expected)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [(0.3, 0.7), (0.0, 0.0), (2.0, 0.0), (0.0, 2.0)])
@pytest.mark.parametrize("targets", [[0, 1, 0, 2], [1, 1, 1, 1], [0, 1, 2, 3], [2]])
def test_the_gradient_agrees_with_eq_13(weights: tuple[float, float], targets: list[int]) -> None:
    """The gradient of the FC's weights, straight through the codes and through the tanh."""
    alpha, beta = weights
    method = make(4, bits=6, alpha=alpha, beta=beta, scale=2.0, attention="none", batch_norm=False)
    method.backbone = torch.nn.Identity()
    B = len(targets)
    features = 8 * torch.randn(B, 512, 1, 1)
    output = method(features)
    h, logits, theta = output.embedding.detach(), output.logits, method.classifier.weight.detach()
    assert logits is not None
    pairs = [(i, j) for i in range(B) for j in range(i + 1, B)]
    alike = [(i, j) for i, j in pairs if targets[i] == targets[j]]
    slopes = torch.zeros(B, 6)
    for i, j in pairs:
        s = float((i, j) in alike)
        weight = 1 / (len(alike) if s else len(pairs) - len(alike))  # |Ω| / |Ω_s|, over |Ω|
        slope = weight * (1 / (1 + torch.exp(-2 * (h[i] @ h[j]))) - s) * 2
        slopes[i] += slope * h[j]
        slopes[j] += slope * h[i]
    of_theta = torch.zeros(4, 6)
    for i in range(B):
        b = torch.where(h[i] > 0, 1.0, -1.0)
        slopes[i] += alpha * 3 * (h[i] - b).abs() * (h[i] - b) / B
        wrong = (theta @ b).exp() / (theta @ b).exp().sum()
        wrong[targets[i]] -= 1
        slopes[i] += beta * theta.T @ wrong / B
        of_theta += beta * wrong[:, None] * b / B
    of_fc = ((1 - h**2) * slopes).T @ features.flatten(1)
    loss = method.loss(output, torch.tensor(targets))
    parameters = (method.hash.fc.weight, method.classifier.weight)
    got_fc, got_theta = torch.autograd.grad(loss, parameters)
    torch.testing.assert_close(got_fc, of_fc, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got_theta, of_theta, rtol=1e-4, atol=1e-6)


def test_the_classifier_trains_the_network_through_the_codes() -> None:
    method = make(alpha=0.0)
    output = method(torch.randn(4, 3, 64, 64))
    functional.cross_entropy(output.logits, torch.tensor([0, 1, 2, 0])).backward()
    assert method.hash.fc.weight.grad is not None
    assert method.hash.fc.weight.grad.abs().sum() > 0
    assert next(method.backbone.parameters()).grad is not None


def test_one_bit_and_one_image() -> None:
    method = make(bits=1).eval()
    output = method(torch.randn(1, 3, 64, 64))
    assert output.embedding.shape == (1, 1)
    assert torch.isfinite(method.loss(output, torch.tensor([0])))


@pytest.mark.parametrize("attention", ["joint", "se", "none"])
def test_in_16_bit_codes_logits_and_gradients_are_finite_float32(attention: str) -> None:
    method = make(attention=attention)
    with torch.autocast("cpu", torch.bfloat16):
        output = method(100 * torch.randn(4, 3, 64, 64))
        loss = method.loss(output, torch.tensor([0, 0, 1, 2]))
    assert output.logits is not None
    assert output.embedding.dtype == output.logits.dtype == loss.dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_dah_learns_codes_that_separate_classes() -> None:
    """Even from features that are nearly equal for all images, as pooled features are."""
    method = make(4, bits=16, attention="none")
    targets = torch.arange(4).repeat_interleave(6)
    own = functional.one_hot(targets, 512).float()
    maps = (1 + 0.3 * own + 0.05 * torch.randn(24, 512))[:, :, None, None]
    method.backbone = torch.nn.Identity()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        method.loss(method(maps), targets).backward()
        optimizer.step()
    output = method.eval()(maps)
    bits = output.embedding > 0
    differing = (bits[:, None] != bits[None]).sum(dim=2)
    same = targets[:, None] == targets[None]
    assert differing[same].max() < differing[~same].min()
    assert output.logits is not None
    assert (output.logits.argmax(dim=1) == targets).all()


def test_several_labels_are_refused() -> None:
    method = make()
    with pytest.raises(UsageError, match="one class"):
        method.loss(Output(torch.zeros(2, 64), torch.zeros(2, 3)), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("bits", 0, "at least 1"),
        ("attention", "cbam", "one of joint, se, none"),
        ("reduction", 0, "at least 1"),
        ("grid", 0, "at least 1"),
        ("scale", 0.0, "above 0"),
        ("scale", float("inf"), "finite"),
        ("alpha", -0.1, "at least 0"),
        ("alpha", float("nan"), "at least 0"),
        ("beta", -1.0, "at least 0"),
        ("ranking", "cosine", "one of adaptive-hamming, hamming"),
    ],
)
def test_impossible_options_are_refused(option: str, value: float | str, rule: str) -> None:
    with pytest.raises(UsageError, match=f"{option} must be .*{rule}.*not {value!r}"):
        DAHOptions(**{option: value})
