"""Reproducible, interrupted and complete runs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from rsir.atomic import replacing
from rsir.data.splits import Split
from rsir.errors import ModelError, UsageError
from rsir.methods import method_type
from rsir.training import checkpoints
from rsir.training.settings import TrainingSettings
from rsir.training.train import train
from tests.support.modes import UMASKS, check_modes, under_umask
from tests.support.runs import SETTINGS, assert_same_weights, rows, run


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(
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
    lines: list[str] = []
    train(
        "dual-attention",
        no_val,
        images,
        moved,
        backbone="resnet10t",
        weights="none",
        settings=TrainingSettings(**settings),
        on_epoch=lines.append,
    )
    assert [line.split("/")[0] for line in lines] == ["epoch 3", "epoch 4"]
    assert_same_weights(whole, moved)
    for resumed, expected in zip(rows(moved), rows(whole), strict=True):
        assert float(resumed["train_loss"]) == pytest.approx(
            float(expected["train_loss"]), rel=1e-4
        )
    assert not (moved / "checkpoints").exists()


def test_a_run_interrupted_by_ctrl_c_resumes(split: Split, images: Path, tmp_path: Path) -> None:
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


def test_a_complete_run_is_unchanged_and_another_is_refused(
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


def test_a_setting_missing_in_an_older_run_has_its_default(
    trained: Path, split: Split, images: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(trained, older)
    recorded = json.loads((older / "run.json").read_text())
    assert recorded["settings"].pop("jitter") == 0
    (older / "run.json").write_text(json.dumps(recorded))
    before = (older / "model.safetensors").stat().st_mtime_ns
    run(older, split, images)
    assert (older / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"differs in settings\.jitter"):
        run(older, split, images, jitter=0.1)


def test_the_location_of_the_weights_does_not_matter(
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


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("eara", {"dimension": 32, "loss": "proxy-nca"}),  # the proxies are parameters, too
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
    lines: list[str] = []

    def train_in(folder: str, interrupted: bool = False) -> dict[str, torch.Tensor]:
        lines.clear()

        def on_epoch(line: str) -> None:
            lines.append(line.split("/")[0])
            if interrupted and lines[-1] == "epoch 2":
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
    assert lines == ["epoch 2", "epoch 3"]
    assert whole.keys() == resumed.keys()
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_continues(
    no_val: Split, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SETTINGS, "validation": 0.0}
    whole = run(tmp_path / "whole", no_val, images, **settings)
    out, real, written = tmp_path / "run", checkpoints.write_bytes, []

    def fill(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 3:
            # As much as fits, as a full disk does.
            with suppress(RuntimeError), replacing(path) as draft:
                draft.write_bytes(data[: len(data) // 2])
                raise RuntimeError
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(checkpoints, "write_bytes", fill)
    with pytest.raises(ModelError, match=r"run: the run cannot be written \(No space left") as full:
        run(out, no_val, images, **settings)
    assert str(out) in str(full.value)
    assert {path.parent for path in written} == {out / "checkpoints"}  # beside its target
    assert [file.name for file in (out / "checkpoints").iterdir()] == ["last.ckpt"]
    run(out, no_val, images, **settings)
    assert_same_weights(whole, out)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_only_what_keeps_a_run_from_being_written_is_called_so(tmp_path: Path, code: int) -> None:
    with (
        pytest.raises(ModelError, match="the run cannot be written"),
        checkpoints.naming_full_disks(tmp_path),
    ):
        raise OSError(code, os.strerror(code))
    for other in (FileNotFoundError(errno.ENOENT, "No such image"), ConnectionError("broken")):
        with pytest.raises(type(other)), checkpoints.naming_full_disks(tmp_path):
            raise other


def test_a_damaged_checkpoint_is_a_clear_error(
    no_val: Split, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SETTINGS, "validation": 0.0}
    real = checkpoints.write_bytes

    def fail_second(path: Path, data: bytes) -> None:
        if path.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(checkpoints, "write_bytes", fail_second)
    with pytest.raises(ModelError, match="No space left"):
        run(tmp_path / "run", no_val, images, **settings)
    monkeypatch.undo()
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    data = file.read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"PK\x03\x04" + bytes(500)):
        file.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"last\.ckpt is damaged; delete it"):
            run(tmp_path / "run", no_val, images, **settings)
    file.unlink()
    run(tmp_path / "run", no_val, images, **settings)


@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_colleagues_may_read_a_run(umask: int, no_val: Split, images: Path, tmp_path: Path) -> None:
    with under_umask(umask):
        out = run(tmp_path / "made" / "run", no_val, images, epochs=1, validation=0.0)
    assert (out / "model.safetensors").exists()
    check_modes(tmp_path / "made", umask)


def test_the_progress_counts_the_batches_of_all_epochs_and_the_images_of_a_fit(
    no_val: Split, images: Path, tmp_path: Path
) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def progress(work: str) -> Iterator[Callable[[int, int], None]]:
        told[work] = []
        yield lambda done, total: told[work].append((done, total))

    def train_on(out: Path, epochs: int) -> None:
        settings = TrainingSettings(**SETTINGS | {"validation": 0.0, "epochs": epochs})
        train(
            "jsrt", no_val, images, out, backbone="resnet10t", weights="none", settings=settings,
            options={"pca_length": 2}, progress=progress,
        )  # fmt: skip

    train_on(tmp_path / "run", 3)
    batches = told["training (batches)"]
    total = batches[0][1]
    assert batches == [(done, total) for done in range(1, total + 1)]
    assert total % 3 == 0
    count = len(no_val.part("train"))
    assert told["fitting (images)"][-1] == (count, count)
