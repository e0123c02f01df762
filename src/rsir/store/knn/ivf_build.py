"""Approximate search of float vectors that stay on disk: candidates by codes, then their vectors.

Vectors are turned (`Space`) so that Euclidean distances order them as the metric does and the signs
of all coordinates say about as much. Two rankings choose candidates, whose own vectors are then
read from a file that is mapped into memory, and compared exactly:

- "two-stage": by the Hamming distance between the signs, of all vectors;
- "approximate": by FAISS's IndexIVFRaBitQ, which looks only at the lists of vectors whose centres
  are nearest, by a bit per dimension and two numbers per vector (Gao and Long, RaBitQ, SIGMOD
  2024).

How many lists and candidates that takes depends on the data, so it is measured when the index is
built: the cheapest settings that find `AIMED_RECALL` of the 100 nearest of some of the vectors.

Measured on one core of an AMD EPYC with vectors of 512 values, k = 100. 200 000 mixtures of
MobileNetV2's embeddings of UC Merced and AID, with noise (exact search 15 ms): signs of turned
vectors have 96 % of the nearest among 1 000 candidates; not turned, 87 % around the mean or the
median, 82 % around zero. 900 lists with RaBitQ, 32 of them looked at, have 96 % among 500, in
0.4 ms; 8-bit scalars 97 % among 200, in 0.7 ms and six times the memory. 200 000 vectors in 30
groups of 16 directions, 1 788 lists, 32 looked at: RaBitQ 98 % among 200 in 0.3 ms, its FastScan
variant the same in 0.4; product quantisation (PQ128x4fs) 95 % in 0.2. More lists (2 and 4 √N, of
500 000) save 0.2 ms and take 4 and 15 times as long to learn. LanceDB's own indexes are left out:
their re-ranking reads rows from the table, some 10 ms for 100. Vectors without any structure
(independent normal values) are the worst case: 10 000 candidates by signs have 78 % of the
nearest, and all lists have to be looked at.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rsir.store.knn.ivf_search import (
    APPROXIMATE,
    JUDGED_K,
    TWO_STAGE,
    Index,
    IvfParameters,
    RowSubset,
)
from rsir.store.knn.rotation import Space, signs

_log = logging.getLogger(__name__)

FORMAT = "rsir-approximate/1"

AIMED_RECALL = 0.98
"""Of the 100 nearest. Our choice: above the 0.95 that is promised, as a hundred vectors of the
archive itself stand for all queries."""

_JUDGED = 100
"""Vectors whose nearest the settings must find. Our choice."""

_COUNTS = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
"""Candidates that are tried. Our choice: beyond, exact search costs no more."""

_CODES_PER_CANDIDATE = 150
"""Comparing one candidate's vector takes as long as comparing so many RaBitQ codes: measured, about
2 µs and 11 ns with 512 values. Only the choice among settings that are good enough hangs on it."""

_TRAINED_ON = 64
"""Vectors per list that the centres are learnt from. Our choice: FAISS asks for 39 at least."""

_ITERATIONS = 10
"""Of k-means; FAISS's own default."""

_BLOCK = 1 << 15
"""Vectors turned at once. Our choice: 64 MiB of 512 floats."""

_LEFTOVER_SECONDS = 86_400.0
"""An unfinished index that was not touched for so long was cut off. Our choice: a day."""


