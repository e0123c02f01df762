"""Encoder + labelled set → report. One evaluation that every system goes through."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
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
from rsir.data.loading import read_ahead
from rsir.encode import Encoder, joined
from rsir.errors import DataError, UsageError
from rsir.losses.pairs import similar
from rsir.metrics import (
    TieGroups,
    average_precision,
    counted_groups,
    found_average_precision_at_k,
    hit_at_k,
    nmrr,
    precision_at_k,
    tie_groups,
)
from rsir.ranking import ADAPTIVE, name_with_classes
from rsir.types import Encoding

HITS_AT = (1, 2, 4, 8)
"""k of R@k: paper B's."""
PRECISIONS_AT = (5, 10, 50, 100)
"""k of P@k: paper D's."""
FOUND_AT = (5, 10, 20, 100)
"""k of AP@k with the "found" denominator, which several papers call mAP."""
BLOCK_BYTES = 8 * 2**20
"""Memory for one block of distances (queries × gallery × 4 bytes); our choice. With the sorted
order and the tie groups beside it a block takes about twenty times that."""

PROTOCOLS = {
    "leave-one-out": "each image queries all others; a query is removed from its own ranking",
    "query-gallery": "the queries search a gallery that holds none of them",
}
DEFINITIONS = {
    "map": "mean over queries of AP = (1/R) sum of P(i) over relevant ranks i, whole ranking, "
    "R = all relevant in the gallery; a query with R = 0 counts 0",
    "r_at_k": "share of queries with at least one relevant image among the first k",
    "p_at_k": "relevant among the first k, divided by k",
    "anmrr": "mean over queries of NMRR (MPEG-7), 0 is best: K = min(4 NG, 2 max NG), a rank "
    "beyond K counts 1.25 K; NG = relevant in the gallery; a query with NG = 0 counts 1",
    "map_at_k_found": "mean over queries of AP@k = (1/F) sum of P(i) over relevant ranks i <= k, "
    "F = relevant found among the first k; a query with F = 0 counts 0",
    "relevant": "same class, or at least one label in common",
    "ties": "items at equal distance are in random order: each measure is its expected value",
    "adaptive-hamming": "D_a = e^(1 - p) D_h, p = the gallery image's probability of the query's "
    "most probable class",
}


def _cosine(queries: Tensor, gallery: Tensor) -> Tensor:
    return 1 - functional.normalize(queries, dim=1) @ functional.normalize(gallery, dim=1).T


def _ncc(queries: Tensor, gallery: Tensor) -> Tensor:
    return _cosine(_centred(queries), _centred(gallery))


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean(dim=1, keepdim=True)


def _hamming(queries: Tensor, gallery: Tensor) -> Tensor:
    # Of codes of ±1: (bits - q · g) / 2, small whole numbers, so exact in float32.
    return (queries.shape[1] - _signs(queries) @ _signs(gallery).T) / 2


def _signs(codes: Tensor) -> Tensor:
    return torch.where(codes > 0, 1.0, -1.0)


DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": _cosine,
    "euclidean": torch.cdist,
    "ncc": _ncc,
    "hamming": _hamming,
}
"""(Q, D), (N, D) → (Q, N), as in `rsir.ranking`, but by matrix products and on any device; for
hash codes from the relaxed codes, whose signs are the bits."""

CODES = ("hamming", ADAPTIVE)
"""Rankings by hash codes."""
RANKINGS = (*DISTANCES, ADAPTIVE)
WITHOUT_PROBABILITIES = "needs class probabilities, which the model does not give"


