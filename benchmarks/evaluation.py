"""Whole-ranking mAP side by side: rsir, hand-written code, pytorch-metric-learning.

    python benchmarks/evaluation.py [--n 10000] [--dim 512] [--classes 30] [--repeat 3]
                                    [--limit 900] [--contenders rsir numpy …]

Clustered random vectors, cosine, leave-one-out: every vector queries all others. A contender runs
in its own process, which has its own peak memory; "before" is the memory after imports, the
creation of the vectors and a small first run. Seconds are the median of the repeats. All must give
the same mAP to 1e-6 (for 10,000 vectors or more). The table shows a contender that fails, or that
takes longer than --limit seconds for all its repeats. Prints a Markdown table and writes
benchmarks/results/evaluation.json.
"""

# No heavy imports here: a process starts with the peak memory of its parent.
import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BLOCK = 256
"""Queries at a time in the hand-written contenders that work in blocks."""
WARM_UP = 200
"""Vectors of a first run without timing, which does the imports and starts of threads."""
NOISE = 3.0
"""Noise of a vector about its class centre, in units of the centre: mAP is far from 0 and 1."""
RESULTS = Path(__file__).parent / "results" / "evaluation.json"
PACKAGES = ("numpy", "torch", "faiss-cpu", "pytorch-metric-learning", "rsir")

Run = Callable[[], float]
Contender = Callable[["np.ndarray", "np.ndarray"], Run]


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def numpy_argsort(vectors: "np.ndarray", classes: "np.ndarray") -> Run:
    """Compute all distances at once and sort all of them."""
    import numpy as np

    def run() -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        distances = 1 - unit @ unit.T
        np.fill_diagonal(distances, np.inf)
        order = distances.argsort(axis=1)[:, :-1]
        summed = 0.0
        for query, rows in enumerate(order):
            ranks = np.flatnonzero(classes[rows] == classes[query]) + 1
            summed += (np.arange(1, len(ranks) + 1) / ranks).mean() if len(ranks) else 0.0
        return summed / len(order)

    return run


def torch_sort(vectors: "np.ndarray", classes: "np.ndarray") -> Run:
    """Sort the items of one block of queries at a time."""
    import torch

    embeddings, targets = torch.from_numpy(vectors), torch.from_numpy(classes)

    def run() -> float:
        unit = torch.nn.functional.normalize(embeddings)
        ranks = torch.arange(1, len(unit), dtype=torch.float64)
        summed = 0.0
        for start in range(0, len(unit), BLOCK):
            rows = torch.arange(start, min(start + BLOCK, len(unit)))
            distances = 1 - unit[rows] @ unit.T
            distances.scatter_(1, rows[:, None], torch.inf)
            order = distances.argsort(dim=1)[:, :-1]
            hits = (targets[order] == targets[rows, None]).double()
            precisions = (hits.cumsum(dim=1) / ranks * hits).sum(dim=1)
            summed += float((precisions / hits.sum(dim=1).clamp(min=1)).sum())
        return summed / len(unit)

    return run


def counted_ranks(vectors: "np.ndarray", classes: "np.ndarray") -> Run:
    """Sort the relevant items only: the rank of each is the number of items as near or nearer."""
    import torch

    embeddings, targets = torch.from_numpy(vectors), torch.from_numpy(classes)

    def run() -> float:
        unit = torch.nn.functional.normalize(embeddings)
        summed = 0.0
        for start in range(0, len(unit), BLOCK):
            rows = range(start, min(start + BLOCK, len(unit)))
            block = 1 - unit[rows.start : rows.stop] @ unit.T
            for row, distances in zip(rows, block, strict=True):
                distances[row] = torch.inf
                relevant = targets == targets[row]
                relevant[row] = False
                own = distances[relevant].sort().values
                if not len(own):
                    continue
                ranks = (distances <= own[:, None]).sum(dim=1)
                summed += float((torch.arange(1, len(own) + 1) / ranks.double()).mean())
        return summed / len(unit)

    return run


def metric_learning(vectors: "np.ndarray", classes: "np.ndarray") -> Run:
    """AccuracyCalculator; unit vectors have the same order by Euclidean distance and by cosine."""
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    embeddings, targets = torch.from_numpy(vectors), torch.from_numpy(classes)
    measure = "mean_average_precision"
    calculator = AccuracyCalculator(include=(measure,), device=torch.device("cpu"))

    def run() -> float:
        unit = torch.nn.functional.normalize(embeddings)
        accuracy = calculator.get_accuracy(unit, targets, unit, targets, ref_includes_query=True)
        return float(accuracy[measure])

    return run


