"""One record: what a store keeps beside a vector."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rsir.errors import UsageError
from rsir.geo.geometry import bounds_of
from rsir.types import Geometry


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


class State(NamedTuple):
    """What a rerun asks of a record: all but its footprint; equal ones may share their values."""

    id: str
    source: str
    content: str
    size: int
    mtime_ns: int
    datetime: datetime | None
    properties: Mapping[str, Any]

    @classmethod
    def of(cls, record: Record) -> State:
        """That of a record."""
        return cls(
            record.id,
            record.source,
            record.content,
            record.size,
            record.mtime_ns,
            record.datetime,
            record.properties,
        )


def checked_records(records: Sequence[Record]) -> list[Record]:
    """`records` as every store keeps them: times in UTC, footprint and properties plain JSON.

    Raises UsageError for an id that stands twice, text that is not valid Unicode, a footprint
    that is not GeoJSON, or properties that JSON cannot hold.
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
        bounds_of(footprint)
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


def _plain(id: str, value: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"the record {id!r} has a value that JSON cannot hold: {error}") from error
    plain: dict[str, Any] = json.loads(text)
    return plain
