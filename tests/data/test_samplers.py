"""Samplers: which images form a batch, against brute force."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rsir.data.samplers import EpochSampler, PairSampler, PKSampler, ShuffleSampler
from rsir.errors import DataError, UsageError

TARGETS = np.repeat(np.arange(5), [10, 10, 7, 3, 1])
LABELS = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]], np.uint8)


def pk(batch_size: int = 12, per_class: int = 3, seed: int = 0) -> PKSampler:
    return PKSampler(TARGETS, batch_size=batch_size, per_class=per_class, seed=seed)


def indices(sampler: EpochSampler) -> list[int]:
    return [draw.index for draw in sampler]


def test_every_batch_has_p_classes_with_k_images() -> None:
    drawn = indices(pk())
    assert len(drawn) == len(pk()) == 24
    for start in range(0, len(drawn), 12):
        counts = Counter(TARGETS[drawn[start : start + 12]])
        assert len(counts) == 4
        assert set(counts.values()) == {3}


def test_a_class_repeats_an_image_only_when_it_must() -> None:
    for epoch in range(20):
        sampler = pk()
        sampler.set_epoch(epoch)
        drawn = indices(sampler)
        for start in range(0, len(drawn), 3):
            group = drawn[start : start + 3]
            expected = min(3, int((TARGETS[group[0]] == TARGETS).sum()))
            assert len(set(group)) == expected


def test_all_images_and_classes_are_drawn_equally_often() -> None:
    seen: Counter[int] = Counter()
    sampler = pk()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        seen.update(indices(sampler))
    assert set(seen) == set(range(len(TARGETS)))
    per_class = Counter(TARGETS[i] for i in seen.elements())
    assert max(per_class.values()) <= 1.2 * min(per_class.values())


@pytest.mark.parametrize(
    "make",
    [
        pk,
        lambda seed=0: ShuffleSampler(31, batch_size=8, seed=seed),
        lambda seed=0: PairSampler(TARGETS, batch_size=8, seed=seed),
    ],
)
def test_an_epoch_is_fixed_by_seed_and_number(make) -> None:  # type: ignore[no-untyped-def]
    sampler, equal, different = make(), make(), make(seed=1)
    assert list(sampler) == list(equal)
    assert list(sampler) != list(different)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert len(sampler) == len(first)
    assert len({draw.seed for draw in first}) == len(first)


def test_shuffle_draws_each_image_once_and_whole_batches() -> None:
    drawn = indices(ShuffleSampler(31, batch_size=8, seed=0))
    assert len(drawn) == 24
    assert len(set(drawn)) == 24
    assert len(indices(ShuffleSampler(3, batch_size=8, seed=0))) == 3


def test_pairs_alternate_between_similar_and_dissimilar() -> None:
    drawn = indices(PairSampler(TARGETS, batch_size=8, seed=0))
    for n, (leader, partner) in enumerate(zip(drawn[::2], drawn[1::2], strict=True)):
        same = TARGETS[leader] == TARGETS[partner]
        assert same == (n % 2 == 0)
        if same and TARGETS[leader] != 4:  # class 4 has a single image
            assert leader != partner
    assert len(drawn) % 8 == 0


@pytest.mark.parametrize("epoch", range(10))
def test_multi_label_pairs_alternate_between_similar_and_dissimilar(epoch: int) -> None:
    sampler = PairSampler(LABELS, batch_size=4, seed=0)
    sampler.set_epoch(epoch)
    drawn = indices(sampler)
    expected = True
    for leader, partner in zip(drawn[::2], drawn[1::2], strict=True):
        shares = bool((LABELS[leader] & LABELS[partner]).any())
        if leader == 4:  # it has no label, so that no image is similar to it, not even itself
            assert not shares
            assert partner != leader
            continue
        assert shares == expected
        if leader == partner:
            assert leader == 2  # the only image with its label
        expected = not expected


def test_images_without_labels_are_never_similar() -> None:
    labels = np.zeros((6, 3), np.uint8)
    labels[:2, 1] = 1
    drawn = np.array(indices(PairSampler(labels, batch_size=4, seed=0))).reshape(-1, 2)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    both_labelled = (drawn < 2).all(axis=1)
    assert both_labelled.sum() == 1
    assert len(indices(PairSampler(np.zeros((4, 3), np.uint8), batch_size=4, seed=0))) == 8


@pytest.mark.slow
@pytest.mark.parametrize("targets", [TARGETS, LABELS, np.array([0] * 300 + [1])])
def test_partners_are_those_that_brute_force_allows(targets: np.ndarray) -> None:
    hot = targets if targets.ndim == 2 else targets[:, None] == np.arange(5)
    shares = (hot.astype(int) @ hot.T.astype(int)) > 0
    sampler = PairSampler(targets, batch_size=2, seed=0)
    seen: dict[int, set[int]] = {}
    for epoch in range(1000 if len(targets) < 40 else 3):
        sampler.set_epoch(epoch)
        drawn = indices(sampler)
        for leader, partner in zip(drawn[::2], drawn[1::2], strict=True):
            seen.setdefault(leader, set()).add(partner)
    for leader, partners in seen.items():
        others = set(range(len(targets))) - {leader}
        similar = {i for i in others if shares[leader, i]}
        alone = not similar and hot[leader].any()
        allowed = (others | {leader}) if alone else others
        if len(targets) < 40:
            assert partners == allowed
        else:  # random tries hardly ever find the only dissimilar image of 301
            assert partners <= allowed
    if len(targets) > 40:
        dissimilar = sum(300 in partners for leader, partners in seen.items() if leader != 300)
        assert dissimilar > 200


def test_partners_are_found_without_looking_at_every_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = PairSampler(np.arange(3000) % 30, batch_size=8, seed=0)

    def fail(leader: int) -> None:
        raise AssertionError(f"looked through the whole set for {leader}")

    monkeypatch.setattr(sampler, "_all_dissimilar", fail)
    assert len(indices(sampler)) == 6000


def test_all_similar_images_pair_with_another() -> None:
    drawn = indices(PairSampler(np.zeros(4, int), batch_size=2, seed=0))
    assert all(leader != partner for leader, partner in zip(drawn[::2], drawn[1::2], strict=True))


def test_multi_label_batches_share_a_label() -> None:
    sampler = PKSampler(LABELS, batch_size=4, per_class=2, seed=0)
    drawn = indices(sampler)
    assert 4 not in drawn  # it has no label
    for start in range(0, len(drawn), 2):
        assert (LABELS[drawn[start]] & LABELS[drawn[start + 1]]).any()


def test_all_similar_images_still_pair() -> None:
    assert len(indices(PairSampler(np.zeros(4, int), batch_size=2, seed=0))) == 8


def test_fewer_classes_than_p_make_smaller_batches() -> None:
    sampler = PKSampler(np.array([0, 0, 1, 1]), batch_size=64, per_class=4, seed=0)
    assert sampler.batch_size == 8
    assert len(sampler) == 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: PKSampler(np.zeros(4, int), batch_size=4, per_class=2, seed=0),
        lambda: PairSampler(np.zeros(1, int), batch_size=2, seed=0),
        lambda: ShuffleSampler(0, batch_size=2, seed=0),
    ],
)
def test_too_little_to_train_on_is_an_error(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError):
        make()


def test_batches_that_do_not_divide_are_an_error() -> None:
    with pytest.raises(UsageError, match="multiple"):
        pk(batch_size=10)
    with pytest.raises(UsageError, match="single class"):
        pk(batch_size=3)  # nothing in such a batch is dissimilar
    with pytest.raises(UsageError, match="even"):
        PairSampler(TARGETS, batch_size=5, seed=0)
