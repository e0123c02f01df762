"""Intervals of time in text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rsir.errors import UsageError
from rsir.store.filters.interval import interval


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024", "2024-01-01", "2025-01-01"),
        ("2023-02", "2023-02-01", "2023-03-01"),
        ("2024-02", "2024-02-01", "2024-03-01"),
        ("2024-12", "2024-12-01", "2025-01-01"),
        ("2024-05-31", "2024-05-31", "2024-06-01"),
        ("2024/2024", "2024-01-01", "2025-01-01"),
        ("2023-12/2024-02-29", "2023-12-01", "2024-03-01"),
        ("../2024-05", None, "2024-06-01"),
        ("2024-05/..", "2024-05-01", None),
        ("2024-05/", "2024-05-01", None),
        ("/2024-05", None, "2024-06-01"),
    ],
)
def test_a_year_a_month_or_a_day_means_all_of_it(
    text: str, first: str | None, last: str | None
) -> None:
    start, end = interval(text, "--datetime")
    assert start == (None if first is None else datetime.fromisoformat(first))
    assert (end and end + timedelta(microseconds=1)) == (
        None if last is None else datetime.fromisoformat(last)
    )


def test_a_moment_is_itself() -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert interval("2024-05-01T12:00:00Z", "when") == (noon, noon)
    assert interval("2024-05-01T14:00:00+02:00/..", "when") == (noon, None)
    assert interval("9999", "when") == (datetime(9999, 1, 1), datetime.max)


@pytest.mark.parametrize("text", ["", "..", "/", "../..", "May", "2024-13", "2024-02-30", "1/2/3",
                                  "2024-5-1", "0000", "2024/May"])  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--datetime"):
        interval(text, "--datetime")


@pytest.mark.parametrize("text", ["../..", "/", "../", "/.."])
def test_an_interval_without_ends(text: str) -> None:
    with pytest.raises(UsageError, match="open at both ends; leave it out"):
        interval(text, "when")
