"""JSON that somebody else wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rsir.documents import MOST_LEVELS, levels, parse_object, read_object


def test_numbers_that_are_not_finite_become_none() -> None:
    text = '{"a": [NaN, Infinity, -Infinity, 1e999, -1e999, 1e308, 0.1], "b": 7}'
    assert parse_object(text) == {"a": [None, None, None, None, None, 1e308, 0.1], "b": 7}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        (b'{"a": "\xff"}', "not readable as JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not readable as JSON"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + "[" * MOST_LEVELS + "]" * MOST_LEVELS + "}", "nested too deeply"),
    ],
)
def test_what_is_no_object_is_refused_with_a_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        parse_object(text)
    assert "\n" not in str(refused.value)


def test_levels() -> None:
    assert [levels(value) for value in (1, [], {}, [1], [[]], {"a": [{"b": 1}]})] == [
        0, 1, 1, 1, 2, 3,
    ]  # fmt: skip
    inner = MOST_LEVELS - 1
    assert parse_object('{"a": ' + "[" * inner + "]" * inner + "}")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(tmp_path / "a.json") == {"a": 1}
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(ValueError, match="not a regular file"):
            read_object(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "none")
