"""What a store must do: keep records, and find the nearest ones exactly.

A store knows vectors and records, never images or models, and never imports torch. Every store
passes `tests/contract`, which runs it beside `exact.ExactStore`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.ranking import metric_named
from rsir.types import Geometry

Vector = NDArray[np.float32] | NDArray[np.uint8]
"""(D,) float32; uint8 for metrics of bits: (ceil(bits / 8),) for "hamming", and a row of
`rsir.ranking.packed` for "adaptive-hamming:K"."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one tile beside its vector.

    source, content, size, mtime_ns: the file it was cut from (path or uri, hex digest of its
    bytes, bytes, nanoseconds since the epoch), so that a rerun can tell what has changed.
    footprint: GeoJSON geometry in WGS 84, or None. datetime: with a time zone; stores give it
    back in UTC, and take one without a zone as UTC. properties: JSON values.
    """

    id: str
    source: str
    content: str
    size: int = 0
    mtime_ns: int = 0
    footprint: Geometry | None = None
    datetime: datetime | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A record found, and how far it is (smaller is nearer, in the store's metric)."""

    record: Record
    distance: float


class Store(Protocol):
    """Records and vectors under unique ids, searched exactly; ties in distance go by id.

    metric: a name for `rsir.ranking.metric_named`; dimension: D floats, or the bits of a code.
    Ids are ordered by code point, as Python orders strings.
    """

    metric: str
    dimension: int

    def __len__(self) -> int:
        """Number of records."""

    def add(self, records: Sequence[Record], vectors: Vector) -> None:
        """Keep `records` with `vectors` (N, ...), all or nothing; a known id is replaced.

        Raises UsageError for a wrong shape or dtype, NaN or infinite values, a zero vector
        under "cosine", probabilities outside [0, 1], an id that stands twice in `records`, or
        values that are not JSON.
        """

    def delete(self, ids: Sequence[str]) -> int:
        """Forget `ids`; returns how many there were."""

    def search(self, queries: Vector, k: int) -> list[list[Neighbour]]:
        """The min(k, len) nearest records of each query (Q, ...), nearest first, ties by id.

        Raises UsageError for k < 1 and for queries that `add` would refuse as vectors.
        """

    def get(self, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
        """The records and vectors under `ids`, in that order; ArchiveError for an unknown id."""

    def records(self) -> Iterator[Record]:
        """All records, ordered by id."""


def checked_records(records: Sequence[Record]) -> list[Record]:
    """`records` as every store keeps them: times in UTC, footprint and properties plain JSON.

    Raises UsageError for an id that stands twice, text that is not valid Unicode, or a footprint
    or properties that JSON cannot hold.
    """
    seen: set[str] = set()
    kept = []
    for record in records:
        if record.id in seen:
            raise UsageError(f"the id {record.id!r} stands twice in one addition")
        seen.add(record.id)
        for text in (record.id, record.source, record.content):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise UsageError(f"{text!r} is not valid Unicode and cannot be stored") from error
        footprint = None if record.footprint is None else _plain(record.id, record.footprint)
        time = record.datetime
        if time is not None:
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        kept.append(
            replace(
                record,
                footprint=footprint,
                datetime=time,
                properties=_plain(record.id, record.properties),
            )
        )
    return kept


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


def _plain(id: str, value: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"the record {id!r} has a value that JSON cannot hold: {error}") from error
    plain: dict[str, Any] = json.loads(text)
    return plain
