"""The best epoch, and the groups of parameters."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from rsir.methods.dual_attention import DualAttention, DualAttentionOptions
from rsir.nn.backbone import Backbone
from rsir.training.loop import BestEpoch, parameter_groups
from rsir.training.settings import TrainingSettings


class FakeTrainer:
    """The attributes of a trainer and of a module that BestEpoch uses."""

    def __init__(self) -> None:
        self.module = torch.nn.Linear(1, 1)
        self.should_stop = False
        self.current_epoch = 0
        self.callback_metrics: dict[str, float] = {}


def run_epochs(best: BestEpoch, scores: list[float], start: int = 0) -> list[bool]:
    """Whether training stops after each epoch with these scores; the weight is the epoch."""
    trainer = FakeTrainer()
    stops = []
    for trainer.current_epoch, score in enumerate(scores, start=start):
        best.on_train_epoch_start(trainer, trainer)  # type: ignore[arg-type]
        trainer.module.weight.data.fill_(trainer.current_epoch + 1)
        trainer.callback_metrics = {"val_map": score}
        best.on_train_epoch_end(trainer, trainer)  # type: ignore[arg-type]
        stops.append(trainer.should_stop)
    return stops


def test_of_equally_good_epochs_the_latest_is_kept(tmp_path: Path) -> None:
    best = BestEpoch(tmp_path, patience=0)
    assert not any(run_epochs(best, [0.2, 0.9, 0.5, 0.9, 0.1]))
    assert (best.epoch, best.score) == (4, 0.9)
    assert load_file(best.file)["weight"].item() == 4
    assert len(list(tmp_path.iterdir())) == 1


def test_patience_counts_epochs_without_improvement(tmp_path: Path) -> None:
    best = BestEpoch(tmp_path, patience=2)
    assert run_epochs(best, [0.2, 0.9, 0.9, 0.8]) == [False, False, False, True]
    assert best.epoch == 3


def test_the_best_epoch_survives_a_resume_in_another_folder(tmp_path: Path) -> None:
    before = BestEpoch(tmp_path / "here", patience=2)
    run_epochs(before, [0.9, 0.1])
    (tmp_path / "here").rename(tmp_path / "there")
    after = BestEpoch(tmp_path / "there", patience=2)
    after.load_state_dict(before.state_dict())
    assert run_epochs(after, [0.3], start=2) == [True]
    assert (after.epoch, after.score) == (1, 0.9)
    assert load_file(after.file)["weight"].item() == 1
    # A run that was interrupted after it stopped does not continue.
    trainer = FakeTrainer()
    trainer.current_epoch = 3
    after.on_train_start(trainer, trainer)  # type: ignore[arg-type]
    assert trainer.should_stop


def test_new_layers_learn_faster_and_scalars_have_no_weight_decay() -> None:
    method = DualAttention(Backbone("resnet10t", image_size=32), DualAttentionOptions(), classes=2)
    settings = TrainingSettings(lr=0.1, head_lr=0.2, weight_decay=0.3)
    groups = parameter_groups(method, settings)
    group_of = {id(p): group for group in groups for p in group["params"]}
    assert len(group_of) == sum(1 for p in method.parameters() if p.requires_grad)
    assert group_of[id(method.backbone.net.conv1[0].weight)]["lr"] == 0.1
    assert "weight_decay" not in group_of[id(method.fuse.weight)]
    assert group_of[id(method.fuse.weight)]["lr"] == 0.2
    for scalar in (method.pool.p, method.spatial.alpha, method.fuse.bias):
        assert group_of[id(scalar)]["weight_decay"] == 0.0
