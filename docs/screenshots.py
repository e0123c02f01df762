"""Regenerate pictures/page-*.png: the page on the archive of the demo, in a real browser.

python docs/screenshots.py [FOLDER]   # FOLDER: of an earlier `rsir demo`; made if not given

It needs Chromium (or RSIR_CHROMIUM, its path) and Playwright. All images on the page are generated.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

PICTURES = Path(__file__).resolve().parent / "pictures"
LAPTOP, PHONE = (1280, 800), (390, 844)
COLOURS = 256
"""Number of colours of a picture: the files stay small, and drawings have few colours."""


def main() -> None:
    """Write all screenshots."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # where the page stores uploads
        out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "demo"
        from rsir.cli import demo

        made = demo.run(out)
        with served(made.archive) as address, browser() as chromium:
            take(chromium, address, Path(folder))


@contextmanager
def served(archive: Path) -> Iterator[str]:
    """The address of the archive's page, served by a thread."""
    import uvicorn

    import rsir
    from rsir.web.app import create_app

    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app({"demo": rsir.open(archive)})
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("RSIR_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def take(chromium: Any, address: str, folder: Path) -> None:
    """First view, results of a tile and of a rectangle on a laptop, results on a phone."""
    page = opened(chromium, address, LAPTOP, "light")
    page.get_by_role("button", name="Search with this example: residential").wait_for()
    picture(page, "page-start", folder)
    page.get_by_role("button", name="Search with this example: residential").click()
    settled(page)
    page.locator(".card[data-index='2']").hover()
    picture(page, "page-results", folder)

    page = opened(chromium, address, LAPTOP, "dark")
    page.get_by_role("button", name="Search here").click()
    rectangle(page)
    settled(page)
    picture(page, "page-rectangle-dark", folder)

    page = opened(chromium, address, PHONE, "light")
    page.get_by_role("button", name="Search with this example: water").click()
    settled(page)
    picture(page, "page-phone", folder)


def opened(chromium: Any, address: str, size: tuple[int, int], scheme: str) -> Any:
    """A new tab with the page."""
    width, height = size
    context = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme,
        has_touch=size == PHONE, is_mobile=size == PHONE, device_scale_factor=1,
    )  # fmt: skip
    page = context.new_page()
    page.goto(address)
    page.get_by_role("heading", name="Find places that look alike").wait_for()
    return page


def settled(page: Any) -> None:
    """Wait for the results of a search."""
    page.locator(".status", has_text=" results among ").wait_for()
    page.locator("[role=feed][aria-busy=false] .card").first.wait_for()


def rectangle(page: Any) -> None:
    """Draw a rectangle on the large scene, the only one that the map shows as tiles."""
    page.locator("img.leaflet-tile-loaded").first.wait_for()
    box = page.locator(".map-canvas").bounding_box()
    inside = page.evaluate(SCENE)
    left, top = box["x"] + inside["left"], box["y"] + inside["top"]
    width, height = inside["width"], inside["height"]
    page.mouse.move(left + 0.55 * width, top + 0.3 * height)
    page.mouse.down()
    page.mouse.move(left + 0.7 * width, top + 0.5 * height)
    page.mouse.up()


SCENE = """() => {
  const { map, sceneLayers } = getElement(Number(document.querySelector(".map").id.slice(1)));
  const largest = sceneLayers.reduce((a, b) => (area(a) > area(b) ? a : b)).bounds;
  const a = map.latLngToContainerPoint(largest.getNorthWest());
  const b = map.latLngToContainerPoint(largest.getSouthEast());
  return { left: a.x, top: a.y, width: b.x - a.x, height: b.y - a.y };
  function area({ bounds: b }) {
    return (b.getEast() - b.getWest()) * (b.getNorth() - b.getSouth());
  }
}"""
"""JavaScript: the rectangle of the largest scene on the map, in pixels."""


def picture(page: Any, name: str, folder: Path) -> None:
    """Write a screenshot as NAME.png when everything in view is loaded."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)  # until animations end
    page.screenshot(path=folder / "page.png")
    PICTURES.mkdir(exist_ok=True)
    seen = Image.open(folder / "page.png").convert("RGB")
    reduced(seen).save(PICTURES / f"{name}.png", optimize=True)


def reduced(seen: Image.Image) -> Image.Image:
    """The picture in COLOURS colours: the most frequent ones, those of the page, stay exact."""
    found = sorted(seen.getcolors(seen.width * seen.height), reverse=True)
    exact = [value for _, colour in found[: COLOURS // 4] for value in colour]
    others = seen.quantize(COLOURS - COLOURS // 4).getpalette()[: 3 * COLOURS - len(exact)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(exact + others)
    return seen.quantize(palette=palette, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
