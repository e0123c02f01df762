"""Any timm backbone with one interface: images in, a feature map out."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rsir.errors import ModelError, UsageError
from rsir.nn.hub import hub_or_cache

REFUSED_OPTIONS = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "exportable",
        "features_only",
        "in_chans",
        "no_jit",
        "num_classes",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "scriptable",
    }
)
"""Arguments of `timm.create_model` that a backbone's name must not set: those that read files (timm
unpickles the file at `checkpoint_path`, and a name can come with a foreign model), those that this
module sets, and those that change the kind of net."""

_TIMM_REFUSES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""The errors that timm raises for incompatible options, tags and image sizes."""


IN_A_RUN = ("backbone.net.", "backbone.shared.", "backbone.copies.0.")
"""Prefixes of the backbone's parameters in a trained model's file; of a replicated last stage
(`rsir.nn.stages`) the first copy counts."""


class Backbone(nn.Module):
    """The last feature map of a timm model: (B, bands, H, W) → (B, C, h, w).

    A convolutional net gives its final map (after a head convolution, if it has one); a transformer
    gives its patch tokens as a map, without class and register tokens.

    name: timm's name, optionally with constructor options after a colon:
    "resnet50", "mobilenetv2_100:pad_type=same", "vit_small_patch14_dinov2".
    image_size: H = W in pixels; transformers with fixed position embeddings are built for it.
    weights: "none" (random), "pretrained" (timm's hub) or a local safetensors file: with timm's
    parameter names (a classifier is ignored), or a run's model.safetensors (only the backbone is
    loaded).

    Raises UsageError for a name that timm does not know, for options or an image size that it
    refuses, and for a net that gives no single map; ModelError for weights that do not fit.
    """

    channels: int
    """C, the channels of the feature map."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Per-band statistics, in [0, 1], of the images that the weights were trained on."""

    def __init__(
        self, name: str, *, image_size: int, bands: int = 3, weights: str | Path = "none"
    ) -> None:
        super().__init__()
        architecture, options = parse_name(name)
        self.name = name
        self.image_size = image_size
        self.bands = bands
        self.net: Any
        fetches = weights == "pretrained"
        silence = ""
        try:
            with hub_or_cache() if fetches else nullcontext("") as silence:
                self.net = timm.create_model(
                    architecture, pretrained=fetches, num_classes=0, in_chans=bands, **options
                )
        except OSError as error:  # before ValueError: some errors of the hub are both
            raise ModelError(
                f"timm could not fetch the weights of {architecture!r}: {silence or error}; give a "
                "safetensors file with --weights, or none"
            ) from error
        except _TIMM_REFUSES as error:
            raise UsageError(f"timm cannot build {name!r}: {_reason(error)}") from error
        config: dict[str, Any] = self.net.pretrained_cfg
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        if weights not in ("none", "pretrained"):
            self._load(Path(weights))
        # VOLO has a class token, but no num_prefix_tokens.
        has_class_token = getattr(self.net, "cls_token", None) is not None
        self.prefix_tokens = int(getattr(self.net, "num_prefix_tokens", has_class_token))
        self.channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        try:
            if hasattr(self.net, "set_input_size"):
                self.net.set_input_size(img_size=(image_size, image_size))
            self.channels = self._probed_channels(bands, image_size)
        except _TIMM_REFUSES as error:
            raise UsageError(
                f"backbone {name!r} does not take {bands} bands of {image_size} × {image_size} "
                f"pixels: {_reason(error)}"
            ) from error
        if len(self.mean) != bands:
            self.mean, self.std = (0.5,) * bands, (0.5,) * bands

    def forward(self, images: Tensor) -> Tensor:
        """Feature map (B, C, h, w) of `images` (B, bands, H, W), normalised by mean and std."""
        return self.to_map(self.net.forward_features(images))

    def to_map(self, features: Any) -> Tensor:
        """(B, C, h, w) from the net's output: a map, a map with channels last, or tokens."""
        if isinstance(features, Tensor) and features.ndim == 3:
            return self._tokens_to_map(features)
        if isinstance(features, Tensor) and features.ndim == 4:
            return features.permute(0, 3, 1, 2) if self.channels_last else features
        kind = f"{features.ndim}-D features" if isinstance(features, Tensor) else "several maps"
        raise UsageError(f"backbone {self.name!r} gives {kind}, not one map; take another")

    def _tokens_to_map(self, tokens: Tensor) -> Tensor:
        """(B, prefix + h·w, C) → (B, C, h, w); h = w if the net does not give its grid."""
        patches = tokens[:, self.prefix_tokens :].transpose(1, 2)
        count = patches.shape[2]
        grid = getattr(getattr(self.net, "patch_embed", None), "grid_size", None)
        height, width = grid or (math.isqrt(count),) * 2
        if not count or height * width != count:
            raise UsageError(
                f"backbone {self.name!r} gives {count} patch tokens, which make no "
                f"{f'{height} × {width}' if grid else 'square'} map; take another"
            )
        return patches.reshape(*patches.shape[:2], height, width)

    def _probed_channels(self, bands: int, image_size: int) -> int:
        was_training = self.training
        with torch.no_grad():
            features = self.eval()(torch.zeros(1, bands, image_size, image_size))
        self.train(was_training)
        return int(features.shape[1])

    def _load(self, file: Path) -> None:
        if not file.is_file():
            raise ModelError(f"there is no weights file {file}")
        try:
            with safe_open(file, "pt") as opened:
                state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
                metadata = opened.metadata() or {}
        except SafetensorError as error:
            raise ModelError(f"{file} is not a safetensors file: {error}") from error
        if any(key.startswith(IN_A_RUN) for key in state):
            state = {
                key.removeprefix(prefix): value
                for prefix in IN_A_RUN
                for key, value in state.items()
                if key.startswith(prefix)
            }
        own = self.net.state_dict()
        # Many files omit the counters of batches that a batch norm has seen.
        state |= {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
        missing = sorted(own.keys() - state.keys())
        wrong = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
        if missing or wrong:
            raise ModelError(
                f"{file} does not fit this backbone: "
                + "; ".join(
                    f"{len(keys)} {problem} parameters, e.g. {keys[0]}"
                    for problem, keys in (("missing", missing), ("differently shaped", wrong))
                    if keys
                )
            )
        self.net.load_state_dict({key: state[key] for key in own})
        if "mean;std" in metadata:  # written by `Model.save`
            metadata = dict(zip(("mean", "std"), metadata["mean;std"].split(";"), strict=True))
        if "mean" in metadata and "std" in metadata:
            self.mean = tuple(float(v) for v in metadata["mean"].split(","))
            self.std = tuple(float(v) for v in metadata["std"].split(","))


def parse_name(name: str) -> tuple[str, dict[str, Any]]:
    """("mobilenetv2_100", {"pad_type": "same"}) from "mobilenetv2_100:pad_type=same".

    Values are numbers, true / false, or text. Raises UsageError for a name that timm does not
    know (suggesting similar names), an option without a value, and one of REFUSED_OPTIONS.
    """
    architecture, _, rest = name.partition(":")
    if not timm.is_model(architecture):
        near = timm.list_models(f"*{architecture}*")[:5]
        hint = f"; similar: {', '.join(near)}" if near else ""
        raise UsageError(f"timm has no backbone {architecture!r}{hint}")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise UsageError(f"backbone option {part!r} is not of the form key=value")
        if key in REFUSED_OPTIONS:
            raise UsageError(
                f"a backbone's name cannot set {key}; weights are given with --weights, the bands "
                "and the classes come from the images"
            )
        options[key] = _value(value)
    return architecture, options


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _value(text: str) -> bool | int | float | str:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
