"""The tile under a click on the map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("nicegui", reason="the page needs the extra 'web'")

from rsir.store.records.record import Record
from rsir.web.page.run_search import tile_at
from tests.web.page.archives import archive_of, square


def test_a_click_finds_the_tile_around_it(tmp_path):
    # Overlapping tiles: every point is nearest to the middle of one of them.
    corners = list(itertools.product(np.arange(0, 4, 0.5), repeat=2))
    records = [
        Record(f"{i:02d}", "/s", "", footprint=square(west, south))
        for i, (west, south) in enumerate(corners)
    ]
    archive = archive_of(tmp_path / "a", records)
    for x, y in np.random.default_rng(0).uniform(-1, 6, (40, 2)):
        middles = [(abs(x - w - 0.5), abs(y - s - 0.5), i) for i, (w, s) in enumerate(corners)]
        around = [(dx**2 + dy**2, i) for dx, dy, i in middles if max(dx, dy) <= 0.5]
        expected = f"{min(around)[1]:02d}" if around else None
        assert tile_at(archive, x, y) == expected
        assert tile_at(archive, x + 360, y) == expected
