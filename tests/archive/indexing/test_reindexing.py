"""A second run over changed sources: records against those of a new archive of the same files.

Also: what a run skips and leaves out, and how its report lists that.
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
from PIL import Image

from rsir.archive import Archive, Skipped
from rsir.archive.indexing import indexer
from rsir.archive.indexing.progress import LISTED_WINDOWS, SourceProgress
from rsir.errors import DataError
from rsir.scenes.scene import Scene
from rsir.scenes.tiling import Tiling
from rsir.sources.find import source
from rsir.store.records.record import Record
from tests.support.archives import contents_by_id
from tests.support.colour_encoder import ColourEncoder
from tests.support.images import write_scene

TILING = Tiling(size=64)


def land(height=128, width=192, seed=0):
    return np.random.default_rng(seed).integers(1, 255, (3, height, width)).astype(np.uint8)


def blocks(path, pixels):
    """Write blocks of 64 × 64 pixels: each window is one block, which `damage` can damage."""
    return write_scene(path, pixels, compress="deflate", tiled=True, blockxsize=64, blockysize=64)


def damage(path, *blocks):
    """Overwrite the start of blocks; each is (column, row), counted in blocks."""
    data = bytearray(path.read_bytes())
    with rasterio.open(path) as dataset:
        for column, row in blocks:
            start = int(dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1))
            data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)


def item(path, assets, **properties):
    """Write a STAC item; assets: key to (href, role)."""
    document = {
        "type": "Feature", "stac_version": "1.0.0", "id": "item", "geometry": None, "links": [],
        "properties": {"datetime": "2024-05-06T07:08:09Z"} | properties,
        "assets": {
            key: {"href": str(href), "type": "image/tiff", "roles": [role]}
            for key, (href, role) in assets.items()
        },
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def fresh(tmp_path, *paths, **options):
    archive = Archive.create(tmp_path / "fresh", ColourEncoder())
    archive.add(paths, **options)
    return contents_by_id(archive)


def names(archive):
    return {Path(record.source).name for record in archive.records()}


@pytest.fixture
def archive(tmp_path):
    return Archive.create(tmp_path / "archive", ColourEncoder())


# Metadata of STAC items


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"eo:cloud_cover": 3}, {"eo:cloud_cover": 40}),
        ({}, {"datetime": "2025-01-01T00:00:00Z"}),
        ({"platform": "a", "eo:cloud_cover": 3}, {}),
        ({}, {"platform": "a", "constellation": "b"}),
    ],
)
def test_new_metadata_of_a_stac_item_updates_the_records_without_encoding(
    archive, tmp_path, monkeypatch, before, after
):
    scene = write_scene(tmp_path / "a.tif", land())
    write_scene(tmp_path / "b.tif", land(seed=1))
    path = item(tmp_path / "item.json", {"visual": (scene, "visual")}, **before)
    archive.add([path, tmp_path / "b.tif"], tiling=TILING)
    old, encoded = contents_by_id(archive), archive.encoder.encoded
    item(path, {"visual": (scene, "visual")}, **after)
    with monkeypatch.context() as patched:
        patched.setattr(Scene, "read", None)
        report = archive.add([path, tmp_path / "b.tif"], tiling=TILING)
    assert (report.replaced, report.unchanged, report.added, report.tiles) == (1, 1, 0, 0)
    assert report.skipped == ()
    assert archive.encoder.encoded == encoded
    new = contents_by_id(archive)
    assert new == fresh(tmp_path, path, tmp_path / "b.tif", tiling=TILING)
    assert new != old
    version = archive.info()["version"]
    again = archive.add([path, tmp_path / "b.tif"], tiling=TILING)
    assert (again.unchanged, again.replaced, archive.info()["version"]) == (2, 0, version)


@pytest.mark.slow
def test_a_touched_scene_with_new_metadata_gets_both(archive, tmp_path):
    scene = write_scene(tmp_path / "a.tif", land())
    path = item(tmp_path / "item.json", {"visual": (scene, "visual")})
    archive.add(path, tiling=TILING)
    os.utime(scene, (1_700_000_000, 1_700_000_000))
    item(path, {"visual": (scene, "visual")}, platform="a")
    assert archive.add(path, tiling=TILING).replaced == 1
    assert contents_by_id(archive) == fresh(tmp_path, path, tiling=TILING)
    assert {r.mtime_ns for r in archive.records()} == {1_700_000_000 * 10**9}


def test_metadata_that_json_or_utf8_cannot_hold(archive, tmp_path):
    scene = write_scene(tmp_path / "a.tif", land())
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


# Scenes that lose tiles


@pytest.mark.slow
def test_a_changed_scene_without_a_tile_left_loses_its_old_ones(archive, tmp_path):
    path = write_scene(tmp_path / "a.tif", land(), nodata=0)
    other = write_scene(tmp_path / "b.tif", land(seed=1))
    archive.add(tmp_path, tiling=TILING)
    assert len(archive) == 12
    write_scene(path, np.zeros_like(land()), nodata=0)
    report = archive.add(tmp_path, tiling=TILING)
    reason = "no tile of it is left: 6 nodata; its 6 old tiles are removed"
    assert report.skipped == (Skipped(str(path), reason),)
    assert (report.replaced, report.unchanged) == (0, 1)
    assert {r.source for r in archive.records()} == {str(other)}
    assert contents_by_id(archive) == fresh(tmp_path, other, tiling=TILING)


def test_a_changed_scene_all_under_cloud_loses_its_old_tiles(archive, tmp_path):
    scene, mask = write_scene(tmp_path / "s" / "a.tif", land()), tmp_path / "m" / "a.tif"
    write_scene(mask, np.zeros((1, 128, 192), np.uint8))
    tiling = Tiling(size=64, cloud_mask=f"{tmp_path}/m/{{stem}}.tif")
    archive.add(tmp_path / "s", tiling=tiling)
    write_scene(scene, land(seed=2))
    write_scene(mask, np.ones((1, 128, 192), np.uint8))
    report = archive.add(tmp_path / "s", tiling=tiling)
    assert "6 cloud; its 6 old tiles are removed" in report.skipped[0].reason
    assert len(archive) == 0


def test_an_unchanged_scene_without_a_tile_of_a_new_tiling_keeps_its_old_tiles(archive, tmp_path):
    pixels = land()
    pixels[:, :, ::2] = 0
    path = write_scene(tmp_path / "a.tif", pixels, nodata=0)
    archive.add(path, tiling=Tiling(size=64, min_valid=0.4))
    before = contents_by_id(archive)
    report = archive.add(path, tiling=Tiling(size=32, min_valid=0.9))
    assert report.skipped == (Skipped(str(path), "no tile of it is left: 24 nodata"),)
    assert contents_by_id(archive) == before


@pytest.mark.slow
def test_where_a_changed_scene_is_damaged_its_old_tiles_stay(archive, tmp_path):
    path = blocks(tmp_path / "a.tif", land())
    archive.add(path, tiling=TILING)
    before = contents_by_id(archive)
    assert len(before) == 6
    blocks(path, land(seed=1))
    mended = path.read_bytes()
    damage(path, (0, 0), (2, 1))
    for outcome in ("replaced", "unchanged"):
        report = archive.add(path, tiling=TILING)
        assert getattr(report, outcome) == 1
        assert report.left_out == {"damaged": 2}
        assert len(report.skipped) == 1
        after = contents_by_id(archive)
        old = [record.properties["window"] for id, (record, _) in after.items() if id in before]
        assert sorted(old) == [[0, 0, 64, 64], [128, 64, 64, 64]]
        assert {id: after[id] for id in before.keys() & after} == {
            id: before[id] for id in before.keys() & after
        }
        windows = sorted(record.properties["window"] for record, _ in after.values())
        assert windows == [[c, r, 64, 64] for c in (0, 64, 128) for r in (0, 64)]
    path.write_bytes(mended)
    assert archive.add(path, tiling=TILING).replaced == 1
    assert contents_by_id(archive).keys() == fresh(tmp_path, path, tiling=TILING).keys()


def test_windows_overlap_if_they_share_a_pixel():
    rng = np.random.default_rng(0)
    for _ in range(300):
        windows = np.concatenate([rng.integers(0, 8, (3, 2)), rng.integers(1, 5, (3, 2))], axis=1)
        pixels = [
            {(x, y) for x in range(c, c + w) for y in range(r, r + h)} for c, r, w, h in windows
        ]
        wanted = any(other & pixels[0] for other in pixels[1:])
        assert indexer._overlaps(windows[1:], windows[0].tolist()) == wanted
    assert indexer._overlaps(windows, None)


def test_an_item_without_the_asset_of_the_cloud_mask_is_skipped(archive, tmp_path):
    scene = write_scene(tmp_path / "a.tif", land())
    path = item(tmp_path / "item.json", {"tci": (scene, "visual"), "small": (scene, "thumbnail")})
    report = archive.add(path, tiling=Tiling(size=64, cloud_mask="scl"))
    (skipped,) = report.skipped
    assert skipped.path == str(path)
    assert skipped.reason == "has no asset 'scl' for a cloud mask; it has tci, small"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["damaged all over", "no image", "gone", "no mask"])
def test_a_scene_that_cannot_be_read_keeps_its_tiles(archive, tmp_path, fault):
    path = blocks(tmp_path / "a.tif", land())
    archive.add(path, tiling=TILING)
    before = contents_by_id(archive)
    tiling = TILING
    blocks(path, land(seed=1))
    if fault == "damaged all over":
        damage(path, *((c, r) for c in range(3) for r in range(2)))
    elif fault == "no image":
        path.write_bytes(b"<html>sorry</html>" * 10)
    elif fault == "no mask":
        tiling = Tiling(size=64, cloud_mask="{folder}/none/{stem}.tif")
    names = [path]
    if fault == "gone":
        # In a STAC item, because `add` raises an error for a missing file.
        names = [item(tmp_path / "item.json", {"v": (path, "visual")})]
        archive.add(names, tiling=TILING)
        before = contents_by_id(archive)
        path.unlink()
    report = archive.add(names, tiling=tiling)
    assert len(report.skipped) == 1
    assert contents_by_id(archive) == before


# Reasons in the report


def test_damaged_windows_of_a_scene_share_a_line(archive, tmp_path):
    path = blocks(tmp_path / "a.tif", land(256, 320))
    other = blocks(tmp_path / "b.tif", land(64, 128))
    damage(path, *((c, r) for c in range(5) for r in range(3)))
    damage(other, (1, 0))
    report = archive.add(tmp_path, tiling=TILING)
    assert (report.added, report.left_out, len(archive)) == (2, {"damaged": 16}, 6)
    first, second = report.skipped
    assert (first.path, second.path) == (str(path), str(other))
    start = "15 windows, [0, 0, 64, 64], [64, 0, 64, 64], [128, 0, 64, 64], …: damaged or cut off"
    assert first.reason.startswith(start)
    assert second.reason.startswith("window [64, 0, 64, 64]: damaged or cut off")
    last = json.loads((tmp_path / "archive" / "last-index.json").read_text())
    assert last["skipped"] == [{"path": s.path, "reason": s.reason} for s in report.skipped]


def test_reasons_that_differ_only_in_numbers_share_a_line():
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


# Masks and closed folders


@pytest.mark.slow
def test_masks_in_a_folder_are_left_out_and_listed(archive, tmp_path):
    folder = tmp_path / "scenes"
    mask = np.zeros((1, 128, 192), np.uint8)
    mask[:, :, :64] = 9
    for name in ("a", "b"):
        write_scene(folder / f"{name}.tif", land(seed=ord(name)))
        write_scene(folder / f"{name}_scl.tif", mask)
    # Only the tiling says that this is a mask; its name does not.
    write_scene(folder / "deep" / "c.tif", land(seed=2))
    write_scene(folder / "deep" / "c-x.tif", mask)
    write_scene(folder / "lone_mask.tif", land(seed=3))
    report = archive.add(folder, tiling=TILING)
    assert names(archive) == {"a.tif", "b.tif", "c.tif", "c-x.tif", "lone_mask.tif"}
    assert report.masks == tuple(
        Skipped(
            str(folder / f"{name}_scl.tif"),
            f"is a mask of {folder / name}.tif; to index it as a scene, name it without that scene",
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
    # A mask that the user names is a scene like any other.
    assert other.add(folder / "a_scl.tif", tiling=TILING).added == 1


def test_a_folder_that_cannot_be_listed_is_skipped(archive, tmp_path, monkeypatch):
    for name in ("top", "open/a", "closed/b", "closed/deep/c", "zoo/d"):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(land(32, 32, seed=len(name)).transpose(1, 2, 0)).save(path)
    archive.add(tmp_path / "set")
    before = contents_by_id(archive)
    assert len(before) == 5
    scandir, closed = os.scandir, tmp_path / "set" / "closed"

    def refusing(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    report = archive.add(tmp_path / "set")
    reason = "cannot be read (Permission denied); check its permissions"
    assert report.skipped == (Skipped(str(closed), reason),)
    assert (report.unchanged, report.complete) == (3, True)
    assert contents_by_id(archive) == before
    with pytest.raises(DataError, match=r"closed: cannot be read \(Permission denied\)"):
        archive.add([tmp_path / "set" / "open", closed])


def test_an_asset_in_a_folder_without_read_permission_is_skipped(archive, tmp_path, monkeypatch):
    """Python's PermissionError stands for a folder without read permission."""
    scene = write_scene(tmp_path / "a.tif", land())
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folders_without_read_permission_are_skipped(archive, tmp_path):
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


