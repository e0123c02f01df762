"""Evaluate an encoder on a labelled set: encoder + labelled set → report."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsir.data.folder import LabelledSet
from rsir.data.loading import prepared_batches
from rsir.data.near_duplicates import NearDuplicates
from rsir.data.splits import Split
from rsir.errors import DataError, UsageError
from rsir.evaluation.labelled_embeddings import WITHOUT_PROBABILITIES, LabelledEmbeddings
from rsir.evaluation.leakage import Leakage, find_leakage
from rsir.evaluation.metrics.groups import Order
from rsir.evaluation.per_query import write_per_query
from rsir.evaluation.ranked_block import CODES
from rsir.evaluation.relevance import relevant_counts
from rsir.evaluation.scoring import RADIUS, RANKINGS, Scores, score_queries
from rsir.evaluation.statistics import bootstrap_intervals
from rsir.methods.base import Output
from rsir.models.encoder import Encoder
from rsir.ranking import ADAPTIVE, name_with_classes
from rsir.version import VERSION

PROTOCOLS = {
    "leave-one-out": "each image queries all others; a query is removed from its own ranking",
    "query-gallery": "the queries search a gallery that contains none of them",
}
DEFINITIONS = {
    "map": "mean over queries of AP = (1/R) sum of P(i) over relevant ranks i, whole ranking, "
    "R = all relevant in the gallery; a query with R = 0 counts 0",
    "r_at_k": "share of queries with at least one relevant image among the first k",
    "p_at_k": "relevant among the first k, divided by k",
    "anmrr": "mean over queries of NMRR (MPEG-7), 0 is best: K = min(4 NG, 2 max NG), a rank "
    "beyond K counts 1.25 K; NG = relevant in the gallery; a query with NG = 0 counts 1",
    "anmrr_k_plus_1": "the same, but a rank beyond K counts K + 1 (older software)",
    "map_at_k_found": "mean over queries of AP@k = (1/F) sum of P(i) over relevant ranks i <= k, "
    "F = relevant found among the first k; a query with F = 0 counts 0",
    "map_at_k_min": "the same sum divided by min(R, k)",
    "map_at_k_all": "the same sum divided by R",
    "map_11_point": "mean over queries of the mean of the highest precision at any rank of at "
    "least recall 0, 0.1 … 1",
    "wmap": "weighted mAP: mean over queries of (1/R) sum of ACG@i over relevant ranks i",
    "acg_at_k": "labels in common of the query and the first k images, divided by k",
    "ndcg_at_k": "DCG@k / the DCG@k of the whole gallery's best order, DCG@k = sum of "
    "(2^shared - 1) / log2(1 + i) over ranks i <= k",
    "ndcg_at_k_list": "the same, with the best order of the k retrieved images",
    f"precision_within_{RADIUS}": f"relevant among the images within Hamming radius {RADIUS}; "
    "an empty ball counts 0",
    f"recall_within_{RADIUS}": "share of all relevant images that are within the radius",
    f"map_within_{RADIUS}": "AP of the images within the radius, divided by the relevant images "
    "within",
    "relevant": "same class, or at least one label in common",
    "ties": "items at equal distance are in random order: each measure is its expected value "
    "(map_11_point: the value of the expected curve; ndcg_at_k_list: expected DCG / expected "
    "ideal); best and worst: the value with the most and the least relevant of them first",
    "intervals": "95 % percentile bootstrap over queries: the variation between other queries of "
    "this kind, not between training runs or galleries",
    "adaptive-hamming": "D_a = e^(1 - p) D_h, p = the gallery image's probability of the query's "
    "most probable class",
}


@dataclass(frozen=True, eq=False)
class EvaluationDetails:
    """The data behind a report: input of figures and of paired tests.

    queries, gallery: the readable images; the same set in leave-one-out. query_embeddings (Q, D),
    gallery_embeddings (N, D) float32. per_query: {measure: (Q,) float64}. nearest (Q, k) int64:
    rows of the gallery, nearest first, without the query itself; distances (Q, k); k is 0 unless
    `evaluate` was called with `nearest`. shares (Q, L): share of each class or label among the
    first k, expected over the orders of equal distances.
    """

    queries: LabelledSet
    gallery: LabelledSet
    query_embeddings: NDArray[np.float32]
    gallery_embeddings: NDArray[np.float32]
    per_query: Mapping[str, NDArray[np.float64]]
    nearest: NDArray[np.int64]
    distances: NDArray[np.float64]
    shares: NDArray[np.float64]

    @property
    def query_targets(self) -> NDArray[Any]:
        """(Q,) int64 classes, or (Q, L) uint8 labels."""
        return self.queries.targets

    @property
    def gallery_targets(self) -> NDArray[Any]:
        """(N,) int64 classes, or (N, L) uint8 labels."""
        return self.gallery.targets


@dataclass(frozen=True)
class Report:
    """The result of an evaluation; `to_dict` gives the contents of the JSON file.

    metrics: means over the queries. per_class: the same for the queries of each class (an image
    with several labels counts under each of them), with "queries", their number.
    intervals: (low, high) of each mean. best, worst: the metrics for the best and the worst order
    of items at equal distance; empty unless requested. curves: see
    `rsir.evaluation.mean_curves.MeanCurves`.
    dropped: whether every number leaves out the queries without relevant images.
    leakage: queries that the model was trained on, and equal files. near_duplicates: images of
    different parts of the split that look alike; None if they were not searched for.
    details: the data behind the numbers; not in the JSON file.
    skipped: (path, reason) of unreadable images; they are in neither set.
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
    intervals: Mapping[str, tuple[float, float]]
    curves: Mapping[str, Mapping[str, list[float]]]
    best: Mapping[str, float]
    worst: Mapping[str, float]
    dropped: bool
    leakage: Leakage
    details: EvaluationDetails = field(repr=False)
    near_duplicates: NearDuplicates | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values, with the definition of every measure."""
        return {
            "format": "rsir-report/2",
            "rsir": VERSION,
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
            "queries_without_relevant_dropped": self.dropped,
            "metrics": dict(self.metrics),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            **({"ties": {"best": dict(self.best), "worst": dict(self.worst)}} if self.best else {}),
            "per_class": {name: dict(values) for name, values in self.per_class.items()},
            "leakage": self.leakage.to_dict(),
            "near_duplicates": self.near_duplicates and self.near_duplicates.to_dict(),
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "seconds": dict(self.seconds),
            "curves": {name: dict(curve) for name, curve in self.curves.items()},
            "definitions": DEFINITIONS,
        }

    def write_per_query(self, file: str | Path) -> None:
        """Write a CSV file with one row per query: path, class, then each measure."""
        images = self.details.queries
        classes = ["|".join(images.labels(row)) for row in range(len(images))]
        write_per_query(file, images.paths, classes, self.details.per_query)

    def write(self, file: str | Path) -> None:
        """Write `to_dict` as JSON."""
        file = Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        file.write_text(text, "utf-8", "backslashreplace")


def evaluate(
    encoder: Encoder,
    queries: LabelledSet,
    gallery: LabelledSet | None = None,
    *,
    ranking: str | None = None,
    data: Mapping[str, Any] | None = None,
    ties: bool = False,
    drop_without_relevant: bool = False,
    nearest: int = 0,
    split: Split | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """The report of `encoder` on a labelled set.

    Without `gallery`: leave-one-out over `queries`. With it, each query searches the gallery; an
    image in both raises DataError. `Report.leakage` lists equal files, and the queries that the
    model was trained on.
    ranking: one of RANKINGS; by default the model's own. data: additional entries for the
    report's "data". ties: also report the best and the worst order of items at equal distance.
    drop_without_relevant: leave queries without relevant images out of every number, instead of
    counting them as 0. nearest: number of results per query to keep in `Report.details`.
    split: the split that the sets are parts of; if it is the model's own and the model's folder
    has no copy, it shows which images the model was trained on.
    on_progress: called with (images encoded, images in total).
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
    encoded: list[LabelledEmbeddings] = []
    readable_sets: list[LabelledSet] = []
    skipped: list[tuple[str, str]] = []
    done = 0
    for images in (queries,) if gallery is None else (queries, gallery):
        embeddings, readable, failed = encode_set(encoder, images, on_progress=advance)
        done += len(images)
        skipped += failed
        encoded.append(embeddings)
        readable_sets.append(readable)
    encode_seconds = time.perf_counter() - started

    started = time.perf_counter()
    query_images, gallery_images, own = encoded[0], encoded[-1], None
    query_set, gallery_set = readable_sets[0], readable_sets[-1]
    if gallery is None:
        own = torch.arange(len(query_images), device=encoder.device)
    relevant = relevant_counts(query_images, gallery_images, own)
    if drop_without_relevant:
        counted = relevant > 0
        if not bool(counted.any()):
            raise DataError("no query has a relevant image in the gallery")
        query_images, own = query_images[counted], None if own is None else own[counted]
        query_set = query_set.subset(counted.cpu().numpy())

    def scored(order: Order, **options: Any) -> Scores:
        return score_queries(
            query_images, gallery_images, ranking=ranking, own=own, order=order, **options
        )

    scores = scored("expected", curves=True, nearest=nearest)
    best, worst = (_means(scored(order)) if ties else {} for order in ("best", "worst"))
    per_query = _measures(scores)
    rank_seconds = time.perf_counter() - started
    intervals = bootstrap_intervals(per_query)

    return Report(
        metrics=_means(scores),
        per_class=_per_class(per_query, query_set.targets, queries.classes),
        protocol="leave-one-out" if gallery is None else "query-gallery",
        ranking=ranking,
        queries=len(query_images),
        gallery=len(gallery_images) - (gallery is None),
        queries_without_relevant=int((relevant == 0).sum()),
        skipped=skipped,
        seconds={"encode": encode_seconds, "rank": rank_seconds},
        model=_model_summary(encoder),
        data={
            "root": "/".join(queries.root.parts[-2:]),
            "classes": len(queries.classes),
            **(data or {}),
        },
        intervals=intervals,
        curves=scores.curves,
        best=best,
        worst=worst,
        dropped=drop_without_relevant,
        leakage=find_leakage(
            encoder, readable_sets[0], None if gallery is None else readable_sets[1], split
        ),
        details=EvaluationDetails(
            query_set,
            gallery_set,
            query_images.embedding.cpu().numpy(),
            gallery_images.embedding.cpu().numpy(),
            scores.per_query,
            scores.nearest,
            scores.distances,
            _padded(scores.shares, len(queries.classes) if nearest else 0),
        ),
    )


