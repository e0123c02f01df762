from __future__ import annotations

import numpy as np
import pytest

from rsir.archive.search.calibration import PAIRS, QUERIES, Calibration
from rsir.ranking import pairwise


def test_the_chance_is_the_share_of_random_pairs_that_are_as_near() -> None:
    vectors = np.random.default_rng(1).normal(size=(400, 6)).astype(np.float32)
    found = Calibration.of("euclidean", vectors)
    assert len(found.distances) == PAIRS // QUERIES * QUERIES
    every = pairwise("euclidean", vectors, vectors)[~np.eye(400, dtype=bool)]
    for share in (0.01, 0.1, 0.5, 0.9):
        distance = np.quantile(every, share)
        # Pairs that share a query are correlated: allow a few times the standard error.
        assert found.chance(np.array([distance]))[0] == pytest.approx(share, abs=0.03)
    percentiles = found.percentile(np.array([0.0, 1.0, 1e9]))
    assert percentiles[0] == found.highest == pytest.approx(100 - 100 / (PAIRS + 1))
    assert percentiles[0] >= percentiles[1] >= percentiles[2] == pytest.approx(0)


def test_small_archives_are_compared_whole() -> None:
    vectors = np.array([[0.0], [1.0], [3.0]], np.float32)
    found = Calibration.of("euclidean", vectors)
    assert found.distances.tolist() == [1, 1, 2, 2, 3, 3]
    assert found.chance(np.array([0.5, 1.0, 2.5])).tolist() == pytest.approx([1 / 7, 3 / 7, 5 / 7])


@pytest.mark.parametrize("count", [0, 1])
def test_without_pairs_nothing_is_remarkable(count: int) -> None:
    found = Calibration.of("euclidean", np.zeros((count, 2), np.float32))
    assert found.chance(np.array([0.0, 5.0])).tolist() == [1, 1]
    assert found.percentile(np.array([0.0])).tolist() == [0]


def test_the_same_archive_gives_the_same_percentiles() -> None:
    vectors = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    first, second = (Calibration.of("cosine", vectors).distances for _ in range(2))
    assert first.tolist() == second.tolist()
