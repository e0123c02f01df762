"""Hits: they are read when a caller looks at them, and show themselves."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from rsir.archive import Archive, ById, ByWindow, Examples
from rsir.archive.search.search import GallerySearch
from rsir.errors import ArchiveError
from rsir.images.read import read_tile
from tests.support.colour_encoder import ColourEncoder
from tests.support.searching import everything, ranked


def test_hits_read_their_records_when_they_are_looked_at(archive, monkeypatch):
    _, vectors = everything(archive)
    read = []
    original = GallerySearch._hit
    monkeypatch.setattr(GallerySearch, "_hit", lambda *a: read.append(1) or original(*a))
    hits = archive.search(vectors[0], 30)
    assert len(hits) == 30
    assert (hits.distances == [d for d, _ in ranked(archive, vectors[0])][:30]).all()
    assert not read
    page = hits[5:8]
    assert len(read) == 3
    assert [hit.id for hit in page] == [id for _, id in ranked(archive, vectors[0])][5:8]
    assert hits[6] is page[1]
    assert hits[-1].distance == hits.distances[-1]
    assert len(read) == 4
    with pytest.raises(IndexError):
        hits[30]


def test_repr_of_hits_names_every_kind_of_query(archive, folder):
    records, vectors = everything(archive)
    first = records[0].id
    scene, chip = str(folder / "scene.tif"), folder / "chips" / "a.png"
    for query, name in [
        (ById(first), f"the tile {first}"),
        (ByWindow(scene, window=(0, 0, 64, 64)), f"a window of {scene}"),
        (vectors[0], "a vector"),
        (read_tile(chip).pixels, "an image"),
        (chip, str(chip)),
        (Examples([ById(first)]), "1 examples and 0 counterexamples"),
    ]:
        hits = archive.search(query, 3)
        lines = repr(hits).splitlines()
        assert lines[0].startswith(f"3 hits for {name} among {len(records)}, in ")
        assert [line.split()[-1] for line in lines[1:]] == [hit.source for hit in hits]


def test_hits_that_can_no_longer_be_read_say_so(tmp_path):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    archive.add(tmp_path / "a.png")
    hits = archive.search(tmp_path / "a.png", 3)
    shutil.move(tmp_path / "archive", tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="was deleted or moved"):
        hits[0]
