"""Several processes on one archive: two writers, and readers beside a writer."""

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


def in_parallel(*tasks: Task) -> list[tuple[list[object], int]]:
    """Do each of `tasks` in a process; all start after all have opened the archive."""
    children = [durable.Child(replace(task, waits=True)) for task in tasks]
    try:
        for child in children:
            assert [type(child.receive()), type(child.receive())] == [Started, Opened]
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
    first, second = (Task("index", path, tuple(some)) for some in (folders[:4], folders[2:]))
    ends = in_parallel(first, second)
    assert [status for _, status in ends] == [0, 0], ends
    # Both worked at the same time.
    assert sum(messages[-1].encoded for messages, _ in ends) > 48 - 1
    assert durable.contents(path) == durable.contents(whole.path)


@pytest.mark.parametrize("other", ["merge", "delete"])
def test_a_writer_beside_one_that_merges_or_deletes(tmp_path, folders, other):
    path = tmp_path / "archive"
    durable.run(Task("index", path, tuple(folders[:3])))
    before = durable.contents(path)
    ids = tuple(before)[::2] if other == "delete" else ()
    ends = in_parallel(Task("index", path, tuple(folders[3:])), Task(other, path, ids=ids))
    for messages, status in ends:
        assert status in (0, RsirError.exit_status), messages
        if status:
            assert "run the same command again" in messages[-1].error
    found = durable.contents(path)
    # Whatever the order of the two was, all that the returned calls have promised is there.
    for messages, _ in ends:
        done, _ = durable.promised({}, messages)
        assert done.items() <= found.items()
    if [status for _, status in ends] == [0, 0]:
        new = durable.promised({}, ends[0][0])[0]
        assert found == {id: row for id, row in before.items() if id not in ids} | new


def test_four_readers_beside_a_writer_see_whole_versions_that_only_grow(tmp_path, folders):
    path = tmp_path / "archive"
    durable.run(Task("index", path, (folders[0] / "0000.png",)))
    start = frozenset(durable.contents(path))
    messages, seen = durable.reading(path, 4, Task("grow", path, tuple(folders)))
    assert messages[-1].error == ""
    versions, rows = [start], set(start)
    for message in messages:
        if isinstance(message, Begin) and message.rows:
            assert len(message.rows) <= COMMIT_TILES
            rows |= {record.id for record, _ in message.rows}
            versions.append(frozenset(rows))
    assert len(rows) == 48
    for searches in seen:
        assert len(searches) >= 3
        numbers = [versions.index(search.ids) for search in searches]
        assert numbers == sorted(numbers)
        assert numbers[-1] == len(versions) - 1
        counts = [search.count for search in searches]
        assert counts == sorted(counts)
        assert all(search.count <= len(search.ids) for search in searches)
    assert len({search.ids for searches in seen for search in searches}) > 2
