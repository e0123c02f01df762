"""The hits of one query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from rsir.archive.search.query import QueryLike, as_query
from rsir.store.base import Neighbour
from rsir.types import Hit


class Hits(Sequence[Hit]):
    """The hits of one query, nearest first; a notebook shows them as a gallery.

    Access to a hit, or to a slice of hits, reads their records from the store.

    query: as the caller gave it. seconds: the time for reading, encoding and searching.
    encoding_seconds: the part of it for the query's vector; a model's first batch takes longer.
    searched: the number of records that were compared. distances: (N,) float64, smaller is nearer.
    """

    def __init__(
        self,
        neighbours: Sequence[Neighbour],
        hit: Callable[[Neighbour], Hit],
        *,
        query: QueryLike,
        seconds: float,
        searched: int,
        encoding_seconds: float = 0.0,
    ) -> None:
        self._neighbours = tuple(neighbours)
        self._hit = hit
        self._hits: dict[int, Hit] = {}
        self.query = query
        self.seconds = seconds
        self.encoding_seconds = encoding_seconds
        self.searched = searched

    @property
    def distances(self) -> NDArray[np.float64]:
        """(N,) float64, without reading a record."""
        return np.array([neighbour.distance for neighbour in self._neighbours], np.float64)

    def __len__(self) -> int:
        return len(self._neighbours)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return [self[rank] for rank in range(*index.indices(len(self)))]
        rank = range(len(self))[index]
        if rank not in self._hits:
            self._hits[rank] = self._hit(self._neighbours[rank])
        return self._hits[rank]

    def __repr__(self) -> str:
        head = (
            f"{len(self)} hits for {as_query(self.query)} among {self.searched}, in "
            f"{1000 * self.seconds:.0f} ms"
        )
        lines = [f"  {rank:3}  {hit.score:.4f}  {hit.source}" for rank, hit in enumerate(self, 1)]
        return "\n".join([head, *lines])

    def _repr_html_(self) -> str:
        from rsir.archive.pictures.cards import cards

        return cards(self)
