"""A whole archive on an object store behaves as the same archive in a folder."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rsir.archive import Archive, ById, ByWindow
from rsir.archive.exchange.export import export
from rsir.archive.exchange.merge import merge
from rsir.archive.folder.external import ExternalEncoder
from rsir.errors import ArchiveError, UsageError
from rsir.scenes.tiling import Tiling
from rsir.store.filters.filter import Filter
from tests.support.archives import chip, contents
from tests.support.colour_encoder import ColourEncoder
from tests.support.images import land, paint, write_scene


def hits_of(archive: Archive, query, **more):
    return [hit.to_dict() for hit in archive.search(query, 8, **more)]


def add(archive: Archive, folder):
    report = archive.add(folder, tiling=Tiling(size=48))
    return report.added, report.replaced, report.unchanged, report.skipped


def test_all_operations_give_the_archive_of_the_folder(bucket, tmp_path):
    uri = f"{bucket}/life/items.lance"
    here = Archive.create(tmp_path / "here", ColourEncoder())
    there = Archive.create(tmp_path / "there", ColourEncoder(), store=uri)
    folder = tmp_path / "images"
    for number in range(6):
        paint(folder / ("forest" if number % 2 else "river") / f"{number}.png", number)
    scene = write_scene(folder / "a.tif", land(height=96, width=144))
    assert add(there, folder) == add(here, folder) == (7, 0, 0, ())
    assert add(there, folder) == (0, 0, 7, ())
    assert contents(there) == contents(here)
    assert len(there) == there.count() == 12
    assert there.sources() == here.sources()
    info = there.info()
    assert (info["store"], info["count"]) == (uri, 12)
    assert not (tmp_path / "there" / "items.lance").exists()

    west, south, east, north = there.sources()[0].bounds
    tile = next(r for r in here.records() if r.properties.get("window"))
    middle = ((west + east) / 2, (south + north) / 2)
    queries = (
        folder / "forest" / "1.png",
        ById(tile.id),
        ByWindow(str(scene), point=middle, size=300),
    )
    options = ({}, {"diverse": True}, {"min_percentile": 20})
    for chosen in (
        None,
        Filter(bbox=(west, south, middle[0], north)),
        Filter(where="width < 20", classes=["river"]),
    ):
        assert there.count(chosen) == here.count(chosen) > 0
        for query, more in itertools.product(queries, options):
            wanted = hits_of(here, query, filter=chosen, **more)
            assert hits_of(there, query, filter=chosen, **more) == wanted
    np.testing.assert_array_equal(there.thumbnail(tile.id, 20), here.thumbnail(tile.id, 20))
    for name in ("all.parquet", "all.geojson"):
        for archive in (here, there):
            export(archive, tmp_path / archive.path.name / name)
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()

    before, old_contents = there.info()["version"], contents(there)
    paint(folder / "river" / "2.png", 22)
    (folder / "river" / "4.png").unlink()
    for archive in (here, there):
        assert add(archive, folder) == (0, 1, 5, ())
        assert archive.delete([tile.id, "nobody"]) == 1
        assert len(archive.prune()) == 1
        archive.optimize()
    assert contents(there) == contents(here)
    assert len(there) == 10
    assert contents(there.at(before)) == old_contents
    there.restore(before)
    assert contents(there) == old_contents
    assert {v.version for v in there.versions()} >= {before, there.info()["version"]}
    report = merge(there, here)
    assert (report.added, report.unchanged, report.replaced) == (1, 9, 0)

    again = Archive.open(tmp_path / "there", ColourEncoder())
    assert contents(again) == contents(there)
    with pytest.raises(ArchiveError, match=f"{uri} exists already"):
        Archive.create(tmp_path / "second", ColourEncoder(), store=uri)
    manifest = tmp_path / "there" / "archive.json"
    manifest.write_text(manifest.read_text().replace(uri, f"{bucket}/gone/items.lance"))
    with pytest.raises(ArchiveError, match=r"gone/items\.lance is not a store"):
        Archive.open(tmp_path / "there")


def test_the_approximate_ranking_of_large_archives(bucket, tmp_path):
    """Check the recall of approximate search, and its distances against those of exact search."""
    uri = f"{bucket}/large/items.lance"
    made = Archive.create(tmp_path / "a", ExternalEncoder("made up", "cosine", 32), store=uri)
    random = np.random.default_rng(0)
    centres = random.standard_normal((100, 32))
    rows = centres[np.arange(3000) % 100] + 0.5 * random.standard_normal((3000, 32))
    made.store.add([chip(n) for n in range(3000)], rows.astype(np.float32))
    archive = Archive.open(tmp_path / "a")
    queries = [ById(chip(n).id) for n in range(0, 3000, 300)]
    exact = archive.search_many(queries, 3000)
    for query, all_hits in zip(queries, exact, strict=True):
        distances = {hit.id: hit.distance for hit in all_hits}
        found = archive.search(query, 10, ranking="approximate")
        assert len(found) == 10
        assert all(hit.distance == distances[hit.id] for hit in found)
    assert archive.recall(queries, 10, "approximate") >= 0.95
    chosen = Filter(where="id < 'chip 01000'")
    found = archive.search(queries[0], 10, ranking="approximate", filter=chosen)
    assert all(hit.id < "chip 01000" for hit in found)
    assert found.searched == 1000
    assert archive.recall(queries, 10, "approximate", filter=chosen) >= 0.95
    with pytest.raises(UsageError, match="not by 'nearly'"):
        archive.search(queries[0], ranking="nearly")
