"""Labelled sets, evaluation details and reports made of random numbers."""

from __future__ import annotations

import dataclasses

import numpy as np

from rsir.data.folder import LabelledSet
from rsir.evaluation.evaluate import EvaluationDetails, Report
from rsir.evaluation.leakage import Leakage


def labelled(root, targets, classes):
    targets = np.asarray(targets)
    several = targets.ndim == 2
    return LabelledSet(
        root=root,
        paths=tuple(f"{i:02d}.png" for i in range(len(targets))),
        classes=tuple(classes),
        targets=targets.astype(np.uint8 if several else np.int64),
        multi_label=several,
    )


def details_of(images, *, k=10, seed=0, dimension=6):
    """Leave-one-out by Euclidean distance between random embeddings, clustered by class."""
    random = np.random.default_rng(seed)
    N = len(images)
    targets = images.targets if images.multi_label else np.eye(len(images.classes))[images.targets]
    centres = random.normal(size=(len(images.classes), dimension))
    values = (targets @ centres + 0.8 * random.normal(size=(N, dimension))).astype(np.float32)
    distances = np.linalg.norm(values[:, None] - values[None], axis=2).astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, : min(k, N - 1)]
    ap = random.random(N)
    near = np.take_along_axis(distances, order, axis=1)
    shares = shares_of(images, order)
    return EvaluationDetails(images, images, values, values, {"map": ap}, order, near, shares)


def shares_of(gallery, nearest):
    held = [[name in gallery.labels(i) for name in gallery.classes] for i in range(len(gallery))]
    return np.array(held, float)[nearest].mean(axis=1)


def curves_of(*, bits=None):
    k = [1.0, 2.0, 5.0, 10.0, 20.0]
    precision, recall = [1.0, 0.9, 0.7, 0.55, 0.3], [0.1, 0.2, 0.4, 0.8, 1.0]
    found = {
        "precision_recall": {"recall": recall, "precision": precision},
        "interpolated": {
            "recall": [i / 10 for i in range(11)],
            "precision": [1 - i / 20 for i in range(11)],
        },
        "retrieved": {"k": k, "precision": precision, "recall": recall},
    }
    if bits:
        radius = [float(r) for r in range(bits + 1)]
        found["radius"] = {
            "radius": radius,
            "precision": [0.9 - r / 100 for r in radius],
            "recall": [r / bits for r in radius],
            "map": [0.8 - r / 100 for r in radius],
        }
    return found


def report_of(details, *, ranking="euclidean", bits=None, **changes):
    images = details.queries
    per_class = {}
    for i, name in enumerate(images.classes):
        rows = images.targets[:, i] > 0 if images.multi_label else images.targets == i
        if rows.any():
            mean = float(details.per_query["map"][rows].mean())
            values = {"map": mean, "r_at_1": 0.5, "p_at_10": 0.25}
            per_class[name] = {"queries": int(rows.sum()), **values}
    report = Report(
        metrics={"map": float(details.per_query["map"].mean()), "r_at_1": 0.5, "p_at_10": 0.25},
        per_class=per_class,
        protocol="leave-one-out",
        ranking=ranking,
        queries=len(images),
        gallery=len(images) - 1,
        queries_without_relevant=0,
        skipped=[],
        seconds={},
        model={"method": "pooled", "options": {"pool": "mean"}, "training": {"seed": 1}},
        data={"root": "shapes"},
        intervals={"map": (0.25, 0.75)},
        curves=curves_of(bits=bits),
        best={},
        worst={},
        dropped=False,
        leakage=Leakage(None, True, (), ()),
        details=details,
    )
    return dataclasses.replace(report, **changes)


def axes_of(picture):
    return picture.figure.axes[0]
