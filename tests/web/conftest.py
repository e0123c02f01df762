"""A service of generated archives, for all tests of the web."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from rsir.web.app import create_app
from tests.web.served import World, make, settings


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def app(world: World) -> FastAPI:
    return create_app({"land": world.land, "codes": world.codes}, settings(world), page=False)


@pytest.fixture(scope="module")
def http(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="module")
def ids(world: World) -> list[str]:
    return [record.id for record in world.land.records()]
