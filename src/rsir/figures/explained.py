"""Heat maps of the queries that are shown."""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.data.loading import read_ahead
from rsir.evaluation.evaluate import Details
from rsir.figures.strips import HeatMap, chosen
from rsir.models.encoder import Encoder
from rsir.models.explain import explain


def heat_maps(encoder: Encoder, details: Details) -> dict[int, HeatMap]:
    """What the model looks at in each query of `chosen`, by row; without those that are gone."""
    rows = [choice.row for choice in chosen(details)]
    files = [details.queries.files[row] for row in rows]
    found: dict[int, HeatMap] = {}
    for start, batch in read_ahead(files, encoder.model.spec, encoder.batch_size):
        read = {
            rows[start + i]: image for i, image in enumerate(batch) if isinstance(image, Tensor)
        }
        if read:
            heat = explain(encoder, torch.stack(list(read.values())))
            pixels = (image.numpy() for image in read.values())
            found |= {row: HeatMap(p, h) for row, p, h in zip(read, pixels, heat, strict=True)}
    return found
