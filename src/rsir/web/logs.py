"""Logs as JSON, one object a line, each with the id of its request."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the current request."""

_OWN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """Formats a log record as one line: time, level, logger, message, request, and its `extra`.

    JSON escapes line breaks in values, so that no client can forge a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one JSON object."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request": request_id.get(),
            **{name: value for name, value in record.__dict__.items() if name not in _OWN},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps({n: v for n, v in entry.items() if v is not None}, default=str)


def configure_logs(stream: TextIO = sys.stderr, *, plain: bool = False) -> None:
    """Write the logs of the service and its server to `stream`; of other loggers only warnings.

    The server's own line for each request is left out, because ours has more fields. plain: for
    people at a terminal: only warnings, as text.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s") if plain else JsonLines())
    logging.captureWarnings(True)  # or Python prints them between the lines
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name, level in (
        ("rsir", logging.INFO),
        ("uvicorn.error", logging.INFO),
        ("uvicorn.access", logging.CRITICAL),
    ):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
        logger.setLevel(max(level, logging.WARNING) if plain else level)
