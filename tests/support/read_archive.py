"""Open archives, models and Parquet files, each in a process of its own; see `read_hostile`.

python -m tests.support.read_archive < LINES; a line is KIND, a tab and a path. Prints a line of
JSON for each: "fine", or the name and the text of the error; seconds; the growth of memory in MB.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Imported here, so that the children need not: they share the memory, and start at once.
import faiss  # noqa: F401
import lancedb  # noqa: F401
import numpy as np
import pyproj  # noqa: F401
import shapely  # noqa: F401
import timm  # noqa: F401
import torch

import rsir.methods.pooled
import rsir.store.lance.store  # noqa: F401
from rsir.archive import Archive
from rsir.archive.exchange.imports import dimension_of, import_parquet
from rsir.archive.folder.external import ExternalEncoder
from rsir.archive.search.query import ById
from rsir.models.encoder import Encoder
from rsir.store.filters.filter import Filter
from tests.support.read_hostile import main


def archive(name: str) -> str:
    """Use an archive as a reader does: describe, list, search, filter."""
    opened = Archive.open(Path(name))
    opened.info()
    records = list(opened.records())
    opened.sources()
    opened.count(Filter(bbox=(-180, -90, 180, 90)))
    vector = np.ones(opened.dimension, np.float32)
    opened.search(vector, 3)
    opened.search(vector, 3, filter=Filter(bbox=(0, 0, 20, 20), where="size >= 0"))
    if records:
        opened.search(vector, 3, ranking="approximate")
        opened.search(ById(records[0].id), 2)
    return "fine"


def model(name: str) -> str:
    encoder = Encoder.load(name)
    encoder.encode([np.zeros((3, 9, 9), np.uint8)])
    return "fine"


def parquet(name: str) -> str:
    dimension = dimension_of(name)
    folder = Path(name).with_suffix(".archive")
    made = Archive.create(folder, ExternalEncoder("a", "cosine", min(dimension, 4096)))
    import_parquet(made, name)
    list(made.records())
    return "fine"


torch.set_num_threads(1)

if __name__ == "__main__":
    main({way.__name__: {"ends": way} for way in (archive, model, parquet)}, sys.stdin)
