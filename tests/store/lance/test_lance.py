"""What the embedded store promises beyond the contract: order, locations, object stores, kills."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir.errors import ArchiveError, UsageError
from rsir.store.filters.filter import Filter
from rsir.store.lance.id_order import order_of
from rsir.store.lance.location import Location
from rsir.store.lance.store import LanceStore
from rsir.store.lance.table import TableVersion
from rsir.store.open import create_store, open_store
from rsir.store.records.record import Record


def record(number: int, **more) -> Record:
    return Record(f"{number:04d}", f"/{number}.png", f"c{number}", size=number, **more)


def column(numbers) -> np.ndarray:
    return np.array([[float(n)] for n in numbers], np.float32)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.one_of(TEXTS, TEXTS.map("prefix-of-more-than-8".__add__)), max_size=40))
def test_ids_are_ordered_as_python_orders_them(ids):
    for chunks in ([ids], [ids[:3], [], ids[3:]]):
        whole = pa.chunked_array([pa.array(some, pa.string()) for some in chunks])
        ordered = [ids[n] for n in order_of(whole)]
        assert ordered == sorted(ids)
    part = pa.chunked_array([pa.array(["x", *ids], pa.string()).slice(1)])
    assert [ids[n] for n in order_of(part)] == sorted(ids)


@pytest.mark.slow
@pytest.mark.parametrize("versions", [(4, 4), (4, 2), (2, 4)])
def test_a_store_that_was_deleted_and_created_again_is_read_anew(tmp_path, versions):
    """Even if LanceDB's version numbers are the same as before, or lower."""
    path = tmp_path / "items.lance"
    store = LanceStore.create(path, "euclidean", 1)
    for n in range(versions[0]):
        store.add([record(n)], column([n]))
    query = column([0])
    assert len(store.search(query, 9)[0]) == len(store) == versions[0]
    assert len(list(store.records())) == versions[0]
    shutil.rmtree(path)
    again = LanceStore.create(path, "euclidean", 1)
    for n in range(versions[1]):
        again.add([record(100 + n)], column([n]))
    wanted = [f"{100 + n:04d}" for n in range(versions[1])]
    assert [n.record.id for n in store.search(query, 9)[0]] == wanted
    assert [r.id for r in store.records()] == wanted
    assert len(store) == versions[1]
    store.add([record(500)], query)
    assert len(again) == versions[1] + 1
    with pytest.raises(ArchiveError, match="no record '0000'"):
        store.get(["0000"])


def test_all_records_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("rsir.store.lance.store._FIRST_RECORDS", 3)
    monkeypatch.setattr("rsir.store.lance.store._IDS_AT_ONCE", 7)
    store = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    numbers = np.random.default_rng(0).permutation(100).tolist()
    store.add([record(n, properties={"n": n}) for n in numbers], column(numbers))
    read, real = [], TableVersion.records
    monkeypatch.setattr(
        TableVersion,
        "records",
        lambda self, rows: read.append(len(rows)) or real(self, rows),
    )
    records = store.records()
    assert next(records).id == "0000"
    assert read == [3]
    store.delete([f"{n:04d}" for n in range(50)])  # what was begun goes on with its version
    assert [r.properties["n"] for r in records] == list(range(1, 100))
    assert read[:4] == [3, 6, 7, 7]
    assert max(read) == 7
    chosen = Filter(where="size < 60")
    assert [r.size for r in store.records(chosen)] == list(range(50, 60))


@pytest.mark.slow
def test_a_sample_is_from_the_store_and_repeatable(tmp_path):
    store = LanceStore.create(tmp_path / "items.lance", "euclidean", 1)
    assert store.sample(5).shape == (0, 1)
    store.add([record(n) for n in range(30_000)], column(range(30_000)))
    for count in (10, 20_000):  # few are taken, many are read past
        sample = store.sample(count, seed=3)
        assert sample.shape == (count, 1)
        assert len(np.unique(sample)) == count
        assert np.array_equal(sample, store.sample(count, seed=3))
        assert not np.array_equal(sample, store.sample(count, seed=4))
    assert 14_000 < sample.mean() < 16_000
    assert sorted(store.sample(99_999).ravel().tolist()) == list(range(30_000))


@pytest.mark.parametrize(
    ("path", "parent", "name"),
    [
        ("a/b/items.lance", str(Path("a/b")), "items"),
        ("s3://bucket/prefix/deep/tiles.lance", "s3://bucket/prefix/deep", "tiles"),
        ("gs://bucket/x.lance", "gs://bucket", "x"),
    ],
)
def test_locations_of_tables(path, parent, name):
    location = Location.of(path)
    assert (location.parent, location.name) == (parent, name)
    assert str(location) == str(path)
    assert (location.folder is None) == ("://" in path)
    assert location.index == (None if "://" in path else Path("a/b/items.index"))


