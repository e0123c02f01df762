"""Settings of the trainer and options of a method."""

from __future__ import annotations

from typing import Any

import pytest

from rsir.errors import UsageError
from rsir.methods import method_type
from rsir.training.settings import TrainingSettings, resolve_settings


def test_values_override_the_method_which_overrides_the_trainer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = method_type("dual-attention")
    monkeypatch.setattr(kind, "settings", {"epochs": 7, "lr": 0.5})
    options, settings = resolve_settings(kind, {"margin": 0.3, "lr": 1, "flips": False})
    assert options == {"margin": 0.3}
    assert (settings.epochs, settings.lr, settings.flips) == (7, 1, False)
    assert settings.batch_size == TrainingSettings().batch_size
    with pytest.raises(UsageError, match=r"no epoch;.*margin.*epochs"):
        resolve_settings(kind, {"epoch": 3})
    for wrong in ({"epochs": 1.5}, {"epochs": True}, {"lr": "fast"}, {"pooling": 0.5}):
        with pytest.raises(UsageError, match="must be a"):
            resolve_settings(kind, wrong)


@pytest.mark.parametrize("precision", [16, 32])
def test_a_number_is_accepted_for_a_precision(precision: int) -> None:
    _, settings = resolve_settings(method_type("pooled"), {"precision": precision})
    assert settings.precision == str(precision)
    with pytest.raises(UsageError, match="precision='8'"):
        resolve_settings(method_type("pooled"), {"precision": 8})


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
