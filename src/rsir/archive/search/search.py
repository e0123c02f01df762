"""One search of an archive: from queries to hits."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.search.calibration import Calibration
from rsir.archive.search.diverse import collapsed
from rsir.archive.search.hits import Hits
from rsir.archive.search.query_vectors import Query, named, vectors_of
from rsir.errors import ArchiveError, UsageError
from rsir.ranking import score
from rsir.store.base import Neighbour, Store
from rsir.store.filters.filter import Filter
from rsir.types import Hit

if TYPE_CHECKING:
    from rsir.archive.archive import Archive

_WIDER = 4
"""So many times as many hits are looked at first, where those that show the same are collapsed,
and again as many whenever too few are left. Our choice."""

_FARTHEST = 10_000
"""So far down (or to k, if that is farther) it is looked for hits that show something new. Our
choice: where thousands of tiles are the same, of open water or without data, this takes seconds."""


@dataclass(frozen=True, slots=True)
class Search:
    """How to search; see `rsir.archive.Archive.search`.

    Raises UsageError for k < 1 and a percentile out of range.
    """

    k: int
    filter: Filter | None
    ranking: str | None
    diverse: bool
    min_percentile: float | None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k must be at least 1, not {self.k}")
        if self.min_percentile is not None and not 0 <= self.min_percentile < 100:
            raise UsageError(f"min_percentile must be in [0, 100), not {self.min_percentile}")

    def run(self, archive: Archive, store: Store, queries: Sequence[Query]) -> list[Hits]:
        """The hits of each query, encoded and searched together; `seconds` is the mean."""
        if not queries:
            return []
        start = time.monotonic()
        vectors = vectors_of(archive, queries)
        # Once, so that all hits are told by the same, whenever they are looked at.
        calibration = functools.cache(lambda: archive.calibration(self.ranking))

        def hit(neighbour: Neighbour) -> Hit:
            return self._hit(archive, neighbour, calibration)

        found: list[Sequence[Neighbour]] = []
        with translate_store_errors(archive.path):
            every = self._nearest(store, queries, vectors, self.k)
            for query, vector, near in zip(queries, vectors, every, strict=True):
                near = self._remarkable(near, calibration)
                if self.diverse:
                    near = self._diverse(archive, store, query, vector, near, hit, calibration)
                found.append(near)
            searched = store.count(self.filter)
        seconds = (time.monotonic() - start) / len(queries)
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

    def _remarkable(
        self, near: list[Neighbour], calibration: Callable[[], Calibration]
    ) -> list[Neighbour]:
        if self.min_percentile is None:
            return near
        highest = calibration().highest
        if near and self.min_percentile > highest:
            raise UsageError(
                f"this archive is too small to tell a percentile of {self.min_percentile} from "
                f"chance; give at most {math.floor(highest * 1e4) / 1e4:g}"
            )
        distances = np.array([neighbour.distance for neighbour in near], np.float64)
        percentiles = calibration().percentile(distances)
        return [n for n, p in zip(near, percentiles, strict=True) if p >= self.min_percentile]

    def _diverse(
        self,
        archive: Archive,
        store: Store,
        query: Query,
        vector: NDArray[Any],
        near: list[Neighbour],
        hit: Callable[[Neighbour], Hit],
        calibration: Callable[[], Calibration],
    ) -> list[Neighbour]:
        """The first k of the hits that show something new, looking further down as needed.

        Fewer if there are not k of them among the first `_FARTHEST`.
        """
        looked_at, more = self.k, len(near) == self.k
        farthest = max(_FARTHEST, self.k)
        kept: list[Neighbour] = []
        seen: set[str] = set()
        while True:
            # What stays has been compared with all before it; only the rest is new.
            near = [*kept, *(n for n in near if n.record.id not in seen)]
            seen |= {n.record.id for n in near}
            near, vectors = _still_there(archive, near)
            places = collapsed(list(map(hit, near)), vectors, archive.metric, archive.dimension)
            kept = [near[place] for place in places]
            if len(kept) >= self.k or not more or looked_at >= farthest:
                return kept[: self.k]
            looked_at = min(looked_at * _WIDER, farthest)
            (near,) = self._nearest(store, [query], vector[None], looked_at)
            near = self._remarkable(near, calibration)
            more = len(near) == looked_at

    def _hit(
        self, archive: Archive, neighbour: Neighbour, calibration: Callable[[], Calibration]
    ) -> Hit:
        # Both are read when they are first needed, which may be long after the search.
        with translate_store_errors(archive.path):
            record, told_by = neighbour.record, calibration()
        distance = np.array([neighbour.distance])
        plain = self.ranking == "hamming"
        return Hit(
            id=record.id,
            score=score(
                "hamming" if plain else archive.metric,
                neighbour.distance,
                bits=archive.dimension,
            ),
            distance=neighbour.distance,
            source=record.source,
            footprint=record.footprint,
            datetime=record.datetime,
            properties=record.properties,
            percentile=float(told_by.percentile(distance)[0]),
        )


def _still_there(archive: Archive, near: list[Neighbour]) -> tuple[list[Neighbour], NDArray[Any]]:
    """The neighbours and their vectors, but for those that were deleted since they were found."""
    try:
        return near, archive.vectors([neighbour.record.id for neighbour in near])
    except ArchiveError:
        if len(near) == 1:
            return [], archive.vectors([])
    half = len(near) // 2
    first, second = (_still_there(archive, some) for some in (near[:half], near[half:]))
    return first[0] + second[0], np.concatenate([first[1], second[1]])