@pytest.mark.parametrize("path", ["a/items", ".lance", "s3://bucket/items", "s3://items.lance"])
def test_locations_without_a_table(path):
    with pytest.raises(UsageError, match=r"ends in '\.lance'"):
        LanceStore.create(path, "cosine", 2)


BUILDER = """
import sys
from rsir.store.lance.store import LanceStore
from rsir.store.lance.table import TableVersion
import numpy as np
store = LanceStore.open(sys.argv[1])
print("ready", flush=True)
store.search(np.ones((1, 32), np.float32), 5, metric="approximate")
print("built", flush=True)
"""


def test_an_index_whose_building_was_killed_is_never_used(tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "items.lance"
    store = LanceStore.create(path, "cosine", 32)
    vectors = rng.standard_normal((20_000, 32)).astype(np.float32)
    store.add([record(n) for n in range(20_000)], vectors)
    shown = 0
    for wait in (0.1, 0.5):
        command = [sys.executable, "-c", BUILDER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(wait)
            os.kill(process.pid, signal.SIGKILL)
        for index in (tmp_path / "items.index").glob("[!.]*"):
            assert (index / "manifest.json").is_file()
            shown += 1
    found = store.search(vectors[:3], 5, metric="approximate")
    assert [near[0].record.id for near in found] == ["0000", "0001", "0002"]
    assert store.recall(vectors[:20], 10, "approximate") > 0.5
    # A kill that came after the end proves nothing; the first one comes before.
    assert shown < 2


# Object stores.


def test_a_store_on_an_object_store_is_like_one_in_a_folder(bucket, tmp_path):
    uri = f"{bucket}/prefix/items.lance"
    with pytest.raises(ArchiveError, match="is not a store"):
        open_store(uri)
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((600, 16)).astype(np.float32)
    stores = [create_store(uri, "cosine", 16), create_store(tmp_path / "items.lance", "cosine", 16)]
    with pytest.raises(ArchiveError, match="exists already"):
        create_store(uri, "cosine", 16)
    for store in stores:
        store.add([record(n, properties={"n": n % 7}) for n in range(600)], vectors)
        assert store.delete(["0003", "0005", "none"]) == 2
        store.add([record(7, properties={"n": 3})], vectors[8:9])
    there, here = open_store(uri), stores[1]
    assert isinstance(there, LanceStore)
    assert isinstance(here, LanceStore)
    assert there.path == uri
    assert len(there) == 598
    some = Filter(where="n = 3")
    for filter in (None, some):
        assert there.count(filter) == here.count(filter)
        assert list(there.records(filter)) == list(here.records(filter))
        found = there.search(vectors[:4], 30, filter=filter)
        assert found == here.search(vectors[:4], 30, filter=filter)
    assert there.recall(vectors[:10] + 0.1, 20) >= 0.9
    assert there.get(["0007"])[0][0] == here.get(["0007"])[0][0]
    assert np.array_equal(there.sample(9, 1), here.sample(9, 1))

    before = there.version
    there.optimize()
    assert there.version > before
    assert [v.rows for v in there.versions()][-1] == 598
    assert len(there.at(before)) == 598
    there.restore(before)
    assert list(there.records()) == list(here.records())


def test_on_an_object_store_other_commits_are_seen_within_seconds(bucket, monkeypatch):
    uri = f"{bucket}/two/items.lance"
    one = LanceStore.create(uri, "euclidean", 1)
    two = LanceStore.open(uri)
    assert two.search(column([0]), 3) == [[]]
    one.add([record(1)], column([1]))
    assert len(one.search(column([0]), 3)[0]) == 1  # one's own at once
    monkeypatch.setattr("rsir.store.lance.handle._TRUSTED_SECONDS", 0.0)
    assert len(two.search(column([0]), 3)[0]) == 1
    two.delete(["0001"])
    assert two.search(column([0]), 3) == [[]]


def test_a_bucket_that_does_not_answer_is_an_error(bucket):
    with pytest.raises(ArchiveError, match="absent-bucket"):
        LanceStore.create("s3://absent-bucket/items.lance", "cosine", 2)
    with pytest.raises(ArchiveError, match="absent-bucket"):
        LanceStore.open("s3://absent-bucket/items.lance")
