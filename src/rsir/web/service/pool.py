"""Run blocking calls in a few threads with a short queue; further calls fail immediately."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from rsir.web.problems import OverloadedError

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_RETRY = 60
_WEIGHT = 0.1
"""Weight of the last call in the running mean of durations; our choice."""


class BoundedPool:
    """A pool of threads for calls of one kind.

    `workers` calls run at once and `waiting` calls wait; further calls raise OverloadedError. So
    does a call that has waited for `patience` seconds, because its client has likely given up.
    """

    def __init__(self, name: str, workers: int, waiting: int, patience: float) -> None:
        self.name = name
        self.workers = workers
        self._most = workers + waiting
        self._patience = patience
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=f"rsir-{name}")
        self._lock = threading.Lock()
        self._inside = 0
        self._mean = 0.0

    @property
    def inside(self) -> int:
        """Calls that run or wait."""
        return self._inside

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in one of the threads; OverloadedError if it cannot start in time."""
        with self._lock:
            if self._inside >= self._most:
                raise self._overloaded()
            self._inside += 1
        future = self._threads.submit(self._timed, partial(function, *args, **kwargs))
        future.add_done_callback(self._left)
        waiting = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait({waiting}, timeout=self._patience)
            # A call that runs cannot be cancelled, so its result is awaited.
            if not done and future.cancel():
                raise self._overloaded()
            return await waiting
        except asyncio.CancelledError:
            future.cancel()
            # Retrieve the exception, if any, so that asyncio does not log it as lost.
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    def close(self) -> None:
        """Wait for the running calls; cancel the waiting calls."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _timed(self, call: Callable[[], T]) -> T:
        start = time.monotonic()
        try:
            return call()
        finally:
            seconds = time.monotonic() - start
            self._mean += _WEIGHT * (seconds - self._mean) if self._mean else seconds

    def _left(self, _future: Future[Any]) -> None:
        with self._lock:
            self._inside -= 1

    def _overloaded(self) -> OverloadedError:
        seconds = math.ceil(self._mean * self._inside / self.workers)
        return OverloadedError(
            f"too many requests at once ({self.name}); try again later",
            retry_after=min(max(seconds, 1), _LONGEST_RETRY),
        )
