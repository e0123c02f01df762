"""Scenes in an archive: tiles against slices of the scene, and a second run over it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from PIL import Image
from shapely.geometry import shape

from rsir.archive import Archive, Skipped
from rsir.errors import ArchiveError, ImageError, UsageError
from rsir.scenes import chips
from rsir.scenes.scene import Scene
from rsir.scenes.stretch import Stretch
from rsir.scenes.tiling import Tiling
from tests.support.archives import contents_by_id
from tests.support.colour_encoder import ColourEncoder
from tests.support.images import land, write_scene

TILING = Tiling(size=64)


def vector_of(pixels):
    return ColourEncoder().encode([pixels]).embedding[0]


@pytest.fixture
def archive(tmp_path):
    return Archive.create(tmp_path / "archive", ColourEncoder())


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scenes" / "a.tif", land())


def test_every_tile_is_a_slice_of_the_scene_with_its_footprint(archive, scene):
    report = archive.add(scene, tiling=Tiling(size=64, stride=48))
    pixels = land()
    assert (report.added, report.tiles, report.left_out) == (1, len(archive), {})
    records = list(archive.records())
    # Steps of 48 pixels; the last step is shorter, so that its tile is inside.
    wanted = {(c, r, 64, 64) for r in (0, 48, 96) for c in (0, 48, 96, 144, 160)}
    assert {tuple(r.properties["window"]) for r in records} == wanted
    forth = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    for record, vector in zip(records, archive.vectors([r.id for r in records]), strict=True):
        column, row, w, h = record.properties["window"]
        assert (vector == vector_of(pixels[:, row : row + h, column : column + w])).all()
        assert record.source == str(scene)
        assert record.properties["crs"] == "EPSG:32633"
        assert record.properties["gsd"] == [10, 10]
        assert (record.properties["width"], record.properties["height"]) == (64, 64)
        assert record.properties["folder"] == "scenes"
        assert "class" not in record.properties
        centre = forth.transform(600_000 + 10 * (column + 32), 5_000_000 - 10 * (row + 32))
        found = shape(record.footprint).centroid
        assert (found.x, found.y) == pytest.approx(centre, abs=1e-5)


def test_the_class_is_the_folder_below_the_given_folder(archive, tmp_path):
    for name in ("top.tif", "river/a.tif", "river/deep/b.tif", "forest/c.tif"):
        write_scene(tmp_path / "set" / name, land(height=32, width=32, seed=len(name)))
    archive.add(tmp_path / "set")
    found = {Path(r.source).name: r.properties.get("class") for r in archive.records()}
    assert found == {"top.tif": None, "a.tif": "river", "b.tif": "river", "c.tif": "forest"}


def test_a_second_run_reads_encodes_and_commits_nothing(archive, scene, monkeypatch):
    archive.add(scene, tiling=TILING)
    before, version, encoded = (
        contents_by_id(archive),
        archive.info()["version"],
        archive.encoder.encoded,
    )
    monkeypatch.setattr(Scene, "read", None)
    monkeypatch.setattr(Scene, "samples", None)
    monkeypatch.setattr("rsir.scenes.scene.digest", None)
    report = archive.add(scene, tiling=TILING)
    assert (report.unchanged, report.added, report.skipped) == (1, 0, ())
    assert (contents_by_id(archive), archive.info()["version"]) == (before, version)
    assert archive.encoder.encoded == encoded


def test_a_touched_scene_is_not_encoded_again(archive, scene):
    archive.add(scene, tiling=TILING)
    before, encoded = contents_by_id(archive), archive.encoder.encoded
    os.utime(scene, (1_700_000_000, 1_700_000_000))
    report = archive.add(scene, tiling=TILING)
    assert (report.unchanged, archive.encoder.encoded) == (1, encoded)
    after = contents_by_id(archive)
    assert after.keys() == before.keys()
    for id, (record, vector) in after.items():
        assert vector == before[id][1]
        assert record.mtime_ns == 1_700_000_000 * 10**9
        assert record.properties == before[id][0].properties


def test_a_changed_scene_and_another_tiling_replace_the_tiles(archive, scene, tmp_path):
    archive.add(scene, tiling=TILING)
    first = set(contents_by_id(archive))
    write_scene(scene, land(seed=1))
    assert archive.add(scene, tiling=TILING).replaced == 1
    second = contents_by_id(archive)
    assert not first & second.keys()
    fresh = Archive.create(tmp_path / "fresh", ColourEncoder())
    fresh.add(scene, tiling=TILING)
    assert contents_by_id(fresh) == second
    assert archive.add(scene, tiling=Tiling(size=80)).replaced == 1
    assert {tuple(r.properties["window"][2:]) for r in archive.records()} == {(80, 80)}


def test_windows_without_data_are_counted(archive, tmp_path):
    pixels = land(height=128, width=192)
    pixels[:, :64, :64] = 0
    pixels[:, 64:, 64:100] = 0
    path = write_scene(
        tmp_path / "holes.tif", pixels, nodata=0, tiled=True, blockxsize=64, blockysize=64
    )
    report = archive.add(path, tiling=TILING)
    assert report.left_out == {"nodata": 2}
    assert len(archive) == 4
    empty = write_scene(tmp_path / "empty.tif", np.zeros((3, 64, 128), np.uint8), nodata=0)
    report = archive.add(empty, tiling=TILING)
    assert report.skipped == (Skipped(str(empty), "no tile of it is left: 2 nodata"),)
    assert (report.added, report.left_out) == (0, {"nodata": 2})


def test_damaged_windows_are_listed_and_the_rest_is_indexed(archive, tmp_path):
    path = write_scene(
        tmp_path / "cut.tif", land(height=256, width=64), compress="deflate",
        tiled=True, blockxsize=64, blockysize=64,
    )  # fmt: skip
    data = path.read_bytes()
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_0_2", "TIFF", bidx=1))
    path.write_bytes(data[:offset] + b"\xff" * 60 + data[offset + 60 :])
    report = archive.add(path, tiling=TILING)
    (skipped,) = report.skipped
    assert skipped.path == str(path)
    assert skipped.reason.startswith("window [0, 128, 64, 64]: damaged or cut off")
    assert (report.added, report.left_out, len(archive)) == (1, {"damaged": 1}, 3)


def test_windows_that_the_model_refuses_are_listed(tmp_path):
    class Picky(ColourEncoder):
        def encode(self, images):
            if any(image.mean() > 240 for image in images):
                from rsir.errors import DataError

                raise DataError("is too bright")
            return super().encode(images)

    pixels = land(height=64, width=192, most=200)
    pixels[:, :, 64:128] = 250
    path = write_scene(tmp_path / "bright.tif", pixels)
    archive = Archive.create(tmp_path / "archive", Picky())
    report = archive.add(path, tiling=TILING)
    assert report.skipped == (Skipped(str(path), "window [64, 0, 64, 64]: is too bright"),)
    assert len(archive) == 2


@pytest.mark.slow
@pytest.mark.parametrize("stretch", ["auto", "range:0,4000", "percentile:5,95"])
def test_16_bit_scenes_get_the_requested_stretch(archive, tmp_path, stretch):
    pixels = land(4, dtype=np.uint16, most=4000)
    path = write_scene(tmp_path / "deep.tif", pixels)
    archive.add(path, tiling=Tiling(size=64, bands=("3", "2", "1"), stretch=Stretch.parse(stretch)))
    picked = pixels[[2, 1, 0]]
    ends = {
        "auto": np.percentile(picked, [2, 98], axis=(1, 2)).T,
        "range:0,4000": np.array([[0, 4000]] * 3),
        "percentile:5,95": np.percentile(picked, [5, 95], axis=(1, 2)).T,
    }[stretch]
    low, high = ends[:, 0, None, None], ends[:, 1, None, None]
    wanted = np.rint(255 * (picked - low) / (high - low)).clip(0, 255)
    assert len(archive) == 12
    for record in archive.records():
        column, row, w, h = record.properties["window"]
        part = wanted[:, row : row + h, column : column + w]
        pixels_of = archive.thumbnail(record.id, 64)
        assert np.abs(pixels_of - part).max() <= 1
        assert record.properties["stretch"].startswith("range:")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grey", "float", "png", "jp2", "four bands"])
def test_scenes_of_all_kinds_are_cut_without_a_tiling(archive, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(chips, "WHOLE_PIXELS", 100 * 100)
    pixels = {
        "grey": land(1, 300, 300),
        "float": land(3, 300, 300, dtype=np.float32),
        "png": land(3, 300, 300),
        "jp2": land(1, 300, 300, dtype=np.uint16, most=4000),
        "four bands": land(4, 300, 300),
    }[kind]
    georeference = {} if kind != "png" else {"transform": None}
    suffix = {"png": ".png", "jp2": ".jp2"}.get(kind, ".tif")
    if kind == "float":
        pixels[:, 5, 5] = np.nan
    path = write_scene(tmp_path / f"scene{suffix}", pixels, **georeference)
    report = archive.add(tmp_path)
    assert (report.added, report.tiles, report.skipped) == (1, 4, ())
    windows = {tuple(r.properties["window"]) for r in archive.records()}
    assert windows == {(c, r, 256, 256) for c in (0, 44) for r in (0, 44)}
    assert {r.source for r in archive.records()} == {str(path)}
    assert all((r.footprint is None) == (kind == "png") for r in archive.records())


def test_small_images_stay_whole_and_large_images_are_cut(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(chips, "WHOLE_PIXELS", 300 * 200)
    folder = tmp_path / "mixed"
    write_scene(folder / "small.tif", land(3, 200, 300))
    write_scene(folder / "deep.tif", land(3, 200, 300, dtype=np.uint16, most=4000))
    Image.fromarray(land(3, 200, 300).transpose(1, 2, 0)).save(folder / "small.png")
    Image.fromarray(land(3, 201, 300).transpose(1, 2, 0)).save(folder / "large.png")
    report = archive.add(folder)
    windows = {}
    for r in archive.records():
        windows.setdefault(Path(r.source).name, []).append(r.properties.get("window"))
    assert windows["small.tif"] == [None]
    assert windows["small.png"] == [None]
    assert windows["deep.tif"] == [[0, 0, 300, 200]]
    crs = {Path(r.source).name: r.properties.get("crs", "") for r in archive.records()}
    assert crs == {
        "small.tif": "EPSG:32633", "deep.tif": "EPSG:32633", "small.png": "", "large.png": None,
    }  # fmt: skip
    assert sorted(windows["large.png"]) == [[0, 0, 256, 201], [44, 0, 256, 201]]
    assert (report.added, report.tiles) == (4, 5)
    assert archive.add(folder).unchanged == 4


def test_a_scene_without_a_requested_band_is_skipped(archive, scene, tmp_path):
    other = write_scene(tmp_path / "scenes" / "b.tif", land(4, seed=3))
    report = archive.add([scene, other], tiling=Tiling(size=64, bands=("4", "2", "1")))
    assert [s.path for s in report.skipped] == [str(scene)]
    assert "4" in report.skipped[0].reason
    assert (report.added, len(archive)) == (1, 12)


def test_stac_items_globs_and_files_that_are_no_images(archive, scene, tmp_path):
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "item", "geometry": None,
        "properties": {"datetime": "2024-05-06T07:08:09Z", "eo:cloud_cover": 3}, "links": [],
        "assets": {"visual": {"href": str(scene), "type": "image/tiff", "roles": ["visual"]}},
    }  # fmt: skip
    (tmp_path / "item.json").write_text(json.dumps(item))
    report = archive.add(tmp_path / "item.json", tiling=TILING)
    assert (report.added, report.tiles) == (1, 12)
    record = next(archive.records())
    assert record.source == str(tmp_path / "item.json")
    assert record.properties["eo:cloud_cover"] == 3
    assert record.datetime.isoformat() == "2024-05-06T07:08:09+00:00"
    assert archive.add(tmp_path / "item.json", tiling=TILING).unchanged == 1
    write_scene(tmp_path / "scenes" / "b.tif", land(seed=4))
    (tmp_path / "scenes" / "c.tif").write_bytes(b"no image")
    report = archive.add(f"{tmp_path}/scenes/*.tif", tiling=TILING)
    assert (report.added, len(archive)) == (2, 36)
    assert [s.path for s in report.skipped] == [str(tmp_path / "scenes" / "c.tif")]


def test_the_next_run_continues_an_interrupted_scene(tmp_path, scene, monkeypatch):
    class Interrupted(ColourEncoder):
        left = 7

        def encode(self, images):
            if self.left < len(images):
                raise KeyboardInterrupt
            self.left -= len(images)
            return super().encode(images)

    archive = Archive.create(tmp_path / "archive", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        archive.add(scene, tiling=TILING, batch_size=3)
    assert len(archive) == 6
    assert not json.loads((tmp_path / "archive" / "last-index.json").read_text())["complete"]
    again = Archive.open(tmp_path / "archive", ColourEncoder())
    report = again.add(scene, tiling=TILING, batch_size=3)
    assert (report.added, report.tiles, again.encoder.encoded) == (1, 6, 6)
    fresh = Archive.create(tmp_path / "fresh", ColourEncoder())
    fresh.add(scene, tiling=TILING)
    assert contents_by_id(again) == contents_by_id(fresh)


def test_progress_counts_files_and_tiles(archive, scene, tmp_path):
    for n in range(3):
        write_scene(tmp_path / "scenes" / f"{n}.png", land(3, 40, 40, seed=n), transform=None)
    seen = []
    archive.add(tmp_path / "scenes", tiling=TILING, on_progress=lambda *now: seen.append(now))
    assert [done for done, _ in seen] == list(range(1, 16))
    assert seen[-1] == (15, 15)
    totals = [total for _, total in seen]
    assert totals == sorted(totals)
    assert totals[0] in (4, 15)


def test_plain_images_need_no_gdal(archive, tmp_path, monkeypatch, scene):
    Image.fromarray(land(3, 40, 40).transpose(1, 2, 0)).save(tmp_path / "scenes" / "chip.png")
    write_scene(tmp_path / "scenes" / "deep.tif", land(dtype=np.uint16))
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    report = archive.add(tmp_path / "scenes")
    assert {Path(r.source).name for r in archive.records()} == {"chip.png"}
    assert [Path(s.path).name for s in report.skipped] == ["a.tif", "deep.tif"]
    assert all("rsir[geo]" in skipped.reason for skipped in report.skipped)


def test_sources_and_thumbnails(archive, scene, tmp_path):
    chip = tmp_path / "chips" / "chip.png"
    write_scene(chip, land(3, 40, 60), transform=None)
    archive.add([scene, chip], tiling=TILING)
    summaries = archive.sources()
    assert [s.source for s in summaries] == sorted([str(scene), str(chip)])
    by_name = {Path(s.source).name: s for s in summaries}
    assert (by_name["chip.png"].tiles, by_name["chip.png"].bounds) == (1, None)
    assert not by_name["chip.png"].tiled
    whole = by_name["a.tif"]
    assert (whole.tiles, whole.tiled) == (12, True)
    forth = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    west, north = forth.transform(600_000, 5_000_000)
    assert whole.bounds[0] == pytest.approx(west, abs=1e-3)
    assert whole.bounds[3] == pytest.approx(north, abs=1e-3)
    ids = {Path(r.source).name: r.id for r in archive.records()}
    assert archive.thumbnail(ids["chip.png"], 20).shape == (3, 13, 20)
    assert (archive.thumbnail(ids["chip.png"], 256) == land(3, 40, 60)).all()
    assert archive.thumbnail(ids["a.tif"], 16).shape == (3, 16, 16)
    with pytest.raises(ArchiveError, match="no record"):
        archive.thumbnail("nobody")
    with pytest.raises(UsageError, match="size"):
        archive.thumbnail(ids["chip.png"], 0)
    chip.unlink()
    with pytest.raises(ImageError):
        archive.thumbnail(ids["chip.png"])


@pytest.mark.slow
def test_shards_index_everything_once(tmp_path):
    for n in range(7):
        write_scene(tmp_path / "set" / f"{n}.tif", land(3, 40, 40, seed=n))
    (tmp_path / "set" / "notes.txt").write_text("x")
    whole = Archive.create(tmp_path / "whole", ColourEncoder())
    whole.add(tmp_path / "set")
    parts = Archive.create(tmp_path / "parts", ColourEncoder())
    reports = [parts.add(tmp_path / "set", shard=(i, 3)) for i in range(3)]
    assert [r.added for r in reports] == [3, 2, 2]
    assert [r.ignored for r in reports] == [{".txt": 1}, {}, {}]
    assert contents_by_id(parts) == contents_by_id(whole)
    last = json.loads((parts.path / "last-index.json").read_text())
    assert (last["added"], last["ignored"], last["complete"]) == (7, {".txt": 1}, True)
    for wrong in [(3, 3), (-1, 3), (0, 0)]:
        with pytest.raises(UsageError, match="no shard"):
            parts.add(tmp_path / "set", shard=wrong)


def test_the_last_report_is_that_of_all_shards(tmp_path):
    for n in range(4):
        write_scene(tmp_path / "set" / f"{n}.tif", land(3, 40, 40, seed=n))
    (tmp_path / "set" / "1.tif").write_bytes(b"damaged")
    archive = Archive.create(tmp_path / "archive", ColourEncoder())

    def last() -> dict[str, object]:
        return json.loads((archive.path / "last-index.json").read_text())

    archive.add(tmp_path / "set", shard=(1, 2))
    assert (last()["added"], last()["complete"]) == (1, False)  # the other has not run
    archive.add(tmp_path / "set", shard=(0, 2))
    assert (last()["added"], last()["complete"]) == (3, True)
    assert [Path(entry["path"]).name for entry in last()["skipped"]] == ["1.tif"]
    # A shard that runs again replaces its own report only; a damaged report counts as none.
    archive.add(tmp_path / "set", shard=(1, 2))
    assert (last()["added"], last()["unchanged"], last()["complete"]) == (2, 1, True)
    (archive.path / "last-index" / "0-of-2.json").write_text("[")
    archive.add(tmp_path / "set", shard=(1, 2))
    assert (last()["added"], last()["complete"]) == (0, False)
    # Another division, and a run without shards, do not count these.
    archive.add(tmp_path / "set", shard=(0, 1))
    assert (last()["unchanged"], last()["complete"]) == (3, True)
    archive.add(tmp_path / "set")
    assert last()["unchanged"] == 3
    assert not (archive.path / "last-index").exists()
