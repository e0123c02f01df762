"""A tiny image set of the catalogue, and a web server that serves it."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from rsir.data.catalog.entries import Citation, Entry

TINY = Entry(
    name="tiny",
    title="Tiny set",
    classes=("dense residential", "storage tanks"),
    class_count=2,
    images=4,
    counts={"dense residential": 2, "storage tanks": 2},
    size=(8, 6),
    labels="single",
    citation=Citation("nobody", "nothing", "nowhere", 2000, None),
    home="nowhere",
    licence="not stated",
    sources="this test",
    layouts=("Tiny/Images",),
)


def picture(path: Path, seed: int, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def tiny(root: Path) -> Path:
    for i, path in enumerate(["DenseResidential/1", "DenseResidential/2", "storage_tank/1",
                              "storage_tank/2"]):  # fmt: skip
        picture(root / f"{path}.png", i)
    return root


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


class Server(BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://example.org/x.zip")
            self.end_headers()
            return
        if self.path == "/near":
            self.send_response(302)
            self.send_header("Location", "/set.zip")
            self.end_headers()
            return
        body = self.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (99 if "short" in self.path else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass
