"""One record: the metadata that a store keeps with a vector."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rsir.errors import UsageError
from rsir.geo.geometry import bounds_of
from rsir.types import Geometry, is_unicode


@dataclass(frozen=True, slots=True)
class Record:
    """The metadata of one tile, which a store keeps with its vector.

    source, content, size, mtime_ns: of the file that the tile was cut from: its path or uri, the
    hex digest of its bytes, its size in bytes and its time of change in nanoseconds since the
    epoch. Indexing again compares them to find changed files. footprint: GeoJSON geometry in
    WGS 84, or None. datetime: with a time zone; stores return it in UTC and take a time without a
    zone as UTC. properties: JSON values.
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
    """A record without its footprint, for indexing again. Equal values may share one object."""

    id: str
    source: str
    content: str
    size: int
    mtime_ns: int
    datetime: datetime | None
    properties: Mapping[str, Any]

    @classmethod
    def of(cls, record: Record) -> State:
        """The state of a record."""
        return cls(
            record.id,
            record.source,
            record.content,
            record.size,
            record.mtime_ns,
            record.datetime,
            record.properties,
        )


def in_utc(time: datetime) -> datetime:
    """The same time in UTC; a time without a zone is UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def checked_records(records: Sequence[Record]) -> list[Record]:
    """`records` in the form that every store keeps: times in UTC, plain JSON values.

    Raises UsageError for an id that occurs twice, text that is not valid Unicode, a footprint
    that is not GeoJSON, or properties that JSON cannot hold.
    """
    seen: set[str] = set()
    checked = []
    for record in records:
        if record.id in seen:
            raise UsageError(f"the id {record.id!r} occurs twice in one addition")
        seen.add(record.id)
        for text in (record.id, record.source, record.content):
            if not is_unicode(text):
                raise UsageError(f"{text!r} is not valid Unicode and cannot be stored")
        footprint = None if record.footprint is None else _plain(record.id, record.footprint)
        bounds_of(footprint)
        time = record.datetime
        if time is not None:
            time = in_utc(time)
        checked.append(
            replace(
                record,
                footprint=footprint,
                datetime=time,
                properties=_plain(record.id, record.properties),
            )
        )
    return checked


def _plain(id: str, value: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"the record {id!r} has a value that JSON cannot hold: {error}") from error
    plain: dict[str, Any] = json.loads(text)
    return plain
