"""The permissions and limits of the service."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from rsir.errors import UsageError

SHORTEST_KEY = 16
"""Least length of an API key; our choice: 16 random letters and digits are 95 bits."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Permissions and limits of a service. The limits are our choice, for a machine of a few cores.

    api_key: needed for adding and deleting; None: the service refuses both.
    allow_add: folders that contain all paths of additions; empty: the service adds nothing.
    allow_remote: whether the service reads sources on other machines (for thumbnails, windows,
        tiles of scenes, additions).
    hosts: names by which clients may address the service, against DNS rebinding; empty: any.
    origins: other sites, "https://maps.example.org", whose pages may use the service (CORS).
    proxies: addresses of proxies whose X-Forwarded-Host, -Proto and -Prefix count; "*": any.
    searches: searches that run at the same time.
    waiting: requests of one kind (searches, images to encode, pictures) that may wait for a
        thread; further requests get status 503.
    patience: most seconds that a request waits.
    requests: requests of all kinds at the same time.
    max_body: bytes of a request.
    max_json: bytes of a JSON body; the service parses it while all other requests wait.
    body_seconds: time in which the body of a request must arrive.
    max_pixels: width × height of an uploaded image.
    max_hits: hits of a search.
    max_diverse: hits of a search without near-duplicates, which examines many more.
    max_page: records in one response.
    max_examples: positive and negative examples of a search, each.
    thumbnail_bytes: bytes of the thumbnails in memory.
    """

    api_key: str | None = field(default=None, repr=False)
    allow_add: tuple[Path, ...] = ()
    allow_remote: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    searches: int = 2
    waiting: int = 64
    patience: float = 20.0
    requests: int = 512
    max_body: int = 32 << 20
    max_json: int = 4 << 20
    body_seconds: float = 30.0
    max_pixels: int = 4096 * 4096
    max_hits: int = 1000
    max_diverse: int = 100
    max_page: int = 1000
    max_examples: int = 100
    thumbnail_bytes: int = 128 << 20

    def __post_init__(self) -> None:
        if self.api_key is not None and len(self.api_key) < SHORTEST_KEY:
            raise UsageError(f"the API key needs at least {SHORTEST_KEY} characters")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise UsageError("the API key must consist of printable ASCII characters")
        for name in (
            *("searches", "requests", "max_body", "max_json"),
            *("max_pixels", "max_hits", "max_page"),
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1")
        for origin in self.origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s*]+", origin):
                raise UsageError(
                    f"{origin!r} is no origin; write https://HOST, without a path, or *"
                )
        for folder in self.allow_add:
            if not folder.is_dir():
                raise UsageError(
                    f"{folder}: no such folder; additions can be allowed below folders only"
                )
