"""Exact search side by side: the stores of rsir, FAISS alone, LanceDB's own flat scan.

    python benchmarks/search.py [--floats 100000] [--codes 1000000] [--queries 50]

One process, one query at a time, the same queries for all, k = 100; the contenders take turns
query by query, so that whatever else the machine does hits all of them alike. ExactStore, which
is made to be obvious and not quick, has only the first queries. Prints a Markdown table and writes
benchmarks/results/search.json.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np

from rsir.archive.exact import ExactStore
from rsir.archive.lance import LanceStore
from rsir.archive.store import Record

K = 100
FLOATS = 512
BITS = 64
CHUNK = 50_000
EXACT_QUERIES = 5
RESULTS = Path(__file__).parent / "results" / "search.json"

Search = Callable[[np.ndarray], list[str]]


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def fill(store: ExactStore | LanceStore, vectors: np.ndarray) -> None:
    for start in range(0, len(vectors), CHUNK):
        rows = vectors[start : start + CHUNK]
        ids = [f"{n:024x}" for n in range(start, start + len(rows))]
        store.add([Record(id, f"/archive/{id}.png", id) for id in ids], rows)


def of_store(store: ExactStore | LanceStore) -> Search:
    return lambda query: [n.record.id for n in store.search(query[None], K)[0]]


def of_faiss(index: faiss.Index) -> Search:
    return lambda query: [f"{n:024x}" for n in index.search(query[None], K)[1][0]]


def of_lancedb(store: LanceStore, distance: str) -> Search:
    table = store._table

    def search(query: np.ndarray) -> list[str]:
        found = table.search(query).distance_type(distance).limit(K)
        return (
            found.select(["id", "source", "properties", "_distance"]).to_arrow()["id"].to_pylist()
        )

    return search


def measure(contenders: dict[str, Search], queries: np.ndarray) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    shared: dict[str, list[float]] = {name: [] for name in contenders}
    for search in contenders.values():
        search(queries[0])
    for turn, query in enumerate(queries):
        answers = {}
        for name, search in contenders.items():
            if name == "ExactStore" and turn >= EXACT_QUERIES:
                continue
            start = time.perf_counter()
            answers[name] = set(search(query))
            seconds[name].append(time.perf_counter() - start)
        for name, answer in answers.items() if "ExactStore" in answers else ():
            shared[name].append(len(answer & answers["ExactStore"]) / K)
    return {
        name: {
            "median_ms": 1000 * float(np.median(times)),
            "p99_ms": 1000 * float(np.percentile(times, 99)),
            "queries": len(times),
            "same_hits": float(np.mean(shared[name])),
        }
        for name, times in seconds.items()
    }


def rival(metric: str, vectors: np.ndarray) -> faiss.Index:
    index = faiss.IndexBinaryFlat(BITS) if metric == "hamming" else faiss.IndexFlatIP(FLOATS)
    index.add(vectors)
    return index


def run(metric: str, vectors: np.ndarray, queries: np.ndarray) -> dict[str, object]:
    dimension = BITS if metric == "hamming" else FLOATS
    with tempfile.TemporaryDirectory() as folder:
        exact = ExactStore(metric, dimension)
        fill(exact, vectors)
        path = Path(folder) / "items.lance"
        start = time.perf_counter()
        lance = LanceStore.create(path, metric, dimension)
        fill(lance, vectors)
        write = time.perf_counter() - start
        # Only what stays: the vectors in NumPy and the row addresses.
        start = time.perf_counter()
        lance = LanceStore.open(path)
        lance.search(queries[:1], K)
        first = time.perf_counter() - start
        gallery = lance._latest()
        kept = vectors.nbytes + gallery.row_ids.nbytes
        results = measure(
            {
                "ExactStore": of_store(exact),
                "LanceStore": of_store(lance),
                "FAISS alone": of_faiss(rival(metric, vectors)),
                "LanceDB flat scan": of_lancedb(lance, metric),
            },
            queries,
        )
    return {
        "metric": metric,
        "count": len(vectors),
        "dimension": dimension,
        "k": K,
        "queries": len(queries),
        "write_s": write,
        "open_and_first_search_s": first,
        "lance_store_memory_mb": kept / 1e6,
        "results": results,
    }


def table(case: dict) -> str:
    base = case["results"]["FAISS alone"]["median_ms"]
    unit = "bits" if case["metric"] == "hamming" else "floats"
    lines = [
        f"\n{case['count']:,} × {case['dimension']} {unit}, {case['metric']}, k = {K}, "
        f"one query at a time. LanceStore: written in {case['write_s']:.1f} s, "
        f"opened with its first search in {case['open_and_first_search_s']:.2f} s, "
        f"keeps {case['lance_store_memory_mb']:.0f} MB in memory.\n",
        "| | queries | median ms | p99 ms | × FAISS | same hits as ExactStore | returns |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, row in case["results"].items():
        returns = "ids" if name == "FAISS alone" else "records"
        lines.append(
            f"| {name} | {row['queries']} | {row['median_ms']:.2f} | {row['p99_ms']:.2f} | "
            f"{row['median_ms'] / base:.2f} | {100 * row['same_hits']:.1f} % | {returns} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--floats", type=int, default=100_000)
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    machine = {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "faiss-cpu", "lancedb", "pyarrow")},
    }
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}")

    def unit(count: int) -> np.ndarray:
        rows = rng.standard_normal((count, FLOATS), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def codes(count: int) -> np.ndarray:
        return rng.integers(0, 256, (count, BITS // 8), dtype=np.uint8)

    cases = []
    for metric, vectors, queries in (
        ("cosine", unit(options.floats), unit(options.queries)),
        ("hamming", codes(options.codes), codes(options.queries)),
    ):
        cases.append(run(metric, vectors, queries))
        print(table(cases[-1]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "cases": cases}, indent=2) + "\n")


if __name__ == "__main__":
    main()
