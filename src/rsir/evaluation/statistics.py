"""Confidence intervals of means over queries, and tests of the difference of two models.

A measure is (Q,) float64, one value per query; NaN where it does not apply to a query, which is
then left out of that measure. Intervals and tests consider the choice of queries alone, as if the
queries were drawn independently: another gallery, or another training of the same model, may
change a mean by more than its interval.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError

Values = NDArray[np.float64]

SMALLER_IS_BETTER = frozenset({"anmrr", "anmrr_k_plus_1"})
"""Measures for which smaller is better; for all others larger is better."""
LEVEL = 0.95
"""Confidence level of the intervals: the usual level."""
RESAMPLES = 2000
"""Of the bootstrap; our choice, at least the 1,000 of Efron & Tibshirani 1993, chapter 13."""
PERMUTATIONS = 9999
"""Permutations of the test; our choice: the smallest p-value is then 1/10,000."""
ROUNDING = 1e-12
"""Values this close, relatively or absolutely, are equal; our choice: far above the effect of the
order of summation on a measure, far below the effect of one image."""
BLOCK_BYTES = 16 * 2**20
"""Memory for one block of resamples or of signs; our choice. Both take a few such blocks."""
LISTED = 5
"""Most names that a message lists; it counts the others. Our choice."""


def bootstrap_intervals(
    per_query: Mapping[str, Values],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """The interval (low, high) of the mean of each measure: percentile bootstrap over queries.

    per_query: name → (Q,) float64. level: the share of such intervals, above 0 and below 1, that
    contain the mean over all possible queries. Measures that apply to the same queries use the
    same resamples, independently of other measures.

    One query, or equal values, give that value twice; no query gives NaN twice. With few queries
    percentile intervals are too narrow: for 10 normal values, a 0.95 interval contains the true
    mean in 91 % of cases.
    Raises UsageError for values that are infinite or of different lengths.
    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    _check_options(level=level, resamples=resamples, seed=seed)
    values = checked_values(per_query)
    alike: dict[bytes, list[str]] = {}
    for name, of_queries in values.items():
        alike.setdefault(np.isnan(of_queries).tobytes(), []).append(name)
    intervals: dict[str, tuple[float, float]] = {}
    for names in alike.values():
        applies = ~np.isnan(values[names[0]])
        rows = np.stack([values[name][applies] for name in names])
        intervals |= zip(names, _percentiles(rows, level, resamples, seed), strict=True)
    return {name: intervals[name] for name in values}


@dataclass(frozen=True)
class Difference:
    """One measure of two models, a and b, over the same queries.

    mean_a, mean_b; difference: mean_b - mean_a, with its bootstrap interval (low, high).
    p_value: two-sided, of the hypothesis that the models are equally good; p_adjusted: after
    Holm's correction for all compared measures. queries: number with a value from both models.
    better, ties, worse: shares of these queries, 0 … 1, where b is better than a, equal, worse.
    """

    mean_a: float
    mean_b: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_adjusted: float
    queries: int
    better: float
    ties: float
    worse: float


def compare(
    a: Mapping[str, Values],
    b: Mapping[str, Values],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    smaller_is_better: Collection[str] = SMALLER_IS_BETTER,
) -> dict[str, Difference]:
    """Compare model b with model a, per measure: paired bootstrap, paired permutation test.

    a, b: name → (Q,) float64, the same measures of the same queries in the same order (`paired`).
    A query with NaN in either is left out. Values that differ by rounding are ties.

    p_value: two-sided sign-flip test of the mean difference. If the models are equally good, the
    two values of each query are exchangeable; p is the share of exchanges whose mean difference is
    at least the observed difference. If all 2^n exchanges of the n differing queries are at most
    `permutations` (n ≤ 13 by default), all are counted; otherwise `permutations` are drawn, and
    the observed values count as one more, so that p is never 0.
    p_adjusted: the same after Holm's correction: of equally good models, at most one comparison in
    twenty has any measure below 0.05. Every measure counts: pass only those that you look at.

    Raises UsageError if a and b have different measures or different numbers of queries.
    Sources: Smucker, Allan & Carterette, "A comparison of statistical significance tests for
    information retrieval evaluation", CIKM 2007; Phipson & Smyth, "Permutation p-values should
    never be zero", SAGMB 2010; Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 1979.
    """
    _check_options(level=level, resamples=resamples, permutations=permutations, seed=seed)
    of_a, of_b = checked_values(a), checked_values(b)
    if only := sorted(of_a.keys() ^ of_b.keys()):
        raise UsageError(
            f"compare the same measures of both models; only one has {some_names(only)}"
        )
    if not of_a:
        return {}
    checked_values(
        {"the first model": next(iter(of_a.values())), "the second": next(iter(of_b.values()))}
    )

    changes = {name: _changes(of_a[name], of_b[name]) for name in of_a}
    intervals = bootstrap_intervals(changes, level=level, resamples=resamples, seed=seed)
    columns = np.stack([np.nan_to_num(change) for change in changes.values()], axis=1)
    p_values = _sign_flip_p_values(columns, permutations, seed)
    found = {}
    for name, p, adjusted in zip(changes, p_values, holm(p_values), strict=True):
        both = ~np.isnan(changes[name])
        change = changes[name][both]
        gain = -change if name in smaller_is_better else change
        found[name] = Difference(
            mean_a=_mean(of_a[name][both]),
            mean_b=_mean(of_b[name][both]),
            difference=_mean(change),
            interval=intervals[name],
            p_value=float(p),
            p_adjusted=float(adjusted),
            queries=len(change),
            better=_share(gain > 0),
            ties=_share(gain == 0),
            worse=_share(gain < 0),
        )
    return found


