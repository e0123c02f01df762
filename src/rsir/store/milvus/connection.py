"""The address of a Milvus collection, and calls that survive restarts of its server."""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from rsir.errors import ArchiveError, MissingExtraError, UsageError

SCHEME = "milvus"
PORT = 19530
"""Milvus' default."""

PATIENCE = 60.0
"""Seconds for which a call is repeated while the server is down or not ready. Our choice: other
nodes replace a killed node after 30 s (Milvus' common.session.ttl)."""

_PAUSES = (0.1, 2.0)
"""First and longest pause between two tries, in seconds. Our choice."""

_CONNECTING = 2
"""Timeout of the first connection in seconds; it doubles with each try. Our choice: pymilvus uses
all of it, even if the server has refused the password."""

STRONG, SESSION = "strong", "session"
_EXAMPLE = f"{SCHEME}://localhost:{PORT}/my_archive"

# Milvus: letters, digits and underscores, and no digit first; 255 at most.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")

# Messages of gRPC and of Milvus 2.3 (quotaAndLimits.limits.maxOutputSize) for a too large answer.
_TOO_MUCH = re.compile(r"larger than max|maxOutputSize", re.IGNORECASE)

# Codes of Milvus since 2.3 (pkg/util/merr) for which a repetition does not help.
_NO_DATABASE, _NO_COLLECTION, _NOT_LOADED, _BAD_REQUEST, _FORBIDDEN = 800, 100, 101, 1100, 1400
_AUTHENTICATION = re.compile(r"auth check failure|unauthenticated|permission ?denied", re.I)
_NO_SUCH_DATABASE = re.compile(r"database\S* not found", re.I)  # 2.3 gives it another code

_log = logging.getLogger(__name__)


class TooMuchError(Exception):
    """An answer is larger than the server may send; request less at a time."""


@dataclass(frozen=True)
class Address:
    """A collection of a Milvus server, from a uri and the environment.

    milvus://[user:password@]host[:port]/[database/]collection[?secure=true][&token=...]
    [&consistency=strong|session]; the environment variables MILVUS_USER, MILVUS_PASSWORD,
    MILVUS_TOKEN and MILVUS_DB supply what the uri leaves out, if `is_named`.

    is_named: whether the user named the host: in the uri, or as HOST or HOST:PORT in
    RSIR_MILVUS_HOSTS (separated by commas). An archive of a stranger may name any host, which must
    not get the credentials.
    """

    host: str
    port: int
    database: str
    collection: str
    secure: bool = False
    consistency: str = STRONG
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    is_named: bool = True

    @classmethod
    def parse(cls, uri: str, *, by_user: bool = True) -> Address:
        """The address in `uri`; UsageError, which shows no secret, for an invalid uri.

        by_user: whether the user gave the uri; False: it stands in an archive.
        """
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname, PORT if parts.port is None else parts.port
        except ValueError as error:
            raise _refused("its port must be a number below 65536") from error
        if parts.scheme != SCHEME or not host:
            raise _refused("it has another form")
        if "@" in parts.path:
            raise _refused("write a / in a user or password as %2F")
        given = _options(parts)
        names = [unquote(name) for name in parts.path.strip("/").split("/")]
        for name in names:
            if not _NAME.fullmatch(name):
                raise _refused(
                    f"a collection's name has letters, digits and underscores, no digit first, at "
                    f"most 255, not {name!r}"
                )
        if len(names) > 2:
            raise _refused("its path is a collection, or a database and a collection")
        consistency = given.get("consistency", STRONG)
        if consistency not in (STRONG, SESSION):
            raise _refused(f"consistency is '{STRONG}' or '{SESSION}', not {consistency!r}")
        hosts = [name.strip() for name in os.environ.get("RSIR_MILVUS_HOSTS", "").split(",")]
        is_named = by_user or host in hosts or f"{host}:{port}" in hosts
        supplied = os.environ if is_named else {}
        return cls(
            host=f"[{host}]" if ":" in host else host,
            port=port,
            database=names[0] if len(names) == 2 else supplied.get("MILVUS_DB", ""),
            collection=names[-1],
            secure=given.get("secure", "false").lower() == "true",
            consistency=consistency,
            user=unquote(parts.username or "") or supplied.get("MILVUS_USER", ""),
            password=unquote(parts.password or "") or supplied.get("MILVUS_PASSWORD", ""),
            token=given.get("token", "") or supplied.get("MILVUS_TOKEN", ""),
            is_named=is_named,
        )

    def __str__(self) -> str:
        """The uri without user, password and token; safe to show and to store."""
        path = "/".join(quote(name) for name in (self.database, self.collection) if name)
        options = ["secure=true"] if self.secure else []
        options += [f"consistency={self.consistency}"] if self.consistency != STRONG else []
        return (
            f"{SCHEME}://{self.host}:{self.port}/{path}"
            + ("?" if options else "")
            + "&".join(options)
        )

    def hidden(self, text: str) -> str:
        """`text` with the secrets masked."""
        for secret in (self.token, self.password):
            text = text.replace(secret, "***") if secret else text
        return text


