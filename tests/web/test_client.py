"""A remote archive gives the same hits and the same errors as a local archive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

import rsir
from rsir.archive.search.query import ByFile, ById, ByWindow, Examples
from rsir.errors import ArchiveError, ImageError, RsirError, UsageError
from rsir.images.read import read_pixels
from rsir.store.filters.filter import Filter
from rsir.web.client import RemoteArchive, connect_with
from rsir.web.problems import KINDS, OverloadedError, body_of, error_of
from tests.web.served import KEY, World, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
]


@pytest.fixture(scope="module")
def remote(http: TestClient) -> RemoteArchive:
    return RemoteArchive(http, "land")


@pytest.fixture(scope="module")
def codes(http: TestClient) -> RemoteArchive:
    return RemoteArchive(http, "codes")


def same(found: Any, expected: Any) -> None:
    assert [hit.to_dict() for hit in found] == [hit.to_dict() for hit in expected]
    assert found.searched == expected.searched
    np.testing.assert_array_equal(found.distances, expected.distances)


def test_the_description_of_the_archive(remote: RemoteArchive, world: World) -> None:
    local = world.land
    assert len(remote) == len(local)
    for name in ("metric", "dimension", "fingerprint", "bands"):
        assert getattr(remote, name) == getattr(local, name)
    assert "land" in repr(remote)


def test_the_client_reads_a_query_by_bands_itself(remote: RemoteArchive, world: World) -> None:
    query = ByFile(world.scene, ("red=3", "green=2", "blue=1"), "range:0,3000")
    found, expected = remote.search(query, 5), world.land.search(query, 5)
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    np.testing.assert_allclose(found.distances, expected.distances, atol=1e-6)
    with pytest.raises(ImageError, match="no such file"):
        remote.search(ByFile("nowhere.tif"))


def queries(world: World) -> Iterator[Any]:
    file = sorted(world.images.rglob("*.tif"))[2]
    other = sorted(world.images.rglob("*.tif"))[9]
    ids = [record.id for record in world.land.records()]
    window = ByWindow(str(world.scene), window=(0, 0, 250, 250))
    yield from (file, str(file), read_pixels(file), ById(ids[1]), window)
    yield world.land.vectors(ids[:1])[0]
    yield ByWindow(str(world.scene), point=(16.31, 45.12), size=500.0)
    yield Examples([ById(ids[1]), file], [other, ById(ids[3])])
    yield Examples([window], [], ById(ids[2]))
    yield Examples([world.land.vectors(ids[:1])[0]], [], file)


def test_every_kind_of_query(remote: RemoteArchive, world: World) -> None:
    for query in queries(world):
        found = remote.search(query, k=6)
        same(found, world.land.search(query, 6))
        assert found.query is query
        assert "hits" in repr(found)
        assert found[1:3] == list(found)[1:3]


def test_search_many(remote: RemoteArchive, world: World) -> None:
    some = list(queries(world))[:4]
    for found, expected in zip(
        remote.search_many(some, 3), world.land.search_many(some, 3), strict=True
    ):
        same(found, expected)
    assert remote.search_many([], 3) == []


def test_options(codes: RemoteArchive, world: World) -> None:
    query = ById(next(world.codes.records()).id)
    for options in (
        {"ranking": "hamming"},
        {"diverse": True},
        {"min_percentile": 40},
        {"filter": Filter(where="folder <> 'forest'", start=datetime(2020, 1, 1, tzinfo=UTC))},
    ):
        same(codes.search(query, 10, **options), world.codes.search(query, 10, **options))


def test_records_vectors_and_sources(
    remote: RemoteArchive, codes: RemoteArchive, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsir.web.client._PAGE", 5)
    for far, local in ((remote, world.land), (codes, world.codes)):
        assert list(far.records()) == list(local.records())
        ids = [record.id for record in local.records()]
        assert far.get(ids[::-1]) == local.get(ids[::-1])
        np.testing.assert_array_equal(far.vectors(ids), local.vectors(ids))
        assert far.vectors(ids).dtype == local.vectors(ids).dtype
        assert far.vectors([]).shape == local.vectors([]).shape
        assert far.sources() == local.sources()
    triangle = {"type": "Polygon", "coordinates": [[[9, 48], [10, 48], [10, 49], [9, 48]]]}
    for filter in (
        Filter(classes=["forest", "water"], where="width > 0"),
        Filter(bbox=(9.8, 48.5, 9.82, 48.567), end=datetime(2022, 1, 1)),
        Filter(geometry=triangle),
    ):
        assert list(remote.records(filter)) == list(world.land.records(filter))
        assert remote.count(filter) == world.land.count(filter)
    assert remote.count() == len(world.land)


def test_thumbnail(remote: RemoteArchive, world: World) -> None:
    record = next(world.land.records())
    far, near = remote.thumbnail(record.id, 50), world.land.thumbnail(record.id, 50)
    assert far.shape == near.shape
    assert far.dtype == np.uint8
    assert np.abs(far.astype(float) - near).mean() < 12  # JPEG


def test_the_errors_are_those_of_a_local_archive(
    remote: RemoteArchive, world: World, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    calls = [
        lambda archive: archive.search(ById("nothing")),
        lambda archive: archive.get(["nothing"]),
        lambda archive: archive.thumbnail("nothing"),
        lambda archive: archive.search(np.zeros(3, np.float32)),
        lambda archive: archive.search(np.full(16, np.inf, np.float32)),
        lambda archive: archive.search(np.zeros((2, 9, 9), np.uint8)),
        lambda archive: archive.search(np.ones(16, np.float32), 0),
        lambda archive: archive.search(np.ones(16, np.float32), ranking="nonsense"),
        lambda archive: archive.search(np.ones(16, np.float32), min_percentile=150),
        lambda archive: archive.search(broken),
        lambda archive: archive.search(tmp_path / "none.png"),
        lambda archive: archive.search(ByWindow("/nowhere.tif", window=(0, 0, 9, 9))),
        lambda archive: archive.search(Examples((), [np.ones(16, np.float32)])),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(RsirError) as near:
            call(world.land)
        with pytest.raises(RsirError) as far:
            call(remote)
        # The service names a scene that the archive does not have by its id.
        expected = ArchiveError if "nowhere" in str(near.value) else type(near.value)
        assert isinstance(far.value, expected), (number, far.value)
    with pytest.raises(ArchiveError, match="nothing"):
        remote.get(["nothing"])


def test_a_file_that_is_gone(http: TestClient, world: World, tmp_path: Path) -> None:
    from rsir.archive import Archive
    from rsir.web.app import create_app
    from tests.support.colour_encoder import ColourEncoder

    file = tmp_path / "gone.png"
    Image.new("RGB", (20, 20), "red").save(file)
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(file)
    file.unlink()
    with TestClient(create_app({"a": archive}, page=False)) as client:
        far = connect_with(client)
        (record,) = far.records()
        with pytest.raises(ImageError):
            far.thumbnail(record.id)
        assert client.get(f"/api/archives/a/items/{record.id}/thumbnail").status_code == 410


def test_the_client_raises_the_error_of_the_service() -> None:
    for kind in KINDS:
        error = (
            OverloadedError("full", retry_after=3)
            if kind.error is OverloadedError
            else kind.error("what is wrong", *(["web"] if kind.name == "extra" else []))
        )
        back = error_of(body_of(error), kind.status, 3)
        if kind.name in ("internal", "extra"):
            assert type(back) is RsirError
        else:
            assert type(back) is kind.error
            assert str(back) == str(error)
    assert isinstance(error_of(None, 502), RsirError)
    assert isinstance(error_of({"type": "about:blank", "title": "x"}, 404), RsirError)


def test_connecting(app: FastAPI, world: World) -> None:
    with running(app) as (url, _):
        with rsir.connect(url, "land") as remote:
            assert len(remote) == len(world.land)
            query = ById(next(world.land.records()).id)
            same(remote.search(query, 3), world.land.search(query, 3))
        with pytest.raises(UsageError, match="codes, land"):
            rsir.connect(url)
        with pytest.raises(ArchiveError, match="no archive 'other'"):
            rsir.connect(url, "other")
    with pytest.raises(ArchiveError, match="does not answer"):
        rsir.connect(url, "land", timeout=2)
    with pytest.raises(UsageError, match="http://HOST:PORT"):
        rsir.connect("127.0.0.1:8000")


@pytest.mark.slow
def test_adding_and_deleting(world: World, tmp_path: Path) -> None:
    from rsir.archive import Archive
    from rsir.web.app import create_app
    from rsir.web.service.settings import ServiceSettings
    from tests.support.colour_encoder import ColourEncoder

    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    allowed = ServiceSettings(api_key=KEY, allow_add=(world.images,))
    with running(create_app({"a": archive}, allowed, page=False)) as (url, _):
        with rsir.connect(url, key=KEY) as owner:
            steps: list[tuple[int, int]] = []
            report = owner.add(world.images, on_progress=lambda *done: steps.append(done))
            assert report.added == 16
            assert report.complete
            assert owner.add([world.images]).unchanged == 16
            ids = [record.id for record in owner.records()]
            assert owner.delete([*ids[:3], "nothing"]) == 3
            assert len(owner) == len(archive) == 13
        with rsir.connect(url) as stranger, pytest.raises(RsirError, match="API key"):
            stranger.delete(ids[3:4])
        with rsir.connect(url, key="wrong") as stranger, pytest.raises(RsirError, match="API key"):
            stranger.add(world.images)
    assert len(archive) == 13


def test_the_client_imports_nothing_that_only_the_service_needs() -> None:
    heavy = {"torch", "fastapi", "starlette", "lancedb", "faiss", "rasterio", "prometheus_client"}
    code = "import rsir.web.client, sys; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
