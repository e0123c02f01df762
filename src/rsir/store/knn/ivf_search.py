"""Approximate search in an index that is there: candidates by codes, then their own vectors.

What an index is, and what was measured, says `rsir.store.knn.ivf_build`, which builds it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from rsir.store.knn.flat import FlatFloats, Found
from rsir.store.knn.rotation import Space, signs

TWO_STAGE = "two-stage"
APPROXIMATE = "approximate"
RANKINGS = (TWO_STAGE, APPROXIMATE)

JUDGED_K = 100
"""So many of the nearest are what settings are measured by. Our choice."""

_BY_LISTS = 0.1
"""From this share of the vectors on, those that meet a filter are looked for in the lists; of a
smaller share all codes are compared, which is quicker then. Our choice."""

_MORE = 1.5
"""So many times the candidates that even chance would need are asked for under a filter. Our
choice."""


class IvfParameters(NamedTuple):
    """What was measured to be enough, for k up to 100.

    probes, candidates: lists looked at and vectors compared by "approximate"; shortlist: vectors
    compared by "two-stage"; and the recall of the 100 nearest that each of them had.
    """

    probes: int
    candidates: int
    approximate_recall: float
    shortlist: int
    two_stage_recall: float


@dataclass(frozen=True, eq=False)
class Index:
    """An index in memory and in mapped files; its rows are numbered by position.

    rows: the row addresses in the table, rising, (N,) uint64; vectors (N, D) float32 and codes
    (N, bytes) uint8 are mapped; lists: FAISS's index of the turned vectors.
    """

    rows: NDArray[np.uint64]
    vectors: NDArray[np.float32]
    codes: NDArray[np.uint8]
    lists: Any
    space: Space
    settings: IvfParameters

    def __len__(self) -> int:
        return len(self.rows)

    def candidates(
        self, ranking: str, turned: NDArray[np.float32], k: int, part: RowSubset
    ) -> list[NDArray[np.int64]]:
        """The positions of what to compare with each turned query, of those in `part`."""
        times = max(1.0, k / JUDGED_K)
        probes, candidates, shortlist = (
            math.ceil(n * times)
            for n in (self.settings.probes, self.settings.candidates, self.settings.shortlist)
        )
        if ranking == TWO_STAGE or part.share < _BY_LISTS:
            return self.by_signs(turned, shortlist, part)
        found = self.by_lists(turned, candidates, probes, part)
        wanted = k if part.positions is None else candidates
        for query, near in enumerate(found):
            if len(near) < min(wanted, len(self)):  # the lists that were looked at hold too few
                (found[query],) = self.by_signs(turned[query : query + 1], shortlist, part)
        return found

    def by_signs(
        self, turned: NDArray[np.float32], count: int, part: RowSubset
    ) -> list[NDArray[np.int64]]:
        """The positions of the `count` with the most equal signs."""
        asked, positions = signs(turned), part.positions
        if positions is None:
            return list(_nearest_codes(asked, self.codes, count))
        if count >= len(positions):
            return [positions] * len(turned)
        if part.share < _BY_LISTS:
            return [positions[n] for n in _nearest_codes(asked, part.codes, count)]
        more = math.ceil(_MORE * count / part.share)
        found = []
        for code, near in zip(asked, _nearest_codes(asked, self.codes, more), strict=True):
            near = near[part.kept[near]][:count]
            if len(near) < count:  # a filter that leaves out just what is near
                (least,) = _nearest_codes(code[None], self.codes[positions], count)
                near = positions[least]
            found.append(near)
        return found

    def by_lists(
        self, turned: NDArray[np.float32], count: int, probes: int, part: RowSubset
    ) -> list[NDArray[np.int64]]:
        """The positions of the `count` nearest by RaBitQ; fewer, if the lists hold fewer."""
        parameters: dict[str, Any] = {}
        if part.positions is not None:
            probes = math.ceil(probes / part.share)
            bitmap = faiss.swig_ptr(part.bitmap)
            parameters["sel"] = faiss.IDSelectorBitmap(len(self), bitmap)
        parameters["nprobe"] = min(probes, self.lists.nlist)
        count = min(count, len(self))
        far, near = np.empty((len(turned), count), np.float32), np.empty((len(turned), count), int)
        # Not `search`: faiss.contrib.torch_utils, which pytorch-metric-learning imports, puts one
        # in its place that takes no parameters.
        self.lists.search_c(
            len(turned),
            faiss.swig_ptr(np.ascontiguousarray(turned, np.float32)),
            count,
            faiss.swig_ptr(far),
            faiss.swig_ptr(near),
            faiss.IVFRaBitQSearchParameters(**parameters),
        )
        return [row[row >= 0] for row in near]


class RowSubset:
    """Some rows of an index: all, or those that meet a filter and are not gone.

    positions: rising; None: all of it.
    """

    def __init__(self, index: Index, positions: NDArray[np.int64] | None) -> None:
        self._index = index
        self.positions = positions

    def __len__(self) -> int:
        return len(self._index) if self.positions is None else len(self.positions)

    @property
    def share(self) -> float:
        """Of the rows of the index."""
        return len(self) / len(self._index)

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """A copy of the codes of these rows."""
        return self._index.codes[self.positions]

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """Which of the index these are, to a multiple of eight."""
        kept = np.zeros(-(-len(self._index) // 8) * 8, np.bool_)
        kept[self.positions] = True
        return kept

    @cached_property
    def bitmap(self) -> NDArray[np.uint8]:
        """The same as bits, the lowest first."""
        return np.packbits(self.kept, bitorder="little")


class Searched(NamedTuple):
    """The rows of a version that are searched: all, or those that meet a filter.

    part: those of the index. places, fresh: those that it does not have, and the exact search
    among them.
    """

    part: RowSubset
    places: NDArray[np.int64]
    fresh: FlatFloats


class IndexView:
    """An index as one version of the table sees it: without what is gone, with what is new.

    place_of: of each position of the index, -1 if it is gone. places, fresh: as of `Searched`.
    """

    def __init__(
        self,
        index: Index,
        metric: str,
        place_of: NDArray[np.int64],
        places: NDArray[np.int64],
        fresh: FlatFloats,
    ) -> None:
        self._index = index
        self._metric = metric
        self._place_of = place_of
        there = place_of >= 0
        part = RowSubset(index, None if there.all() else np.flatnonzero(there))
        self.whole = Searched(part, places, fresh)

    def among(self, chosen: NDArray[Any]) -> Searched:
        """The rows at the places `chosen`."""
        whole = self.whole
        # One more, which the -1 of what is gone names.
        meets = np.zeros(len(whole.part) + len(whole.places) + 1, np.bool_)
        meets[chosen] = True
        fresh = np.flatnonzero(meets[whole.places])
        return Searched(
            RowSubset(self._index, np.flatnonzero(meets[self._place_of])),
            whole.places[fresh],
            whole.fresh.subset(fresh),
        )

    def nearest(
        self, ranking: str, queries: NDArray[np.float32], k: int, searched: Searched
    ) -> list[Found]:
        """The places and distances of each query's k nearest among the candidates."""
        part, new_places, _ = searched
        fresh = searched.fresh.nearest(queries, k)
        if not len(part):
            return [(new_places[near], far) for near, far in fresh]
        index = self._index
        candidates = index.candidates(ranking, index.space(queries), k, part)
        found = []
        for query, positions, (new, new_far) in zip(queries, candidates, fresh, strict=True):
            places = self._place_of[positions]
            order = np.argsort(places)
            vectors = index.vectors[positions[order]]
            ((near, far),) = FlatFloats(vectors, self._metric).nearest(query[None], k)
            near = places[order][near]
            if len(new):
                near, far = np.concatenate([near, new_places[new]]), np.concatenate([far, new_far])
                first = np.lexsort((near, far))[:k]
                near, far = near[first], far[first]
            found.append((near, far))
        return found


def _nearest_codes(
    queries: NDArray[np.uint8], codes: NDArray[np.uint8], count: int
) -> NDArray[np.int64]:
    # "mc" counts distances instead of keeping heaps: quicker by half with thousands of candidates.
    near: NDArray[np.int64] = faiss.knn_hamming(
        queries, np.ascontiguousarray(codes), min(count, len(codes)), variant="mc"
    )[1]
    return near
