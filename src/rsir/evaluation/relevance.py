"""Which items of a gallery are relevant to which queries, and how much."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

from rsir.evaluation.labelled_embeddings import LabelledEmbeddings

BLOCK_BYTES = 20 * 2**20
"""Memory for one block of queries, one block per core; our choice. A large gallery gets more: all
blocks together may take as much memory as the gallery's vectors."""


def relevant_counts(
    queries: LabelledEmbeddings, gallery: LabelledEmbeddings, own: Tensor | None = None
) -> Tensor:
    """(Q,) int64: R, the number of gallery items relevant to each query, without itself."""
    return Relevance(queries, gallery, own).counts()


class Relevance:
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


def _equal(first: Tensor, second: Tensor) -> Tensor:
    """`first == second`, broadcast; on a CPU NumPy compares the same memory much faster."""
    if first.device.type != "cpu":
        return first == second
    return torch.from_numpy(first.numpy() == second.numpy())
