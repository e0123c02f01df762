"""Measure encoding and search times and storage of a model, the same way for every method.

`rsir.cost.count` counts the costs that are the same on every machine.
"""

from __future__ import annotations

import dataclasses
import itertools
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from rsir.cost.count import ready
from rsir.errors import UsageError
from rsir.models.encoder import Encoder
from rsir.ranking import Metric, metric_named, packed
from rsir.store.base import COMMIT_TILES
from rsir.store.knn.flat import flat_index
from rsir.store.lance.store import LanceStore
from rsir.store.records.record import Record

GALLERY = 10_000
"""Images in the gallery: as many as AID has (paper B, table 8). Our choice."""

K = 100
"""Hits per search: the longest list in a measure of the papers. Our choice."""

WARM_UP = 3
"""Calls before the first timed call: they load libraries and choose kernels. Our choice."""

FEWEST = 5
"""Least number of runs, however long a run takes. Our choice."""

FLIPPED = 0.02
NOISE = 0.58
CONFIDENCE = 0.97
"""Similarity of random encodings within a class; our choice, close to trained models.

FLIPPED: probability that a bit differs from its class's bit, so that two codes differ in
2 · 0.02 · 0.98 = 3.9 % of their bits; DAH with 64 bits has a mean of 3.8 % on AID. NOISE: standard
deviation, relative to 1 of the class centres, so that two embeddings have a cosine of
1 / (1 + 0.58²) = 0.75; a ResNet classifier and JSRT have means of 0.75 to 0.77 on AID.
CONFIDENCE: median probability of the likeliest class; DAH has 0.97 on AID. Codes without classes
are no substitute: their nearest neighbours are so far away that adaptive search has to scan the
whole gallery, which took 7 times as long among 6,080."""

_SEED = 0


@dataclass(frozen=True)
class Duration:
    """A duration in milliseconds: median, 5th and 95th percentile of the runs.

    runs: number of timed runs, after a warm-up.
    """

    median: float
    p5: float
    p95: float
    runs: int


@dataclass(frozen=True)
class Measured:
    """The measured times and storage on this machine.

    ms_per_image: from the pixels of one image, uint8 at the model's size, to its Encoding, both in
    memory: transfer to the device, normalisation, forward pass, transfer back. Reading, decoding
    and resizing files, which are the same for all models, are not included.
    ms_per_image_batched: the same for `batch` images at once, divided by `batch`.
    ms_per_query: from one encoded query to the rows and distances of its `k` nearest among
    `gallery`, exactly, in the model's own ranking, with the in-memory index of the embedded
    archive, on the CPU. The papers call it the time of the similarity metric, or of a query.
    ms_per_search: the same through the archive's table, including the check for newer commits and
    reading the hits' records from disk.
    bytes_per_image: size of the vector, on disk and in memory: 4 · D for an embedding,
    ceil(bits / 8) for a code, and 4 · K for class probabilities if the ranking needs them.
    table_bytes_per_image: size of the whole table on disk after indexing, with the records (id,
    path, hash, times, size of the image; no footprint) and Lance's own files; divided by `gallery`.
    dimension, ranking, image_size (height, width): of the model. precision: of its weights.
    device: the device that encodes, with its name if it is a GPU. cpu: name of the CPU. threads: of
    torch; search_threads: of FAISS. torch: version of torch.
    """

    ms_per_image: Duration
    ms_per_image_batched: Duration
    ms_per_query: Duration
    ms_per_search: Duration
    bytes_per_image: int
    table_bytes_per_image: float
    ranking: str
    dimension: int
    image_size: tuple[int, int]
    batch: int
    gallery: int
    k: int
    queries: int
    precision: str
    device: str
    cpu: str
    threads: int
    search_threads: int
    torch: str

    def to_dict(self) -> dict[str, Any]:
        """The plain JSON values."""
        return {**dataclasses.asdict(self), "image_size": list(self.image_size)}


