"""Build the index of approximate search: vectors on disk, their RaBitQ codes in memory.

FAISS's IndexIVFRaBitQ assigns each vector to the list of its nearest centre, and keeps one bit per
dimension and two numbers of each vector (Gao and Long, RaBitQ, SIGMOD 2024). A search scans only
the lists whose centres are nearest to the query. The rows with the best codes are candidates; the
search reads their vectors from a file that is mapped into memory, and compares them exactly.

How many lists and candidates are enough depends on the data, so the build measures it, and keeps
the cheapest parameters that find `AIMED_RECALL` of the 100 nearest of some of the vectors.

Measured on one core of an AMD EPYC with vectors of 512 values, k = 100. 200,000 mixtures of
MobileNetV2's embeddings of UC Merced and AID, with noise (exact search: 15 ms), in 900 lists, 32 of
them scanned: RaBitQ has 96 % of the nearest among 500 candidates in 0.4 ms; 8-bit scalars have 97 %
among 200 in 0.7 ms, with six times the memory. 200,000 vectors in 30 groups of 16 directions, 1,788
lists, 32 scanned: RaBitQ 98 % among 200 in 0.3 ms, its FastScan variant the same in 0.4 ms; product
quantisation (PQ128x4fs) 95 % in 0.2 ms. More lists (2 and 4 √N, of 500,000) save 0.2 ms and take 4
and 15 times as long to train. Queries of 4 bits (FAISS's default), 8 bits and float32 find the
same, and float32 takes 70 times as long. LanceDB's own indexes are left out: their re-ranking reads
rows from the table, some 10 ms for 100. So is FAISS's IndexRefine: it holds the vectors in memory
while it is built, and computes distances in float32. Vectors without any structure (independent
normal values) are the worst case: all lists have to be scanned.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rsir.documents import read_object
from rsir.store.knn.ivf_search import JUDGED_K, Index, IvfParameters, RowSubset, comparable

_log = logging.getLogger(__name__)
_READING = threading.Lock()  # FAISS has one limit for the whole process

FORMAT = "rsir-approximate/2"

AIMED_RECALL = 0.98
"""Share of the 100 nearest rows that a search should find. Our choice: above the 0.95 that the
documentation promises, because a hundred vectors of the archive stand for all queries."""

_JUDGES = 100
"""Vectors whose nearest rows the parameters must find. Our choice."""

_COUNTS = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
"""Numbers of candidates to try. Our choice: with more candidates, exact search costs no more."""

_CODES_PER_CANDIDATE = 150
"""Comparing the vector of a candidate takes as long as comparing this many RaBitQ codes (measured
with 512 values: about 2 µs and 11 ns). It affects only the choice among parameters that reach
`AIMED_RECALL`."""

_LEAST_BITS = 256
"""Vectors of fewer values are rotated into a space of this many dimensions, so that they get more
bits. Our choice."""

_TRAINED_ON = 64
"""Training vectors per list. Our choice: FAISS requires at least 39."""

_ITERATIONS = 10
"""Iterations of k-means; FAISS's own default."""

_BLOCK = 1 << 15
"""Vectors rotated at once. Our choice: 64 MiB of 512 floats."""

_LEFTOVER_SECONDS = 86_400.0
"""An unfinished index that has not changed for this long is left from a build that was killed. Our
choice: a day."""


