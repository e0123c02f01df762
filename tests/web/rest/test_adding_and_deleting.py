"""Adding and deleting need the key and allowed folders, and take effect at once."""

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
from rsir.web.client import connect_with
from rsir.web.service.settings import ServiceSettings
from tests.support.colour_encoder import ColourEncoder
from tests.web.served import KEY, OWNER, World, problem, scene, search

pytestmark = pytest.mark.slow


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with four images, from which the service may add."""
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
def http(archive: Archive, images: Path) -> Iterator[TestClient]:
    allowed = ServiceSettings(api_key=KEY, allow_add=(images,))
    with TestClient(create_app({"a": archive}, allowed, page=False)) as client:
        yield client


def added(http: TestClient, *paths: object, **more: Any) -> dict[str, Any]:
    body = {"paths": [str(path) for path in paths], **more}
    answer = http.post("/api/archives/a/additions", json=body, headers=OWNER)
    assert answer.status_code == 202, answer.text
    for _ in range(300):
        addition = http.get(answer.headers["location"], headers=OWNER).json()
        if addition["state"] not in ("waiting", "running"):
            return addition
        time.sleep(0.02)
    raise AssertionError("the addition does not end")


def test_added_images_can_be_found_at_once(
    http: TestClient, archive: Archive, images: Path
) -> None:
    assert http.get("/api/archives/a").json()["count"] == 0
    assert search(http, "a", query={"vector": [1] * 16})["hits"] == []
    addition = added(http, images)
    assert addition["state"] == "done"
    assert (addition["done"], addition["total"]) == (4, 4)
    assert addition["report"]["added"] == 4
    found = search(http, "a", query={"vector": [1] * 16})["hits"]
    assert sorted(hit["source"] for hit in found) == sorted(map(str, images.iterdir()))
    assert len(archive) == 4
    listed = http.get("/api/archives/a/additions", headers=OWNER).json()["additions"]
    assert [entry["id"] for entry in listed] == [addition["id"]]


def test_files_that_cannot_be_read_are_reported(http: TestClient, images: Path) -> None:
    (images / "broken.png").write_bytes(b"nothing")
    addition = added(http, images)
    assert addition["report"]["added"] == 4
    (skipped,) = addition["report"]["skipped"]
    assert skipped["path"].endswith("broken.png")


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_the_tiling_of_an_addition(http: TestClient, images: Path, world: World) -> None:
    shutil.copy(world.scene, images / "scene.tif")
    addition = added(http, images / "scene.tif", tiling={"size": 300, "stretch": "range:0,3000"})
    assert addition["report"]["tiles"] == 4
    (scene,) = http.get("/api/archives/a/scenes").json()["scenes"]
    assert (scene["tiles"], scene["tiled"]) == (4, True)
    for wrong in (
        *({"size": -1}, {"size": 1e9}, {"stretch": "much"}, {"cloud_mask": "/etc/passwd"}),
        *({"gsd": "many"}, {"bands": ["red", "red", "red"]}, {"bands": [""]}),
    ):
        body = {"paths": [str(images)], "tiling": wrong}
        problem(http.post("/api/archives/a/additions", json=body, headers=OWNER), 422, "usage")


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_tiling_at_the_gsd_of_the_model(http: TestClient, archive: Archive, images: Path) -> None:
    scene(images / "scene.tif", (64, 64))
    addition = added(http, images / "scene.tif", tiling={"size": 16, "gsd": "model"})
    assert addition["state"] == "failed"
    assert "does not say" in addition["problem"]
    archive.encoder.gsd = 20.0  # type: ignore[attr-defined]
    addition = added(http, images / "scene.tif", tiling={"size": 16, "gsd": "model"})
    assert addition["report"]["tiles"] == 4
    assert {tuple(record.properties["gsd"]) for record in archive.records()} == {(20.0, 20.0)}


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_masks_are_reported(http: TestClient, images: Path) -> None:
    scene(images / "land.tif", (64, 64))
    Image.new("L", (64, 64)).save(images / "land_mask.tif")
    addition = added(http, images)
    (mask,) = addition["report"]["masks"]
    assert mask["path"].endswith("land_mask.tif")
    remote = connect_with(http, "a")
    remote._http.headers.update(OWNER)
    (reported,) = remote.add(images).masks
    assert (reported.path, reported.reason) == (mask["path"], mask["reason"])
    assert remote.add(images, tiling=Tiling(size=64, gsd=10)).masks == (reported,)


def test_additions_lie_below_allowed_folders(
    http: TestClient, archive: Archive, images: Path, tmp_path: Path
) -> None:
    outside = paint(tmp_path / "outside" / "secret.png", 9)
    (images / "link.png").symlink_to(outside)
    for path in (
        outside,
        outside.parent,
        "/etc/passwd",
        f"{images}/../outside/secret.png",
        f"{images}/link.png",
        f"{images}-other",
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
    missing = {"paths": [f"{images}/none.png"]}
    problem(http.post("/api/archives/a/additions", json=missing, headers=OWNER), 422, "usage")
    for name in ("item.json", "all.vrt"):
        (images / name).write_text("{}")
        body = {"paths": [str(images / name)]}
        answer = http.post("/api/archives/a/additions", json=body, headers=OWNER)
        problem(answer, 403, "forbidden")
    nul = http.post("/api/archives/a/additions", json={"paths": ["a\0b"]}, headers=OWNER)
    problem(nul, 422, "usage")
    assert len(archive) == 0


def test_deleting(http: TestClient, archive: Archive, images: Path) -> None:
    added(http, images)
    ids = [record.id for record in archive.records()]
    picture = f"/api/archives/a/items/{ids[0]}/thumbnail"
    assert http.get(picture).status_code == 200
    assert http.delete(f"/api/archives/a/items/{ids[0]}", headers=OWNER).status_code == 204
    problem(http.delete(f"/api/archives/a/items/{ids[0]}", headers=OWNER), 404, "unknown-id")
    problem(http.get(picture), 404, "unknown-id")  # although the thumbnail was in memory
    body = {"ids": [ids[0], ids[1], ids[1], "nothing"]}
    answer = http.post("/api/archives/a/items/delete", json=body, headers=OWNER)
    assert answer.json() == {"deleted": 1}
    found = search(http, "a", query={"vector": [1] * 16})["hits"]
    assert sorted(hit["id"] for hit in found) == sorted(ids[2:])
    assert len(list(images.iterdir())) == 4  # the files are still there


WRITES = [
    ("POST", "/api/archives/a/additions", {"paths": ["/tmp"]}),
    ("GET", "/api/archives/a/additions", None),
    ("GET", "/api/archives/a/additions/x", None),
    ("POST", "/api/archives/a/items/delete", {"ids": ["x"]}),
    ("DELETE", "/api/archives/a/items/x", None),
]


@pytest.mark.slow
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
def test_without_the_key_no_client_changes_anything(
    http: TestClient, method: str, path: str, body: Any, headers: dict[str, Any]
) -> None:
    answer = http.request(method, path, json=body, headers=headers)
    problem(answer, 401, "key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.text


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_a_service_without_a_key_only_reads(
    archive: Archive, images: Path, method: str, path: str, body: Any
) -> None:
    app = create_app({"a": archive}, ServiceSettings(allow_add=(images,)), page=False)
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


@pytest.mark.slow
def test_searches_see_what_another_process_writes(
    http: TestClient, archive: Archive, images: Path
) -> None:
    """Searches continue while another process writes to the archive, and see each commit."""
    added(http, images)
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
            other.add([paint(images / f"new{n}.png", 100 + n)])
            addition = search(http, "a", query=vector, k=500)
            assert addition["total"] == 5 + n
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


def test_a_stop_ends_an_addition_and_keeps_its_commits(archive: Archive, images: Path) -> None:
    class Slow(ColourEncoder):
        def encode(self, images):  # type: ignore[no-untyped-def]
            time.sleep(0.2)
            return super().encode(images)

    for n in range(300):
        paint(images / f"many{n}.png", n)
    slow = Archive.open(archive.path, Slow())
    app = create_app({"a": slow}, ServiceSettings(api_key=KEY, allow_add=(images,)), page=False)
    with TestClient(app) as http:
        answer = http.post(
            "/api/archives/a/additions", json={"paths": [str(images)]}, headers=OWNER
        )
        waiting = http.post(
            "/api/archives/a/additions", json={"paths": [str(images)]}, headers=OWNER
        ).json()
        while http.get(answer.headers["location"], headers=OWNER).json()["done"] < 10:
            time.sleep(0.01)
    additions = app.state.service.additions
    assert additions.get("a", answer.json()["id"]).state == "stopped"
    assert additions.get("a", waiting["id"]).state == "stopped"
    assert 10 <= len(archive) < 304
