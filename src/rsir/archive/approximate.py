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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from rsir.archive.flat import FlatFloats, Found, unit

_log = logging.getLogger(__name__)

TWO_STAGE = "two-stage"
APPROXIMATE = "approximate"
RANKINGS = (TWO_STAGE, APPROXIMATE)

FORMAT = "rsir-approximate/1"

AIMED_RECALL = 0.98
"""Of the 100 nearest. Our choice: above the 0.95 that is promised, as a hundred vectors of the
archive itself stand for all queries."""

_JUDGED = 100
_JUDGED_K = 100
"""Vectors whose nearest the settings must find, and how many of their nearest. Our choice."""

_COUNTS = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
"""Candidates that are tried. Our choice: beyond, exact search costs no more."""

_CODES_PER_CANDIDATE = 150
"""Comparing one candidate's vector takes as long as comparing so many RaBitQ codes: measured, about
2 µs and 11 ns with 512 values. Only the choice among settings that are good enough hangs on it."""

_TRAINED_ON = 64
"""Vectors per list that the centres are learnt from. Our choice: FAISS asks for 39 at least."""

_ITERATIONS = 10
"""Of k-means; FAISS's own default."""

_LEAST_BITS = 256
"""Our choice: short vectors get more signs than dimensions, by a rotation in a larger space."""

_SATURATED = 0.5
"""Vectors within [-1, 1] whose values are this far from 0 in the mean are taken as relaxed hash
codes (tanh outputs), whose signs are the codes themselves. Our choice: a trained hashing network's
are beyond 0.9, those of unit vectors of D values near 1 / sqrt(D)."""

_BLOCK = 1 << 15
"""Vectors turned at once. Our choice: 64 MiB of 512 floats."""

_BY_LISTS = 0.1
"""From this share of the vectors on, those that meet a filter are looked for in the lists; of a
smaller share all codes are compared, which is quicker then. Our choice."""

_MORE = 1.5
"""So many times the candidates that even chance would need are asked for under a filter. Our
choice."""

_LEFTOVER_SECONDS = 86_400.0
"""An unfinished index that was not touched for so long was cut off. Our choice: a day."""


