"""Encoder + labelled set → report. One evaluation that every system goes through."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

import rsir
from rsir.data.folder import LabelledSet
from rsir.data.images import read_pixels
from rsir.data.transforms import InputSpec
from rsir.encode import Encoder
from rsir.errors import DataError, ImageError, UsageError
from rsir.metrics import average_precision, hit_at_k, precision_at_k

HITS_AT = (1, 2, 4, 8)
"""k of R@k: paper B's."""
PRECISIONS_AT = (5, 10, 50, 100)
"""k of P@k: paper D's."""
BLOCK_BYTES = 16 * 2**20
"""Memory for one block of distances (queries × gallery × 4 bytes); our choice. With the sorted
order and relevance beside it a block takes about ten times that."""

PROTOCOLS = {
    "leave-one-out": "each image queries all others; a query is removed from its own ranking",
    "query-gallery": "the queries search a gallery that holds none of them",
}
DEFINITIONS = {
    "map": "mean over queries of AP = (1/R) sum of P(i) over relevant ranks i, whole ranking, "
    "R = all relevant in the gallery; a query with R = 0 counts 0",
    "r_at_k": "share of queries with at least one relevant image among the first k",
    "p_at_k": "relevant among the first k, divided by k",
    "relevant": "same class, or at least one label in common",
    "ties": "equal distances are ordered by path",
}


def _cosine(queries: Tensor, gallery: Tensor) -> Tensor:
    return 1 - functional.normalize(queries, dim=1) @ functional.normalize(gallery, dim=1).T


def _ncc(queries: Tensor, gallery: Tensor) -> Tensor:
    return _cosine(_centred(queries), _centred(gallery))


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean(dim=1, keepdim=True)


DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": _cosine,
    "euclidean": torch.cdist,
    "ncc": _ncc,
}
"""(Q, D), (N, D) → (Q, N), as in `rsir.ranking`, but by matrix products and on any device."""


