from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import rsir
from rsir.data import folder, splits
from rsir.data.splits import Split
from rsir.errors import DataError, ModelError, UsageError
from rsir.evaluation.evaluate import evaluate
from rsir.losses.contrastive import contrastive
from rsir.methods import method_type
from rsir.methods.dual_attention import DualAttention, DualAttentionOptions
from rsir.nn.backbone import Backbone
from rsir.training.loop import BestEpoch, parameter_groups
from rsir.training.settings import TrainingSettings, configure
from rsir.training.train import train

SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 9,
    "per_class": 3,
    "image_size": 32,
    "workers": 0,
    "lr": 1e-3,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that differ in how far brightness reaches: hard enough that mAP is not 1."""
    root = tmp_path_factory.mktemp("textures")
    random = np.random.default_rng(0)
    for cells in (2, 4, 8):
        (root / f"cells{cells}").mkdir()
        for i in range(16):
            grey = random.integers(0, 256, (cells, cells), dtype=np.uint8)
            picture = Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC)
            picture.convert("RGB").save(root / f"cells{cells}" / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def split(images: Path) -> Split:
    return splits.make(folder.load(images), train=0.75, val=0.4, seed=0)


@pytest.fixture(scope="module")
def no_val(images: Path) -> Split:
    return splits.make(folder.load(images), train=0.75, val=0.0, seed=0)


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


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-5, atol=1e-6, msg=key)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, split: Split, images: Path) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "one", split, images)


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


def test_a_run_leaves_what_is_needed(trained: Path, split: Split) -> None:
    assert splits.read(trained / "split.csv").hash == split.hash
    card = json.loads((trained / "model.json").read_text())
    assert card["training"]["split_hash"] == split.hash
    assert card["training"]["settings"]["seed"] == 0
    assert [row["epoch"] for row in rows(trained)] == ["1", "2", "3", "4"]


def test_a_model_says_of_which_ground_sampling_distance_its_images_were(
    trained: Path, split: Split, images: Path, tmp_path: Path
) -> None:
    assert rsir.load(trained, device="cpu").gsd is None
    told = run(tmp_path / "told", split, images, epochs=0, gsd=0.3)
    assert rsir.load(told, device="cpu").gsd == 0.3


def test_the_best_epoch_is_really_the_best(trained: Path, split: Split, images: Path) -> None:
    training = json.loads((trained / "model.json").read_text())["training"]
    logged = [float(row["val_map"]) for row in rows(trained)]
    assert len(set(logged)) > 1
    assert training["val_map"] == pytest.approx(max(logged), abs=1e-6)
    assert training["chosen_epoch"] == 1 + logged.index(max(logged))
    # The saved weights give that value again, through the public evaluation.
    report = evaluate(rsir.load(trained, device="cpu"), split.labelled(images, "val"))
    assert report.metrics["map"] == pytest.approx(max(logged), abs=1e-3)


class Told:
    """A trainer and a module, as far as BestEpoch looks at them."""

    def __init__(self) -> None:
        self.module = torch.nn.Linear(1, 1)
        self.should_stop = False
        self.current_epoch = 0
        self.callback_metrics: dict[str, float] = {}


def tell(best: BestEpoch, scores: list[float], start: int = 0) -> list[bool]:
    """What BestEpoch does about these scores, epoch after epoch; the weight is the epoch."""
    told = Told()
    stops = []
    for told.current_epoch, score in enumerate(scores, start=start):
        best.on_train_epoch_start(told, told)  # type: ignore[arg-type]
        told.module.weight.data.fill_(told.current_epoch + 1)
        told.callback_metrics = {"val_map": score}
        best.on_train_epoch_end(told, told)  # type: ignore[arg-type]
        stops.append(told.should_stop)
    return stops


def test_of_equal_epochs_the_latest_is_kept(tmp_path: Path) -> None:
    best = BestEpoch(tmp_path, patience=0)
    assert not any(tell(best, [0.2, 0.9, 0.5, 0.9, 0.1]))
    assert (best.epoch, best.score) == (4, 0.9)
    assert load_file(best.file)["weight"].item() == 4
    assert len(list(tmp_path.iterdir())) == 1


def test_patience_counts_epochs_that_bring_nothing_better(tmp_path: Path) -> None:
    best = BestEpoch(tmp_path, patience=2)
    assert tell(best, [0.2, 0.9, 0.9, 0.8]) == [False, False, False, True]
    assert best.epoch == 3


def test_the_best_epoch_survives_a_resume_in_another_folder(tmp_path: Path) -> None:
    before = BestEpoch(tmp_path / "here", patience=2)
    tell(before, [0.9, 0.1])
    (tmp_path / "here").rename(tmp_path / "there")
    after = BestEpoch(tmp_path / "there", patience=2)
    after.load_state_dict(before.state_dict())
    assert tell(after, [0.3], start=2) == [True]
    assert (after.epoch, after.score) == (1, 0.9)
    assert load_file(after.file)["weight"].item() == 1
    # Cut off after it had stopped, it does not go on.
    told = Told()
    told.current_epoch = 3
    after.on_train_start(told, told)  # type: ignore[arg-type]
    assert told.should_stop


def test_the_same_seed_gives_the_same_run_with_any_number_of_workers(
    no_val: Split, images: Path, tmp_path: Path
) -> None:
    one = run(tmp_path / "one", no_val, images, epochs=2)
    again = run(tmp_path / "again", no_val, images, epochs=2, workers=2)
    assert_same_weights(one, again)
    other = run(tmp_path / "other", no_val, images, epochs=2, seed=1)
    assert rows(other)[0]["train_loss"] != rows(one)[0]["train_loss"]


KILLED = """
import os, signal, sys
from rsir.data import splits
from rsir.training.settings import TrainingSettings
from rsir.training.train import train
import torch

