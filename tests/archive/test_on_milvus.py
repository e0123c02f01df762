"""A whole archive on a Milvus cluster behaves as the same archive in a folder."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely.geometry import shape

from rsir.archive import Archive, ById, ByWindow, Examples
from rsir.archive.exchange.export import FORMATS, SUFFIXES, export
from rsir.archive.exchange.merge import merge
from rsir.archive.indexing import indexer
from rsir.errors import ArchiveError, UnknownIdError, UsageError
from rsir.ranking import pairwise
from rsir.scenes.tiling import Tiling
from rsir.store.filters.filter import Filter
from rsir.store.milvus.store import MilvusStore
from tests.support.archives import contents
from tests.support.colour_encoder import ColourEncoder
from tests.support.images import land, paint, write_scene

TILING = Tiling(size=48, stride=40)
ADAPTIVE = "adaptive-hamming:3"
FARTHER_EAST = Affine(10, 0, 640_000, 0, -10, 5_000_000)


def index(archive: Archive, folder: Path):
    return archive.add(folder, tiling=TILING, batch_size=8)


def hits_of(archive: Archive, query, k: int = 10, **more):
    return [hit.to_dict() for hit in archive.search(query, k, **more)]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Scenes of two years in two locations, and pictures of two classes; one is a copy."""
    root = tmp_path_factory.mktemp("world")
    for name, transform, year in (("west", None, 2021), ("east", FARTHER_EAST, 2024)):
        path = root / f"{name}.tif"
        pixels = land(height=128, width=160, seed=year)
        write_scene(path, pixels, **({} if transform is None else {"transform": transform}))
        with rasterio.open(path, "r+") as scene:
            scene.update_tags(TIFFTAG_DATETIME=f"{year}:07:14 10:30:05")
    for number in range(10):
        paint(root / ("forest" if number % 2 else "o'river") / f"{number:02d}.png", number)
    (root / "forest" / "copy.png").write_bytes((root / "forest" / "01.png").read_bytes())
    return root


