"""A file is whole or as before, whatever happens while it is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rsir import atomic


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_draft_takes_the_place_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("before")
    with atomic.replacing(path) as draft:
        draft.write_text("after")
        assert path.read_text() == "before"
        assert draft.parent == path.parent
    assert files(tmp_path) == {"report.json": b"after"}


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"before"])
def test_an_error_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException], before: bytes | None
) -> None:
    path = tmp_path / "report.json"
    if before is not None:
        path.write_bytes(before)

    def write() -> None:
        with atomic.replacing(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert files(tmp_path) == ({} if before is None else {"report.json": before})


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "a"):
        pass
    assert files(tmp_path) == {}


def test_drafts_of_the_same_file_are_apart(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic.replacing(path) as first:
        first.write_text("first")
        with atomic.replacing(path) as second:
            assert first != second
            second.write_text("second")
        assert path.read_text() == "second"
    assert files(tmp_path) == {"a": b"first"}


def test_text_and_json_are_utf_8_with_line_ends_as_they_are(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "text", "é\r\n")
    assert (tmp_path / "text").read_bytes() == "é\r\n".encode()
    value = {"name": "é", "list": [1, None, 0.5]}
    atomic.write_json(tmp_path / "json", value)
    data = (tmp_path / "json").read_bytes()
    assert json.loads(data) == value
    assert "é".encode() in data
    assert data.endswith(b"}\n")


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic.write_text(tmp_path / "absent" / "file", "text")


WRITER = """
import sys
from pathlib import Path
from rsir import atomic
path, text = Path(sys.argv[1]), sys.argv[2] * 200_000
print("ready", flush=True)
while True:
    atomic.write_text(path, text)
"""


def test_readers_beside_two_writers_that_are_killed_see_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen([*command, letter], stdout=subprocess.PIPE, env=os.environ)
        for letter in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    seen = set()
    until = time.monotonic() + 60
    while len(seen) < 2 and time.monotonic() < until:
        if path.exists():
            text = path.read_text()
            assert len(text) == 200_000
            seen |= set(text)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    assert seen == {"a", "b"}
    assert set(path.read_text()) < {"a", "b"}
    assert len(path.read_text()) == 200_000
