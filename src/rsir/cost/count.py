"""What it costs to describe an image: parameters and multiply-adds, counted alike for all."""

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
"""Multiply-adds of bilinear sampling for each value: the four neighbours times their weights."""

NEEDS_CLASSES = ("adaptive-hamming",)
"""Rankings that compare class probabilities too, so that a classifier is used in search."""


@dataclass(frozen=True)
class Cost:
    """What describing one image costs.

    parameters: numbers that the embedding depends on, learnt, fitted or fixed; for a ranking that
    needs them, those of the class probabilities too. What only training uses (a classifier,
    proxies of a loss) is not in it, nor are the running statistics of batch normalisation.
    multiply_adds: of one forward pass: convolutions, matrix products, attention, and bilinear
    sampling with 4 for each value; a product with an addition is 1, not 2. As usual, what is done
    value by value is not counted: biases, activations, normalisation, gains, pooling, resizing,
    softmax. A classifier in forward() is, 1 for each weight, although search may not need it.
    image_size: (height, width) in pixels.
    """

    parameters: int
    multiply_adds: int
    image_size: tuple[int, int]


def cost(model: Model) -> Cost:
    """The Cost of one image of the model's own bands and input size.

    A method that learns from a gallery is counted as if it had done so.
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
    # None, not 0: there is no path from that parameter to what search compares.
    used = [p for p, g in zip(parameters, gradients, strict=True) if g is not None]
    size = (model.spec.size, model.spec.size)
    return Cost(sum(p.numel() for p in used), counter.get_total_flops() // 2, size)


def ready(model: Model) -> Method:
    """A copy of the model's module as it is in search, for counting and timing, not for use.

    It is in evaluation mode. What learns from a gallery has done so, but from nothing real: its
    layers and widths are those of a fitted one, its values are not.
    """
    module = copy.deepcopy(model.module).eval()
    learner = module.learner()
    if learner is not None:
        with torch.no_grad():
            width = learner.features(_image(model)).shape[1]
        learner.adapt(torch.eye(2, width))
    return module


def _image(model: Model) -> torch.Tensor:
    """(1, bands, size, size) normalised; not zeros: norms and powers may have no gradient there."""
    spec = model.spec
    device = next(model.module.parameters()).device
    values = torch.linspace(-1, 1, len(spec.bands) * spec.size**2, device=device)
    return values.view(1, len(spec.bands), spec.size, spec.size)


def _sampled(*_: Any, out_shape: tuple[int, ...], **__: Any) -> int:
    return 2 * TAPS * math.prod(out_shape)


def _placed(*_: Any, out_shape: tuple[int, ...], **__: Any) -> int:
    """(x, y, 1) times a row of the affine matrix for each coordinate of the grid."""
    return 2 * 3 * math.prod(out_shape)


_SAMPLING: dict[Any, Callable[..., int]] = {
    torch.ops.aten.grid_sampler_2d: _sampled,
    torch.ops.aten.affine_grid_generator: _placed,
}
"""FLOPs of what torch's counter does not know."""
