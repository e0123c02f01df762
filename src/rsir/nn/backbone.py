"""Any timm backbone as one thing: images in, a feature map out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rsir.errors import ModelError, UsageError


class Backbone(nn.Module):
    """The last feature map of a timm model: (B, bands, H, W) → (B, C, h, w).

    Convolutional nets give their final map (after a head convolution, where they have one);
    transformers give their patch tokens as a map, class and register tokens left out.

    name: timm's name, with constructor options behind a colon where wanted:
    "resnet50", "mobilenetv2_100:pad_type=same", "vit_small_patch14_dinov2".
    image_size: H = W in pixels; transformers with fixed position embeddings are built for it.
    weights: "none" (random start), "pretrained" (timm's hub) or a local safetensors file with
    timm's parameter names; a classifier in it is ignored.

    Raises UsageError for a name that timm does not know, ModelError for weights that do not fit.
    """

    channels: int
    """C, the channels of the feature map."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Per-band statistics of the images in [0, 1] that the weights were trained with."""

    def __init__(
        self, name: str, *, image_size: int, bands: int = 3, weights: str | Path = "none"
    ) -> None:
        super().__init__()
        architecture, options = parse_name(name)
        self.net: Any
        try:
            self.net = timm.create_model(
                architecture,
                pretrained=weights == "pretrained",
                num_classes=0,
                in_chans=bands,
                **options,
            )
        except TypeError as error:
            raise UsageError(f"backbone {name!r} does not take these options: {error}") from error
        except OSError as error:
            raise ModelError(
                f"timm could not fetch the weights of {architecture!r} ({error}); "
                "without a network, give a safetensors file with --weights"
            ) from error
        config: dict[str, Any] = self.net.pretrained_cfg
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        if weights not in ("none", "pretrained"):
            self._load(Path(weights))
        if hasattr(self.net, "set_input_size"):
            self.net.set_input_size(img_size=(image_size, image_size))
        self.prefix_tokens = int(getattr(self.net, "num_prefix_tokens", 0))
        self.channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        was_training = self.training
        with torch.no_grad():
            probe = torch.zeros(1, bands, image_size, image_size)
            self.channels = self.eval()(probe).shape[1]
        self.train(was_training)
        if len(self.mean) != bands:
            self.mean, self.std = (0.5,) * bands, (0.5,) * bands

    def forward(self, images: Tensor) -> Tensor:
        """Feature map (B, C, h, w) of `images` (B, bands, H, W), normalised by mean and std."""
        features: Tensor = self.net.forward_features(images)
        if features.ndim == 3:
            features = self._tokens_to_map(features)
        elif self.channels_last:
            features = features.permute(0, 3, 1, 2)
        return features

    def _tokens_to_map(self, tokens: Tensor) -> Tensor:
        """(B, prefix + h·w, C) → (B, C, h, w)."""
        height, width = self.net.patch_embed.grid_size
        patches = tokens[:, self.prefix_tokens :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], height, width)

    def _load(self, file: Path) -> None:
        if not file.is_file():
            raise ModelError(f"there is no weights file {file}")
        try:
            with safe_open(file, "pt") as opened:
                state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
                metadata = opened.metadata() or {}
        except SafetensorError as error:
            raise ModelError(f"{file} is not a safetensors file: {error}") from error
        own = self.net.state_dict()
        # How many batches a batch norm has seen is a counter that many files leave out.
        state |= {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
        missing = sorted(own.keys() - state.keys())
        wrong = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
        if missing or wrong:
            raise ModelError(
                f"{file} does not fit this backbone: "
                + "; ".join(
                    f"{len(keys)} {what} parameters, e.g. {keys[0]}"
                    for what, keys in (("missing", missing), ("differently shaped", wrong))
                    if keys
                )
            )
        self.net.load_state_dict({key: state[key] for key in own})
        if "mean" in metadata and "std" in metadata:
            self.mean = tuple(float(v) for v in metadata["mean"].split(","))
            self.std = tuple(float(v) for v in metadata["std"].split(","))


def parse_name(name: str) -> tuple[str, dict[str, Any]]:
    """("mobilenetv2_100", {"pad_type": "same"}) from "mobilenetv2_100:pad_type=same".

    Values are numbers, true / false, or text. Raises UsageError for a name that timm does not
    know (with near names) or an option without a value.
    """
    architecture, _, rest = name.partition(":")
    if not timm.is_model(architecture):
        near = timm.list_models(f"*{architecture}*")[:5]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise UsageError(f"timm has no backbone {architecture!r}{hint}")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise UsageError(f"backbone option {part!r} is not of the form key=value")
        options[key] = _value(value)
    return architecture, options


def _value(text: str) -> bool | int | float | str:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