@dataclass(frozen=True, eq=False)
class Space:
    """Turns vectors (N, D) so that Euclidean distances order them as the metric does.

    mean (D,) and rotation (B, D), float32, with orthonormal columns; None for relaxed hash codes,
    which stay as they are. scale: of Euclidean vectors, so that no square overflows.
    """

    metric: str
    scale: float
    mean: NDArray[np.float32]
    rotation: NDArray[np.float32] | None

    @classmethod
    def of(cls, metric: str, sample: NDArray[np.float32], largest: float) -> Space:
        """The space for vectors like those of `sample` (n, D), n at least 1.

        largest: the greatest absolute value of all vectors.
        """
        dimension = sample.shape[1]
        scale = 1 / largest if metric == "euclidean" and largest > 0 else 1.0
        if largest <= 1 and float(np.abs(sample).mean()) >= _SATURATED:
            return cls(metric, 1.0, np.zeros(dimension, np.float32), None)
        plain = cls(metric, scale, np.zeros(dimension, np.float32), None)
        mean = plain(sample).mean(axis=0, dtype=np.float64).astype(np.float32)
        bits = max(_LEAST_BITS, -(-dimension // 64) * 64)
        normal = np.random.default_rng(0).standard_normal((bits, bits))
        rotation = np.linalg.qr(normal)[0][:, :dimension].astype(np.float32)
        return cls(metric, scale, mean, np.ascontiguousarray(rotation))

    @property
    def width(self) -> int:
        """B: coordinates of a turned vector."""
        return len(self.mean) if self.rotation is None else len(self.rotation)

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """`vectors` (N, D) turned, (N, B) float32."""
        if self.metric == "euclidean":
            # In float64, as the smallest of scales is none of float32.
            compared: NDArray[Any] = (vectors * np.float64(self.scale)).astype(np.float32)
        else:
            compared = unit(vectors, self.metric == "ncc")
        if self.rotation is not None:
            compared = (compared - self.mean) @ self.rotation.T
        return np.ascontiguousarray(compared)


def signs(turned: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Codes (N, ceil(B / 8)) of turned vectors; a bit is 1 above 0, as in a stored hash code."""
    return np.packbits(turned > 0, axis=1)


class Settings(NamedTuple):
    """What was measured to be enough, for k up to 100.

    probes, candidates: lists looked at and vectors compared by "approximate"; shortlist: vectors
    compared by "two-stage"; and the recall of the 100 nearest that each of them had.
    """

    probes: int
    candidates: int
    approximate_recall: float
    shortlist: int
    two_stage_recall: float


@dataclass(frozen=True, eq=False)
class Index:
    """An index in memory and in mapped files; its rows are numbered by position.

    rows: the row addresses in the table, rising, (N,) uint64; vectors (N, D) float32 and codes
    (N, bytes) uint8 are mapped; lists: FAISS's index of the turned vectors.
    """

    rows: NDArray[np.uint64]
    vectors: NDArray[np.float32]
    codes: NDArray[np.uint8]
    lists: Any
    space: Space
    settings: Settings

    def __len__(self) -> int:
        return len(self.rows)

    def candidates(
        self, ranking: str, turned: NDArray[np.float32], k: int, part: Part
    ) -> list[NDArray[np.int64]]:
        """The positions of what to compare with each turned query, of those in `part`."""
        times = max(1.0, k / _JUDGED_K)
        probes, candidates, shortlist = (
            math.ceil(n * times)
            for n in (self.settings.probes, self.settings.candidates, self.settings.shortlist)
        )
        if ranking == TWO_STAGE or part.share < _BY_LISTS:
            return self.by_signs(turned, shortlist, part)
        found = self.by_lists(turned, candidates, probes, part)
        wanted = k if part.positions is None else candidates
        for query, near in enumerate(found):
            if len(near) < min(wanted, len(self)):  # the lists that were looked at hold too few
                (found[query],) = self.by_signs(turned[query : query + 1], shortlist, part)
        return found

    def by_signs(
        self, turned: NDArray[np.float32], count: int, part: Part
    ) -> list[NDArray[np.int64]]:
        """The positions of the `count` with the most equal signs."""
        asked, positions = signs(turned), part.positions
        if positions is None:
            return list(_nearest_codes(asked, self.codes, count))
        if count >= len(positions):
            return [positions] * len(turned)
        if part.share < _BY_LISTS:
            return [positions[n] for n in _nearest_codes(asked, part.codes, count)]
        more = math.ceil(_MORE * count / part.share)
        found = []
        for code, near in zip(asked, _nearest_codes(asked, self.codes, more), strict=True):
            near = near[part.kept[near]][:count]
            if len(near) < count:  # a filter that leaves out just what is near
                (least,) = _nearest_codes(code[None], self.codes[positions], count)
                near = positions[least]
            found.append(near)
        return found

    def by_lists(
        self, turned: NDArray[np.float32], count: int, probes: int, part: Part
    ) -> list[NDArray[np.int64]]:
        """The positions of the `count` nearest by RaBitQ; fewer, if the lists hold fewer."""
        parameters: dict[str, Any] = {}
        if part.positions is not None:
            probes = math.ceil(probes / part.share)
            bitmap = faiss.swig_ptr(part.bitmap)
            parameters["sel"] = faiss.IDSelectorBitmap(len(self), bitmap)
        parameters["nprobe"] = min(probes, self.lists.nlist)
        count = min(count, len(self))
        far, near = np.empty((len(turned), count), np.float32), np.empty((len(turned), count), int)
        # Not `search`: faiss.contrib.torch_utils, which pytorch-metric-learning imports, puts one
        # in its place that takes no parameters.
        self.lists.search_c(
            len(turned),
            faiss.swig_ptr(np.ascontiguousarray(turned, np.float32)),
            count,
            faiss.swig_ptr(far),
            faiss.swig_ptr(near),
            faiss.IVFRaBitQSearchParameters(**parameters),
        )
        return [row[row >= 0] for row in near]


class Part:
    """Some rows of an index: all, or those that meet a filter and are not gone.

    positions: rising; None: all of it.
    """

    def __init__(self, index: Index, positions: NDArray[np.int64] | None) -> None:
        self._index = index
        self.positions = positions

    def __len__(self) -> int:
        return len(self._index) if self.positions is None else len(self.positions)

    @property
    def share(self) -> float:
        """Of the rows of the index."""
        return len(self) / len(self._index)

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """A copy of the codes of these rows."""
        return self._index.codes[self.positions]

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """Which of the index these are, to a multiple of eight."""
        kept = np.zeros(-(-len(self._index) // 8) * 8, np.bool_)
        kept[self.positions] = True
        return kept

    @cached_property
    def bitmap(self) -> NDArray[np.uint8]:
        """The same as bits, the lowest first."""
        return np.packbits(self.kept, bitorder="little")


class Searched(NamedTuple):
    """The rows of a version that are searched: all, or those that meet a filter.

    part: those of the index. places, fresh: those that it does not have, and the exact search
    among them.
    """

    part: Part
    places: NDArray[np.int64]
    fresh: FlatFloats


class Attached:
    """An index as one version of the table sees it: without what is gone, with what is new.

    place_of: of each position of the index, -1 if it is gone. places, fresh: as of `Searched`.
    """

    def __init__(
        self,
        index: Index,
        metric: str,
        place_of: NDArray[np.int64],
        places: NDArray[np.int64],
        fresh: FlatFloats,
    ) -> None:
        self._index = index
        self._metric = metric
        self._place_of = place_of
        there = place_of >= 0
        part = Part(index, None if there.all() else np.flatnonzero(there))
        self.whole = Searched(part, places, fresh)

    def among(self, chosen: NDArray[Any]) -> Searched:
        """The rows at the places `chosen`."""
        whole = self.whole
        # One more, which the -1 of what is gone names.
        meets = np.zeros(len(whole.part) + len(whole.places) + 1, np.bool_)
        meets[chosen] = True
        fresh = np.flatnonzero(meets[whole.places])
        return Searched(
            Part(self._index, np.flatnonzero(meets[self._place_of])),
            whole.places[fresh],
            whole.fresh.subset(fresh),
        )

    def nearest(
        self, ranking: str, queries: NDArray[np.float32], k: int, searched: Searched
    ) -> list[Found]:
        """The places and distances of each query's k nearest among the candidates."""
        part, new_places, _ = searched
        fresh = searched.fresh.nearest(queries, k)
        if not len(part):
            return [(new_places[near], far) for near, far in fresh]
        index = self._index
        candidates = index.candidates(ranking, index.space(queries), k, part)
        found = []
        for query, positions, (new, new_far) in zip(queries, candidates, fresh, strict=True):
            places = self._place_of[positions]
            order = np.argsort(places)
            vectors = index.vectors[positions[order]]
            ((near, far),) = FlatFloats(vectors, self._metric).nearest(query[None], k)
            near = places[order][near]
            if len(new):
                near, far = np.concatenate([near, new_places[new]]), np.concatenate([far, new_far])
                first = np.lexsort((near, far))[:k]
                near, far = near[first], far[first]
            found.append((near, far))
        return found


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
            return _load(kept)
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
        rows, np.asarray(vectors), np.asarray(codes), lists, space, Settings(**about["settings"])
    )


def _build(
    folder: Path,
    rows: NDArray[np.uint64],
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
    about: dict[str, Any],
) -> None:
    count, dimension, metric = len(rows), about["dimension"], about["metric"]
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(count, dimension)
    )
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
    codes = np.lib.format.open_memmap(
        folder / "codes.npy", mode="w+", dtype=np.uint8, shape=(count, -(-space.width // 8))
    )
    judges = np.sort(picked[:_JUDGED])
    truth = _Nearest(space(vectors[judges]), min(count, _JUDGED_K + 1))
    for start in range(0, count, _BLOCK):
        turned = space(vectors[start : start + _BLOCK])
        codes[start : start + _BLOCK] = signs(turned)
        lists.add(turned)
        truth.look_at(turned, start)
    settings = _measured(Index(rows, vectors, codes, lists, space, Settings(1, 1, 0, 1, 0)), truth)
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


def _measured(index: Index, truth: _Nearest) -> Settings:
    """The cheapest settings that reach the aim, or the best there are."""
    whole = Part(index, None)
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
    settings = Settings(*chosen, counts[enough], shares[enough])
    for name, recall in ((APPROXIMATE, chosen[2]), (TWO_STAGE, shares[enough])):
        if recall < AIMED_RECALL:
            _log.warning("%s search finds %.3f of the nearest of such vectors", name, recall)
    return settings


def _nearest_codes(
    queries: NDArray[np.uint8], codes: NDArray[np.uint8], count: int
) -> NDArray[np.int64]:
    # "mc" counts distances instead of keeping heaps: quicker by half with thousands of candidates.
    near: NDArray[np.int64] = faiss.knn_hamming(
        queries, np.ascontiguousarray(codes), min(count, len(codes)), variant="mc"
    )[1]
    return near
