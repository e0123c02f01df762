"""Searches of an archive, against NumPy and the records."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from shapely.geometry import box, mapping, shape

from rsir.archive import Archive, ById
from rsir.archive.folder.external import ExternalEncoder
from rsir.archive.search.calibration import Calibration
from rsir.errors import ArchiveError, UsageError
from rsir.images.read import read_tile
from rsir.ranking import packed
from rsir.scenes.tiling import Tiling
from rsir.store.filters.filter import Filter
from rsir.store.knn import adaptive
from rsir.store.records.record import Record
from tests.support.colour_encoder import ColourEncoder
from tests.support.searching import archive_of, everything, found, ranked, tile_at


@pytest.mark.slow
def test_a_search_by_id_leaves_that_tile_out(archive):
    records, vectors = everything(archive)
    for record, vector in list(zip(records, vectors, strict=True))[::7]:
        wanted = [(d, id) for d, id in ranked(archive, vector) if id != record.id]
        assert found(archive.search(ById(record.id), 5)) == wanted[:5]
        assert found(archive.search(ById(record.id), 1000)) == wanted
    with pytest.raises(ArchiveError, match="no record 'nobody'"):
        archive.search(ById("nobody"))


def test_filters_at_any_selectivity(archive, folder):
    records, vectors = everything(archive)
    query = vectors[11]
    area = shape(tile_at(archive, 64, 64).footprint).buffer(0.001)
    cases = {
        "area": (Filter(geometry=mapping(area)), lambda r: _touches(r, area)),
        "bbox": (Filter(bbox=area.bounds), lambda r: _touches(r, box(*area.bounds))),
        "class": (Filter(classes=["chips"]), lambda r: r.properties.get("class") == "chips"),
        "one": (Filter(where=f"id = '{records[3].id}'"), lambda r: r.id == records[3].id),
        "time": (Filter(start=datetime(2021, 7, 14, tzinfo=UTC)), lambda r: r.datetime is not None),
        "none": (Filter(classes=["moon"]), lambda r: False),
        "all": (Filter(where="width > 1"), lambda r: True),
    }
    for name, (filter, keep) in cases.items():
        wanted = ranked(archive, query, keep)
        assert (len(wanted) == 0) == (name == "none"), name
        hits = archive.search(query, 100, filter=filter)
        assert found(hits) == wanted, name
        assert hits.searched == len(wanted) == archive.count(filter), name
        assert [r.id for r in archive.records(filter)] == sorted(id for _, id in wanted)


def _touches(record, area):
    return record.footprint is not None and shape(record.footprint).intersects(area)


def test_percentiles_and_the_lowest_allowed_one(archive):
    records, vectors = everything(archive)
    # The archive is smaller than the sample, so that the sample is all of it.
    calibration = Calibration.of("euclidean", vectors)
    hits = archive.search(vectors[0], 100)
    for hit in hits:
        assert hit.percentile == calibration.percentile(np.array([hit.distance]))[0]
    percentiles = [hit.percentile for hit in hits]
    assert percentiles == sorted(percentiles, reverse=True)
    assert percentiles[0] > 90
    for lowest in (0, 50, 90):
        wanted = [hit.id for hit in hits if hit.percentile >= lowest]
        some = archive.search(vectors[0], 100, min_percentile=lowest)
        assert [hit.id for hit in some] == wanted
    nothing = archive.search(vectors[0] + 100, 10, min_percentile=50)
    assert len(nothing) == 0
    assert nothing.searched == len(records)
    for wrong in (-0.1, 100, 101, float("nan")):
        with pytest.raises(UsageError, match="min_percentile"):
            archive.search(vectors[0], min_percentile=wrong)


def test_a_percentile_that_so_few_images_cannot_tell_is_refused(archive):
    _, vectors = everything(archive)
    highest = archive.calibration().highest
    assert len(archive.search(vectors[0], 3, min_percentile=highest)) <= 3
    with pytest.raises(UsageError, match="too small for a percentile"):
        archive.search(vectors[0], min_percentile=99.99)


@pytest.mark.slow
def test_adaptive_archives_are_searched_by_plain_hamming_too(folder, tmp_path, monkeypatch):
    archive = Archive.create(tmp_path / "archive", ColourEncoder("adaptive-hamming:3", 13))
    archive.add(folder, tiling=Tiling(size=64))
    _, vectors = everything(archive)
    for query in vectors[:3]:
        hits = archive.search(query, 12, ranking="hamming")
        assert found(hits) == ranked(archive, query, metric="hamming", bits=13)[:12]
        assert all(0 <= hit.percentile < 100 for hit in hits)
        assert found(archive.search(query, 12)) == ranked(archive, query)[:12]
    for limit in (10**6, 1):  # queries one after the other, and side by side
        monkeypatch.setattr(adaptive, "_PARALLEL_CODES", limit)
        together = archive.search_many(list(vectors), 12)
        assert [found(hits) for hits in together] == [ranked(archive, v)[:12] for v in vectors]
    with pytest.raises(UsageError, match="searched by"):
        archive.search(vectors[0], ranking="cosine")


def test_hits_by_hamming_have_scores_by_hamming():
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (30, 1)).astype(np.uint8)
    chances = np.full((30, 2), 0.5, np.float32)
    records = [Record(f"{i:02}", "s", "c") for i in range(30)]
    archive = archive_of(records, packed(codes, chances), "adaptive-hamming:2")
    for hit in archive.search(ById("00"), 29, ranking="hamming"):
        differing = (np.unpackbits(codes[0]) != np.unpackbits(codes[int(hit.id)])).sum()
        assert hit.distance == differing
        assert hit.score == 1 - differing / 8


def test_earlier_versions_are_searched_and_restored(folder, tmp_path):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(folder / "chips")
    first = archive.versions()[-1]
    chips = {r.id for r in archive.records()}
    archive.add(folder / "scene.tif", tiling=Tiling(size=64))
    archive.delete(sorted(chips)[:1])
    before = archive.at(first.version)
    query = folder / "chips" / "a.png"
    assert {hit.id for hit in before.search(query, 100)} == chips
    assert (len(before), before.search(query).searched) == (3, 3)
    for change in (
        lambda: before.delete(list(chips)),
        lambda: before.add(folder),
        lambda: before.optimize(),
    ):
        with pytest.raises(ArchiveError, match="cannot be changed"):
            change()
    assert len(archive) == 35 + 2
    archive.restore(first.version)
    assert {r.id for r in archive.records()} == chips
    assert [v.version for v in archive.versions()] == sorted(v.version for v in archive.versions())
    with pytest.raises(ArchiveError, match="does not keep"):
        archive.at(10_000)
    with pytest.raises(ArchiveError, match="does not keep"):
        archive.restore(10_000)


def test_external_embeddings_are_searched_but_not_by_image(folder, tmp_path):
    archive = Archive.create(tmp_path / "archive", ExternalEncoder("clay", "cosine", 4))
    vectors = np.eye(4, dtype=np.float32) + 0.1
    archive.store.add([Record(f"r{i}", f"s{i}", "") for i in range(4)], vectors)
    archive = Archive.open(archive.path)
    assert archive.search(vectors[2], 1)[0].id == "r2"
    assert [hit.id for hit in archive.search(ById("r2"), 2)] == ["r0", "r1"]
    with pytest.raises(UsageError, match="made elsewhere"):
        archive.search(read_tile(folder / "chips" / "a.png").pixels[:0])
    with pytest.raises(UsageError, match="made elsewhere"):
        archive.search(folder / "chips" / "a.png")
    with pytest.raises(UsageError, match="made elsewhere"):
        archive.add(folder)


def test_the_exact_ranking_has_recall_one(archive):
    _, vectors = everything(archive)
    assert archive.recall(list(vectors[:5]), 10, "euclidean") == 1.0
    empty = Filter(classes=["moon"])
    assert archive.recall(list(vectors[:2]), 10, "euclidean", filter=empty) == 1.0