def holm(p_values: Values) -> Values:
    """(M,) p-values → (M,) adjusted by Holm's step-down procedure (1979), in the given order.

    The smallest is multiplied by M, the next by M - 1 …; the results keep the order of the
    p-values and are at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _percentiles(
    rows: Values, level: float, resamples: int, seed: int
) -> list[tuple[float, float]]:
    """An interval for each row of (M, n) values without NaN, all from the same resamples."""
    n = rows.shape[1]
    if n < 2:
        return [(float(row.sum()), float(row.sum())) if n else (math.nan, math.nan) for row in rows]
    from scipy.stats import bootstrap

    # Relative to the first value, so that the mean of equal values is exactly that value.
    first = rows[:, :1]
    interval = bootstrap(
        (rows - first,),
        np.mean,
        vectorized=True,
        axis=-1,
        n_resamples=resamples,
        batch=max(1, BLOCK_BYTES // (8 * rows.size)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = (first[:, 0] + end for end in interval)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _changes(a: Values, b: Values) -> Values:
    """(Q,): b - a; 0 where they differ by rounding alone, NaN where either is NaN."""
    return np.where(np.isclose(a, b, rtol=ROUNDING, atol=ROUNDING), 0.0, b - a)


def _sign_flip_p_values(changes: Values, permutations: int, seed: int) -> Values:
    """(Q, M) differences → (M,) two-sided p-values; the same signs for all measures.

    scipy.stats.permutation_test gives the same by permuting values, a hundred times slower for
    10,000 queries. A difference of 0 has no sign, so such queries change nothing.
    """
    differing = (changes != 0).sum(axis=0)
    # With a tolerance: sums of the same values in another order must count as equal.
    wanted = np.abs(changes.sum(axis=0)) - ROUNDING * np.abs(changes).sum(axis=0)
    p_values = np.empty(len(wanted))
    # 2^n ≤ permutations.
    exact = differing < permutations.bit_length()
    for m in np.flatnonzero(exact):
        sums = np.zeros(1)
        for change in changes[changes[:, m] != 0, m]:
            sums = np.concatenate([sums - change, sums + change])
        p_values[m] = _share(np.abs(sums) >= wanted[m])
    if exact.all():
        return p_values

    drawn, wanted = changes[:, ~exact], wanted[~exact]
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_BYTES // (8 * len(changes)))
    as_large = np.zeros(len(wanted), np.int64)
    for start in range(0, permutations, block):
        size = (min(block, permutations - start), len(changes))
        signs = 1.0 - 2.0 * rng.integers(2, size=size, dtype=np.int8)
        as_large += (np.abs(signs @ drawn) >= wanted).sum(axis=0)
    p_values[~exact] = (as_large + 1) / (permutations + 1)
    return p_values


def _mean(values: Values) -> float:
    """The mean; exactly the value if all are equal, NaN if there are none."""
    return float(values[0] + (values - values[0]).mean()) if len(values) else math.nan


def _share(which: NDArray[np.bool_]) -> float:
    """The share of True; 0 if empty."""
    return float(which.sum() / max(1, len(which)))


def checked_values(per_query: Mapping[str, Values]) -> dict[str, Values]:
    """The measures as float64; UsageError unless all are (Q,) for one Q, without infinities."""
    values = {name: np.asarray(v, np.float64) for name, v in per_query.items()}
    for name, of_queries in values.items():
        if of_queries.ndim != 1:
            raise UsageError(f"{name}: give one value per query, not shape {of_queries.shape}")
        if np.isinf(of_queries).any():
            raise UsageError(f"{name}: infinite values have no mean; give NaN where none applies")
    lengths = {name: len(of_queries) for name, of_queries in values.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise UsageError(f"give values for the same queries; numbers of queries: {found}")
    return values


def _check_options(
    *, level: float, resamples: int, permutations: int = PERMUTATIONS, seed: int
) -> None:
    if not 0 < level < 1:
        raise UsageError(f"level must be above 0 and below 1, such as 0.95, not {level}")
    if resamples < 2:
        raise UsageError(f"resamples must be at least 2, not {resamples}")
    if permutations < 1:
        raise UsageError(f"permutations must be at least 1, not {permutations}")
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, not {seed}")


def some_names(names: Sequence[str]) -> str:
    """'3 (a, b, c)', the first few by name."""
    return f"{len(names)} ({', '.join(names[:LISTED])}{', …' if len(names) > LISTED else ''})"
