"""Schemathesis: responses to valid and invalid requests are as the OpenAPI document describes.

It generates the requests from /openapi.json, the same in every run, and sends them to a server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rsir.web.app import create_app
from rsir.web.service.scenes import scene_id
from tests.web.served import OWNER, World, running, settings

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# The document does not depend on the archives.
api = schemathesis.openapi.from_dict(create_app({}, page=False).openapi())
seen: dict[str, set[int]] = {}
"""Statuses by operation, collected by all tests."""


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    app = create_app({"land": world.land, "codes": world.codes}, settings(world), page=False)
    with running(app) as (address, _):
        while not requests.get(f"{address}/ready", timeout=10).ok:
            time.sleep(0.05)
        yield address


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def check(case: schemathesis.Case, session: requests.Session, world: World, url: str) -> None:
    seed = sum(map(ord, repr(case.path_parameters) + repr(case.query) + repr(case.body)))
    real = {
        "name": ("land", "codes")[seed % 2],
        "id": next(world.land.records()).id,
        "scene": scene_id(str(world.scene)),
    }
    # Generated names do not exist; use real ones in most requests.
    if seed % 5 and isinstance(case.path_parameters, dict) and case.method != "DELETE":
        case.path_parameters.update({k: v for k, v in real.items() if k in case.path_parameters})
    if seed % 3 and isinstance(case.body, dict) and case.path.endswith("/search"):
        case.body["query"] = {"id": real["id"]}
    headers = OWNER if seed % 2 else {}
    answer = case.call_and_validate(url, session, headers, CHECKS)
    seen.setdefault(f"{case.method} {case.path}", set()).add(answer.status_code)


def as_described(operation: schemathesis.APIOperation) -> Callable[..., None]:
    """A test of one operation."""

    @api.include(path=operation.path, method=operation.method.upper()).parametrize()
    @hypothesis_settings(
        max_examples=15,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def test(case: schemathesis.Case, session: requests.Session, world: World, url: str) -> None:
        check(case, session, world, url)

    return test


# Distinct names: schemathesis uses one name for all, of which pytest-xdist would run only one.
for number, found in enumerate(api.get_all_operations()):
    globals()[f"test_operation_{number:02d}_is_answered_as_described"] = as_described(found.ok())


def test_most_operations_succeed(url: str) -> None:
    """Runs after the tests above: every operation was called, and most succeeded."""
    described = requests.get(f"{url}/openapi.json", timeout=10).json()["paths"]
    operations = {f"{m.upper()} {path}" for path, methods in described.items() for m in methods}
    assert operations <= seen.keys()  # which also has methods that do not exist
    good = {name for name, statuses in seen.items() if statuses & {200, 202, 204}}
    refused = operations - good
    assert refused <= {
        "DELETE /api/archives/{name}/items/{id}",  # generated ids
        "POST /api/archives/{name}/items/get",
        "GET /api/archives/{name}/additions/{id}",
        "GET /problems/{name}",
        "POST /api/archives/{name}/additions",  # generated paths
        "POST /api/archives/{name}/search/images",  # generated images
        "GET /api/archives/{name}/scenes/{scene}/tiles/{z}/{x}/{y}.{format}",  # generated tiles
    }
    assert not {status for statuses in seen.values() for status in statuses if status >= 500}
