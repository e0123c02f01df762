"""Twelve images, and an empty archive."""

from pathlib import Path

import pytest

from rsir.archive import Archive
from tests.support.colour_encoder import ColourEncoder
from tests.support.images import paint


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    for n in range(12):
        paint(folder / ("forest" if n % 2 else "river") / f"{n:02d}.png", n)
    return folder


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive.create(tmp_path / "archive", ColourEncoder())
