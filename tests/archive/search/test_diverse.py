from __future__ import annotations

import numpy as np
import pytest

from rsir.archive.search.diverse import ALIKE, OVERLAP, collapsed
from rsir.ranking import packed
from rsir.types import Hit


def hit(name: str, box: tuple[float, float, float, float] | None = None) -> Hit:
    footprint = None
    if box is not None:
        w, s, e, n = box
        ring = [[w, s], [e, s], [e, n], [w, n], [w, s]]
        footprint = {"type": "Polygon", "coordinates": [ring]}
    return Hit(name, 1.0, 0.0, name, footprint)


def apart(count: int) -> np.ndarray:
    """Vectors that no metric takes for duplicates."""
    return np.eye(count, 8, dtype=np.float32) + 0.1


def test_overlapping_tiles_collapse_into_the_best() -> None:
    hits = [hit("a", (0, 0, 1, 1)), hit("b", (0.5, 0, 1.5, 1)), hit("c", (1, 0, 2, 1))]
    # b overlaps a by half and goes; c touches a only, and b is gone.
    assert collapsed(hits, apart(3), "cosine", 8) == [0, 2]


@pytest.mark.parametrize(("share", "kept"), [(OVERLAP - 0.01, 2), (OVERLAP + 0.01, 1)])
def test_a_quarter_of_the_smaller_one_is_the_limit(share: float, kept: int) -> None:
    large, small = hit("a", (0, 0, 10, 10)), hit("b", (10 - share, 0, 11 - share, 1))
    assert len(collapsed([large, small], apart(2), "cosine", 8)) == kept


def test_near_duplicates_collapse_without_a_footprint() -> None:
    vectors = apart(4)
    vectors[2] = vectors[0] * 3  # by cosine the same
    assert collapsed([hit(n) for n in "abcd"], vectors, "cosine", 8) == [0, 1, 3]
    assert collapsed([hit(n) for n in "abcd"], vectors, "euclidean", 8) == [0, 1, 2, 3]
    vectors[2] = vectors[0]
    assert collapsed([hit(n) for n in "abcd"], vectors, "euclidean", 8) == [0, 1, 3]


def test_codes_within_a_hundredth_of_their_bits_collapse() -> None:
    raw = np.zeros((3, 128), np.uint8)
    raw[1, :1] = 1
    raw[2, :2] = 1
    assert 1 <= 128 * ALIKE < 2
    codes = np.packbits(raw, axis=1)
    # The third is 2 bits from the first, and the second is gone.
    assert collapsed([hit(n) for n in "abc"], codes, "hamming", 128) == [0, 2]
    chances = np.full((3, 2), 0.5, np.float32)
    rows = packed(codes, chances)
    assert collapsed([hit(n) for n in "abc"], rows, "adaptive-hamming:2", 128) == [0, 2]


def test_nothing_and_one() -> None:
    assert collapsed([], np.empty((0, 8), np.float32), "cosine", 8) == []
    assert collapsed([hit("a")], apart(1), "cosine", 8) == [0]


def test_whatever_stays_is_apart_and_whatever_goes_is_not() -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 6, (40, 2))
    hits = [hit(str(i), (x, y, x + 1, y + 1)) for i, (x, y) in enumerate(corners.tolist())]
    vectors = random.normal(size=(40, 8)).astype(np.float32)
    kept = collapsed(hits, vectors, "cosine", 8)

    def overlap(i: int, j: int) -> float:
        sides = (1 - abs(corners[i] - corners[j])).clip(min=0)
        return float(sides[0] * sides[1])

    for place in range(40):
        covered = any(overlap(place, k) >= OVERLAP for k in kept if k < place)
        assert (place in kept) != covered
