from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rsir.losses.contrastive import contrastive, pairwise_euclidean
from rsir.losses.pairs import distinct_pairs, similar


def loop_contrastive(embedding: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Paper A, eq 8, pair by pair."""
    terms = []
    for i in range(len(embedding)):
        for j in range(i + 1, len(embedding)):
            d = (embedding[i] - embedding[j]).pow(2).sum().sqrt()
            if targets.ndim == 1:
                same = bool(targets[i] == targets[j])
            else:
                same = any(a and b for a, b in zip(targets[i], targets[j], strict=True))
            terms.append(0.5 * d**2 if same else 0.5 * max(torch.tensor(0.0), margin - d) ** 2)
    return torch.stack(terms).mean()


def unit(*shape: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape), dim=1)


@pytest.mark.parametrize("targets", [[0, 1, 0, 2, 1], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("margin", [0.5, 1.3])
def test_value_and_gradient_agree_with_a_loop(targets: list[int], margin: float) -> None:
    embedding = unit(5, 7).requires_grad_()
    expected = loop_contrastive(embedding, torch.tensor(targets), margin)
    loss = contrastive(embedding, torch.tensor(targets), margin=margin)
    torch.testing.assert_close(loss, expected)
    if expected.requires_grad:
        (wanted,) = torch.autograd.grad(expected, embedding, retain_graph=True)
        (got,) = torch.autograd.grad(loss, embedding)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_multi_label_pairs_are_similar_if_they_share_a_label() -> None:
    targets = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.uint8)
    embedding = unit(4, 3)
    expected = loop_contrastive(embedding, targets, 0.9)
    torch.testing.assert_close(contrastive(embedding, targets, margin=0.9), expected)
    assert similar(targets).tolist() == [
        [True, True, False, False],
        [True, True, True, False],
        [False, True, True, False],
        [False, False, False, False],
    ]


def test_a_batch_of_one_gives_0() -> None:
    embedding = unit(1, 4).requires_grad_()
    loss = contrastive(embedding, torch.tensor([0]), margin=0.9)
    loss.backward()
    assert loss.item() == 0
    assert embedding.grad is not None
    assert torch.isfinite(embedding.grad).all()


def test_equal_embeddings_have_finite_gradients() -> None:
    embedding = torch.ones(3, 2).requires_grad_()
    distance = pairwise_euclidean(embedding)
    assert (distance == 0).all()
    contrastive(embedding, torch.tensor([0, 1, 0]), margin=0.9).backward()
    assert embedding.grad is not None
    assert (embedding.grad == 0).all()


def test_pairwise_differences_are_not_stored() -> None:
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        contrastive(unit(20, 300).requires_grad_(), torch.arange(20) % 4, margin=0.9)
    assert max(kept) <= 20 * 300


def test_distances_of_near_embeddings_are_accurate() -> None:
    embedding = unit(30, 2048).double()
    embedding[1] = embedding[0] + 1e-5 * unit(1, 2048)[0].double()
    expected = (embedding[0].float() - embedding[1].float()).norm()
    torch.testing.assert_close(pairwise_euclidean(embedding.float())[0, 1], expected)


def test_half_precision_input_is_computed_in_float32() -> None:
    embedding = unit(6, 4)
    targets = torch.arange(6) % 2
    expected = contrastive(embedding.bfloat16().float(), targets, margin=0.9)
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive(embedding.bfloat16(), targets, margin=0.9)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_the_order_of_the_batch_does_not_matter() -> None:
    embedding, targets, order = unit(6, 4), torch.arange(6) % 3, torch.randperm(6)
    torch.testing.assert_close(
        contrastive(embedding, targets, margin=0.9),
        contrastive(embedding[order], targets[order], margin=0.9),
    )


def test_distances_and_pairs() -> None:
    embedding = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert pairwise_euclidean(embedding)[0, 1].item() == pytest.approx(5.0)
    assert distinct_pairs(3, torch.device("cpu")).sum() == 3
