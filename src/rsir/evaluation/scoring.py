"""Encodings of a labelled set → every measure for every query, block by block.

Never Q × N at once: a block of queries is ranked, measured, and forgotten.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rsir.errors import DataError, UsageError
from rsir.evaluation.distances import DISTANCES, differing_signs
from rsir.evaluation.metrics.binary import (
    Denominator,
    average_precision,
    average_precision_at_k,
    hit_at_k,
    nmrr,
    precision_at_k,
)
from rsir.evaluation.metrics.curves import (
    RECALL_LEVELS,
    RankCurve,
    WithinRadius,
    interpolated_precision,
    within_radius,
)
from rsir.evaluation.metrics.graded import acg_at_k, ndcg_at_k, weighted_average_precision
from rsir.evaluation.metrics.groups import Order, TieGroups, check_order, counted_groups, tie_groups
from rsir.ranking import ADAPTIVE

HITS_AT = (1, 2, 4, 8, 16, 32)
"""k of R@k: paper B's, and two more of the same kind."""
PRECISIONS_AT = (5, 10, 20, 50, 100)
"""k of P@k: paper D's, and 20."""
AP_AT = (5, 10, 20, 100)
"""k of AP@k, which several papers call mAP."""
GRADED_AT = (10, 100)
"""k of ACG@k and NDCG@k; our choice: a page of results, and the usual depth of hashing papers."""
RADIUS = 2
"""Hamming radius of the measures within a ball: what hashing papers look up in a hash table."""
DENOMINATORS: tuple[Denominator, ...] = ("found", "min", "all")
BLOCK_BYTES = 20 * 2**20
"""Memory for what is made of one block of queries, of which each core has one; our choice. More if
the gallery is large: all blocks together may then take as much as its vectors."""

CODES = ("hamming", ADAPTIVE)
"""Rankings by hash codes."""
RANKINGS = (*DISTANCES, ADAPTIVE)
WIDE = ("euclidean", ADAPTIVE)
"""Rankings by distances in float64."""
WITHOUT_PROBABILITIES = "needs class probabilities, which the model does not give"

WORKERS = 16
"""Blocks that are ranked at once, at most; our choice, for the memory that they take."""


