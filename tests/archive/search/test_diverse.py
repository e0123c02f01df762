"""Diverse hits: what collapses into a better hit, alone and in a search."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import shape

from rsir.archive import Archive, ById
from rsir.archive.search.diverse import ALIKE, OVERLAP, collapsed, near_duplicate
from rsir.ranking import metric_named, packed, pairwise
from rsir.scenes.tiling import Tiling
from rsir.store.memory import ExactStore
from rsir.store.records.record import Record
from rsir.types import Hit
from tests.support.colour_encoder import ColourEncoder
from tests.support.searching import archive_of, everything, ranked


def hit(name: str, box: tuple[float, float, float, float] | None = None) -> Hit:
    footprint = None
    if box is not None:
        w, s, e, n = box
        ring = [[w, s], [e, s], [e, n], [w, n], [w, s]]
        footprint = {"type": "Polygon", "coordinates": [ring]}
    return Hit(name, 1.0, 0.0, name, footprint)


def apart(count: int) -> np.ndarray:
    """Vectors that are near-duplicates by no metric."""
    return np.eye(count, 8, dtype=np.float32) + 0.1


def test_overlapping_tiles_collapse_into_the_best() -> None:
    hits = [hit("a", (0, 0, 1, 1)), hit("b", (0.5, 0, 1.5, 1)), hit("c", (1, 0, 2, 1))]
    # b overlaps a by half and goes; c only touches a, and overlaps b, which is gone.
    assert collapsed(hits, apart(3), "cosine", 8) == [0, 2]


@pytest.mark.parametrize(("share", "kept"), [(OVERLAP - 0.01, 2), (OVERLAP + 0.01, 1)])
def test_the_limit_is_a_quarter_of_the_smaller_footprint(share: float, kept: int) -> None:
    large, small = hit("a", (0, 0, 10, 10)), hit("b", (10 - share, 0, 11 - share, 1))
    assert len(collapsed([large, small], apart(2), "cosine", 8)) == kept


def test_near_duplicates_collapse_without_a_footprint() -> None:
    vectors = apart(4)
    vectors[2] = vectors[0] * 3  # equal by cosine
    assert collapsed([hit(n) for n in "abcd"], vectors, "cosine", 8) == [0, 1, 3]
    assert collapsed([hit(n) for n in "abcd"], vectors, "euclidean", 8) == [0, 1, 2, 3]
    vectors[2] = vectors[0]
    assert collapsed([hit(n) for n in "abcd"], vectors, "euclidean", 8) == [0, 1, 3]


def test_codes_within_a_hundredth_of_their_bits_collapse() -> None:
    raw = np.zeros((3, 128), np.uint8)
    raw[1, :1] = 1
    raw[2, :2] = 1
    assert 1 <= 128 * ALIKE < 2
    codes = np.packbits(raw, axis=1)
    # The third is 2 bits from the first, and the second is gone.
    assert collapsed([hit(n) for n in "abc"], codes, "hamming", 128) == [0, 2]
    chances = np.full((3, 2), 0.5, np.float32)
    rows = packed(codes, chances)
    assert collapsed([hit(n) for n in "abc"], rows, "adaptive-hamming:2", 128) == [0, 2]


def test_no_hit_and_one_hit() -> None:
    assert collapsed([], np.empty((0, 8), np.float32), "cosine", 8) == []
    assert collapsed([hit("a")], apart(1), "cosine", 8) == [0]


def test_a_hit_stays_exactly_if_no_better_hit_that_stays_covers_it() -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 6, (40, 2))
    hits = [hit(str(i), (x, y, x + 1, y + 1)) for i, (x, y) in enumerate(corners.tolist())]
    vectors = random.normal(size=(40, 8)).astype(np.float32)
    kept = collapsed(hits, vectors, "cosine", 8)

    def overlap(i: int, j: int) -> float:
        sides = (1 - abs(corners[i] - corners[j])).clip(min=0)
        return float(sides[0] * sides[1])

    for row in range(40):
        covered = any(overlap(row, k) >= OVERLAP for k in kept if k < row)
        assert (row in kept) != covered


@pytest.mark.slow
def test_a_diverse_search_shows_no_location_twice(folder, tmp_path):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(folder, tiling=Tiling(size=64, stride=16))
    records, vectors = everything(archive)
    rows = {record.id: row for row, record in enumerate(records)}
    limit = near_duplicate(metric_named("euclidean"), 16)
    for query in vectors[[0, 70, 200]]:
        # Go down the whole ranking, and compare each hit with all that stay.
        stay = []
        for _, id in ranked(archive, query):
            new = True
            for other in stay:
                distance = pairwise("euclidean", vectors[[rows[id]]], vectors[[rows[other]]])[0, 0]
                a, b = records[rows[id]].footprint, records[rows[other]].footprint
                if a and b:
                    a, b = shape(a), shape(b)
                    new &= a.intersection(b).area < OVERLAP * min(a.area, b.area)
                new &= distance > limit
            if new:
                stay.append(id)
        for k in (1, 7, 30, 1000):
            hits = archive.search(query, k, diverse=True)
            assert [hit.id for hit in hits] == stay[:k]
    by_id = archive.search(ById(records[70].id), 5, diverse=True)
    assert records[70].id not in {hit.id for hit in by_id}


def test_a_diverse_search_looks_further_where_many_are_the_same():
    # 6 vectors, 300 copies each: the first look finds nothing new.
    random = np.random.default_rng(1)
    few = random.standard_normal((6, 4)).astype(np.float32)
    order = random.permutation(1800)
    vectors = few[order % 6]
    archive = archive_of([Record(f"{i:04}", "s", "c") for i in range(1800)], vectors)
    far = pairwise("euclidean", few[:1], few)[0]
    for k in (1, 4, 6, 10):
        hits = archive.search(few[0], k, diverse=True)
        assert hits.distances.tolist() == sorted(far)[:k]
        # Of equal vectors the first by id.
        firsts = {group: min(f"{i:04}" for i in np.flatnonzero(order % 6 == group))
                  for group in range(6)}  # fmt: skip
        assert [hit.id for hit in hits] == [firsts[group] for group in np.argsort(far)[:k]]


def test_a_diverse_search_does_not_read_a_whole_archive_of_equal_tiles(monkeypatch):
    monkeypatch.setattr("rsir.archive.search.search._FARTHEST", 50)
    vectors = np.zeros((400, 4), np.float32)
    vectors[-1] = 1
    archive = archive_of([Record(f"{i:03}", "s", "c") for i in range(400)], vectors)
    looked_at = []
    real = ExactStore.search

    def spy(self, queries, k, **more):
        looked_at.append(k)
        return real(self, queries, k, **more)

    monkeypatch.setattr(ExactStore, "search", spy)
    assert [hit.id for hit in archive.search(vectors[0], 5, diverse=True)] == ["000"]
    assert looked_at == [5, 20, 50]


def test_a_diverse_search_repairs_footprints_that_cross_themselves():
    def bow(x):
        ring = [[x, 0], [x + 2, 2], [x + 2, 0], [x, 2], [x, 0]]
        return {"type": "Polygon", "coordinates": [ring]}

    records = [Record(f"{i}", "s", "c", footprint=bow(x)) for i, x in enumerate((0, 0.1, 50))]
    archive = archive_of(records, np.eye(3, dtype=np.float32))
    assert [hit.id for hit in archive.search(ById("2"), 3, diverse=True)] == ["0"]
    assert [hit.id for hit in archive.search(np.eye(3)[0], 3, diverse=True)] == ["0", "2"]


def test_a_diverse_search_leaves_out_tiles_deleted_meanwhile(monkeypatch):
    vectors = np.arange(40, dtype=np.float32).reshape(20, 2)
    archive = archive_of([Record(f"{i:02}", "s", "c") for i in range(20)], vectors)
    real = ExactStore.search

    def spy(self, *arguments, **more):
        found = real(self, *arguments, **more)
        self.delete(["01", "04"])
        return found

    monkeypatch.setattr(ExactStore, "search", spy)
    hits = archive.search(vectors[0], 6, diverse=True)
    assert [hit.id for hit in hits] == ["00", "02", "03", "05", "06", "07"]
