"""Read hostile files, each in a process of its own: python -m tests.support.read_hostile < LINES;
a line is "image", a tab and a path.

Prints a line of JSON for each file: how each of the two ways ends (a picture by
`rsir.images.read.read_tile`, a scene by `rsir.scenes.tiles.tiles`), seconds, and the growth of the
memory in MB. A way ends as "tiles" (all windows read), "damaged" (some), "refused", or with the
name of another exception; a process that dies or takes too long ends as "died".
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsir.errors import RsirError
from rsir.images.read import read_tile
from rsir.scenes.chips import is_picture
from rsir.scenes.scene import Scene
from rsir.scenes.tiles import tiles
from rsir.scenes.tiling import Tiling
from rsir.sources.find import source
from rsir.types import Tile
from tests.support.hostile_files import valid_files

Way = Callable[[str], str]

SECONDS = 20
MEMORY = 2 << 30


def as_picture(name: str) -> str:
    pixels = read_tile(name).pixels
    assert pixels.dtype == np.uint8
    return "tiles"


def as_scene(name: str) -> str:
    is_picture(source(name))
    damaged = count = 0
    with Scene.open(name, ["1"]) as scene:
        _ = scene.gsd, scene.datetime, scene.content, scene.stamp
        for tile in tiles(scene, Tiling(size=64, stretch=Tiling().stretch)):
            count += isinstance(tile, Tile)
            damaged += not isinstance(tile, Tile) and tile.reason == "damaged"
    return "damaged" if damaged else "tiles" if count else "empty"


def outcome(way: Way, name: str) -> tuple[str, str]:
    try:
        return way(name), ""
    except RsirError as error:
        text = str(error)
        return ("refused" if "\n" not in text.strip() else "many lines"), text
    except BaseException as error:
        return type(error).__name__, str(error)


def read(ways: Mapping[str, Way], name: str) -> dict[str, Any]:
    """How each way to read a file ends, in a child process."""
    back, here = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(back)
        signal.alarm(SECONDS)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        ends = {kind: outcome(way, name) for kind, way in ways.items()}
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        with os.fdopen(here, "w") as stream:
            json.dump(ends | {"megabytes": grown / 1024}, stream)
        os._exit(0)
    os.close(here)
    with os.fdopen(back) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    found = json.loads(text) if text else {"died": status}
    return found | {"name": name, "seconds": time.monotonic() - started}


def warm_up() -> None:
    """Load in this process what reading loads late, so that each child need not."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in valid_files().items():
            path = f"{folder}/{name}"
            with open(path, "wb") as stream:  # noqa: PTH123
                stream.write(data)
            outcome(as_picture, path)
            outcome(as_scene, path)


def main(ways: Mapping[str, Mapping[str, Way]], lines: Iterable[str]) -> None:
    """Read the file of each line: the name of an entry of `ways`, a tab and a path."""
    for line in lines:
        kind, _, name = line.rstrip("\n").partition("\t")
        print(json.dumps(read(ways[kind], name)), flush=True)


if __name__ == "__main__":
    warm_up()
    main({"image": {"as_picture": as_picture, "as_scene": as_scene}}, sys.stdin)
