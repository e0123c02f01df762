from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from rsir.errors import UsageError
from rsir.evaluation.statistics import (
    bootstrap_intervals,
    compare,
    holm,
)


def loop_interval(values: np.ndarray, level: float, resamples: int, seed: int) -> list[float]:
    """A bootstrap in plain Python, query by query; quantiles by hand."""
    draws = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        total = 0.0
        for i in draws.integers(len(values), size=len(values)):
            total += float(values[i])
        means.append(total / len(values))
    means.sort()
    ends = []
    for share in ((1 - level) / 2, 1 - (1 - level) / 2):
        below = math.floor(share * (resamples - 1))
        rest = share * (resamples - 1) - below
        ends.append(means[below] * (1 - rest) + means[min(below + 1, resamples - 1)] * rest)
    return ends


def loop_p_value(differences: list[float]) -> float:
    """p-values over every assignment of signs; exact for multiples of 1/64."""
    seen = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(s >= seen for s in sums) / len(sums)


def binary(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Multiples of 1/64, whose sums are exact."""
    return rng.integers(0, 65, size=shape) / 64


# Intervals


@pytest.mark.parametrize("n", [2, 3, 40])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_intervals_agree_with_a_slow_bootstrap(n: int, level: float) -> None:
    values = np.random.default_rng(n).random(n)
    found = bootstrap_intervals({"map": values}, level=level, resamples=201, seed=7)["map"]
    assert found == pytest.approx(loop_interval(values, level, 201, seed=7), rel=1e-12)


def test_intervals_of_many_queries_approach_the_normal_ones() -> None:
    values = np.random.default_rng(0).beta(2, 1, size=2000)
    low, high = bootstrap_intervals({"map": values})["map"]
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_intervals_contain_the_true_mean_as_often_as_their_level() -> None:
    rng = np.random.default_rng(0)
    sets = {str(i): rng.normal(0.5, 0.1, size=100) for i in range(400)}
    found = bootstrap_intervals(sets, level=0.8, resamples=400)
    share = np.mean([low <= 0.5 <= high for low, high in found.values()])
    # Three standard errors of 400 trials are 0.06; percentile intervals of 100 lose 0.01.
    assert 0.73 < share < 0.86


def test_all_measures_use_the_same_resamples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    values = rng.random(50)
    alone = bootstrap_intervals({"map": values}, resamples=100)["map"]
    many = {f"m{i}": rng.random(50) for i in range(20)}
    monkeypatch.setattr("rsir.evaluation.statistics.BLOCK_BYTES", 1)
    found = bootstrap_intervals({**many, "map": values, "twice": 2 * values + 1}, resamples=100)
    assert found["map"] == pytest.approx(alone, rel=1e-12)
    assert list(found) == [*many, "map", "twice"]
    assert found["twice"] == pytest.approx([2 * end + 1 for end in alone])


def test_seed_and_level_matter() -> None:
    values = {"map": np.random.default_rng(0).random(60)}
    low, high = bootstrap_intervals(values, seed=1)["map"]
    assert bootstrap_intervals(values, seed=1)["map"] == (low, high)
    assert bootstrap_intervals(values, seed=2)["map"] != (low, high)
    narrow = bootstrap_intervals(values, seed=1, level=0.5)["map"]
    assert low < narrow[0] < values["map"].mean() < narrow[1] < high


def test_queries_without_a_value_are_left_out_of_that_measure_only() -> None:
    values = np.random.default_rng(0).random(30)
    gaps = values.copy()
    gaps[[0, 7, 29]] = np.nan
    found = bootstrap_intervals({"map": values, "gaps": gaps, "none": np.full(30, np.nan)})
    assert found["map"] == bootstrap_intervals({"map": values})["map"]
    assert found["gaps"] == bootstrap_intervals({"gaps": values[~np.isnan(gaps)]})["gaps"]
    assert all(math.isnan(end) for end in found["none"])


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7e5])
@pytest.mark.parametrize("n", [1, 2, 49])
def test_equal_values_give_an_empty_interval(value: float, n: int) -> None:
    assert bootstrap_intervals({"map": np.full(n, value)})["map"] == (value, value)


def test_one_query_with_a_value_among_those_without() -> None:
    assert bootstrap_intervals({"map": np.array([np.nan, 0.3])})["map"] == (0.3, 0.3)


def test_no_measures_and_no_queries() -> None:
    assert bootstrap_intervals({}) == {}
    assert compare({}, {}) == {}
    assert all(math.isnan(end) for end in bootstrap_intervals({"map": np.empty(0)})["map"])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({"map": np.ones((2, 2))}, {}, "one value per query"),
        ({"map": np.array([1.0, np.inf])}, {}, "infinite"),
        ({"map": np.ones(2), "p": np.ones(3)}, {}, "map 2, p 3"),
        ({"map": np.ones(2)}, {"level": 1.0}, "level"),
        ({"map": np.ones(2)}, {"level": math.nan}, "level"),
        ({"map": np.ones(2)}, {"resamples": 1}, "resamples"),
        ({"map": np.ones(2)}, {"seed": -1}, "seed"),
    ],
)
def test_bad_values_and_options_are_refused(
    values: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        bootstrap_intervals(values, **options)


# Comparison


@pytest.mark.parametrize("n", range(1, 11))
def test_p_values_count_every_assignment_of_signs(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = binary(rng, n), binary(rng, n)
    found = compare({"map": a}, {"map": b})["map"]
    assert found.p_value == loop_p_value((b - a).tolist())


def test_sums_equal_up_to_rounding_count_as_equal() -> None:
    # 0.1 + 0.2 - 0.3 is not 0 in floating point; in tenths it is.
    rng = np.random.default_rng(0)
    tenths = {str(i): rng.integers(-3, 4, size=8) for i in range(30)}
    zeros = {name: np.zeros(8) for name in tenths}
    found = compare(zeros, {name: values / 10 for name, values in tenths.items()}, resamples=2)
    for name, values in tenths.items():
        assert found[name].p_value == loop_p_value(values.tolist())


def test_drawn_p_values_agree_with_exact_ones() -> None:
    rng = np.random.default_rng(3)
    a, b = binary(rng, 12), binary(rng, 12) + 0.125
    exact = loop_p_value((b - a).tolist())
    assert 0.02 < exact < 0.98
    drawn = compare({"m": a}, {"m": b}, permutations=4095)["m"].p_value
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4095))
    assert compare({"m": a}, {"m": b}, permutations=4096)["m"].p_value == exact


def test_p_values_agree_with_scipy() -> None:
    from scipy.stats import permutation_test

    rng = np.random.default_rng(5)
    a = rng.random(10)
    b = a + rng.normal(0.03, 0.1, size=10)
    by_scipy = permutation_test(
        (b, a),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**10,
    )
    found = compare({"m": a}, {"m": b})["m"]
    assert found.p_value == pytest.approx(by_scipy.pvalue, rel=1e-12)
    assert found.difference == pytest.approx(by_scipy.statistic, rel=1e-12)


def test_p_values_of_equal_models_are_uniform() -> None:
    rng = np.random.default_rng(0)
    a = {str(i): rng.random(40) for i in range(500)}
    b = {name: rng.random(40) for name in a}
    p_values = [d.p_value for d in compare(a, b, permutations=499, resamples=10).values()]
    for level in (0.05, 0.25, 0.5):
        spread = 4 * math.sqrt(level * (1 - level) / 500)
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=spread)


@pytest.mark.parametrize("n", [8, 100])
def test_swapping_the_models_changes_only_the_sign(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = {"m": rng.random(n)}, {"m": rng.random(n)}
    forward, backward = compare(a, b)["m"], compare(b, a)["m"]
    assert backward.p_value == forward.p_value
    assert backward.difference == pytest.approx(-forward.difference, rel=1e-12)
    assert backward.interval == pytest.approx(
        (-forward.interval[1], -forward.interval[0]), rel=1e-12
    )
    assert (backward.mean_a, backward.mean_b) == (forward.mean_b, forward.mean_a)
    assert (backward.better, backward.ties, backward.worse) == (
        forward.worse,
        forward.ties,
        forward.better,
    )


@pytest.mark.parametrize("n", [1, 5, 300])
def test_a_model_does_not_differ_from_itself(n: int) -> None:
    values = {"map": np.random.default_rng(n).random(n)}
    found = compare(values, values)["map"]
    assert (found.difference, found.interval) == (0, (0, 0))
    assert (found.p_value, found.p_adjusted) == (1, 1)
    assert (found.queries, found.better, found.ties, found.worse) == (n, 0, 1, 0)
    assert found.mean_a == found.mean_b == pytest.approx(values["map"].mean(), rel=1e-12)


def test_rounding_is_a_tie() -> None:
    values = np.random.default_rng(0).random(50)
    found = compare({"m": values}, {"m": np.nextafter(values, 2)})["m"]
    assert (found.p_value, found.ties, found.difference) == (1, 1, 0)


def test_better_on_every_query_has_the_smallest_p_value() -> None:
    rng = np.random.default_rng(0)
    for n, least in ((1, 1), (6, 2 / 2**6), (13, 2 / 2**13), (60, 1 / 10_000)):
        a = rng.random(n)
        found = compare({"m": a}, {"m": a + 0.1 + rng.random(n)})["m"]
        assert found.p_value == least
        assert (found.better, found.ties, found.worse) == (1, 0, 0)
        assert 0.1 <= found.interval[0] <= found.difference <= found.interval[1]


def test_equal_queries_do_not_count() -> None:
    """3 of 500 queries differ: p is exactly 2 of 8 exchanges, not an estimate."""
    a = np.ones(500)
    b = a.copy()
    b[[3, 77, 410]] = 0
    found = compare({"r_at_1": a}, {"r_at_1": b})["r_at_1"]
    assert found.p_value == 0.25
    assert (found.better, found.ties, found.worse) == (0, 497 / 500, 3 / 500)


def test_exact_and_drawn_p_values_in_one_comparison() -> None:
    rng = np.random.default_rng(2)
    a = {"all": rng.random(40), "few": np.ones(40), "none": rng.random(40)}
    b = {"all": rng.random(40), "few": np.r_[np.zeros(4), np.ones(36)], "none": a["none"]}
    together = compare(a, b)
    for name in a:
        alone = compare({name: a[name]}, {name: b[name]})[name]
        assert together[name].p_value == alone.p_value
        assert together[name].interval == pytest.approx(alone.interval, rel=1e-12)
    assert together["few"].p_value == 2 / 2**4


def test_p_values_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    a, b = {"m": rng.random(64)}, {"m": rng.random(64)}
    whole = compare(a, b, permutations=1000)["m"]
    monkeypatch.setattr("rsir.evaluation.statistics.BLOCK_BYTES", 8 * 64 * 7)
    parts = compare(a, b, permutations=1000)["m"]
    assert parts.interval == whole.interval
    assert parts.p_value == pytest.approx(whole.p_value, abs=0.06)


def test_a_query_without_a_value_in_either_is_left_out() -> None:
    a = np.array([0.5, np.nan, 0.25, 0.0, 1.0, 0.5])
    b = np.array([0.75, 1.0, np.nan, 0.5, 1.0, 0.25])
    kept = [0, 3, 4, 5]
    found = compare({"m": a, "none": a * np.nan}, {"m": b, "none": b})
    assert (
        found["m"] == compare({"m": a[kept], "none": a[kept]}, {"m": b[kept], "none": a[kept]})["m"]
    )
    assert found["m"].queries == 4
    assert (found["m"].better, found["m"].ties, found["m"].worse) == (0.5, 0.25, 0.25)
    none = found["none"]
    assert (none.queries, none.p_value, none.ties) == (0, 1, 0)
    assert math.isnan(none.mean_a)
    assert math.isnan(none.difference)


def test_one_query_has_p_value_1() -> None:
    found = compare({"m": np.array([0.25])}, {"m": np.array([0.75])})["m"]
    assert (found.mean_a, found.mean_b, found.difference) == (0.25, 0.75, 0.5)
    assert (found.interval, found.p_value) == ((0.5, 0.5), 1)


def test_the_interval_is_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(50)
    b = a + rng.normal(0.01, 0.001, size=50)
    found = compare({"m": a}, {"m": b}, seed=3, level=0.9, resamples=300)["m"]
    assert found.interval == pytest.approx(loop_interval(b - a, 0.9, 300, seed=3), rel=1e-9)
    assert found.difference == pytest.approx(b.mean() - a.mean(), rel=1e-12)


def test_a_constant_difference_has_an_exact_interval() -> None:
    # Three times 0.1, divided by 3, is not 0.1 in floating point.
    found = compare({"m": np.zeros(3)}, {"m": np.full(3, 0.1)})["m"]
    assert (found.mean_b, found.difference, found.interval) == (0.1, 0.1, (0.1, 0.1))


def test_another_seed_draws_other_resamples_and_signs() -> None:
    rng = np.random.default_rng(0)
    a, b = {"m": rng.random(60)}, {"m": rng.random(60)}
    one, same, other = (compare(a, b, seed=seed)["m"] for seed in (1, 1, 2))
    assert one == same
    assert one.p_value != other.p_value
    assert one.interval != other.interval


def test_smaller_is_better_for_anmrr() -> None:
    a, b = np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.25, 0.25, 0.5, 0.75])
    found = compare({"anmrr": a, "map": a}, {"anmrr": b, "map": b})
    assert (found["anmrr"].better, found["anmrr"].ties, found["anmrr"].worse) == (0.5, 0.25, 0.25)
    assert (found["map"].better, found["map"].ties, found["map"].worse) == (0.25, 0.25, 0.5)
    assert found["anmrr"].difference == found["map"].difference == -0.0625
    named = compare({"metres": a}, {"metres": b}, smaller_is_better={"metres"})["metres"]
    assert named.better == 0.5


def test_other_queries_or_measures_are_refused() -> None:
    with pytest.raises(UsageError, match="the first model 2, the second 3"):
        compare({"m": np.ones(2)}, {"m": np.ones(3)})
    with pytest.raises(UsageError, match=r"only one has 2 \(anmrr, map\)"):
        compare({"map": np.ones(2), "p": np.ones(2)}, {"anmrr": np.ones(2), "p": np.ones(2)})
    with pytest.raises(UsageError, match="permutations"):
        compare({"m": np.ones(2)}, {"m": np.ones(2)}, permutations=0)


def test_holm_by_hand() -> None:
    # 0.01·4, 0.03·3, max(0.09, 0.04·2), max(0.09, 0.5)
    np.testing.assert_allclose(holm(np.array([0.5, 0.01, 0.04, 0.03])), [0.5, 0.04, 0.09, 0.09])
    np.testing.assert_allclose(holm(np.array([0.4, 0.4, 0.6])), [1, 1, 1])
    assert holm(np.empty(0)).shape == (0,)


def test_holm_agrees_with_the_step_down_procedure() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = rng.random(6) ** 4
        p_values[1] = p_values[4]
        for level in (0.01, 0.05, 0.2):
            rejected: set[int] = set()
            for step, m in enumerate(sorted(range(6), key=lambda i: p_values[i])):
                if p_values[m] > level / (6 - step):
                    break
                rejected.add(m)
            assert set(np.flatnonzero(holm(p_values) <= level)) == rejected


def test_p_adjusted_corrects_for_all_measures() -> None:
    rng = np.random.default_rng(0)
    a = {name: rng.random(8) for name in "wxyz"}
    b = {name: values + rng.normal(0.1, 0.1, size=8) for name, values in a.items()}
    found = compare(a, b)
    adjusted = holm(np.array([found[name].p_value for name in a]))
    assert [found[name].p_adjusted for name in a] == adjusted.tolist()
