"""The class of an image is the folder that training takes for its class."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.archive import Archive
from rsir.data import folder
from tests.support.colour_encoder import ColourEncoder
from tests.support.images import paint


@pytest.mark.parametrize("above", ["", "Images", "set/Images"])
@pytest.mark.parametrize("shard", [None, (0, 2)])
def test_indexing_and_training_see_the_same_classes(
    tmp_path: Path, above: str, shard: tuple[int, int] | None
) -> None:
    root = tmp_path / "root"
    for seed, name in enumerate(("beach/a", "beach/b", "harbor/c", "harbor/d")):
        paint(root / above / f"{name}.png", seed)
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(root, shard=shard)
    learned = folder.load(root)
    wanted = {str(file): learned.labels(n)[0] for n, file in enumerate(learned.files)}
    found = {record.source: record.properties["class"] for record in archive.records()}
    assert found.items() <= wanted.items()
    assert len(found) == (4 if shard is None else 2)


def test_several_sets_in_one_folder_have_their_own_names_as_classes(tmp_path: Path) -> None:
    for seed, name in enumerate(("one/beach/a", "two/beach/b")):
        paint(tmp_path / "root" / f"{name}.png", seed)
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(tmp_path / "root")
    assert {record.properties["class"] for record in archive.records()} == {"one", "two"}