class Pairs:
    """Pairs of archives of the same kind: in a folder, and on the server."""

    def __init__(self, server, root: Path) -> None:
        self._server = server
        self._root = root
        self._numbers = itertools.count()

    def make(self, *kinds: tuple[str, int]) -> list[tuple[Archive, Archive]]:
        """A pair (in a folder, on the server) of each kind; creating a collection takes seconds."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda kind: self._make(*kind), kinds))

    def _make(self, metric: str, dimension: int) -> tuple[Archive, Archive]:
        name = f"whole_archive_{next(self._numbers)}"
        return (
            Archive.create(self._root / name / "here", ColourEncoder(metric, dimension)),
            Archive.create(
                self._root / name / "there",
                ColourEncoder(metric, dimension),
                store=self._server.uri(name),
            ),
        )


@pytest.fixture(scope="module")
def pairs(milvus_server, tmp_path_factory) -> Pairs:
    return Pairs(milvus_server, tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def made(pairs, world):
    """Pairs by name: two with the images of `world`, not to be changed, and three empty ones."""
    names = {
        "floats": ("cosine", 16),
        "adaptive": (ADAPTIVE, 21),
        "changing": ("euclidean", 16),
        "merged": ("euclidean", 16),
        "shared": ("euclidean", 16),
    }
    found = dict(zip(names, pairs.make(*names.values()), strict=True))
    for name in ("floats", "adaptive"):
        for archive in found[name]:
            report = index(archive, world)
            assert (report.added, report.skipped) == (13, ())
    return found


@pytest.fixture
def both(made):
    return made["floats"]


def filters(archive: Archive) -> list[Filter]:
    west, south, east, north = next(s.bounds for s in archive.sources() if s.tiled)
    x, y = (west + east) / 2, (south + north) / 2
    triangle = [[[west, south], [x, north], [x, south], [west, south]]]
    return [
        Filter(bbox=(west, south, x, y)),
        Filter(bbox=(x, y, west, north)),  # over the antimeridian
        Filter(geometry={"type": "Polygon", "coordinates": triangle}),
        Filter(start=datetime(2021, 7, 14, 10, 30, 5)),
        Filter(start=datetime(2022, 1, 1, tzinfo=UTC), end=datetime(2025, 1, 1, tzinfo=UTC)),
        Filter(end=datetime(2000, 1, 1)),
        Filter(where="width < 20 OR source LIKE '%east%'"),
        Filter(where="folder = 'o''river'"),
        Filter(where="nothing = 1"),
        Filter(classes=["forest", "o'river"]),
        Filter(classes=["o'river"], where="width = 7"),
        Filter(bbox=(west, south, x, y), end=datetime(2023, 1, 1), where="gsd IS NULL"),
        Filter(bbox=(west, south, x, y), end=datetime(2023, 1, 1), where="width = 48"),
    ]


# Reading and searching


def test_it_holds_the_records_of_the_folder(both):
    here, there = both
    assert len(there) == len(here) == there.count() == 35
    assert contents(there) == contents(here)
    ids = [record.id for record in here.records()]
    assert there.get(ids[::-3]) == here.get(ids[::-3])
    np.testing.assert_array_equal(there.vectors(ids[::-3]), here.vectors(ids[::-3]))
    assert there.vectors([]).shape == (0, 16)
    assert there.sources() == here.sources()
    counts = set()
    for chosen in filters(here):
        assert list(there.records(chosen)) == list(here.records(chosen))
        counts.add(there.count(chosen))
        assert there.count(chosen) == here.count(chosen)
    assert {0, 5, 35} - counts == {35}
    assert len(counts) >= 6
    for id in (ids[0], ids[-1]):
        np.testing.assert_array_equal(there.thumbnail(id, 20), here.thumbnail(id, 20))
    # With so few records the calibration compares all pairs.
    np.testing.assert_array_equal(there.calibration().distances, here.calibration().distances)
    for read in (there.get, there.vectors):
        with pytest.raises(UnknownIdError, match="no record 'nobody'"):
            read(["nobody"])


def test_info(both, milvus_server):
    here, there = both
    info = there.info()
    assert info["store"] == milvus_server.uri(there.store._connection.address.collection)
    assert info["version"] is None
    own = {"path", "store", "bytes", "version", "created"}
    assert {k: v for k, v in info.items() if k not in own} == {
        k: v for k, v in here.info().items() if k not in own
    }
    assert repr(there) == repr(here).replace("here", "there")
    assert Archive.open(there.path, ColourEncoder("cosine", 16)).info() == info


@pytest.mark.parametrize("kind", ["floats", "adaptive"])
def test_searches_find_the_hits_of_the_folder(made, world, kind):
    here, there = made[kind]
    records = list(here.records())
    tile = next(r for r in records if r.properties.get("window"))
    queries = [
        world / "forest" / "01.png",
        world / "east.tif",
        ById(tile.id),
        here.vectors([records[5].id])[0],
        np.full((3, 30, 20), 99, np.uint8),
        ByWindow(tile.source, window=(10, 20, 50, 40)),
        ByWindow(tile.source, bbox=shape(tile.footprint).bounds),
        Examples([ById(tile.id), world / "forest" / "03.png"], [ById(records[3].id)]),
    ]
    for query in queries:
        for k in (7, 100):
            assert hits_of(there, query, k) == hits_of(here, query, k)
    (first, second, *_) = there.search(queries[0], 3)
    assert (first.distance, second.distance) == (0, 0)  # the copy
    assert first.id < second.id
    for chosen in filters(here):
        found = there.search(queries[0], 5, filter=chosen)
        assert [h.to_dict() for h in found] == hits_of(here, queries[0], 5, filter=chosen)
        assert found.searched == there.count(chosen)
    for more in (
        {"diverse": True},
        {"min_percentile": 50},
        {"diverse": True, "min_percentile": 30, "filter": Filter(where="width = 48")},
    ):
        for query in queries[::3]:
            assert hits_of(there, query, 6, **more) == hits_of(here, query, 6, **more)
    many = [[h.to_dict() for h in hits] for hits in there.search_many(queries, 5)]
    assert many == [[h.to_dict() for h in hits] for hits in here.search_many(queries, 5)]


def test_adaptive_searches_are_exact(made):
    """Hits against all distances, of the adaptive ranking and of plain Hamming."""
    _, there = made["adaptive"]
    ids = [record.id for record in there.records()]
    rows = there.vectors(ids)
    for query in rows[::6]:
        for ranking, metric, width in ((None, ADAPTIVE, rows.shape[1]), ("hamming",) * 2 + (3,)):
            far = pairwise(metric, query[None, :width], np.ascontiguousarray(rows[:, :width]))[0]
            wanted = [(far[n], ids[n]) for n in np.lexsort((ids, far))]
            found = there.search(query, 40, ranking=ranking)
            assert [(h.distance, h.id) for h in found] == wanted
            assert [(h.distance, h.id) for h in there.search(query, 9, ranking=ranking)] == (
                wanted[:9]
            )


@pytest.mark.parametrize("kind", ["floats", "adaptive"])
def test_exports_equal_those_of_the_folder(made, tmp_path, kind):
    suffixes = {format: suffix for suffix, format in SUFFIXES.items()}
    for format, archive in itertools.product(FORMATS, made[kind]):
        path = tmp_path / archive.path.name / f"all{suffixes[format]}"
        path.parent.mkdir(exist_ok=True)
        assert export(archive, path).written == (24 if format == "stac" else 35)
    files = sorted((tmp_path / "here").iterdir())
    assert len(files) == len(FORMATS)
    for file in files:
        assert (tmp_path / "there" / file.name).read_bytes() == file.read_bytes(), file.name


# Changes


class CutError(BaseException):
    """Like Ctrl-C: nothing catches it."""


def test_all_changes_give_the_archive_of_the_folder(made, tmp_path, monkeypatch):
    here, there = made["changing"]
    folder = tmp_path / "images"
    for number in range(9):
        paint(folder / f"{number}.png", number)
    scene = write_scene(folder / "a.tif", land(height=96, width=96))
    monkeypatch.setattr(indexer, "COMMIT_TILES", 4)

    def both(change):
        first, second = (change(archive) for archive in (here, there))
        assert contents(there) == contents(here)
        assert len(there) == len(here)
        return first, second

    def add(archive):
        before = archive.encoder.encoded
        report = index(archive, folder)
        return report.added, report.replaced, report.unchanged, archive.encoder.encoded - before

    def cut(archive):
        """Interrupt after the first batch of eight."""
        real, batches = ColourEncoder.encode, itertools.count()

        def encode(self, images):
            if next(batches):
                raise CutError
            return real(self, images)

        with monkeypatch.context() as patch:
            patch.setattr(ColourEncoder, "encode", encode)
            with pytest.raises(CutError):
                index(archive, folder)

    both(cut)
    assert len(there) == 8
    ((_, _, _, encoded), same) = both(add)
    assert encoded == same[3] == 18 - 8
    assert both(add) == ((0, 0, 10, 0),) * 2
    assert len(there) == 18

    paint(folder / "3.png", 33)
    write_scene(scene, land(height=96, width=96, seed=4))
    os.utime(folder / "5.png", (1_700_000_000, 1_700_000_000))

    def half(archive):
        """Interrupt a commit between the new records and the deletion of the old ones."""

        def delete(ids):
            raise CutError

        with monkeypatch.context() as patch:
            patch.setattr(archive.store, "delete", delete)
            with pytest.raises(CutError):
                index(archive, folder)

    both(half)
    assert len(there) > 18
    both(add)
    assert len(there) == 18
    assert both(add) == ((0, 0, 10, 0),) * 2

    ids = [record.id for record in here.records()]
    assert both(lambda archive: archive.delete([ids[0], ids[5], "nobody", ids[0]])) == (2, 2)
    (folder / "1.png").unlink()
    (folder / "2.png").unlink()
    gone, same = both(lambda archive: archive.prune())
    assert gone == same
    both(lambda archive: archive.optimize())
    for file in folder.iterdir():
        file.unlink()
    for archive in (here, there):
        with pytest.raises(ArchiveError, match="is a disk not mounted"):
            archive.prune()
    both(lambda archive: archive.prune(everything=True))
    assert list(there.records()) == there.sources() == hits_of(there, np.zeros(16)) == []
    with pytest.raises(UsageError, match="keep_days must be at least 0"):
        there.optimize(keep_days=-1)


def test_merges_into_and_out_of_it(made, tmp_path, monkeypatch):
    monkeypatch.setattr("rsir.archive.exchange.batches.MAX_RECORDS", 4)
    here, there = made["merged"]
    for number in range(12):
        paint(tmp_path / "some" / f"{number:02d}.png", number)
        paint(tmp_path / "other" / f"{number:02d}.png", 100 + number)
    here.add(tmp_path / "some")
    there.add([tmp_path / "some" / f"{n:02d}.png" for n in range(5)])
    there.add(tmp_path / "other")
    third = Archive.create(tmp_path / "third", ColourEncoder())
    third.add([tmp_path / "some", tmp_path / "other"])

    def plain(archive):
        """The records without their class, which depends on the folder given to `add`."""
        return [(r.id, r.source, r.content, vector) for r, vector in contents(archive)]

    report = merge(there, here)
    assert (report.added, report.unchanged + report.kept, report.replaced) == (7, 5, 0)
    assert plain(there) == plain(third)
    report = merge(here, there)
    assert (report.added, report.unchanged + report.kept) == (12, 12)
    assert plain(here) == plain(third)
    with pytest.raises(ArchiveError, match="only archives of the same model"):
        merge(there, made["floats"][1])


SHARE = """
import sys
import time
from pathlib import Path
from tests.support.colour_encoder import ColourEncoder
from rsir.archive.archive import Archive
from rsir.archive.indexing import indexer
indexer.COMMIT_TILES = 2
class Slow(ColourEncoder):
    def encode(self, images):
        time.sleep(0.05)
        return super().encode(images)