def score_queries(
    queries: Tensor,
    query_targets: Tensor,
    gallery: Tensor,
    gallery_targets: Tensor,
    *,
    ranking: str,
    own: Tensor | None = None,
    block: int | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Every measure for every query: {"map", "r_at_1" …, "p_at_5" …, "relevant"} → (Q,) float64.

    queries (Q, D), gallery (N, D) float32. targets (·,) int64 or (·, L) multi-hot.
    own: (Q,) int64, each query's own place in the gallery, which is left out of its ranking
    (leave-one-out); None if the gallery holds no query.
    "relevant" is R, the number of relevant items in the gallery (without the query).
    Distances are ranked `block` queries at a time, never Q × N at once.
    """
    if ranking not in DISTANCES:
        raise UsageError(f"ranking {ranking!r}: take one of {', '.join(DISTANCES)}")
    if len(gallery) <= (own is not None):
        raise DataError("the gallery is empty")
    for vectors in (queries, gallery):
        if not bool(torch.isfinite(vectors).all()):
            raise DataError("the model gives values that are not finite; it cannot be ranked")
        if ranking != "euclidean" and not bool(vectors.any(dim=1).all()):
            raise DataError(f"the model gives a vector of zeros, which {ranking} cannot rank")
    block = block or max(1, BLOCK_BYTES // (4 * len(gallery)))
    parts: list[dict[str, Tensor]] = []
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        distances = DISTANCES[ranking](queries[rows], gallery)
        relevant = _relevant(query_targets[rows], gallery_targets)
        if own is not None:
            mine = own[rows, None]
            distances.scatter_(1, mine, torch.inf)
            relevant.scatter_(1, mine, False)
        order = distances.argsort(dim=1, stable=True)
        ranked = relevant.gather(1, order)[:, : -1 if own is not None else None]
        # Apple's MPS has no float64, which the measures are summed in.
        parts.append(_measures(ranked.cpu() if ranked.device.type == "mps" else ranked))
    return {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}


def _relevant(query_targets: Tensor, gallery_targets: Tensor) -> Tensor:
    """(Q, N) bool: same class, or a label in common."""
    if query_targets.ndim == 1:
        return query_targets[:, None] == gallery_targets[None, :]
    return (query_targets.float() @ gallery_targets.float().T) > 0


def _measures(ranked: Tensor) -> dict[str, Tensor]:
    return {
        "map": average_precision(ranked),
        **{f"r_at_{k}": hit_at_k(ranked, k) for k in HITS_AT},
        **{f"p_at_{k}": precision_at_k(ranked, k) for k in PRECISIONS_AT},
        "relevant": ranked.sum(dim=1).double(),
    }


@dataclass(frozen=True)
class Report:
    """What an evaluation found; `to_dict` is what goes into the JSON file.

    metrics: means over the queries. per_class: the same for the queries of each class (of each
    label: an image counts under all of its labels), with "queries", their number.
    skipped: images that could not be read, with the reason; they are in neither set.
    """

    metrics: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]
    protocol: str
    ranking: str
    queries: int
    gallery: int
    queries_without_relevant: int
    skipped: Sequence[tuple[str, str]]
    seconds: Mapping[str, float]
    model: Mapping[str, Any]
    data: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values, with the definition of every measure."""
        return {
            "format": "rsir-report/1",
            "rsir": rsir.__version__,
            "torch": torch.__version__,
            "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "model": dict(self.model),
            "data": dict(self.data),
            "protocol": self.protocol,
            "protocol_means": PROTOCOLS[self.protocol],
            "ranking": self.ranking,
            "queries": self.queries,
            "gallery": self.gallery,
            "queries_without_relevant": self.queries_without_relevant,
            "metrics": dict(self.metrics),
            "per_class": {name: dict(values) for name, values in self.per_class.items()},
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "seconds": dict(self.seconds),
            "definitions": DEFINITIONS,
        }

    def write(self, file: str | Path) -> None:
        """Write `to_dict` as JSON."""
        file = Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", "utf-8")


def evaluate(
    encoder: Encoder,
    queries: LabelledSet,
    gallery: LabelledSet | None = None,
    *,
    ranking: str | None = None,
    data: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """The report of `encoder` on a labelled set.

    Without `gallery`: leave-one-out over `queries`. With it: each query searches the gallery;
    an image may not be in both (DataError).
    ranking: a metric name; the model's own by default. data: what the report says of the set.
    on_progress: called with (images encoded, images in all).
    """
    ranking = ranking or encoder.ranking
    if ranking not in DISTANCES:
        raise UsageError(f"ranking {ranking!r}: take one of {', '.join(DISTANCES)}")
    if gallery is not None:
        shared = set(queries.files) & set(gallery.files)
        if shared:
            raise DataError(f"{len(shared)} images are both query and gallery, e.g. {min(shared)}")
        if queries.classes != gallery.classes:
            raise DataError("queries and gallery must have the same list of classes")
    total = len(queries) + (len(gallery) if gallery is not None else 0)

    def advance(images_done: int) -> None:
        if on_progress is not None:
            on_progress(done + images_done, total)

    started = time.perf_counter()
    sets = [s for s in (queries, gallery) if s is not None]
    encoded: list[tuple[Tensor, Tensor]] = []
    skipped: list[tuple[str, str]] = []
    done = 0
    for images in sets:
        embedding, kept, failed = encode_set(encoder, images, on_progress=advance)
        done += len(images)
        skipped += failed
        targets = torch.from_numpy(images.targets[kept])
        encoded.append((embedding, targets.to(embedding.device)))
    encode_seconds = time.perf_counter() - started

    started = time.perf_counter()
    own = None
    if gallery is None:
        own = torch.arange(len(encoded[0][0]), device=encoded[0][0].device)
    per_query = score_queries(*encoded[0], *encoded[-1], ranking=ranking, own=own)
    rank_seconds = time.perf_counter() - started

    relevant = per_query.pop("relevant")
    return Report(
        metrics={name: float(values.mean()) for name, values in per_query.items()},
        per_class=_per_class(per_query, encoded[0][1].cpu().numpy(), queries.classes),
        protocol="leave-one-out" if gallery is None else "query-gallery",
        ranking=ranking,
        queries=len(encoded[0][0]),
        gallery=len(encoded[-1][0]) - (gallery is None),
        queries_without_relevant=int((relevant == 0).sum()),
        skipped=skipped,
        seconds={"encode": encode_seconds, "rank": rank_seconds},
        model=_model_summary(encoder),
        data={
            "root": "/".join(queries.root.parts[-2:]),
            "classes": len(queries.classes),
            **(data or {}),
        },
    )


def encode_set(
    encoder: Encoder,
    images: LabelledSet,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, NDArray[np.int64], list[tuple[str, str]]]:
    """Embeddings (M, D) and indices (M,) of the M readable images; (path, reason) of the rest.

    The embeddings lie on the encoder's device. Raises DataError if no image can be read.
    """
    parts: list[NDArray[np.float32]] = []
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    for start, batch in _read_ahead(images.files, encoder.model.spec, encoder.batch_size):
        readable = []
        for index, prepared in enumerate(batch, start=start):
            if isinstance(prepared, Tensor):
                readable.append(prepared)
                kept.append(index)
            else:
                skipped.append((images.paths[index], prepared))
        if readable:
            parts.append(encoder.encode_batch(torch.stack(readable)))
        if on_progress is not None:
            on_progress(start + len(batch))
    if not parts:
        raise DataError(f"{images.root}: none of {len(images)} images could be read")
    embedding = torch.from_numpy(np.concatenate(parts)).to(encoder.device)
    return embedding, np.array(kept, np.int64), skipped


def _read_ahead(
    files: Sequence[Path], spec: InputSpec, batch_size: int
) -> Iterator[tuple[int, list[Tensor | str]]]:
    """(index of the first, prepared images or reasons why not) batch by batch.

    While a batch is encoded the next one is read: two threads decode faster than two cores
    encode, and decoding releases the GIL.
    """

    def read(file: Path) -> Tensor | str:
        try:
            return spec.prepare(read_pixels(file))
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=2) as pool:
        starts = range(0, len(files), batch_size)
        waiting: deque[tuple[int, list[Future[Tensor | str]]]] = deque()
        for start in starts:
            batch = [pool.submit(read, file) for file in files[start : start + batch_size]]
            waiting.append((start, batch))
            if len(waiting) > 1:
                first, ready = waiting.popleft()
                yield first, [future.result() for future in ready]
        for first, ready in waiting:
            yield first, [future.result() for future in ready]


def _per_class(
    per_query: Mapping[str, NDArray[np.float64]], targets: NDArray[Any], classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    found = {}
    for index, name in enumerate(classes):
        rows = targets[:, index] > 0 if targets.ndim == 2 else targets == index
        if rows.any():
            found[name] = {
                "queries": int(rows.sum()),
                **{k: float(v[rows].mean()) for k, v in per_query.items()},
            }
    return found


def _model_summary(encoder: Encoder) -> dict[str, Any]:
    model = encoder.model
    return {
        "fingerprint": encoder.fingerprint,
        "method": model.method,
        "options": dict(model.options),
        "backbone": model.backbone,
        "input_size": model.spec.size,
        "dimension": model.dimension,
        "training": dict(model.training),
    }
