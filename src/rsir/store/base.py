"""The interface of a store, which keeps records with vectors and finds the nearest exactly.

Stores import no images, models or torch. Every store passes `tests/contract`, which compares it
with `memory.ExactStore`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ArchiveError, UsageError
from rsir.ranking import Metric, metric_named
from rsir.store.filters.filter import Filter
from rsir.store.records.record import Record, State

Vector = NDArray[np.float32] | NDArray[np.uint8]
"""(D,) float32; uint8 for metrics of bits: (ceil(bits / 8),) for "hamming", and a row of
`rsir.ranking.packed` for "adaptive-hamming:K"."""

COMMIT_TILES = 1024
"""The number of records to add to a store in one call. Our choice: a call costs some 10 ms."""

APPROXIMATE = "approximate"
"""The name of the ranking of float vectors that is not exact; `LanceStore` supports it."""

KEPT_DAYS = 7.0
"""Optimising a store removes versions older than this by default. LanceDB's own default."""


class Neighbour:
    """A found record and its distance (smaller is nearer, in the metric of the search).

    record: the record, or a function that reads the record when it is first used.
    """

    __slots__ = ("_record", "distance")

    def __init__(self, record: Record | Callable[[], Record], distance: float) -> None:
        self._record = record
        self.distance = distance

    @property
    def record(self) -> Record:
        """The found record."""
        if not isinstance(self._record, Record):
            self._record = self._record()
        return self._record

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Neighbour):
            return NotImplemented
        return self.distance == other.distance and self.record == other.record

    def __repr__(self) -> str:
        return f"Neighbour({self.record!r}, {self.distance!r})"


class Found(list[list[Neighbour]]):
    """The nearest records of each query. searched: among how many records they were found."""

    def __init__(self, nearest: Iterable[list[Neighbour]], searched: int) -> None:
        super().__init__(nearest)
        self.searched = searched


K = TypeVar("K")


def lazy_neighbours(
    found: Iterable[Iterable[tuple[K, float]]], read: Callable[[Sequence[K]], Mapping[K, Record]]
) -> list[list[Neighbour]]:
    """The neighbours of each query; the first use of a record reads all of them together.

    found: for each query, keys and distances. read: returns the records under some keys. If it
    leaves out a key, the use of that record raises ArchiveError.
    """
    results = [list(pairs) for pairs in found]
    records = _LazyRecords([key for pairs in results for key, _ in pairs], read)
    return [[Neighbour(partial(records.get, key), far) for key, far in pairs] for pairs in results]


class _LazyRecords(Generic[K]):
    def __init__(self, keys: list[K], read: Callable[[Sequence[K]], Mapping[K, Record]]) -> None:
        self._keys = keys
        self._read = read
        self._lock = threading.Lock()
        self._records: Mapping[K, Record] | None = None

    def get(self, key: K) -> Record:
        with self._lock:
            if self._records is None:
                self._records = self._read(list(dict.fromkeys(self._keys)))
        if key not in self._records:
            raise ArchiveError(
                f"the record {key!r} was deleted after the search had found it; search again"
            )
        return self._records[key]


