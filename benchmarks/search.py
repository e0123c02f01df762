"""Exact search side by side: the embedded store of rsir, FAISS alone, LanceDB's own flat scan.

    python benchmarks/search.py [--floats 100000] [--codes 1000000] [--queries 50]

One process, one query at a time, the same queries for all, k = 100; the contenders take turns
query by query, so that whatever else the machine does hits all of them alike. The first queries
are answered by brute force in NumPy too (`rsir.ranking`), to see that the hits are the same. Codes
are those of 30 classes with noise, kept with class probabilities; filters choose 0.01 %, 1 % and
50 % of them. Ten million: --codes 10000000 --floats 0. Prints a Markdown table and writes
benchmarks/results/search.json.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np

from rsir.archive.filters import Filter
from rsir.archive.lance import LanceStore
from rsir.archive.store import Record
from rsir.ranking import nearest, packed
from rsir.timing import cpu_name

K = 100
FLOATS = 512
BITS = 64
CLASSES = 30
FLIPPED = 0.25
CHUNK = 250_000
CHECKED = 3
SHARES = {"0.01 %": 1, "1 %": 100, "50 %": 5000}
RESULTS = Path(__file__).parent / "results" / "search.json"

Answer = Sequence[int]
Search = Callable[[np.ndarray], Answer]


def fill(store: LanceStore, vectors: np.ndarray) -> None:
    for start in range(0, len(vectors), CHUNK):
        rows = vectors[start : start + CHUNK]
        records = [
            Record(f"{n:024x}", f"/archive/{n}.png", f"{n:x}", properties={"share": n * 7 % 10_000})
            for n in range(start, start + len(rows))
        ]
        store.add(records, rows)


def of_store(store: LanceStore, *, read: bool = True, **options: object) -> Search:
    """read: look at every record, and not only at how many there are."""

    def search(query: np.ndarray) -> Answer:
        found = store.search(query[None], K, **options)[0]
        return [int(n.record.id, 16) for n in found] if read else range(len(found))

    return search


def of_faiss(index: faiss.Index, width: int) -> Search:
    return lambda query: index.search(query[None, :width], K)[1][0].tolist()


def of_lancedb(store: LanceStore) -> Search:
    table = store._table

    def search(query: np.ndarray) -> Answer:
        found = table.search(query).distance_type(store.metric).limit(K)
        rows = found.select(["id", "source", "properties", "_distance"]).to_arrow()
        return [int(id, 16) for id in rows["id"].to_pylist()]

    return search


def measure(contenders: dict[str, Search], queries: np.ndarray) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for search in contenders.values():
        for query in queries[:3]:
            search(query)
    for query in queries:
        for name, search in contenders.items():
            start = time.perf_counter()
            search(query)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def same_hits(
    search: Search, metric: str, queries: np.ndarray, vectors: np.ndarray, chosen: np.ndarray
) -> float:
    """The share of hits that are those of brute force among the rows `chosen`."""
    ids = [f"{n:024x}" for n in chosen]
    order, _ = nearest(metric, queries, vectors[chosen], ids, K)
    wanted = [chosen[row].tolist() for row in order]
    right = [
        len(set(search(query)) & set(ids)) / len(ids)
        for query, ids in zip(queries, wanted, strict=True)
    ]
    return float(np.mean(right))


def case(
    metric: str, dimension: int, vectors: np.ndarray, queries: np.ndarray, folder: Path
) -> dict[str, object]:
    path = folder / "items.lance"
    start = time.perf_counter()
    lance = LanceStore.create(path, metric, dimension)
    fill(lance, vectors)
    write = time.perf_counter() - start
    start = time.perf_counter()
    lance = LanceStore.open(path)
    lance.search(queries[:1], K)
    first = time.perf_counter() - start

    everything = np.arange(len(vectors))
    contenders: dict[str, Search] = {}
    checks: dict[str, tuple[Search, str, int, np.ndarray]] = {}
    filters: dict[str, float] = {}
    if metric == "cosine":
        width = dimension
        index: faiss.Index = faiss.IndexFlatIP(dimension)
        contenders["LanceDB flat scan"] = of_lancedb(lance)
        plain: dict[str, object] = {}
        ranking = metric
    else:
        width = dimension // 8
        index = faiss.IndexBinaryFlat(dimension)
        plain, ranking = {"metric": "hamming"}, "hamming"
        contenders["adaptive"] = of_store(lance, read=False)
        checks["adaptive"] = (of_store(lance), metric, vectors.shape[1], everything)
    index.add(np.ascontiguousarray(vectors[:, :width]))
    contenders |= {
        "FAISS alone": of_faiss(index, width),
        "rsir": of_store(lance, read=False, **plain),
        "rsir, records read": of_store(lance, **plain),
    }
    checks["rsir"] = (contenders["rsir, records read"], ranking, width, everything)
    for share, below in SHARES.items():
        chosen = Filter(where=f"share < {below}")
        start = time.perf_counter()
        count = lance.count(chosen)
        filters[share] = time.perf_counter() - start
        name = f"rsir, filter {share}"
        contenders[name] = of_store(lance, read=False, filter=chosen, **plain)
        rows = everything[everything * 7 % 10_000 < below]
        assert count == len(rows)
        checks[name] = (of_store(lance, filter=chosen, **plain), ranking, width, rows)
    seconds = measure(contenders, queries)
    shares = {
        name: same_hits(search, by, queries[:CHECKED, :columns], vectors[:, :columns], rows)
        for name, (search, by, columns, rows) in checks.items()
    }
    batch = {
        "FAISS alone": _timed(lambda: index.search(queries[:, :width].copy(), K)),
        "rsir": _timed(lambda: lance.search(queries, K, **plain)),
    }
    return {
        "metric": metric,
        "count": len(vectors),
        "dimension": dimension,
        "k": K,
        "queries": len(queries),
        "write_s": write,
        "open_and_first_search_s": first,
        "filter_first_s": filters,
        "batch_ms_per_query": {name: 1000 * s / len(queries) for name, s in batch.items()},
        "results": {
            name: {
                "median_ms": 1000 * float(np.median(times)),
                "p99_ms": 1000 * float(np.percentile(times, 99)),
                "same_hits": shares.get(name),
            }
            for name, times in seconds.items()
        },
    }


def _timed(call: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def table(case: dict) -> str:
    base = case["results"]["FAISS alone"]["median_ms"]
    filters = ", ".join(f"{1000 * s:.0f} ms ({n})" for n, s in case["filter_first_s"].items())
    batch = ", ".join(f"{name} {ms:.2f} ms" for name, ms in case["batch_ms_per_query"].items())
    lines = [
        f"\n{case['count']:,} × {case['dimension']}, {case['metric']}, k = {K}, "
        f"one query at a time. Written in {case['write_s']:.1f} s, opened with the first search in "
        f"{case['open_and_first_search_s']:.2f} s. A filter the first time, before any search: "
        f"{filters}. A batch of {case['queries']} queries, per query: {batch}.\n",
        "| | median ms | p99 ms | × FAISS | same hits as brute force |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, row in case["results"].items():
        same = "" if row["same_hits"] is None else f"{100 * row['same_hits']:.1f} %"
        lines.append(
            f"| {name} | {row['median_ms']:.2f} | {row['p99_ms']:.2f} | "
            f"{row['median_ms'] / base:.2f} | {same} |"
        )
    return "\n".join(lines)


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.standard_normal((count, FLOATS), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def codes(rng: np.random.Generator, centres: np.ndarray, count: int) -> np.ndarray:
    """Rows of "adaptive-hamming": noisy codes of classes, and softmax probabilities."""
    group = rng.integers(CLASSES, size=count)
    noisy = np.packbits(centres[group] ^ (rng.random((count, BITS)) < FLIPPED), axis=1)
    logits = rng.standard_normal((count, CLASSES), dtype=np.float32)
    logits[np.arange(count), group] += 5
    odds = np.exp(logits)
    return packed(noisy, odds / odds.sum(axis=1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--floats", type=int, default=100_000)
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    machine = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "faiss-cpu", "lancedb", "pyarrow")},
    }
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}")

    centres = rng.random((CLASSES, BITS)) < 0.5
    sets = {
        f"adaptive-hamming:{CLASSES}": (BITS, options.codes, lambda n: codes(rng, centres, n)),
        "cosine": (FLOATS, options.floats, lambda n: unit(rng, n)),
    }
    cases = []
    for metric, (dimension, count, make) in sets.items():
        if not count:
            continue
        with tempfile.TemporaryDirectory() as folder:
            vectors, queries = make(count), make(options.queries)
            cases.append(case(metric, dimension, vectors, queries, Path(folder)))
        print(table(cases[-1]), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "cases": cases}, indent=2) + "\n")


if __name__ == "__main__":
    main()