def find_index(folder: Path, table: str) -> Index | None:
    """The newest complete index of `table` (its identity) in `folder`; None if there is none.

    Ignores indexes that are incomplete, of another format or of another table.
    """
    known = []
    for path in folder.glob("[!.]*/manifest.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            manifest = read_object(path)
            if (manifest["format"], manifest["table"]) == (FORMAT, table):
                known.append((manifest["version"], manifest["time"], path.parent))
    for _, _, index in sorted(known, reverse=True):
        try:
            return _load(index)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            _log.warning("the index %s is ignored: %s", index, error)
    return None


def build_index(
    folder: Path | None,
    row_ids: NDArray[np.uint64],
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
    *,
    metric: str,
    dimension: int,
    table: str,
    version: int,
) -> Index:
    """Build the index of one version's vectors and keep it in `folder`.

    row_ids: the rows' addresses, ascending, at least one. blocks: positions in `row_ids` and
    vectors (n, D). The new index appears in one step, when it is complete; then the other indexes
    in the folder are deleted. The index is temporary if `folder` is None or cannot be written.
    """
    manifest = {
        "format": FORMAT,
        "table": table,
        "version": version,
        "time": time.time(),
        "metric": metric,
        "count": len(row_ids),
        "dimension": dimension,
    }
    if folder is not None:
        try:
            folder.mkdir(exist_ok=True)
            # Unlike a folder of tempfile's, whoever may read the archive may read this one.
            unfinished = folder / f".{uuid.uuid4().hex}"
            unfinished.mkdir()
        except FileNotFoundError:
            raise
        except OSError as error:
            _log.warning("the index cannot be written, so it is temporary: %s", error)
        else:
            try:
                _build(unfinished, row_ids, blocks, manifest)
                finished = unfinished.rename(folder / f"{version}-{uuid.uuid4().hex[:8]}")
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            _delete_others(folder, finished)
            try:
                return _load(finished)
            except FileNotFoundError:
                # Another process built an index at the same time, and has replaced this index.
                other = find_index(folder, table)
                if other is None:
                    raise
                return other
    with tempfile.TemporaryDirectory(prefix="rsir-", ignore_cleanup_errors=True) as temporary:
        _build(Path(temporary), row_ids, blocks, manifest)
        return _load(Path(temporary))


def _delete_others(folder: Path, newest: Path) -> None:
    for other in folder.iterdir():
        with suppress(OSError):
            abandoned = time.time() - other.stat().st_mtime > _LEFTOVER_SECONDS
            if other != newest and (abandoned or not other.name.startswith(".")):
                shutil.rmtree(other, ignore_errors=True)


def _read_lists(file: Path) -> Any:
    """FAISS's index in a file; no vector in it may be larger than the file, whatever it says."""
    with _READING:
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(file.stat().st_size)
        try:
            return faiss.read_index(str(file))
        finally:
            faiss.set_deserialization_vector_byte_limit(before)


def _load(folder: Path) -> Index:
    manifest = read_object(folder / "manifest.json")
    # Mapped: then the sizes in the headers cannot lie.
    row_ids = np.array(np.load(folder / "row_ids.npy", mmap_mode="r"))
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    lists = _read_lists(folder / "lists.faiss")
    count, dimension = manifest["count"], manifest["dimension"]
    shapes = (row_ids.shape, vectors.shape, lists.ntotal, lists.d)
    if shapes != ((count,), (count, dimension), count, dimension):
        raise ValueError("its files do not belong together")
    # A plain array over the mapped file: indexing it is faster.
    return Index(
        row_ids,
        np.asarray(vectors),
        lists,
        manifest["metric"],
        manifest["scale"],
        IvfParameters(**manifest["parameters"]),
    )


def _build(
    folder: Path,
    row_ids: NDArray[np.uint64],
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
    manifest: dict[str, Any],
) -> None:
    """Write the files of an index."""
    count, dimension, metric = len(row_ids), manifest["dimension"], manifest["metric"]
    vectors = _new_file(folder / "vectors.npy", (count, dimension))
    largest = 0.0
    for positions, block in blocks:
        vectors[positions] = block
        largest = max(largest, float(np.abs(block).max(initial=0)))
    scale = 1 / largest if metric == "euclidean" and largest > 0 else 1.0
    # The number of lists balances finding lists with scanning them, with enough vectors to train.
    list_count = max(1, min(math.isqrt(count), count // _TRAINED_ON))
    sample_size = min(count, max(_TRAINED_ON * list_count, 10 * _JUDGES))
    sampled = np.random.default_rng(0).choice(count, sample_size, replace=False)
    lists = _trained(comparable(vectors[np.sort(sampled)], metric, scale), list_count)
    judges = comparable(vectors[np.sort(sampled[:_JUDGES])], metric, scale)
    nearest = faiss.ResultHeap(len(judges), min(count, JUDGED_K + 1))
    centred = lists.chain.at(0).apply
    for start in range(0, count, _BLOCK):
        block = comparable(vectors[start : start + _BLOCK], metric, scale)
        lists.add(block)
        some = min(nearest.k, len(block))
        distances, positions = faiss.knn(centred(judges), centred(block), some)
        nearest.add_result(distances, positions + start)
    nearest.finalize()
    unknown = IvfParameters(1, 1, 0)
    index = Index(row_ids, vectors, lists, metric, scale, unknown)
    parameters = _tuned(index, judges, nearest.I)
    vectors.flush()
    np.save(folder / "row_ids.npy", row_ids)
    faiss.write_index(lists, str(folder / "lists.faiss"))
    manifest = manifest | {"scale": scale, "parameters": parameters._asdict()}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    for file in folder.iterdir():
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())


def _trained(sample: NDArray[np.float32], list_count: int) -> Any:
    """FAISS's index, empty, trained on a sample (n, D) of comparable vectors.

    The index subtracts the sample's mean from vectors, so that float32 keeps the digits of small
    distances, and then rotates them at random, as RaBitQ requires.
    """
    dimension = sample.shape[1]
    bits = max(_LEAST_BITS, -(-dimension // 64) * 64)
    codes: Any = faiss.index_factory(bits, f"IVF{list_count},RaBitQ")
    codes.cp.min_points_per_centroid = 1
    codes.cp.max_points_per_centroid = _TRAINED_ON
    codes.cp.niter = _ITERATIONS
    lists = faiss.IndexPreTransform(faiss.RandomRotationMatrix(dimension, bits), codes)
    lists.prepend_transform(faiss.CenteringTransform(dimension))
    lists.train(sample)
    return lists


def _new_file(path: Path, shape: tuple[int, int]) -> np.memmap[Any, Any]:
    """A new float32 array, mapped from a file whose space on the disk is allocated.

    Without the allocation, a disk that fills up during the writing kills the process (SIGBUS).
    Raises OSError if there is no space.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _tuned(index: Index, judges: NDArray[np.float32], nearest: NDArray[np.int64]) -> IvfParameters:
    """The cheapest parameters that reach `AIMED_RECALL`, else those with the highest recall.

    judges: comparable vectors (J, D); nearest: the positions of their nearest rows (J, K).
    """
    whole = RowSubset(index)
    counts = [count for count in _COUNTS if count < len(index)] or [len(index)]
    best = (-1.0, 0.0)
    probes = min(8, index.list_count)
    tuned = IvfParameters(probes, counts[0], 0.0)
    while True:
        scanned = len(index) * probes / index.list_count
        if best[0] >= AIMED_RECALL and scanned >= -best[1]:
            break
        found = index.nearest_codes(judges, counts[-1], probes, whole)
        for count in counts:
            recall = _recall(nearest, [positions[:count] for positions in found])
            cost = scanned + _CODES_PER_CANDIDATE * count
            # Parameters that reach the aim are ordered by cost, the others by recall.
            rank = (min(recall, AIMED_RECALL), -cost)
            if rank > best:
                best, tuned = rank, IvfParameters(probes, count, recall)
        if probes == index.list_count:
            break
        probes = min(2 * probes, index.list_count)
    if tuned.recall < AIMED_RECALL:
        _log.warning("approximate search finds %.3f of the nearest of such vectors", tuned.recall)
    return tuned


def _recall(nearest: NDArray[np.int64], found: list[NDArray[np.int64]]) -> float:
    """The mean share of `nearest` (J, K) that `found` contains."""
    shares = [np.isin(rows, some).mean() for rows, some in zip(nearest, found, strict=True)]
    return float(np.mean(shares))