class Store(Protocol):
    """Records and vectors under unique ids, searched exactly; ties in distance go by id.

    metric: a name for `rsir.ranking.metric_named`; dimension: D floats, or the bits of a code.
    Ids are ordered by code point, as Python orders strings.
    """

    metric: str
    dimension: int

    @property
    def identity(self) -> str:
        """A text that no other store has; "" if the store was created without an identity."""

    def __len__(self) -> int:
        """Number of records."""

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Add `records` with `vectors` (N, ...), all or nothing; replaces records of known ids.

        Raises UsageError for a wrong shape or dtype, NaN or infinite values, a zero vector
        under "cosine", probabilities outside [0, 1], an id that occurs twice in `records`, or
        values that are not JSON.
        """

    def delete(self, ids: Sequence[str]) -> int:
        """Delete `ids`; returns how many of them existed."""

    def search(
        self, queries: Vector, k: int, *, filter: Filter | None = None, metric: str | None = None
    ) -> Found:
        """The k nearest records of each query (Q, ...), nearest first, ties by id.

        filter: search only the records that meet it; if these are fewer than k, returns all of
        them. metric: to use instead of the store's metric, see `searched`. A store with versions
        counts the records in the version that it searches.

        Raises UsageError for k < 1, for a metric that does not fit, and for queries that `add`
        would refuse as vectors.
        """

    def count(self, filter: Filter | None = None) -> int:
        """Number of records that meet `filter`; None: of all records."""

    def get(self, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
        """The records and vectors under `ids`, in that order; ArchiveError for an unknown id."""

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id."""

    def states(self, names: Collection[str] | None = None) -> Iterator[State]:
        """The states of all records, or of those whose source is one of `names`, in any order.

        Faster than `records`, with little memory.
        """

    def sample(self, count: int, seed: int = 0) -> Vector:
        """The vectors (M, width) of min(count, N) different records, picked at random.

        The same seed gives the same vectors as long as the store does not change.
        """

    def optimize(self, *, keep_days: float = KEPT_DAYS) -> None:
        """Restore the speed after many changes; can remove versions older than `keep_days`."""


def check_identity(location: str | Path, found: str, required: str) -> None:
    """ArchiveError if the identity of the store at `location` is not `required`; "" accepts any."""
    if required and found != required:
        raise ArchiveError(
            f"{location} is not the store that belongs to this archive: another store has "
            "replaced it. Restore the archive's store from a copy, or index into a new archive"
        )


def searched(store: Store, metric: str | None, queries: Vector) -> tuple[Metric, NDArray[Any]]:
    """The metric of one search, and its queries as checked vectors of that metric.

    A store of "adaptive-hamming:K" can also be searched by "hamming"; the queries are then codes,
    or rows of `rsir.ranking.packed`. Every other store can be searched only by its own metric.
    Raises UsageError for any other metric.
    """
    own = metric_named(store.metric)
    if metric is None or metric == own.name:
        return own, checked_vectors(own.name, store.dimension, queries, "queries")
    if not (own.classes and metric == "hamming"):
        others = " or 'hamming'" if own.classes else ""
        raise UsageError(f"this store is searched by '{own.name}'{others}, not by '{metric}'")
    plain = metric_named(metric)
    if np.ndim(queries) == 2 and np.shape(queries)[1] == own.width(store.dimension):
        queries = checked_vectors(own.name, store.dimension, queries, "queries")
        queries = queries[:, : plain.width(store.dimension)]
    return plain, checked_vectors(plain.name, store.dimension, queries, "queries")


def recall_of(exact: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> float:
    """Recall@k of an approximate search: the mean share of the k nearest that it found.

    exact, found: for each query, the distances of the hits of the exact and of the approximate
    search, ascending, by the metric of the exact search. A hit counts if it is no farther than the
    last exact hit, so any of several records at equal distance counts. The mean is over the queries
    with exact hits; 1 if no query has exact hits.
    """
    shares = [
        sum(distance <= nearest[-1] for distance in distances) / len(nearest)
        for nearest, distances in zip(exact, found, strict=True)
        if len(nearest)
    ]
    return sum(shares) / len(shares) if shares else 1.0


def checked_vectors(
    metric: str, dimension: int, vectors: Vector, name: str = "vectors"
) -> NDArray[Any]:
    """`vectors` as an (N, width) C-contiguous array, float32 or uint8.

    name: of the argument, for the message of UsageError.
    """
    kind = metric_named(metric)
    array = kind.check(vectors, dimension, name)
    if kind.kind == "bits":
        return array
    # Rounding to float32 can turn a tiny vector into zero, so check the rounded vector.
    return kind.check(array.astype(np.float32, copy=False), dimension, name)
