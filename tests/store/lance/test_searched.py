"""A search says among how many records it found its hits: those of the version that it searched."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from rsir.store.filters.filter import Filter
from rsir.store.lance.store import LanceStore
from rsir.store.records.record import Record

MANY = 100_000


@pytest.mark.slow
@pytest.mark.parametrize("filter", [None, Filter(where="x < 2000000000")])
def test_the_number_is_of_the_same_version_as_the_hits(
    tmp_path: Path, filter: Filter | None
) -> None:
    """With k above all, each search finds as many records as it says it searched."""
    writer = LanceStore.create(tmp_path / "items.lance", "euclidean", 2)
    reader = LanceStore.open(tmp_path / "items.lance")
    stop = threading.Event()

    def write() -> None:
        for number in range(10**6):
            if stop.is_set():
                return
            rows = [Record(f"{number}-{i}", "s", "", properties={"x": i}) for i in range(3)]
            writer.add(rows, np.full((3, 2), number, np.float32))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = set()
        while len(seen) < 12:
            found = reader.search(np.zeros((2, 2), np.float32), MANY, filter=filter)
            assert [len(near) for near in found] == [found.searched] * 2
            seen.add(found.searched)
    finally:
        stop.set()
        thread.join()
