"""Heat maps: the parts of an image that determine its embedding, or its similarity to another.

captum's LayerGradCam (0.9) gives the same for one map, but handles one layer per pass, so EARA
would need one pass per submodule; and it records gradients of the whole network, although only
those from the last maps on are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from rsir.errors import DataError, UsageError
from rsir.models.encoder import Encoder


def explain(
    encoder: Encoder, images: Tensor, *, targets: ArrayLike | Tensor | None = None
) -> NDArray[np.float32]:
    """Heat maps (B, H, W) in [0, 1]: where the similarity of each image to its target comes from.

    images: (B, bands, H, W) uint8 from `InputSpec.prepare`, as `Encoder.encode_batch` takes them.
    targets: (B, D) embeddings, for example of a query, to explain a hit; codes as −1 and 1. None:
    the image's own embedding.

    Each map has maximum 1, or is all zero if no part supports the similarity. Maps are in the
    coordinates of `images`, even if the network sees them through a window (JSRT); outside the
    window they are 0.

    Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via
    gradient-based localization", ICCV): ReLU(Σ_k α_k A_k), A the C channels of the last maps before
    pooling (`Method.pools`), after the method's attention; α_k the mean over positions of ∂y/∂A_k.
    Several maps (EARA's submodules) count as one map with all their channels.

    y = ⟨embedding, target⟩, of relaxed codes for a hashing model; for "ncc" the target is centred.
    L2 norms are constants in the gradient: our choice. The cosine of an embedding with itself is
    at its maximum, so its gradient would be 0; and with constant norms the map of mean pooling is
    the exact share of each position in the cosine (Stylianou et al. 2019, "Visualizing deep
    similarity networks", WACV).

    The model's mode, gradients and hooks stay unchanged.

    Raises UsageError for targets of a wrong shape and for a method without `pools`; DataError if
    the model gives non-finite values.
    """
    module = encoder.module
    if not module.pools:
        raise UsageError(
            f"{encoder.model.method} cannot be explained: it has no module named `pool`; give this "
            "name to the module that reads the last feature map, or override Method.pools"
        )
    wanted = None if targets is None else _as_tensor(targets, (len(images), encoder.dimension))
    if not len(images):
        return np.zeros((0, *images.shape[2:]), np.float32)
    # The caller may be in inference mode, whose tensors have no gradients.
    with torch.inference_mode(False), torch.no_grad():
        batch = encoder.model.spec.normalise(images.to(encoder.device))
        with _gradients_from(module.pools) as maps, _ConstantNorms():
            embedding = module(batch).embedding.float()
            towards = embedding.detach() if wanted is None else wanted.to(embedding)
            if encoder.ranking == "ncc":
                towards = towards - towards.mean(dim=1, keepdim=True)
            # Normalised, because a long target could overflow; its length does not change the map.
            similarity = (embedding * functional.normalize(towards, dim=1)).sum()
            gradients = torch.autograd.grad(similarity, maps)
        heat = grad_cam([m.detach() for m in maps], gradients)
        if not (torch.isfinite(similarity) and torch.isfinite(heat).all()):
            raise DataError("the model gives values that are not finite, which have no heat map")
        heat = _resized(heat, images.shape[2:])
        window = module.window(batch)
        if window is not None:
            heat = through_window(heat, window)
        peaks = heat.amax(dim=(2, 3), keepdim=True)
        heat = heat / torch.where(peaks > 0, peaks, 1)
    values: NDArray[np.float32] = heat[:, 0].cpu().numpy()
    return values


def grad_cam(maps: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """ReLU(Σ_k α_k A_k), (B, 1, h, w) float32, not normalised (Selvaraju et al., eqs 1 and 2).

    maps, gradients: A and ∂y/∂A, (B, C_l, h_l, w_l) each; smaller maps are resized to the largest
    size before the sum.
    """
    size = max((m.shape[2:] for m in maps), key=lambda s: s.numel())
    total = torch.zeros(len(maps[0]), 1, *size, device=maps[0].device)
    for a, gradient in zip(maps, gradients, strict=True):
        alpha = gradient.float().mean(dim=(2, 3), keepdim=True)
        total = total + _resized((alpha * a.float()).sum(dim=1, keepdim=True), size)
    return functional.relu(total)


def through_window(heat: Tensor, window: Tensor) -> Tensor:
    """Map the heat of an affine window back to the coordinates of the image.

    heat (B, 1, H, W), not negative, in the window; window (B, 6) as in
    `rsir.nn.warp.spatial_transform` → (B, 1, H, W) in the image; 0 outside the window. Heat of
    mirrored pixels beyond an edge is folded back (up to one image width beyond the edge); a pixel
    seen twice gets the larger heat.
    """
    matrix = window.float().view(-1, 2, 3)
    back = torch.linalg.pinv(matrix[:, :, :2])  # also for a degenerate window without an inverse
    shift = back @ matrix[:, :, 2:]
    # A canvas of 3 × 3 images: coordinates -3 to 3, the image itself is -1 to 1.
    height, width = heat.shape[2:]
    grid = functional.affine_grid(
        torch.cat([3 * back, -shift], dim=2),
        [len(heat), 1, 3 * height, 3 * width],
        align_corners=False,
    )
    wide = functional.grid_sample(heat, grid, align_corners=False)
    return _folded(_folded(wide, 2), 3)


def _folded(wide: Tensor, dim: int) -> Tensor:
    before, image, after = wide.chunk(3, dim)
    return torch.stack([before.flip(dim), image, after.flip(dim)]).amax(dim=0)


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(maps, size=list(size), mode="bilinear", align_corners=False)


def _as_tensor(targets: ArrayLike | Tensor, shape: tuple[int, int]) -> Tensor:
    tensor = torch.as_tensor(targets).detach().clone()
    if tensor.shape != shape:
        raise UsageError(
            f"targets must be {shape[0]} × {shape[1]}, an embedding for each image, "
            f"not {' × '.join(map(str, tensor.shape))}"
        )
    return tensor


@contextmanager
def _gradients_from(pools: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The maps that enter `pools` in the block; gradients are recorded from the first map on."""
    maps: list[Tensor] = []

    def begin(_pool: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        torch.set_grad_enabled(True)
        maps.append(inputs[0].detach().requires_grad_())
        return (maps[-1], *inputs[1:])

    hooks = [pool.register_forward_pre_hook(begin) for pool in pools]
    try:
        with torch.no_grad():  # also restores the mode that `begin` changes
            yield maps
    finally:
        for hook in hooks:
            hook.remove()


class _ConstantNorms(TorchFunctionMode):
    """A mode in which `functional.normalize` treats the norm as a constant in the gradient."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        call = _over_constant_norm if func is functional.normalize else func
        return call(*args, **(kwargs or {}))


def _over_constant_norm(
    x: Tensor, p: float, dim: int, eps: float, out: Tensor | None = None
) -> Tensor:
    """`normalize` with a constant norm; a torch mode passes every argument of `normalize`."""
    norm: Tensor = torch.linalg.vector_norm(x.detach(), p, dim, keepdim=True)
    return torch.div(x, norm.clamp_min(eps), out=out)
