"""The bound on the rounding of float32 kernels, beside float64."""

import math

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.ranking import pairwise
from rsir.store.knn.rounding import rounding_error


@settings(max_examples=100, deadline=None)
@given(
    dimension=st.integers(1, 600),
    scale=st.sampled_from([1e-25, 1e-3, 1.0, 1e6, 1e15]),
    offset=st.sampled_from([0.0, 1.0, 1000.0]),
    queries=st.sampled_from([1, 30]),  # FAISS compares few directly, many by matrix products
    seed=st.integers(0, 2**32 - 1),
)
def test_faiss_is_within_the_bound(dimension, scale, offset, queries, seed):
    rng = np.random.default_rng(seed)
    vectors = ((rng.standard_normal((60, dimension)) + offset) * scale).astype(np.float32)
    some = vectors[:queries]
    longest = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    values, rows = faiss.knn(some, vectors, len(vectors))
    distances = np.take_along_axis(pairwise("euclidean", some, vectors), rows, axis=1)
    bound = rounding_error(dimension, longest, longest, euclidean=True)
    assert (np.abs(values - distances**2) <= bound).all()

    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None]
    unit = unit.astype(np.float32)
    values, rows = faiss.knn(unit[:queries], unit, len(unit), faiss.METRIC_INNER_PRODUCT)
    distances = np.take_along_axis(pairwise("cosine", some, vectors), rows, axis=1)
    bound = rounding_error(dimension, 1.0, 1.0, euclidean=False)
    assert bound < 1e-3
    assert (np.abs(1 - values.astype(np.float64) - distances) <= bound).all()


@pytest.mark.parametrize("euclidean", [True, False])
def test_the_bound_is_infinite_where_float32_may_overflow(euclidean):
    assert rounding_error(10, 1e19, 1e19, euclidean=euclidean) == math.inf
    assert rounding_error(10**7, 1.0, 1.0, euclidean=euclidean) == math.inf
    assert rounding_error(10, 1e18, 1e18, euclidean=euclidean) < math.inf