def find(beside: Path, table: str) -> Index | None:
    """The newest whole index of `table` (its identity) in the folder `beside`, if there is one.

    One that is incomplete, of another format or another table is passed over.
    """
    known = []
    for about in beside.glob("[!.]*/about.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(about.read_text("utf-8"))
            if (said["format"], said["table"]) == (FORMAT, table):
                known.append((said["version"], said["time"], about.parent))
    for _, _, folder in sorted(known, reverse=True):
        try:
            return _load(folder)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            _log.warning("the index %s is left aside: %s", folder, error)
    return None


def make(
    beside: Path | None,
    rows: NDArray[np.uint64],
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
    *,
    metric: str,
    dimension: int,
    table: str,
    version: int,
) -> Index:
    """Build the index of the vectors of one version and keep it in the folder `beside`.

    rows: their addresses, rising, at least one; blocks: positions and vectors (n, D). The folder
    of the index appears when it is whole, in one step, and the others of this table then go.
    Without `beside`, or where nothing can be written, the index is temporary.
    """
    about = {
        "format": FORMAT,
        "table": table,
        "version": version,
        "time": time.time(),
        "metric": metric,
        "count": len(rows),
        "dimension": dimension,
    }
    if beside is not None:
        try:
            beside.mkdir(exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=".", dir=beside))
        except FileNotFoundError:
            raise
        except OSError as error:
            _log.warning("the index cannot be kept, a temporary one is made: %s", error)
        else:
            try:
                _build(folder, rows, blocks, about)
                kept = folder.rename(beside / f"{version}-{uuid.uuid4().hex[:8]}")
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            _forget_others(beside, kept)
            try:
                return _load(kept)
            except FileNotFoundError:
                # Of two that were built at the same time the later one stays.
                other = find(beside, table)
                if other is None:
                    raise
                return other
    with tempfile.TemporaryDirectory(prefix="rsir-", ignore_cleanup_errors=True) as temporary:
        _build(Path(temporary), rows, blocks, about)
        return _load(Path(temporary))


def _forget_others(beside: Path, kept: Path) -> None:
    for other in beside.iterdir():
        with suppress(OSError):
            cut_off = time.time() - other.stat().st_mtime > _LEFTOVER_SECONDS
            if other != kept and (cut_off or not other.name.startswith(".")):
                shutil.rmtree(other, ignore_errors=True)


