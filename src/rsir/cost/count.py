"""Count the parameters and multiply-adds of encoding an image, the same way for every method."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from rsir.methods.base import Method
from rsir.models.model import Model

TAPS = 4
"""Multiply-adds of bilinear sampling per value: four neighbours times their weights."""

NEEDS_CLASSES = ("adaptive-hamming",)
"""Rankings that also compare class probabilities, so that search uses the classifier."""


@dataclass(frozen=True)
class Cost:
    """The cost of encoding one image.

    parameters: number of parameters that the embedding depends on, learnt, fitted or fixed; for a
    ranking that compares class probabilities, also those of the classifier. Not counted:
    parameters that only training uses (a classifier, proxies of a loss), and the running statistics
    of batch normalisation.
    multiply_adds: of one forward pass: convolutions, matrix products, attention, and bilinear
    sampling with 4 per value; a multiplication with an addition is 1, not 2. As usual, elementwise
    operations are not counted: biases, activations, normalisation, gains, pooling, resizing,
    softmax. A classifier in forward() counts 1 per weight, although search may not need it.
    image_size: (height, width) in pixels.
    """

    parameters: int
    multiply_adds: int
    image_size: tuple[int, int]


def cost(model: Model) -> Cost:
    """The Cost of one image with the model's bands and input size.

    A method that learns from a gallery is counted in its adapted state.
    """
    module = ready(model).requires_grad_()
    image = _image(model)
    with FlopCounterMode(display=False, custom_mapping=_SAMPLING) as counter:
        output = module(image)
    compared = output.embedding.sum()
    if module.ranking in NEEDS_CLASSES and output.logits is not None:
        compared = compared + output.logits.sum()
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(compared, parameters, allow_unused=True)
    # None, not 0, means that the compared vectors do not depend on that parameter.
    used = [p for p, g in zip(parameters, gradients, strict=True) if g is not None]
    size = (model.spec.size, model.spec.size)
    return Cost(sum(p.numel() for p in used), counter.get_total_flops() // 2, size)


def ready(model: Model) -> Method:
    """A copy of the model's module in its state during search, for counting and timing only.

    It is in evaluation mode. A method that learns from a gallery is adapted to dummy features: its
    layers and widths are those of an adapted model, its values are meaningless.
    """
    module = copy.deepcopy(model.module).eval()
    learner = module.learner()
    if learner is not None:
        with torch.no_grad():
            width = learner.features(_image(model)).shape[1]
        learner.adapt(torch.eye(2, width))
    return module


def _image(model: Model) -> torch.Tensor:
    """(1, bands, size, size) normalised values; not zeros, where norms may have no gradient."""
    spec = model.spec
    device = next(model.module.parameters()).device
    values = torch.linspace(-1, 1, len(spec.bands) * spec.size**2, device=device)
    return values.view(1, len(spec.bands), spec.size, spec.size)


def _grid_sample(*_: Any, out_shape: tuple[int, ...], **__: Any) -> int:
    return 2 * TAPS * math.prod(out_shape)


def _affine_grid(*_: Any, out_shape: tuple[int, ...], **__: Any) -> int:
    """FLOPs: (x, y, 1) times a row of the affine matrix per coordinate of the grid."""
    return 2 * 3 * math.prod(out_shape)


_SAMPLING: dict[Any, Callable[..., int]] = {
    torch.ops.aten.grid_sampler_2d: _grid_sample,
    torch.ops.aten.affine_grid_generator: _affine_grid,
}
"""FLOPs of the operators that torch's counter does not know."""
