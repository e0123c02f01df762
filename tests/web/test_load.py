"""More than the service can do: it says so, and stays up; a stop waits for what runs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
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
from starlette.testclient import TestClient

from rsir.archive import Archive
from rsir.types import Encoding
from rsir.web import logs
from rsir.web.app import create_app
from rsir.web.client import connected
from rsir.web.problems import OverloadedError
from rsir.web.service.pool import BoundedPool
from tests.support.colour_encoder import ColourEncoder
from tests.web.served import World, png, problem, running, search, settings, upload

IMAGE = png(np.full((20, 20, 3), 90, np.uint8))


class SlowEncoder(ColourEncoder):
    """Takes `seconds` for a batch, and notes how many batches are encoded at once."""

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


def test_beyond_the_queue_the_answer_is_503_and_when_to_come_again(
    world: World, slow: tuple[Archive, SlowEncoder]
) -> None:
    archive, encoder = slow
    app = create_app({"land": archive}, settings(world, waiting=3), page=False)
    with running(app) as (url, _), ThreadPoolExecutor(24) as pool:
        started = [pool.submit(post, url) for _ in range(24)]
        time.sleep(0.1)
        with httpx2.Client(base_url=url, timeout=30) as http:
            # What needs no encoding goes on meanwhile, and who watches sees that it lives.
            start = time.monotonic()
            assert len(search(http, query={"vector": [1] * 16}, k=3)["hits"]) == 3
            assert http.get("/health").status_code == 200
            assert time.monotonic() - start < 5
        answers = [one.result() for one in started]
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


def test_who_waits_too_long_is_told(world: World, slow: tuple[Archive, SlowEncoder]) -> None:
    archive, _ = slow
    app = create_app({"land": archive}, settings(world, patience=0.2), page=False)
    with running(app) as (url, _), ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, [url] * 6))
    assert {answer.status_code for answer in answers} == {200, 503}


def test_more_requests_than_it_answers_at_once(
    world: World, slow: tuple[Archive, SlowEncoder]
) -> None:
    archive, _ = slow
    app = create_app({"land": archive}, settings(world, requests=2), page=False)
    with running(app) as (url, _), ThreadPoolExecutor(8) as pool:
        started = [pool.submit(post, url) for _ in range(8)]
        time.sleep(0.15)
        assert httpx2.get(f"{url}/health").status_code == 200
        assert httpx2.get(f"{url}/metrics").status_code == 200
        answers = [one.result() for one in started]
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1


def test_the_client_comes_again_when_it_is_told_to(
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
        with connected(httpx2.Client(base_url=url, timeout=30)) as remote:
            assert len(remote.search(np.full((3, 9, 9), 50, np.uint8), 2)) == 2
        assert other.result().status_code == 200
    assert max(pauses) >= 1  # beside those of others


def test_fifty_clients_at_once_get_the_right_answers(world: World) -> None:
    """Small, and about correctness: benchmarks/service.py measures."""
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

    async def all_of_them(url: str) -> None:
        limits = httpx2.Limits(max_connections=50)
        async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
            await asyncio.gather(*(ask(http, n) for n in range(50)))

    with running(app) as (url, _):
        asyncio.run(all_of_them(url))


def test_a_stop_finishes_running_requests(world: World, slow: tuple[Archive, SlowEncoder]) -> None:
    archive, _ = slow
    app = create_app({"land": archive}, settings(world), page=False)
    with running(app) as (url, server), ThreadPoolExecutor(3) as pool:
        started = [pool.submit(post, url) for _ in range(3)]
        while app.state.service.encoding.inside < 3:
            time.sleep(0.01)
        server.should_exit = True
        assert [one.result().status_code for one in started] == [200] * 3
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/health")


def test_a_pool_counts_right_whatever_happens() -> None:
    async def everything() -> None:
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
            await waiting  # in vain
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

    asyncio.run(everything())


def test_the_log_is_lines_of_json_with_request_ids(world: World) -> None:
    stream = io.StringIO()
    saved = {
        name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level)
        for name in ("", "rsir", "uvicorn.error", "uvicorn.access")
    }
    logs.configure(stream)
    try:
        app = create_app({"land": world.land}, settings(world), page=False)
        with TestClient(app) as http:
            http.post(
                "/api/archives/land/search",
                json={"query": {"vector": [1] * 16}, "k": 3},
                headers={"x-request-id": "mine"},
            )
            upload(http, IMAGE, k=2)
            http.get("/api/archives/nothing")
    finally:
        for name, (handlers, level) in saved.items():
            logging.getLogger(name).handlers[:] = handlers
            logging.getLogger(name).setLevel(level)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    first, second = (line for line in lines if line["message"] == "search")
    assert first["request"] == "mine"
    assert (first["archive"], first["query"], first["k"], first["hits"]) == ("land", "vector", 3, 3)
    assert first["searched"] == len(world.land)
    assert 0 <= first["work_seconds"] <= first["seconds"] < 60
    assert second["query"] == "image"
    assert len(second["request"]) == 32
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["status"] for line in requests] == [200, 200, 404]
    assert requests[0]["request"] == "mine"
    assert requests[0]["path"] == "/api/archives/land/search"


def test_pictures_do_not_fill_the_memory(world: World) -> None:
    app = create_app({"land": world.land}, settings(world, thumbnail_bytes=9000), page=False)
    with TestClient(app) as http:
        for record in world.land.records():
            for size in (32, 64, 100):
                path = f"/api/archives/land/items/{record.id}/thumbnail"
                assert http.get(path, params={"size": size}).status_code == 200
    kept = app.state.service._thumbnails
    assert 0 < kept.currsize <= 9000
    assert sum(map(len, kept.values())) == kept.currsize


def test_uploads_beyond_the_queue_are_refused_before_they_are_received(world: World) -> None:
    app = create_app({"land": world.land}, settings(world, waiting=1), page=False)
    with running(app) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        head = (
            b"POST /api/archives/land/search/images HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n--x"
        )
        with ExitStack() as stack:
            for _ in range(2):  # which begin, and then send nothing
                one = stack.enter_context(socket.create_connection((host, int(port))))
                one.sendall(head)
            time.sleep(0.3)
            answer = post(url)
            problem(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        for _ in range(100):  # they have hung up
            if post(url).status_code == 200:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("it does not recover")