@dataclass(frozen=True, eq=False)
class LabelledEmbeddings:
    """What is ranked of N images: their encodings and what they show.

    embedding: (N, D) float32, relaxed codes for rankings by code. targets: (N,) int64 classes or
    (N, L) multi-hot labels. probabilities: (N, K) of the classes; "adaptive-hamming" needs them.
    """

    embedding: Tensor
    targets: Tensor
    probabilities: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[LabelledEmbeddings]) -> LabelledEmbeddings:
        """The images of several, at least one, by the same model."""
        probabilities = [p.probabilities for p in parts if p.probabilities is not None]
        return cls(
            torch.cat([part.embedding for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat(probabilities) if probabilities else None,
        )

    def __len__(self) -> int:
        return len(self.embedding)

    def __getitem__(self, rows: slice | Tensor) -> LabelledEmbeddings:
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return LabelledEmbeddings(self.embedding[rows], self.targets[rows], probabilities)

    def with_embedding(self, embedding: Tensor) -> LabelledEmbeddings:
        """The same images with other vectors."""
        return LabelledEmbeddings(embedding, self.targets, self.probabilities)

    def to(self, device: str) -> LabelledEmbeddings:
        """The same on another device."""
        probabilities = self.probabilities
        return LabelledEmbeddings(
            self.embedding.to(device),
            self.targets.to(device),
            None if probabilities is None else probabilities.to(device),
        )

    def check(self, ranking: str) -> None:
        """DataError for values that cannot be ranked; UsageError for probabilities missing."""
        if not all(math.isfinite(end) for end in self.embedding.aminmax()):
            raise DataError("the model gives values that are not finite; it cannot be ranked")
        if ranking == "cosine" and not bool(self.embedding.any(dim=1).all()):
            raise DataError("the model gives a vector of zeros, which cosine cannot rank")
        # Rounding of the mean can leave something of a constant vector when it is centred.
        if ranking == "ncc" and bool((self.embedding.amax(1) == self.embedding.amin(1)).any()):
            raise DataError("the model gives a constant vector, which ncc cannot rank")
        if ranking != ADAPTIVE:
            return
        if self.probabilities is None:
            raise UsageError(f"ranking {ranking!r} {WITHOUT_PROBABILITIES}")
        if not bool(((self.probabilities >= 0) & (self.probabilities <= 1)).all()):
            raise DataError("the model gives class probabilities that are not within [0, 1]")


@dataclass(frozen=True, eq=False)
class Scores:
    """What score_queries found.

    per_query: {measure: (Q,) float64}, with "relevant", R, the number of relevant items in the
    gallery (without the query). curves: {name: {axis or measure: values}}, means over the queries
    (see `Curves`). nearest (Q, k) int64: rows of the gallery, nearest first, of equal distance
    the lower row first; distances (Q, k). shares (Q, L): the share of each class, or label, among
    the first k, expected over the orders of equal distances; L = 0 if k is 0.
    """

    per_query: Mapping[str, NDArray[np.float64]]
    curves: Mapping[str, Mapping[str, list[float]]]
    nearest: NDArray[np.int64]
    distances: NDArray[np.float64]
    shares: NDArray[np.float64]


def score_queries(
    queries: LabelledEmbeddings,
    gallery: LabelledEmbeddings,
    *,
    ranking: str,
    own: Tensor | None = None,
    measures: Collection[str] | None = None,
    order: Order = "expected",
    curves: bool = False,
    nearest: int = 0,
    block: int | None = None,
) -> Scores:
    """Rank the gallery for every query, and measure.

    own: (Q,) int64, each query's own place in the gallery, which is left out of its ranking
    (leave-one-out); None if the gallery holds no query.
    measures: names to compute; every measure that applies if None. order: of items at equal
    distance: the expected value over all their orders, or the best or worst of them.
    curves: also the curves. nearest: how many of the nearest items to list.
    Distances are ranked `block` queries at a time.
    """
    if ranking not in RANKINGS:
        raise UsageError(f"ranking {ranking!r}: take one of {', '.join(RANKINGS)}")
    check_order(order)
    if not len(queries):
        raise DataError("there are no queries")
    if len(gallery) <= (own is not None):
        raise DataError("the gallery is empty")
    for described in (queries, gallery):
        described.check(ranking)
    if queries.embedding.device.type == "mps":
        # Apple's MPS has no float64, which the measures are summed in.
        queries, gallery, own = queries.to("cpu"), gallery.to("cpu"), _moved(own, "cpu")
    prepare = DISTANCES["hamming" if ranking in CODES else ranking].prepare
    vectors = prepare(queries.embedding, gallery.embedding)
    queries, gallery = (
        d.with_embedding(v) for d, v in zip((queries, gallery), vectors, strict=True)
    )
    relevance = _Relevance(queries, gallery, own)
    # ANMRR needs the largest R of all queries before the first is scored.
    largest = int(relevance.counts(block).max())
    memory = max(BLOCK_BYTES, gallery.embedding.nbytes // _workers(gallery.embedding.device))
    block = block or relevance.rows_at_once(memory, largest, ranking in WIDE)
    blocks = [slice(start, start + block) for start in range(0, len(queries), block)]
    count = len(gallery) - (own is not None)
    drawn = Curves(count, queries.embedding.device) if curves else None
    found: list[Tensor] = []
    names: list[str] = []
    listed: list[tuple[Tensor, Tensor, Tensor]] = []

    def scored(rows: slice) -> tuple[_Ranked | None, dict[str, Tensor]]:
        ranked = _Ranked(queries[rows], gallery, relevance, rows, ranking, order)
        every = dict(_measures(ranked, largest))
        chosen = every.keys() if measures is None else measures
        if unknown := sorted(set(chosen) - set(every)):
            raise UsageError(f"measures {unknown}: take some of {', '.join(every)}")
        values = {name: every[name]() for name in chosen}
        return ranked if curves or nearest else None, values

    ranked_blocks = _side_by_side(scored, blocks, queries.embedding.device)
    with closing(ranked_blocks):
        for ranked, values in ranked_blocks:
            # Copied by this thread: small tensors would leave gaps in the memory of the others.
            names = list(values)
            found.append(torch.stack(list(values.values())) if values else torch.empty(0, 0))
            if drawn is not None and ranked is not None:
                drawn.add(ranked)
            if nearest and ranked is not None:
                listed.append(ranked.nearest(min(nearest, count)))
    per_query = dict(zip(names, torch.cat(found, dim=1), strict=True))
    empty = torch.empty(len(queries), 0)
    rows_of, distances_of, shares = (
        tuple(torch.cat(parts) for parts in zip(*listed, strict=True))
        if listed
        else (empty.long(), empty, empty)
    )
    return Scores(
        {name: values.cpu().numpy() for name, values in per_query.items()},
        drawn.to_dict() if drawn is not None else {},
        rows_of.cpu().numpy(),
        distances_of.double().cpu().numpy(),
        shares.double().cpu().numpy(),
    )


T = TypeVar("T")


def _workers(device: torch.device) -> int:
    """How many blocks are worked on at once, at most."""
    return min(torch.get_num_threads(), WORKERS) if device.type == "cpu" else 1


def _side_by_side(
    work: Callable[[slice], T], blocks: Sequence[slice], device: torch.device
) -> Generator[T]:
    """What `work` makes of each block, in order; on a CPU a block a core at once.

    Meanwhile the libraries' numbers of threads are others, so close it when done.
    """
    workers, threads = min(_workers(device), len(blocks)), torch.get_num_threads()
    if workers == 1:
        yield from map(work, blocks)
        return
    from threadpoolctl import threadpool_limits

    try:
        with (
            # NumPy's products would wait for each other if they took several threads.
            threadpool_limits(1, user_api="blas"),
            ThreadPoolExecutor(
                workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
            ) as pool,
        ):
            waiting: deque[Future[T]] = deque()
            for rows in blocks:
                waiting.append(pool.submit(work, rows))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        # A thread's number of threads is its own, but new threads start with the last one set.
        torch.set_num_threads(threads)


def relevant_counts(
    queries: LabelledEmbeddings, gallery: LabelledEmbeddings, own: Tensor | None = None
) -> Tensor:
    """(Q,) int64: R, how many items of the gallery are relevant to each query, without itself."""
    return _Relevance(queries, gallery, own).counts()


class Curves:
    """The curves of an evaluation, taken in block by block.

    to_dict: "retrieved" {"k", "precision", "recall"}, means over the queries after the first k;
    "precision_recall" {"recall", "precision"}, the same at the same places, one against the other;
    "interpolated" {"recall", "precision"}, 11 points; "radius" {"radius", "precision", "recall",
    "map"} for codes: within each Hamming radius.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.by_rank = RankCurve(count, device)
        self.interpolated = torch.zeros(len(RECALL_LEVELS), dtype=torch.float64, device=device)
        self.radius: list[Tensor] = []

    def add(self, ranked: _Ranked) -> None:
        """Take in a block of queries."""
        self.by_rank.add(ranked.groups)
        self.interpolated += interpolated_precision(ranked.groups).sum(dim=0)
        if ranked.within is not None:
            within = ranked.within
            means = [v.sum(dim=0) for v in (within.precision, within.recall, within.ap)]
            self.radius.append(torch.stack(means))

    def to_dict(self) -> dict[str, dict[str, list[float]]]:
        """The curves as plain lists."""
        precision, recall = self.by_rank.precision(), self.by_rank.recall()
        places = _places(len(precision))
        at = torch.tensor(places, device=precision.device) - 1
        p, r = precision[at].tolist(), recall[at].tolist()
        queries = self.by_rank.queries
        found = {
            "retrieved": {"k": [float(k) for k in places], "precision": p, "recall": r},
            "precision_recall": {"recall": r, "precision": p},
            "interpolated": {
                "recall": list(RECALL_LEVELS),
                "precision": (self.interpolated / queries).tolist(),
            },
        }
        if self.radius:
            within = torch.stack(self.radius).sum(dim=0) / queries
            radii = [float(r) for r in range(within.shape[1])]
            names = ("precision", "recall", "map")
            found["radius"] = {"radius": radii, **dict(zip(names, within.tolist(), strict=True))}
        return found


def _places(count: int) -> list[int]:
    """The ranks that a curve shows of `count`: the first hundred, then 1 % apart."""
    places = list(range(1, min(count, 100) + 1))
    while places[-1] < count:
        places.append(min(count, int(places[-1] * 1.01) + 1))
    return places


def _moved(tensor: Tensor | None, device: str) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """bool, of the shape that they have together; on a CPU NumPy compares much faster."""
    if one.device.type != "cpu":
        return one == other
    return torch.from_numpy(one.numpy() == other.numpy())


class _Relevance:
    """What of the gallery is relevant to a block of queries, and how much."""

    def __init__(
        self, queries: LabelledEmbeddings, gallery: LabelledEmbeddings, own: Tensor | None
    ) -> None:
        self.queries, self.gallery, self.own = queries.targets, gallery.targets, own
        self.multi_label = self.queries.ndim == 2
        self.most = 1
        if self.multi_label:
            self.queries, self.gallery = ((t > 0).float() for t in (self.queries, self.gallery))
            self.most = max(1, int(self.queries.sum(dim=1).max()))
        else:
            self.queries, self.gallery = self.queries.int(), self.gallery.int()

    def gains(self, rows: slice) -> Tensor:
        """(Q, N) labels in common, int32, 0 for the query itself; of classes bool, where equal."""
        if self.multi_label:
            gains = (self.queries[rows] @ self.gallery.T).to(torch.int32)
        else:
            gains = _equal(self.queries[rows, None], self.gallery)
        return gains if self.own is None else gains.scatter_(1, self.own[rows, None], 0)

    @functools.cached_property
    def held(self) -> Tensor:
        """(N, L) float32, 1 where an image of the gallery has the class or the label."""
        if self.multi_label:
            return self.gallery
        classes = int(max(self.queries.max(), self.gallery.max())) + 1
        return functional.one_hot(self.gallery.long(), classes).float()

    def rows_at_once(self, memory: int, largest: int = 0, wide: bool = True) -> int:
        """How many queries a block takes, so that what is made of them takes `memory` bytes.

        Of each image a distance, which becomes a key, and a gain: 8 bytes, or 24 of `wide` ones or
        several labels. Of each group float64 numbers: at most as many groups as the `largest` R,
        with a number for each gain among their numbers.
        """
        pair = 24 if wide or self.multi_label else 8
        each = pair * len(self.gallery) + 16 * largest * (8 + self.most)
        return max(1, memory // each)

    def counts(self, rows: int | None = None) -> Tensor:
        """(Q,) int64 how many are relevant; counted for so many queries at a time."""
        rows = rows or self.rows_at_once(BLOCK_BYTES)
        blocks = range(0, len(self.queries), rows)
        return torch.cat([self.totals(slice(start, start + rows)) for start in blocks])

    def totals(self, rows: slice) -> Tensor:
        """(Q,) how many are relevant to a block of queries."""
        if self.multi_label:
            return (self.gains(rows) > 0).sum(dim=1)
        classes = self.queries[rows]
        largest = int(max(classes.max(), self.gallery.max())) + 1
        counts = torch.bincount(self.gallery, minlength=largest)[classes]
        return counts if self.own is None else counts - 1


class _Ranked:
    """The rankings of a block of queries."""

    def __init__(
        self,
        queries: LabelledEmbeddings,
        gallery: LabelledEmbeddings,
        relevance: _Relevance,
        rows: slice,
        ranking: str,
        order: Order,
    ) -> None:
        self.own = None if relevance.own is None else relevance.own[rows, None]
        self.multi_label = relevance.multi_label
        self.relevance = relevance
        self.distances_of = functools.partial(_distances, queries, gallery, ranking, self.own)
        gains, most = relevance.gains(rows), relevance.most
        self.by_radius: TieGroups | None = None
        # Columns that `counted_groups` makes for each radius.
        self.columns = 1 if order == "expected" else most + 1
        if ranking in CODES:
            self.by_radius = _radius_groups(queries, gallery, self.own, gains, most, order)
        if ranking == "hamming" and self.by_radius is not None:
            self.groups = self.by_radius
        else:
            self.groups = tie_groups(
                gains, self.distances_of(), most=most, order=order, overwrite=True
            )
        # Measures at k need no more, and the rest is most of it.
        self.head = self.groups.head(max(*HITS_AT, *PRECISIONS_AT, *AP_AT, *GRADED_AT))

    @functools.cached_property
    def within(self) -> WithinRadius | None:
        """Of codes: what is found within each Hamming radius."""
        if self.by_radius is None:
            return None
        found = within_radius(self.by_radius)
        last = slice(self.columns - 1, None, self.columns)
        return WithinRadius(found.precision[:, last], found.recall[:, last], found.ap[:, last])

    def nearest(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The first k: rows of the gallery, distances, and the share of each class (Q, L)."""
        distances = self.distances_of()
        ordered, order = distances.sort(dim=1, stable=True)
        last = ordered[:, k - 1 : k]
        before, at = distances < last, distances == last
        # Those at the last distance share the places that the nearer ones leave.
        part = (k - before.sum(dim=1, keepdim=True)) / at.sum(dim=1, keepdim=True)
        weights = torch.where(before, 1.0, torch.where(at, part.float(), 0.0))
        return order[:, :k], ordered[:, :k], weights @ self.relevance.held / k


def _distances(
    queries: LabelledEmbeddings, gallery: LabelledEmbeddings, ranking: str, own: Tensor | None
) -> Tensor:
    """(Q, N), infinite for the query itself."""
    if ranking == ADAPTIVE:
        distances = _adaptive(queries, gallery)
    else:
        distances = DISTANCES[ranking].between(queries.embedding, gallery.embedding)
    return distances if own is None else distances.scatter_(1, own, torch.inf)


def _radius_groups(
    queries: LabelledEmbeddings,
    gallery: LabelledEmbeddings,
    own: Tensor | None,
    gains: Tensor,
    most: int,
    order: Order,
) -> TieGroups:
    """The rankings by Hamming distance, a column for each distance 0 … bits."""
    bits = queries.embedding.shape[1]
    distances = differing_signs(queries.embedding, gallery.embedding)
    if own is None:
        return counted_groups(gains, distances, bits + 1, most=most, order=order)
    # A query itself is put beyond all, and left out with that group.
    distances.scatter_(1, own, bits + 1)
    groups = counted_groups(gains, distances, bits + 2, most=most, order=order)
    columns = groups.sizes.shape[1] // (bits + 2) * (bits + 1)
    return TieGroups.of(groups.sizes[:, :columns], groups.levels[:, :columns])


def _adaptive(queries: LabelledEmbeddings, gallery: LabelledEmbeddings) -> Tensor:
    """(Q, N) float64: D_a = e^(1 - p) · D_h, as `rsir.ranking.adapted`."""
    assert queries.probabilities is not None
    assert gallery.probabilities is not None
    likeliest = queries.probabilities.argmax(dim=1)
    factors = (1.0 - gallery.probabilities.double()).exp().T
    return factors[likeliest] * differing_signs(queries.embedding, gallery.embedding)


def _measures(ranked: _Ranked, largest: int) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """(name, what computes it for every query); `largest` is the largest R of all."""
    of = functools.partial
    groups, head = ranked.groups, ranked.head
    yield "map", of(average_precision, groups)
    yield "anmrr", of(nmrr, groups, largest)
    yield "anmrr_k_plus_1", of(nmrr, groups, largest, "K+1")
    for k in HITS_AT:
        yield f"r_at_{k}", of(hit_at_k, head, k)
    for k in PRECISIONS_AT:
        yield f"p_at_{k}", of(precision_at_k, head, k)
    for denominator in DENOMINATORS:
        for k in AP_AT:
            yield f"map_at_{k}_{denominator}", of(average_precision_at_k, head, k, denominator)
    yield "map_11_point", lambda: interpolated_precision(groups).mean(dim=1)
    if ranked.multi_label:
        yield "wmap", of(weighted_average_precision, groups)
        for k in GRADED_AT:
            yield f"acg_at_{k}", of(acg_at_k, head, k)
            yield f"ndcg_at_{k}", of(ndcg_at_k, head, k, "gallery")
            yield f"ndcg_at_{k}_list", of(ndcg_at_k, head, k, "list")
    if ranked.by_radius is not None:
        for name, part in (("precision", "precision"), ("recall", "recall"), ("map", "ap")):
            yield f"{name}_within_{RADIUS}", of(_within, ranked, part)
    yield "relevant", lambda: groups.total


def _within(ranked: _Ranked, part: str) -> Tensor:
    """One of the measures within RADIUS; of shorter codes within all."""
    columns: Tensor = getattr(ranked.within, part)
    return columns[:, min(RADIUS, columns.shape[1] - 1)]
