"""What the service may do, and how much of it at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rsir.errors import UsageError

SHORTEST_KEY = 16
"""Characters of an API key at least; our choice: 16 random letters and digits are 95 bits."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """All limits are our choice, for a machine of a few cores; each can be changed.

    api_key: what adding and deleting need; None: neither is possible. allow_add: folders below
    which what is added must lie; empty: nothing can be added. allow_remote: whether sources that
    are uris may be read (thumbnails, windows, tiles of scenes, additions). hosts: names by which
    the service may be called, against DNS rebinding; empty: any.

    searches: searches at once. waiting: requests of one kind (searches, images to encode,
    pictures) that may wait for their turn, beyond which the answer is 503. patience: seconds one
    waits at most. requests: running at once in all, of whatever kind.
    max_body: bytes of a request; max_json: of one in JSON, which is read in one go, beside all
    others. body_seconds: in which it must have come. max_pixels: width ×
    height of an uploaded image. max_hits, max_diverse: hits of a search, and of one that leaves
    out what is alike, which looks at many more. max_page: records in one answer.
    max_examples: positives and negatives of a search, each.
    thumbnail_bytes: of pictures that are kept in memory.
    """

    api_key: str | None = field(default=None, repr=False)
    allow_add: tuple[Path, ...] = ()
    allow_remote: bool = False
    hosts: tuple[str, ...] = ()
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
            raise UsageError("the API key is of printable ASCII characters")
        names = (
            "searches",
            "requests",
            "max_body",
            "max_json",
            "max_pixels",
            "max_hits",
            "max_page",
        )
        for name in names:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1")
        for folder in self.allow_add:
            if not folder.is_dir():
                raise UsageError(f"{folder}: no such folder; additions are allowed below folders")
