"""An interval of time, read from text."""

from __future__ import annotations

import calendar
import re
from datetime import datetime

from rsir.errors import UsageError


def interval(text: str, option: str) -> tuple[datetime | None, datetime | None]:
    """The first and the last moment of "A/B", "A/..", "../B" or "A"; None is an open end.

    A year, a month or a day means all of it. Raises UsageError, which names `option`, for
    anything else.
    """
    first, slash, last = text.partition("/")
    if not slash:
        last = first
    ends = [None if end in ("", "..") and slash else end for end in (first, last)]
    if ends == [None, None]:
        raise UsageError(f"{option} {text} is open at both ends; leave it out")
    try:
        start = None if ends[0] is None else _span(ends[0])[0]
        end = None if ends[1] is None else _span(ends[1])[1]
    except ValueError as error:
        raise UsageError(
            f"{option} {text}: write it as A/B, A/.. or ../B, times in ISO 8601, e.g. "
            "2024-05-01/2024-05-31 or 2024-05-01T10:00:00Z/.."
        ) from error
    return start, end


def _span(text: str) -> tuple[datetime, datetime]:
    """The first and the last microsecond of a year, a month, a day or a moment."""
    if not re.fullmatch(r"\d{4}(-\d\d){0,2}", text):
        moment = datetime.fromisoformat(text)
        return moment, moment
    year, *rest = map(int, text.split("-"))
    month, day = (*rest, 0, 0)[:2]
    last_month = month or 12
    last_day = day or calendar.monthrange(year, last_month)[1]
    last = datetime(year, last_month, last_day, 23, 59, 59, 999_999)
    return datetime(year, month or 1, day or 1), last
