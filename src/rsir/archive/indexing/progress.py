"""The progress of a source in a run: its known tiles, new tiles, damaged and left out windows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from rsir.geo.footprint import Window
from rsir.sources.stac import STAC_PROPERTIES
from rsir.store.records.record import Record, State

Stamp = tuple[int, int]
"""(bytes, nanoseconds since the epoch of the last change) of a source's files."""

UNKNOWN_STAMP: Stamp = (0, 0)

LISTED_WINDOWS = 3
"""Windows that a report lists for one reason. Our choice."""

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of a record that comes from a STAC item, not from pixels."""

    datetime: datetime | None
    properties: Mapping[str, Any]

    @classmethod
    def of(cls, record: Record | State) -> Metadata:
        """The metadata of a record."""
        own = record.properties
        return cls(record.datetime, {name: own[name] for name in STAC_PROPERTIES if name in own})

    def applied_to(self, record: Record) -> Record:
        """`record` with this metadata in place of the metadata that it has."""
        others = {k: v for k, v in record.properties.items() if k not in STAC_PROPERTIES}
        return replace(record, datetime=self.datetime, properties=others | dict(self.properties))


@dataclass(frozen=True, slots=True)
class KnownTile:
    """A tile in the archive before this run; several tiles may share one object.

    stamp, content: of its file when it was read. is_window: whether it is a window of a scene.
    """

    stamp: Stamp
    content: str
    is_window: bool
    metadata: Metadata


@dataclass(slots=True)
class RefusedWindows:
    """Windows that could not be indexed, for reasons that differ only in numbers.

    reason: of the first window. windows: the first LISTED_WINDOWS windows.
    """

    reason: str
    count: int = 0
    windows: list[Window] = field(default_factory=list)

    def __str__(self) -> str:
        listed = ", ".join(str(list(window)) for window in self.windows)
        more = ", …" if self.count > len(self.windows) else ""
        noun = "window" if self.count == 1 else f"{self.count} windows,"
        return f"{noun} {listed}{more}: {self.reason}"


@dataclass(slots=True)
class SourceProgress:
    """The progress of one source in this run.

    known: its tiles in the archive before the run, by id. stamp, content: of its files now; content
    is "" if the files were not read. metadata: its metadata now; None if it has no metadata that
    could have changed. current: the ids of its tiles that are up to date after the next commit.
    encoded: number of encoded tiles. metadata_changed: whether records were rewritten because of
    new metadata. left_out: counts of windows by reason. refused: windows that could not be indexed,
    by reason without its numbers. damaged: the refused windows that could not be read. failure: the
    reason why the source, or the rest of it, could not be indexed. windows: total number of
    windows. done: number of windows so far.
    """

    source: str
    known: Mapping[str, KnownTile]
    stamp: Stamp = UNKNOWN_STAMP
    content: str = ""
    metadata: Metadata | None = None
    current: set[str] = field(default_factory=set)
    encoded: int = 0
    metadata_changed: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    refused: dict[str, RefusedWindows] = field(default_factory=dict)
    damaged: list[Window] = field(default_factory=list)
    failure: str | None = None
    windows: int = 1
    done: int = 0

    @property
    def outdated(self) -> list[str]:
        """The ids of known tiles that are not current."""
        return [id for id in self.known if id not in self.current]

    @property
    def of_other_content(self) -> list[str]:
        """The ids of known tiles from before the content of the source changed."""
        return [id for id, tile in self.known.items() if self.content not in ("", tile.content)]

    def fail(self, reason: str) -> None:
        """Set the reason why the source, or the rest of it, could not be indexed."""
        self.failure = self._without_name(reason)

    def refuse(self, window: Window, reason: str) -> None:
        """Add a window that could not be indexed, and the reason."""
        reason = self._without_name(reason).removeprefix(f"window {window} ")
        refused = self.refused.setdefault(_NUMBER.sub("0", reason), RefusedWindows(reason))
        refused.count += 1
        if len(refused.windows) < LISTED_WINDOWS:
            refused.windows.append(window)

    def _without_name(self, reason: str) -> str:
        return reason.removeprefix(f"{self.source}: ")