torch.set_num_threads(1)

def on_epoch(line):
    if line.startswith("epoch 3/"):
        os.kill(os.getpid(), signal.SIGKILL)

train("dual-attention", splits.read(sys.argv[1]), sys.argv[2], sys.argv[3], backbone="resnet10t",
      weights="none", settings=TrainingSettings(**the_settings), on_epoch=on_epoch)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_resumes_to_the_same_end(
    workers: int, no_val: Split, images: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "workers": workers, "validation": 0.0}
    whole = run(tmp_path / "whole", no_val, images, "dual-attention", **settings)
    out = tmp_path / "killed"
    no_val.write(tmp_path / "split.csv")
    script = KILLED.replace("the_settings", repr(settings))
    arguments = [str(tmp_path / "split.csv"), str(images), str(out)]
    killed = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True)
    # Epoch 3 was logged but not yet saved when the process died.
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(rows(out)) == 3
    assert not (out / "model.json").exists()
    moved = out.rename(tmp_path / "moved")
    said: list[str] = []
    train(
        "dual-attention",
        no_val,
        images,
        moved,
        backbone="resnet10t",
        weights="none",
        settings=TrainingSettings(**settings),
        on_epoch=said.append,
    )
    assert [line.split("/")[0] for line in said] == ["epoch 3", "epoch 4"]
    assert_same_weights(whole, moved)
    for got, wanted in zip(rows(moved), rows(whole), strict=True):
        assert float(got["train_loss"]) == pytest.approx(float(wanted["train_loss"]), rel=1e-4)
    assert not (moved / "checkpoints").exists()


