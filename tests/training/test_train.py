"""A complete training: its results and its errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import rsir
from rsir.data import folder, splits
from rsir.data.splits import Split
from rsir.errors import DataError, ModelError, UsageError
from rsir.evaluation.evaluate import evaluate
from rsir.losses.contrastive import contrastive
from rsir.training.settings import TrainingSettings
from rsir.training.train import train
from tests.support.runs import SETTINGS, rows, run, val_paths


def test_training_learns(trained: Path, split: Split, images: Path, tmp_path: Path) -> None:
    untrained = run(tmp_path / "untrained", split, images, epochs=0)
    test = split.labelled(images, "test")
    targets = torch.from_numpy(test.targets)
    before, after = (
        contrastive(
            torch.from_numpy(rsir.load(path, device="cpu").encode(test.files).embedding),
            targets,
            margin=0.9,
        )
        for path in (untrained, trained)
    )
    assert after < before
    losses = [float(row["train_loss"]) for row in rows(trained)]
    assert losses[-1] < losses[0]


def test_a_run_writes_split_model_and_log(trained: Path, split: Split) -> None:
    assert splits.read(trained / "split.csv").hash == split.hash
    card = json.loads((trained / "model.json").read_text())
    assert card["training"]["split_hash"] == split.hash
    assert card["training"]["settings"]["seed"] == 0
    assert [row["epoch"] for row in rows(trained)] == ["1", "2", "3", "4"]


def test_a_model_records_the_ground_sampling_distance(
    trained: Path, split: Split, images: Path, tmp_path: Path
) -> None:
    assert rsir.load(trained, device="cpu").gsd is None
    known = run(tmp_path / "known", split, images, epochs=0, gsd=0.3)
    assert rsir.load(known, device="cpu").gsd == 0.3


def test_the_best_epoch_is_chosen(trained: Path, split: Split, images: Path) -> None:
    training = json.loads((trained / "model.json").read_text())["training"]
    logged = [float(row["val_map"]) for row in rows(trained)]
    assert len(set(logged)) > 1
    assert training["val_map"] == pytest.approx(max(logged), abs=1e-6)
    assert training["chosen_epoch"] == 1 + logged.index(max(logged))
    # The saved weights give the same value in an evaluation.
    report = evaluate(rsir.load(trained, device="cpu"), split.labelled(images, "val"))
    assert report.metrics["map"] == pytest.approx(max(logged), abs=1e-3)


def test_early_stop_ends_before_the_last_epoch(split: Split, images: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "run", split, images, epochs=60, patience=2, lr=1e-6, head_lr=0.0)
    logged = [float(row["val_map"]) for row in rows(out)]
    assert 3 <= len(logged) < 60
    assert max(logged[-2:]) <= max(logged[:-2])
    with pytest.raises(UsageError, match="patience needs"):
        run(tmp_path / "none", split.without(val_paths(split)), images, patience=2)


def test_single_validation_images_choose_no_epoch(
    split: Split, images: Path, tmp_path: Path
) -> None:
    """With one validation image per class, no epoch is better than another."""
    first = {row.labels: row.path for row in split.rows if row.part == "val"}
    lone = split.without(set(val_paths(split)) - set(first.values()))
    lines: list[str] = []
    out = train(
        "pooled",
        lone,
        images,
        tmp_path / "run",
        backbone="resnet10t",
        weights="none",
        settings=TrainingSettings(**{**SETTINGS, "epochs": 1}),
        on_epoch=lines.append,
    )
    assert "the last epoch is kept" in lines[0]
    assert json.loads((out / "model.json").read_text())["training"]["chosen"] == "the last epoch"


def test_a_loss_that_is_not_finite_is_an_error(no_val: Split, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not finite in epoch"):
        run(tmp_path / "run", no_val, images, optimizer="sgd", lr=1e30, head_lr=1e30)


@pytest.mark.parametrize("rate", [1e12, 1e30])
def test_a_diverged_run_is_an_error_before_validation(
    rate: float, split: Split, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"not finite.*lower lr"):
        run(tmp_path / "run", split, images, optimizer="sgd", lr=rate, head_lr=rate)


def test_weights_that_diverge_in_the_last_step_are_an_error(
    split: Split, images: Path, tmp_path: Path
) -> None:
    """One step per epoch: its loss is finite, the weights after it are not."""
    changes = {"batch_size": 64, "sampler": "shuffle", "warmup_epochs": 0.0, "epochs": 1}
    with pytest.raises(ModelError, match=r"\(epoch 1\); lower lr"):
        run(tmp_path / "run", split, images, optimizer="sgd", lr=1e38, **changes)


def test_refused_settings_leave_no_folder(split: Split, images: Path, tmp_path: Path) -> None:
    for wrong in ({"per_class": 2}, {"min_area": 2.0}):
        with pytest.raises(UsageError):
            run(tmp_path / "run", split, images, **wrong)
    assert not (tmp_path / "run").exists()
    run(tmp_path / "run", split, images, epochs=1)


def test_changed_images_are_refused(split: Split, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    changed = next(row.path for row in split.rows if row.part == "train")
    shutil.copy(images / val_paths(split)[0], tmp_path / "images" / changed)
    with pytest.raises(DataError, match=changed):
        run(tmp_path / "run", split, tmp_path / "images")


def test_the_test_part_is_never_read(split: Split, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    for row in split.rows:
        if row.part == "test":
            (tmp_path / "images" / row.path).write_bytes(b"unreadable")
    run(tmp_path / "run", split, tmp_path / "images", epochs=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "pairs", "batch_size": 8, "optimizer": "sgd", "schedule": "step"},
        {"sampler": "shuffle", "optimizer": "adam", "schedule": "constant", "warmup_epochs": 0.0},
        {"precision": "bf16", "validation": 0.0},
    ],
)
def test_other_settings_train(
    changes: dict[str, Any], split: Split, images: Path, tmp_path: Path
) -> None:
    out = run(tmp_path / "run", split, images, "dual-attention", epochs=1, **changes)
    assert rsir.load(out, device="cpu").model.method == "dual-attention"


def test_without_validation_the_last_epoch_is_kept(
    no_val: Split, images: Path, tmp_path: Path
) -> None:
    out = run(tmp_path / "run", no_val, images, epochs=2, validation=0.0)
    assert json.loads((out / "model.json").read_text())["training"]["chosen"] == "the last epoch"
    assert [row["val_map"] for row in rows(out)] == ["", ""]


def test_a_split_without_training_images_is_an_error(images: Path, tmp_path: Path) -> None:
    only_test = splits.make(folder.load(images), train=0.0, seed=0)
    with pytest.raises(DataError, match="no training images"):
        run(tmp_path / "run", only_test, images)


@pytest.mark.parametrize("sampler", ["shuffle", "pairs", "pk"])
def test_one_image_is_too_few(sampler: str, no_val: Split, images: Path, tmp_path: Path) -> None:
    lone = no_val.without({no_val.rows[i].path for i in no_val.part("train")[1:]})
    with pytest.raises(DataError, match="training needs at least 2 images"):
        run(tmp_path / "run", lone, images, sampler=sampler)
    assert not (tmp_path / "run").exists()
