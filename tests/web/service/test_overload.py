"""More requests than the service can handle, and stopping it while requests run."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray

from rsir.archive import Archive
from rsir.types import Encoding
from rsir.web.app import create_app
from rsir.web.client import connect_with
from tests.support.colour_encoder import ColourEncoder
from tests.web.served import World, png, problem, running, search, settings, upload

IMAGE = png(np.full((20, 20, 3), 90, np.uint8))

pytestmark = pytest.mark.slow


class SlowEncoder(ColourEncoder):
    """An encoder that takes `seconds` for a batch and counts simultaneous batches."""

    seconds = 0.3

    def __init__(self) -> None:
        super().__init__("cosine", 16)
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Encoding:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(self.seconds)
        try:
            return super().encode(images)
        finally:
            with self.lock:
                self.inside -= 1


@pytest.fixture
def slow(world: World) -> tuple[Archive, SlowEncoder]:
    encoder = SlowEncoder()
    return Archive.open(world.land.path, encoder), encoder


def post(url: str) -> httpx2.Response:
    with httpx2.Client(base_url=url, timeout=30) as http:
        return upload(http, IMAGE, k=1)


@pytest.mark.slow
def test_requests_beyond_the_queue_get_503_with_retry_after(
    world: World, slow: tuple[Archive, SlowEncoder]
) -> None:
    archive, encoder = slow
    app = create_app({"land": archive}, settings(world, waiting=3), page=False)
    with running(app) as (url, _), ThreadPoolExecutor(24) as pool:
        started = [pool.submit(post, url) for _ in range(24)]
        time.sleep(0.1)
        with httpx2.Client(base_url=url, timeout=30) as http:
            # Searches without encoding and health checks are answered meanwhile.
            start = time.monotonic()
            assert len(search(http, query={"vector": [1] * 16}, k=3)["hits"]) == 3
            assert http.get("/health").status_code == 200
            assert time.monotonic() - start < 5
        answers = [future.result() for future in started]
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 503}
        assert statuses[200] >= 1
        assert statuses[503] >= 1
        for answer in answers:
            if answer.status_code == 503:
                problem(answer, 503, "overloaded")
                assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert encoder.most == 1  # one model at a time
        assert post(url).status_code == 200


def test_requests_that_wait_too_long_get_503(
    world: World, slow: tuple[Archive, SlowEncoder]
) -> None:
    archive, _ = slow
    app = create_app({"land": archive}, settings(world, patience=0.2), page=False)
    with running(app) as (url, _), ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, [url] * 6))
    assert {answer.status_code for answer in answers} == {200, 503}


def test_more_requests_at_once_than_the_limit(
    world: World, slow: tuple[Archive, SlowEncoder]
) -> None:
    archive, _ = slow
    app = create_app({"land": archive}, settings(world, requests=2), page=False)
    with running(app) as (url, _), ThreadPoolExecutor(8) as pool:
        started = [pool.submit(post, url) for _ in range(8)]
        time.sleep(0.15)
        assert httpx2.get(f"{url}/health").status_code == 200
        assert httpx2.get(f"{url}/metrics").status_code == 200
        answers = [future.result() for future in started]
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.slow
def test_the_client_tries_again_after_the_requested_pause(
    world: World, slow: tuple[Archive, SlowEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, _ = slow
    pauses: list[float] = []
    real = time.sleep
    monkeypatch.setattr(
        "rsir.web.client.time.sleep", lambda seconds: (pauses.append(seconds), real(0.5))
    )
    app = create_app({"land": archive}, settings(world, waiting=0), page=False)
    with running(app) as (url, _), ThreadPoolExecutor(1) as pool:
        other = pool.submit(post, url)
        real(0.1)
        with connect_with(httpx2.Client(base_url=url, timeout=30)) as remote:
            assert len(remote.search(np.full((3, 9, 9), 50, np.uint8), 2)) == 2
        assert other.result().status_code == 200
    assert max(pauses) >= 1  # other code may pause, too


@pytest.mark.slow
def test_fifty_clients_at_once_get_the_right_answers(world: World) -> None:
    """A small test of correctness; benchmarks/service.py measures."""
    app = create_app({"land": world.land}, settings(world), page=False)
    ids = [record.id for record in world.land.records()]
    expected = {
        id: [hit.id for hit in world.land.search(vector, 5)]
        for id, vector in zip(ids, world.land.vectors(ids), strict=True)
    }
    vectors = dict(zip(ids, world.land.vectors(ids).tolist(), strict=True))

    async def ask(http: httpx2.AsyncClient, n: int) -> None:
        for i in range(4):
            id = ids[(n + i) % len(ids)]
            body = {"query": {"vector": vectors[id]}, "k": 5}
            answer = await http.post("/api/archives/land/search", json=body)
            assert answer.status_code == 200
            assert [hit["id"] for hit in answer.json()["hits"]] == expected[id]

    async def ask_all(url: str) -> None:
        limits = httpx2.Limits(max_connections=50)
        async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
            await asyncio.gather(*(ask(http, n) for n in range(50)))

    with running(app) as (url, _):
        asyncio.run(ask_all(url))


def test_a_stop_finishes_running_requests(world: World, slow: tuple[Archive, SlowEncoder]) -> None:
    archive, _ = slow
    app = create_app({"land": archive}, settings(world), page=False)
    with running(app) as (url, server), ThreadPoolExecutor(3) as pool:
        started = [pool.submit(post, url) for _ in range(3)]
        while app.state.service.encoding.inside < 3:
            time.sleep(0.01)
        server.should_exit = True
        assert [future.result().status_code for future in started] == [200] * 3
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/health")


def test_uploads_beyond_the_queue_are_refused_before_they_are_received(world: World) -> None:
    app = create_app({"land": world.land}, settings(world, waiting=1), page=False)
    with running(app) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        head = (
            b"POST /api/archives/land/search/images HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n--x"
        )
        with ExitStack() as stack:
            for _ in range(2):  # which send the beginning, and then nothing
                connection = stack.enter_context(socket.create_connection((host, int(port))))
                connection.sendall(head)
            time.sleep(0.3)
            answer = post(url)
            problem(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        for _ in range(100):  # the connections above are closed
            if post(url).status_code == 200:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the service does not recover")
