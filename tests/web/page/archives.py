"""Archives of records without images, for the tests of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rsir.archive import Archive
from rsir.store.records.record import Record
from tests.support.colour_encoder import ColourEncoder


def square(west: float, south: float, side: float = 1.0) -> dict:
    east, north = west + side, south + side
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def archive_of(folder: Path, records: list[Record]) -> Archive:
    archive = Archive.create(folder, ColourEncoder())
    if records:
        vectors = np.random.default_rng(0).standard_normal((len(records), 16))
        archive.store.add(records, vectors.astype(np.float32))
    return archive
