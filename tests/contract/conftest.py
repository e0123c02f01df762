"""Stores on the Milvus server (tests/conftest.py) for the tests of the contract."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from rsir.store.milvus.rows import KEY
from rsir.store.milvus.store import MilvusStore
from tests.support.milvus_server import Server

# The stores that the contract uses. Creating a collection takes seconds; several at the same time
# take less.
USUAL = [
    *((metric, width) for metric in ("euclidean", "cosine", "ncc") for width in (3, 4, 6, 16)),
    *((metric, bits) for metric in ("hamming", "adaptive-hamming:3") for bits in (21, 29)),
    ("cosine", 2),
    ("euclidean", 1),
    ("euclidean", 2),
]


class Stores:
    """Milvus stores that tests borrow; they are emptied and lent again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._names = itertools.count()
        self._free: dict[tuple[str, int], list[MilvusStore]] = {}

    def make_usual(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            for kind, store in zip(USUAL, pool.map(self._new, USUAL), strict=True):
                self._free[kind] = [store]

    @contextmanager
    def lent(self) -> Iterator[Callable[[str, int], MilvusStore]]:
        used = []

        def make(metric: str, dimension: int) -> MilvusStore:
            kind = (metric, dimension)
            store = self._free[kind].pop() if self._free.get(kind) else self._new(kind)
            used.append(store)
            return store

        yield make
        for store in used:
            for page in store._rows.pages("", [KEY]):
                store._rows.delete([row[KEY] for row in page])
            self._free.setdefault((store.metric, store.dimension), []).append(store)

    def _new(self, kind: tuple[str, int]) -> MilvusStore:
        return MilvusStore.create(self._server.uri(f"contract_{next(self._names)}"), *kind)


@pytest.fixture(scope="session")
def milvus_stores(milvus_server: Server) -> Stores:
    stores = Stores(milvus_server)
    stores.make_usual()
    return stores
