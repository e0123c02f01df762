"""Approximate search: most of the nearest rows are found, and their distances are exact."""

import json
import logging
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.errors import ArchiveError, UsageError
from rsir.ranking import pairwise
from rsir.store.filters.filter import Filter
from rsir.store.knn import ivf_build
from rsir.store.knn.ivf_search import IvfParameters, comparable
from rsir.store.lance.store import LanceStore
from rsir.store.records.record import Record

FLOATS = ("euclidean", "cosine", "ncc")

pytestmark = pytest.mark.slow


def clustered(count: int, dimension: int = 24, seed: int = 0) -> np.ndarray:
    """Ten groups, each of which varies in four directions of its own, as trained embeddings do."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(99)
    centres = fixed.standard_normal((10, dimension))
    spread = fixed.standard_normal((10, 4, dimension)) / 2
    group = rng.integers(10, size=count)
    inside = np.einsum("nf,nfd->nd", rng.standard_normal((count, 4)), spread[group])
    noise = 0.05 * rng.standard_normal((count, dimension))
    return (centres[group] + inside + noise).astype(np.float32)


def fill(store: LanceStore, vectors: np.ndarray, start: int = 0) -> None:
    numbers = range(start, start + len(vectors))
    store.add([record(n) for n in numbers], vectors)


def record(number: int) -> Record:
    name = f"{number:05d}"
    return Record(
        name, f"/{name}.png", name, size=number, datetime=datetime(2024, 1, 1, tzinfo=UTC)
    )


def filled(folder: Path, vectors: np.ndarray, metric: str = "cosine") -> LanceStore:
    store = LanceStore.create(folder / "items.lance", metric, vectors.shape[1])
    fill(store, vectors)
    return store


def indexes(folder: Path) -> list[Path]:
    return sorted((folder / "items.index").glob("[!.]*"))


def are_true(store: LanceStore, known: dict[str, np.ndarray], queries: np.ndarray, found) -> None:
    """The true distances of known records, each found once, ordered by distance and id."""
    for query, neighbours in zip(queries, found, strict=True):
        ids = [n.record.id for n in neighbours]
        assert len(set(ids)) == len(ids)
        assert set(ids) <= set(known)
        if ids:
            distances = pairwise(store.metric, query[None], np.stack([known[id] for id in ids]))[0]
            assert [n.distance for n in neighbours] == distances.tolist()
            pairs = list(zip(distances.tolist(), ids, strict=True))
            assert pairs == sorted(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("metric", FLOATS)
def test_most_of_the_nearest_are_found_and_their_distances_are_exact(tmp_path, metric):
    vectors = clustered(3000)
    store = filled(tmp_path, vectors, metric)
    queries = clustered(20, seed=1)
    found = store.search(queries, 100, metric="approximate")
    assert [len(near) for near in found] == [100] * 20
    are_true(store, {f"{n:05d}": v for n, v in enumerate(vectors)}, queries, found)
    recall = store.recall(queries, 100)
    exact = store.search(queries, 100)
    ids = [
        ({n.record.id for n in a}, {n.record.id for n in b})
        for a, b in zip(exact, found, strict=True)
    ]
    assert recall == pytest.approx(np.mean([len(a & b) / 100 for a, b in ids]))
    assert recall >= 0.95
    assert store.recall(queries, 7) >= 0.95


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_results_meet_a_filter_of_any_share(tmp_path_factory, data):
    store, vectors = _shared(tmp_path_factory)
    low = data.draw(st.integers(0, 4000))
    high = data.draw(st.integers(low, 4000))
    k = data.draw(st.sampled_from([1, 10, 150]))
    chosen = Filter(where=f"size >= {low} AND size < {high}")
    queries = clustered(3, seed=data.draw(st.integers(0, 50)))
    found = store.search(queries, k, filter=chosen, metric="approximate")
    known = {f"{n:05d}": vectors[n] for n in range(low, high)}
    are_true(store, known, queries, found)
    assert all(len(near) == min(k, high - low) for near in found)
    if high - low <= 200:  # search compares all of so few
        assert found == store.search(queries, k, filter=chosen)
    assert store.recall(queries, k, filter=chosen) >= 0.8


_known: list = []


def _shared(factory) -> tuple[LanceStore, np.ndarray]:
    if not _known:
        vectors = clustered(4000, seed=3)
        _known.extend((filled(factory.mktemp("shared"), vectors), vectors))
    return _known[0], _known[1]


@pytest.mark.slow
def test_a_filter_that_excludes_the_nearest_rows(tmp_path):
    vectors = clustered(4000, seed=4)
    store = filled(tmp_path, vectors, "euclidean")
    query = vectors[:1]
    order = np.argsort(pairwise("euclidean", query, vectors)[0])
    for near in (300, 3700):
        rest = set(order[near:].tolist())
        # A record's size says whether it is far.
        store.add(
            [
                Record(r.id, r.source, r.content, size=int(n in rest))
                for n, r in enumerate(map(record, range(4000)))
            ],
            vectors,
        )
        is_far = Filter(where="size = 1")
        assert store.count(is_far) == 4000 - near
        found = store.search(query, 50, filter=is_far, metric="approximate")[0]
        assert len(found) == 50
        # The remaining rows are at about the same distance, so others are nearly as good.
        exact = store.search(query, 50, filter=is_far)[0]
        assert found[-1].distance <= 1.05 * exact[-1].distance


def test_all_lists_are_scanned_where_the_nearest_ones_have_too_few_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(ivf_build, "_tuned", lambda *_: IvfParameters(1, 200, 1.0))
    store = filled(tmp_path, clustered(3000))  # some 65 rows in each of 46 lists
    queries = clustered(5, seed=15)
    found = store.search(queries, 200, metric="approximate")
    assert [len(neighbours) for neighbours in found] == [200] * 5
    assert store.recall(queries, 200) >= 0.5
    half = Filter(where="size < 1500")
    found = store.search(queries, 200, filter=half, metric="approximate")
    assert [len(neighbours) for neighbours in found] == [200] * 5


def test_later_rows_are_found_and_deleted_ones_are_not(tmp_path):
    vectors = clustered(3000, seed=5)
    store = filled(tmp_path, vectors)
    queries = clustered(5, seed=6)
    assert store.recall(queries, 20) >= 0.95
    (built,) = indexes(tmp_path)
    known = {f"{n:05d}": v for n, v in enumerate(vectors)}

    new = clustered(50, seed=7)
    fill(store, np.concatenate([queries, new]), 3000)  # the queries themselves are nearest
    known |= {f"{3000 + n:05d}": v for n, v in enumerate(np.concatenate([queries, new]))}
    found = store.search(queries, 20, metric="approximate")
    assert [near[0].record.id for near in found] == [f"{3000 + n:05d}" for n in range(5)]
    are_true(store, known, queries, found)

    best = [n.record.id for near in found for n in near[:10]]
    assert store.delete(best) == len(set(best))
    for id in best:
        known.pop(id, None)
    found = store.search(queries, 20, metric="approximate")
    are_true(store, known, queries, found)
    assert store.recall(queries, 20) >= 0.9

    moved = found[0][0].record  # gets another vector under the same id
    store.add([moved], -queries[:1])
    known[moved.id] = -queries[0]
    found = store.search(queries, 20, metric="approximate")
    are_true(store, known, queries, found)
    assert moved.id not in [n.record.id for n in found[0]]
    some = Filter(where="size >= 3000")
    found = store.search(queries, 100, filter=some, metric="approximate")
    assert found == store.search(queries, 100, filter=some)
    assert indexes(tmp_path) == [built]

    # Another process uses the same index, and so does a search of an old version.
    other = LanceStore.open(tmp_path / "items.lance")
    assert other.search(queries, 20, metric="approximate") == store.search(
        queries, 20, metric="approximate"
    )
    old = store.at(store.versions()[1].version)
    assert len(old.search(queries, 20, metric="approximate")[0]) == min(20, len(old))
    assert indexes(tmp_path) == [built]

    store.optimize()
    (again,) = indexes(tmp_path)
    assert again != built
    are_true(store, known, queries, store.search(queries, 20, metric="approximate"))
    store.optimize()
    assert indexes(tmp_path) == [again]  # no row has changed


def test_an_index_that_lacks_too_many_rows_is_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setattr("rsir.store.lance.store._MAY_LACK", 100)
    store = filled(tmp_path, clustered(1000))
    queries = clustered(2, seed=8)
    store.search(queries, 5, metric="approximate")
    (built,) = indexes(tmp_path)
    fill(store, clustered(250, seed=9), 1000)
    store.search(queries, 5, metric="approximate")
    assert indexes(tmp_path) == [built]
    fill(store, clustered(10, seed=10), 1250)
    store.search(queries, 5, metric="approximate")
    (again,) = indexes(tmp_path)
    assert again != built


def test_large_tables_get_an_index_when_they_are_optimised(tmp_path, monkeypatch):
    store = filled(tmp_path, clustered(500))
    store.optimize()
    assert not (tmp_path / "items.index").exists()
    monkeypatch.setattr("rsir.store.lance.store._INDEXED_FROM", 500)
    store.optimize()
    assert len(indexes(tmp_path)) == 1
    monkeypatch.setattr("rsir.store.lance.store.build_index", None)
    assert store.recall(clustered(3), 10) >= 0.9
    assert LanceStore.open(tmp_path / "items.lance").recall(clustered(3), 10) >= 0.9
    codes = LanceStore.create(tmp_path / "codes.lance", "hamming", 8)
    codes.add([record(n) for n in range(600)], np.arange(600)[:, None].astype(np.uint8))
    codes.optimize()
    assert not (tmp_path / "codes.index").exists()


@pytest.mark.slow
def test_incomplete_damaged_and_foreign_indexes_are_ignored(tmp_path, monkeypatch, caplog):
    vectors = clustered(800)
    store = filled(tmp_path, vectors)
    queries = clustered(4, seed=11)
    wanted = store.search(queries, 10, metric="approximate")
    (built,) = indexes(tmp_path)
    made = []
    real = ivf_build.build_index
    monkeypatch.setattr(
        "rsir.store.lance.store.build_index", lambda *a, **b: made.append(1) or real(*a, **b)
    )

    def rebuilt() -> bool:
        """Search, check the answer, and say whether that built an index."""
        made.clear()
        again = LanceStore.open(tmp_path / "items.lance")
        assert again.search(queries, 10, metric="approximate") == wanted
        return bool(made)

    assert not rebuilt()
    for name in ("manifest.json", "lists.faiss", "vectors.npy", "row_ids.npy"):
        (built,) = indexes(tmp_path)
        (built / name).unlink()
        assert rebuilt()
        assert not rebuilt()
        (built,) = indexes(tmp_path)
        data = (built / name).read_bytes()
        (built / name).write_bytes(data[: len(data) // 2])  # as a full disk leaves the file
        assert rebuilt()
    assert "is ignored" in caplog.text
    (built,) = indexes(tmp_path)
    for key, value in (("format", "rsir-approximate/1"), ("table", "another")):
        path = built / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        assert rebuilt()
        (built,) = indexes(tmp_path)

    # Other vectors under the same path and version: the old index would give wrong answers.
    shutil.rmtree(tmp_path / "items.lance")
    other = filled(tmp_path, -vectors)
    assert other.search(-queries, 10, metric="approximate")[0][0].distance == pytest.approx(
        wanted[0][0].distance
    )


def test_a_failure_while_building_leaves_no_index(tmp_path, monkeypatch):
    store = filled(tmp_path, clustered(500))
    with monkeypatch.context() as patch:
        patch.setattr(ivf_build, "_tuned", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.search(clustered(1), 5, metric="approximate")
    assert list((tmp_path / "items.index").iterdir()) == []
    unfinished = tmp_path / "items.index" / ".unfinished"
    unfinished.mkdir()
    assert len(store.search(clustered(1), 5, metric="approximate")[0]) == 5
    assert unfinished.is_dir()  # another process may be building there
    monkeypatch.setattr(ivf_build, "_LEFTOVER_SECONDS", -1)
    fill(store, clustered(1), 900)
    store.optimize()
    assert not unfinished.exists()


def test_two_processes_that_build_an_index_at_once_both_search(tmp_path, monkeypatch):
    store = filled(tmp_path, clustered(600))
    delete_others = ivf_build._delete_others

    def and_build_another(folder: Path, built: Path) -> None:
        delete_others(folder, built)
        other = shutil.copytree(built, folder / "9-other")
        delete_others(folder, other)

    monkeypatch.setattr(ivf_build, "_delete_others", and_build_another)
    assert store.recall(clustered(3), 10, "approximate") >= 0.9
    assert [folder.name for folder in indexes(tmp_path)] == ["9-other"]


def test_where_nothing_can_be_written_the_index_is_temporary(tmp_path, caplog):
    store = filled(tmp_path, clustered(700))
    (tmp_path / "items.index").write_text("in the way")
    assert store.recall(clustered(3), 10) >= 0.9
    assert "cannot be written, so it is temporary" in caplog.text
    assert (tmp_path / "items.index").read_text() == "in the way"


def test_an_old_version_is_searched_by_an_index_of_its_own(tmp_path):
    store = filled(tmp_path, clustered(600))
    version = store.version
    store.delete([f"{n:05d}" for n in range(600)])
    assert store.search(clustered(2), 5, metric="approximate") == [[], []]
    old = store.at(version)
    assert old.recall(clustered(2), 5) >= 0.9
    assert not indexes(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("metric", FLOATS)
@pytest.mark.parametrize("count", [1, 2, 63, 200])
def test_small_tables_are_searched_whole(tmp_path, metric, count):
    store = filled(tmp_path, clustered(count, 3), metric)
    queries = clustered(2, 3, seed=1)
    for k in (1, 5, 300):
        assert store.search(queries, k, metric="approximate") == store.search(queries, k)
    assert store.search(queries[:0], 5, metric="approximate") == []


def test_equal_vectors_are_ordered_by_id(tmp_path):
    vectors = np.ones((3000, 4), np.float32)
    vectors[::3, 0] = 2
    store = filled(tmp_path, vectors, "euclidean")
    found = store.search(vectors[:2], 50, metric="approximate")
    for near in found:
        ids = [n.record.id for n in near]
        assert len(ids) == 50
        assert ids == sorted(ids)
        assert {n.distance for n in near} == {0.0}
    # Any 50 of the equal rows are as good.
    assert store.recall(vectors[:2], 50) == 1.0


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e25, 3e37])
def test_values_whose_squares_do_not_fit_float32(tmp_path, scale):
    vectors = (clustered(500).astype(np.float64) / 10 * scale).astype(np.float32)
    store = filled(tmp_path, vectors, "euclidean")
    assert store.recall(vectors[:5], 10) >= 0.9


@pytest.mark.slow
def test_building_warns_of_vectors_without_structure(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(ivf_build, "_COUNTS", (20, 40))
    rows = np.random.default_rng(12).standard_normal((3000, 64)).astype(np.float32)
    store = filled(tmp_path, rows)
    with caplog.at_level(logging.WARNING):
        recall = store.recall(rows[:20] + rows[1:21], 100)
    assert recall < 0.9
    assert "approximate search finds 0." in caplog.text


@pytest.mark.slow
def test_relaxed_hash_codes_are_found_too(tmp_path):
    """Values near -1 and 1, as tanh gives them: many distances are nearly equal."""
    rng = np.random.default_rng(13)
    centres = 3 * rng.standard_normal((20, 64))
    relaxed = np.tanh(centres[rng.integers(20, size=4000)] + rng.standard_normal((4000, 64)))
    for metric in FLOATS[:2]:
        store = filled(tmp_path / metric, relaxed.astype(np.float32), metric)
        assert store.recall(relaxed[:20].astype(np.float32), 100) >= 0.95


@pytest.mark.parametrize("metric", FLOATS)
@pytest.mark.parametrize("dimension", [3, 40, 300])
def test_faiss_gets_vectors_whose_distances_are_those_of_the_metric(metric, dimension):
    """Rotated, centred and longer than before, they are as far apart as the metric says."""
    vectors = clustered(60, dimension)
    scale = 1 / float(np.abs(vectors).max()) if metric == "euclidean" else 1.0
    rotated = comparable(vectors, metric, scale)
    lists = ivf_build._trained(rotated, 1)
    for number in range(lists.chain.size()):
        rotated = lists.chain.at(number).apply(rotated)
    assert rotated.shape == (60, max(256, -(-dimension // 64) * 64))
    rotated = rotated.astype(np.float64)
    distances = pairwise(metric, vectors[:3], vectors)
    squared = ((rotated[:3, None] - rotated[None]) ** 2).sum(axis=2)
    wanted = (scale * distances) ** 2 if metric == "euclidean" else 2 * distances
    np.testing.assert_allclose(squared, wanted, atol=4e-6 * max(1.0, wanted.max()))


def test_codes_and_invalid_queries_are_refused(tmp_path):
    codes = LanceStore.create(tmp_path / "codes.lance", "hamming", 8)
    with pytest.raises(UsageError, match="'approximate' ranks float vectors"):
        codes.search(np.zeros((1, 1), np.uint8), 1, metric="approximate")
    store = filled(tmp_path, clustered(10))
    with pytest.raises(UsageError, match="24 columns"):
        store.search(np.ones((1, 3), np.float32), 1, metric="approximate")
    with pytest.raises(UsageError, match="k must be at least 1"):
        store.search(clustered(1), 0, metric="approximate")
    with pytest.raises(UsageError, match="not by 'nearly'"):
        store.search(clustered(1), 1, metric="nearly")
    assert store.recall(clustered(0), 3) == 1.0


@pytest.mark.slow
def test_many_threads_build_one_index(tmp_path):
    store = filled(tmp_path, clustered(2000))
    queries = clustered(2, seed=14)
    answers = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(store.search(queries, 5, metric="approximate"))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(answer == answers[0] for answer in answers)
    assert len(indexes(tmp_path)) == 1


def test_a_store_recreated_with_another_metric_is_refused(tmp_path):
    store = filled(tmp_path, clustered(20))
    shutil.rmtree(tmp_path / "items.lance")
    LanceStore.create(tmp_path / "items.lance", "hamming", 8)
    with pytest.raises(ArchiveError, match="another store"):
        store.search(clustered(1), 1)
