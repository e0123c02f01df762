"""Open or create a store: in a folder, on an object store, or in a Milvus cluster."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rsir.errors import UsageError

if TYPE_CHECKING:
    from rsir.store.base import Store

_log = logging.getLogger(__name__)

MILVUS = "milvus://"
OBJECTS = ("s3://", "gs://", "az://")


def create_store(
    where: str | Path, metric: str, dimension: int, identity: str | None = None
) -> Store:
    """A new, empty store at a path or uri; raises the errors of the store's `create`.

    milvus://host:port/collection is a Milvus cluster; s3://, gs:// and az://bucket/name.lance are
    Lance tables on an object store; anything else is the folder of a Lance table. identity: of
    the store (`rsir.store.base.Store`); None draws a random identity.
    """
    name = str(where)
    _check(name)
    if name.startswith(MILVUS):
        from rsir.store.milvus.store import MilvusStore

        return MilvusStore.create(name, metric, dimension, identity)
    from rsir.store.lance.store import LanceStore

    return LanceStore.create(where, metric, dimension, identity)


def open_store(where: str | Path, identity: str = "", *, by_user: bool = True) -> Store:
    """The store at a path or uri, as in `create_store`; raises the errors of the store's `open`.

    by_user: whether the user gave `where`; if it stands in an archive, a Milvus server gets the
    credentials in the environment only if RSIR_MILVUS_HOSTS names it. Raises ArchiveError for a
    store of another identity; "" accepts any.
    """
    name = str(where)
    _check(name)
    if name.startswith(MILVUS):
        from rsir.store.milvus.store import MilvusStore

        return MilvusStore.open(name, identity, by_user=by_user)
    from rsir.store.lance.store import LanceStore

    if name.startswith(OBJECTS) and not by_user:
        _log.warning("the records are on another machine: asking %s", name)
    return LanceStore.open(where, identity)


def exists(where: str) -> bool:
    """Whether a store, or anything else, exists at a uri; raises the errors of `open_store`."""
    _check(where)
    if where.startswith(MILVUS):
        from rsir.store.milvus.connection import PATIENCE, Address, Connection

        connection = Connection(Address.parse(where), PATIENCE)
        try:
            return bool(connection.call("has_collection"))
        finally:
            connection.close()
    from rsir.store.lance.store import LanceStore

    return LanceStore.exists(where)


def without_secrets(where: str) -> str:
    """The path or uri of a store without user, password and token; safe to write to a file."""
    _check(where)
    if not where.startswith(MILVUS):
        return where
    from rsir.store.milvus.connection import Address

    return str(Address.parse(where))


def _check(name: str) -> None:
    scheme, separator, rest = name.partition("://")
    if not separator or name.startswith(MILVUS):
        return
    # Show only the scheme: the rest of the uri may contain a password.
    shown = f"{scheme}://" if scheme.isalnum() else "the uri"
    if f"{scheme}://" not in OBJECTS:
        known = ", ".join((MILVUS, *OBJECTS))
        raise UsageError(f"{shown}: no store is known for it; give a folder, or one of {known}")
    # A secret key may contain a slash, and the @ comes after it.
    if set(rest.partition("/")[0]) & set("@:"):
        raise UsageError(
            f"the uri of an object store takes no user and no secret: write {shown}bucket/"
            "name.lance, and give the credentials in the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or the names that the tools of your object store use)"
        )
