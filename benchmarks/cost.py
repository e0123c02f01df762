"""The cost of every method on one backbone: weights, arithmetic, time, bytes.

    python benchmarks/cost.py [--backbone resnet50] [--size 224] [--classes 30] [--gallery 6080]

One process measures one method after the other, with the same images, gallery sizes and clocks
(`rsir.cost.count`, `rsir.cost.timing`). The weights are random, which changes none of the numbers.
AID has 30 classes; PatternNet's test set has 6,080 images, and paper C (table VI) times a query
against it. Prints a Markdown table and writes benchmarks/results/cost.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import faiss
import torch

from rsir.cost.count import Cost, cost
from rsir.cost.timing import Duration, K, Measured, measure
from rsir.methods import METHODS
from rsir.models.encoder import Encoder
from rsir.models.model import build_model

RESULTS = Path(__file__).parent / "results" / "cost.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="of the image in pixels")
    parser.add_argument("--classes", type=int, default=30)
    parser.add_argument("--gallery", type=int, default=6080, help="images searched")
    parser.add_argument("--k", type=int, default=K, help="hits of a search")
    parser.add_argument("--batch", type=int, default=64, help="images encoded at once")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each of the durations")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of torch and FAISS; all cores if not given")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
        faiss.omp_set_num_threads(given.threads)

    load = _load()
    rows = {}
    for method in given.methods:
        print(f"{method} …", file=sys.stderr, flush=True)
        rows[method] = _row(method, given)
    machine = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        # A load above the number of its own threads means that other processes were busy.
        "load_before": load,
        "load_after": _load(),
        **{name: version(name) for name in ("numpy", "torch", "faiss-cpu", "lancedb")},
    }
    print(_table(rows, machine))
    results = {
        "command": shlex.join(["python", "benchmarks/cost.py", *sys.argv[1:]]),
        "backbone": given.backbone,
        "machine": machine,
        "methods": {
            method: dataclasses.asdict(counted) | measured.to_dict()
            for method, (counted, measured) in rows.items()
        },
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=2) + "\n")


def _row(method: str, given: argparse.Namespace) -> tuple[Cost, Measured]:
    names = tuple(f"class {i}" for i in range(given.classes))
    model = build_model(method, backbone=given.backbone, spec=given.size, classes=names)
    encoder = Encoder(model, device=given.device, batch_size=given.batch)
    measured = measure(encoder, gallery=given.gallery, k=given.k, seconds=given.seconds)
    return cost(model), measured


def _load() -> float | None:
    """Running and waiting processes, averaged over a minute; None if the system does not count."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _table(rows: dict[str, tuple[Cost, Measured]], machine: Mapping[str, object]) -> str:
    _, first = next(iter(rows.values()))
    height, width = first.image_size
    lines = [
        f"{first.cpu}, {machine['cores']} cores, encoding on {first.device} ({first.precision}), "
        f"{first.threads} threads of torch, {first.search_threads} of FAISS; load "
        f"{machine['load_before']} before, {machine['load_after']} after. Images of {height} × "
        f"{width}; a gallery of {first.gallery:,}, k = {first.k}. Medians, with the 5th and 95th "
        "percentile.\n",
        "| | ranks by | M parameters | G multiply-adds | ms per image "
        f"| ms per image, {first.batch} at once | ms per query, index | ms per query, records read "
        "| bytes per image | bytes per image, table |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for method, (counted, m) in rows.items():
        lines.append(
            f"| {method} | {m.dimension}, {m.ranking} | {counted.parameters / 1e6:.2f} "
            f"| {counted.multiply_adds / 1e9:.2f} | {_ms(m.ms_per_image)} "
            f"| {_ms(m.ms_per_image_batched)} | {_ms(m.ms_per_query)} | {_ms(m.ms_per_search)} "
            f"| {m.bytes_per_image:,} | {m.table_bytes_per_image:,.0f} |"
        )
    return "\n".join(lines)


def _ms(duration: Duration) -> str:
    return f"{duration.median:.3g} ({duration.p5:.3g}–{duration.p95:.3g})"


if __name__ == "__main__":
    main()
