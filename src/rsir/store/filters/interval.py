"""An interval of time, read from text."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta

from rsir.errors import UsageError


def interval(text: str, option: str) -> tuple[datetime | None, datetime | None]:
    """The first and the last moment of "A/B", "A/..", "../B" or "A"; None is an open end.

    A year, a month, a week, a day, an hour or a minute means all of it (ISO 8601). Raises
    UsageError, which names `option`, for anything else.
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
    """The first and the last microsecond of a year, a month, a week, a day, or of a time."""
    for pattern, read in _SPANS:
        found = re.fullmatch(pattern, text)
        if found:
            first, last = read(*map(int, found.groups()))
            return datetime.combine(first, time.min), datetime.combine(last, time.max)
    moment = datetime.fromisoformat(text)
    last = moment
    if re.fullmatch(r"[^T ]+[T ]\d\d(Z|[+-]\d\d(:?\d\d)?)?", text):
        last = moment + timedelta(hours=1, microseconds=-1)
    elif re.fullmatch(r"[^T ]+[T ]\d\d:?\d\d(Z|[+-]\d\d(:?\d\d)?)?", text):
        last = moment + timedelta(minutes=1, microseconds=-1)
    return moment, last


def _year(year: int) -> tuple[date, date]:
    return date(year, 1, 1), date(year, 12, 31)


def _month(year: int, month: int) -> tuple[date, date]:
    first = date(year, month, 1)
    return first, first.replace(day=calendar.monthrange(year, month)[1])


def _week(year: int, week: int) -> tuple[date, date]:
    return date.fromisocalendar(year, week, 1), date.fromisocalendar(year, week, 7)


def _weekday(year: int, week: int, weekday: int) -> tuple[date, date]:
    return (date.fromisocalendar(year, week, weekday),) * 2


def _day(year: int, month: int, day: int) -> tuple[date, date]:
    return (date(year, month, day),) * 2


def _ordinal(year: int, day: int) -> tuple[date, date]:
    found = date(year, 1, 1) + timedelta(days=day - 1)
    if found.year != year or day < 1:
        raise ValueError(f"the year {year} has no day {day}")
    return found, found


# ISO 8601-1:2019, 5.2, with hyphens and without. Six digits are not allowed there: they would be
# taken for a year and a month, or for a date with a short year.
_SPANS: tuple[tuple[str, Callable[..., tuple[date, date]]], ...] = (
    (r"(\d{4})", _year),
    (r"(\d{4})-(\d\d)", _month),
    (r"(\d{4})-?W(\d\d)", _week),
    (r"(\d{4})-?W(\d\d)-?(\d)", _weekday),
    (r"(\d{4})-(\d\d)-(\d\d)", _day),
    (r"(\d{4})(\d\d)(\d\d)", _day),
    (r"(\d{4})-?(\d{3})", _ordinal),
)
