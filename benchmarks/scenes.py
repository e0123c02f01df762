"""Cut a scene into tiles: tiles per second and peak memory of rsir and of other programs.

    python benchmarks/scenes.py [--side 20000] [--tile 512] [--layout tiled] [--folder DIR]
                                [--model RUN]

Draws a side × side × 3 uint8 GeoTIFF block by block (smooth ramps with noise, so that no block is
empty). Each contender, in a new process, returns every tile as a (3, tile, tile) uint8 array:

rsir: `rsir.scenes.tiles.tiles_of`, with footprint, id and content digest.
rsir-no-digest: the same without the digest, by which rsir recognises an indexed scene.
rsir-index: all of `rsir index`: an archive of the scene, encoded by the model of --model; left out
    without --model.
rasterio-windows: a loop over `dataset.read(window=…)`, pixels only: the lower bound.
rasterio-whole: reads the whole scene and slices it: the shortest program.
torchgeo: RasterDataset and GridGeoSampler, without workers.

Memory is the peak of the process (VmHWM), and its memory before the first tile, after the imports.
Both include file pages of libraries, but not the page cache. Anonymous memory, sampled every 20 ms,
leaves out the pages of libraries, which all processes share and the system can drop. The scene is
deleted at the end. Writes benchmarks/results/scenes.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "scenes.json"
INDEX = "rsir-index"
CONTENDERS = (
    INDEX,
    "rsir",
    "rsir-no-digest",
    "rasterio-windows",
    "rasterio-whole",
    "torchgeo",
)


def draw(path: Path, side: int, layout: str) -> None:
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    block = 512
    tiled = {"tiled": True, "blockxsize": block, "blockysize": block}
    noise = np.random.default_rng(0).integers(0, 64, (3, block, block)).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
        crs="EPSG:32633", transform=Affine(1, 0, 500_000, 0, -1, 5_000_000), BIGTIFF="IF_SAFER",
        **(tiled if layout == "tiled" else {}),
    ) as dataset:  # fmt: skip
        for row in range(0, side, block):
            for column in range(0, side, block):
                w, h = min(block, side - column), min(block, side - row)
                level = (np.array([row, column, row + column]) // block * 7 % 192).astype(np.uint8)
                dataset.write(
                    noise[:, :h, :w] + level[:, None, None], window=Window(column, row, w, h)
                )


def contender(name: str, path: Path, tile: int) -> Iterator[np.ndarray]:
    """An iterator over the tiles; the imports are done before its first `next`."""
    if name.startswith("rsir"):
        from rsir.scenes.scene import Scene
        from rsir.scenes.tiles import tiles_of
        from rsir.scenes.tiling import Tiling

        if name == "rsir-no-digest":
            Scene.content = "0" * 32
        return (made.pixels for made in tiles_of(path, Tiling(size=tile)))
    if name == "torchgeo":
        return torchgeo(path, tile)
    return rasterio_(name == "rasterio-whole", path, tile)


def rasterio_(whole: bool, path: Path, tile: int) -> Iterator[np.ndarray]:
    import rasterio
    from rasterio.windows import Window

    def read() -> Iterator[np.ndarray]:
        with rasterio.open(path) as dataset:
            scene = dataset.read() if whole else None
            starts = [min(i, dataset.width - tile) for i in range(0, dataset.width, tile)]
            for row in starts:
                for column in starts:
                    if scene is None:
                        yield dataset.read(window=Window(column, row, tile, tile))
                    else:
                        yield scene[:, row : row + tile, column : column + tile]

    return read()


def torchgeo(path: Path, tile: int) -> Iterator[np.ndarray]:
    from torchgeo.datasets import RasterDataset
    from torchgeo.samplers import GridGeoSampler

    def read() -> Iterator[np.ndarray]:
        dataset = RasterDataset(str(path))
        for window in GridGeoSampler(dataset, size=tile, stride=tile):
            yield dataset[window]["image"].numpy().astype(np.uint8)

    return read()


def memory(field: str) -> float:
    """Megabytes of VmHWM (peak), VmRSS or RssAnon (now). ru_maxrss would include the parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


