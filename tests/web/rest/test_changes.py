"""Adding and deleting: by the owner only, from where it is allowed, seen at once."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from rsir.archive import Archive
from rsir.scenes.tiling import Tiling
from rsir.web.app import create_app
from rsir.web.client import connected
from rsir.web.service.settings import ServiceSettings
from tests.support.colour_encoder import ColourEncoder
from tests.web.served import KEY, OWNER, World, problem, scene, search


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder from which may be added, with four images."""
    folder = tmp_path / "allowed"
    for n in range(4):
        paint(folder / f"{n}.png", n)
    return folder


def paint(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "archive", ColourEncoder())


@pytest.fixture
def http(archive: Archive, place: Path) -> Iterator[TestClient]:
    allowed = ServiceSettings(api_key=KEY, allow_add=(place,))
    with TestClient(create_app({"a": archive}, allowed, page=False)) as client:
        yield client


def added(http: TestClient, *paths: object, **more: Any) -> dict[str, Any]:
    body = {"paths": [str(path) for path in paths], **more}
    answer = http.post("/api/archives/a/additions", json=body, headers=OWNER)
    assert answer.status_code == 202, answer.text
    for _ in range(300):
        told = http.get(answer.headers["location"], headers=OWNER).json()
        if told["state"] not in ("waiting", "running"):
            return told
        time.sleep(0.02)
    raise AssertionError("the addition does not end")


def test_what_is_added_can_be_found_at_once(
    http: TestClient, archive: Archive, place: Path
) -> None:
    assert http.get("/api/archives/a").json()["count"] == 0
    assert search(http, "a", query={"vector": [1] * 16})["hits"] == []
    told = added(http, place)
    assert told["state"] == "done"
    assert (told["done"], told["total"]) == (4, 4)
    assert told["report"]["added"] == 4
    found = search(http, "a", query={"vector": [1] * 16})["hits"]
    assert sorted(hit["source"] for hit in found) == sorted(map(str, place.iterdir()))
    assert len(archive) == 4
    listed = http.get("/api/archives/a/additions", headers=OWNER).json()["additions"]
    assert [one["id"] for one in listed] == [told["id"]]


def test_files_that_cannot_be_read_are_told(http: TestClient, place: Path) -> None:
    (place / "broken.png").write_bytes(b"nothing")
    told = added(http, place)
    assert told["report"]["added"] == 4
    (skipped,) = told["report"]["skipped"]
    assert skipped["path"].endswith("broken.png")


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_a_tiling_is_taken(http: TestClient, place: Path, world: World) -> None:
    shutil.copy(world.scene, place / "scene.tif")
    told = added(http, place / "scene.tif", tiling={"size": 300, "stretch": "range:0,3000"})
    assert told["report"]["tiles"] == 4
    (scene,) = http.get("/api/archives/a/scenes").json()["scenes"]
    assert (scene["tiles"], scene["tiled"]) == (4, True)
    for wrong in (
        *({"size": -1}, {"size": 1e9}, {"stretch": "much"}, {"cloud_mask": "/etc/passwd"}),
        *({"gsd": "many"}, {"bands": ["red", "red", "red"]}, {"bands": [""]}),
    ):
        body = {"paths": [str(place)], "tiling": wrong}
        problem(http.post("/api/archives/a/additions", json=body, headers=OWNER), 422, "usage")


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_the_gsd_of_the_model_is_taken(http: TestClient, archive: Archive, place: Path) -> None:
    scene(place / "scene.tif", (64, 64))
    told = added(http, place / "scene.tif", tiling={"size": 16, "gsd": "model"})
    assert told["state"] == "failed"
    assert "does not say" in told["problem"]
    archive.encoder.gsd = 20.0  # type: ignore[attr-defined]
    told = added(http, place / "scene.tif", tiling={"size": 16, "gsd": "model"})
    assert told["report"]["tiles"] == 4
    assert {tuple(record.properties["gsd"]) for record in archive.records()} == {(20.0, 20.0)}


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_masks_are_told(http: TestClient, place: Path) -> None:
    for name in ("land.tif", "land_mask.tif"):
        scene(place / name, (64, 64))
    told = added(http, place)
    (mask,) = told["report"]["masks"]
    assert mask["path"].endswith("land_mask.tif")
    remote = connected(http, "a")
    remote._http.headers.update(OWNER)
    (one,) = remote.add(place).masks
    assert (one.path, one.reason) == (mask["path"], mask["reason"])
    assert remote.add(place, tiling=Tiling(size=64, gsd=10)).masks == (one,)


def test_only_from_where_it_is_allowed(
    http: TestClient, archive: Archive, place: Path, tmp_path: Path
) -> None:
    outside = paint(tmp_path / "outside" / "secret.png", 9)
    (place / "link.png").symlink_to(outside)
    for path in (
        outside,
        outside.parent,
        "/etc/passwd",
        f"{place}/../outside/secret.png",
        f"{place}/link.png",
        f"{place}-other",
        "/",
        "relative.png",
        "file:///etc/passwd",
        "http://127.0.0.1:9/x.tif",
        "s3://bucket/x.tif",
        "/vsicurl/http://127.0.0.1:9/x.tif",
    ):
        body = {"paths": [str(path)]}
        answer = http.post("/api/archives/a/additions", json=body, headers=OWNER)
        problem(answer, 403, "forbidden")
    missing = {"paths": [f"{place}/none.png"]}
    problem(http.post("/api/archives/a/additions", json=missing, headers=OWNER), 422, "usage")
    for name in ("item.json", "all.vrt"):
        (place / name).write_text("{}")
        body = {"paths": [str(place / name)]}
        answer = http.post("/api/archives/a/additions", json=body, headers=OWNER)
        problem(answer, 403, "forbidden")
    nul = http.post("/api/archives/a/additions", json={"paths": ["a\0b"]}, headers=OWNER)
    problem(nul, 422, "usage")
    assert len(archive) == 0


