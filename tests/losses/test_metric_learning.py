from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rsir.errors import UsageError
from rsir.losses.metric_learning import LOSSES, MetricLearningLoss

LABELS = {
    "mixed": [0, 1, 0, 2, 1, 0],
    "all the same": [0, 0, 0, 0, 0, 0],
    "all different": [0, 1, 2, 3, 4, 5],
}


def unit(*shape: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape), dim=1)


def make(name: str, **values: float) -> MetricLearningLoss:
    options = {"margin": 0.4, "temperature": 0.2, "classes": 6, "dimension": 5} | values
    return MetricLearningLoss(name, **options)  # type: ignore[arg-type]


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).pow(2).sum()


def loop_triplet(z: Tensor, y: list[int], loss: MetricLearningLoss) -> Tensor:
    """Paper B, eq 8, anchor by anchor."""
    terms = []
    for a in range(len(z)):
        positive = [squared(z[a], z[p]) for p in range(len(z)) if p != a and y[p] == y[a]]
        negative = [squared(z[a], z[n]) for n in range(len(z)) if y[n] != y[a]]
        if positive and negative:
            violation = torch.stack(positive).max() - torch.stack(negative).min() + 0.4
            terms.append(violation.clamp(min=0))
    return torch.stack(terms).mean() if terms else torch.zeros(())


def loop_proxy_nca(z: Tensor, y: list[int], loss: MetricLearningLoss) -> Tensor:
    terms = []
    proxies = [p / p.norm() for p in loss.loss.proxies]
    for a, label in zip(z, y, strict=True):
        scores = [torch.exp(-squared(a / a.norm(), p) / 0.2) for p in proxies]
        terms.append(-torch.log(scores[label] / torch.stack(scores).sum()))
    return torch.stack(terms).mean()


def loop_lifted(z: Tensor, y: list[int], loss: MetricLearningLoss) -> Tensor:
    """Oh Song et al. 2016, eq 4; a pair without a negative costs its distance."""
    terms = []
    if len(set(y)) == 1:
        return torch.zeros(())
    for i in range(len(z)):
        for j in range(len(z)):
            if i == j or y[i] != y[j]:
                continue
            pushed = [
                torch.exp(1 - squared(z[a], z[n]).sqrt())
                for a in (i, j)
                for n in range(len(z))
                if y[n] != y[a]
            ]
            violation = torch.log(torch.stack(pushed).sum()) + squared(z[i], z[j]).sqrt()
            terms.append(violation.clamp(min=0) ** 2 / 2)
    return torch.stack(terms).mean() if terms else torch.zeros(())


LOOPS = {"triplet": loop_triplet, "proxy-nca": loop_proxy_nca, "lifted": loop_lifted}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("name", LOOPS)
def test_value_and_gradient_agree_with_a_loop(name: str, labels: list[int]) -> None:
    loss = make(name)
    z = unit(6, 5).requires_grad_()
    expected = LOOPS[name](z, labels, loss)
    found = loss(z, torch.tensor(labels))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (got,) = torch.autograd.grad(found, z)
    wanted = torch.zeros_like(z)
    if expected.requires_grad:
        (wanted,) = torch.autograd.grad(expected, z)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)


def test_n_pairs_is_the_softmax_over_one_pair_of_each_class() -> None:
    y = [0, 0, 1, 1, 2, 2]
    z = unit(6, 5).requires_grad_()
    found = make("n-pairs")(z, torch.tensor(y))
    # The library chooses the anchor of each pair: the value must be one of the eight.
    values, gradients = [], []
    for swap in range(8):
        anchors = [2 * c + (swap >> c & 1) for c in range(3)]
        positives = [2 * c + 1 - (swap >> c & 1) for c in range(3)]
        terms = []
        for a in range(3):
            scores = [float((z[anchors[a]] @ z[p]).detach()) / 0.2 for p in positives]
            dot = z[anchors[a]] @ torch.stack([z[p] for p in positives]).T / 0.2
            terms.append(torch.logsumexp(dot, 0) - dot[a])
            by_hand = -scores[a] + math.log(sum(math.exp(s) for s in scores))
            assert terms[-1].item() == pytest.approx(by_hand, rel=1e-4)
        values.append(torch.stack(terms).mean())
        gradients.append(torch.autograd.grad(values[-1], z, retain_graph=True)[0])
    (got,) = torch.autograd.grad(found, z)
    agree = [
        torch.allclose(found, v, atol=1e-5) and torch.allclose(got, g, atol=1e-5)
        for v, g in zip(values, gradients, strict=True)
    ]
    assert any(agree)


@pytest.mark.parametrize("labels", [LABELS["all different"]])
def test_n_pairs_without_a_pair_is_0(labels: list[int]) -> None:
    z = unit(6, 5).requires_grad_()
    loss = make("n-pairs")(z, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("count", [2, 6])
def test_n_pairs_of_one_class_is_0(count: int) -> None:
    """One pair: the softmax has no other class, −log(e^s / e^s)."""
    z = unit(count, 5).requires_grad_()
    loss = make("n-pairs")(z, torch.zeros(count, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(loss, z)
    score = float((z[0] @ z[1]).detach()) / 0.2
    assert loss.item() == -math.log(math.exp(score) / math.exp(score)) == 0
    assert not gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_one_has_finite_loss_and_gradient(name: str) -> None:
    z = unit(1, 5).requires_grad_()
    loss = make(name)(z, torch.tensor([3]))
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is None or torch.isfinite(z.grad).all()
    if name != "proxy-nca":
        assert loss.item() == 0


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "n-pairs"])
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    z, y, order = unit(6, 5), torch.tensor(LABELS["mixed"]), torch.randperm(6)
    loss = make(name)
    torch.testing.assert_close(loss(z, y), loss(z[order], y[order]))


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    z, y = unit(6, 5).bfloat16(), torch.tensor([0, 0, 1, 1, 2, 2])
    loss = make(name)
    torch.manual_seed(0)
    expected = loss(z.float(), y)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(z, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_equal_embeddings_have_finite_gradients() -> None:
    for name in LOSSES:
        z = torch.ones(4, 5).div(5**0.5).requires_grad_()
        make(name)(z, torch.tensor([0, 0, 1, 1])).backward()
        assert z.grad is not None
        assert torch.isfinite(z.grad).all(), name


@pytest.mark.parametrize("name", LOSSES)
def test_labels_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="one class per image"):
        make(name)(unit(2, 5), torch.tensor([[1, 0], [1, 1]]))


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(UsageError, match="triplet, n-pairs, proxy-nca, lifted"):
        make("softmax")