def _load(folder: Path) -> Index:
    about = json.loads((folder / "about.json").read_text("utf-8"))
    rows = np.load(folder / "rows.npy")
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    codes = np.load(folder / "codes.npy", mmap_mode="r")
    mean, rotation = np.load(folder / "mean.npy"), np.load(folder / "rotation.npy")
    space = Space(about["metric"], about["scale"], mean, rotation if len(rotation) else None)
    lists = faiss.read_index(str(folder / "lists.faiss"))
    count = about["count"]
    shapes = (rows.shape, vectors.shape, codes.shape, lists.ntotal, lists.d)
    width = space.width
    if shapes != ((count,), (count, about["dimension"]), (count, -(-width // 8)), count, width):
        raise ValueError("its parts do not fit together")
    # As plain arrays over the maps: FAISS and indexing are quicker with them.
    return Index(
        rows,
        np.asarray(vectors),
        np.asarray(codes),
        lists,
        space,
        IvfParameters(**about["settings"]),
    )


def _build(
    folder: Path,
    rows: NDArray[np.uint64],
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
    about: dict[str, Any],
) -> None:
    count, dimension, metric = len(rows), about["dimension"], about["metric"]
    vectors = _new_file(folder / "vectors.npy", np.float32, (count, dimension))
    largest = 0.0
    for positions, block in blocks:
        vectors[positions] = block
        largest = max(largest, float(np.abs(block).max(initial=0)))
    random = np.random.default_rng(0)
    # Enough lists for a balance of looking for lists and in lists, each with enough to learn from.
    number = max(1, min(math.isqrt(count), count // _TRAINED_ON))
    sampled = min(count, max(_TRAINED_ON * number, 10 * _JUDGED))
    picked = random.choice(count, sampled, replace=False)
    sample = vectors[np.sort(picked)]
    space = Space.of(metric, sample, largest)
    lists: Any = faiss.index_factory(space.width, f"IVF{number},RaBitQ", faiss.METRIC_L2)
    lists.cp.min_points_per_centroid = 1
    lists.cp.max_points_per_centroid = _TRAINED_ON
    lists.cp.niter = _ITERATIONS
    lists.train(space(sample))
    del sample
    codes = _new_file(folder / "codes.npy", np.uint8, (count, -(-space.width // 8)))
    judges = np.sort(picked[:_JUDGED])
    truth = _Nearest(space(vectors[judges]), min(count, JUDGED_K + 1))
    for start in range(0, count, _BLOCK):
        turned = space(vectors[start : start + _BLOCK])
        codes[start : start + _BLOCK] = signs(turned)
        lists.add(turned)
        truth.look_at(turned, start)
    settings = _measured(
        Index(rows, vectors, codes, lists, space, IvfParameters(1, 1, 0, 1, 0)), truth
    )
    vectors.flush()
    codes.flush()
    rotation = np.empty((0, dimension), np.float32) if space.rotation is None else space.rotation
    for name, array in (("rows", rows), ("mean", space.mean), ("rotation", rotation)):
        np.save(folder / f"{name}.npy", array)
    faiss.write_index(lists, str(folder / "lists.faiss"))
    about = about | {"scale": space.scale, "settings": settings._asdict()}
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    for file in folder.iterdir():
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())


def _new_file(path: Path, dtype: type[np.generic], shape: tuple[int, int]) -> np.memmap[Any, Any]:
    """A new array, mapped from a file that has all its room on the disk already.

    Without, a disk that fills up while the map is written kills the process (SIGBUS). Raises
    OSError if there is no room.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


class _Nearest:
    """The nearest of some turned vectors, of all that are shown block by block."""

    def __init__(self, queries: NDArray[np.float32], k: int) -> None:
        self.queries = queries
        self._k = k
        self._far = np.empty((len(queries), 0), np.float32)
        self.positions = np.empty((len(queries), 0), np.int64)

    def look_at(self, turned: NDArray[np.float32], start: int) -> None:
        far, near = faiss.knn(self.queries, turned, min(self._k, len(turned)), faiss.METRIC_L2)
        far = np.concatenate([self._far, far], axis=1)
        near = np.concatenate([self.positions, near + start], axis=1)
        first = np.argsort(far, axis=1, kind="stable")[:, : self._k]
        self._far = np.take_along_axis(far, first, axis=1)
        self.positions = np.take_along_axis(near, first, axis=1)

    def recalls(self, found: list[NDArray[np.int64]], counts: list[int]) -> list[float]:
        """The share of the nearest that are among the first of `found`, for each count."""
        return [
            float(
                np.mean(
                    [
                        np.isin(near, some[:count]).mean()
                        for near, some in zip(self.positions, found, strict=True)
                    ]
                )
            )
            for count in counts
        ]


def _measured(index: Index, truth: _Nearest) -> IvfParameters:
    """The cheapest settings that reach the aim, or the best there are."""
    whole = RowSubset(index, None)
    counts = [count for count in _COUNTS if count < len(index)] or [len(index)]
    shares = truth.recalls(index.by_signs(truth.queries, counts[-1], whole), counts)
    enough = next((n for n, r in enumerate(shares) if r >= AIMED_RECALL), len(counts) - 1)
    best = (-1.0, 0.0)
    probes = min(8, index.lists.nlist)
    chosen = (probes, counts[0], 0.0)
    while True:
        looked_at = len(index) * probes / index.lists.nlist
        if best[0] >= AIMED_RECALL and looked_at >= -best[1]:
            break
        near = index.by_lists(truth.queries, counts[-1], probes, whole)
        for count, recall in zip(counts, truth.recalls(near, counts), strict=True):
            cost = looked_at + _CODES_PER_CANDIDATE * count
            # Those that reach the aim by their cost, the others by their recall.
            rank = (min(recall, AIMED_RECALL), -cost)
            if rank > best:
                best, chosen = rank, (probes, count, recall)
        if probes == index.lists.nlist:
            break
        probes = min(2 * probes, index.lists.nlist)
    settings = IvfParameters(*chosen, counts[enough], shares[enough])
    for name, recall in ((APPROXIMATE, chosen[2]), (TWO_STAGE, shares[enough])):
        if recall < AIMED_RECALL:
            _log.warning("%s search finds %.3f of the nearest of such vectors", name, recall)
    return settings
