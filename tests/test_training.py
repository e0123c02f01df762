from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rsir
from rsir.data import folder, splits
from rsir.data.splits import Split
from rsir.errors import DataError, UsageError
from rsir.evaluate import evaluate
from rsir.losses.contrastive import contrastive
from rsir.methods import method_type
from rsir.methods.dual_attention import DualAttention, DualAttentionOptions
from rsir.nn.backbone import Backbone
from rsir.training import Settings, configure, parameter_groups, train

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "per_class": 2,
    "image_size": 32,
    "workers": 0,
    "lr": 1e-3,
}


@pytest.fixture(scope="module")
def split(coloured_classes: Path) -> Split:
    return splits.make(folder.load(coloured_classes), train=0.75, val=0.3, seed=0)


def run(out: Path, split: Split, root: Path, method: str = "pooled", **changes: Any) -> Path:
    return train(
        method,
        split,
        root,
        out,
        backbone="resnet10t",
        settings=Settings(**{**SETTINGS, **changes}),
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
def trained(tmp_path_factory: pytest.TempPathFactory, split: Split, coloured_classes: Path) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "one", split, coloured_classes)


def test_training_learns(
    trained: Path, split: Split, coloured_classes: Path, tmp_path: Path
) -> None:
    untrained = run(tmp_path / "untrained", split, coloured_classes, epochs=0)
    test = split.labelled(coloured_classes, "test")
    targets = torch.from_numpy(test.targets)
    before, after = (
        contrastive(
            torch.from_numpy(rsir.load(path, device="cpu").encode(test.files).embedding),
            targets,
            margin=0.9,
        )
        for path in (untrained, trained)
    )
    assert after < 0.5 * before
    losses = [float(row["train_loss"]) for row in rows(trained)]
    assert losses[-1] < losses[0]


def test_a_run_leaves_what_is_needed(trained: Path, split: Split) -> None:
    assert splits.read(trained / "split.csv").hash == split.hash
    card = json.loads((trained / "model.json").read_text())
    assert card["training"]["split_hash"] == split.hash
    assert card["training"]["settings"]["seed"] == 0
    assert [row["epoch"] for row in rows(trained)] == ["1", "2", "3"]


def test_the_best_epoch_is_really_the_best(
    trained: Path, split: Split, coloured_classes: Path
) -> None:
    training = json.loads((trained / "model.json").read_text())["training"]
    logged = [float(row["val_map"]) for row in rows(trained)]
    assert training["val_map"] == pytest.approx(max(logged), abs=1e-6)
    assert training["chosen_epoch"] == 1 + logged.index(max(logged))
    # The saved weights give that value again, through the public evaluation.
    report = evaluate(rsir.load(trained, device="cpu"), split.labelled(coloured_classes, "val"))
    assert report.metrics["map"] == pytest.approx(max(logged), abs=1e-3)


def test_the_same_seed_gives_the_same_run_with_any_number_of_workers(
    trained: Path, split: Split, coloured_classes: Path, tmp_path: Path
) -> None:
    again = run(tmp_path / "again", split, coloured_classes, workers=2)
    assert_same_weights(trained, again)
    other = run(tmp_path / "other", split, coloured_classes, seed=1)
    assert rows(other)[0]["train_loss"] != rows(trained)[0]["train_loss"]


KILLED = """
import os, signal, sys
from pathlib import Path
from rsir import training
from rsir.data import splits
from rsir.training import Settings, train

def on_epoch(line):
    if line.startswith("epoch 2/"):
        os.kill(os.getpid(), signal.SIGKILL)

train("pooled", splits.read(sys.argv[1]), sys.argv[2], sys.argv[3], backbone="resnet10t",
      settings=Settings(**the_settings), on_epoch=on_epoch)
"""


def test_a_killed_run_resumes_to_the_same_end(
    trained: Path, split: Split, coloured_classes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    split.write(tmp_path / "split.csv")
    script = KILLED.replace("the_settings", repr(SETTINGS))
    arguments = [str(tmp_path / "split.csv"), str(coloured_classes), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True
    )
    # Epoch 2 was logged but not yet saved when the process died.
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(rows(out)) == 2
    assert not (out / "model.json").exists()
    run(out, split, coloured_classes)
    assert_same_weights(trained, out)
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in rows(out)]
    expected = [{k: v for k, v in row.items() if k != "seconds"} for row in rows(trained)]
    for got, wanted in zip(strip, expected, strict=True):
        assert {k: float(v) for k, v in got.items()} == pytest.approx(
            {k: float(v) for k, v in wanted.items()}, rel=1e-4
        )


