"""Short training runs, and what they wrote."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rsir.data.splits import Split
from rsir.training.settings import TrainingSettings
from rsir.training.train import train

SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 9,
    "per_class": 3,
    "image_size": 32,
    "workers": 0,
    "lr": 1e-3,
}


def run(out: Path, split: Split, root: Path, method: str = "pooled", **changes: Any) -> Path:
    return train(
        method,
        split,
        root,
        out,
        backbone="resnet10t",
        weights="none",
        settings=TrainingSettings(**{**SETTINGS, **changes}),
    )


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_weights(first_run: Path, second_run: Path) -> None:
    first, second = (load_file(run / "model.safetensors") for run in (first_run, second_run))
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-5, atol=1e-6, msg=key)


def val_paths(split: Split) -> list[str]:
    return [split.rows[i].path for i in split.part("val")]
