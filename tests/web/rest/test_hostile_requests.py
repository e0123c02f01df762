"""Hostile and malformed requests: each gets a problem, and the service continues."""

from __future__ import annotations

import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from rsir.archive import Archive
from rsir.store.records.record import Record
from rsir.web.app import create_app
from rsir.web.service.scenes import scene_id
from tests.support.colour_encoder import ColourEncoder
from tests.web.served import (
    OWNER,
    World,
    png,
    problem,
    running,
    search,
    settings,
    upload,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _service_goes_on(http: TestClient, world: World) -> Iterator[None]:
    """Check after every test that the service still answers a plain search."""
    yield
    assert len(search(http, query={"vector": [1] * 16}, k=3)["hits"]) == 3


# Uploads


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_declared_as(width: int, height: int, data: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb() -> bytes:
    """A PNG of 12,000 × 6000 pixels, 216 MB of RGB, in a few hundred kilobytes."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(36_001)) for _ in range(6000)) + packer.flush()
    head = struct.pack(">IIBBBBB", 12_000, 6000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def whole(kind: str) -> bytes:
    random = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(random).save(buffer, kind)
    return buffer.getvalue()


BAD_FILES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"hello",
    "a web page": lambda: b"<!doctype html><script>alert(1)</script>",
    "an SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "a GIF": lambda: b"GIF89a" + bytes(100),
    "a ZIP": lambda: b"PK\x03\x04" + bytes(100),
    "noise": lambda: np.random.default_rng(1).bytes(5000),
    "a VRT that names files": lambda: (
        b'<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1">'
        b"<SimpleSource><SourceFilename>/etc/passwd</SourceFilename></SimpleSource>"
        b"</VRTRasterBand></VRTDataset>"
    ),
    "a pickle": lambda: b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix",
    "more pixels than bytes": lambda: png_declared_as(500, 500, b"few"),
    "no pixels": lambda: png_declared_as(0, 0),
    "a PNG's head": lambda: whole("PNG")[:20],
    **{
        f"a {kind} cut off at {share:.0%}": lambda kind=kind, share=share: whole(kind)[
            : int(len(whole(kind)) * share)
        ]
        for kind in ("PNG", "JPEG", "WEBP", "TIFF")
        for share in (0.1, 0.5, 0.9)
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_FILES)
def test_wrong_and_truncated_files(http: TestClient, name: str) -> None:
    body = problem(upload(http, BAD_FILES[name]()), 422, "image")
    assert body["detail"].startswith("the uploaded image: ")
    assert "/tmp" not in body["detail"]


def test_flipped_bits_never_break_the_service(http: TestClient) -> None:
    """The service answers every damaged image: with hits, or with a problem."""
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        content = np.frombuffer(whole(kind), np.uint8)
        for _ in range(15):
            damaged = content.copy()
            indexes = random.integers(0, len(damaged), 1 + random.integers(8))
            damaged[indexes] ^= random.integers(1, 256, len(indexes), dtype=np.uint8)
            assert upload(http, damaged.tobytes(), k=1).status_code in (200, 422)


@pytest.mark.parametrize(
    "size", [(20_000, 20_000), (4097, 4096), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)]
)
def test_too_many_pixels(http: TestClient, size: tuple[int, int]) -> None:
    problem(upload(http, png_declared_as(*size)), 422, "image")


@pytest.mark.slow
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(http: TestClient) -> None:
    import tracemalloc

    content = bomb()
    assert len(content) < 2 << 20
    tracemalloc.start()
    try:
        problem(upload(http, content), 422, "image")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_in_the_metadata_of_an_image(http: TestClient) -> None:
    """Text that decompresses to 100 MB, in a chunk of a small PNG."""
    text = zlib.compress(bytes(100 << 20), 9)
    content = png(np.zeros((9, 9, 3), np.uint8))
    at = 8 + 25  # signature and IHDR
    for kind in (b"zTXt", b"iCCP"):
        with_text = content[:at] + chunk(kind, b"a\0\0" + text) + content[at:]
        assert upload(http, with_text, k=1).status_code in (200, 422)


def test_wrong_types(http: TestClient) -> None:
    image = png(np.zeros((9, 9, 3), np.uint8))
    for kind in ("text/html", "application/pdf", "video/mp4", "multipart/mixed"):
        problem(upload(http, image, kind=kind), 415, "wrong-type")
    for kind in ("image/png", "IMAGE/PNG; a=b", "application/octet-stream"):
        assert upload(http, image, kind=kind, k=1).status_code == 200
    path = "/api/archives/land/search"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
        answer = http.post(path, content=b"{}", headers={"content-type": kind})
        problem(answer, 415, "wrong-type")
        answer = http.post(f"{path}/images", content=image, headers={"content-type": kind})
        problem(answer, 415, "wrong-type")


def test_malformed_forms(http: TestClient) -> None:
    path = "/api/archives/land/search/images"
    for content, kind in (
        (b"", "multipart/form-data"),
        (b"--x\r\nnothing", "multipart/form-data; boundary=x"),
        (b"\r\n" * 1000, "multipart/form-data; boundary=x"),
        (b"--x--", "multipart/form-data; boundary=" + "y" * 5000),
    ):
        answer = http.post(path, content=content, headers={"content-type": kind})
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"
    many = [("like", (f"{n}", b"x", "image/png")) for n in range(1500)]
    assert http.post(path, files=many).status_code in (400, 422)
    not_a_file = http.post(path, data={"image": "text"}, files={"like": ("a", b"", "image/png")})
    problem(not_a_file, 422, "usage")
    for options in ("[]", "{", '{"k": "x"}', '{"unknown": 1}', "[" * 50_000, '{"k": 1e999}'):
        answer = http.post(path, files={"image": ("a", b"x")}, data={"options": options})
        problem(answer, 422, "usage")


def test_requests_that_are_too_large(world: World) -> None:
    app = create_app(
        {"land": world.land}, settings(world, max_body=50_000, max_json=40_000), page=False
    )
    with TestClient(app) as small:
        problem(upload(small, bytes(60_000)), 413, "too-large")
        body = json.dumps({"query": {"vector": [1.0] * 9_000}})
        assert 40_000 < len(body) < 50_000
        headers = {"content-type": "application/json"}
        path = "/api/archives/land/search"
        problem(small.post(path, content=body, headers=headers), 413, "too-large")

        def parts() -> Iterator[bytes]:  # without a Content-Length
            for _ in range(100):
                yield b" " * 1000

        problem(small.post(path, content=parts(), headers=headers), 413, "too-large")
        boundary = {"content-type": "multipart/form-data; boundary=x"}

        def form() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            yield from parts()

        problem(small.post(f"{path}/images", content=form(), headers=boundary), 413, "too-large")


def test_a_slow_request_gets_408(world: World) -> None:
    app = create_app({"land": world.land}, settings(world, body_seconds=0.3), page=False)
    with running(app) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(
                b"POST /api/archives/land/search HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n"
                b"Content-Type: application/json\r\n\r\n{"
            )
            start = time.monotonic()
            answer = slow.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - start < 10


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'"' + b"a" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"query": {"vector": [1e400]}}',
        b'{"query": {"vector": [NaN]}}',
        b'{"query": {"vector": [1, "a"]}}',
        b'{"query": {"vector": []}}',
        b'{"query": {"vector": [1, 2]}}',
        b'{"query": {"id": ""}}',
        b'{"query": {"id": "\\ud800"}}',
        b'{"query": {"id": "a", "vector": [1]}}',
        b'{"query": {"source": "/etc/passwd", "window": [0, 0, 1, 1]}}',
        b'{"query": {"scene": "/etc/passwd", "window": [0, 0, 1, 1]}}',
        b'{"query": "/etc/passwd"}',
        b'{"query": {"vector": [1]}, "k": 0}',
        b'{"query": {"vector": [1]}, "k": -1}',
        b'{"query": {"vector": [1]}, "k": 100000}',
        b'{"query": {"vector": [1]}, "k": 1e30}',
        b'{"query": {"vector": [1]}, "k": true}',
        b'{"query": {"vector": [1]}, "offset": -1}',
        b'{"query": {"vector": [1]}, "min_percentile": 100}',
        b'{"query": {"vector": [1]}, "ranking": "' + b"a" * 1000 + b'"}',
        b'{"query": {"vector": [1]}, "filter": {"bbox": [0, 0, 1e999, 1]}}',
        b'{"query": {"vector": [1]}, "filter": {"bbox": [0, 91, 1, 92]}}',
        b'{"query": {"vector": [1]}, "filter": {"start": "2021-13-45"}}',
        b'{"query": {"vector": [1]}, "filter": {"geometry": {"type": "Polygon"}}}',
        b"\xff\xfe\x00",
    ],
)
def test_malformed_searches(http: TestClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = http.post("/api/archives/land/search", content=body, headers=headers)
    assert answer.status_code in (400, 404, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text


def test_windows_with_extreme_numbers(http: TestClient, world: World) -> None:
    scene = scene_id(str(world.scene))
    for where in (
        {"window": [0, 0, 2**31, 1]},
        {"window": [0, 0, 2**31 - 1, 2**31 - 1]},
        {"window": [-(2**31) + 1, 0, 10, 10]},
        {"window": [0, 0, 0, 0]},
        {"window": [0, 0, -5, 5]},
        {"window": [0.5, 0, 5, 5]},
        {"bbox": [0, 0, 0, 0]},
        {"bbox": [1e308, -1e308, 1e308, 1e308]},
        {"bbox": [16, 45, 17, 46], "point": [16, 45], "size": 5},
        {"point": [16.3, 45.12]},
        {"point": [1e300, 95], "size": 100},
        {"point": [16.3, 45.12], "size": 1e9},
        {"point": [16.3, 45.12], "size": -1},
        {},
    ):
        body = {"query": {"scene": scene, **where}, "k": 1}
        answer = http.post("/api/archives/land/search", json=body)
        assert answer.status_code in (200, 422), (where, answer.text)


# Names and conditions


TRAVERSALS = [
    "../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "/etc/passwd",
    "....//....//etc/passwd",
    "..\\..\\windows",
    "a\0b",
    "'; DROP TABLE items; --",
    "' OR '1'='1",
    "x" * 4000,
    "\N{SNOWMAN}",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAVERSALS)
def test_names_are_never_paths_or_sql(http: TestClient, name: str, world: World) -> None:
    from urllib.parse import quote

    count = len(world.land)
    for path in (
        f"/api/archives/land/items/{quote(name, safe='')}",
        f"/api/archives/land/items/{quote(name, safe='')}/thumbnail",
        f"/api/archives/{quote(name[:200], safe='')}",
        f"/api/archives/land/scenes/{quote(name, safe='')}",
        f"/api/archives/land/scenes/{quote(name, safe='')}/tiles/1/1/1.png",
    ):
        answer = http.get(path)
        assert answer.status_code in (404, 422), (path, answer.status_code)
        assert "root:" not in answer.text
    for body in ({"query": {"id": name}}, {"like": [{"id": name}]}):
        problem(http.post("/api/archives/land/search", json=body), 404, "unknown-id")
    answer = http.delete(f"/api/archives/land/items/{quote(name, safe='')}", headers=OWNER)
    assert answer.status_code == 404
    answer = http.post("/api/archives/land/items/delete", json={"ids": [name]}, headers=OWNER)
    assert answer.json() == {"deleted": 0}
    assert len(world.land) == count


@pytest.mark.parametrize(
    "where",
    [
        "1=1; DROP TABLE items",
        "id IN (SELECT id FROM items)",
        "folder = 'a' UNION SELECT 1",
        "pg_sleep(10) = 1",
        "load_extension('x') IS NULL",
        "length(folder) > 1",
        "folder || 'a' = 'b'",
        "CASE WHEN 1=1 THEN true ELSE false END",
        "1=1 -- comment'",
        "@@version = 1",
        "${jndi:ldap://x}",
        "__import__('os').system('id') = 0",
        "(" * 5000,
        "NOT " * 2000 + "a = 1",
        "a" * 20_000,
        "",
    ],
)
def test_conditions_only_compare(http: TestClient, where: str) -> None:
    start = time.monotonic()
    body = {"query": {"vector": [1] * 16}, "filter": {"where": where}, "k": 3}
    answer = http.post("/api/archives/land/search", json=body)
    assert time.monotonic() - start < 5
    if answer.status_code == 200:  # SQL ignores a comment
        assert where == "1=1 -- comment'"
    else:
        problem(answer, 422, "usage")
    listed = http.get("/api/archives/land/items", params={"where": where})
    assert listed.status_code == answer.status_code


def test_after_is_no_condition(http: TestClient) -> None:
    everything = http.get("/api/archives/land/items", params={"limit": 1000}).json()
    for after in ("' OR '1'='1", "') OR (1=1", "zzzz"):
        answer = http.get("/api/archives/land/items", params={"after": after}).json()
        expected = [item["id"] for item in everything["items"] if item["id"] > after]
        assert [item["id"] for item in answer["items"]] == expected


# Responses


def test_names_and_properties_are_only_ever_data(tmp_path: Path) -> None:
    """Scripts in them come out as JSON, which no browser runs."""
    script = "<script>alert(1)</script>"
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    record = Record(script, f"/data/{script}.png", "x", properties={"name": script, script: script})
    archive.store.add([record], np.ones((1, 16), np.float32))
    with TestClient(create_app({"a": archive}, page=False)) as http:
        answers = [
            http.get("/api/archives/a/items"),
            http.get("/api/archives/a/items", params={"format": "geojson"}),
            http.get(f"/api/archives/a/items/{script}"),
            http.get("/api/archives/a/scenes"),
            http.post("/api/archives/a/search", json={"query": {"vector": [1] * 16}}),
            http.get(f"/api/archives/{script}"),
            http.get(f"/{script}"),
            http.get(f"/api/archives/a/items/{script}/thumbnail"),
            http.get(f"/problems/{script}"),
        ]
    for answer in answers:
        assert "json" in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answers[0].json()["items"][0]["properties"][script] == script


def test_the_service_answers_only_to_its_own_names(world: World) -> None:
    """It refuses requests to the name of another site that resolves to it (DNS rebinding)."""
    hosts = ("localhost", "127.0.0.1", "[::1]")
    app = create_app({"land": world.land}, settings(world, hosts=hosts), page=False)
    with TestClient(app, base_url="http://127.0.0.1:8000") as http:
        for host in ("localhost", "127.0.0.1:8000", "LOCALHOST:1", "[::1]:8000"):
            assert http.get("/api/archives", headers={"host": host}).status_code == 200
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1"):
            answer = http.get("/api/archives", headers={"host": host})
            problem(answer, 403, "forbidden")


def test_an_internal_error_reveals_nothing(
    app: FastAPI, http: TestClient, world: World, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def broken(*_: object, **__: object) -> None:
        raise KeyError("the secret inside")

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "search", broken)
        body = {"query": {"vector": [1] * 16}}
        answer = http.post("/api/archives/land/search", json=body)
    body = problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert body["request"]
    assert "the secret inside" in caplog.text
