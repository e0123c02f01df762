"""How long a model takes and how much it stores: measured alike for all, as a user would have it.

`rsir.cost.count` counts what does not depend on the machine; this is what does.
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
"""Images searched: as many as AID has (paper B, table 8). Our choice."""

K = 100
"""Hits asked for: the longest list that a measure of the papers looks at. Our choice."""

WARM_UP = 3
"""Calls before the first that counts: they load libraries and choose kernels. Our choice."""

FEWEST = 5
"""Runs, however long one takes. Our choice."""

FLIPPED = 0.02
NOISE = 0.58
CONFIDENCE = 0.97
"""How alike random encodings of one class are; our choice, near what trained models have.

FLIPPED: a bit is another than its class's with this probability, so that two codes differ in
2 · 0.02 · 0.98 = 3.9 % of their bits; 3.8 % is the mean of DAH with 64 bits on AID. NOISE: standard
deviation against 1 of the class centres, so that two embeddings have a cosine of
1 / (1 + 0.58²) = 0.75; 0.75 to 0.77 are the means of a ResNet classifier's and JSRT's on AID.
CONFIDENCE: the likeliest class's median probability; 0.97 of DAH on AID. Codes without classes
are no stand-in: their nearest are so far away that adaptive search has to look at the whole
gallery, which took 7 times as long among 6,080."""

_SEED = 0


@dataclass(frozen=True)
class Duration:
    """Milliseconds of one thing: the median of the runs, their 5th and their 95th percentile.

    runs: how often it was timed, each alone, after a warm-up.
    """

    median: float
    p5: float
    p95: float
    runs: int


@dataclass(frozen=True)
class Measured:
    """What describing, searching and keeping images took here.

    ms_per_image: from the pixels of one image, uint8 at the model's size, to its Encoding, both
    in memory: to the device, normalised, through the model, back. Reading, decoding and resizing
    files, which is the same for all models, is not in it. ms_per_image_batched: the same with
    `batch` images at once, divided by `batch`.
    ms_per_query: from one encoded query to the places and distances of its `k` nearest among
    `gallery`, exactly, in the model's own ranking: the index that the embedded archive holds in
    memory, on the CPU. What the papers call the time of the similarity metric, or of a query.
    ms_per_search: the same through the archive's table: with a look for newer commits, and
    the hits' records read from disk.
    bytes_per_image: the vector as it is stored and compared: 4 · D of an embedding, ceil(bits / 8)
    of a code, with 4 · K for class probabilities if the ranking needs them. The same in memory.
    table_bytes_per_image: of the whole table on disk as indexing leaves it, with the records
    (id, path, hash, times, size of the image; no footprint), what Lance adds, and what its
    commits leave; divided by `gallery`.
    dimension, ranking, image_size (height, width): of the model. precision: of its weights.
    device: that encodes, with its name if it is a GPU. cpu: its name. threads: of torch;
    search_threads: that FAISS may use. torch: its version.
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
    """Measure a copy of the model; it need not be trained, nor fitted to a gallery.

    Images are noise of the model's bands and size. The gallery and the queries are random
    encodings of the model's dimension and ranking, alike within as many classes as it has, and
    the same in every call.

    gallery: images searched. batch: images encoded at once; None: the encoder's batch size.
    queries: different ones, that take turns. k: hits of a search; all, if they are fewer.
    seconds: that each of the four durations is measured for, at least.
    The table is written to a temporary folder.

    Raises UsageError for a number below 1, or seconds that are not above 0.
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
    one, many = (_images(copied, count, random) for count in (1, batch))

    def encoding(images: torch.Tensor) -> Duration:
        # It gives NumPy arrays, so an accelerator has done its work when it returns.
        call = partial(copied.encode_batch, images)
        return _timed(call, seconds, shared_by=len(images))

    groups = max(1, len(model.classes))
    vectors = _encodings(metric, copied.dimension, groups, gallery + queries, random)
    kept, asked = vectors[:gallery], itertools.cycle(np.split(vectors[gallery:], queries))
    with tempfile.TemporaryDirectory() as folder:
        store = _stored(Path(folder) / "items.lance", metric, copied.dimension, kept)
        table_bytes = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        per_search = _timed(lambda: store.search(next(asked), k), seconds)
    index = flat_index(metric, kept)
    return Measured(
        ms_per_image=encoding(one),
        ms_per_image_batched=encoding(many),
        ms_per_query=_timed(lambda: index.nearest(next(asked), k), seconds),
        ms_per_search=per_search,
        bytes_per_image=kept[0].nbytes,
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
    """The processor's name as the system gives it, e.g. "Intel(R) Xeon(R) …"."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _timed(call: Callable[[], object], seconds: float, *, shared_by: int = 1) -> Duration:
    """How long `call` takes, divided by `shared_by`; it returns when its work is done."""
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
    """(count, width) vectors of `metric` as a store takes them, alike within random groups."""
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
    # Softmax gives the likeliest class this probability if the other logits were all 0.
    lead = np.log(CONFIDENCE / (1 - CONFIDENCE) * max(1, metric.classes - 1))
    logits = random.standard_normal((count, metric.classes))
    logits[np.arange(count), group] += lead
    odds = np.exp(logits)
    return packed(codes, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32))


def _stored(path: Path, metric: Metric, dimension: int, vectors: NDArray[Any]) -> LanceStore:
    """A store of `vectors` under records as indexing makes them of chips, in as many commits."""
    store = LanceStore.create(path, metric.name, dimension)
    for start in range(0, len(vectors), COMMIT_TILES):
        rows = vectors[start : start + COMMIT_TILES]
        store.add(list(_records(start, start + len(rows))), rows)
    return store


def _records(start: int, stop: int) -> Iterator[Record]:
    for number in range(start, stop):
        # Ids and hashes are random in an archive: counted up they would pack better.
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