def test_ctrl_c_is_a_keyboard_interrupt_and_resumes(
    split: Split, images: Path, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    settings = TrainingSettings(**SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        train(
            "pooled",
            split,
            images,
            tmp_path / "run",
            backbone="resnet10t",
            weights="none",
            settings=settings,
            on_epoch=stop,
        )
    assert signal.getsignal(signal.SIGINT) is handler
    run(tmp_path / "run", split, images)
    assert len(rows(tmp_path / "run")) == 4


def test_a_finished_run_is_left_alone_and_another_is_refused(
    trained: Path, split: Split, images: Path
) -> None:
    before = (trained / "model.safetensors").stat().st_mtime_ns
    time.sleep(0.01)
    run(trained, split, images)
    assert (trained / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"differs in settings\.lr"):
        run(trained, split, images, lr=0.5)
    with pytest.raises(UsageError, match="holds no run"):
        run(trained.parent, split, images)


def test_a_setting_that_an_older_rsir_lacked_is_as_its_default(
    trained: Path, split: Split, images: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(trained, older)
    about = json.loads((older / "run.json").read_text())
    assert about["settings"].pop("jitter") == 0
    (older / "run.json").write_text(json.dumps(about))
    before = (older / "model.safetensors").stat().st_mtime_ns
    run(older, split, images)
    assert (older / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"differs in settings\.jitter"):
        run(older, split, images, jitter=0.1)


def test_early_stop_ends_before_the_last_epoch(split: Split, images: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "run", split, images, epochs=60, patience=2, lr=1e-6, head_lr=0.0)
    logged = [float(row["val_map"]) for row in rows(out)]
    assert 3 <= len(logged) < 60
    assert max(logged[-2:]) <= max(logged[:-2])
    with pytest.raises(UsageError, match="patience needs"):
        run(tmp_path / "none", split.without(val_paths(split)), images, patience=2)


def val_paths(split: Split) -> list[str]:
    return [split.rows[i].path for i in split.part("val")]


def test_validation_images_that_cannot_be_retrieved_choose_nothing(
    split: Split, images: Path, tmp_path: Path
) -> None:
    """With one image a class in the validation part, no epoch is better than another."""
    first = {row.labels: row.path for row in split.rows if row.part == "val"}
    lone = split.without(set(val_paths(split)) - set(first.values()))
    said: list[str] = []
    out = train(
        "pooled",
        lone,
        images,
        tmp_path / "run",
        backbone="resnet10t",
        weights="none",
        settings=TrainingSettings(**{**SETTINGS, "epochs": 1}),
        on_epoch=said.append,
    )
    assert "the last epoch is kept" in said[0]
    assert json.loads((out / "model.json").read_text())["training"]["chosen"] == "the last epoch"


def test_a_loss_that_is_not_finite_is_an_error(no_val: Split, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not finite in epoch"):
        run(tmp_path / "run", no_val, images, optimizer="sgd", lr=1e30, head_lr=1e30)


@pytest.mark.parametrize("rate", [1e12, 1e30])
def test_a_run_gone_astray_says_so_before_its_epoch_is_ranked(
    rate: float, split: Split, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"not finite.*lower lr"):
        run(tmp_path / "run", split, images, optimizer="sgd", lr=rate, head_lr=rate)


def test_weights_gone_astray_in_the_last_step_are_noticed(
    split: Split, images: Path, tmp_path: Path
) -> None:
    """One step an epoch: its loss is finite, what it makes of the weights is not."""
    changes = {"batch_size": 64, "sampler": "shuffle", "warmup_epochs": 0.0, "epochs": 1}
    with pytest.raises(ModelError, match=r"\(epoch 1\); lower lr"):
        run(tmp_path / "run", split, images, optimizer="sgd", lr=1e38, **changes)


def test_what_cannot_be_trained_leaves_no_mark(split: Split, images: Path, tmp_path: Path) -> None:
    for wrong in ({"per_class": 2}, {"min_area": 2.0}):
        with pytest.raises(UsageError):
            run(tmp_path / "run", split, images, **wrong)
    assert not (tmp_path / "run").exists()
    run(tmp_path / "run", split, images, epochs=1)


def test_the_same_weights_elsewhere_are_the_same_run(
    no_val: Split, images: Path, tmp_path: Path
) -> None:
    state = timm.create_model("resnet10t", num_classes=0).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "other").mkdir()
    settings = TrainingSettings(**{**SETTINGS, "epochs": 0})

    def start(weights: Path) -> Path:
        out = tmp_path / "run"
        return train(
            "pooled", no_val, images, out, backbone="resnet10t", weights=weights, settings=settings
        )

    saved = (start(tmp_path / "w.safetensors") / "model.safetensors").stat().st_mtime_ns
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["training"]["seconds"] == 0
    moved = (tmp_path / "w.safetensors").rename(tmp_path / "other" / "w.safetensors")
    assert (start(moved) / "model.safetensors").stat().st_mtime_ns == saved
    state["bn1.weight"] += 1
    save_file(state, moved)
    with pytest.raises(UsageError, match="differs in weights"):
        start(moved)


def test_changed_images_are_noticed(split: Split, images: Path, tmp_path: Path) -> None:
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
def test_the_other_settings_train_too(
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


def test_new_layers_learn_faster_and_scalars_do_not_decay() -> None:
    method = DualAttention(Backbone("resnet10t", image_size=32), DualAttentionOptions(), classes=2)
    settings = TrainingSettings(lr=0.1, head_lr=0.2, weight_decay=0.3)
    groups = parameter_groups(method, settings)
    where = {id(p): group for group in groups for p in group["params"]}
    assert len(where) == sum(1 for p in method.parameters() if p.requires_grad)
    assert where[id(method.backbone.net.conv1[0].weight)]["lr"] == 0.1
    assert "weight_decay" not in where[id(method.fuse.weight)]
    assert where[id(method.fuse.weight)]["lr"] == 0.2
    for scalar in (method.pool.p, method.spatial.alpha, method.fuse.bias):
        assert where[id(scalar)]["weight_decay"] == 0.0


def test_settings_come_from_the_trainer_the_method_and_the_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = method_type("dual-attention")
    monkeypatch.setattr(kind, "settings", {"epochs": 7, "lr": 0.5})
    options, settings = configure(kind, {"margin": 0.3, "lr": 1, "flips": False})
    assert options == {"margin": 0.3}
    assert (settings.epochs, settings.lr, settings.flips) == (7, 1, False)
    assert settings.batch_size == TrainingSettings().batch_size
    with pytest.raises(UsageError, match=r"no epoch;.*margin.*epochs"):
        configure(kind, {"epoch": 3})
    for wrong in ({"epochs": 1.5}, {"epochs": True}, {"lr": "fast"}, {"pooling": 0.5}):
        with pytest.raises(UsageError, match="must be a"):
            configure(kind, wrong)


@pytest.mark.parametrize("precision", [16, 32])
def test_a_number_will_do_where_a_text_of_digits_is_wanted(precision: int) -> None:
    _, settings = configure(method_type("pooled"), {"precision": precision})
    assert settings.precision == str(precision)
    with pytest.raises(UsageError, match="precision='8'"):
        configure(method_type("pooled"), {"precision": 8})


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"optimizer": "lion"},
        {"sampler": "all"},
        {"schedule": "linear"},
        {"precision": "8"},
        {"validation": 1.0},
        {"validation": 0.0, "patience": 3},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"momentum": -1.0},
        {"seed": -1},
        {"seed": 2**32},
        {"gsd": -0.3},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainingSettings(**wrong)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("eara", {"dimension": 32, "loss": "proxy-nca"}),  # the proxies too are learnt
        ("dah", {}),
        ("jsrt", {"fc1": 32, "pca_length": 4}),
        ("mlrsir-net", {}),
    ],
)
def test_every_method_resumes_to_the_weights_of_a_whole_run(
    method: str, options: dict[str, Any], no_val: Split, images: Path, tmp_path: Path
) -> None:
    own = method_type(method).settings
    few = {"epochs": 3, "batch_size": 18, "per_class": 6, "validation": 0.0}
    settings = TrainingSettings(**{**own, **SETTINGS, **few})
    said: list[str] = []

    def train_in(folder: str, interrupted: bool = False) -> dict[str, torch.Tensor]:
        said.clear()

        def on_epoch(line: str) -> None:
            said.append(line.split("/")[0])
            if interrupted and said[-1] == "epoch 2":
                raise KeyboardInterrupt

        out = train(
            method,
            no_val,
            images,
            tmp_path / folder,
            backbone="resnet10t",
            weights="none",
            options=options,
            settings=settings,
            on_epoch=on_epoch,
        )
        return load_file(out / "model.safetensors")

    whole = train_in("whole")
    with pytest.raises(KeyboardInterrupt):
        train_in("cut", interrupted=True)
    resumed = train_in("cut")
    assert said == ["epoch 2", "epoch 3"]
    assert whole.keys() == resumed.keys()
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
