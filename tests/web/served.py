"""Small archives of generated images and a scene by a fast encoder, and helpers to serve them."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import rasterio
import uvicorn
from affine import Affine
from PIL import Image

from rsir.archive import Archive
from rsir.data.synthetic import scenes
from rsir.scenes.tiling import Tiling
from rsir.web.service.settings import ServiceSettings
from tests.support.colour_encoder import ColourEncoder

KEY = "a-key-that-only-the-owner-has"
OWNER = {"Authorization": f"Bearer {KEY}"}


@dataclass
class World:
    """land: float vectors of 16 images and a scene in 9 tiles. codes: hash codes of the images."""

    folder: Path
    images: Path
    scene: Path
    land: Archive
    codes: Archive


def make(folder: Path) -> World:
    images = folder / "images"
    scenes.write_scenes(images, per_class=2, seed=1)
    file = scene(folder / "scene.tif")
    land = Archive.create(folder / "land", ColourEncoder("cosine", 16))
    land.add([images])
    land.add([file], tiling=Tiling(size=200))
    codes = Archive.create(folder / "codes", ColourEncoder("adaptive-hamming:4", 24))
    codes.add([images])
    return World(folder, images, file, land, codes)


def scene(path: Path, size: tuple[int, int] = (600, 500), side: int = 100) -> Path:
    """A scene of 16 bits in UTM 33, in blocks of `side` × `side` pixels of one colour each."""
    random = np.random.default_rng(0)
    width, height = size
    blocks = random.uniform(200, 2800, (3, -(-height // side), -(-width // side)))
    pixels = blocks.repeat(side, 1).repeat(side, 2)[:, :height, :width]
    with rasterio.open(
        path, "w", driver="GTiff", count=3, width=width, height=height, dtype="uint16",
        photometric="RGB", crs="EPSG:32633", transform=Affine(10, 0, 600_000, 0, -10, 5_000_000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels.astype("uint16"))
    return path


def png(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, 3) or (H, W) uint8 as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def settings(world: World, **more: Any) -> ServiceSettings:
    return ServiceSettings(**{"api_key": KEY, "allow_add": (world.images,), **more})


def search(http: httpx2.Client, archive: str = "land", **body: Any) -> dict[str, Any]:
    answer = http.post(f"/api/archives/{archive}/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def upload(
    http: httpx2.Client,
    content: bytes,
    *,
    archive: str = "land",
    name: str = "a.png",
    kind: str = "image/png",
    **options: Any,
) -> httpx2.Response:
    return http.post(
        f"/api/archives/{archive}/search/images",
        files={"image": (name, content, kind)},
        data={"options": json.dumps(options)},
    )


def problem(answer: httpx2.Response, status: int, name: str) -> dict[str, Any]:
    """The problem in a response, after a check that it follows RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"/problems/{name}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["request"] == answer.headers["x-request-id"]
    return body


@contextmanager
def running(app: Any, **options: Any) -> Iterator[tuple[str, uvicorn.Server]]:
    """Run the application on a port of loopback, by the same server as `rsir serve`."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=20, **options
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def recording_server() -> Iterator[tuple[str, list[str]]]:
    """A web server that answers 404 to all: its address, and the paths that clients request."""
    requested: list[str] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Recorder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requested
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
