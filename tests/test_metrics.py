from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir.errors import UsageError
from rsir.metrics import average_precision, hit_at_k, precision_at_k


def loop_ap(row: list[bool], total: int) -> float:
    found, summed = 0, 0.0
    for rank, is_relevant in enumerate(row, start=1):
        if is_relevant:
            found += 1
            summed += found / rank
    return summed / total if total else 0.0


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (20, 33)])
def test_average_precision_is_the_loop(shape: tuple[int, int]) -> None:
    relevant = torch.rand(*shape) < 0.3
    expected = [loop_ap(row.tolist(), int(row.sum())) for row in relevant]
    assert average_precision(relevant).tolist() == pytest.approx(expected)


def test_average_precision_by_hand() -> None:
    relevant = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]).bool()
    # (1/1 + 2/3) / 2; nothing relevant; 1/5
    assert average_precision(relevant).tolist() == pytest.approx([5 / 6, 0.0, 0.2])


def test_a_cut_ranking_is_divided_by_all_that_is_relevant() -> None:
    relevant = torch.tensor([[1, 0, 1]]).bool()
    assert average_precision(relevant, torch.tensor([4])).item() == pytest.approx(5 / 12)
    with pytest.raises(UsageError):
        average_precision(relevant, torch.tensor([1]))


def test_precision_and_hit_at_k() -> None:
    relevant = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1]]).bool()
    assert precision_at_k(relevant, 2).tolist() == [0.5, 0.0]
    assert precision_at_k(relevant, 8).tolist() == [2 / 8, 1 / 8]  # fewer than k there
    assert [hit_at_k(relevant, k).tolist() for k in (1, 2, 4, 9)] == [
        [0, 0],
        [1, 0],
        [1, 1],
        [1, 1],
    ]
    for measure in (precision_at_k, hit_at_k):
        with pytest.raises(UsageError):
            measure(relevant, 0)


def test_a_long_ranking_keeps_its_precision() -> None:
    relevant = torch.ones(1, 200_000, dtype=torch.bool)
    assert average_precision(relevant).item() == pytest.approx(1.0, abs=1e-12)
    random = torch.from_numpy(np.random.default_rng(0).random((1, 50_000)) < 0.01)
    expected = loop_ap(random[0].tolist(), int(random.sum()))
    assert average_precision(random).item() == pytest.approx(expected, abs=1e-12)
