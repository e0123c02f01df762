"""Exact search in memory, beside a plain sort of all distances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.ranking import packed, pairwise
from rsir.store.knn.adaptive import FlatAdaptive
from rsir.store.knn.floats import FlatFloats
from rsir.store.knn.hamming import FlatCodes

FLOATS = ("euclidean", "cosine", "ncc")


def are_nearest(found, distances: np.ndarray, k: int) -> None:
    """Each answer is the first k rows of a stable sort of all distances (Q, N)."""
    for (rows, values), row in zip(found, distances, strict=True):
        wanted = np.argsort(row, kind="stable")[:k]
        assert rows.tolist() == wanted.tolist()
        assert values.tolist() == row[wanted].tolist()


@settings(max_examples=100, deadline=None)
@given(
    metric=st.sampled_from(FLOATS),
    count=st.integers(0, 200),
    levels=st.integers(1, 30),
    k=st.integers(1, 220),
    scale=st.sampled_from([1e-30, 1.0, 1e25]),
    seed=st.integers(0, 2**32 - 1),
)
def test_floats_are_ranked_by_exact_distance_then_row(metric, count, levels, k, scale, seed):
    """Equal and nearly equal vectors, and lengths whose squares float32 does not hold."""
    rng = np.random.default_rng(seed)
    distinct = rng.standard_normal((levels, 5)) * scale
    noise = 1 + 1e-7 * rng.integers(0, 3, (count + 3, 1))
    vectors = (distinct[rng.integers(0, levels, count + 3)] * noise).astype(np.float32)
    queries, gallery = vectors[:3], vectors[3:]
    found = FlatFloats(gallery, metric).nearest(queries, k)
    are_nearest(found, pairwise(metric, queries, gallery), k)


@pytest.mark.parametrize("metric", FLOATS)
@pytest.mark.parametrize("queries", [2, 12])
def test_subsets_that_share_their_vectors_search_exactly(metric, queries, monkeypatch):
    """FAISS's selector compares few queries, copies of blocks many."""
    for module in ("floats", "vectors"):
        monkeypatch.setattr(f"rsir.store.knn.{module}.BLOCK_VALUES", 64)
    rng = np.random.default_rng(12)
    vectors = rng.standard_normal((30, 5)).astype(np.float32)[rng.integers(0, 30, 500)]
    rows = np.sort(rng.permutation(500)[:200])
    part = FlatFloats(vectors, metric).subset(rows)
    assert part._vectors is vectors
    for k in (1, 40, 300):
        found = part.nearest(vectors[:queries], k)
        are_nearest(found, pairwise(metric, vectors[:queries], vectors[rows]), k)


@settings(max_examples=100, deadline=None)
@given(
    width=st.sampled_from([1, 2, 4, 8, 9, 16, 20, 32, 64]),
    levels=st.integers(1, 4),
    count=st.integers(0, 300),
    k=st.integers(1, 320),
    seed=st.integers(0, 2**32 - 1),
)
def test_faiss_keeps_the_first_of_equal_codes(width, levels, count, k, seed):
    """What `FlatCodes` relies on, for every width that FAISS has special code for."""
    rng = np.random.default_rng(seed)
    distinct = rng.integers(0, 256, (levels, width), dtype=np.uint8)
    codes = distinct[rng.integers(0, levels, count)]
    are_nearest(FlatCodes(codes).nearest(distinct, k), pairwise("hamming", distinct, codes), k)


@settings(max_examples=150, deadline=None)
@given(
    bits=st.integers(1, 70),
    classes=st.integers(1, 5),
    count=st.integers(0, 60),
    k=st.integers(1, 70),
    levels=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_balls_of_adaptive_search_hold_the_whole_answer(bits, classes, count, k, levels, seed):
    """Few distinct codes and probabilities: many ties, which the row number breaks."""
    rng = np.random.default_rng(seed)
    codes = np.packbits(rng.random((levels, bits)) < 0.5, axis=1)[
        rng.integers(0, levels, count + 3)
    ]
    probabilities = (rng.integers(0, levels + 1, (count + 3, classes)) / levels).astype(np.float32)
    vectors = packed(codes, probabilities)
    queries, gallery = vectors[:3], vectors[3:]
    distances = pairwise(f"adaptive-hamming:{classes}", queries, gallery)
    hamming = pairwise("hamming", codes[:3], codes[3:])
    assert (hamming <= distances).all()
    assert (distances <= np.e * hamming * (1 + 1e-15)).all()
    search = FlatAdaptive(gallery, classes)
    are_nearest(search.nearest(queries, k), distances, k)
    are_nearest(search.plain().nearest(np.ascontiguousarray(codes[:3]), k), hamming, k)
    rows = np.flatnonzero(rng.random(count) < 0.5)
    part = search.subset(rows)
    are_nearest(part.nearest(queries, k), distances[:, rows], k)
    are_nearest(part.plain().nearest(np.ascontiguousarray(codes[:3]), k), hamming[:, rows], k)
