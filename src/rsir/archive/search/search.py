"""Search a gallery: encode queries, find the nearest records, and return hits."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.search.calibration import Calibration
from rsir.archive.search.diverse import collapsed
from rsir.archive.search.gallery import Gallery
from rsir.archive.search.hits import Hits
from rsir.archive.search.query import Query, QueryLike, as_query
from rsir.archive.search.query_vectors import vectors_of
from rsir.errors import UsageError
from rsir.ranking import score
from rsir.store.base import Found, Neighbour, recall_of
from rsir.store.existing import get_existing
from rsir.store.filters.filter import Filter
from rsir.types import Hit

_WIDER = 4
"""A diverse search fetches this many times more hits if too few of them stay. Our choice."""

_FARTHEST = 10_000
"""A diverse search examines at most this many hits, or k if that is more. Our choice: if thousands
of tiles are nearly the same, of open water or without data, this takes seconds."""


@dataclass(frozen=True)
class GallerySearch:
    """The parameters of a search; see `rsir.archive.Archive.search`.

    Raises UsageError for k < 1 and a percentile out of range.
    """

    gallery: Gallery
    k: int
    filter: Filter | None = None
    ranking: str | None = None
    diverse: bool = False
    min_percentile: float | None = None
    _calibration: Callable[[], Calibration] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k must be at least 1, not {self.k}")
        if self.min_percentile is not None and not 0 <= self.min_percentile < 100:
            raise UsageError(f"min_percentile must be in [0, 100), not {self.min_percentile}")
        # All hits of this search share one calibration, computed when a hit is first read. With
        # cached_property, on Python 3.11 all searches would wait for the same lock.
        calibration = functools.cache(lambda: self.gallery.calibration(self.ranking))
        object.__setattr__(self, "_calibration", calibration)

    def run(self, given: Sequence[QueryLike]) -> list[Hits]:
        """The hits of each query, encoded and searched together; times are means."""
        if not given:
            return []
        start = time.monotonic()
        queries = list(map(as_query, given))
        vectors = vectors_of(self.gallery, queries)
        encoding = (time.monotonic() - start) / len(queries)
        found: list[list[Neighbour]] = []
        with translate_store_errors(self.gallery.path):
            nearest = self._nearest(queries, vectors, self.k)
            searched = nearest.searched
            for query, vector, near in zip(queries, vectors, nearest, strict=True):
                near = self._above_percentile(near)
                found.append(self._diverse(query, vector, near) if self.diverse else near)
        seconds = (time.monotonic() - start) / len(queries)
        return [
            Hits(
                near,
                self._hit,
                query=query,
                seconds=seconds,
                searched=searched,
                encoding_seconds=encoding,
            )
            for query, near in zip(given, found, strict=True)
        ]

    def _nearest(self, queries: Sequence[Query], vectors: NDArray[Any], k: int) -> Found:
        """The k nearest records of each query, without the tiles that the query names."""
        store, excluded = self.gallery.store, [query.ids for query in queries]
        more = max(map(len, excluded))
        found = store.search(vectors, k + more, filter=self.filter, metric=self.ranking)
        others = (
            [n for n in near if not ids or n.record.id not in ids][:k]
            for ids, near in zip(excluded, found, strict=True)
        )
        return Found(others, found.searched)

    def _above_percentile(self, near: list[Neighbour]) -> list[Neighbour]:
        if self.min_percentile is None:
            return near
        highest = self._calibration().highest
        if near and self.min_percentile > highest:
            raise UsageError(
                f"this archive is too small for a percentile of {self.min_percentile}; give at "
                f"most {math.floor(highest * 1e4) / 1e4:g}"
            )
        distances = np.array([neighbour.distance for neighbour in near], np.float64)
        percentiles = self._calibration().percentile(distances)
        return [n for n, p in zip(near, percentiles, strict=True) if p >= self.min_percentile]

    def _diverse(
        self, query: Query, vector: NDArray[Any], near: list[Neighbour]
    ) -> list[Neighbour]:
        """The first k hits that no better hit repeats, among the first `_FARTHEST` at most."""
        gallery, farthest = self.gallery, max(_FARTHEST, self.k)
        examined, more = self.k, len(near) == self.k
        chosen: list[Neighbour] = []
        seen: set[str] = set()
        while True:
            # The chosen hits have been compared with all before them; only the rest are new.
            near = [*chosen, *(n for n in near if n.record.id not in seen)]
            seen |= {n.record.id for n in near}
            near, vectors = _existing(gallery, near)
            rows = collapsed(list(map(self._hit, near)), vectors, gallery.metric, gallery.dimension)
            chosen = [near[row] for row in rows]
            if len(chosen) >= self.k or not more or examined >= farthest:
                return chosen[: self.k]
            examined = min(examined * _WIDER, farthest)
            (near,) = self._nearest([query], vector[None], examined)
            near = self._above_percentile(near)
            more = len(near) == examined

    def _hit(self, neighbour: Neighbour) -> Hit:
        # Reads the record and the calibration, perhaps long after the search.
        with translate_store_errors(self.gallery.path):
            record = neighbour.record
            percentiles = self._calibration().percentile(np.array([neighbour.distance]))
        metric = "hamming" if self.ranking == "hamming" else self.gallery.metric
        return Hit(
            id=record.id,
            score=score(metric, neighbour.distance, bits=self.gallery.dimension),
            distance=neighbour.distance,
            source=record.source,
            footprint=record.footprint,
            datetime=record.datetime,
            properties=record.properties,
            percentile=float(percentiles[0]),
        )


def recall(
    gallery: Gallery, queries: Sequence[QueryLike], k: int, ranking: str, filter: Filter | None
) -> float:
    """Recall@k of a ranking that is not exact; see `rsir.archive.Archive.recall`."""
    exact = GallerySearch(gallery, k, filter).run(queries)
    found = GallerySearch(gallery, k, filter, ranking).run(queries)
    near = [{hit.id: hit.distance for hit in hits} for hits in exact]
    far = [[hit.distance for hit in hits] for hits in found]
    if gallery.distance_of(ranking) != gallery.metric.name:
        # Only hits that the exact search also found have a known exact distance.
        far = [
            [distances.get(hit.id, math.inf) for hit in hits]
            for distances, hits in zip(near, found, strict=True)
        ]
    return recall_of([list(distances.values()) for distances in near], far)


def _existing(gallery: Gallery, near: list[Neighbour]) -> tuple[list[Neighbour], NDArray[Any]]:
    """The neighbours and their vectors, without records that were deleted since the search."""
    with translate_store_errors(gallery.path):
        rows = get_existing(gallery.store, [neighbour.record.id for neighbour in near])
    existing = {record.id for record, _ in rows}
    vectors = np.stack([vector for _, vector in rows]) if rows else gallery.vectors([])
    return [neighbour for neighbour in near if neighbour.record.id in existing], vectors
