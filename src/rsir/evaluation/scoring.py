"""Compute every measure for every query of a labelled set, block by block.

A (Q, N) matrix never exists: each block of queries is ranked, measured and discarded.
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
"""k of R@k: the values of paper B, continued by 16 and 32."""
PRECISIONS_AT = (5, 10, 20, 50, 100)
"""k of P@k: the values of paper D, and 20."""
AP_AT = (5, 10, 20, 100)
"""k of AP@k, which several papers call mAP."""
GRADED_AT = (10, 100)
"""k of ACG@k and NDCG@k; our choice: a page of results, and the usual k of hashing papers."""
RADIUS = 2
"""Hamming radius of the measures within a ball: the radius of hash look-up in hashing papers."""
DENOMINATORS: tuple[Denominator, ...] = ("found", "min", "all")
BLOCK_BYTES = 20 * 2**20
"""Memory for one block of queries, one block per core; our choice. A large gallery gets more: all
blocks together may take as much memory as the gallery's vectors."""

CODES = ("hamming", ADAPTIVE)
"""Rankings by hash codes."""
RANKINGS = (*DISTANCES, ADAPTIVE)
WIDE = ("euclidean", ADAPTIVE)
"""Rankings whose distances are float64."""
WITHOUT_PROBABILITIES = "needs class probabilities, which the model does not give"

WORKERS = 16
"""Largest number of blocks ranked at the same time; our choice, to limit memory."""


