from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rsir.losses.hashing import pairwise_likelihood, quantisation
from rsir.losses.pairs import jaccard, similar

CLASSES = [[0, 1, 0, 2, 1], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]]
LABELS = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def loop_likelihood(h: Tensor, similarity: Tensor, scale: float, balanced: bool) -> Tensor:
    """Paper C, eqs 7 to 9, pair by pair, in double precision."""
    pairs = [(i, j) for i in range(len(h)) for j in range(i + 1, len(h))]
    alike = sum(1 for i, j in pairs if similarity[i, j] > 0)
    total = torch.zeros((), dtype=torch.float64)
    for i, j in pairs:
        s = float(similarity[i, j])
        product = scale * (h[i].double() * h[j].double()).sum()
        weight = len(pairs) / (alike if s > 0 else len(pairs) - alike) if balanced else 1.0
        total = total + weight * (torch.log(1 + torch.exp(product)) - s * product)
    return total / len(pairs)


def relaxed(*shape: int) -> Tensor:
    return torch.tanh(torch.randn(*shape)).requires_grad_()


@pytest.mark.parametrize(
    "similarity",
    [*(similar(torch.tensor(c)).float() for c in CLASSES), jaccard(torch.tensor(LABELS))],
    ids=["some", "all the same", "all different", "overlap"],
)
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("balanced", [True, False])
def test_likelihood_agrees_with_a_loop(similarity: Tensor, scale: float, balanced: bool) -> None:
    h = relaxed(5, 7)
    expected = loop_likelihood(h, similarity, scale, balanced)
    loss = pairwise_likelihood(h, similarity, scale=scale, balanced=balanced)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    (wanted,) = torch.autograd.grad(expected, h)
    (got,) = torch.autograd.grad(loss, h)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_balanced_is_the_mean_of_both_kinds() -> None:
    similarity = similar(torch.tensor([0, 0, 1, 2])).float()
    h = relaxed(4, 3)
    product = h @ h.T
    upper = torch.ones(4, 4).triu(1) > 0
    alike = torch.log(1 + torch.exp(-product))[upper & (similarity > 0)].mean()
    unlike = torch.log(1 + torch.exp(product))[upper & (similarity == 0)].mean()
    loss = pairwise_likelihood(h, similarity, scale=1.0, balanced=True)
    torch.testing.assert_close(loss, alike + unlike)


def test_ideal_codes_have_nearly_no_loss() -> None:
    codes = torch.tensor([[1.0] * 32, [1.0] * 32, [-1.0] * 32])
    similarity = similar(torch.tensor([0, 0, 1])).float()
    assert pairwise_likelihood(codes, similarity, scale=1.0, balanced=True) < 1e-9
    assert pairwise_likelihood(codes, 1 - similarity, scale=1.0, balanced=True) > 30


def test_the_minimum_is_where_the_likelihood_equals_the_overlap() -> None:
    similarity = torch.full((2, 2), 0.25)
    product = math.log(0.25 / 0.75) / 0.5  # σ(½·⟨h_i, h_j⟩) = ¼
    h = torch.tensor([[2.0], [product / 2]], requires_grad=True)
    pairwise_likelihood(h, similarity, scale=0.5, balanced=False).backward()
    torch.testing.assert_close(h.grad, torch.zeros(2, 1), rtol=0, atol=1e-6)


def test_a_batch_of_one_has_no_pair() -> None:
    h = relaxed(1, 4)
    loss = pairwise_likelihood(h, torch.ones(1, 1), scale=1.0, balanced=True)
    loss.backward()
    assert loss.item() == 0
    assert h.grad is not None
    assert (h.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("balanced", [True, False])
def test_large_products_do_not_overflow(dtype: torch.dtype, balanced: bool) -> None:
    h = torch.full((4, 512), 100.0).to(dtype)  # ⟨h_i, h_j⟩ is beyond float16, its exp beyond all
    h[0] = -h[0]
    h.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        similarity = similar(torch.tensor([0, 0, 1, 1]))
        loss = pairwise_likelihood(h, similarity, scale=1.0, balanced=balanced)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    loss.backward()
    assert h.grad is not None
    assert torch.isfinite(h.grad).all()


def test_the_order_of_the_batch_does_not_matter() -> None:
    h, targets, order = relaxed(6, 4), torch.arange(6) % 3, torch.randperm(6)
    one, other = (
        pairwise_likelihood(codes, similar(classes), scale=0.5, balanced=True)
        for codes, classes in ((h, targets), (h[order], targets[order]))
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("power", [2, 3])
def test_quantisation_agrees_with_a_loop(power: int) -> None:
    h = relaxed(4, 6)
    expected = torch.zeros(())
    for row in h:
        for value in row:
            sign = 1.0 if value > 0 else -1.0
            expected = expected + (value - sign).abs() ** power
    expected = expected / 4
    loss = quantisation(h, power=power)
    torch.testing.assert_close(loss, expected)
    (wanted,) = torch.autograd.grad(expected, h)
    (got,) = torch.autograd.grad(loss, h)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("power", [2, 3])
def test_quantisation_pulls_to_the_nearer_sign(power: int) -> None:
    h = torch.tensor([[-0.5, 0.5, 1.0, -1.0, 0.0]], requires_grad=True)
    loss = quantisation(h, power=power)
    assert loss.item() == pytest.approx(2 * 0.5**power + 1)
    loss.backward()
    assert h.grad is not None
    slope = power * 0.5 ** (power - 1)
    assert h.grad[0, :4].tolist() == pytest.approx([slope, -slope, 0, 0])
    assert torch.isfinite(h.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_quantisation_in_16_bit_is_float32(dtype: torch.dtype) -> None:
    h = torch.full((2, 70000), 0.0).to(dtype)  # the sum over bits is beyond float16
    with torch.autocast("cpu", torch.bfloat16):
        loss = quantisation(h, power=3)
    assert loss.dtype == torch.float32
    assert loss.item() == 70000


def test_jaccard_agrees_with_sets() -> None:
    overlap = jaccard(torch.tensor(LABELS, dtype=torch.uint8))
    sets = [{k for k, has in enumerate(row) if has} for row in LABELS]
    for i, one in enumerate(sets):
        for j, other in enumerate(sets):
            expected = len(one & other) / len(one | other) if one | other else 0.0
            assert overlap[i, j].item() == pytest.approx(expected)
    assert torch.equal(overlap > 0, similar(torch.tensor(LABELS)))


def test_jaccard_of_classes_is_equality() -> None:
    targets = torch.tensor([0, 2, 0])
    assert jaccard(targets).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
