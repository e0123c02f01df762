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
        ("20240531", "2024-05-31", "2024-06-01"),
        ("20240430/20240501", "2024-04-30", "2024-05-02"),
        ("2024-W18", "2024-04-29", "2024-05-06"),
        ("2024W18", "2024-04-29", "2024-05-06"),
        ("2020-W53", "2020-12-28", "2021-01-04"),
        ("2024-W18-3", "2024-05-01", "2024-05-02"),
        ("2024W183", "2024-05-01", "2024-05-02"),
        ("2024-366", "2024-12-31", "2025-01-01"),
        ("2024122", "2024-05-01", "2024-05-02"),
        ("2024-05-01T10", "2024-05-01T10:00", "2024-05-01T11:00"),
        ("2024-05-01T10:30", "2024-05-01T10:30", "2024-05-01T10:31"),
        ("20240501T1030", "2024-05-01T10:30", "2024-05-01T10:31"),
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
                                  "2024-5-1", "0000", "2024/May", "202405", "2023-366",
                                  "2024-W54", "2024-W18-8", "2024-05-01/P1M", "P1D"])  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--datetime"):
        interval(text, "--datetime")


@pytest.mark.parametrize("text", ["../..", "/", "../", "/.."])
def test_an_interval_without_ends(text: str) -> None:
    with pytest.raises(UsageError, match="open at both ends; leave it out"):
        interval(text, "when")
