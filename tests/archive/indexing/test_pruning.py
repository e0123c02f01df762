"""Which files `prune` finds to be gone."""

from __future__ import annotations

import numpy as np
import pytest

from rsir.archive import Archive
from rsir.archive.indexing.pruning import without_file
from rsir.errors import ArchiveError
from rsir.store.records.record import Record
from tests.support.colour_encoder import ColourEncoder


def test_a_hash_in_the_name_of_a_file_that_is_gone(tmp_path):
    """The part before the '#' is the file only if it is a list of items."""
    (tmp_path / "set").mkdir()
    (tmp_path / "items.json").write_text("{}")
    (tmp_path / "there#1.tif").write_text("x")
    sources = {
        "gone": tmp_path / "set#2" / "a.tif",
        "gone too": tmp_path / "set#2.tif",
        "gone list": tmp_path / "gone.json#1",
        "in a list": tmp_path / "items.json#1",
        "there": tmp_path / "there#1.tif",
    }
    records = [Record(id, str(path), "", 0, 0) for id, path in sources.items()]
    assert without_file(records, everything=False) == ["gone", "gone too", "gone list"]


def test_prune_knows_the_collection_of_an_item(tmp_path):
    fresh = Archive.create(tmp_path / "archive", ColourEncoder())
    items = tmp_path / "items.geojson"
    items.write_text("{}")
    sources = [f"{items}#a", f"{items}#b", str(tmp_path / "gone.tif"), str(tmp_path / "no#one")]
    records = [Record(str(i), source, "") for i, source in enumerate(sources)]
    fresh.store.add(records, np.ones((4, 16), np.float32))
    assert fresh.prune() == ["2", "3"]
    items.unlink()
    with pytest.raises(ArchiveError, match="none of the archive's 2 files"):
        fresh.prune()
