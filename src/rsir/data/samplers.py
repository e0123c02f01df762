"""Samplers: which images form a training batch.

A sampler yields `Draw`s: an index, and a seed for the random view of that image. The seed depends
on the run's seed, the epoch and the position only, so the number of loader processes and a resume
do not change a run. `set_epoch` follows torch's DistributedSampler; Lightning calls it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rsir.errors import DataError, UsageError

DISSIMILAR_TRIES = 32
"""Random tries for a dissimilar image before the whole set is searched. Our choice: if half of the
set is similar, one leader in 4·10^9 needs more."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One image of a batch: its index in the set, and the seed of its random view."""

    index: int
    seed: int


class EpochSampler(Sampler[Draw]):
    """A sampler whose order differs from epoch to epoch; (seed, epoch) fixes it."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        """The draws of the current epoch."""
        random = np.random.default_rng([self.seed, self.epoch])
        indices = self.indices(random)
        seeds = random.integers(2**62, size=len(indices))
        return (Draw(int(i), int(s)) for i, s in zip(indices, seeds, strict=True))

    @abstractmethod
    def indices(self, random: np.random.Generator) -> NDArray[np.int64]:
        """The indices of one epoch, in order."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of draws in an epoch."""


class ShuffleSampler(EpochSampler):
    """Every image once, in random order, without a last partial batch.

    Batch normalisation suffers from a small last batch.
    """

    def __init__(self, count: int, *, batch_size: int, seed: int) -> None:
        super().__init__(seed=seed)
        if count < 1:
            raise DataError("there are no images to train on")
        self.count = count
        self.length = max(1, count // batch_size) * min(count, batch_size)

    def indices(self, random: np.random.Generator) -> NDArray[np.int64]:
        """A random permutation, cut to whole batches."""
        return random.permutation(self.count)[: self.length]

    def __len__(self) -> int:
        return self.length


class PKSampler(EpochSampler):
    """Batches of P classes with K images each (Hermans et al. 2017), about N draws an epoch.

    targets: (N,) classes, or (N, L) multi-hot labels, each of which then counts as a class.
    batch_size = P·K with P ≥ 2, because one class has no dissimilar pair; per_class = K. If there
    are fewer than P classes, P is their number.
    All classes are drawn equally often, and so are the images of a class. A class with fewer than K
    images repeats them, each time in another random view.
    """

    def __init__(
        self, targets: NDArray[np.integer], *, batch_size: int, per_class: int, seed: int
    ) -> None:
        super().__init__(seed=seed)
        if batch_size % per_class:
            raise UsageError(f"batch size {batch_size} is not a multiple of {per_class} per class")
        if batch_size // per_class < 2:
            raise UsageError(
                f"batches of {batch_size} images, {per_class} of each class, hold a single class; "
                "raise the batch size or lower the images per class"
            )
        self.members = members(targets)
        if len(self.members) < 2:
            raise DataError("training needs at least two classes with images")
        self.per_class = per_class
        self.classes_per_batch = min(batch_size // per_class, len(self.members))
        self.batches = max(1, len(targets) // (self.classes_per_batch * per_class))

    @property
    def batch_size(self) -> int:
        """Images in a batch, P·K."""
        return self.classes_per_batch * self.per_class

    def indices(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Batch after batch: K images of one class, then K of the next."""
        images = [_Deck(member, random) for member in self.members]
        classes = _Deck(np.arange(len(self.members)), random)
        drawn = [
            images[c].deal(self.per_class)
            for _ in range(self.batches)
            for c in classes.deal(self.classes_per_batch)
        ]
        return np.concatenate(drawn)

    def __len__(self) -> int:
        return self.batches * self.batch_size


class PairSampler(EpochSampler):
    """Pairs of images, half of them similar, as i₀ j₀ i₁ j₁ … for a siamese net.

    targets: (N,) classes or (N, L) multi-hot labels. batch_size: images, not pairs; even.
    Every image leads one pair an epoch; similar and dissimilar pairs alternate. A similar partner
    is another image with the leader's class or with a random label of the leader, or the leader
    itself if there is none. A dissimilar partner shares no class or label with the leader, or is
    any other image if all images are similar. An image without labels is similar to nothing: it
    leads an extra dissimilar pair, and the alternation continues after it.
    """

    def __init__(self, targets: NDArray[np.integer], *, batch_size: int, seed: int) -> None:
        super().__init__(seed=seed)
        if batch_size % 2:
            raise UsageError(f"a batch of pairs has an even size, not {batch_size}")
        if len(targets) < 2:
            raise DataError("pairs need at least two images")
        self.labels = one_hot(targets)
        self.members = [np.flatnonzero(column) for column in self.labels.T]
        self.shared = self.labels.sum(axis=0) > 1
        self.pairs = max(1, 2 * len(targets) // batch_size) * min(batch_size // 2, len(targets))

    def indices(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Leaders in random order, each followed by its partner."""
        leaders = random.permutation(len(self.labels))
        leaders = np.resize(leaders, self.pairs)
        partners = np.empty_like(leaders)
        labelled: NDArray[np.bool_] = np.any(self.labels, axis=1)
        similar = True
        for n, leader in enumerate(leaders):
            partner = self._similar if similar and labelled[leader] else self._dissimilar
            partners[n] = partner(int(leader), random)
            similar ^= bool(labelled[leader])
        return np.stack([leaders, partners], axis=1).reshape(-1)

    def _similar(self, leader: int, random: np.random.Generator) -> int:
        labels = np.flatnonzero(self.labels[leader] & self.shared)
        if len(labels) == 0:
            return leader
        group = self.members[labels[random.integers(len(labels))]]
        row = np.searchsorted(group, leader) + random.integers(1, len(group))
        return int(group[row % len(group)])

    def _dissimilar(self, leader: int, random: np.random.Generator) -> int:
        count = len(self.labels)
        for _ in range(DISSIMILAR_TRIES):
            other = (leader + int(random.integers(1, count))) % count
            if not (self.labels[leader] & self.labels[other]).any():
                return other
        all_dissimilar = self._all_dissimilar(leader)
        return int(random.choice(all_dissimilar)) if len(all_dissimilar) else other

    def _all_dissimilar(self, leader: int) -> NDArray[np.int64]:
        shares = (self.labels & self.labels[leader]).any(axis=1)
        shares[leader] = True
        return np.flatnonzero(~shares)

    def __len__(self) -> int:
        return 2 * self.pairs


def one_hot(targets: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(N, K) bool from (N,) classes or (N, L) multi-hot labels."""
    if targets.ndim == 2:
        return targets.astype(np.bool_)
    hot: NDArray[np.bool_] = targets[:, None] == np.unique(targets)[None, :]
    return hot


def members(targets: NDArray[np.integer]) -> list[NDArray[np.int64]]:
    """For each class or label that has images, the indices of its images."""
    return [np.flatnonzero(column) for column in one_hot(targets).T if column.any()]


class _Deck:
    """A deck of cards that is shuffled again when it runs out."""

    def __init__(self, cards: NDArray[np.int64], random: np.random.Generator) -> None:
        self.cards, self.random = cards, random
        self.rest = cards[:0]

    def deal(self, count: int) -> NDArray[np.int64]:
        """The next `count` cards; no card twice unless `count` exceeds the deck."""
        while len(self.rest) < count:
            fresh = self.random.permutation(self.cards)
            # Cards that are left over go to the end of the new deck, so that a deal of at most a
            # whole deck does not hold them twice.
            left_over = np.isin(fresh, self.rest)
            self.rest = np.concatenate([self.rest, fresh[~left_over], fresh[left_over]])
        dealt, self.rest = self.rest[:count], self.rest[count:]
        return dealt