# Misleading names and records


@pytest.mark.slow
def test_a_folder_that_looks_like_an_item_of_a_list(archive, tmp_path):
    """`x.json#1` is a folder; neither it nor its files are items of `x.json`."""
    folder = tmp_path / "x.json#1"
    write_scene(folder / "a.tif", land())
    (tmp_path / "x.json").write_text("{}")
    item(folder / "item.json", {"v": ("./a.tif", "visual")})
    for name in (folder / "a.tif", folder, folder / "item.json"):
        assert archive.add(name, tiling=TILING).skipped == ()
    assert len(archive) == 12
    for record in archive.records():
        column, row, width, height = record.properties["window"]
        part = land()[:, row : row + height, column : column + width]
        assert (archive.thumbnail(record.id, 64) == part).all()


def test_an_imported_record_does_not_make_a_remote_scene_known(archive, monkeypatch):
    """A record without size and time of change does not show whether the file is the same."""
    uri = "https://nowhere.invalid/a.tif"
    archive.store.add([Record("theirs", uri, "")], np.ones((1, 16), np.float32))
    opened_uris = []

    def opened(source, bands=None):
        opened_uris.append(source.uri)
        raise DataError(f"{uri}: does not answer")

    monkeypatch.setattr(Scene, "open", opened)
    report = archive.add(uri)
    assert (report.unchanged, opened_uris) == (0, [uri])
    assert report.skipped == (Skipped(uri, "does not answer"),)
    assert len(archive) == 1


def test_without_gdal_a_tiling_is_refused_file_by_file(archive, tmp_path, monkeypatch):
    Image.fromarray(land(32, 32).transpose(1, 2, 0)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    report = archive.add(tmp_path / "a.png", tiling=TILING)
    assert [s.path for s in report.skipped] == [str(tmp_path / "a.png")]
    assert "rsir[geo]" in report.skipped[0].reason