def of_rsir(*measures: str) -> Contender:
    """`score_queries` with these measures, or with all measures if none is named."""

    def contender(vectors: "np.ndarray", classes: "np.ndarray") -> Run:
        import torch

        from rsir.evaluation.labelled_embeddings import LabelledEmbeddings
        from rsir.evaluation.scoring import score_queries

        images = LabelledEmbeddings(torch.from_numpy(vectors), torch.from_numpy(classes))

        def run() -> float:
            scores = score_queries(
                images,
                images,
                ranking="cosine",
                own=torch.arange(len(images)),
                measures=measures or None,
            )
            return float(scores.per_query["map"].mean())

        return run

    return contender


CONTENDERS: dict[str, tuple[str, Contender]] = {
    "rsir": ("rsir, mAP", of_rsir("map")),
    "rsir-all": ("rsir, every measure", of_rsir()),
    "torch": (f"torch.argsort, {BLOCK} queries at a time", torch_sort),
    "numpy": ("numpy.argsort of everything", numpy_argsort),
    "counted": ("rank of each relevant item by counting", counted_ranks),
    "pml": ("pytorch-metric-learning, AccuracyCalculator", metric_learning),
}


def peak_gb() -> float:
    """Peak memory of this process, in GB of 1e9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def compete(name: str, n: int, dim: int, classes: int, repeat: int) -> dict[str, object]:
    """The seconds and memory of one contender, in this process."""
    import numpy as np

    rng = np.random.default_rng(0)
    targets = rng.integers(0, classes, n)
    centres = rng.standard_normal((classes, dim), dtype=np.float32)
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    vectors *= NOISE
    for of_class, centre in enumerate(centres):
        vectors[targets == of_class] += centre
    contender = CONTENDERS[name][1]
    contender(vectors[:WARM_UP], targets[:WARM_UP])()
    run = contender(vectors, targets)
    before = peak_gb()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        value = run()
        seconds.append(time.perf_counter() - start)
    return {"map": value, "seconds": seconds, "before_gb": before, "peak_gb": peak_gb()}


def measure(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Seconds and memory of one contender, in its own process; {"error": reason} if it fails."""
    command = [sys.executable, __file__, "--contender", name]
    for option in ("n", "dim", "classes", "repeat"):
        command += [f"--{option}", str(getattr(options, option))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {options.limit:.0f} s"}
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return {"error": f"failed, status {done.returncode}"}
    result: dict[str, object] = json.loads(done.stdout)
    return result | {"median_s": statistics.median(result["seconds"])}


def table(results: dict[str, dict]) -> str:
    base = results.get("rsir", {}).get("median_s")
    lines = [
        "| | mAP | seconds | × rsir | peak memory GB | before GB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in results.items():
        title = CONTENDERS[name][0]
        if "error" in row:
            lines.append(f"| {title} | | {row['error']} | | | |")
            continue
        ratio = f"{row['median_s'] / base:.1f}" if base else ""
        lines.append(
            f"| {title} | {row['map']:.6f} | {row['median_s']:.2f} | {ratio} | "
            f"{row['peak_gb']:.2f} | {row['before_gb']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--limit", type=float, default=900)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    size = (options.n, options.dim, options.classes, options.repeat)
    if options.contender:
        print(json.dumps(compete(options.contender, *size)))
        return

    machine = {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}\n")
    print(f"{options.n:,} × {options.dim}, {options.classes} classes, leave-one-out\n")
    results = {name: measure(name, options) for name in options.contenders}
    print(table(results))
    values = {name: row["map"] for name, row in results.items() if "map" in row}
    if values:
        spread = max(values.values()) - min(values.values())
        # float32 rounding orders nearly equal distances; in a small set such a pair counts more.
        slack = 1e-6 * max(1, 10_000 / options.n)
        assert spread <= slack, f"the contenders do not give the same mAP: {values}"
    command = " ".join(["python", "benchmarks/evaluation.py", *sys.argv[1:]])
    options.out.parent.mkdir(exist_ok=True)
    written = {
        "command": command,
        "machine": machine,
        "size": dict(zip(("n", "dim", "classes", "repeat"), size, strict=True)),
    }
    options.out.write_text(json.dumps(written | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
