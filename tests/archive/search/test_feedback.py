from __future__ import annotations

import math

import numpy as np
import pytest

from rsir.archive.search.feedback import refined
from rsir.errors import UsageError
from rsir.ranking import packed, pairwise, unpacked


def none(width: int, dtype: type = np.float32) -> np.ndarray:
    return np.empty((0, width), dtype)


def test_rocchio_by_hand() -> None:
    query = np.array([1.0, 0.0, 0.0], np.float32)
    like = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 4.0]], np.float32)
    unlike = np.array([[10.0, 0.0, 0.0]], np.float32)
    plain = refined("euclidean", 3, query, like, unlike)
    assert plain.tolist() == pytest.approx([1 - 1.5, 0.75, 1.5])
    # By cosine only the direction of an example counts.
    turned = refined("cosine", 3, query, like, unlike)
    assert turned.tolist() == pytest.approx([1 - 0.15, 0.375, 0.375])
    assert plain.dtype == turned.dtype == np.float32


def test_by_ncc_only_deviations_from_the_mean_count() -> None:
    query = np.array([3.0, 1.0, 2.0], np.float32)
    for shifted in (query + 7, query * 5, query * 2 - 9):
        found = refined("ncc", 3, query, shifted[None], none(3))
        assert pairwise("ncc", found[None], query[None])[0, 0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "ncc", "hamming"])
def test_one_example_is_itself(metric: str) -> None:
    dtype = np.uint8 if metric == "hamming" else np.float32
    vector = np.arange(1, 4).astype(dtype)
    width = 24 if metric == "hamming" else 3
    nothing = none(3, dtype)
    assert refined(metric, width, vector, nothing, nothing).tolist() == vector.tolist()
    assert refined(metric, width, None, vector[None], nothing).tolist() == vector.tolist()


@pytest.mark.parametrize("bits", [1, 7, 12, 64])
def test_codes_are_summed_as_signs(bits: int) -> None:
    random = np.random.default_rng(bits)
    raw = random.integers(0, 2, (6, bits)).astype(np.uint8)
    codes = np.packbits(raw, axis=1)
    found = refined("hamming", bits, codes[0], codes[1:4], codes[4:])
    for bit in range(bits):
        signs = [1 if raw[row, bit] else -1 for row in range(6)]
        total = signs[0] + 0.75 * sum(signs[1:4]) / 3 - 0.15 * sum(signs[4:]) / 2
        expected = raw[0, bit] if math.isclose(total, 0, abs_tol=1e-9) else total > 0
        assert np.unpackbits(found, count=bits)[bit] == expected
    assert not np.unpackbits(found)[bits:].any()


def test_the_first_example_decides_a_tie() -> None:
    codes = np.packbits(np.array([[1, 0, 1], [0, 1, 1]], np.uint8), axis=1)
    assert refined("hamming", 3, None, codes, none(1, np.uint8)).tolist() == codes[0].tolist()
    swapped = codes[::-1]
    assert refined("hamming", 3, None, swapped, none(1, np.uint8)).tolist() == codes[1].tolist()


def test_class_probabilities_are_combined_too() -> None:
    codes = np.packbits(np.array([[1, 0], [1, 1], [0, 0]], np.uint8), axis=1)
    chances = np.array([[0.5, 0.5, 0], [0.2, 0, 0.8], [0, 1, 0]], np.float32)
    rows = packed(codes, chances)
    found = refined("adaptive-hamming:3", 2, rows[0], rows[1:2], rows[2:])
    code, chance = unpacked(found[None], 3)
    assert np.unpackbits(code[0], count=2).tolist() == [1, 0]
    total = np.array([0.5 + 0.15, 0.5 - 0.15, 0.6])
    assert chance[0].tolist() == pytest.approx((total / total.sum()).tolist())


def test_examples_that_leave_no_query_are_refused() -> None:
    rows = np.ones((2, 3), np.float32)
    with pytest.raises(UsageError, match="a query or a positive example"):
        refined("cosine", 3, None, none(3), rows)
    opposite = np.array([[1, 2, 3], [3, 2, 1]], np.float32)
    with pytest.raises(UsageError, match="cancel"):
        refined("ncc", 3, None, opposite, none(3))
    chances = packed(np.zeros((1, 1), np.uint8), np.zeros((1, 2), np.float32))
    with pytest.raises(UsageError, match="cancel"):
        refined("adaptive-hamming:2", 3, chances[0], chances, chances)


def test_examples_that_cancel_each_other_out_but_for_rounding_are_refused():
    angles = 0.3 + 2 * np.pi * np.arange(3) / 3
    three = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    nothing = np.empty((0, 2), np.float32)
    assert np.abs(three.astype(np.float64).sum(axis=0)).max() > 0
    with pytest.raises(UsageError, match="cancel"):
        refined("cosine", 2, None, three, nothing)
    # The sum of the first two is the third with its sign changed.
    found = refined("cosine", 2, None, three[:2], nothing)
    assert found / np.linalg.norm(found) == pytest.approx(-three[2], abs=1e-6)
    # By Euclidean distance lengths count, and may be small.
    assert refined("euclidean", 2, None, three[:2] * 1e-9, nothing).any()
