from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from rsir.data import folder, splits
from rsir.evaluation.leakage import find_leakage
from rsir.models.encoder import Encoder
from rsir.training.settings import TrainingSettings
from rsir.training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, coloured_classes: Path) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("leakage") / "run"
    images = folder.load(coloured_classes)
    split = splits.make(images, train=0.5, val=0.25, seed=3)
    train(
        "pooled",
        split,
        images.root,
        out,
        backbone="resnet10t",
        weights="none",
        options={},
        settings=TrainingSettings(epochs=1, image_size=32, workers=0, validation=0.25),
    )
    return out


@pytest.fixture(scope="module")
def encoder(run: Path) -> Encoder:
    return Encoder.load(run, device="cpu")


def test_trained_queries_are_listed(encoder: Encoder, run: Path, coloured_classes: Path) -> None:
    split = splits.read(run / "split.csv")
    test, every = split.labelled(coloured_classes, "test"), folder.load(coloured_classes)
    clean = find_leakage(encoder, test)
    assert clean.split_hash == split.hash
    assert clean.known
    assert (clean.trained_on, clean.copies, clean.lines) == ((), (), [])
    found = find_leakage(encoder, every)
    learnt = {row.path for row in split.rows if row.part != "test"}
    assert set(found.trained_on) == learnt
    assert f"trained on {len(learnt)} of the queries" in found.lines[0]
    assert found.to_dict()["queries_trained_on"] == list(found.trained_on)


def test_a_trained_image_is_recognised_by_its_content(
    encoder: Encoder, run: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    split = splits.read(run / "split.csv")
    learnt = next(row.path for row in split.rows if row.part == "train")
    fresh = next(row.path for row in split.rows if row.part == "test")
    (tmp_path / "other").mkdir()
    shutil.copy(coloured_classes / learnt, tmp_path / "other" / "renamed.png")
    shutil.copy(coloured_classes / fresh, tmp_path / "other" / "new.png")
    assert find_leakage(encoder, folder.load(tmp_path)).trained_on == ("other/renamed.png",)


def test_equal_files_are_paired_once(
    encoder: Encoder, coloured_classes: Path, tmp_path: Path
) -> None:
    one, other = coloured_classes / "lake" / "lake00.png", coloured_classes / "sand" / "sand00.png"
    for path in ("a/1.png", "a/2.png", "a/3.png", "b/4.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(one if path != "a/2.png" else other, tmp_path / path)
    images = folder.load(tmp_path)
    within = find_leakage(encoder, images)
    assert set(within.copies) == {
        ("a/3.png", "a/1.png"),
        ("b/4.png", "a/1.png"),
        ("b/4.png", "a/3.png"),
    }
    across = find_leakage(encoder, images.subset([0, 1]), images.subset([2, 3]))
    assert set(across.copies) == {("a/1.png", "a/3.png"), ("a/1.png", "b/4.png")}
    assert "2 pairs" in across.lines[-1]


def test_a_missing_split_gives_a_warning(
    encoder: Encoder, run: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "split.csv").unlink()
    found = find_leakage(
        Encoder.load(tmp_path / "run", device="cpu"), folder.load(coloured_classes)
    )
    assert (found.known, found.trained_on) == (False, ())
    assert found.split_hash == find_leakage(encoder, folder.load(coloured_classes)).split_hash
    assert "training images of the model are unknown" in found.lines[0]


def test_a_different_split_gives_a_warning(
    encoder: Encoder, run: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    images = folder.load(coloured_classes)
    shutil.copytree(run, tmp_path / "run")
    splits.make(images, train=0.5, val=0.25, seed=4).write(tmp_path / "run" / "split.csv")
    moved = Encoder.load(tmp_path / "run", device="cpu")
    found = find_leakage(moved, images)
    assert (found.known, found.trained_on) == (False, ())
    # The split that the caller passes may be the model's own.
    own = splits.read(run / "split.csv")
    assert find_leakage(moved, images, split=own) == find_leakage(encoder, images)


@pytest.mark.training
def test_an_untrained_baseline_has_no_leakage_unless_it_was_adapted(
    coloured_classes: Path, tmp_path: Path
) -> None:
    images = folder.load(coloured_classes)
    split = splits.make(images, train=0.5, seed=3)
    out = tmp_path / "run"
    settings = TrainingSettings(epochs=0, image_size=32, workers=0)
    train(
        "pooled", split, images.root, out, backbone="resnet10t", weights="none",
        options={}, settings=settings,
    )  # fmt: skip
    untrained = Encoder.load(out, device="cpu")
    found = find_leakage(untrained, images)
    assert (found.trained_on, found.lines) == ((), [])
    record = untrained.model.training
    for learnt in (
        {"adapted_to": {"images": 9}},
        {"weights": "other-run (sha256 0123…)"},
        {"settings": {"epochs": 1}},
    ):
        changed = dataclasses.replace(untrained.model, training={**record, **learnt})
        untrained.model = changed
        assert find_leakage(untrained, images).trained_on
