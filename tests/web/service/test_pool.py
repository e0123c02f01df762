"""The bounded pool of threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rsir.web.problems import OverloadedError
from rsir.web.service.pool import BoundedPool


def test_a_pool_counts_its_calls_whatever_happens() -> None:
    async def run_calls() -> None:
        pool = BoundedPool("testing", 1, 1, patience=0.2)
        hold = threading.Event()

        def fail() -> None:
            raise ValueError("inside")

        with pytest.raises(ValueError, match="inside"):
            await pool.run(fail)
        running = asyncio.create_task(pool.run(hold.wait, 10))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(pool.run(lambda: 1))
        await asyncio.sleep(0.05)
        assert pool.inside == 2
        with pytest.raises(OverloadedError):
            await pool.run(lambda: 2)  # full
        with pytest.raises(OverloadedError):
            await waiting  # waited too long
        assert pool.inside == 1
        left = asyncio.create_task(pool.run(lambda: 3))
        await asyncio.sleep(0.05)
        left.cancel()  # the client has gone
        with pytest.raises(asyncio.CancelledError):
            await left
        hold.set()
        assert await running is True
        assert await pool.run(lambda a, b=0: a + b, 1, b=2) == 3
        assert pool.inside == 0
        pool.close()

    asyncio.run(run_calls())
