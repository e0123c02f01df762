"""What a store must do: keep records, and find the nearest ones exactly.

A store knows vectors and records, never images or models, and never imports torch. Every store
passes `tests/contract`, which runs it beside `memory.ExactStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

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
"""Records that go into a store in one addition. Our choice: an addition costs some 10 ms."""

APPROXIMATE = "approximate"
"""The ranking of float vectors that is not exact, in stores that have it."""

KEPT_DAYS = 7.0
"""Optimising a store removes versions older than this by default. LanceDB's own default."""


class Neighbour:
    """A record found, and how far it is (smaller is nearer, in the metric of the search).

    A store may give a function for the record: it is read when it is first looked at.
    """

    __slots__ = ("_record", "distance")

    def __init__(self, record: Record | Callable[[], Record], distance: float) -> None:
        self._record = record
        self.distance = distance

    @property
    def record(self) -> Record:
        """What was found."""
        if not isinstance(self._record, Record):
            self._record = self._record()
        return self._record

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Neighbour):
            return NotImplemented
        return self.distance == other.distance and self.record == other.record

    def __repr__(self) -> str:
        return f"Neighbour({self.record!r}, {self.distance!r})"


class Store(Protocol):
    """Records and vectors under unique ids, searched exactly; ties in distance go by id.

    metric: a name for `rsir.ranking.metric_named`; dimension: D floats, or the bits of a code.
    identity: what no other store has; "" of one that was made before there were any.
    Ids are ordered by code point, as Python orders strings.
    """

    metric: str
    dimension: int
    identity: str

    def __len__(self) -> int:
        """Number of records."""

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Keep `records` with `vectors` (N, ...), all or nothing; a known id is replaced.

        Raises UsageError for a wrong shape or dtype, NaN or infinite values, a zero vector
        under "cosine", probabilities outside [0, 1], an id that occurs twice in `records`, or
        values that are not JSON.
        """

    def delete(self, ids: Sequence[str]) -> int:
        """Forget `ids`; returns how many there were."""

    def search(
        self, queries: Vector, k: int, *, filter: Filter | None = None, metric: str | None = None
    ) -> list[list[Neighbour]]:
        """The k nearest records of each query (Q, ...), nearest first, ties by id.

        Of the records that meet `filter`, if given; all of them, if they are fewer than k.
        metric: another than the store's, by `searched`.

        Raises UsageError for k < 1, for a metric that does not fit, and for queries that `add`
        would refuse as vectors.
        """

    def count(self, filter: Filter | None = None) -> int:
        """Number of records that meet `filter`; of all, if it is not given."""

    def get(self, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
        """The records and vectors under `ids`, in that order; ArchiveError for an unknown id."""

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id."""

    def states(self, names: Collection[str] | None = None) -> Iterator[State]:
        """The states of all records, or of those whose source is one of `names`, in any order.

        Quicker than `records`, and with little in memory.
        """

    def sample(self, count: int, seed: int = 0) -> Vector:
        """The vectors (M, width) of min(count, N) different records, picked at random.

        The same again for the same seed, as long as nothing is changed.
        """

    def optimize(self, *, keep_days: float = KEPT_DAYS) -> None:
        """Make up for many small changes, where that helps; versions older than that may go."""


def check_identity(where: str | Path, found: str, wanted: str) -> None:
    """ArchiveError if a store is not the one that is wanted; "" wants any."""
    if wanted and found != wanted:
        raise ArchiveError(
            f"{where} is not the store that belongs to this archive: another one has taken its "
            "place. Restore the archive's own from a copy, or index into a new archive"
        )


def searched(store: Store, metric: str | None, queries: Vector) -> tuple[Metric, NDArray[Any]]:
    """The metric of one search, and its queries as checked vectors of that metric.

    A store of "adaptive-hamming:K" can be searched by "hamming" too, with queries as it keeps
    them or with codes alone; every other store by its own metric only. Raises UsageError for
    anything else.
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
    """Recall@k: the share of the nearest that a search found which need not find all of them.

    exact, found: for each query the distances of the k hits, rising, both of the exact search's
    distance. A hit that is as near as the last exact one counts, also where another of equal
    distance stands in its place. The mean over the queries that have hits; 1 if none has.
    """
    shares = [
        sum(distance <= wanted[-1] for distance in near) / len(wanted)
        for wanted, near in zip(exact, found, strict=True)
        if len(wanted)
    ]
    return sum(shares) / len(shares) if shares else 1.0


def checked_vectors(
    metric: str, dimension: int, vectors: Vector, what: str = "vectors"
) -> NDArray[Any]:
    """`vectors` as an (N, width) C-contiguous array, float32 or uint8; UsageError if unfit."""
    kind = metric_named(metric)
    array = kind.check(vectors, dimension, what)
    if kind.kind == "bits":
        return array
    # Rounding to float32 can turn a tiny vector into zero, so what is kept is what is checked.
    return kind.check(array.astype(np.float32, copy=False), dimension, what)
