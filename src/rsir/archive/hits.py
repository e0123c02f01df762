"""The answer to one query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from rsir.types import Hit

Query = str | Path | NDArray[Any]
"""An image file; pixels (C, H, W) uint8 in the archive's bands; an embedding (D,) of floats; or,
in an archive of hash codes, a row of bytes as it keeps them (`rsir.archive.store.Vector`)."""


class Hits(Sequence[Hit]):
    """The hits of one query, nearest first; a notebook shows them as a gallery.

    query: what was asked, as it was given. seconds: how long reading,
    encoding and searching took. searched: how many records were compared.
    """

    def __init__(self, hits: Sequence[Hit], query: Query, seconds: float, searched: int) -> None:
        self._hits = tuple(hits)
        self.query = query
        self.seconds = seconds
        self.searched = searched

    def __len__(self) -> int:
        return len(self._hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        return list(self._hits[index]) if isinstance(index, slice) else self._hits[index]

    def __repr__(self) -> str:
        query = self.query
        if not isinstance(query, str | Path):
            query = "an image" if np.ndim(query) == 3 else "a vector"
        head = (
            f"{len(self)} hits for {query} among {self.searched}, in {1000 * self.seconds:.0f} ms"
        )
        lines = [f"  {rank:3}  {hit.score:.4f}  {hit.source}" for rank, hit in enumerate(self, 1)]
        return "\n".join([head, *lines])

    def _repr_html_(self) -> str:
        from rsir.gallery import cards

        return cards(self)
