"""Heat maps of the queries that the figures show."""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.data.loading import prepared_batches
from rsir.evaluation.evaluate import EvaluationDetails
from rsir.figures.strips import HeatMap, chosen_queries
from rsir.models.encoder import Encoder
from rsir.models.explain import explain


def heat_maps(encoder: Encoder, details: EvaluationDetails) -> dict[int, HeatMap]:
    """{row: heat map} of the queries of `chosen_queries`, without unreadable images."""
    rows = [choice.row for choice in chosen_queries(details)]
    files = [details.queries.files[row] for row in rows]
    found: dict[int, HeatMap] = {}
    for start, batch in prepared_batches(files, encoder.model.spec, encoder.batch_size):
        images = {
            rows[start + i]: image for i, image in enumerate(batch) if isinstance(image, Tensor)
        }
        if images:
            heat = explain(encoder, torch.stack(list(images.values())))
            pixels = (image.numpy() for image in images.values())
            found |= {row: HeatMap(p, h) for row, p, h in zip(images, pixels, heat, strict=True)}
    return found