def test_ctrl_c_is_a_keyboard_interrupt_and_resumes(
    split: Split, coloured_classes: Path, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    settings = Settings(**SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        train(
            "pooled",
            split,
            coloured_classes,
            tmp_path / "run",
            backbone="resnet10t",
            settings=settings,
            on_epoch=stop,
        )
    assert signal.getsignal(signal.SIGINT) is handler
    run(tmp_path / "run", split, coloured_classes)
    assert len(rows(tmp_path / "run")) == 3


def test_a_finished_run_is_left_alone_and_another_is_refused(
    trained: Path, split: Split, coloured_classes: Path
) -> None:
    before = (trained / "model.safetensors").stat().st_mtime_ns
    time.sleep(0.01)
    run(trained, split, coloured_classes)
    assert (trained / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"differs in settings\.lr"):
        run(trained, split, coloured_classes, lr=0.5)
    with pytest.raises(UsageError, match="holds no run"):
        run(trained.parent, split, coloured_classes)


def test_early_stop_ends_before_the_last_epoch(
    split: Split, coloured_classes: Path, tmp_path: Path
) -> None:
    # With a learning rate of 0 no epoch is better than the first: batch norm's statistics move,
    # but with warm-up from 0 and lr 0 the ranking of such plain colours does not improve for long.
    out = run(tmp_path / "run", split, coloured_classes, epochs=40, patience=2, lr=0.0, head_lr=0.0)
    assert len(rows(out)) < 40
    logged = [float(row["val_map"]) for row in rows(out)]
    assert max(logged[-2:]) <= max(logged[:-2])


def test_the_test_part_is_never_read(split: Split, coloured_classes: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(coloured_classes, tmp_path / "images")
    for row in split.rows:
        if row.part == "test":
            (tmp_path / "images" / row.path).write_bytes(b"unreadable")
    run(tmp_path / "run", split, tmp_path / "images", epochs=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "pairs", "optimizer": "sgd", "schedule": "step"},
        {"sampler": "shuffle", "optimizer": "adam", "schedule": "constant", "warmup_epochs": 0.0},
        {"precision": "bf16", "validation": 0.0},
    ],
)
def test_the_other_settings_train_too(
    changes: dict[str, Any], split: Split, coloured_classes: Path, tmp_path: Path
) -> None:
    out = run(tmp_path / "run", split, coloured_classes, "dual-attention", epochs=1, **changes)
    assert rsir.load(out, device="cpu").model.method == "dual-attention"


def test_without_validation_the_last_epoch_is_kept(coloured_classes: Path, tmp_path: Path) -> None:
    whole = splits.make(folder.load(coloured_classes), train=0.75, val=0.0, seed=0)
    out = run(tmp_path / "run", whole, coloured_classes, epochs=2, validation=0.0)
    assert json.loads((out / "model.json").read_text())["training"]["chosen"] == "the last epoch"
    assert [row["val_map"] for row in rows(out)] == ["", ""]


def test_a_split_without_training_images_is_an_error(
    coloured_classes: Path, tmp_path: Path
) -> None:
    only_test = splits.make(folder.load(coloured_classes), train=0.0, seed=0)
    with pytest.raises(DataError, match="no training images"):
        run(tmp_path / "run", only_test, coloured_classes)


def test_new_layers_learn_faster_and_scalars_do_not_decay() -> None:
    method = DualAttention(Backbone("resnet10t", image_size=32), DualAttentionOptions(), classes=2)
    settings = Settings(lr=0.1, head_lr=0.2, weight_decay=0.3)
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
    assert settings.batch_size == Settings().batch_size
    with pytest.raises(UsageError, match=r"no epoch;.*margin.*epochs"):
        configure(kind, {"epoch": 3})
    for wrong in ({"epochs": 1.5}, {"epochs": True}, {"lr": "fast"}, {"pooling": 3}):
        with pytest.raises(UsageError, match="must be a"):
            configure(kind, wrong)


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
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**wrong)