@dataclass(frozen=True, eq=False)
class Described:
    """What is ranked of N images: their encodings and what they show.

    embedding: (N, D) float32, relaxed codes for rankings by code. targets: (N,) int64 classes or
    (N, L) multi-hot labels. probabilities: (N, K) of the classes; "adaptive-hamming" needs them.
    """

    embedding: Tensor
    targets: Tensor
    probabilities: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[Described]) -> Described:
        """The images of several, at least one, by the same model."""
        probabilities = [p.probabilities for p in parts if p.probabilities is not None]
        return cls(
            torch.cat([part.embedding for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat(probabilities) if probabilities else None,
        )

    def __len__(self) -> int:
        return len(self.embedding)

    def __getitem__(self, rows: slice) -> Described:
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return Described(self.embedding[rows], self.targets[rows], probabilities)

    def to(self, device: str) -> Described:
        """The same on another device."""
        probabilities = self.probabilities
        return Described(
            self.embedding.to(device),
            self.targets.to(device),
            None if probabilities is None else probabilities.to(device),
        )

    def check(self, ranking: str) -> None:
        """DataError for values that cannot be ranked; UsageError for probabilities missing."""
        if not bool(torch.isfinite(self.embedding).all()):
            raise DataError("the model gives values that are not finite; it cannot be ranked")
        if ranking == "cosine" and not bool(self.embedding.any(dim=1).all()):
            raise DataError("the model gives a vector of zeros, which cosine cannot rank")
        # Rounding of the mean can leave something of a constant vector when it is centred.
        if ranking == "ncc" and bool((self.embedding.amax(1) == self.embedding.amin(1)).any()):
            raise DataError("the model gives a constant vector, which ncc cannot rank")
        if ranking != ADAPTIVE:
            return
        if self.probabilities is None:
            raise UsageError(f"ranking {ranking!r} {WITHOUT_PROBABILITIES}")
        if not bool(((self.probabilities >= 0) & (self.probabilities <= 1)).all()):
            raise DataError("the model gives class probabilities that are not within [0, 1]")


def score_queries(
    queries: Described,
    gallery: Described,
    *,
    ranking: str,
    own: Tensor | None = None,
    block: int | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Every measure for every query: {"map", "r_at_1" …, "p_at_5" …, "relevant"} → (Q,) float64.

    own: (Q,) int64, each query's own place in the gallery, which is left out of its ranking
    (leave-one-out); None if the gallery holds no query.
    "relevant" is R, the number of relevant items in the gallery (without the query).
    Distances are ranked `block` queries at a time, never Q × N at once.
    """
    if ranking not in RANKINGS:
        raise UsageError(f"ranking {ranking!r}: take one of {', '.join(RANKINGS)}")
    if not len(queries):
        raise DataError("there are no queries")
    if len(gallery) <= (own is not None):
        raise DataError("the gallery is empty")
    for described in (queries, gallery):
        described.check(ranking)
    if queries.embedding.device.type == "mps":
        # Apple's MPS has no float64, which the measures are summed in.
        queries, gallery, own = queries.to("cpu"), gallery.to("cpu"), _moved(own, "cpu")
    block = block or max(1, BLOCK_BYTES // (4 * len(gallery)))
    blocks = [slice(start, start + block) for start in range(0, len(queries), block)]

    def relevance(rows: slice) -> Tensor:
        relevant = similar(queries.targets[rows], gallery.targets)
        return relevant if own is None else relevant.scatter(1, own[rows, None], False)

    # ANMRR needs the largest R of all queries before the first is scored.
    largest = max((int(relevance(rows).sum(dim=1).max()) for rows in blocks), default=0)
    parts: list[dict[str, Tensor]] = []
    for rows in blocks:
        mine = None if own is None else own[rows, None]
        groups = _tie_groups(queries[rows], gallery, relevance(rows), ranking, mine)
        parts.append(_measures(groups, largest))
    return {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}


def _moved(tensor: Tensor | None, device: str) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _tie_groups(
    queries: Described, gallery: Described, relevant: Tensor, ranking: str, own: Tensor | None
) -> TieGroups:
    """The rankings of `queries`, without their `own` (Q, 1) places; relevant (Q, N) bool."""
    if ranking == "hamming":
        bits = queries.embedding.shape[1]
        distances = _hamming(queries.embedding, gallery.embedding)
        # A query itself is put beyond all, and left out with that group.
        levels = bits + 2
        if own is not None:
            distances.scatter_(1, own, bits + 1)
        groups = counted_groups(relevant, distances, levels)
        return TieGroups.of(groups.sizes[:, :-1], groups.relevant[:, :-1])
    if ranking == ADAPTIVE:
        distances = _adaptive(queries, gallery)
    else:
        distances = DISTANCES[ranking](queries.embedding, gallery.embedding)
    if own is not None:
        distances.scatter_(1, own, torch.inf)
    distances, order = distances.sort(dim=1, stable=True)
    ranked = relevant.gather(1, order)
    end = None if own is None else -1
    return tie_groups(ranked[:, :end], distances[:, :end])


def _adaptive(queries: Described, gallery: Described) -> Tensor:
    """(Q, N) float64: D_a = e^(1 - p) · D_h, as `rsir.ranking.adapted`."""
    assert queries.probabilities is not None
    assert gallery.probabilities is not None
    likeliest = queries.probabilities.argmax(dim=1)
    factors = (1.0 - gallery.probabilities.double()).exp().T
    return factors[likeliest] * _hamming(queries.embedding, gallery.embedding)


def _measures(groups: TieGroups, largest: int) -> dict[str, Tensor]:
    """Every measure of every query; `largest` is the largest R of all."""
    # Measures at k need no more, and the rest is most of it.
    head = groups.head(max(*HITS_AT, *PRECISIONS_AT, *FOUND_AT))
    return {
        "map": average_precision(groups),
        "anmrr": nmrr(groups, largest),
        **{f"r_at_{k}": hit_at_k(head, k) for k in HITS_AT},
        **{f"p_at_{k}": precision_at_k(head, k) for k in PRECISIONS_AT},
        **{f"map_at_{k}_found": found_average_precision_at_k(head, k) for k in FOUND_AT},
        "relevant": groups.relevant.sum(dim=1),
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
    ranking: one of RANKINGS; the model's own by default. data: what the report says of the set.
    on_progress: called with (images encoded, images in all).
    """
    ranking = _checked_ranking(ranking or encoder.ranking, encoder)
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
    encoded: list[Described] = []
    skipped: list[tuple[str, str]] = []
    done = 0
    for images in sets:
        encoding, kept, failed = encode_set(encoder, images, on_progress=advance)
        done += len(images)
        skipped += failed
        encoded.append(_described(encoding, images.targets[kept], encoder.device))
    encode_seconds = time.perf_counter() - started

    started = time.perf_counter()
    own = None
    if gallery is None:
        own = torch.arange(len(encoded[0]), device=encoder.device)
    per_query = score_queries(encoded[0], encoded[-1], ranking=ranking, own=own)
    rank_seconds = time.perf_counter() - started

    relevant = per_query.pop("relevant")
    return Report(
        metrics={name: float(values.mean()) for name, values in per_query.items()},
        per_class=_per_class(per_query, encoded[0].targets.cpu().numpy(), queries.classes),
        protocol="leave-one-out" if gallery is None else "query-gallery",
        ranking=ranking,
        queries=len(encoded[0]),
        gallery=len(encoded[-1]) - (gallery is None),
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


def _checked_ranking(name: str, encoder: Encoder) -> str:
    """One of RANKINGS for `name`, which may carry the model's number of classes.

    UsageError if it does not fit the model.
    """
    ranking, colon, _ = name.partition(":")
    if ranking not in RANKINGS or (colon and ranking != ADAPTIVE):
        raise UsageError(f"ranking {name!r}: take one of {', '.join(RANKINGS)}")
    if ranking in CODES and not encoder.hashes:
        raise UsageError(f"ranking {name!r} compares hash codes, which the model does not give")
    classes = len(encoder.model.classes)
    if colon and name != name_with_classes(ADAPTIVE, classes):
        raise UsageError(f"ranking {name!r}: the model has {classes} classes")
    if ranking == ADAPTIVE and not _gives_probabilities(encoder):
        raise UsageError(f"ranking {name!r} {WITHOUT_PROBABILITIES}")
    return ranking


def _gives_probabilities(encoder: Encoder) -> bool:
    """Whether it gives class probabilities; looked up in the answer to one black image."""
    if encoder.model.ranking == ADAPTIVE:
        return True
    spec = encoder.model.spec
    black = torch.zeros(1, len(spec.bands), spec.size, spec.size, dtype=torch.uint8)
    return encoder.encode_batch(black).probabilities is not None


def _described(encoding: Encoding, targets: NDArray[Any], device: torch.device) -> Described:
    probabilities = encoding.probabilities
    return Described(
        torch.from_numpy(encoding.embedding).to(device),
        torch.from_numpy(targets).to(device),
        None if probabilities is None else torch.from_numpy(probabilities).to(device),
    )


def encode_set(
    encoder: Encoder,
    images: LabelledSet,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Encoding, NDArray[np.int64], list[tuple[str, str]]]:
    """Encoding and indices (M,) of the M readable images; (path, reason) of the rest.

    Raises DataError if no image can be read.
    """
    parts: list[Encoding] = []
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    for start, batch in read_ahead(images.files, encoder.model.spec, encoder.batch_size):
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
        first = f"; the first: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"{images.root}: none of {len(images)} images could be read{first}")
    return joined(parts), np.array(kept, np.int64), skipped


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
