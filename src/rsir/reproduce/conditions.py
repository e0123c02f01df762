"""Conditions: what all rows of a table share when they are trained and measured."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsir.errors import DataError, UsageError

QUICK_CLASSES, QUICK_IMAGES = 4, 12
"""Classes of a quick version, and images of each class. Our choice: the smallest numbers that every
sampler and every measure accepts."""

GIVEN_BY = {
    "backbone": "give it with --backbone",
    "weights": "give them with --weights",
    "image_size": "give it with --size",
    "epochs": "give them with --epochs",
    "seed": "give them with --seeds",
    "ranking": "the table or the method sets the ranking; see `rsir evaluate --ranking`",
}
"""Names that are not settings of the trainer, and how to give them instead."""


@dataclass(frozen=True)
class Start:
    """A training that comes first: every row starts from the weights of its last epoch.

    method: name of the method. settings: options and settings that differ from the conditions.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditions:
    """What all rows of a table share. A row differs from it only in what its table compares.

    backbone, weights: as for `rsir train`; backbone None takes the table's backbone, or "resnet50"
    (our choice) if the table names none. batch_size: None keeps the default of each method.
    validation: share of the training images that selects the best epoch. 0 keeps the last epoch; it
    is our choice, because the papers name no validation part. settings: further settings that all
    rows share, by the trainer's names. start: a training before that of each row, with the same
    split and seed.

    Raises UsageError for a setting that belongs to another field or option.
    """

    backbone: str | None = None
    weights: str | Path = "pretrained"
    image_size: int = 224
    epochs: int = 30
    batch_size: int | None = None
    precision: str = "auto"
    validation: float = 0.0
    workers: int = 2
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: Start | None = None

    def __post_init__(self) -> None:
        own = {f.name: f"it is the field {f.name}" for f in dataclasses.fields(self)}
        for name in self.settings:
            if where := (own | GIVEN_BY).get(name):
                raise UsageError(f"{name} is not a further setting that rows can share: {where}")

    def values(self) -> dict[str, Any]:
        """All values by name, with `settings` among them and without `start`."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del own["settings"], own["start"]
        if self.batch_size is None:
            del own["batch_size"]
        return {**own, "weights": str(self.weights), **self.settings}


QUICK_CONDITIONS = Conditions(
    "test_resnet", "none", 32, epochs=1, batch_size=16, precision="32", workers=0
)
"""Conditions of a quick version: timm's tiny network for tests, with random weights."""


def read_conditions(file: str | Path) -> tuple[dict[str, Any], tuple[int, ...] | None]:
    """The fields of `Conditions` in a TOML file, and its seeds, or None if it names none.

    The file holds fields by name, the list `seeds`, and the tables [settings] and [start]. Raises
    DataError if the file cannot be read or contains anything else.
    """
    file = Path(file)
    try:
        values = tomllib.loads(file.read_text("utf-8"))
        seeds = values.pop("seeds", None)
        if "start" in values:
            values["start"] = Start(**values["start"])
        Conditions(**values)
        return values, None if seeds is None else tuple(map(int, seeds))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (TypeError, ValueError) as error:  # including errors of the TOML parser
        raise DataError(f"{file}: not a file of conditions ({error})") from error
