"""What a second run makes of sources that have changed, and what is not indexed and how it is told.

The oracle of most: an archive made afresh of the same files.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from rsir.archive import Archive, Skipped
from rsir.archive.indexing import indexer
from rsir.archive.indexing.progress import LISTED_WINDOWS, SourceProgress
from rsir.errors import DataError
from rsir.geo.georeference import ignore_not_georeferenced
from rsir.scenes.scene import Scene
from rsir.scenes.tiling import Tiling
from rsir.sources.find import source
from rsir.store.records.record import Record
from tests.support.colour_encoder import ColourEncoder

UTM = Affine(10, 0, 600_000, 0, -10, 5_000_000)
TILING = Tiling(size=64)


def land(height=128, width=192, seed=0):
    return np.random.default_rng(seed).integers(1, 255, (3, height, width)).astype(np.uint8)


def write(path, pixels, **options):
    ignore_not_georeferenced()
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    if count == 3:
        options = {"photometric": "rgb", **options}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, width=width, height=height, dtype=pixels.dtype,
        transform=UTM, crs="EPSG:32633", **options,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


def blocks(path, pixels):
    """64 × 64 blocks, so that each window is in one, which can be damaged."""
    return write(path, pixels, compress="deflate", tiled=True, blockxsize=64, blockysize=64)


def damage(path, *places):
    """Overwrite the start of the blocks at (column, row), in blocks."""
    data = bytearray(path.read_bytes())
    with rasterio.open(path) as dataset:
        for column, row in places:
            start = int(dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1))
            data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)


def item(path, assets, **properties):
    """Write a STAC item; assets: key to (href, role)."""
    document = {
        "type": "Feature", "stac_version": "1.0.0", "id": "one", "geometry": None, "links": [],
        "properties": {"datetime": "2024-05-06T07:08:09Z"} | properties,
        "assets": {
            key: {"href": str(href), "type": "image/tiff", "roles": [role]}
            for key, (href, role) in assets.items()
        },
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def contents(archive):
    records = list(archive.records())
    vectors = archive.vectors([r.id for r in records])
    return {r.id: (r, v.tobytes()) for r, v in zip(records, vectors, strict=True)}


def fresh(tmp_path, *paths, **options):
    archive = Archive.create(tmp_path / "fresh", ColourEncoder())
    archive.add(paths, **options)
    return contents(archive)


def names(archive):
    return {Path(record.source).name for record in archive.records()}


@pytest.fixture
def archive(tmp_path):
    return Archive.create(tmp_path / "archive", ColourEncoder())


# What is said of a scene


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"eo:cloud_cover": 3}, {"eo:cloud_cover": 40}),
        ({}, {"datetime": "2025-01-01T00:00:00Z"}),
        ({"platform": "a", "eo:cloud_cover": 3}, {}),
        ({}, {"platform": "a", "constellation": "b"}),
    ],
)
def test_new_metadata_of_a_stac_item_reach_the_records_without_encoding(
    archive, tmp_path, monkeypatch, before, after
):
    scene = write(tmp_path / "a.tif", land())
    write(tmp_path / "b.tif", land(seed=1))
    path = item(tmp_path / "item.json", {"visual": (scene, "visual")}, **before)
    archive.add([path, tmp_path / "b.tif"], tiling=TILING)
    old, encoded = contents(archive), archive.encoder.encoded
    item(path, {"visual": (scene, "visual")}, **after)
    with monkeypatch.context() as patched:
        patched.setattr(Scene, "read", None)
        report = archive.add([path, tmp_path / "b.tif"], tiling=TILING)
    assert (report.replaced, report.unchanged, report.added, report.tiles) == (1, 1, 0, 0)
    assert report.skipped == ()
    assert archive.encoder.encoded == encoded
    new = contents(archive)
    assert new == fresh(tmp_path, path, tmp_path / "b.tif", tiling=TILING)
    assert new != old
    version = archive.info()["version"]
    again = archive.add([path, tmp_path / "b.tif"], tiling=TILING)
    assert (again.unchanged, again.replaced, archive.info()["version"]) == (2, 0, version)


def test_a_touched_scene_with_new_metadata_gets_both(archive, tmp_path):
    scene = write(tmp_path / "a.tif", land())
    path = item(tmp_path / "item.json", {"visual": (scene, "visual")})
    archive.add(path, tiling=TILING)
    os.utime(scene, (1_700_000_000, 1_700_000_000))
    item(path, {"visual": (scene, "visual")}, platform="a")
    assert archive.add(path, tiling=TILING).replaced == 1
    assert contents(archive) == fresh(tmp_path, path, tiling=TILING)
    assert {r.mtime_ns for r in archive.records()} == {1_700_000_000 * 10**9}


def test_what_json_does_not_know_is_left_out_and_what_is_no_text_is_told(archive, tmp_path):
    scene = write(tmp_path / "a.tif", land())
    nan = item(tmp_path / "nan.json", {"v": (scene, "visual")}, **{"eo:cloud_cover": float("nan")})
    odd = item(tmp_path / "odd.json", {"v": (scene, "visual")}, platform="\ud800")
    report = archive.add(tmp_path / "nan.json", tiling=TILING)
    assert report.added == 1
    assert all("eo:cloud_cover" not in r.properties for r in archive.records())
    catalogue = {
        "type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "c",
        "links": [{"rel": "item", "href": str(path)} for path in (nan, odd)],
    }  # fmt: skip
    (tmp_path / "catalog.json").write_text(json.dumps(catalogue))
    report = archive.add(tmp_path / "catalog.json", tiling=TILING)
    assert (report.unchanged, [s.path for s in report.skipped]) == (1, [str(odd)])


# What is left of a scene


def test_a_changed_scene_without_a_tile_left_loses_its_old_ones(archive, tmp_path):
    path = write(tmp_path / "a.tif", land(), nodata=0)
    other = write(tmp_path / "b.tif", land(seed=1))
    archive.add(tmp_path, tiling=TILING)
    assert len(archive) == 12
    write(path, np.zeros_like(land()), nodata=0)
    report = archive.add(tmp_path, tiling=TILING)
    told = "no tile of it is left: 6 nodata; what it held before is removed, 6 in all"
    assert report.skipped == (Skipped(str(path), told),)
    assert (report.replaced, report.unchanged) == (0, 1)
    assert {r.source for r in archive.records()} == {str(other)}
    assert contents(archive) == fresh(tmp_path, other, tiling=TILING)


def test_a_changed_scene_all_under_cloud_loses_its_old_tiles(archive, tmp_path):
    scene, mask = write(tmp_path / "s" / "a.tif", land()), tmp_path / "m" / "a.tif"
    write(mask, np.zeros((1, 128, 192), np.uint8))
    tiling = Tiling(size=64, cloud_mask=f"{tmp_path}/m/{{stem}}.tif")
    archive.add(tmp_path / "s", tiling=tiling)
    write(scene, land(seed=2))
    write(mask, np.ones((1, 128, 192), np.uint8))
    report = archive.add(tmp_path / "s", tiling=tiling)
    assert "6 cloud; what it held before is removed, 6 in all" in report.skipped[0].reason
    assert len(archive) == 0


def test_an_unchanged_scene_that_leaves_no_tile_when_cut_anew_keeps_what_it_has(archive, tmp_path):
    pixels = land()
    pixels[:, :, ::2] = 0
    path = write(tmp_path / "a.tif", pixels, nodata=0)
    archive.add(path, tiling=Tiling(size=64, min_valid=0.4))
    before = contents(archive)
    report = archive.add(path, tiling=Tiling(size=32, min_valid=0.9))
    assert report.skipped == (Skipped(str(path), "no tile of it is left: 24 nodata"),)
    assert contents(archive) == before


def test_where_a_changed_scene_is_damaged_its_old_tiles_stay(archive, tmp_path):
    path = blocks(tmp_path / "a.tif", land())
    archive.add(path, tiling=TILING)
    before = contents(archive)
    assert len(before) == 6
    blocks(path, land(seed=1))
    mended = path.read_bytes()
    damage(path, (0, 0), (2, 1))
    for outcome in ("replaced", "unchanged"):
        report = archive.add(path, tiling=TILING)
        assert getattr(report, outcome) == 1
        assert report.left_out == {"damaged": 2}
        assert len(report.skipped) == 1
        after = contents(archive)
        kept = [record.properties["window"] for id, (record, _) in after.items() if id in before]
        assert sorted(kept) == [[0, 0, 64, 64], [128, 64, 64, 64]]
        assert {id: after[id] for id in before.keys() & after} == {
            id: before[id] for id in before.keys() & after
        }
        windows = sorted(record.properties["window"] for record, _ in after.values())
        assert windows == [[c, r, 64, 64] for c in (0, 64, 128) for r in (0, 64)]
    path.write_bytes(mended)
    assert archive.add(path, tiling=TILING).replaced == 1
    assert contents(archive).keys() == fresh(tmp_path, path, tiling=TILING).keys()


def test_windows_meet():
    """Against the pixels that they hold."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        windows = np.concatenate([rng.integers(0, 8, (3, 2)), rng.integers(1, 5, (3, 2))], axis=1)
        pixels = [
            {(x, y) for x in range(c, c + w) for y in range(r, r + h)} for c, r, w, h in windows
        ]
        wanted = any(one & pixels[0] for one in pixels[1:])
        assert indexer._overlaps(windows[1:], windows[0].tolist()) == wanted
    assert indexer._overlaps(windows, None)


