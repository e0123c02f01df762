"""Searching side by side: rsir, FAISS alone, LanceDB alone, USearch and Milvus, in one process.

    python benchmarks/search.py [--only codes-1m,codes-10m,floats-1m] [--milvus http://host:19530]
                                [--share 0.01] [--queries 50] [--like FILE.npy]

All contenders get the same queries, k = 100, one at a time and 32 at once. They take turns of ten
searches, so that other load on the machine affects all of them alike. A slow contender stops after
ten seconds and at least three searches. The hits of the first queries are compared with brute force
in NumPy (`rsir.ranking`), those of approximate search with the exact ones.

codes-…: 64-bit codes of 30 classes with noise and class probabilities, in an archive of
distance-adaptive ranking, searched by `Archive.search`. floats-…: unit vectors of 512 values in 50
groups, each of which varies in 40 directions; their local intrinsic dimension is about that of
MobileNetV2's embeddings of UC Merced and AID (24 by the nearest 20). floats-iid: vectors without
any structure, the worst case of approximate search (only if named). --like: mixtures of the rows of
a file (N, 512 or more values) and their neighbours. Filters select 0.01 %, 1 % and 50 % of the
records. Records are added by `store.add`, 50,000 at a time; ten million are written as Arrow
tables. A separate process measures opening, the first search and memory (anonymous memory of the
process, without mapped files, which the system may drop). --share: run with this share of the
records, to try it out. --milvus: a server, which stores the same vectors in a temporary collection.
Adds its results to benchmarks/results/search.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from rsir.archive import Archive
from rsir.archive.folder.external import ExternalEncoder
from rsir.cost.timing import cpu_name
from rsir.ranking import packed, pairwise
from rsir.store.filters.filter import Filter
from rsir.store.lance.store import LanceStore
from rsir.store.records.record import Record

K = 100
FLOATS = 512
BITS = 64
CLASSES = 30
FLIPPED = 0.25
GROUPS = 50
DIRECTIONS = 40
COMMIT = 50_000
CHUNK = 1_000_000
BATCH = 32
CHECKED = 3
SECONDS = 10.0
TURN = 10
"""Searches of one contender in a row."""
FEWEST = 3
SHARES = {"0.01 %": 1, "1 %": 100, "50 %": 5000}
RESULTS = Path(__file__).parent / "results" / "search.json"

Answer = Sequence[int]
Search = Callable[[np.ndarray], list[Answer]]
"""From queries (Q, width) to the numbers of the records found, per query."""


# The vectors and records.


def codes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Rows of "adaptive-hamming": noisy codes of classes, and softmax probabilities."""
    centres = np.random.default_rng(1).random((CLASSES, BITS)) < 0.5
    rows = np.empty((count, BITS // 8 + 4 * CLASSES), np.uint8)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        group = rng.integers(CLASSES, size=size)
        flips = rng.random((size, BITS), dtype=np.float32) < FLIPPED
        odds = rng.standard_normal((size, CLASSES), dtype=np.float32)
        odds[np.arange(size), group] += 5
        odds = np.exp(odds)
        odds /= odds.sum(axis=1, keepdims=True)
        noisy = np.packbits(centres[group] ^ flips, axis=1)
        rows[start : start + size] = packed(noisy, np.minimum(odds, 1))
    return rows


def floats(rng: np.random.Generator, count: int, spread: bool = True) -> np.ndarray:
    fixed = np.random.default_rng(1)
    centres = fixed.standard_normal((GROUPS, FLOATS), dtype=np.float32)
    directions = fixed.standard_normal((GROUPS, DIRECTIONS, FLOATS), dtype=np.float32)
    directions /= np.sqrt(np.float32(DIRECTIONS))
    rows = np.empty((count, FLOATS), np.float32)
    for start in range(0, count, COMMIT):
        size = min(COMMIT, count - start)
        some = rng.standard_normal((size, FLOATS), dtype=np.float32)
        if spread:
            some *= np.float32(0.2)
            group = rng.integers(GROUPS, size=size)
            for each in range(GROUPS):
                of = np.flatnonzero(group == each)
                along = rng.standard_normal((len(of), DIRECTIONS), dtype=np.float32)
                some[of] += centres[each] + along @ directions[each]
        rows[start : start + size] = unit(some)
    return rows


def independent(rng: np.random.Generator, count: int) -> np.ndarray:
    return floats(rng, count, spread=False)


def mixtures(file: str) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Random mixtures of the rows of a file and two of their seven nearest, with noise.

    The noise has 0.2 of the standard deviation of each principal component.
    """
    given = np.load(file).astype(np.float32)
    base = given[:: max(1, len(given) // 20_000)]
    _, _, components = np.linalg.svd(base[:5000] - base.mean(axis=0), full_matrices=False)
    base = np.ascontiguousarray(base @ components[:FLOATS].T)
    _, near = faiss.knn(base, base, 8)

    def make(rng: np.random.Generator, count: int) -> np.ndarray:
        rows = np.empty((count, FLOATS), np.float32)
        for start in range(0, count, COMMIT):
            size = min(COMMIT, count - start)
            own = rng.integers(len(base), size=size)
            others = near[own[:, None], rng.integers(1, 8, size=(size, 2))]
            weights = rng.dirichlet([1, 1, 1], size=size).astype(np.float32)
            mixed = np.einsum("nw,nwd->nd", weights, base[np.column_stack([own, others])])
            noise = rng.standard_normal((size, FLOATS), dtype=np.float32)
            rows[start : start + size] = unit(mixed + 0.2 * base.std(axis=0) * noise)
        return rows

    return make


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ids(first: int, count: int) -> np.ndarray:
    """(count, 24) ASCII: 16 hex digits in no order, as a hash has them, and 8 of the number."""
    number = np.arange(first, first + count, dtype=np.uint64)
    mixed = (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    octets = np.column_stack(
        [
            mixed.astype(">u8").view(np.uint8).reshape(-1, 8),
            number.astype(">u4").view(np.uint8).reshape(-1, 4),
        ]
    )
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.empty((count, 24), np.uint8)
    text[:, 0::2], text[:, 1::2] = digits[octets >> 4], digits[octets & 15]
    return text


def names(first: int, count: int) -> list[str]:
    return [row.tobytes().decode() for row in ids(first, count)]


def numbers(found: Sequence[str]) -> list[int]:
    return [int(id[16:], 16) for id in found]


def shares(count: int, first: int = 0) -> np.ndarray:
    """The property that filters use: (count,) in [0, 10,000), each value equally often."""
    return np.arange(first, first + count) * 7 % 10_000


def add(store: LanceStore, vectors: np.ndarray, first: int = 0) -> float:
    """Add records by `store.add`, as indexing and importing do; returns the seconds it took."""
    seconds = 0.0
    for start in range(0, len(vectors), COMMIT):
        rows = vectors[start : start + COMMIT]
        records = [
            Record(id, f"/archive/{n}.png", f"{n:x}", properties={"share": n * 7 % 10_000})
            for n, id in enumerate(names(first + start, len(rows)), first + start)
        ]
        began = time.perf_counter()
        store.add(records, rows)
        seconds += time.perf_counter() - began
    return seconds


def write(store: LanceStore, vectors: np.ndarray, first: int = 0) -> None:
    """The same records in big commits, made column by column."""
    of = shares(len(vectors), first)
    table = store._handle.table
    for start in range(0, len(vectors), CHUNK):
        rows = vectors[start : start + CHUNK]
        count = len(rows)
        text = ids(first + start, count)
        offsets = np.arange(0, 24 * (count + 1), 24, dtype=np.int32)
        own = pa.Array.from_buffers(
            pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(text)]
        )
        column = {
            "id": own,
            "source": own,
            "content": own,
            "size": pa.array(np.zeros(count, np.int64)),
            "mtime_ns": pa.array(np.zeros(count, np.int64)),
            "properties": pa.array(
                [f'{{"share": {n}}}' for n in of[start : start + count].tolist()]
            ),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1]),
        }
        table.add(
            pa.table(
                [
                    column[field.name] if field.name in column else pa.nulls(count, field.type)
                    for field in table.schema
                ],
                schema=table.schema,
            )
        )


def archive_of(folder: Path, metric: str, dimension: int) -> tuple[Archive, LanceStore]:
    archive = Archive.create(folder / "archive", ExternalEncoder("benchmark", metric, dimension))
    return archive, archive.store


# The contenders.


def of_archive(archive: Archive, *, read: bool = False, **options: object) -> Search:
    """`Archive.search_many`; read: whether to read the record of every hit."""

    def search(queries: np.ndarray) -> list[Answer]:
        found = archive.search_many(list(queries), K, **options)
        return [numbers([h.id for h in hits]) if read else range(len(hits)) for hits in found]

    return search


def of_faiss(index: faiss.Index, width: int) -> Search:
    return lambda queries: list(index.search(np.ascontiguousarray(queries[:, :width]), K)[1])


def of_lancedb(store: LanceStore, vectors: str, width: int, distance: str) -> Search:
    table = store._handle.table

    def search(queries: np.ndarray) -> list[Answer]:
        found = []
        for query in queries:
            search = table.search(query[:width], vector_column_name=vectors)
            rows = search.distance_type(distance).limit(K).select(["id", "source", "_distance"])
            found.append(numbers(rows.to_arrow()["id"].to_pylist()))
        return found

    return search


def of_usearch(vectors: np.ndarray, width: int) -> Search:
    from usearch.index import MetricKind
    from usearch.index import search as exact

    bits = vectors.dtype == np.uint8
    gallery = np.ascontiguousarray(vectors[:, :width])
    kind, dtype = (MetricKind.Hamming, "b1") if bits else (MetricKind.IP, "f32")

    def search(queries: np.ndarray) -> list[Answer]:
        batch = np.ascontiguousarray(queries[:, :width])
        found = exact(gallery, batch, K, kind, exact=True, dtype=dtype)
        return list(np.atleast_2d(found.keys))

    return search


@contextmanager
def of_milvus(uri: str, vectors: np.ndarray, width: int) -> Iterator[Search]:
    """Milvus' own exact search, FLAT or BIN_FLAT, in a collection that is dropped afterwards."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(uri)
    name = f"rsir_benchmark_{os.getpid()}"
    bits = vectors.dtype == np.uint8
    kind = DataType.BINARY_VECTOR if bits else DataType.FLOAT_VECTOR
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", kind, dim=8 * width if bits else width)
    indexes = client.prepare_index_params()
    metric = "HAMMING" if bits else "IP"
    indexes.add_index("vector", index_type="BIN_FLAT" if bits else "FLAT", metric_type=metric)
    client.create_collection(name, schema=schema, consistency_level="Strong")
    try:
        step = 100_000 if bits else 5000
        for start in range(0, len(vectors), step):
            rows = np.ascontiguousarray(vectors[start : start + step, :width])
            client.insert(
                name,
                [
                    {"id": start + n, "vector": row.tobytes() if bits else row}
                    for n, row in enumerate(rows)
                ],
            )
        client.flush(name)
        client.create_index(name, indexes)
        client.load_collection(name)

        def search(queries: np.ndarray) -> list[Answer]:
            batch = [q[:width].tobytes() if bits else q for q in queries]
            found = client.search(name, batch, limit=K, search_params={"metric_type": metric})
            return [[hit["id"] for hit in hits] for hits in found]

        yield search
    finally:
        client.drop_collection(name)


# The measurements.


def measure(
    contenders: dict[str, Search], queries: np.ndarray, size: int, seconds: float = SECONDS
) -> dict[str, list[float]]:
    """The seconds of each search of `size` queries at once."""
    batches = [queries[n : n + size] for n in range(0, len(queries), size)]
    took: dict[str, list[float]] = {name: [] for name in contenders}
    # Turns expose all to the same load; each is several searches long because in real use, too, a
    # search finds its code and its threads warm.
    for start in range(0, len(batches), TURN):
        for name, search in contenders.items():
            if sum(took[name]) > seconds and len(took[name]) >= FEWEST:
                continue
            search(batches[start])
            for batch in batches[start : start + TURN]:
                began = time.perf_counter()
                search(batch)
                took[name].append(time.perf_counter() - began)
    return took


def same_hits(
    search: Search,
    metric: str,
    queries: np.ndarray,
    vectors: np.ndarray,
    width: int,
    chosen: np.ndarray,
) -> float:
    """The share of hits that are as near as those of brute force among the rows `chosen`."""
    vectors = vectors[:, :width]
    far = pairwise(metric, queries[:, :width], vectors[chosen])
    count = min(K, len(chosen))
    if not count:
        return 1.0
    right = []
    for query, found, distances in zip(queries, search(queries), far, strict=True):
        among = np.asarray(found)
        assert np.isin(among, chosen).all()
        assert len(set(found)) == len(found)
        farthest = np.partition(distances, count - 1)[count - 1]
        theirs = pairwise(metric, query[None, :width], vectors[among])[0]
        right.append((theirs <= farthest).sum() / count)
    return float(np.mean(right))


def probe(path: str, rankings: Sequence[str]) -> dict[str, dict[str, float]]:
    """Opening, the first search and the memory of each ranking, in a process of its own."""
    found = {}
    for ranking in rankings:
        command = [sys.executable, __file__, "--probe", path, ranking]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[ranking] = json.loads(done.stdout.splitlines()[-1])
    return found


def probed(path: str, ranking: str) -> dict[str, float]:
    import rsir.models.encoder  # noqa: F401  # what every process loads is not counted

    before = anonymous()
    start = time.perf_counter()
    archive = Archive.open(path)
    opened = time.perf_counter() - start
    metric = None if ranking == "exact" else ranking
    query = archive.store._handle.table.search().select(["vector"]).limit(1).to_arrow()["vector"]
    (vector,) = np.array(query.to_pylist()).astype(archive.gallery.dtype)
    start = time.perf_counter()
    len(archive.search(vector, K, ranking=metric))
    first = time.perf_counter() - start
    return {"open_s": opened, "first_search_s": first, "memory_bytes": anonymous() - before}


def anonymous() -> int:
    """Bytes of the process's memory that no file backs."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(1024 * int(n.split()[1]) for n in lines if n.startswith("RssAnon"))


def case(name: str, count: int, make: Callable, options: argparse.Namespace) -> dict[str, object]:
    rng = np.random.default_rng(0)
    bits = name.startswith("codes")
    metric, dimension = (f"adaptive-hamming:{CLASSES}", BITS) if bits else ("cosine", FLOATS)
    vectors, queries = make(rng, count), make(rng, max(options.queries, 5 * BATCH))
    width = BITS // 8 if bits else FLOATS
    plain: dict[str, object] = {"ranking": "hamming"} if bits else {}
    with tempfile.TemporaryDirectory() as folder:
        archive, store = archive_of(Path(folder), metric, dimension)
        start = time.perf_counter()
        adding = add(store, vectors) if count <= CHUNK else write(store, vectors)
        writing = time.perf_counter() - start
        print(f"{name}: written in {writing:.1f} s", flush=True)
        start = time.perf_counter()
        archive.optimize(keep_days=0)
        if not bits:
            len(archive.search(queries[0], K, ranking="approximate"))
        optimizing = time.perf_counter() - start
        print(f"{name}: optimised (with the index) in {optimizing:.1f} s", flush=True)
        path = str(archive.path)
        files = {
            part: sum(f.stat().st_size for f in (archive.path / part).rglob("*") if f.is_file())
            for part in ("items.lance", "items.index")
        }
        rankings = ("exact", "hamming") if bits else ("exact", "approximate")
        opening = probe(path, rankings)

        index: faiss.Index = faiss.IndexBinaryFlat(BITS) if bits else faiss.IndexFlatIP(FLOATS)
        for start in range(0, count, CHUNK):
            index.add(np.ascontiguousarray(vectors[start : start + CHUNK, :width]))
        contenders: dict[str, Search] = {
            "FAISS alone": of_faiss(index, width),
            "rsir": of_archive(archive, **plain),
            "rsir, records read": of_archive(archive, read=True, **plain),
        }
        everything = np.arange(count)
        exact = ("hamming" if bits else metric, queries[:CHECKED], vectors, width)
        checks = {"rsir": (contenders["rsir, records read"], *exact, everything)}
        if bits:
            contenders["rsir, adaptive"] = of_archive(archive)
            whole = (metric, queries[:CHECKED], vectors, vectors.shape[1])
            checks["rsir, adaptive"] = (of_archive(archive, read=True), *whole, everything)
        else:
            contenders["rsir, approximate"] = of_archive(archive, ranking="approximate")
        first = {}
        len(archive.search(queries[0], K))
        for share, below in SHARES.items():
            filter = Filter(where=f"share < {below}")
            start = time.perf_counter()
            counted = archive.count(filter)
            first[share] = time.perf_counter() - start
            rows = np.flatnonzero(shares(count) < below)
            assert counted == len(rows)
            chosen = f"rsir, filter {share}"
            contenders[chosen] = of_archive(archive, filter=filter, **plain)
            reading = of_archive(archive, read=True, filter=filter, **plain)
            checks[chosen] = (reading, *exact, rows)
            if not bits:
                contenders[f"rsir, approximate, filter {share}"] = of_archive(
                    archive, ranking="approximate", filter=filter
                )
        contenders["USearch exact"] = of_usearch(vectors, width)
        if bits:
            # LanceDB compares one column; the archive's column also holds the probabilities.
            codes_only = LanceStore.create(Path(folder) / "codes.lance", "hamming", BITS)
            write(codes_only, np.ascontiguousarray(vectors[:, :width]))
            contenders["LanceDB alone"] = of_lancedb(codes_only, "vector", width, "hamming")
        else:
            contenders["LanceDB alone"] = of_lancedb(store, "vector", width, "dot")
        servers = of_milvus(options.milvus, vectors, width) if options.milvus else _no_server()
        with servers as milvus:
            if milvus:
                contenders["Milvus alone"] = milvus
            one = measure(contenders, queries[: options.queries], 1)
            batches = measure(contenders, queries[: 5 * BATCH], BATCH)
            found = {contender: same_hits(*check) for contender, check in checks.items()}
        if not bits:
            found["rsir, approximate"] = store.recall(queries[:BATCH], K)
            for share, below in SHARES.items():
                filter = Filter(where=f"share < {below}")
                recall = store.recall(queries[:BATCH], K, filter=filter)
                found[f"rsir, approximate, filter {share}"] = recall
        more = (
            min(add(store, vectors[:COMMIT], first) for first in (count, count + COMMIT))
            * COMMIT
            / min(COMMIT, count)
        )
    return {
        "count": count,
        "dimension": dimension,
        "metric": metric,
        "data": options.like if name == "floats-like" else make.__name__,
        "k": K,
        "queries": options.queries,
        "write_s": writing,
        "add_s": adding,
        "add_more_s": more,
        "optimize_s": optimizing,
        "bytes": files,
        "opening": opening,
        "filter_first_s": first,
        "milvus": bool(options.milvus),
        "results": {
            contender: {
                "median_ms": 1000 * float(np.median(one[contender])),
                "p99_ms": 1000 * float(np.percentile(one[contender], 99)),
                "runs": len(one[contender]),
                "batch_ms_per_query": 1000 * float(np.median(batches[contender])) / BATCH,
                "recall": found.get(contender),
            }
            for contender in contenders
        },
        "recalls": found,
    }


@contextmanager
def _no_server() -> Iterator[None]:
    yield None


def table(case: dict) -> str:
    """The Markdown of one case."""
    base = case["results"]["FAISS alone"]
    head = (
        "| | one query: median ms | 99th percentile | × FAISS | in batches of "
        f"{BATCH}: ms a query | × FAISS | recall@{case['k']} |"
    )
    lines = [head, "|---|--:|--:|--:|--:|--:|--:|"]
    for name, row in case["results"].items():
        recall = case["recalls"].get(name)
        lines.append(
            f"| {name} | {row['median_ms']:.2f} | {row['p99_ms']:.2f} "
            f"| {row['median_ms'] / base['median_ms']:.2f} | {row['batch_ms_per_query']:.2f} "
            f"| {row['batch_ms_per_query'] / base['batch_ms_per_query']:.2f} "
            f"| {'' if recall is None else f'{recall:.3f}'} |"
        )
    if not case["milvus"]:
        lines.append("| Milvus alone | no server | | | | | |")
    return "\n".join(lines)


def summary(case: dict) -> str:
    """The other measurements of a case, in words."""
    per_million = 1e6 / case["count"]
    opening = "; ".join(
        f"{name} {row['open_s'] + row['first_search_s']:.2f} s, "
        f"{row['memory_bytes'] * per_million / 1e6:.0f} MB per million"
        for name, row in case["opening"].items()
    )
    filters = ", ".join(f"{1000 * s:.0f} ms ({n})" for n, s in case["filter_first_s"].items())
    how = "added through the store" if case["add_s"] else "written as Arrow tables"
    return (
        f"{case['count']:,} × {case['dimension']}, {case['metric']} ({case['data']}): {how} in "
        f"{case['add_s'] or case['write_s']:.1f} s, {COMMIT:,} more through the store in "
        f"{case['add_more_s']:.1f} s; optimised (with the index) in {case['optimize_s']:.1f} s, "
        f"{sum(case['bytes'].values()) * per_million / 1e6:.0f} MB on "
        f"disk per million. Opened with the first search, and memory: {opening}. "
        f"A filter the first time: {filters}."
    )


def shown(part: str) -> str:
    """A case's table for the documents; with ":about", the other results in words."""
    name, _, about = part.partition(":")
    done = json.loads(RESULTS.read_text("utf-8"))["results"][name]
    on = done["machine"]
    return f"{summary(done)} {on['cpu']}, {on['cores']} cores." if about else table(done)


def machine() -> dict[str, object]:
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{n: version(n) for n in ("numpy", "faiss-cpu", "lancedb", "pyarrow", "usearch")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="codes-1m,codes-10m,floats-1m")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--milvus")
    parser.add_argument("--like")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--probe", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(probed(*options.probe)))
        return
    cases = {
        "codes-1m": (1_000_000, codes),
        "codes-10m": (10_000_000, codes),
        "floats-1m": (1_000_000, floats),
        "floats-iid": (1_000_000, independent),
        "floats-like": (1_000_000, mixtures(options.like) if options.like else None),
    }
    for name in options.only.split(","):
        count, make = cases[name]
        done = case(name, int(count * options.share), make, options)
        print(f"\n{summary(done)}\n\n{table(done)}\n", flush=True)
        known = json.loads(options.results.read_text()) if options.results.exists() else {}
        results = known.get("results", {}) | {name: {**done, "machine": machine()}}
        options.results.parent.mkdir(exist_ok=True)
        found = {"command": "python benchmarks/search.py", "results": results}
        options.results.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
