"""Train any method into a run's folder; an interrupted run is resumed."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from rsir.atomic import write_json
from rsir.data.splits import Split
from rsir.errors import DataError, UsageError
from rsir.methods import method_type
from rsir.models.adapt import adapt
from rsir.models.encoder import Encoder
from rsir.models.model import CARD, WEIGHTS, build_model, file_sha256
from rsir.training.checkpoints import naming_full_disks
from rsir.training.loop import LAST, fit
from rsir.training.settings import TrainingSettings

log = logging.getLogger("rsir")

CHECKPOINTS = "checkpoints"

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]
"""Shows the progress of a named work; its context's value gets the parts done and in total."""


def train(
    method: str,
    split: Split,
    root: str | Path,
    out: str | Path,
    *,
    backbone: str,
    weights: str | Path,
    options: Mapping[str, Any] | None = None,
    settings: TrainingSettings | None = None,
    on_epoch: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train `method` on the split's training part and save the best epoch; returns `out`.

    split: its "train" part is trained on; its "val" part, if any, chooses the best epoch by
    whole-ranking mAP (leave-one-out); its "test" part is never read. root: folder of the images.
    out: the run's folder: model.safetensors, model.json, split.csv, log.csv (a row per epoch),
    run.json, and, until the run is complete, checkpoints/. An interrupted run of the same
    configuration resumes after its last whole epoch; a complete run stays unchanged; for a run of
    another configuration, UsageError names the differences.
    on_epoch: called with a line of text after each epoch. progress: shows how far the work has
    come, in batches, then in images.

    On a CPU the same arguments give the same weights, with any number of `workers` and, up to
    floating-point rounding, after an interruption.

    Raises DataError if files of the split are missing or changed, or if there are too few images;
    UsageError for wrong options, and for several labels per image if the method learns one class;
    ModelError if the loss is not finite, or if the embeddings cannot be ranked.
    """
    settings = settings or TrainingSettings()
    out = Path(out)
    on_epoch, progress = on_epoch or log.info, progress or _unseen
    split.verify(root, "train", "val")
    train_set, val_set = split.labelled(root, "train"), split.labelled(root, "val")
    if len(train_set) == 0:
        raise DataError("the split has no training images")
    if train_set.multi_label and not method_type(method).multi_label:
        raise UsageError(f"{method} learns one class per image; this set has several labels")
    config = {
        "method": method,
        "backbone": backbone,
        "weights": _named(weights),
        "options": dict(options or {}),
        "settings": dataclasses.asdict(settings),
        "data": Path(root).name,
        "split_hash": split.hash,
    }
    if _is_complete(out, config):
        on_epoch(f"{out} already holds this run, complete")
        return out

    torch.manual_seed(settings.seed)
    model = build_model(
        method,
        backbone=backbone,
        spec=settings.image_size,
        classes=train_set.classes,
        options=options,
        weights=weights,
    )
    chosen: dict[str, Any] = {"chosen": "the starting weights", "seconds": 0.0}
    if settings.epochs:
        with progress("training (batches)") as on_progress:
            chosen = fit(
                model,
                train_set,
                val_set,
                settings,
                out / CHECKPOINTS,
                out / "log.csv",
                start=lambda: _write_run(out, split, config, complete=False),
                say=on_epoch,
                on_progress=on_progress,
            )
    if model.module.learner() is not None:
        with progress("fitting (images)") as on_progress:
            adapted = adapt(Encoder(model), train_set.files, on_progress=on_progress)
        chosen |= {"adapted_to": adapted.to_dict()}
    trained = dataclasses.replace(
        model,
        training={
            **config,
            "train_images": len(train_set),
            "val_images": len(val_set),
            **chosen,
            "torch": torch.__version__,
        },
    )
    with naming_full_disks(out):
        trained.save(out)
        _write_run(out, split, config, complete=True)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return out


@contextmanager
def _unseen(_: str) -> Iterator[None]:
    """Shows no progress."""
    yield None


def _write_run(out: Path, split: Split, config: Mapping[str, Any], *, complete: bool) -> None:
    """Mark `out` as the folder of this run: run.json first, then the split."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "run.json", {**config, "complete": complete})
    split.write(out / "split.csv")


def _named(weights: str | Path) -> str:
    """A name of the weights; that of a file contains its hash, so its location does not matter."""
    file = Path(weights)
    if str(weights) in ("none", "pretrained") or not file.is_file():
        return str(weights)
    return f"{file.name} (sha256 {file_sha256(file)[:16]}…)"


def _is_complete(out: Path, config: Mapping[str, Any]) -> bool:
    """Whether `out` holds this run, complete; UsageError if it holds anything else.

    A run of another configuration that has not saved an epoch yet is replaced.
    """
    file = out / "run.json"
    if not file.exists():
        if out.exists() and (not out.is_dir() or not _is_empty(out)):
            raise UsageError(f"{out} is not empty and holds no run; choose another folder")
        return False
    try:
        earlier = json.loads(file.read_text("utf-8"))
        complete = bool(earlier.pop("complete"))
        # Settings that an older rsir did not have were at their defaults.
        earlier["settings"] = {**dataclasses.asdict(TrainingSettings()), **earlier["settings"]}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{file} is damaged ({error}); choose another folder") from error
    saved = (out / CHECKPOINTS / LAST).exists() or (out / WEIGHTS).exists()
    differing = sorted(_differences(earlier, json.loads(json.dumps(config))))
    if differing and saved:
        raise UsageError(
            f"{out} holds a run of another configuration (it differs in "
            f"{', '.join(differing)}); choose another folder, or delete it"
        )
    return complete and (out / WEIGHTS).exists() and (out / CARD).exists()


def _is_empty(folder: Path) -> bool:
    """Whether the folder holds nothing, or only unfinished files of a killed process."""
    return all(path.name.startswith(".") for path in folder.iterdir())


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    for key in first.keys() | second.keys():
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from (f"{key}.{name}" for name in _differences(a, b))
        elif a != b and key != "workers":
            yield key