def test_an_item_without_the_asset_of_the_cloud_mask_says_so(archive, tmp_path):
    scene = write(tmp_path / "a.tif", land())
    path = item(tmp_path / "item.json", {"tci": (scene, "visual"), "small": (scene, "thumbnail")})
    report = archive.add(path, tiling=Tiling(size=64, cloud_mask="scl"))
    (skipped,) = report.skipped
    assert skipped.path == str(path)
    assert skipped.reason == "has no asset 'scl' for a cloud mask; it has tci, small"


@pytest.mark.parametrize("how", ["damaged all over", "no image", "gone", "no mask"])
def test_a_scene_that_cannot_be_read_keeps_its_tiles(archive, tmp_path, how):
    path = blocks(tmp_path / "a.tif", land())
    archive.add(path, tiling=TILING)
    before = contents(archive)
    tiling = TILING
    blocks(path, land(seed=1))
    if how == "damaged all over":
        damage(path, *((c, r) for c in range(3) for r in range(2)))
    elif how == "no image":
        path.write_bytes(b"<html>sorry</html>" * 10)
    elif how == "no mask":
        tiling = Tiling(size=64, cloud_mask="{folder}/none/{stem}.tif")
    names = [path]
    if how == "gone":
        # Named by a list, for a missing file is refused at once.
        names = [item(tmp_path / "item.json", {"v": (path, "visual")})]
        archive.add(names, tiling=TILING)
        before = contents(archive)
        path.unlink()
    report = archive.add(names, tiling=tiling)
    assert len(report.skipped) == 1
    assert contents(archive) == before


