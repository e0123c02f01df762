"""Logs as JSON, one object a line, with the id of the request that they belong to."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered."""

_OWN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """A log record as one line: time, level, logger, message, request, and what `extra` says.

    Line breaks in values are escaped, as JSON does, so that nobody can write a line of theirs.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request": request_id.get(),
            **{name: value for name, value in record.__dict__.items() if name not in _OWN},
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps({n: v for n, v in said.items() if v is not None}, default=str)


def configure(stream: TextIO = sys.stderr) -> None:
    """Write the logs of the service and of its server to `stream`, and nobody else's but warnings.

    The server's own line for each request is left out: ours says more.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
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
        logger.setLevel(level)
