"""A store in memory that searches by brute force; the tests compare every store with it."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UnknownIdError, UsageError
from rsir.ranking import metric_named, nearest
from rsir.store.base import KEPT_DAYS, Found, Neighbour, Vector, checked_vectors, searched
from rsir.store.filters.fields import RecordColumns
from rsir.store.filters.filter import Filter, select
from rsir.store.records.record import Record, State, checked_records


class ExactStore:
    """A `Store` in memory that compares a query with every vector."""

    def __init__(self, metric: str, dimension: int) -> None:
        self._width = metric_named(metric).width(dimension)
        self.metric = metric
        self.dimension = dimension
        self.identity = uuid.uuid4().hex
        self._items: dict[str, tuple[Record, NDArray[Any]]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Add `records` with `vectors` (N, ...), all or nothing; replaces records of known ids."""
        records = checked_records(records)
        rows = checked_vectors(self.metric, self.dimension, vectors)
        if len(records) != len(rows):
            raise UsageError(f"{len(records)} records with {len(rows)} vectors")
        for record, vector in zip(records, rows, strict=True):
            self._items[record.id] = (record, vector.copy())

    def delete(self, ids: Sequence[str]) -> int:
        """Delete `ids`; returns how many of them existed."""
        return sum(self._items.pop(id, None) is not None for id in ids)

    def search(
        self, queries: Vector, k: int, *, filter: Filter | None = None, metric: str | None = None
    ) -> Found:
        """The k nearest records of each query (Q, ...) that meet `filter`, ties by id."""
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        kind, rows = searched(self, metric, queries)
        items = [self._items[record.id] for record in self.records(filter)]
        if not items:
            return Found(([] for _ in rows), 0)
        records = [record for record, _ in items]
        gallery = np.stack([vector for _, vector in items])
        if kind.kind == "bits":
            gallery = gallery[:, : kind.width(self.dimension)]
        order, distances = nearest(kind, rows, gallery, [record.id for record in records], k)
        near = (
            [Neighbour(records[row], float(d)) for row, d in zip(found, far, strict=True)]
            for found, far in zip(order, distances, strict=True)
        )
        return Found(near, len(items))

    def count(self, filter: Filter | None = None) -> int:
        """Number of records that meet `filter`; None: of all records."""
        return sum(1 for _ in self.records(filter))

    def get(self, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
        """The records and vectors under `ids`, in that order; ArchiveError for an unknown id."""
        for id in ids:
            if id not in self._items:
                raise UnknownIdError(f"the archive has no record {id!r}")
        return [(self._items[id][0], self._items[id][1].copy()) for id in ids]

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id."""
        records = [self._items[id][0] for id in sorted(self._items)]
        if filter is not None:
            records = list(compress(records, select(filter, RecordColumns(records))))
        return iter(records)

    def states(self, names: Collection[str] | None = None) -> Iterator[State]:
        """The states of all records, or of those whose source is one of `names`."""
        return iter([State.of(r) for r in self.records() if names is None or r.source in names])

    def sample(self, count: int, seed: int = 0) -> Vector:
        """The vectors (M, width) of min(count, N) different records, picked at random."""
        random = np.random.default_rng(seed)
        ids = random.permutation(sorted(self._items))[:count]
        dtype = np.uint8 if metric_named(self.metric).kind == "bits" else np.float32
        vectors: NDArray[Any] = np.empty((len(ids), self._width), dtype)
        for row, id in enumerate(ids):
            vectors[row] = self._items[id][1]
        return vectors

    def optimize(self, *, keep_days: float = KEPT_DAYS) -> None:
        """Do nothing: memory holds only one version."""
