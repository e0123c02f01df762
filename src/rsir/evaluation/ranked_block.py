"""The rankings of a block of queries, as groups of equal distance."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from rsir.evaluation.distances import DISTANCES, differing_signs
from rsir.evaluation.labelled_embeddings import LabelledEmbeddings
from rsir.evaluation.metrics.curves import WithinRadius, within_radius
from rsir.evaluation.metrics.groups import Order, TieGroups, counted_groups, tie_groups
from rsir.evaluation.relevance import Relevance
from rsir.ranking import ADAPTIVE

HITS_AT = (1, 2, 4, 8, 16, 32)
"""k of R@k: the values of paper B, continued by 16 and 32."""
PRECISIONS_AT = (5, 10, 20, 50, 100)
"""k of P@k: the values of paper D, and 20."""
AP_AT = (5, 10, 20, 100)
"""k of AP@k, which several papers call mAP."""
GRADED_AT = (10, 100)
"""k of ACG@k and NDCG@k; our choice: a page of results, and the usual k of hashing papers."""
CODES = ("hamming", ADAPTIVE)
"""Rankings by hash codes."""


class RankedBlock:
    """The rankings of a block of queries."""

    def __init__(
        self,
        queries: LabelledEmbeddings,
        gallery: LabelledEmbeddings,
        relevance: Relevance,
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