# What is told of a scene


def test_damaged_windows_of_a_scene_are_one_line(archive, tmp_path):
    path = blocks(tmp_path / "a.tif", land(256, 320))
    other = blocks(tmp_path / "b.tif", land(64, 128))
    damage(path, *((c, r) for c in range(5) for r in range(3)))
    damage(other, (1, 0))
    report = archive.add(tmp_path, tiling=TILING)
    assert (report.added, report.left_out, len(archive)) == (2, {"damaged": 16}, 6)
    first, second = report.skipped
    assert (first.path, second.path) == (str(path), str(other))
    start = "15 windows, [0, 0, 64, 64], [64, 0, 64, 64], [128, 0, 64, 64], …: cannot be read"
    assert first.reason.startswith(start)
    assert second.reason.startswith("window [64, 0, 64, 64]: cannot be read")
    last = json.loads((tmp_path / "archive" / "last-index.json").read_text())
    assert last["skipped"] == [{"path": s.path, "reason": s.reason} for s in report.skipped]


def test_reasons_that_differ_in_numbers_alone_are_one():
    progress = SourceProgress("/a.tif", {})
    windows = [(64 * n, 0, 64, 64) for n in range(2000)]
    for n, window in enumerate(windows):
        progress.refuse(window, f"/a.tif: window {window} cannot be read (at {n * 7})")
        if n % 2:
            progress.refuse(window, "is too bright")
    first, second = progress.refused.values()
    assert (first.count, second.count) == (2000, 1000)
    assert (first.windows, second.windows) == (
        windows[:LISTED_WINDOWS],
        windows[1 : 2 * LISTED_WINDOWS : 2],
    )
    assert first.reason == "cannot be read (at 0)"
    assert re.fullmatch(r"1000 windows, (\[\d+, 0, 64, 64\], ){3}…: is too bright", str(second))


# What is in a folder and is no scene


def test_masks_in_a_folder_are_left_out_and_listed(archive, tmp_path):
    folder = tmp_path / "scenes"
    mask = np.zeros((1, 128, 192), np.uint8)
    mask[:, :, :64] = 9
    for name in ("a", "b"):
        write(folder / f"{name}.tif", land(seed=ord(name)))
        write(folder / f"{name}_scl.tif", mask)
    # Found by what Tiling says of it alone: its name says nothing.
    write(folder / "deep" / "c.tif", land(seed=2))
    write(folder / "deep" / "c-x.tif", mask)
    write(folder / "lone_mask.tif", land(seed=3))
    report = archive.add(folder, tiling=TILING)
    assert names(archive) == {"a.tif", "b.tif", "c.tif", "c-x.tif", "lone_mask.tif"}
    assert report.masks == tuple(
        Skipped(
            str(folder / f"{name}_scl.tif"),
            f"is a mask of {folder / name}.tif; named alone it is taken for a scene",
        )
        for name in ("a", "b")
    )
    assert json.loads((tmp_path / "archive" / "last-index.json").read_text())["masks"] == [
        {"path": s.path, "reason": s.reason} for s in report.masks
    ]
    other = Archive.create(tmp_path / "other", ColourEncoder())
    template = "{folder}/{stem}-x.tif"
    report = other.add(folder / "deep", tiling=Tiling(size=64, cloud_mask=template, max_cloud=0.9))
    assert names(other) == {"c.tif"}
    assert [Path(s.path).name for s in report.masks] == ["c-x.tif"]
    assert (report.added, report.left_out, report.skipped) == (1, {"cloud": 2}, ())
    # Named alone it is a scene like any other.
    assert other.add(folder / "a_scl.tif", tiling=TILING).added == 1


