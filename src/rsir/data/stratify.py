"""Divide groups of identical images into two parts, stratified by class or by labels."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def divide_by_class(
    weights: NDArray[np.int64],
    sizes: NDArray[np.int64],
    share: float,
    rng: np.random.Generator,
    *,
    least: int,
) -> NDArray[np.bool_]:
    """(G,) bool: the groups of the first part, for one label per image.

    weights: (G, L) images of each class in each group. sizes: (G,) images in each group. Each class
    has a quota in either part. Groups of several files come first, while there is room for them.
    """
    first = round_shares(weights.sum(axis=0), share, least)
    room = np.stack([first, weights.sum(axis=0) - first])
    taken = np.zeros_like(room)
    in_first = np.zeros(len(weights), np.bool_)
    shuffled = rng.permutation(len(weights))
    for g in sorted(shuffled.tolist(), key=lambda g: -int(sizes[g])):
        labels = weights[g] > 0
        fits = (room[:, labels] >= weights[g, labels]).all(axis=1)
        if sizes[g] == 1:
            side = 0 if fits[0] else 1
        elif fits.all():
            side = 0 if rng.random() < share else 1
        elif fits.any():
            side = int(np.argmax(fits))
        else:
            # The part that has no image of the class, then the part whose quota is exceeded less.
            lacks = (taken[:, labels] == 0).sum(axis=1)
            left = room[:, labels].sum(axis=1)
            side = 0 if (lacks[0], left[0]) >= (lacks[1], left[1]) else 1
        room[side] -= weights[g]
        taken[side] += weights[g]
        in_first[g] = side == 0
    return in_first


def exact_share(share: float) -> Fraction:
    """The share as the user wrote it: 0.7 is 7/10, so that 45 · 0.7 is 31.5 and not just below."""
    return Fraction(repr(float(share)))


def round_shares(counts: NDArray[np.int64], share: float, least: int) -> NDArray[np.int64]:
    """(L,) int64: share · counts, rounded by largest remainder, so that the sum is right.

    least: images that each class must have in either part.
    """
    exact = [exact_share(share) * int(n) for n in counts]
    rounded = [
        min(max(math.floor(e), least), max(int(n) - least, 0))
        for e, n in zip(exact, counts, strict=True)
    ]
    total = math.floor(sum(exact, Fraction(0)) + Fraction(1, 2))
    by_remainder = sorted(range(len(counts)), key=lambda c: (rounded[c] - exact[c], c))
    spare = total - sum(rounded)
    for c in by_remainder:
        if spare > 0 and rounded[c] < exact[c] and rounded[c] < int(counts[c]) - least:
            rounded[c] += 1
            spare -= 1
    return np.array(rounded, np.int64)


def divide_by_labels(
    weights: NDArray[np.int64],
    sizes: NDArray[np.int64],
    share: float,
    rng: np.random.Generator,
    *,
    least: int,
) -> NDArray[np.bool_]:
    """(G,) bool: the groups of the first part, for any number of labels per image.

    Sechidis, Tsoumakas and Vlahavas (2011), algorithm 1, for two parts: images of the rarest label
    come first. Each goes to the part that needs most images of that label; if the parts tie, to the
    part that needs most images. weights: (G, L) images with each label in each group. sizes: (G,)
    images in each group. least: as in `round_shares`; our choice, so that both parts need images
    of a rare label.
    """
    shares = np.array([share, 1 - share])
    totals = weights.sum(axis=0)
    needed = shares[:, None] * totals
    if least:
        needed = np.clip(needed, np.minimum(least, totals), np.maximum(totals - least, 0))
    needed_any = shares * sizes.sum()
    in_first = np.zeros(len(weights), np.bool_)
    left = rng.permutation(len(weights))

    def assign(g: int, by_label: NDArray[np.float64]) -> None:
        # Sums of shares differ in the last bits; rounding keeps ties equal on every platform.
        keys = [(round(float(by_label[s]), 6), round(float(needed_any[s]), 6)) for s in (0, 1)]
        side = int(rng.integers(2)) if keys[0] == keys[1] else int(keys[0] < keys[1])
        in_first[g] = side == 0
        needed[side] -= weights[g]
        needed_any[side] -= sizes[g]

    while left.size:
        remaining = weights[left].sum(axis=0)
        if not remaining.any():
            break
        label = int(np.argmin(np.where(remaining > 0, remaining, np.iinfo(np.int64).max)))
        has = weights[left, label] > 0
        for g in left[has]:
            assign(int(g), needed[:, label])
        left = left[~has]
    for g in left:
        assign(int(g), needed_any)
    return in_first
