"""The answer to one query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from rsir.archive.search.query_vectors import ByFile, ById, ByWindow, Examples, Query
from rsir.store.base import Neighbour
from rsir.types import Hit


class Hits(Sequence[Hit]):
    """The hits of one query, nearest first; a notebook shows them as a gallery.

    A hit's record is read when it is first looked at; a slice reads its own.

    query: what was asked, as it was given. seconds: how long reading, encoding and searching took.
    searched: how many records were compared. distances: (N,) float64, smaller is nearer.
    """

    def __init__(
        self,
        neighbours: Sequence[Neighbour],
        hit: Callable[[Neighbour], Hit],
        *,
        query: Query,
        seconds: float,
        searched: int,
    ) -> None:
        self._neighbours = tuple(neighbours)
        self._hit = hit
        self._hits: dict[int, Hit] = {}
        self.query = query
        self.seconds = seconds
        self.searched = searched

    @property
    def distances(self) -> NDArray[np.float64]:
        """The distances alone, without reading a record."""
        return np.array([neighbour.distance for neighbour in self._neighbours], np.float64)

    def __len__(self) -> int:
        return len(self._neighbours)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        if place not in self._hits:
            self._hits[place] = self._hit(self._neighbours[place])
        return self._hits[place]

    def __repr__(self) -> str:
        query = self.query
        if not isinstance(query, str | Path | ByFile | ById | ByWindow | Examples):
            query = "an image" if np.ndim(query) == 3 else "a vector"
        head = (
            f"{len(self)} hits for {query} among {self.searched}, in {1000 * self.seconds:.0f} ms"
        )
        lines = [f"  {rank:3}  {hit.score:.4f}  {hit.source}" for rank, hit in enumerate(self, 1)]
        return "\n".join([head, *lines])

    def _repr_html_(self) -> str:
        from rsir.archive.pictures.cards import cards

        return cards(self)
