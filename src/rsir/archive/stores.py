"""Which store keeps an archive's records: a folder, an object store, or a Milvus cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsir.errors import UsageError

if TYPE_CHECKING:
    from rsir.archive.store import Store

MILVUS = "milvus://"
OBJECTS = ("s3://", "gs://", "az://")


def create_store(where: str | Path, metric: str, dimension: int) -> Store:
    """A new, empty store at a path or uri; errors as those of the store's own `create`.

    milvus://host:port/collection is a Milvus cluster; s3://, gs:// and az://bucket/name.lance are
    Lance tables on an object store; anything else is a folder for one.
    """
    name = str(where)
    _check(name)
    if name.startswith(MILVUS):
        from rsir.archive.milvus import MilvusStore

        return MilvusStore.create(name, metric, dimension)
    from rsir.archive.lance import LanceStore

    return LanceStore.create(where, metric, dimension)


def open_store(where: str | Path) -> Store:
    """The store at a path or uri, as in `create_store`; errors as those of its own `open`."""
    name = str(where)
    _check(name)
    if name.startswith(MILVUS):
        from rsir.archive.milvus import MilvusStore

        return MilvusStore.open(name)
    from rsir.archive.lance import LanceStore

    return LanceStore.open(where)


def exists(where: str) -> bool:
    """Whether there is a store, or anything of that name, at a uri; errors as in `open_store`."""
    _check(where)
    if where.startswith(MILVUS):
        from rsir.archive.milvus_connection import PATIENCE, Address, Connection

        connection = Connection(Address.parse(where), PATIENCE)
        try:
            return bool(connection.call("has_collection"))
        finally:
            connection.close()
    from rsir.archive.lance import LanceStore

    return LanceStore.exists(where)


def without_secrets(where: str) -> str:
    """The same address as it may be written down: no user, password or token of a cluster."""
    _check(where)
    if not where.startswith(MILVUS):
        return where
    from rsir.archive.milvus_connection import Address

    return str(Address.parse(where))


def _check(name: str) -> None:
    if "://" in name and not name.startswith((MILVUS, *OBJECTS)):
        known = ", ".join((MILVUS, *OBJECTS))
        raise UsageError(f"{name}: no store is known for it; give a folder, or one of {known}")