archive = Archive.open(sys.argv[1], Slow())
print("ready", flush=True)
sys.stdin.readline()
report = archive.add(sys.argv[2], shard=(int(sys.argv[3]), 2), batch_size=1)
print(report.added, flush=True)
"""


def test_two_processes_share_the_work_beside_a_reader(made, tmp_path):
    """Both processes begin together; each commits two images at a time."""
    here, there = made["shared"]
    folder = tmp_path / "images"
    for number in range(60):
        paint(folder / f"{number:02d}.png", number)
    index(here, folder)
    command = (sys.executable, "-c", SHARE, str(there.path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*command, str(folder), str(i)], **pipes) for i in range(2)]
    try:
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 2
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        reader = Archive.open(there.path, ColourEncoder())
        seen = [set()]
        while any(worker.poll() is None for worker in workers):
            count = len(reader)
            found = [record.id for record in reader.records()]
            assert len(found) == len(set(found)) >= count
            seen.append(set(found))
            hits = reader.search(folder / "07.png", 60)
            assert count <= len({hit.id for hit in hits}) == len(hits)
        ends = [(worker.communicate()[0], worker.returncode) for worker in workers]
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.communicate()
    assert ends == [("30\n", 0)] * 2
    assert all(before <= after for before, after in itertools.pairwise(seen))
    assert len({len(some) for some in seen}) > 3
    first = {record.id for record in here.records() if int(Path(record.source).stem) % 2}
    assert any(0 < len(some & first) < 30 and 0 < len(some - first) < 30 for some in seen)
    assert contents(there) == contents(here)


# Missing features, and failures


def test_versions_and_approximate_rankings_are_refused(both, world):
    _, there = both
    for history in (there.versions, lambda: there.at(1), lambda: there.restore(1)):
        with pytest.raises(ArchiveError, match="without versions"):
            history()
    with pytest.raises(UsageError, match=r"'approximate' is for .* leave the ranking out"):
        there.search(world / "forest" / "01.png", ranking="approximate")
    with pytest.raises(UsageError, match="leave the ranking out"):
        there.recall([world / "forest" / "01.png"], 3, "approximate")
    with pytest.raises(UsageError, match="searched by 'cosine', not by 'hamming'"):
        there.search(world / "forest" / "01.png", ranking="hamming")


def test_an_archive_without_its_collection(pairs, tmp_path, monkeypatch):
    ((_, there), (_, other)) = pairs.make(("euclidean", 8), ("euclidean", 7))
    uri = there.info()["store"]
    paint(tmp_path / "image.png", 1)
    there.add(tmp_path / "image.png")
    late = there.search(tmp_path / "image.png", 1)

    with pytest.raises(ArchiveError, match=f"{uri} exists already"):
        Archive.create(tmp_path / "second", ColourEncoder("euclidean", 8), store=uri)
    with pytest.raises(ArchiveError, match=r"belongs to the model colour-euclidean-8-0"):
        Archive.open(there.path, ColourEncoder("euclidean", 8, seed=1))
    with pytest.raises(ArchiveError, match=f"keeps its records in {uri}, not in"):
        Archive.open_or_create(
            there.path, ColourEncoder("euclidean", 8), store=other.info()["store"]
        )

    MilvusStore.open(uri).drop()
    for call in (
        there.__len__,
        there.info,
        there.sources,
        there.calibration,
        there.optimize,
        lambda: there.search(tmp_path / "image.png"),
        lambda: there.add(tmp_path / "image.png"),
        lambda: there.delete(["x"]),
        lambda: there.get(["x"]),
        lambda: export(there, tmp_path / "out.csv"),
        lambda: late[0],
    ):
        with pytest.raises(ArchiveError, match=f"{uri}: the collection was dropped"):
            call()
    with pytest.raises(ArchiveError, match=f"{uri} does not exist"):
        Archive.open(there.path)

    manifest_file = there.path / "archive.json"
    manifest_file.write_text(manifest_file.read_text().replace(uri, other.info()["store"]))
    with pytest.raises(ArchiveError, match="another store has replaced it"):
        Archive.open(there.path)
    manifest = json.loads(manifest_file.read_text())
    manifest_file.write_text(json.dumps({k: v for k, v in manifest.items() if k != "identity"}))
    with pytest.raises(ArchiveError, match=r"says euclidean, 8, but .* holds euclidean, 7"):
        Archive.open(there.path)

    monkeypatch.setitem(MilvusStore.open.__func__.__kwdefaults__, "patience", 1)
    manifest_file.write_text(
        manifest_file.read_text().replace(other.info()["store"], "milvus://127.0.0.1:9/gone")
    )
    with pytest.raises(ArchiveError, match=r"127\.0\.0\.1:9/gone: the server did not answer"):
        Archive.open(there.path)


def test_a_collection_that_replaced_the_archives_own_is_not_opened(
    milvus_server, tmp_path, monkeypatch
):
    uri = milvus_server.uri("made_anew")
    archive = Archive.create(tmp_path / "archive", ColourEncoder(dimension=8), store=uri)
    MilvusStore.open(uri).drop()
    other = Archive.create(tmp_path / "other", ColourEncoder(dimension=8, seed=1), store=uri)
    assert other.store.identity != archive.store.identity
    with pytest.raises(ArchiveError, match="another store has replaced it"):
        Archive.open(archive.path)
    assert len(Archive.open(other.path)) == 0
    # An archive of an older version has no identity, and is opened.
    manifest_file = other.path / "archive.json"
    manifest = json.loads(manifest_file.read_text())
    manifest_file.write_text(json.dumps({k: v for k, v in manifest.items() if k != "identity"}))
    assert len(Archive.open(other.path)) == 0
    MilvusStore.open(uri).drop()


def test_an_archive_can_be_opened_with_the_secrets_in_a_uri(secured_milvus, tmp_path, monkeypatch):
    for name in ("MILVUS_USER", "MILVUS_PASSWORD", "MILVUS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    plain = secured_milvus.uri("given_again")
    uri = plain.replace("://", "://root:Milvus@")
    Archive.create(tmp_path / "archive", ColourEncoder(dimension=8), store=uri)
    with pytest.raises(ArchiveError):
        Archive.open(tmp_path / "archive")
    assert len(Archive.open(tmp_path / "archive", store=uri)) == 0
    again = Archive.open_or_create(tmp_path / "archive", ColourEncoder(dimension=8), store=uri)
    assert len(again) == 0
    assert again.info()["store"] == plain
    assert "root" not in (tmp_path / "archive" / "archive.json").read_text()
    with pytest.raises(ArchiveError, match="keeps its records in") as caught:
        Archive.open(tmp_path / "archive", store=uri.replace("given_again", "another"))
    assert "Milvus@" not in str(caught.value)
