"""Several processes at one archive: two that write, and readers beside one that writes."""

from dataclasses import replace
from pathlib import Path

import pytest

from rsir.errors import RsirError
from tests.durability import durable
from tests.durability.durable_worker import COMMIT_TILES, Begin, Opened, Started, Task


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six folders of eight images."""
    root = tmp_path_factory.mktemp("folders")
    return [durable.paint(root / f"{n}", range(8 * n, 8 * n + 8)) for n in range(6)]


def at_once(*tasks: Task) -> list[tuple[list[object], int]]:
    """Each of `tasks` in a process; they begin when all have opened the archive."""
    children = [durable.Child(replace(task, waits=True)) for task in tasks]
    try:
        for child in children:
            assert [type(child.hear()), type(child.hear())] == [Started, Opened]
        for child in children:
            child.connection.send("go")
        return [(child.rest(), child.process.exitcode) for child in children]
    finally:
        for child in children:
            child.__exit__()


def test_two_writers_of_overlapping_folders_lose_and_double_nothing(tmp_path, folders):
    whole = Task("index", tmp_path / "whole", tuple(folders))
    durable.run(whole)
    path = tmp_path / "archive"
    durable.run(Task("index", path, (folders[0] / "0000.png",)))
    ends = at_once(Task("index", path, tuple(folders[:4])), Task("index", path, tuple(folders[2:])))
    assert [status for _, status in ends] == [0, 0], ends
    # Both worked at the same time: each encoded more than the other left to it.
    assert sum(heard[-1].encoded for heard, _ in ends) > 48 - 1
    assert durable.contents(path) == durable.contents(whole.path)


@pytest.mark.parametrize("other", ["merge", "delete"])
def test_a_writer_beside_one_that_merges_or_deletes(tmp_path, folders, other):
    path = tmp_path / "archive"
    durable.run(Task("index", path, tuple(folders[:3])))
    before = durable.contents(path)
    ids = tuple(before)[::2] if other == "delete" else ()
    ends = at_once(Task("index", path, tuple(folders[3:])), Task(other, path, ids=ids))
    for heard, status in ends:
        assert status in (0, RsirError.exit_status), heard
        if status:
            assert "run the same again" in heard[-1].error
    found = durable.contents(path)
    # All that a call which came back has promised, whatever the order of the two was.
    for heard, _ in ends:
        done, _ = durable.promised({}, heard)
        assert done.items() <= found.items()
    if [status for _, status in ends] == [0, 0]:
        new = durable.promised({}, ends[0][0])[0]
        assert found == {id: row for id, row in before.items() if id not in ids} | new


def test_four_readers_beside_a_writer_see_whole_versions_that_only_grow(tmp_path, folders):
    path = tmp_path / "archive"
    durable.run(Task("index", path, (folders[0] / "0000.png",)))
    start = frozenset(durable.contents(path))
    told, seen = durable.reading(path, 4, Task("grow", path, tuple(folders)))
    assert told[-1].error == ""
    versions, rows = [start], set(start)
    for message in told:
        if isinstance(message, Begin) and message.rows:
            assert len(message.rows) <= COMMIT_TILES
            rows |= {record.id for record, _ in message.rows}
            versions.append(frozenset(rows))
    assert len(rows) == 48
    for ones in seen:
        assert len(ones) >= 3
        places = [versions.index(one.ids) for one in ones]
        assert places == sorted(places)
        assert places[-1] == len(versions) - 1
        counts = [one.count for one in ones]
        assert counts == sorted(counts)
        assert all(one.count <= len(one.ids) for one in ones)
    assert len({one.ids for ones in seen for one in ones}) > 2