def measure(
    encoder: Encoder,
    *,
    gallery: int = GALLERY,
    batch: int | None = None,
    queries: int = 100,
    k: int = K,
    seconds: float = 1.0,
) -> Measured:
    """Measure a copy of the model, which need not be trained or adapted to a gallery.

    Images are noise with the model's bands and size. The gallery and the queries are random
    encodings with the model's dimension and ranking, similar within as many classes as the model
    has, and the same in every call.

    gallery: images in the gallery. batch: images encoded at once; None: the encoder's batch size.
    queries: number of different queries, used in turn. k: hits per search, at most `gallery`.
    seconds: least measuring time of each of the four durations.
    The table is written to a temporary folder.

    Raises UsageError for a number below 1, and for seconds that are not above 0.
    """
    batch = encoder.batch_size if batch is None else batch
    for name, number in {"gallery": gallery, "batch": batch, "queries": queries, "k": k}.items():
        if number < 1:
            raise UsageError(f"{name} must be at least 1, not {number}")
    if not 0 < seconds < float("inf"):
        raise UsageError(f"seconds must be above 0 and finite, not {seconds}")
    model = dataclasses.replace(encoder.model, module=ready(encoder.model))
    copied = Encoder(model, device=str(encoder.device), batch_size=batch)
    metric = metric_named(copied.ranking)
    random = np.random.default_rng(_SEED)
    single, batched = (_images(copied, count, random) for count in (1, batch))

    def encoding(images: torch.Tensor) -> Duration:
        # The result is in NumPy arrays, so an accelerator has finished when the call returns.
        call = partial(copied.encode_batch, images)
        return _timed(call, seconds, shared_by=len(images))

    groups = max(1, len(model.classes))
    vectors = _encodings(metric, copied.dimension, groups, gallery + queries, random)
    stored, query = vectors[:gallery], itertools.cycle(np.split(vectors[gallery:], queries))
    with tempfile.TemporaryDirectory() as folder:
        store = _stored(Path(folder) / "items.lance", metric, copied.dimension, stored)
        table_bytes = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        per_search = _timed(lambda: store.search(next(query), k), seconds)
    index = flat_index(metric, stored)
    return Measured(
        ms_per_image=encoding(single),
        ms_per_image_batched=encoding(batched),
        ms_per_query=_timed(lambda: index.nearest(next(query), k), seconds),
        ms_per_search=per_search,
        bytes_per_image=stored[0].nbytes,
        table_bytes_per_image=table_bytes / gallery,
        ranking=copied.ranking,
        dimension=copied.dimension,
        image_size=(model.spec.size, model.spec.size),
        batch=batch,
        gallery=gallery,
        k=k,
        queries=queries,
        precision=_precision(copied),
        device=_device(copied.device),
        cpu=cpu_name(),
        threads=torch.get_num_threads(),
        search_threads=faiss.omp_get_max_threads(),
        torch=torch.__version__,
    )


def cpu_name() -> str:
    """The processor's name as the system reports it, e.g. "Intel(R) Xeon(R) …"."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _timed(call: Callable[[], object], seconds: float, *, shared_by: int = 1) -> Duration:
    """The duration of `call`, divided by `shared_by`; `call` must return when its work is done."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    while len(times) < FEWEST or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    p5, median, p95 = np.percentile(times, [5, 50, 95]) * 1000 / shared_by
    return Duration(float(median), float(p5), float(p95), len(times))


def _images(encoder: Encoder, count: int, random: np.random.Generator) -> torch.Tensor:
    """(count, bands, size, size) uint8 noise."""
    size = encoder.model.spec.size
    return torch.from_numpy(
        random.integers(0, 256, (count, len(encoder.bands), size, size), dtype=np.uint8)
    )


def _encodings(
    metric: Metric, dimension: int, groups: int, count: int, random: np.random.Generator
) -> NDArray[Any]:
    """(count, width) vectors for a store of `metric`, similar within random groups."""
    group = random.integers(groups, size=count)
    if metric.kind == "float":
        centres = random.standard_normal((groups, dimension), dtype=np.float32)
        noise = random.standard_normal((count, dimension), dtype=np.float32)
        values = centres[group] + np.float32(NOISE) * noise
        unit: NDArray[np.float32] = values / np.linalg.norm(values, axis=1, keepdims=True)
        return unit
    bits = random.random((groups, dimension)) < 0.5
    codes = np.packbits(bits[group] ^ (random.random((count, dimension)) < FLIPPED), axis=1)
    if not metric.classes:
        return codes
    # With this lead, softmax gives the likeliest class CONFIDENCE if the other logits are 0.
    lead = np.log(CONFIDENCE / (1 - CONFIDENCE) * max(1, metric.classes - 1))
    logits = random.standard_normal((count, metric.classes))
    logits[np.arange(count), group] += lead
    odds = np.exp(logits)
    return packed(codes, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32))


def _stored(path: Path, metric: Metric, dimension: int, vectors: NDArray[Any]) -> LanceStore:
    """A store of `vectors` with records like those of indexed chips, in as many commits."""
    store = LanceStore.create(path, metric.name, dimension)
    for start in range(0, len(vectors), COMMIT_TILES):
        rows = vectors[start : start + COMMIT_TILES]
        store.add(list(_records(start, start + len(rows))), rows)
    return store


def _records(start: int, stop: int) -> Iterator[Record]:
    for number in range(start, stop):
        # Ids and hashes are random, as in an archive: consecutive ones would compress better.
        random = np.random.default_rng([_SEED, number])
        yield Record(
            id=random.bytes(12).hex(),
            source=f"/archive/images/class/image_{number:07d}.jpg",
            content=random.bytes(16).hex(),
            size=int(random.integers(10_000, 100_000)),
            mtime_ns=int(random.integers(10**18, 2 * 10**18)),
            properties={"width": 256, "height": 256},
        )


def _precision(encoder: Encoder) -> str:
    dtype = str(next(encoder.module.parameters()).dtype).removeprefix("torch.")
    rounded = encoder.device.type == "cuda" and torch.backends.cudnn.allow_tf32
    return f"{dtype}, TF32 in convolutions" if rounded else dtype


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"