@contextmanager
def measured_memory() -> Iterator[dict[str, float]]:
    """The memory before the block, and its peak within the block."""
    megabytes = {
        "megabytes_before": memory("VmRSS"),
        "megabytes_anonymous_before": memory("RssAnon"),
    }
    peak, done = megabytes["megabytes_anonymous_before"], threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, memory("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield megabytes
    finally:
        done.set()
        watcher.join()
    megabytes |= {"megabytes_peak": memory("VmHWM"), "megabytes_anonymous_peak": peak}


def measure(name: str, path: Path, tile: int) -> dict[str, float]:
    warnings.simplefilter("ignore")
    tiles = contender(name, path, tile)
    count = total = 0
    with measured_memory() as megabytes:
        start = time.perf_counter()
        for pixels in tiles:
            assert pixels.shape == (3, tile, tile), pixels.shape
            count += 1
            total += int(pixels[:, ::97, ::97].sum())  # reads every tile
        seconds = time.perf_counter() - start
    return {
        "tiles": count, "checksum": total, "seconds": seconds, "tiles_per_second": count / seconds,
        **megabytes,
    }  # fmt: skip


def index(path: Path, tile: int, model: Path) -> dict[str, float]:
    import rsir
    from rsir.archive import Archive
    from rsir.scenes.tiling import Tiling

    encoder = rsir.load(model)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, measured_memory() as megabytes:
        start = time.perf_counter()
        archive = Archive.create(Path(folder) / "archive", encoder)
        report = archive.add(path, tiling=Tiling(size=tile))
        seconds = time.perf_counter() - start
        assert report.tiles == len(archive)
        assert not report.skipped
    return {
        "tiles": report.tiles, "seconds": seconds, "tiles_per_second": report.tiles / seconds,
        **megabytes,
    }  # fmt: skip


def shown(part: str) -> str:
    """Text for the documents: the "table", or "about", the conditions in words."""
    found = json.loads(RESULTS.read_text("utf-8"))
    scene, on = found["scene"], found["machine"]
    if part == "about":
        return (
            f"{scene['side']:,} × {scene['side']:,} pixels of 3 bands ({scene['bytes'] / 1e9:.2f} "
            f"GB, {scene['layout']}), cut into {scene['tile']} × {scene['tile']}. {on['cpu']}, "
            f"{on['cores']} cores."
        )
    lines = [
        "| | tiles a second | memory that no file backs: before, MB | at most, MB "
        "| with the pages of libraries: before, MB | at most, MB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in found["contenders"].items():
        lines.append(
            f"| {name} | {row['tiles_per_second']:.1f} "
            f"| {row['megabytes_anonymous_before']:.0f} | {row['megabytes_anonymous_peak']:.0f} "
            f"| {row['megabytes_before']:.0f} | {row['megabytes_peak']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20_000, help="of the scene in pixels")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--layout", choices=["tiled", "strips"], default="tiled")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, help="for the scene; a temporary one if not given")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--model", type=Path, help="run folder, for rsir-index")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SCENE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, path = given.one[0], Path(given.one[1])
        if name == INDEX:
            print(json.dumps(index(path, given.tile, given.model)))
        else:
            print(json.dumps(measure(name, path, given.tile)))
        return
    if given.model is None:
        given.contenders = [name for name in given.contenders if name != INDEX]
    from rsir.cost.timing import cpu_name  # imports torch, which contenders must not

    load = os.getloadavg()
    rows = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "scene.tif"
        draw(path, given.side, given.layout)
        size = path.stat().st_size
        for name in given.contenders:
            command = [sys.executable, __file__, "--one", name, str(path)]
            if name == INDEX:
                command += ["--model", str(given.model)]
            done = subprocess.run(
                [*command, "--tile", str(given.tile)], check=True, capture_output=True, text=True
            )
            rows[name] = json.loads(done.stdout)
            print(name, {key: round(value, 1) for key, value in rows[name].items()}, flush=True)
    results = {
        "command": shlex.join(["python", "benchmarks/scenes.py", *sys.argv[1:]]),
        "scene": {"side": given.side, "bytes": size, "layout": given.layout, "tile": given.tile},
        "machine": {
            "cpu": cpu_name(), "system": platform.platform(), "cores": os.cpu_count(),
            "load_before": load, "load_after": os.getloadavg(),
            **{name: version(name) for name in ("rasterio", "numpy", "torchgeo")},
        },
        "contenders": rows,
    }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