def test_a_folder_that_cannot_be_listed_is_told_and_the_rest_is_indexed(
    archive, tmp_path, monkeypatch
):
    for name in ("top", "open/a", "closed/b", "closed/deep/c", "zoo/d"):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(land(32, 32, seed=len(name)).transpose(1, 2, 0)).save(path)
    archive.add(tmp_path / "set")
    before = contents(archive)
    assert len(before) == 5
    scandir, closed = os.scandir, tmp_path / "set" / "closed"

    def refusing(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    report = archive.add(tmp_path / "set")
    reason = "cannot be looked at (Permission denied); check its permissions"
    assert report.skipped == (Skipped(str(closed), reason),)
    assert (report.unchanged, report.complete) == (3, True)
    assert contents(archive) == before
    with pytest.raises(DataError, match=r"closed: cannot be looked at \(Permission denied\)"):
        archive.add([tmp_path / "set" / "open", closed])


def test_a_scene_in_a_folder_that_may_not_be_looked_into_is_told(archive, tmp_path, monkeypatch):
    """The asset of an item; the system's answer, as Python raises it, stands in for one."""
    scene = write(tmp_path / "a.tif", land())
    path = item(tmp_path / "item.json", {"v": (tmp_path / "closed" / "b.tif", "visual")})
    stat = Path.stat

    def refused(self, **options):
        if self.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", refused)
    report = archive.add([scene, path], tiling=TILING)
    assert (report.added, [s.path for s in report.skipped]) == (1, [str(path)])
    assert "Permission denied" in report.skipped[0].reason
    with pytest.raises(DataError, match="Permission denied"):
        source(tmp_path / "closed" / "b.tif")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_permissions_of_the_system_are_told_too(archive, tmp_path):
    for name in ("a", "closed/b", "unsearchable/c"):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(land(32, 32, seed=len(name)).transpose(1, 2, 0)).save(path)
    (tmp_path / "set" / "closed").chmod(0)
    (tmp_path / "set" / "unsearchable").chmod(0o444)
    try:
        report = archive.add(tmp_path / "set")
    finally:
        for name in ("closed", "unsearchable"):
            (tmp_path / "set" / name).chmod(0o755)
    assert (report.added, len(report.skipped)) == (1, 2)
    assert all("ermission" in skipped.reason for skipped in report.skipped)


# Names that mislead


def test_a_folder_that_looks_like_an_item_of_a_list(archive, tmp_path):
    """`x.json#1` is a folder; neither it nor what is in it is an item of `x.json`."""
    folder = tmp_path / "x.json#1"
    write(folder / "a.tif", land())
    (tmp_path / "x.json").write_text("{}")
    item(folder / "item.json", {"v": ("./a.tif", "visual")})
    for name in (folder / "a.tif", folder, folder / "item.json"):
        assert archive.add(name, tiling=TILING).skipped == ()
    assert len(archive) == 12
    for record in archive.records():
        column, row, width, height = record.properties["window"]
        part = land()[:, row : row + height, column : column + width]
        assert (archive.thumbnail(record.id, 64) == part).all()


def test_what_was_imported_of_a_remote_scene_does_not_stand_for_it(archive, monkeypatch):
    """A record without a stamp says nothing of how the file is now."""
    uri = "https://nowhere.invalid/a.tif"
    archive.store.add([Record("theirs", uri, "")], np.ones((1, 16), np.float32))
    asked = []

    def opened(source, bands=None):
        asked.append(source.uri)
        raise DataError(f"{uri}: does not answer")

    monkeypatch.setattr(Scene, "open", opened)
    report = archive.add(uri)
    assert (report.unchanged, asked) == (0, [uri])
    assert report.skipped == (Skipped(uri, "does not answer"),)
    assert len(archive) == 1


def test_without_gdal_a_tiling_is_refused_file_by_file(archive, tmp_path, monkeypatch):
    Image.fromarray(land(32, 32).transpose(1, 2, 0)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    report = archive.add(tmp_path / "a.png", tiling=TILING)
    assert [s.path for s in report.skipped] == [str(tmp_path / "a.png")]
    assert "rsir[geo]" in report.skipped[0].reason
