"""One search of an archive: from queries to hits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.diverse import collapsed
from rsir.archive.failures import told
from rsir.archive.filters import Filter
from rsir.archive.hits import Hits
from rsir.archive.query import Query, named, vectors_of
from rsir.archive.store import Neighbour, Store
from rsir.errors import UsageError
from rsir.ranking import score
from rsir.types import Hit

if TYPE_CHECKING:
    from rsir.archive.archive import Archive

_WIDER = 4
"""So many times as many hits are looked at first, where those that show the same are collapsed,
and again as many whenever too few are left. Our choice."""


@dataclass(frozen=True, slots=True)
class Search:
    """How to search; see `rsir.archive.Archive.search`.

    Raises UsageError for k < 1 and a cut-off out of range.
    """

    k: int
    filter: Filter | None
    ranking: str | None
    diverse: bool
    at_least: float | None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k must be at least 1, not {self.k}")
        if self.at_least is not None and not 0 <= self.at_least < 1:
            raise UsageError(f"the cut-off must be in [0, 1), not {self.at_least}")

    def run(self, archive: Archive, store: Store, queries: Sequence[Query]) -> list[Hits]:
        """The hits of each query, encoded and searched together; `seconds` is the mean."""
        if not queries:
            return []
        start = time.monotonic()
        vectors = vectors_of(archive, queries)
        found: list[Sequence[Neighbour]] = []
        with told(archive.path):
            every = self._nearest(store, queries, vectors, self.k)
            for query, vector, near in zip(queries, vectors, every, strict=True):
                near = self._remarkable(archive, near)
                if self.diverse:
                    near = self._diverse(archive, store, query, vector, near)
                found.append(near)
            searched = store.count(self.filter)
        seconds = (time.monotonic() - start) / len(queries)

        def hit(neighbour: Neighbour) -> Hit:
            return self._hit(archive, neighbour)

        return [
            Hits(near, hit, query=query, seconds=seconds, searched=searched)
            for query, near in zip(queries, found, strict=True)
        ]

    def _nearest(
        self, store: Store, queries: Sequence[Query], vectors: NDArray[Any], k: int
    ) -> Iterator[list[Neighbour]]:
        """The k nearest of each query but for the tiles that it names."""
        own = [named(query) for query in queries]
        more = max(map(len, own))
        found = store.search(vectors, k + more, filter=self.filter, metric=self.ranking)
        for ids, near in zip(own, found, strict=True):
            yield [n for n in near if not ids or n.record.id not in ids][:k]

    def _remarkable(self, archive: Archive, near: list[Neighbour]) -> list[Neighbour]:
        if self.at_least is None:
            return near
        distances = np.array([neighbour.distance for neighbour in near], np.float64)
        scores = archive.calibration(self.ranking).score(distances)
        return [n for n, score in zip(near, scores, strict=True) if score >= self.at_least]

    def _diverse(
        self,
        archive: Archive,
        store: Store,
        query: Query,
        vector: NDArray[Any],
        near: list[Neighbour],
    ) -> list[Neighbour]:
        """The first k of the hits that show something new, looking further down as needed."""
        looked_at, more = self.k, len(near) == self.k
        while True:
            hits = [self._hit(archive, neighbour) for neighbour in near]
            vectors = archive.vectors([hit.id for hit in hits])
            kept = [near[i] for i in collapsed(hits, vectors, archive.metric, archive.dimension)]
            if len(kept) >= self.k or not more:
                return kept[: self.k]
            looked_at *= _WIDER
            (near,) = self._nearest(store, [query], vector[None], looked_at)
            near = self._remarkable(archive, near)
            more = len(near) == looked_at

    def _hit(self, archive: Archive, neighbour: Neighbour) -> Hit:
        record = neighbour.record
        distance = np.array([neighbour.distance])
        return Hit(
            id=record.id,
            score=score(archive.metric, neighbour.distance, bits=archive.dimension),
            distance=neighbour.distance,
            source=record.source,
            footprint=record.footprint,
            datetime=record.datetime,
            properties=record.properties,
            calibrated=float(archive.calibration(self.ranking).score(distance)[0]),
        )
