"""Generated images and the details of two evaluations of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.reports import details_of, labelled


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 24 images of 20 × 12 pixels, each with its own grey value."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(24):
        Image.fromarray(np.full((12, 20, 3), 10 * i, np.uint8)).save(root / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def single(pictures):
    classes = ("bridge", "field", "river")
    return details_of(labelled(pictures, [0] * 8 + [1] * 12 + [2] * 4, classes))


@pytest.fixture(scope="module")
def several(pictures):
    has = np.random.default_rng(3).random((24, 4)) < 0.4
    has[5] = False
    return details_of(labelled(pictures, has, ("car", "road", "sea", "tree")))
