"""The size and modification time of remote files."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rsir.errors import DataError
from rsir.sources import file_state, remote


@pytest.mark.parametrize(
    ("date", "wanted"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", datetime(2015, 10, 21, 7, 28, tzinfo=UTC).timestamp()),
        ("yesterday", 0),
        ("", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_a_wrong_date_of_a_server_counts_as_unknown(monkeypatch, date, wanted):
    headers = {"last-modified": date, "content-range": "bytes 0-0/123"}
    monkeypatch.setattr(file_state, "http_get", lambda *_, **__: (b"x", headers))
    assert file_state.stamp("http://somewhere/a.tif") == (123, wanted * 1_000_000_000)


def test_an_object_store_that_does_not_answer_is_a_data_error(monkeypatch):
    class Down:
        def get_file_info(self, _):
            raise OSError("no route")

    monkeypatch.setattr(remote, "file_system", lambda _: (Down(), "bucket/a.tif"))
    with pytest.raises(DataError, match="no route"):
        file_state.stamp("s3://bucket/a.tif")
