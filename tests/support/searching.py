"""Searches by brute force, and archives that hold given vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rsir.archive import Archive
from rsir.ranking import metric_named, pairwise
from rsir.store.memory import ExactStore


def archive_of(records, vectors, metric="euclidean"):
    """An archive in memory that holds these records and vectors; codes have 8 bits."""
    dimension = 8 if metric_named(metric).kind == "bits" else vectors.shape[1]
    store = ExactStore(metric, dimension)
    store.add(records, vectors)
    manifest = {"fingerprint": "made up", "bands": ["red", "green", "blue"]}
    return Archive(Path("in memory"), manifest, store, None)


def everything(archive):
    """All records, and their vectors (N, width)."""
    records = list(archive.records())
    return records, archive.vectors([r.id for r in records])


def ranked(archive, vector, keep=lambda record: True, metric=None, bits=None):
    """(distance, id) of all records that `keep` lets pass, nearest first, ties by id."""
    records, vectors = everything(archive)
    passed = [(r, v) for r, v in zip(records, vectors, strict=True) if keep(r)]
    if not passed:
        return []
    rows = np.stack([v for _, v in passed])
    if bits is not None:
        vector, rows = vector[: -(-bits // 8)], rows[:, : -(-bits // 8)]
    far = pairwise(metric or archive.metric, vector[None], rows)[0]
    return sorted((float(d), r.id) for d, (r, _) in zip(far, passed, strict=True))


def found(hits):
    """(distance, id) of each hit."""
    return [(hit.distance, hit.id) for hit in hits]


def tile_at(archive, column, row):
    """The record of the tile of 64 pixels whose upper left corner is there."""
    return next(r for r in archive.records() if r.properties.get("window") == [column, row, 64, 64])
