"""Compute every measure for every query of a labelled set, block by block.

A (Q, N) matrix never exists: each block of queries is ranked, measured and discarded.
"""

from __future__ import annotations

import functools
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

from rsir.errors import DataError, UsageError
from rsir.evaluation.distances import DISTANCES
from rsir.evaluation.labelled_embeddings import LabelledEmbeddings
from rsir.evaluation.mean_curves import MeanCurves
from rsir.evaluation.metrics.binary import (
    Denominator,
    average_precision,
    average_precision_at_k,
    hit_at_k,
    nmrr,
    precision_at_k,
)
from rsir.evaluation.metrics.curves import (
    interpolated_precision,
)
from rsir.evaluation.metrics.graded import acg_at_k, ndcg_at_k, weighted_average_precision
from rsir.evaluation.metrics.groups import Order, check_order
from rsir.evaluation.ranked_block import (
    AP_AT,
    CODES,
    GRADED_AT,
    HITS_AT,
    PRECISIONS_AT,
    RankedBlock,
)
from rsir.evaluation.relevance import BLOCK_BYTES, Relevance
from rsir.ranking import ADAPTIVE

RADIUS = 2
"""Hamming radius of the measures within a ball: the radius of hash look-up in hashing papers."""
DENOMINATORS: tuple[Denominator, ...] = ("found", "min", "all")

RANKINGS = (*DISTANCES, ADAPTIVE)
WIDE = ("euclidean", ADAPTIVE)
"""Rankings whose distances are float64."""

WORKERS = 16
"""Largest number of blocks ranked at the same time; our choice, to limit memory."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The result of `score_queries`.

    per_query: {measure: (Q,) float64}, including "relevant": R, the number of relevant items in
    the gallery without the query. curves: {name: {axis or measure: values}}, means over the
    queries (see `MeanCurves`). nearest (Q, k) int64: rows of the gallery, nearest first, at equal
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
    relevance = Relevance(queries, gallery, own)
    # ANMRR needs the largest R of all queries before the first query is scored.
    largest = int(relevance.counts(block).max())
    memory = max(BLOCK_BYTES, gallery.embedding.nbytes // _workers(gallery.embedding.device))
    block = block or relevance.rows_at_once(memory, largest, ranking in WIDE)
    blocks = [slice(start, start + block) for start in range(0, len(queries), block)]
    count = len(gallery) - (own is not None)
    mean_curves = MeanCurves(count, queries.embedding.device) if curves else None
    values_of_blocks: list[Tensor] = []
    names: list[str] = []
    listed: list[tuple[Tensor, Tensor, Tensor]] = []

    def scored(rows: slice) -> tuple[RankedBlock | None, dict[str, Tensor]]:
        ranked = RankedBlock(queries[rows], gallery, relevance, rows, ranking, order)
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


def _moved(tensor: Tensor | None, device: str) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _measures(ranked: RankedBlock, largest: int) -> Iterator[tuple[str, Callable[[], Tensor]]]:
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


def _within(ranked: RankedBlock, part: str) -> Tensor:
    """A measure within RADIUS; for shorter codes within the largest radius."""
    columns: Tensor = getattr(ranked.within, part)
    return columns[:, min(RADIUS, columns.shape[1] - 1)]
