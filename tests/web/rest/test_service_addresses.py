"""Descriptions of archives, readiness, metrics, problems, OpenAPI, headers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from rsir.web.app import create_app
from rsir.web.problems import KINDS
from tests.web.served import World, png, problem, search, settings, upload

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
"""From affine 3, caused by rasterio 1.4."""

LAND = "/api/archives/land"


def test_the_archives_and_their_description(http: TestClient, world: World) -> None:
    archives = {entry["name"]: entry for entry in http.get("/api/archives").json()["archives"]}
    assert sorted(archives) == ["codes", "land"]
    for name, archive in (("land", world.land), ("codes", world.codes)):
        info = archive.info()
        for key in ("count", "metric", "dimension", "bands", "model", "version", "created"):
            assert archives[name][key] == info[key], key
        # The archive may have become ready between the two requests.
        alone = http.get(f"/api/archives/{name}").json()
        assert alone | {"ready": None} == archives[name] | {"ready": None}
    assert "path" not in archives["land"]
    problem(http.get("/api/archives/nothing"), 404, "not-found")


def test_the_service_becomes_ready(world: World) -> None:
    app = create_app({"land": world.land}, settings(world), page=False)
    with TestClient(app) as http:
        assert http.get("/health").json()["status"] == "ok"
        for _ in range(100):
            answer = http.get("/ready")
            if answer.status_code == 200:
                break
            assert answer.status_code == 503
            time.sleep(0.05)
        assert answer.json() == {"ready": True, "waiting_for": {}}
        assert http.get(LAND).json()["ready"] is True


def test_an_archive_whose_model_is_damaged_is_never_ready(world: World, tmp_path: Any) -> None:
    import shutil

    from rsir.archive import Archive

    shutil.copytree(world.land.path, tmp_path / "damaged")
    damaged = Archive.open(tmp_path / "damaged")  # the folder of its model holds no model of rsir
    app = create_app({"damaged": damaged, "land": world.land}, page=False)
    with TestClient(app) as http:
        for _ in range(1200):  # loading torch takes some time
            waiting = http.get("/ready").json()["waiting_for"]
            if "land" not in waiting and waiting.get("damaged") != "is being opened":
                break
            time.sleep(0.05)
        assert list(waiting) == ["damaged"]
        assert http.get("/ready").status_code == 503
        # Searches without the model still work; the others report why they fail.
        record = next(damaged.records())
        search(http, "damaged", query={"id": record.id}, k=1)
        problem(upload(http, png(np.zeros((9, 9, 3), np.uint8)), archive="damaged"), 503, "model")


def test_metrics(http: TestClient, ids: list[str]) -> None:
    def value(name: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)

    searches = 'rsir_searches_total{archive="land",kind="searching"}'
    route = 'rsir_requests_total{method="POST",route="/api/archives/{name}/search",status="200"}'
    before, before_route = value(searches), value(route)
    search(http, query={"id": ids[0]})
    assert value(searches) == before + 1
    assert value(route) == before_route + 1
    assert value('rsir_search_seconds_count{archive="land",kind="searching"}') == before + 1
    assert value('rsir_ready{archive="codes"}') == 1
    assert http.get("/metrics").headers["content-type"].startswith("text/plain")


def test_unknown_addresses_and_methods(http: TestClient) -> None:
    for method, path, status in (
        ("GET", "/api/nothing", 404),
        ("GET", "/nothing", 404),
        ("POST", "/api/archives", 405),
        ("PUT", f"{LAND}/search", 405),
    ):
        answer = http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
    assert http.put(f"{LAND}/search").headers["allow"] == "POST"
    assert http.put(f"{LAND}/items/x").headers["allow"] == "DELETE, GET"


@pytest.mark.slow
def test_every_problem_has_a_page_and_one_status(http: TestClient) -> None:
    listed = http.get("/problems").json()
    assert [(p["type"], p["status"]) for p in listed] == [
        (f"/problems/{kind.name}", kind.status) for kind in KINDS
    ]
    for entry in listed:
        assert http.get(entry["type"]).json() == entry
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    problem(http.get("/problems/none"), 404, "not-found")


def test_openapi_describes_every_response(http: TestClient, app: FastAPI) -> None:
    described = http.get("/openapi.json").json()
    assert described == app.openapi()
    operations = [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 20
    for path, method, operation in operations:
        success = next(status for status in operation["responses"] if status.startswith("2"))
        content = operation["responses"][success].get("content", {})
        assert content or success == "204", (method, path)
        for kind, body in content.items():
            if kind == "application/json":
                assert body["schema"], (method, path)
        for status, answer in operation["responses"].items():
            if path.startswith("/api") and not status.startswith("2"):
                assert "application/problem+json" in answer["content"], (method, path, status)
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(set(names)) == len(names)


def test_the_documentation_needs_no_other_host(http: TestClient, app: FastAPI) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text
    for path in app.openapi()["paths"]:
        assert path in page.text.replace("&#39;", "'")


def test_security_headers(http: TestClient) -> None:
    for path in ("/health", "/api/archives", "/api/nothing", "/docs", "/metrics"):
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-request-id"]
        assert "server" not in headers
    assert (
        http.get("/api/archives")
        .headers["content-security-policy"]
        .startswith("default-src 'none'")
    )


def test_request_ids(http: TestClient) -> None:
    assert (
        http.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    )
    for invalid in ("a b", "x" * 65, "<script>", ""):
        given = http.get("/health", headers={"x-request-id": invalid}).headers["x-request-id"]
        assert given != invalid
        assert len(given) == 32


def test_an_archive_that_is_gone_is_not_ready_and_hides_no_other(
    world: World, tmp_path: Any
) -> None:
    import shutil

    from rsir.archive import Archive

    gone = Archive.open(shutil.copytree(world.codes.path, tmp_path / "gone"))
    with TestClient(create_app({"gone": gone, "land": world.land}, page=False)) as http:
        before = http.get("/api/archives").json()
        assert [entry["name"] for entry in before["archives"]] == ["gone", "land"]
        assert before["unavailable"] == {}
        shutil.rmtree(tmp_path / "gone")
        after = http.get("/api/archives")
        assert after.status_code == 200
        assert [entry["name"] for entry in after.json()["archives"]] == ["land"]
        assert "gone" in after.json()["unavailable"]["gone"]
        ready = http.get("/ready")
        assert ready.status_code == 503
        assert "gone" in ready.json()["waiting_for"]


@pytest.mark.slow
@pytest.mark.parametrize("page", [False, True])
@pytest.mark.parametrize(
    ("method", "address", "status", "allowed"),
    [
        ("GET", "/nope", 404, None),
        ("GET", "/api", 404, None),
        ("GET", "/api/nope", 404, None),
        ("GET", "/metrics/x", 404, None),
        ("GET", "/%ff", 404, None),
        ("POST", "/health", 405, "GET"),
        ("DELETE", "/docs", 405, "GET"),
        ("PUT", "/openapi.json", 405, "GET"),
        ("PUT", "/api/archives", 405, "GET"),
    ],
)
def test_all_errors_are_problems(
    world: World, page: bool, method: str, address: str, status: int, allowed: str | None
) -> None:
    with TestClient(create_app({"land": world.land}, page=page)) as http:
        answer = http.request(method, address)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert allowed is None or allowed in answer.headers["allow"]
        wrong = http.post("/")
        assert wrong.status_code == (405 if page else 404)
        assert wrong.headers["content-type"] == "application/problem+json"
        assert http.get("/").status_code == (200 if page else 404)