def _padded(shares: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    """`shares` with columns of 0 for the last classes, which no image has."""
    return np.pad(shares, ((0, 0), (0, max(0, columns - shares.shape[1]))))


def _measures(scores: Scores) -> dict[str, NDArray[np.float64]]:
    """The measures of each query; "relevant" is a count, not a measure."""
    return {name: values for name, values in scores.per_query.items() if name != "relevant"}


def _means(scores: Scores) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in _measures(scores).items()}


def _checked_ranking(name: str, encoder: Encoder) -> str:
    """The entry of RANKINGS for `name`, which may end in a number of classes.

    UsageError if it does not suit the model.
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
    """Whether the model gives class probabilities; encodes a black image to find out."""
    if encoder.model.ranking == ADAPTIVE:
        return True
    spec = encoder.model.spec
    black = torch.zeros(1, len(spec.bands), spec.size, spec.size, dtype=torch.uint8)
    return encoder.forward(black).logits is not None


def encode_set(
    encoder: Encoder,
    images: LabelledSet,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[LabelledEmbeddings, LabelledSet, list[tuple[str, str]]]:
    """The embeddings and the set of the readable images; (path, reason) of the others.

    The tensors stay on the encoder's device. Raises DataError if no image can be read.
    """
    outputs: list[Output] = []
    rows: list[int] = []
    skipped: list[tuple[str, str]] = []
    for start, batch in prepared_batches(images.files, encoder.model.spec, encoder.batch_size):
        readable = []
        for index, prepared in enumerate(batch, start=start):
            if isinstance(prepared, Tensor):
                readable.append(prepared)
                rows.append(index)
            else:
                skipped.append((images.paths[index], prepared))
        if readable:
            outputs.append(encoder.forward(torch.stack(readable)))
        if on_progress is not None:
            on_progress(start + len(batch))
    if not outputs:
        first = f"; the first: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"{images.root}: none of {len(images)} images could be read{first}")
    readable_set = images.subset(np.array(rows, np.int64))
    probabilities = [p for output in outputs if (p := output.probabilities) is not None]
    embeddings = LabelledEmbeddings(
        torch.cat([output.embedding.float() for output in outputs]),
        torch.from_numpy(readable_set.targets).to(encoder.device),
        torch.cat(probabilities) if probabilities else None,
    )
    return embeddings, readable_set, skipped


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
