"""Items made in a background thread."""

import threading

import pytest

from rsir.archive.indexing.read_ahead import read_ahead


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "rsir-scene"]


def test_items_come_in_order():
    assert list(read_ahead(iter(range(50)), 4)) == list(range(50))
    assert not running()


def test_the_thread_stays_few_items_ahead_and_ends_when_the_consumer_stops():
    made = []

    def numbers():
        for n in range(1000):
            made.append(n)
            yield n

    items = read_ahead(numbers(), 4)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    assert running()
    items.close()
    assert len(made) <= 3 + 4 + 2
    assert not running()


def test_the_consumer_gets_the_exception():
    def failing():
        yield 1
        raise ValueError("gone")

    items = read_ahead(failing(), 4)
    assert next(items) == 1
    with pytest.raises(ValueError, match="gone"):
        next(items)
    assert not running()
