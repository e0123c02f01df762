"""The growth of the times of search, opening and adding, and of memory, with the number of records.

    python benchmarks/growth.py [--only codes,floats,largest]

Uses the records and contenders of benchmarks/search.py, and its results for a million records and
more: run that first. largest (only if named): approximate search of ten million vectors of 512
floats, 20 GB that need not fit into memory. It takes some 45 GB of disk in --folder, and its recall
compares with every vector as it is made. Writes benchmarks/results/growth.json and the log-log plot
docs/pictures/growth.png.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

import search
from rsir.archive import Archive
from search import BATCH, K

SIZES = {"codes": (10_000, 100_000), "floats": (10_000, 100_000)}
LARGER = {"codes": ("codes-1m", "codes-10m"), "floats": ("floats-1m",)}
"""Cases of benchmarks/search.py."""
NAMES = {
    "codes": {"hamming": "rsir", "exact": "rsir, adaptive"},
    "floats": {
        "exact": "rsir",
        "approximate": "rsir, approximate",
    },
}
"""The names of the rankings in the cases."""
ADDED = {"codes": "64 bits and 30 probabilities", "floats": "512 floats"}
LARGEST = 10_000_000
QUERIES = 5 * BATCH
RESULTS = search.RESULTS.with_name("growth.json")
PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "growth.png"

SEARCHES = {
    "codes": {"hamming": "Hamming, 64 bits", "exact": "distance-adaptive, 64 bits"},
    "floats": {
        "exact": "exact, 512 floats",
        "approximate": "approximate, 512 floats",
    },
}


def point(kind: str, count: int) -> dict[str, object]:
    """All measurements of one size."""
    rng = np.random.default_rng(0)
    metric = f"adaptive-hamming:{search.CLASSES}" if kind == "codes" else "cosine"
    make = search.codes if kind == "codes" else search.floats
    vectors, queries = make(rng, count), make(rng, QUERIES)
    rankings = tuple(SEARCHES[kind])
    with tempfile.TemporaryDirectory() as folder:
        archive, store = search.archive_of(
            Path(folder), metric, search.BITS if kind == "codes" else search.FLOATS
        )
        search.write(store, vectors)
        archive.optimize(keep_days=0)
        if kind == "floats":
            len(archive.search(queries[0], K, ranking="approximate"))
        files = size(archive)
        opening = search.probe(str(archive.path), rankings)
        contenders = {
            name: search.of_archive(archive, **({} if name == "exact" else {"ranking": name}))
            for name in rankings
        }
        one = search.measure(contenders, queries[:BATCH], 1)
        batch = search.measure(contenders, queries, BATCH)
        recalls = {"approximate": store.recall(queries[:BATCH], K)} if kind == "floats" else {}
        added = vectors[: search.COMMIT]
        seconds = min(search.add(store, added, first) for first in (count, 2 * count))
        more = seconds * search.COMMIT / len(added)
    return {
        "count": count,
        "add_more_s": more,
        "bytes": files,
        "rankings": rows_of(opening, one, batch, recalls),
    }


def largest(count: int, folder: Path | None) -> dict[str, object]:
    """Approximate search of more floats than fit into memory, which are made piece by piece."""
    rng = np.random.default_rng(0)
    queries = search.floats(np.random.default_rng(count), QUERIES)
    nearest = faiss.ResultHeap(BATCH, K, keep_max=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        archive, store = search.archive_of(Path(made), "cosine", search.FLOATS)
        for start in range(0, count, search.CHUNK):
            vectors = search.floats(rng, min(search.CHUNK, count - start))
            search.write(store, vectors, start)
            values, rows = faiss.knn(queries[:BATCH], vectors, K, faiss.METRIC_INNER_PRODUCT)
            nearest.add_result(values, rows + start)
            print(f"{start + len(vectors):,} written", flush=True)
        nearest.finalize()
        begun = time.perf_counter()
        len(archive.search(queries[0], K, ranking="approximate"))
        print(f"indexed in {time.perf_counter() - begun:.0f} s", flush=True)
        files = size(archive)
        opening = search.probe(str(archive.path), ["approximate"])
        contenders = {"approximate": search.of_archive(archive, ranking="approximate")}
        one = search.measure(contenders, queries[:BATCH], 1)
        batch = search.measure(contenders, queries, BATCH)
        hits = search.of_archive(archive, read=True, ranking="approximate")(queries[:BATCH])
        shared = [len({*found} & {*rows}) for found, rows in zip(hits, nearest.I, strict=True)]
        recalls = {"approximate": sum(shared) / (K * BATCH)}
        added = vectors[: search.COMMIT]
        seconds = min(search.add(store, added, first) for first in (count, 2 * count))
    return {
        "count": count,
        "add_more_s": seconds,
        "bytes": files,
        "rankings": rows_of(opening, one, batch, recalls),
    }


def size(archive: Archive) -> int:
    return sum(f.stat().st_size for f in archive.path.rglob("*") if f.is_file())


def rows_of(
    opening: dict[str, dict[str, float]],
    one: dict[str, list[float]],
    batch: dict[str, list[float]],
    recalls: dict[str, float],
) -> dict[str, dict[str, float]]:
    return {
        name: {
            **opening[name],
            "median_ms": 1000 * float(np.median(one[name])),
            "p99_ms": 1000 * float(np.percentile(one[name], 99)),
            "batch_ms_per_query": 1000 * float(np.median(batch[name])) / BATCH,
            "recall": recalls.get(name, 1.0),
        }
        for name in one
    }


def of_case(kind: str, case: dict) -> dict[str, object]:
    """The measurements of a case of benchmarks/search.py."""
    rankings = {}
    for name, contender in NAMES[kind].items():
        row = case["results"][contender]
        rankings[name] = {
            **case["opening"][name],
            **{key: row[key] for key in ("median_ms", "p99_ms", "batch_ms_per_query")},
            "recall": case["recalls"].get(contender, 1.0),
        }
    return {
        "count": case["count"],
        "add_more_s": case["add_more_s"],
        "bytes": sum(case["bytes"].values()),
        "rankings": rankings,
    }


def draw(results: dict[str, list[dict]], path: Path) -> None:
    """Four panels, both axes logarithmic; a dashed line grows as the number of records."""
    import matplotlib.pyplot as plt

    # Okabe and Ito's colours, which colour-blind people tell apart; markers for everyone else.
    colours = ["#0072B2", "#E69F00", "#009E73", "#000000"]
    labels = [text for names in SEARCHES.values() for text in names.values()]
    style = dict(zip(labels, zip(colours, "osDv", strict=True), strict=True))
    panels = {
        "one search, ms (median)": lambda p, r: r["median_ms"],
        "opening and first search, s": lambda p, r: r["open_s"] + r["first_search_s"],
        "memory after a search, MB": lambda p, r: r["memory_bytes"] / 1e6,
        f"adding {search.COMMIT:,} more, s": lambda p, r: p["add_more_s"],
    }
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 7.2), sharex=True, layout="constrained")
    for axis, (title, value) in zip(axes.flat, panels.items(), strict=True):
        shown = []
        for kind, names in SEARCHES.items():
            points = results.get(kind, [])
            # Adding is the same for all rankings of a table.
            several = names if "adding" not in title else list(names)[:1]
            for name in several:
                having = [point for point in points if name in point["rankings"]]
                if several is not names:
                    having = points
                x = [point["count"] for point in having]
                y = [value(point, point["rankings"].get(name, {})) for point in having]
                colour, marker = style[names[name]]
                label = names[name] if several is names else ADDED[kind]
                axis.plot(x, y, color=colour, marker=marker, label=label, linewidth=1.8)
                shown += [pair for pair in zip(x, y, strict=True) if pair[1] > 0]
        axis.set(xscale="log", yscale="log", title=title)
        if shown:
            x0, y0 = min(shown, key=lambda pair: pair[1] / pair[0])
            x = np.array([min(x for x, _ in shown), max(x for x, _ in shown)])
            axis.plot(
                x, y0 * x / x0, "--", color="#999999", linewidth=1, zorder=0, label="∝ records"
            )
        axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("records")
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[1, 1].legend(frameon=False, fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(results: dict[str, list[dict]]) -> str:
    """The Markdown table of all sizes."""
    lines = [
        "| records | search | one query: median ms | 99th percentile | in batches of "
        f"{BATCH}: ms a query | recall@{K} | opening and first search, s | memory, MB "
        f"| on disk, MB | {search.COMMIT:,} more added, s |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for kind, points in results.items():
        for point in points:
            for name, row in point["rankings"].items():
                lines.append(
                    f"| {point['count']:,} | {SEARCHES[kind][name]} | {row['median_ms']:.2f} "
                    f"| {row['p99_ms']:.2f} | {row['batch_ms_per_query']:.2f} "
                    f"| {row['recall']:.3f} | {row['open_s'] + row['first_search_s']:.2f} "
                    f"| {row['memory_bytes'] / 1e6:.0f} | {point['bytes'] / 1e6:.0f} "
                    f"| {point['add_more_s']:.1f} |"
                )
    return "\n".join(lines)


def shown(part: str) -> str:
    """The documents' table of one kind, "codes" or "floats"."""
    return table({part: json.loads(RESULTS.read_text("utf-8"))["results"][part]})


def merged(points: list[dict], newer: list[dict]) -> list[dict]:
    """The points of both lists by size; `newer` wins."""
    by_count = {point["count"]: point for point in (*points, *newer)}
    return [by_count[count] for count in sorted(by_count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="codes,floats")
    parser.add_argument("--folder", type=Path, help="for the archive of largest")
    parser.add_argument("--search", type=Path, default=search.RESULTS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    known = json.loads(options.results.read_text()) if options.results.exists() else {}
    results = known.get("results", {})
    for part in options.only.split(","):
        kind = "floats" if part == "largest" else part
        new = [largest(LARGEST, options.folder)] if part == "largest" else []
        new += [point(kind, count) for count in SIZES[kind] if part == kind]
        results[kind] = merged(results.get(kind, []), new)
    cases = json.loads(options.search.read_text())["results"]
    for kind, points in results.items():
        larger = [of_case(kind, cases[name]) for name in LARGER[kind] if name in cases]
        results[kind] = merged(points, larger)
    found = {
        "command": "python benchmarks/growth.py",
        "machine": search.machine(),
        "results": results,
    }
    options.results.write_text(json.dumps(found, indent=2) + "\n")
    print(table(results))
    draw(results, options.picture)


if __name__ == "__main__":
    main()
