import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.errors import UsageError
from rsir.ranking import (
    METRICS,
    adapted,
    metric_named,
    name_with_classes,
    nearest,
    packed,
    pairwise,
    score,
    unpacked,
)

FLOATS = ("euclidean", "cosine", "ncc")
ADAPTIVE = "adaptive-hamming:3"
ALL = (*METRICS, ADAPTIVE)


def loop_distance(metric: str, a: list[float], b: list[float]) -> float:
    if metric == ADAPTIVE:
        (code, mine), (other, theirs) = (
            (row[:-12], struct.unpack("<3f", bytes(row[-12:]))) for row in (a, b)
        )
        p = theirs[mine.index(max(mine))]
        return math.exp(1 - p) * loop_distance("hamming", code, other)
    if metric == "hamming":
        return sum(bin(x ^ y).count("1") for x, y in zip(a, b, strict=True))
    if metric == "euclidean":
        return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    if metric == "ncc":
        a = [x - math.fsum(a) / len(a) for x in a]
        b = [y - math.fsum(b) / len(b) for y in b]
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / (math.hypot(*a) * math.hypot(*b))


def vectors(metric: str, rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    if metric not in FLOATS:
        codes = rng.integers(0, 256, (count, width), dtype=np.uint8)
        if metric == "hamming":
            return codes
        # Few levels, so that the largest is often there twice.
        return packed(codes, (rng.integers(0, 5, (count, 3)) / 4).astype(np.float32))
    return rng.standard_normal((count, width)).astype(np.float32)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("width", [2, 3, 8, 65])
def test_pairwise_equals_a_loop(metric, width):
    rng = np.random.default_rng(width)
    queries, gallery = vectors(metric, rng, 4, width), vectors(metric, rng, 7, width)
    got = pairwise(metric, queries, gallery)
    wanted = [[loop_distance(metric, q, g) for g in gallery.tolist()] for q in queries.tolist()]
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    metric=st.sampled_from(ALL),
    width=st.integers(2, 70),
    before=st.integers(0, 40),
    after=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_equal_vectors_have_bit_equal_distances_wherever_they_stand(
    metric, width, before, after, seed
):
    rng = np.random.default_rng(seed)
    query, one = vectors(metric, rng, 1, width), vectors(metric, rng, 1, width)
    others = vectors(metric, rng, before, width), vectors(metric, rng, after, width)
    alone = pairwise(metric, query, one)[0, 0]
    among = pairwise(metric, query, np.concatenate([others[0], one, others[1], one]))[0]
    strided = pairwise(metric, query, np.asfortranarray(np.concatenate([one, others[0], one])))[0]
    assert among[before] == alone == among[-1]
    assert strided[0] == alone == strided[-1]


def test_blocks_leave_no_seam(monkeypatch):
    rng = np.random.default_rng(0)
    queries, gallery = rng.standard_normal((3, 5)), rng.standard_normal((23, 5))
    whole = pairwise("cosine", queries, gallery)
    monkeypatch.setattr("rsir.ranking._BLOCK_VALUES", 20)
    np.testing.assert_array_equal(pairwise("cosine", queries, gallery), whole)


def test_known_distances():
    assert pairwise("euclidean", [[0.0, 0.0]], [[3.0, 4.0]]) == 5
    np.testing.assert_allclose(
        pairwise("cosine", [[1.0, 0.0]], [[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]), [[0, 1, 2]]
    )
    # A linear change of contrast and brightness leaves the correlation as it is.
    np.testing.assert_allclose(
        pairwise("ncc", [[1.0, 2.0, 4.0]], [[7.0, 9.0, 13.0], [-1.0, -2.0, -4.0]]),
        [[0, 2]],
        atol=1e-15,
    )
    codes = np.packbits([[1, 0, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 1]], axis=1)
    np.testing.assert_array_equal(pairwise("hamming", codes[:1], codes), [[0, 2]])


def test_cosine_is_never_negative():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((200, 3)).astype(np.float32)
    assert pairwise("cosine", rows, rows).min() >= 0
    assert pairwise("cosine", rows, -rows).max() <= 2


@pytest.mark.parametrize("metric", ALL)
def test_nearest_equals_a_sorted_list_with_ties_by_id(metric):
    rng = np.random.default_rng(5)
    gallery = vectors(metric, rng, 6, 3)[rng.integers(0, 6, 40)]
    ids = [f"t{i}" for i in rng.permutation(40)]
    queries = vectors(metric, rng, 3, 3)
    rows, distances = nearest(metric, queries, gallery, ids, 17)
    for q in range(3):
        all_distances = pairwise(metric, queries, gallery)[q]
        wanted = sorted(range(40), key=lambda n: (all_distances[n], ids[n]))[:17]
        assert rows[q].tolist() == wanted
        assert distances[q].tolist() == all_distances[wanted].tolist()


def test_nearest_does_not_depend_on_the_order_of_the_gallery():
    rng = np.random.default_rng(9)
    gallery = rng.integers(0, 3, (30, 2)).astype(np.float32)
    ids = [f"{i:02d}" for i in range(30)]
    query = np.array([[1.0, 1.0]])
    shuffle = rng.permutation(30)
    plain, _ = nearest("euclidean", query, gallery, ids, 12)
    mixed, _ = nearest("euclidean", query, gallery[shuffle], [ids[i] for i in shuffle], 12)
    assert [ids[i] for i in plain[0]] == [ids[shuffle[i]] for i in mixed[0]]


def test_nearest_of_more_than_there_are_and_of_none():
    rows, distances = nearest("euclidean", [[0.0]], [[2.0], [1.0]], ["a", "b"], 10)
    assert rows.tolist() == [[1, 0]]
    assert distances.tolist() == [[1, 2]]
    rows, distances = nearest("euclidean", [[0.0]], np.empty((0, 1)), [], 10)
    assert rows.shape == distances.shape == (1, 0)
    assert nearest("cosine", np.empty((0, 2)), [[1.0, 0.0]], ["a"], 1)[0].shape == (0, 1)


@pytest.mark.parametrize("metric", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused_with_their_row(metric, value):
    bad = np.array([[1.0, 2.0], [value, 1.0]])
    good = np.array([[1.0, 2.0]])
    with pytest.raises(UsageError, match=r"queries, row 1: .*not finite"):
        pairwise(metric, bad, good)
    with pytest.raises(UsageError, match=r"gallery, row 1: .*not finite"):
        pairwise(metric, good, bad)


def test_vectors_without_direction_are_refused():
    with pytest.raises(UsageError, match="row 0: the zero vector"):
        pairwise("cosine", [[0.0, 0.0]], [[1.0, 0.0]])
    with pytest.raises(UsageError, match="row 0: a constant vector"):
        pairwise("ncc", np.full((1, 7), 0.1), [[1, 2, 3, 4, 5, 6, 7]])
    assert METRICS["ncc"].faults(np.full((1, 1000), 0.1, np.float32)).keys() == {0}
    assert METRICS["cosine"].faults(np.array([[1.0, 0], [0, 0], [np.nan, 0]])).keys() == {1, 2}
    assert pairwise("euclidean", [[0.0]], [[0.0]]) == 0


def test_wrong_shapes_types_and_names_are_refused():
    with pytest.raises(UsageError, match="euclidean, cosine, ncc, hamming"):
        metric_named("l1")
    with pytest.raises(UsageError, match="2-D"):
        pairwise("cosine", [1.0, 2.0], [[1.0, 2.0]])
    with pytest.raises(UsageError, match="2 columns and the gallery has 3"):
        pairwise("cosine", [[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(UsageError, match="uint8"):
        pairwise("hamming", [[1, 2]], [[1, 2]])
    with pytest.raises(UsageError, match="real numbers"):
        pairwise("cosine", [["a"]], [[1.0]])
    with pytest.raises(UsageError, match="must have 2 bytes columns"):
        METRICS["hamming"].check(np.zeros((1, 3), np.uint8), 16)
    with pytest.raises(UsageError, match="at least 1"):
        METRICS["hamming"].width(0)
    with pytest.raises(UsageError, match="k must be"):
        nearest("cosine", [[1.0]], [[1.0]], ["a"], 0)
    with pytest.raises(UsageError, match="2 ids for a gallery of 1"):
        nearest("cosine", [[1.0]], [[1.0]], ["a", "b"], 1)


def test_scores_are_larger_for_nearer():
    assert score("cosine", 0.25) == score("ncc", 0.25) == 0.75
    assert score("euclidean", 3.0) == 0.25
    assert score("hamming", 16, bits=64) == 0.75
    with pytest.raises(UsageError, match="bits"):
        score("hamming", 16)
    for metric in ALL:
        scores = score(metric, np.array([0.0, 0.5, 1.0, 2.0]), bits=8)
        assert scores[0] == 1
        assert (np.diff(scores) < 0).all()


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 12, 36, 64])
def test_codes_of_any_length_are_padded_with_zeros(bits):
    rng = np.random.default_rng(bits)
    signs = rng.random((5, bits)) < 0.5
    codes = np.packbits(signs, axis=1)
    hamming = metric_named("hamming")
    assert hamming.width(bits) == codes.shape[1]
    assert hamming.check(codes, bits).tolist() == codes.tolist()
    wanted = [[int((a != b).sum()) for b in signs] for a in signs]
    assert pairwise("hamming", codes, codes).tolist() == wanted
    if bits % 8:
        codes[3, -1] |= 1
        with pytest.raises(UsageError, match=f"row 3: the code has bits set beyond its {bits}"):
            hamming.check(codes, bits)
        hamming.check(codes, bits + -bits % 8)


def test_a_row_of_adaptive_hamming_is_the_code_and_the_probabilities():
    code = np.packbits([[1, 0, 1], [0, 0, 0]], axis=1)
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    rows = packed(code, probabilities)
    assert rows.tolist() == [
        [0b10100000, *struct.pack("<2f", 0.25, 0.75)],
        [0, *struct.pack("<2f", 1, 0)],
    ]
    back, values = unpacked(rows, 2)
    assert back.tolist() == code.tolist()
    assert values.tolist() == probabilities.tolist()
    metric = metric_named("adaptive-hamming:2")
    assert (metric.kind, metric.classes, metric.width(3)) == ("bits", 2, 9)
    # 2 bits differ; the first row's class is the second, of which the second row has 0.
    assert pairwise(metric, rows[:1], rows)[0].tolist() == [0, 2 * math.exp(1)]
    assert pairwise(metric, rows[1:], rows)[0].tolist() == [2 * math.exp(0.75), 0]
    assert packed(code[:0], probabilities[:0]).shape == (0, 9)
    with pytest.raises(UsageError, match="2 codes with 1"):
        packed(code, probabilities[:1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.25, 1.25])
def test_probabilities_out_of_range_are_refused_with_their_row(value):
    rows = packed(np.zeros((2, 2), np.uint8), np.array([[0.5, 0.5], [0.5, value]], np.float32))
    metric = metric_named("adaptive-hamming:2")
    assert metric.faults(rows).keys() == {1}
    with pytest.raises(UsageError, match="row 1: a class probability"):
        metric.check(rows, 16)
    with pytest.raises(UsageError, match="must have 10 bytes columns, not 9"):
        metric.check(rows[:1, :9], 16)
    with pytest.raises(UsageError, match="2 probabilities of 4"):
        pairwise(metric, rows[:1, :8], rows[:1, :8])


@pytest.mark.parametrize("name", ["", ":", ":0", ":03", ":-3", ":3.0", ":a", ":٣"])
def test_adaptive_hamming_needs_the_number_of_classes(name):
    with pytest.raises(UsageError, match="adaptive-hamming:K"):
        metric_named("adaptive-hamming" + name)


def test_a_models_ranking_gets_its_classes():
    assert name_with_classes("adaptive-hamming", 30) == "adaptive-hamming:30"
    assert name_with_classes("hamming", 30) == "hamming"
    assert metric_named("adaptive-hamming:30") is metric_named("adaptive-hamming:30")


@given(
    hamming=st.integers(0, 10_000),
    probability=st.floats(0, 1, width=32),
    other=st.floats(0, 1, width=32),
)
def test_an_adapted_distance_stays_within_its_bounds(hamming, probability, other):
    near, far = adapted(
        np.array([hamming, hamming], float), np.array(sorted([probability, other])[::-1])
    )
    assert hamming <= near <= far <= math.e * hamming * (1 + 1e-15)
    assert 0 <= score(ADAPTIVE, float(near), bits=10_000) <= 1
