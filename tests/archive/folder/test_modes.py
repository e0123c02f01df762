"""Colleagues may read a model and an archive: their files have the modes that the umask leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsir.archive import Archive
from rsir.archive.exchange.export import export
from rsir.models.encoder import Encoder
from rsir.models.model import build_model
from tests.support.images import paint
from tests.support.modes import UMASKS, check_modes, under_umask


@pytest.mark.slow
@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_an_archive_and_its_model(umask: int, tmp_path: Path) -> None:
    pictures, made = tmp_path / "pictures", tmp_path / "made"
    pictures.mkdir()
    for seed in range(40):
        paint(pictures / f"{seed}.png", seed)
    with under_umask(umask):
        model = build_model("pooled", backbone="resnet10t", spec=32, classes=("a", "b"))
        encoder = Encoder.load(model.save(made / "model"))
        archive = Archive.create(made / "archive", encoder)
        assert archive.add(pictures).added == 40
        archive.search(np.ones(archive.dimension, np.float32), 3, ranking="approximate")
        export(archive, made / "rows.parquet")
        export(archive, made / "rows.geojson")
    assert check_modes(made, umask) > 10
    assert list(made.rglob("items.index/*/*"))
