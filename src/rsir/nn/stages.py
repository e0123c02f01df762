"""A timm backbone cut before its last stage: shared early stages, several copies of the last stage.

Paper B's submodules are such copies.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rsir.errors import UsageError
from rsir.nn.backbone import Backbone


class ReplicatedStages(nn.Module):
    """The shared stages of `backbone`, and `copies` of its last stage with weights of their own.

    The cut is after timm's second-deepest feature map (a ResNet's stage 3 of 4); everything that
    runs after it, including a final convolution, is the last stage. All copies start with the
    backbone's weights. `backbone` must not be used afterwards.

    Raises UsageError for a backbone without stages: if timm gives no two feature maps of different
    size (a plain vision transformer), if it is not a chain of stages, or if the last stage has no
    weights (a VGG, which ends in a pooling).
    """

    channels: int
    """C of a copy's feature map."""
    shared_channels: int
    """C of the shared stages' feature map."""

    def __init__(self, backbone: Backbone, *, copies: int) -> None:
        super().__init__()
        self._to_map = backbone.to_map  # a method: the net itself is not registered twice
        side = backbone.image_size
        probe = torch.rand(1, backbone.bands, side, side)
        refused = UsageError(
            f"backbone {backbone.name!r} cannot be cut before its last stage: it is no chain of "
            "stages with weights; take another, such as a ResNet"
        )
        was_training = backbone.net.training
        before, after, idle = _units(backbone, probe)
        if not any(list(backbone.net.get_submodule(name).parameters()) for name in after):
            raise refused
        with torch.no_grad():
            wanted = backbone.net.eval().forward_features(probe)
            last = copy.deepcopy(backbone.net)
            for name in (*before, *idle):
                last.set_submodule(name, nn.Identity())
            self.shared = backbone.net
            for name in (*after, *idle):
                self.shared.set_submodule(name, nn.Identity())
            try:
                middle = self.shared.forward_features(probe)
                found = last.forward_features(middle)
            except (RuntimeError, TypeError, ValueError) as error:
                raise refused from error
            # On the device "meta", which has shapes alone, values cannot be compared.
            is_same = found.shape == wanted.shape and (
                found.is_meta or torch.allclose(found, wanted, 1e-4, 1e-5)
            )
            if not is_same:
                raise refused
        self.shared.train(was_training)
        last.train(was_training)
        self.copies = nn.ModuleList(copy.deepcopy(last) for _ in range(copies))
        self.channels = backbone.channels
        self.shared_channels = int(self._to_map(middle).shape[1])

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, bands, H, W) → the shared map (B, C', h', w') and each copy's map (B, C, h, w)."""
        shared = self.shared.forward_features(images)
        copies: Any = self.copies
        maps = [self._to_map(last.forward_features(shared)) for last in copies]
        return self._to_map(shared), maps


def _units(backbone: Backbone, probe: Tensor) -> tuple[list[str], list[str], list[str]]:
    """The names of the modules of the shared stages, of the last stage, and of unused modules.

    A unit is a child of the net, or a child of a container that the cut divides.
    """
    net = backbone.net
    info: Any = getattr(net, "feature_info", None) or []
    levels = info if isinstance(info, list) else info.info
    if len(levels) < 2 or levels[-1]["reduction"] == levels[0]["reduction"]:
        raise UsageError(
            f"backbone {backbone.name!r} has no stages; take another, such as a ResNet"
        )
    cut = levels[-2]["module"]
    names: list[str] = []
    parent, prefix = net, ""
    for part in cut.split("."):
        names += [f"{prefix}{name}" for name, _ in parent.named_children() if name != part]
        parent, prefix = parent.get_submodule(part), f"{prefix}{part}."
    names.append(cut)
    ran: list[str] = []
    hooks = [
        net.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, _output, name=name: ran.append(name)
        )
        for name in names
    ]
    try:
        with torch.no_grad():
            net.eval().forward_features(probe)
    finally:
        for hook in hooks:
            hook.remove()
    if cut not in ran:
        raise UsageError(f"backbone {backbone.name!r} cannot be cut before its last stage")
    end = ran.index(cut) + 1
    idle = [name for name in names if name not in ran]
    return ran[:end], list(dict.fromkeys(ran[end:])), idle
