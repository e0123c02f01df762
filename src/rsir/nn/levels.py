"""Feature maps from several depths of a backbone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rsir.errors import UsageError
from rsir.nn.backbone import Backbone


def level_channels(backbone: Backbone, levels: int) -> list[int]:
    """C of each map that `feature_maps` returns.

    Raises UsageError for a backbone without maps of inner stages, or with fewer than `levels`.
    """
    known: Any = getattr(backbone.net, "feature_info", None) or []
    stages = known if isinstance(known, list) else known.info
    if levels > 1 and not callable(getattr(backbone.net, "forward_intermediates", None)):
        raise UsageError(f"backbone {backbone.name!r} gives no maps of inner stages; take another")
    if levels > max(1, len(stages)):
        raise UsageError(f"backbone {backbone.name!r} has {len(stages)} stages, not {levels}")
    return [int(s["num_chs"]) for s in stages[len(stages) - levels : -1]] + [backbone.channels]


def feature_maps(backbone: Backbone, images: Tensor, levels: int) -> list[Tensor]:
    """The maps (B, C_l, h_l, w_l) of the last `levels` stages, the deepest last.

    timm defines the stages: they end where the size halves; in a plain transformer each block is
    a stage. The deepest map is the backbone's output, after the head convolution or norm that
    follows the last stage.
    """
    if levels == 1:
        return [backbone(images)]
    final, maps = backbone.net.forward_intermediates(images, indices=levels)
    return [*maps[:-1], backbone.to_map(final)]
