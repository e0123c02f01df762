"""Read records that another process may be deleting."""

from __future__ import annotations

from collections.abc import Sequence

from rsir.errors import UnknownIdError
from rsir.store.base import Store, Vector
from rsir.store.records.record import Record


def get_existing(store: Store, ids: Sequence[str]) -> list[tuple[Record, Vector]]:
    """The records and vectors under `ids`, in that order, without the ids that do not exist.

    `Store.get` fails if any id is missing, so this halves the ids until `get` succeeds or a single
    missing id is left.
    """
    try:
        return store.get(ids)
    except UnknownIdError:
        if len(ids) == 1:
            return []
        half = len(ids) // 2
        return [*get_existing(store, ids[:half]), *get_existing(store, ids[half:])]
