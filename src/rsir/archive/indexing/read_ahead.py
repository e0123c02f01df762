"""Run an iterator in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T], count: int) -> Generator[T]:
    """Yield the same items; a thread computes them, at most `count` ahead of the consumer.

    Raises the exceptions of `items`. Closing the generator ends the thread.
    """
    # An item in a tuple, an exception, or None for the end.
    results: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(count)
    closed = threading.Event()

    def put(value: tuple[T] | BaseException | None) -> None:
        while not closed.is_set():
            try:
                results.put(value, timeout=0.1)
            except queue.Full:
                continue
            return

    def make() -> None:
        try:
            for item in items:
                put((item,))
                if closed.is_set():
                    return
        except BaseException as error:  # the consumer raises it
            put(error)
        else:
            put(None)

    thread = threading.Thread(target=make, name="rsir-scene", daemon=True)
    thread.start()
    try:
        while (value := results.get()) is not None:
            if isinstance(value, BaseException):
                raise value
            yield value[0]
    finally:
        closed.set()
        thread.join()
