"""Open archives, models and Parquet files, each in a process of its own; see `read_hostile`.

python -m tests.support.read_archive < LINES; a line is KIND, a tab and a path. Prints a line of
JSON for each: "fine", or the name and the text of the error; seconds; the growth of memory in MB.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import rsir
from rsir.archive.exchange.imports import dimension_of, import_parquet
from rsir.archive.folder.external import ExternalEncoder
from rsir.store.filters.filter import Filter
from tests.support.read_hostile import main


def archive(name: str) -> str:
    """Use an archive as a reader does: describe, list, search, filter."""
    opened = rsir.open(name)
    opened.info()
    records = list(opened.records())
    opened.sources()
    opened.count(Filter(bbox=(-180, -90, 180, 90)))
    vector = np.ones(opened.dimension, np.float32)
    opened.search(vector, 3)
    opened.search(vector, 3, filter=Filter(bbox=(0, 0, 20, 20), where="size >= 0"))
    if "approximate" in opened.store.rankings:
        opened.search(vector, 3, ranking="approximate")
    if records:
        opened.search(records[0].id, 2) if isinstance(records[0].id, str) else None
    return "fine"


def model(name: str) -> str:
    from rsir.models.encoder import Encoder

    encoder = Encoder.load(name)
    encoder.encode([np.zeros((3, 9, 9), np.uint8)])
    return "fine"


def parquet(name: str) -> str:
    dimension = dimension_of(name)
    folder = Path(name).with_suffix(".archive")
    made = rsir.Archive.create(folder, ExternalEncoder("a", "cosine", min(dimension, 4096)))
    import_parquet(made, name)
    list(made.records())
    return "fine"


if __name__ == "__main__":
    main({way.__name__: {"ends": way} for way in (archive, model, parquet)}, sys.stdin)
