"""The image sets of an experiment: missing sets, and the few images of a quick version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsir.data import folder
from rsir.reproduce.image_sets import quick_subset
from rsir.reproduce.runs import reproduce
from rsir.reproduce.side_by_side import Missing
from rsir.reproduce.table import PaperTable
from tests.support.reproduced import (
    ours,
)


def test_a_missing_set_is_reported(table: PaperTable, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    comparison = reproduce(table, tmp_path / "data", tmp_path / "out", quick=True)
    assert not ours(comparison)
    assert {cell.row for cell in comparison.missing} == {row.name for row in table.rows}
    assert "## Not run" in comparison.markdown()


@pytest.mark.slow
def test_labels_without_a_table(table: PaperTable, root: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "UCMerced_LandUse").mkdir(parents=True)
    images = tmp_path / "data" / "UCMerced_LandUse" / "Images"
    images.symlink_to(root / "UCMerced_LandUse" / "Images")
    comparison = reproduce(table, tmp_path / "data", tmp_path, quick=True, methods=["eara", "dah"])
    reasons = {m.reason for m in comparison.missing if m == Missing("DAH", "labels", m.reason)}
    assert "no table of labels for DLRSD" in reasons.pop()


def test_few_of_classes_and_of_labels(root: Path) -> None:
    images = folder.load(root / "AID")
    part = quick_subset(images)
    assert part.classes == images.classes[:4]
    assert part.counts.tolist() == [12] * 4
    directory = root / "UCMerced_LandUse"
    labelled = folder.load(directory, labels=directory / "LandUse_Multilabeled.txt")
    part = quick_subset(labelled)
    # Cars are on a single image.
    assert labelled.classes == ("cars", "trees", "water")
    assert part.classes == ("trees", "water")
    assert 24 < len(part) <= 48
    assert part.targets.any(axis=1).all()
    before = {path: labelled.labels(i) for i, path in enumerate(labelled.paths)}
    for i, path in enumerate(part.paths):
        assert part.labels(i) == tuple(name for name in before[path] if name != "cars")
    one_class = images.subset(np.flatnonzero(images.targets == 0)[:3])
    assert len(quick_subset(one_class)) == 3
