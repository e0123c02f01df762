"""Read with GDAL: its options, its errors, and the damage that it only logs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rsir.errors import ImageError
from rsir.sources.gate import guarded

# Our choice; by default GDAL's block cache takes a twentieth of the memory. Two rows of tiles of
# 20,000 × 512 pixels × 3 bands × 1 byte are 60 MB.
_CACHE_BYTES = 128 << 20

_OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": _CACHE_BYTES,
    # Without it, the missing part of a truncated JPEG is grey.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    # With it, the missing part of a truncated PNG is what lay in memory before.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_MAX_RETRY": "3",
}

REMOTE: Mapping[str, Any] = _OPTIONS | {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
"""Options for a file on another machine: GDAL requests no sidecar files."""

# A local file may contact no other machine: this is the only name that GDAL would fetch.
_LOCAL = _OPTIONS | {"CPL_VSIL_CURL_ALLOWED_FILENAME": "/vsicurl/none"}

ALONE: Mapping[str, Any] = _LOCAL | {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
"""Options for a local file without sidecar files."""

WITH_SIDECARS: Mapping[str, Any] = _LOCAL | {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
"""Options for a local file with sidecar files. GDAL looks for each by its name, and does not list
the folder."""


@contextmanager
def reading(uri: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Set GDAL's options, and turn every error into an ImageError of the file `uri`.

    What GDAL logs as a corrupt JPEG counts as an error: it fills the missing part with grey.
    """
    import rasterio

    with guarded(uri), rasterio.Env(**options), _DAMAGE.watched() as messages:
        yield
    if messages:
        name = f"{uri}: " if uri else ""
        raise ImageError(f"{name}damaged or cut off ({messages[0]}); fetch it again")


class _DamageLog(logging.Handler):
    """Collects rasterio's log messages about damage, separately for each thread."""

    _WORDS = ("Corrupt JPEG", "Premature end of JPEG")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._local = threading.local()
        self._lock_once = threading.Lock()
        self._installed = False

    def emit(self, record: logging.LogRecord) -> None:
        messages: list[str] | None = getattr(self._local, "messages", None)
        if messages is not None:
            text = record.getMessage()
            if any(word in text for word in self._WORDS):
                messages.append(text.rpartition(":JPEGLib:")[2])

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """The messages of this thread, up to the end of the block."""
        with self._lock_once:
            if not self._installed:
                for name in ("rasterio._env", "rasterio._err"):
                    logging.getLogger(name).addHandler(self)
                self._installed = True
        outer = getattr(self._local, "messages", None)
        messages: list[str] = []
        self._local.messages = messages
        try:
            yield messages
        finally:
            self._local.messages = outer


_DAMAGE = _DamageLog()