def test_deleting(http: TestClient, archive: Archive, place: Path) -> None:
    added(http, place)
    ids = [record.id for record in archive.records()]
    picture = f"/api/archives/a/items/{ids[0]}/thumbnail"
    assert http.get(picture).status_code == 200
    assert http.delete(f"/api/archives/a/items/{ids[0]}", headers=OWNER).status_code == 204
    problem(http.delete(f"/api/archives/a/items/{ids[0]}", headers=OWNER), 404, "unknown-id")
    problem(http.get(picture), 404, "unknown-id")  # also though it was kept
    body = {"ids": [ids[0], ids[1], ids[1], "nothing"]}
    answer = http.post("/api/archives/a/items/delete", json=body, headers=OWNER)
    assert answer.json() == {"deleted": 1}
    found = search(http, "a", query={"vector": [1] * 16})["hits"]
    assert sorted(hit["id"] for hit in found) == sorted(ids[2:])
    assert len(list(place.iterdir())) == 4  # files are left alone


WRITES = [
    ("POST", "/api/archives/a/additions", {"paths": ["/tmp"]}),
    ("GET", "/api/archives/a/additions", None),
    ("GET", "/api/archives/a/additions/x", None),
    ("POST", "/api/archives/a/items/delete", {"ids": ["x"]}),
    ("DELETE", "/api/archives/a/items/x", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": "Bearer äöü".encode("latin-1")},
        {"X-API-Key": KEY},
    ],
)
def test_nobody_changes_anything_without_the_key(
    http: TestClient, method: str, path: str, body: Any, headers: dict[str, Any]
) -> None:
    answer = http.request(method, path, json=body, headers=headers)
    problem(answer, 401, "key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.text


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_without_a_key_of_its_own_a_service_only_reads(
    archive: Archive, place: Path, method: str, path: str, body: Any
) -> None:
    app = create_app({"a": archive}, ServiceSettings(allow_add=(place,)), page=False)
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
        with TestClient(app) as http:
            answer = http.request(method, path, json=body, headers=headers)
        problem(answer, 403, "forbidden")


def test_keys_are_compared_in_constant_time(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import secrets

    compared = []
    real = secrets.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr("secrets.compare_digest", counted)
    http.get("/api/archives/a/additions", headers={"Authorization": "Bearer guess"})
    assert compared == [(b"guess", KEY.encode())]


def test_a_key_is_not_shown() -> None:
    assert KEY not in repr(ServiceSettings(api_key=KEY))


def test_tiles_that_another_process_writes_appear_without_restart(
    http: TestClient, archive: Archive, place: Path
) -> None:
    """Searches go on while the archive is written by someone else, and see each commit."""
    added(http, place)
    other = Archive.open(archive.path, ColourEncoder())
    vector = {"vector": [1] * 16}
    seen: list[int] = []
    failed: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = http.post("/api/archives/a/search", json={"query": vector, "k": 500})
            if answer.status_code != 200:
                failed.append(answer.text)
            else:
                seen.append(answer.json()["total"])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for n in range(5):
            other.add([paint(place / f"new{n}.png", 100 + n)])
            told = search(http, "a", query=vector, k=500)
            assert told["total"] == 5 + n
        ids = [record.id for record in other.records()]
        other.delete(ids[:2])
        assert search(http, "a", query=vector, k=500)["total"] == 7
        other.optimize()
        assert search(http, "a", query=vector, k=500)["total"] == 7
    finally:
        stop.set()
        thread.join()
    assert not failed
    assert set(seen) <= set(range(4, 10))
    assert len(http.get("/api/archives/a/scenes").json()["scenes"]) in (7, 4)


def test_a_stop_ends_an_addition_and_keeps_what_is_done(archive: Archive, place: Path) -> None:
    class Slow(ColourEncoder):
        def encode(self, images):  # type: ignore[no-untyped-def]
            time.sleep(0.2)
            return super().encode(images)

    for n in range(300):
        paint(place / f"many{n}.png", n)
    slow = Archive.open(archive.path, Slow())
    app = create_app({"a": slow}, ServiceSettings(api_key=KEY, allow_add=(place,)), page=False)
    with TestClient(app) as http:
        answer = http.post("/api/archives/a/additions", json={"paths": [str(place)]}, headers=OWNER)
        waiting = http.post(
            "/api/archives/a/additions", json={"paths": [str(place)]}, headers=OWNER
        ).json()
        while http.get(answer.headers["location"], headers=OWNER).json()["done"] < 10:
            time.sleep(0.01)
    additions = app.state.service.additions
    assert additions.get("a", answer.json()["id"]).state == "stopped"
    assert additions.get("a", waiting["id"]).state == "stopped"
    assert 10 <= len(archive) < 304
