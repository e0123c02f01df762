"""The settings of the trainer, and their combination with the settings of a method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rsir.errors import UsageError
from rsir.methods.options import check_types, defaults_of

if TYPE_CHECKING:
    from rsir.methods.base import Method

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("cosine", "step", "constant")
SAMPLERS = ("pk", "pairs", "shuffle")
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}
"""Name in the shell → Lightning's name."""


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of a training. Defaults: our choice, found on UCM; methods override them.

    epochs: 0 keeps the starting weights (the untrained baseline).
    batch_size, per_class: batches of P·K images, K = per_class of each class ("pk" sampler).
    sampler: "pk", "pairs" (half of the pairs similar) or "shuffle".
    optimizer: "adamw", "adam" or "sgd" (with `momentum`). weight_decay: of all weights except
    biases and norms.
    lr, head_lr: learning rate of the backbone, and of the method's own layers, which start from
    random weights and therefore learn faster. warmup_epochs: both rise linearly from 0.
    schedule: "cosine" to 0, "step" (×0.1 at one half and at three quarters), or "constant".
    min_area, flips, quarter_turns, jitter: the random views, `rsir.data.transforms.Augmentation`.
    image_size: H = W in pixels. precision: "32", "bf16", "16", or "auto" (bf16 on a GPU that
    supports it, else 32). validation: share of the training part that chooses the best epoch; 0
    keeps the last epoch. patience: stop after so many epochs without improvement; 0: never.
    seed: of the initial weights, the order of the images and their random views.
    workers: processes that read images.
    gsd: ground sampling distance of the images in metres per pixel, for tiling scenes
    (`rsir index --gsd model`); it does not affect the training. 0: unknown.
    """

    epochs: int = 20
    batch_size: int = 80
    per_class: int = 4
    sampler: str = "pk"
    optimizer: str = "adamw"
    lr: float = 3e-4
    head_lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    min_area: float = 0.5
    flips: bool = True
    quarter_turns: bool = True
    jitter: float = 0.0
    image_size: int = 224
    precision: str = "auto"
    validation: float = 0.1
    patience: int = 0
    seed: int = 0
    workers: int = 2
    gsd: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("sampler", SAMPLERS),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", ("auto", *PRECISIONS)),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name}={getattr(self, name)!r}: take one of {', '.join(allowed)}"
                )
        least = {"epochs": 0, "batch_size": 2, "per_class": 1, "image_size": 8, "patience": 0}
        least |= {"workers": 0, "lr": 0, "head_lr": 0, "weight_decay": 0, "warmup_epochs": 0}
        least |= {"momentum": 0, "gsd": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise UsageError(f"{name} must be at least {value}, not {getattr(self, name)}")
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{name} must be a finite number, not {value}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be in 0 … {2**32 - 1}, not {self.seed}")
        if not 0 <= self.validation < 1:
            raise UsageError(f"validation must be in [0, 1), not {self.validation}")
        if self.patience and not self.validation:
            raise UsageError("patience needs a validation share: set validation above 0")


def resolve_settings(
    kind: type[Method], values: Mapping[str, Any]
) -> tuple[dict[str, Any], TrainingSettings]:
    """Divide named values into the method's options and the TrainingSettings.

    `values` override the method's own settings (`Method.settings`), which override the trainer's
    defaults. Raises UsageError for an unknown name, and for a value of another type.
    """
    options, settings = defaults_of(kind.options_type), defaults_of(TrainingSettings)
    every = {**settings, **options}
    unknown = sorted(values.keys() - every.keys())
    if unknown:
        raise UsageError(
            f"there is no {', '.join(unknown)}; the method has: {', '.join(options)}; "
            f"the trainer has: {', '.join(settings)}"
        )
    # The shell parses the 16 of precision=16 as a number.
    values = {
        name: str(value) if type(value) is int and type(every[name]) is str else value
        for name, value in values.items()
    }
    check_types(every, values)
    return (
        {name: value for name, value in values.items() if name in options},
        TrainingSettings(**{**kind.settings, **{k: v for k, v in values.items() if k in settings}}),
    )
