"""What goes wrong at the edges: mistakes of the caller, other processes, odd scenes and servers."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from rsir.archive import Archive
from rsir.archive.indexing.pruning import without_file
from rsir.archive.search.feedback import refined
from rsir.archive.search.query import ById, ByWindow, Examples
from rsir.errors import ArchiveError, DataError, UsageError
from rsir.geo.georeference import ignore_not_georeferenced
from rsir.ranking import metric_named, packed, pairwise
from rsir.scenes import windows
from rsir.scenes.scene import Scene
from rsir.scenes.tile_cut import TileCut
from rsir.scenes.tiling import Tiling
from rsir.sources import file_state as files
from rsir.sources import remote
from rsir.store.filters.filter import Filter
from rsir.store.memory import ExactStore
from rsir.store.records.record import Record
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


def in_memory(records, vectors, metric="euclidean"):
    dimension = 8 if metric_named(metric).kind == "bits" else vectors.shape[1]
    store = ExactStore(metric, dimension)
    store.add(records, vectors)
    about = {"fingerprint": "made up", "bands": ["red", "green", "blue"]}
    return Archive(Path("in memory"), about, store, None)


# What is asked


@pytest.mark.parametrize(
    "window",
    [
        {"window": (0, 0, 5)},
        {"window": "abcd"},
        {"window": (0, 0, 1.5, 2)},
        {"window": (0, 0, float("nan"), 5)},
        {"window": 5},
        {"bbox": (1, 2, 3)},
        {"bbox": (None, 1, 2, 3)},
        {"bbox": (0, 0, float("inf"), 1)},
        {"point": (1,), "size": 5},
        {"point": (1, 2), "size": "a"},
        {"point": (1, 2), "size": float("nan")},
    ],
)
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(UsageError, match="not"):
        ByWindow("a.tif", **window)


@pytest.mark.parametrize("one", ["a.png", Path("a.png"), ById("a"), ByWindow("a", (0, 0, 1, 1))])
def test_one_example_is_not_taken_for_several(one):
    with pytest.raises(UsageError, match="list of examples"):
        Examples(like=one)
    with pytest.raises(UsageError, match="list of examples"):
        Examples(unlike=one)


def test_examples_may_come_from_a_generator():
    vectors = np.eye(4, dtype=np.float32)
    archive = in_memory([Record(f"r{i}", "s", "c") for i in range(4)], vectors)
    several = Examples(like=(ById(f"r{i}") for i in range(2)), query=vectors[2])
    alone = Examples(like=[ById("r0"), ById("r1")], query=vectors[2])
    found, wanted = archive.search_many([several, alone, vectors[3]], 4)[:2]
    assert [hit.id for hit in found] == [hit.id for hit in wanted]
    assert found.distances.tolist() == wanted.distances.tolist()


@pytest.mark.parametrize("where", ["source = '\udcff'", "source LIKE '\udcff%'", '"\udcff" = 1'])
def test_a_condition_that_is_not_unicode_is_refused(where):
    with pytest.raises(UsageError, match="not valid Unicode"):
        Filter(where=where)


def test_classes_and_windows_that_are_not_unicode_are_refused(tmp_path):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(chip(tmp_path / "a.png"))
    with pytest.raises(UsageError, match="not valid Unicode"):
        archive.count(Filter(classes=["\udcff"]))
    with pytest.raises(UsageError, match="not valid Unicode"):
        archive.search(ByWindow("/\udcff.tif", window=(0, 0, 8, 8)))


def test_a_time_before_the_first_year_is_refused():
    with pytest.raises(UsageError, match="years 1 to 9999"):
        Filter(where="datetime > '0001-01-01T00:00:00+10:00'")


# What is found


def test_hits_by_hamming_have_scores_by_hamming():
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (30, 1)).astype(np.uint8)
    chances = np.full((30, 2), 0.5, np.float32)
    records = [Record(f"{i:02}", "s", "c") for i in range(30)]
    archive = in_memory(records, packed(codes, chances), "adaptive-hamming:2")
    for hit in archive.search(ById("00"), 29, ranking="hamming"):
        differing = (np.unpackbits(codes[0]) != np.unpackbits(codes[int(hit.id)])).sum()
        assert hit.distance == differing
        assert hit.score == 1 - differing / 8


def test_diverse_goes_on_where_many_are_the_same():
    # Of each of 6 vectors 300 copies: what is new lies beyond the first look.
    random = np.random.default_rng(1)
    few = random.standard_normal((6, 4)).astype(np.float32)
    order = random.permutation(1800)
    vectors = few[order % 6]
    archive = in_memory([Record(f"{i:04}", "s", "c") for i in range(1800)], vectors)
    far = pairwise("euclidean", few[:1], few)[0]
    for k in (1, 4, 6, 10):
        hits = archive.search(few[0], k, diverse=True)
        assert hits.distances.tolist() == sorted(far)[:k]
        # Of equal ones the first by id.
        firsts = {group: min(f"{i:04}" for i in np.flatnonzero(order % 6 == group))
                  for group in range(6)}  # fmt: skip
        assert [hit.id for hit in hits] == [firsts[group] for group in np.argsort(far)[:k]]


def test_diverse_does_not_read_a_whole_archive_of_the_same(monkeypatch):
    monkeypatch.setattr("rsir.archive.search.search._FARTHEST", 50)
    vectors = np.zeros((400, 4), np.float32)
    vectors[-1] = 1
    archive = in_memory([Record(f"{i:03}", "s", "c") for i in range(400)], vectors)
    asked = []
    real = ExactStore.search

    def spy(self, queries, k, **more):
        asked.append(k)
        return real(self, queries, k, **more)

    monkeypatch.setattr(ExactStore, "search", spy)
    assert [hit.id for hit in archive.search(vectors[0], 5, diverse=True)] == ["000"]
    assert asked == [5, 20, 50]


def test_diverse_repairs_footprints_that_cross_themselves():
    def bow(x):
        ring = [[x, 0], [x + 2, 2], [x + 2, 0], [x, 2], [x, 0]]
        return {"type": "Polygon", "coordinates": [ring]}

    records = [Record(f"{i}", "s", "c", footprint=bow(x)) for i, x in enumerate((0, 0.1, 50))]
    archive = in_memory(records, np.eye(3, dtype=np.float32))
    assert [hit.id for hit in archive.search(ById("2"), 3, diverse=True)] == ["0"]
    assert [hit.id for hit in archive.search(np.eye(3)[0], 3, diverse=True)] == ["0", "2"]


def test_diverse_leaves_out_what_is_deleted_meanwhile(monkeypatch):
    vectors = np.arange(40, dtype=np.float32).reshape(20, 2)
    archive = in_memory([Record(f"{i:02}", "s", "c") for i in range(20)], vectors)
    real = ExactStore.search

    def spy(self, *asked, **more):
        found = real(self, *asked, **more)
        self.delete(["01", "04"])
        return found

    monkeypatch.setattr(ExactStore, "search", spy)
    hits = archive.search(vectors[0], 6, diverse=True)
    assert [hit.id for hit in hits] == ["00", "02", "03", "05", "06", "07"]


def test_hits_that_can_no_longer_be_read_say_so(tmp_path):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    for i in range(3):
        chip(tmp_path / f"{i}.png", i)
    archive.add([tmp_path / f"{i}.png" for i in range(3)])
    hits = archive.search(tmp_path / "0.png", 3)
    shutil.move(tmp_path / "archive", tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="gone"):
        hits[0]


def test_examples_that_cancel_each_other_out_but_for_rounding_are_refused():
    angles = 0.3 + 2 * np.pi * np.arange(3) / 3
    three = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    nothing = np.empty((0, 2), np.float32)
    assert np.abs(three.astype(np.float64).sum(axis=0)).max() > 0
    with pytest.raises(UsageError, match="cancel"):
        refined("cosine", 2, None, three, nothing)
    # What is left of the first two is the third, turned round.
    found = refined("cosine", 2, None, three[:2], nothing)
    assert found / np.linalg.norm(found) == pytest.approx(-three[2], abs=1e-6)
    # Lengths count by Euclid, and may be small.
    assert refined("euclidean", 2, None, three[:2] * 1e-9, nothing).any()


# Where it is

DEGREES = "EPSG:4326"


@pytest.mark.parametrize(
    ("transform", "crs", "asked", "wanted"),
    [
        # 170° to 190°, and -190° to -170°: the antimeridian is in the middle, at column 200.
        (Affine(0.05, 0, 170, 0, -0.05, 5), DEGREES, (-179, -1, -178, 1), (220, 80, 20, 40)),
        (Affine(0.05, 0, 170, 0, -0.05, 5), DEGREES, (179, -1, -179, 1), (180, 80, 40, 40)),
        (Affine(0.05, 0, -190, 0, -0.05, 5), DEGREES, (178, -1, 179, 1), (160, 80, 20, 40)),
        (Affine(0.05, 0, -190, 0, -0.05, 5), DEGREES, (179, -1, -179, 1), (180, 80, 40, 40)),
        (Affine(0.05, 0, -190, 0, -0.05, 5), DEGREES, (-179, -1, -178, 1), (220, 80, 20, 40)),
        # 0° to 360°.
        (Affine(0.9, 0, 0, 0, -0.9, 90), DEGREES, (-90, 0, -81, 9), (300, 90, 10, 10)),
        (Affine(0.9, 0, 0, 0, -0.9, 90), DEGREES, (81, 0, 90, 9), (90, 90, 10, 10)),
        # Web Mercator, 100 pixels to either side of 180°.
        (Affine(4e3, 0, 20037508.342789244 - 8e5, 0, -4e3, 4e5), "EPSG:3857",
         (179, 0, -179, 1), (172, 72, 56, 28)),
        # UTM zone 1 begins there.
        (Affine(1000, 0, 0, 0, -1000, 100_000), "EPSG:32601",
         (179.5, 0, -179.5, 0.5), (110, 44, 112, 56)),
    ],
)  # fmt: skip
def test_a_box_finds_its_place_on_either_side_of_the_antimeridian(
    tmp_path, monkeypatch, transform, crs, asked, wanted
):
    path = scene(tmp_path / "a.tif", transform, crs)
    read = []
    real = Scene.read

    def spy(self, window, *more):
        read.append(window)
        return real(self, window, *more)

    monkeypatch.setattr(Scene, "read", spy)
    windows.read_window(str(path), TileCut(), bbox=asked)
    assert read == [pytest.approx(wanted, abs=1)]


def test_a_square_in_metres_is_square_far_from_the_scene_s_middle(tmp_path, monkeypatch):
    # The world in degrees: at 60° a pixel is half as wide as at the equator.
    path = scene(tmp_path / "a.tif", Affine(0.9, 0, -180, 0, -0.9, 90), DEGREES)
    read = []
    real = Scene.read

    def spy(self, window, *more):
        read.append(window)
        return real(self, window, *more)

    monkeypatch.setattr(Scene, "read", spy)
    for latitude in (0, 60):
        windows.read_window(str(path), TileCut(), point=(0, latitude), size=1_000_000)
    (_, _, width, height), (_, _, wide, high) = read
    assert (width, height) == (10, 10)
    assert (wide, high) == (20, 10)


# What is known


def test_few_sources_are_asked_for_by_name(tmp_path, monkeypatch):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    names = ["it's.png", 'a "b".png', "back\\slash.png", "ünï ☃.png", "%_.png"]
    for i, name in enumerate(names):
        chip(tmp_path / name, i)
    first = archive.add([tmp_path / name for name in names])
    assert (first.added, first.skipped) == (5, ())
    asked = []
    real = type(archive.store).states

    def spy(self, names=None):
        found = list(real(self, names))
        asked.append(len(found))
        return iter(found)

    monkeypatch.setattr(type(archive.store), "states", spy)
    for name in names:
        assert archive.add(tmp_path / name).unchanged == 1
    assert asked == [1] * 5
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


@pytest.mark.parametrize(
    ("date", "wanted"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", datetime(2015, 10, 21, 7, 28, tzinfo=UTC).timestamp()),
        ("yesterday", 0),
        ("", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_a_date_of_a_server_that_is_none_is_not_known(monkeypatch, date, wanted):
    headers = {"last-modified": date, "content-range": "bytes 0-0/123"}
    monkeypatch.setattr(files, "get", lambda *_, **__: (b"x", headers))
    assert files.stamp("http://somewhere/a.tif") == (123, wanted * 1_000_000_000)


def test_an_object_store_that_does_not_answer_is_a_data_error(monkeypatch):
    class Down:
        def get_file_info(self, _):
            raise OSError("no route")

    monkeypatch.setattr(remote, "file_system", lambda _: (Down(), "bucket/a.tif"))
    with pytest.raises(DataError, match="no route"):
        files.stamp("s3://bucket/a.tif")


def test_a_hash_in_the_name_of_a_file_that_is_gone(tmp_path):
    """What is before the '#' stands for the file only if it is a list of items."""
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