@dataclass(frozen=True, eq=False)
class LabelledEmbeddings:
    """Embeddings and labels of N images.

    embedding: (N, D) float32; relaxed codes for rankings by hash codes. targets: (N,) int64
    classes or (N, L) multi-hot labels. probabilities: (N, K) class probabilities, which
    "adaptive-hamming" needs, or None.
    """

    embedding: Tensor
    targets: Tensor
    probabilities: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[LabelledEmbeddings]) -> LabelledEmbeddings:
        """The images of all parts (at least one) of the same model."""
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
        """The same tensors on another device."""
        probabilities = self.probabilities
        return LabelledEmbeddings(
            self.embedding.to(device),
            self.targets.to(device),
            None if probabilities is None else probabilities.to(device),
        )

    def check(self, ranking: str) -> None:
        """Raise DataError for values that cannot be ranked, UsageError without probabilities."""
        if not all(math.isfinite(end) for end in self.embedding.aminmax()):
            raise DataError("the model gives values that are not finite; it cannot be ranked")
        if ranking == "cosine" and not bool(self.embedding.any(dim=1).all()):
            raise DataError("the model gives a vector of zeros, which cosine cannot rank")
        # Not after centring: rounding of the mean can make a constant vector non-zero.
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
    """The result of `score_queries`.

    per_query: {measure: (Q,) float64}, including "relevant": R, the number of relevant items in
    the gallery without the query. curves: {name: {axis or measure: values}}, means over the
    queries (see `Curves`). nearest (Q, k) int64: rows of the gallery, nearest first, at equal
    distance the lower row first; distances (Q, k). shares (Q, L): share of each class or label
    among the first k, expected over the orders of equal distances; L = 0 if k is 0.
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
    """Rank the gallery for every query and compute the measures.

    own: (Q,) int64, each query's own row in the gallery, which is left out of its ranking
    (leave-one-out); None if the gallery holds no query.
    measures: names to compute; None: every measure that applies. order: of items at equal
    distance: the expected value over all orders, or the value of the best or the worst order.
    curves: whether to compute the curves. nearest: number of nearest items to list.
    block: queries per block; None: chosen to fit into memory.
    """
    if ranking not in RANKINGS:
        raise UsageError(f"ranking {ranking!r}: take one of {', '.join(RANKINGS)}")
    check_order(order)
    if not len(queries):
        raise DataError("there are no queries")
    if len(gallery) <= (own is not None):
        raise DataError("the gallery is empty")
    for images in (queries, gallery):
        images.check(ranking)
    if queries.embedding.device.type == "mps":
        # Apple's MPS has no float64, which the measures are computed in.
        queries, gallery, own = queries.to("cpu"), gallery.to("cpu"), _moved(own, "cpu")
    prepare = DISTANCES["hamming" if ranking in CODES else ranking].prepare
    vectors = prepare(queries.embedding, gallery.embedding)
    queries, gallery = (
        images.with_embedding(v) for images, v in zip((queries, gallery), vectors, strict=True)
    )
    relevance = _Relevance(queries, gallery, own)
    # ANMRR needs the largest R of all queries before the first query is scored.
    largest = int(relevance.counts(block).max())
    memory = max(BLOCK_BYTES, gallery.embedding.nbytes // _workers(gallery.embedding.device))
    block = block or relevance.rows_at_once(memory, largest, ranking in WIDE)
    blocks = [slice(start, start + block) for start in range(0, len(queries), block)]
    count = len(gallery) - (own is not None)
    mean_curves = Curves(count, queries.embedding.device) if curves else None
    values_of_blocks: list[Tensor] = []
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
            # This thread copies the small tensors, which would fragment the memory of the others.
            names = list(values)
            values_of_blocks.append(
                torch.stack(list(values.values())) if values else torch.empty(0, 0)
            )
            if mean_curves is not None and ranked is not None:
                mean_curves.add(ranked)
            if nearest and ranked is not None:
                listed.append(ranked.nearest(min(nearest, count)))
    per_query = dict(zip(names, torch.cat(values_of_blocks, dim=1), strict=True))
    empty = torch.empty(len(queries), 0)
    rows_of, distances_of, shares = (
        tuple(torch.cat(parts) for parts in zip(*listed, strict=True))
        if listed
        else (empty.long(), empty, empty)
    )
    return Scores(
        {name: values.cpu().numpy() for name, values in per_query.items()},
        mean_curves.to_dict() if mean_curves is not None else {},
        rows_of.cpu().numpy(),
        distances_of.double().cpu().numpy(),
        shares.double().cpu().numpy(),
    )


T = TypeVar("T")


def _workers(device: torch.device) -> int:
    """Largest number of blocks to compute at the same time."""
    return min(torch.get_num_threads(), WORKERS) if device.type == "cpu" else 1


def _side_by_side(
    work: Callable[[slice], T], blocks: Sequence[slice], device: torch.device
) -> Generator[T]:
    """The result of `work` for each block, in order; on a CPU one block per core in parallel.

    The libraries' numbers of threads are changed until the generator ends, so close it.
    """
    workers, threads = min(_workers(device), len(blocks)), torch.get_num_threads()
    if workers == 1:
        yield from map(work, blocks)
        return
    from threadpoolctl import threadpool_limits

    try:
        with (
            # NumPy's products would wait for each other if they used several threads.
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
        # The setting is per thread, but new threads inherit the last value that was set.
        torch.set_num_threads(threads)


def relevant_counts(
    queries: LabelledEmbeddings, gallery: LabelledEmbeddings, own: Tensor | None = None
) -> Tensor:
    """(Q,) int64: R, the number of gallery items relevant to each query, without itself."""
    return _Relevance(queries, gallery, own).counts()


class Curves:
    """The curves of an evaluation, accumulated block by block.

    `to_dict` gives "retrieved" {"k", "precision", "recall"}: means over the queries among the first
    k; "precision_recall" {"recall", "precision"}: the same values, one against the other;
    "interpolated" {"recall", "precision"}: 11 points; for hash codes "radius" {"radius",
    "precision", "recall", "map"}: within each Hamming radius.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.by_rank = RankCurve(count, device)
        self.interpolated = torch.zeros(len(RECALL_LEVELS), dtype=torch.float64, device=device)
        self.radius: list[Tensor] = []

    def add(self, ranked: _Ranked) -> None:
        """Add a block of queries."""
        self.by_rank.add(ranked.groups)
        self.interpolated += interpolated_precision(ranked.groups).sum(dim=0)
        if ranked.within is not None:
            within = ranked.within
            means = [v.sum(dim=0) for v in (within.precision, within.recall, within.ap)]
            self.radius.append(torch.stack(means))

    def to_dict(self) -> dict[str, dict[str, list[float]]]:
        """The curves as plain lists."""
        precision, recall = self.by_rank.precision(), self.by_rank.recall()
        ranks = _shown_ranks(len(precision))
        at = torch.tensor(ranks, device=precision.device) - 1
        p, r = precision[at].tolist(), recall[at].tolist()
        queries = self.by_rank.queries
        found = {
            "retrieved": {"k": [float(k) for k in ranks], "precision": p, "recall": r},
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


def _shown_ranks(count: int) -> list[int]:
    """The ranks of 1 … count that a curve shows: the first hundred, then 1 % apart."""
    ranks = list(range(1, min(count, 100) + 1))
    while ranks[-1] < count:
        ranks.append(min(count, int(ranks[-1] * 1.01) + 1))
    return ranks


def _moved(tensor: Tensor | None, device: str) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _equal(first: Tensor, second: Tensor) -> Tensor:
    """`first == second`, broadcast; on a CPU NumPy compares the same memory much faster."""
    if first.device.type != "cpu":
        return first == second
    return torch.from_numpy(first.numpy() == second.numpy())


class _Relevance:
    """The relevance of the gallery's items to the queries."""

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
        """(Q, N) labels in common, int32, or equal class, bool; 0 for the query itself."""
        if self.multi_label:
            gains = (self.queries[rows] @ self.gallery.T).to(torch.int32)
        else:
            gains = _equal(self.queries[rows, None], self.gallery)
        return gains if self.own is None else gains.scatter_(1, self.own[rows, None], 0)

    @functools.cached_property
    def memberships(self) -> Tensor:
        """(N, L) float32: 1 where a gallery image has the class or label."""
        if self.multi_label:
            return self.gallery
        classes = int(max(self.queries.max(), self.gallery.max())) + 1
        return functional.one_hot(self.gallery.long(), classes).float()

    def rows_at_once(self, memory: int, largest: int = 0, wide: bool = True) -> int:
        """Number of queries per block, so that a block takes `memory` bytes.

        Each (query, item) pair takes a distance, which becomes a key, and a gain: 8 bytes, or 24
        if distances are `wide` (float64) or there are several labels. Each group takes several
        float64 numbers, and one for each possible gain; a query has at most `largest` R groups.
        """
        pair = 24 if wide or self.multi_label else 8
        each = pair * len(self.gallery) + 16 * largest * (8 + self.most)
        return max(1, memory // each)

    def counts(self, rows: int | None = None) -> Tensor:
        """(Q,) int64: R of each query, counted for `rows` queries at a time."""
        rows = rows or self.rows_at_once(BLOCK_BYTES)
        blocks = range(0, len(self.queries), rows)
        return torch.cat([self.totals(slice(start, start + rows)) for start in blocks])

    def totals(self, rows: slice) -> Tensor:
        """(Q,): R of each query of a block."""
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
        # Columns of `counted_groups` per radius.
        self.columns = 1 if order == "expected" else most + 1
        if ranking in CODES:
            self.by_radius = _radius_groups(queries, gallery, self.own, gains, most, order)
        if ranking == "hamming" and self.by_radius is not None:
            self.groups = self.by_radius
        else:
            self.groups = tie_groups(
                gains, self.distances_of(), most=most, order=order, overwrite=True
            )
        # Measures at k need only the first groups, a small part of all.
        self.head = self.groups.head(max(*HITS_AT, *PRECISIONS_AT, *AP_AT, *GRADED_AT))

    @functools.cached_property
    def within(self) -> WithinRadius | None:
        """The measures within each Hamming radius; None unless ranked by hash codes."""
        if self.by_radius is None:
            return None
        found = within_radius(self.by_radius)
        last = slice(self.columns - 1, None, self.columns)
        return WithinRadius(found.precision[:, last], found.recall[:, last], found.ap[:, last])

    def nearest(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The first k items: gallery rows (Q, k), distances (Q, k), share of each class (Q, L)."""
        distances = self.distances_of()
        ordered, order = distances.sort(dim=1, stable=True)
        last = ordered[:, k - 1 : k]
        before, at = distances < last, distances == last
        # Items at the last distance share the ranks that the nearer items leave.
        part = (k - before.sum(dim=1, keepdim=True)) / at.sum(dim=1, keepdim=True)
        weights = torch.where(before, 1.0, torch.where(at, part.float(), 0.0))
        return order[:, :k], ordered[:, :k], weights @ self.relevance.memberships / k


def _distances(
    queries: LabelledEmbeddings, gallery: LabelledEmbeddings, ranking: str, own: Tensor | None
) -> Tensor:
    """(Q, N) distances, infinite for the query itself."""
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
    """The groups of the rankings by Hamming distance, one column per distance 0 … bits."""
    bits = queries.embedding.shape[1]
    distances = differing_signs(queries.embedding, gallery.embedding)
    if own is None:
        return counted_groups(gains, distances, bits + 1, most=most, order=order)
    # The query itself gets a distance beyond all others; its group is cut off.
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
    """(name, function that computes the measure of every query); largest: R's maximum."""
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
    """A measure within RADIUS; for shorter codes within the largest radius."""
    columns: Tensor = getattr(ranked.within, part)
    return columns[:, min(RADIUS, columns.shape[1] - 1)]
