"""The memory, disk, time and money that archives of 10⁴ to 10⁹ tiles take, from measurements.

    python benchmarks/scaling.py [--node-memory 64 --node-cores 16 --node-price 0.768]
                                 [--disk-price 0.023]

Prints the tables of docs/scaling.md from benchmarks/results: growth.json (bytes, memory, times of
the largest size measured), search.json (adding) and cost.json (encoding). Everything grows with the
number of tiles N except the time of approximate search, which scans a fixed number of lists of √N
vectors and so grows with √N. The size of a Milvus row is computed from its fields
(`rsir.store.milvus.rows`), for a tile with a footprint, times and properties as indexing a scene
writes them. Prices are in USD: a node of that memory and number of cores per hour, by default the
list price of AWS's m6i.4xlarge (2024), and a gigabyte on an object store per month (S3 standard,
2024). A month has 730 hours.
"""

import argparse
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from rsir.store.milvus.rows import Layout
from rsir.store.records.record import Record

RESULTS = Path(__file__).parent / "results"
TILES = [10**n for n in range(4, 10)]
LAPTOP, SERVER = 16e9, 256e9
"""Bytes of memory of a laptop and of a large machine; half is for the archive. Our choice."""
USABLE = 0.75
"""The share of a node's memory for data; the rest is for growth and queries. Our choice."""
HOURS = 730
DIMENSIONS = {"codes": ("adaptive-hamming:30", 64), "floats": ("cosine", 512)}
SHOWN = {"codes": "exact", "floats": "approximate"}


def tile() -> Record:
    """A record such as indexing a scene writes."""
    ring = [[11.5 + x, 48.1 + y] for x, y in ((0, 0), (0.034567891, 0), (0, 0.023456789), (0, 0))]
    return Record(
        id="0" * 24,
        source="s3://bucket/sentinel-2/2024/T32UPU_20240501T101031_TCI_10m.tif",
        content="0" * 32,
        size=10**9,
        mtime_ns=1_700_000_000_123_456_789,
        footprint={"type": "Polygon", "coordinates": [ring]},
        datetime=datetime(2024, 5, 1, 10, 10, 31, tzinfo=UTC),
        properties={
            "width": 10980,
            "height": 10980,
            "crs": "EPSG:32632",
            "bands": ["red", "green", "blue"],
            "window": [5120, 5120, 256, 256],
            "stretch": [[0, 255], [0, 255], [0, 255]],
            "gsd": 10.0,
            "valid": 1.0,
        },
    )


def milvus_bytes(kind: str) -> tuple[int, int]:
    """Bytes of a row of Milvus, and of its vector alone."""
    metric, dimension = DIMENSIONS[kind]
    layout = Layout(metric, dimension)
    vector = np.zeros((1, layout.width), np.uint8 if kind == "codes" else np.float32)
    if kind == "floats":
        vector[0, 0] = 1
    (row,) = layout.rows([tile()], vector)
    sizes = {
        name: len(value.encode()) if isinstance(value, str) else 8 for name, value in row.items()
    }
    sizes["vector"] = dimension // 8 if kind == "codes" else 4 * dimension
    return sum(sizes.values()), sizes["vector"]


def size(number: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= scale:
            value = number / scale
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{number / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    for unit, scale in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= scale:
            value = seconds / scale
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{1000 * seconds:.1f} ms"


def where(memory: float) -> str:
    if memory <= LAPTOP / 2:
        return "folder, a laptop"
    return "folder, a large machine" if memory <= SERVER / 2 else "Milvus, or several folders"


def embedded(kind: str, growth: dict) -> str:
    """The table of archives in a folder."""
    points = growth["results"][kind]
    # The largest size at which each was measured: exact search of floats ends at what fits.
    of = {name: point for point in points for name in point["rankings"]}
    names = list(points[0]["rankings"])
    lines = [
        "| tiles | on disk | "
        + " | ".join(f"memory, {name}" for name in names)
        + " | "
        + " | ".join(f"one search, {name}" for name in names)
        + f" | where ({SHOWN[kind]}) |",
        "|--:|--:|" + "--:|" * (2 * len(names)) + "---|",
    ]
    for tiles in TILES:
        times = {n: tiles / of[n]["count"] for n in names}
        measured = {n: of[n]["rankings"][n] for n in names}
        memory = {n: measured[n]["memory_bytes"] * times[n] for n in names}
        seconds = {
            n: measured[n]["median_ms"]
            / 1000
            * (math.sqrt(times[n]) if n == "approximate" else times[n])
            for n in names
        }
        cells = [
            f"{tiles:,}",
            size(points[-1]["bytes"] * tiles / points[-1]["count"]),
            *(size(memory[n]) for n in names),
            *(duration(seconds[n]) for n in names),
            where(memory[SHOWN[kind]]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cluster(options: argparse.Namespace) -> str:
    """The table of Milvus nodes."""
    usable = options.node_memory * 1e9 * USABLE
    lines = [
        "| tiles | codes: all fields in memory | nodes | USD a month | vectors alone in memory "
        "| nodes | 512 floats: vectors alone in memory | nodes | USD a month |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for tiles in TILES[2:]:
        row, code = (n * tiles for n in milvus_bytes("codes"))
        floats = milvus_bytes("floats")[1] * tiles
        nodes = [math.ceil(n / usable) for n in (row, code, floats)]
        month = [n * options.node_price * HOURS for n in nodes]
        lines.append(
            f"| {tiles:,} | {size(row)} | {nodes[0]} | {month[0]:,.0f} | {size(code)} | {nodes[1]} "
            f"| {size(floats)} | {nodes[2]} | {month[2]:,.0f} |"
        )
    return "\n".join(lines)


def work(growth: dict, search: dict, cost: dict, options: argparse.Namespace) -> str:
    """The table of encoding and storing."""
    point = growth["results"]["codes"][-1]
    added = search["results"]["codes-1m"]
    per_image = cost["methods"]["dah"]["ms_per_image_batched"]["median"] / 1000
    lines = [
        "| tiles | encoding, 1 machine | 16 machines | USD for encoding | adding the codes "
        "| S3 for codes, USD a month |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for tiles in TILES:
        seconds = tiles * per_image
        # The measured machine has fewer cores than a node, which is paid as a whole.
        nodes = seconds * cost["machine"]["cores"] / options.node_cores
        writing = added["add_s"] * tiles / added["count"]
        disk = point["bytes"] * tiles / point["count"]
        lines.append(
            f"| {tiles:,} | {duration(seconds)} | {duration(seconds / 16)} "
            f"| {nodes / 3600 * options.node_price:,.2f} | {duration(writing)} "
            f"| {disk / 1e9 * options.disk_price:,.2f} |"
        )
    return "\n".join(lines)


def tables(options: argparse.Namespace) -> dict[str, str]:
    """All tables by name."""
    growth, search, cost = (
        json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
        for name in ("growth", "search", "cost")
    )
    return {
        "codes": embedded("codes", growth),
        "floats": embedded("floats", growth),
        "cluster": cluster(options),
        "work": work(growth, search, cost, options),
    }


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--node-memory", type=float, default=64.0, help="GB")
    parser.add_argument("--node-cores", type=int, default=16)
    parser.add_argument("--node-price", type=float, default=0.768, help="USD an hour")
    parser.add_argument("--disk-price", type=float, default=0.023, help="USD a GB and month")
    return parser.parse_args(given)


def shown(part: str) -> str:
    """One table, with the default prices."""
    return tables(arguments([]))[part]


if __name__ == "__main__":
    for text in tables(arguments()).values():
        print(f"\n{text}")
