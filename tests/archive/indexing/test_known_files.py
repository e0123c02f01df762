"""How a run looks up files that are indexed already."""

from __future__ import annotations

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

from rsir.archive import Archive
from rsir.geo.georeference import ignore_not_georeferenced
from rsir.scenes.tiling import Tiling
from tests.support.colour_encoder import ColourEncoder


def scene(path, transform, crs, height=200, width=400):
    ignore_not_georeferenced()
    pixels = np.random.default_rng(0).integers(1, 255, (3, height, width)).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, width=width, height=height, dtype="uint8",
        photometric="rgb", transform=transform, crs=crs,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


def chip(path, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_few_sources_are_looked_up_by_name(tmp_path, monkeypatch):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    names = ["it's.png", 'a "b".png', "back\\slash.png", "ünï ☃.png", "%_.png"]
    for i, name in enumerate(names):
        chip(tmp_path / name, i)
    first = archive.add([tmp_path / name for name in names])
    assert (first.added, first.skipped) == (5, ())
    read = []
    real = type(archive.store).states

    def spy(self, names=None):
        found = list(real(self, names))
        read.append(len(found))
        return iter(found)

    monkeypatch.setattr(type(archive.store), "states", spy)
    for name in names:
        assert archive.add(tmp_path / name).unchanged == 1
    assert read == [1] * 5
    assert archive.add([tmp_path / name for name in names]).unchanged == 5
    monkeypatch.setattr("rsir.store.lance.store._NAMES_IN_SQL", 2)
    assert archive.add([tmp_path / name for name in names]).unchanged == 5
    assert len(archive) == 5
    assert archive.encoder.encoded == 5


def test_a_touched_tile_that_is_deleted_meanwhile_stops_nothing(tmp_path, monkeypatch):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    path = scene(tmp_path / "a.tif", Affine(10, 0, 6e5, 0, -10, 5e6), "EPSG:32633", 128, 128)
    archive.add(path, tiling=Tiling(size=64))
    path.touch()
    ids = [record.id for record in archive.records()]
    real = type(archive.store).get

    def deleted(self, ids_):
        self.delete(ids[:1])
        return real(self, ids_)

    monkeypatch.setattr(type(archive.store), "get", deleted)
    assert archive.add(path, tiling=Tiling(size=64)).unchanged == 1
    monkeypatch.undo()
    assert [record.id for record in archive.records()] == ids[1:]
    assert {record.mtime_ns for record in archive.records()} == {path.stat().st_mtime_ns}
