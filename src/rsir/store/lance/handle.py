"""A LanceDB table that follows the commits of other processes, or stays at one version."""

from __future__ import annotations

import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from rsir.documents import parse_object
from rsir.errors import ArchiveError
from rsir.store.base import check_identity
from rsir.store.lance.location import Location
from rsir.store.lance.rows import schema_of
from rsir.store.lance.snapshot import Snapshot

FORMAT = "rsir-store/2"

_KEY = b"rsir"

_SETTLED_NS = 1_000_000_000
_TRUSTED_SECONDS = 5.0
"""If the time of change of the folder of versions is the same as before, and at least
`_SETTLED_NS` nanoseconds past, there is no new version: the clocks of file systems tick within
10 ms (of FAT, the coarsest in use today, every 2 s). A network file system may show an old time, so
after `_TRUSTED_SECONDS` the handle asks the table itself. Our choice."""


class TableHandle:
    """A table and its latest snapshot; threads may share it.

    pinned: the version at which the handle stays; None: the handle follows the latest version.
    required_identity: every call checks that the store has this identity; "" accepts any.
    """

    def __init__(
        self,
        location: Location,
        table: Any,
        required_identity: str = "",
        pinned: int | None = None,
    ) -> None:
        """Use `create`, `open` or `at`."""
        about = _about(location, table)
        self.location = location
        self.path: str | Path = location.folder or str(location)
        self.table = table
        """LanceDB's table, as of the last `refresh`."""
        self.pinned = pinned
        self.metric: str = about["metric"]
        self.dimension: int = about["dimension"]
        self.identity: str = about["id"]
        self._required_identity = required_identity
        check_identity(self.path, self.identity, required_identity)
        self._opened = (location.state(), time.monotonic())
        self._snapshot: Snapshot | None = None
        self._seen: tuple[tuple[int, int] | None, float] | None = None
        self._lock = threading.Lock()

    @classmethod
    def create(
        cls, location: Location, metric: str, dimension: int, identity: str | None
    ) -> TableHandle:
        """The handle of a new, empty table; see `rsir.store.lance.store.LanceStore.create`."""
        about = {
            "format": FORMAT,
            "metric": metric,
            "dimension": dimension,
            "id": identity or uuid.uuid4().hex,
        }
        schema = schema_of(metric, dimension, {_KEY: json.dumps(about).encode()})
        exists = f"{location} exists already; open it, or choose another path"
        if location.folder is not None:
            if location.folder.exists():
                raise ArchiveError(exists)
            location.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            table: Any = location.database().create_table(location.name, schema=schema)
        except ValueError as error:
            if "already exists" in str(error):
                raise ArchiveError(exists) from error
            raise ArchiveError(
                f"{location} cannot be created ({error}); check the uri and the credentials"
            ) from error
        return cls(location, table, identity or "")

    @classmethod
    def open(cls, location: Location, required_identity: str) -> TableHandle:
        """The handle of the table at `location`; ArchiveError if there is none or it is damaged."""
        if location.folder is not None and not location.folder.is_dir():
            raise ArchiveError(f"{location} does not exist; check the path, or create an archive")
        return cls(location, _opened(location), required_identity)

    def at(self, version: int) -> TableHandle:
        """The handle of an existing version, which stays there."""
        return TableHandle(self.location, self._version(version), self._required_identity, version)

    def refresh(self) -> Any:
        """Move to the latest version; returns LanceDB's table.

        If the folder has changed, open the table again: after a table was deleted and created
        anew, LanceDB's own handle continues to show the old one.
        """
        if self.pinned is not None:
            return self.table
        state, now = self.location.state(), time.monotonic()
        if state == self._opened[0] and (state or now - self._opened[1] < _TRUSTED_SECONDS):
            self.table.checkout_latest()
            return self.table
        table = _opened(self.location)
        about = _about(self.location, table)
        if (about["metric"], about["dimension"]) != (self.metric, self.dimension):
            raise ArchiveError(f"{self.path} is another store than before; open it again")
        check_identity(self.path, about["id"], self._required_identity)
        self.table, self.identity, self._opened = table, about["id"], (state, now)
        return table

    def refresh_to_change(self) -> Any:
        """Like `refresh`, before a change of the table; ArchiveError at a pinned version."""
        if self.pinned is not None:
            raise ArchiveError(
                f"this is version {self.pinned} of {self.path}, which cannot be changed; open the "
                "archive itself, and restore this version first if you want to change it"
            )
        table = self.refresh()
        self._seen = None
        return table

    def count(self) -> int:
        """The number of rows."""
        snapshot = self._snapshot
        if snapshot is not None and self._is_current():
            return len(snapshot)
        count: int = self.refresh().count_rows()
        return count

    def snapshot(self) -> Snapshot:
        """The latest version, ready for search."""
        with self._lock:
            if self._snapshot is not None and self._is_current():
                return self._snapshot
            # Read the state before the table: a commit in between then changes the state again.
            state, now = self.location.state(), time.time_ns()
            latest = self.refresh().version
            snapshot = self._snapshot
            if snapshot is None or (snapshot.identity, snapshot.version) != (self.identity, latest):
                # Drop the old vectors first, so that memory never holds both versions.
                self._snapshot = snapshot = None
                pinned = self._version(latest)
                snapshot = Snapshot(pinned, self.identity, latest, self.metric, self.dimension)
                self._snapshot = snapshot
            settled = state is None or now - state[1] > _SETTLED_NS
            self._seen = (state, time.monotonic()) if settled else None
            return snapshot

    def _version(self, version: int) -> Any:
        """LanceDB's table, pinned to a version."""
        return self.location.database().open_table(self.location.name, version=version)

    def _is_current(self) -> bool:
        """Whether the snapshot is certainly the latest version, without reading the table."""
        if self.pinned is not None:
            return True
        seen = self._seen
        return (
            seen is not None
            and time.monotonic() - seen[1] < _TRUSTED_SECONDS
            and self.location.state() == seen[0]
        )


def _opened(location: Location) -> Any:
    try:
        return location.database().open_table(location.name)
    except (ValueError, RuntimeError, OSError) as error:
        raise _damaged(location, error) from error


def _about(location: Location, table: Any) -> dict[str, Any]:
    """The description in the metadata of a table: metric, dimension, and id."""
    try:
        about = parse_object((table.schema.metadata or {})[_KEY])
        if about["format"] != FORMAT:
            raise ArchiveError(
                f"{location} has format {about['format']!r}, this rsir reads {FORMAT!r}; "
                "use the rsir that made it, or index into a new archive"
            )
        expected = schema_of(about["metric"], about["dimension"], {})
        for field in expected:
            found = table.schema.field(field.name).type
            if found != field.type:
                raise TypeError(f"its column {field.name} is {found}, not {field.type}")
        return {"id": "", **about}
    except ArchiveError:
        raise
    except Exception as error:  # what a stranger writes there makes Arrow and ours raise anything
        raise _damaged(location, error) from error


def _damaged(location: Location, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{location} is not a store of rsir, or it is damaged ({error}); "
        "restore it from a copy, or delete the archive and index again"
    )
