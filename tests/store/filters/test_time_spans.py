"""The time that records cover, of columns and of single records."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rsir.store.filters.fields import RecordColumns, microseconds
from rsir.store.filters.filter import Filter, select
from rsir.store.filters.time_spans import span_of, spans
from rsir.store.records.record import Record

MAY = datetime(2024, 5, 1, tzinfo=UTC)


def record(time: datetime | None, start: object = None, end: object = None) -> Record:
    ends = {"start_datetime": start, "end_datetime": end}
    return Record("a", "s", "", datetime=time, properties={k: v for k, v in ends.items() if v})


RECORDS = {
    "none": (record(None), None),
    "one": (record(MAY), ("2024-05-01", "2024-05-01")),
    "both": (record(MAY, "2024-04-01", "2024-06-30T12:00:00Z"), ("2024-04-01", "2024-06-30T12:00")),
    "no datetime": (record(None, "2024-04-01", "2024-06-30"), ("2024-04-01", "2024-06-30")),
    "only a start": (record(MAY, "2024-04-01"), ("2024-04-01", "2024-05-01")),
    "only an end": (record(MAY, None, "2024-06-30"), ("2024-05-01", "2024-06-30")),
    "a start alone": (record(None, "2024-04-01"), ("2024-04-01", "2024-04-01")),
    "an end alone": (record(None, None, "2024-06-30"), ("2024-06-30", "2024-06-30")),
    "no times": (record(MAY, "spring", 7), ("2024-05-01", "2024-05-01")),
    "turned": (record(None, "2024-06-30", "2024-04-01"), ("2024-06-30", "2024-06-30")),
    "a zone": (record(None, "2024-05-01T02:00:00+02:00"), ("2024-05-01", "2024-05-01")),
}


@pytest.mark.parametrize("name", RECORDS)
def test_spans(name: str) -> None:
    one, ends = RECORDS[name]
    wanted = None if ends is None else tuple(microseconds(datetime.fromisoformat(e)) for e in ends)
    assert span_of(one) == wanted
    everything = [each for each, _ in RECORDS.values()]
    first, last, known = spans(RecordColumns(everything))
    row = list(RECORDS).index(name)
    assert bool(known[row]) is (wanted is not None)
    if wanted is not None:
        assert (int(first[row]), int(last[row])) == wanted


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        ("2024-03-01", "2024-03-31", False),
        ("2024-03-01", "2024-04-01", True),
        ("2024-05-10", "2024-05-11", True),  # inside the interval
        ("2024-06-30", None, True),
        ("2024-07-01", None, False),
        (None, "2024-03-31", False),
        (None, "2024-04-01", True),
    ],
)
def test_an_interval_meets_every_filter_that_it_overlaps(
    start: str | None, end: str | None, found: bool
) -> None:
    ends = [None if text is None else datetime.fromisoformat(text) for text in (start, end)]
    filter = Filter(start=ends[0], end=ends[1])
    scene = record(None, "2024-04-01T00:00:00Z", "2024-06-30T00:00:00Z")
    assert select(filter, RecordColumns([scene])).tolist() == [found]
