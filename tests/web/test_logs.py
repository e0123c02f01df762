"""The log of the service."""

from __future__ import annotations

import io
import json
import logging
import warnings

import numpy as np
import pytest
from starlette.testclient import TestClient

from rsir.web import logs
from rsir.web.app import create_app
from rsir.web.logs import JsonLines
from tests.web.served import KEY, OWNER, World, png, settings, upload

IMAGE = png(np.full((20, 20, 3), 90, np.uint8))


@pytest.mark.slow
def test_the_log_is_lines_of_json_with_request_ids(world: World) -> None:
    stream = io.StringIO()
    saved = {
        name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level)
        for name in ("", "rsir", "uvicorn.error", "uvicorn.access")
    }
    logs.configure_logs(stream)
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
        warnings.showwarning("a library\nwarns", UserWarning, "lib.py", 3)
    finally:
        logging.captureWarnings(False)
        for name, (handlers, level) in saved.items():
            logging.getLogger(name).handlers[:] = handlers
            logging.getLogger(name).setLevel(level)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert "warns" in next(line for line in lines if line["logger"] == "py.warnings")["message"]
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


def test_no_secret_is_in_the_log(
    http: TestClient, caplog: pytest.LogCaptureFixture, world: World
) -> None:
    caplog.set_level(logging.DEBUG, "rsir")
    http.get("/api/archives/land/additions", headers=OWNER)
    http.get("/api/archives/land/additions", headers={"Authorization": "Bearer guess-of-a-key"})
    http.get(f"/api/archives?key={KEY}", headers={"Cookie": f"key={KEY}"})
    lines = [JsonLines().format(record) for record in caplog.records]
    assert len(lines) >= 3
    assert not [line for line in lines if KEY in line or "guess-of-a-key" in line]


def test_no_client_can_forge_a_line_of_the_log(
    http: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rsir")
    http.get("/api/archives/x%0a%7B%22message%22%3A%22forged%22%7D")
    lines = [JsonLines().format(record) for record in caplog.records]
    assert lines
    for line in lines:
        assert "\n" not in line
        assert json.loads(line)["message"] in ("request", "search")
