"""The walks in docs/architecture.md: an image passes exactly the files that they list."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

import rsir
from tests.cli.running import Shell

SOURCE = Path(rsir.__file__).parent
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
WALK = re.compile(r"^### `rsir (\w+) .*?`: .*?\n\n((?:\d+\. .*\n)+)", re.MULTILINE)
WALKS = {
    verb: re.findall(r"^\d+\. `([^`]+)`", steps, re.MULTILINE)
    for verb, steps in WALK.findall(DOCUMENT.read_text("utf-8"))
}


@contextmanager
def called_files() -> Iterator[set[str]]:
    """Collect the files of rsir of which a function is called, in any thread."""
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # Modules and bodies of classes run at import; they are not optimised as functions are.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:
            path = Path(code.co_filename)
            if path.is_relative_to(SOURCE):
                found.add(path.relative_to(SOURCE).as_posix())

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def test_both_walks_are_short_and_name_each_file_once() -> None:
    assert set(WALKS) == {"search", "index"}
    for files in WALKS.values():
        assert 5 < len(files) <= 10
        assert len(set(files)) == len(files)
        assert all((SOURCE / file).is_file() for file in files)


@pytest.mark.parametrize("verb", sorted(WALKS))
def test_an_image_passes_the_files_of_the_walk(
    verb: str, shell: Shell, model: Path, images: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    query = coloured_classes / "lake" / "lake03.png"
    with called_files() as files:
        if verb == "search":
            done = shell("search", images, query)
        else:
            done = shell("index", tmp_path / "new", coloured_classes / "lake", "--model", model)
    assert done.status == 0, done.err
    assert set(WALKS[verb]) <= files