class Connection:
    """Calls `pymilvus.MilvusClient`; repeats a call for `patience` seconds if the server is down.

    Every call must be safe to repeat. Threads may share a connection.
    """

    def __init__(self, address: Address, patience: float = PATIENCE) -> None:
        self.address = address
        self.patience = patience
        self._client: Any = None
        self._lock = threading.Lock()
        pymilvus()

    def call(self, name: str, **arguments: Any) -> Any:
        """`MilvusClient.<name>(collection_name=..., **arguments)`.

        Raises ArchiveError, which names the server, if the server stays down or refuses the call;
        TooMuchError if the answer is larger than the server may send.
        """
        from grpc import RpcError

        deadline = time.monotonic() + self.patience
        pause, longest = _PAUSES
        connecting = _CONNECTING
        warned = False
        while True:
            # Whole seconds: pymilvus 2.6.0 rejects fractions as the limit of its own repetitions.
            left = max(1, math.ceil(deadline - time.monotonic()))
            client = None
            try:
                client = self._connected(min(left, connecting))
                method = getattr(client, name)
                return method(collection_name=self.address.collection, timeout=left, **arguments)
            except (pymilvus().MilvusException, RpcError) as error:
                if _TOO_MUCH.search(str(error)):
                    raise TooMuchError from error
                self._give_up(error, late=time.monotonic() + pause > deadline)
                self._forget(client, error, left)
            if not warned and client is None:
                warned = True
                _log.warning("%s does not answer; trying for %d s", self.address, left)
            time.sleep(pause)
            pause, connecting = min(2 * pause, longest), 2 * connecting

    def close(self) -> None:
        """Close the connection; the next call connects again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self, seconds: int) -> Any:
        with self._lock:
            if self._client is None:
                address = self.address
                self._client = pymilvus().MilvusClient(
                    uri=f"http{'s' if address.secure else ''}://{address.host}:{address.port}",
                    user=address.user,
                    password=address.password,
                    token=address.token,
                    db_name=address.database,
                    timeout=seconds,
                )
            return self._client

    def _forget(self, client: Any, error: Exception, seconds: int) -> None:
        """Drop a failed connection; load a collection that is not loaded."""
        if client is not None and getattr(error, "code", None) == _NOT_LOADED:
            try:
                client.load_collection(self.address.collection, timeout=seconds)
            except pymilvus().MilvusException:
                pass  # the repeated call raises the reason
            return
        with self._lock:
            if self._client is client:
                self._client = None

    def _give_up(self, error: Any, *, late: bool) -> None:
        """Raise ArchiveError if a repetition does not help, or if it is too late to repeat."""
        address = self.address
        code, text = getattr(error, "code", None), address.hidden(_first_line(error))
        if code == _FORBIDDEN or _AUTHENTICATION.search(f"{error} {error.__cause__}"):
            advice = (
                ""
                if address.is_named
                else ". They go only to a server that you name: if you trust it, set "
                f"RSIR_MILVUS_HOSTS={address.host}:{address.port}"
            )
            raise ArchiveError(
                f"{address}: the server refuses the user or the token; give them as MILVUS_USER "
                f"and MILVUS_PASSWORD, or as MILVUS_TOKEN{advice}"
            ) from error
        if code == _NO_DATABASE or _NO_SUCH_DATABASE.search(str(error)):
            raise ArchiveError(
                f"{address}: there is no database {address.database!r}; create it on the server"
            ) from error
        if code == _NO_COLLECTION:
            raise ArchiveError(
                f"{address}: the collection was dropped while it was in use; restore it from a "
                "backup, or index into a new archive"
            ) from error
        if code == _BAD_REQUEST:
            raise ArchiveError(f"{address}: the server refuses the request ({text})") from error
        if late:
            tls = "with" if address.secure else "without"
            raise ArchiveError(
                f"{address}: the server did not answer for {self.patience:g} s ({text}); check "
                f"that it runs and can be reached {tls} TLS, then run the same command again"
            ) from error


def pymilvus() -> Any:
    """The pymilvus module, with its log silenced: the errors raised here include its messages.

    Raises MissingExtraError if it is not installed.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise MissingExtraError("a Milvus store", "milvus") from error
    # The handlers of these loggers stay: they may belong to others.
    for name in ("pymilvus", "pymilvus.milvus_client", "pymilvus.bulk_writer"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


def _options(parts: SplitResult) -> dict[str, str]:
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = sorted(set(given) - {"secure", "token", "consistency"})
    if unknown:
        raise _refused(f"it has no option {unknown[0]!r}; there are secure, token, consistency")
    if given.get("secure", "false").lower() not in ("true", "false"):
        raise _refused("secure is true or false")
    return given


def _refused(reason: str) -> UsageError:
    return UsageError(f"the uri of a Milvus store is like {_EXAMPLE}: {reason}")


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "message", "") or error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
