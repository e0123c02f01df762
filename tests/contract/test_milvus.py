"""Promises of a store on a server only: it survives restarts, reads in pages, keeps secrets."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rsir.archive import Archive
from rsir.errors import ArchiveError, MissingExtraError, UsageError
from rsir.ranking import packed, pairwise
from rsir.store.filters.filter import Filter
from rsir.store.milvus.collection import Collection
from rsir.store.milvus.connection import Address, pymilvus
from rsir.store.milvus.distances import AdaptedDistance
from rsir.store.milvus.rows import SLOTS, key_of
from rsir.store.milvus.store import MilvusStore
from rsir.store.records.record import Record
from tests.support.colour_encoder import ColourEncoder
from tests.support.filters import meets
from tests.support.milvus_server import Server, UnavailableError


def record(id: str, **more) -> Record:
    return Record(id=id, source=f"/images/{id}.png", content=f"c-{id}", **more)


def numbered(count: int) -> list[Record]:
    return [record(f"{n:05d}", size=n) for n in range(count)]


def wanted(metric: str, query: np.ndarray, rows: np.ndarray, k: int) -> list[tuple[float, str]]:
    far = pairwise(metric, query[None], rows)[0]
    order = np.lexsort((np.arange(len(rows)), far))[:k]
    return [(far[n], f"{n:05d}") for n in order]


def answers(store: MilvusStore, queries: np.ndarray, k: int, **more) -> list:
    found = store.search(queries, k, **more)
    return [[(n.distance, n.record.id) for n in neighbours] for neighbours in found]


@pytest.fixture
def make(milvus_stores):
    with milvus_stores.lent() as make:
        yield make


@settings(max_examples=25, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(
    count=st.integers(0, 120),
    k=st.integers(1, 40),
    codes=st.integers(1, 8),
    levels=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_adaptive_search_is_exact_under_ties(milvus_stores, count, k, codes, levels, seed):
    """Few distinct codes and probabilities, and rows with several probabilities above one half."""
    rng = np.random.default_rng(seed)
    distinct = np.packbits(rng.random((codes, 21)) < rng.choice([0.1, 0.5]), axis=1)
    probabilities = rng.integers(0, levels + 1, (count + 4, 3)) / levels
    rows = packed(distinct[rng.integers(0, codes, count + 4)], probabilities.astype(np.float32))
    with milvus_stores.lent() as make:
        store = make("adaptive-hamming:3", 21)
        store.add(numbered(count), rows[4:])
        found = answers(store, rows[:4], k)
        for query, near in zip(rows[:4], found, strict=True):
            assert near == wanted("adaptive-hamming:3", query, rows[4:], k)


@pytest.mark.parametrize("k", [60, 200])
def test_an_adaptive_search_reads_a_part_where_classes_overlap(milvus_stores, monkeypatch, k):
    """A third of all rows have the class of a query; most of the rows nearest by code do not."""
    rng = np.random.default_rng(8)
    codes = np.packbits(rng.random((3000, 29)) < 0.5, axis=1)
    likeliest = rng.integers(0, 3, 3000)
    probabilities = np.full((3000, 3), 0.05, np.float32)
    probabilities[np.arange(3000), likeliest] = 0.9
    rows = packed(codes, probabilities)
    chosen = Filter(where="source != '/images/00007.png'")
    with milvus_stores.lent() as make:
        store = make("adaptive-hamming:3", 29)
        store.add(numbered(2997), rows[3:])
        read = []
        ball = Collection.ball

        def counted(*arguments):
            read.append(ball(*arguments))
            return read[-1]

        monkeypatch.setattr(Collection, "ball", counted)
        found = answers(store, rows[:3], k)
        few = sum(map(len, read))
        for query, near in zip(rows[:3], found, strict=True):
            assert near == wanted("adaptive-hamming:3", query, rows[3:], k)
        read.clear()
        monkeypatch.setattr(AdaptedDistance, "closer", lambda *_: "")
        assert answers(store, rows[:3], k) == found
        assert few < 0.6 * sum(map(len, read))
        monkeypatch.undo()
        assert store.count(chosen) == 2996
        exact = answers(store, rows[:3], 2997)
        assert answers(store, rows[:3], k, filter=chosen) == [
            [hit for hit in hits if hit[1] != "00007"][:k] for hits in exact
        ]


@pytest.fixture(scope="module")
def twenty_thousand(milvus_stores):
    """A store of 20,000 codes with probabilities, 17,000 of them equal, and these rows."""
    rng = np.random.default_rng(1)
    codes = np.packbits(rng.random((20_000, 21)) < 0.5, axis=1)
    codes[rng.permutation(20_000)[:17_000]] = codes[0]
    probabilities = rng.dirichlet([0.2] * 3, 20_000).astype(np.float32)
    probabilities[::3] = probabilities[0]
    rows = packed(codes, probabilities)
    with milvus_stores.lent() as make:
        store = make("adaptive-hamming:3", 21)
        store.add(numbered(len(rows)), rows)
        yield store, rows


def test_more_rows_than_an_answer_holds_are_read_in_parts(twenty_thousand):
    store, rows = twenty_thousand
    assert len(store) == 20_000
    assert [r.size for r in store.records()] == list(range(20_000))
    assert store.count(Filter(where="size < 19000")) == 19_000
    few = store.get([f"{n:05d}" for n in range(0, 20_000, 7)])
    np.testing.assert_array_equal(np.stack([vector for _, vector in few]), rows[::7])


def test_sealing_changes_no_result(twenty_thousand):
    store, rows = twenty_thousand
    before = answers(store, rows[:3], 30)
    store.optimize()
    assert answers(store, rows[:3], 30) == before
    assert before[0] == wanted("adaptive-hamming:3", rows[0], rows, 30)
    assert len(store) == 20_000


@pytest.mark.parametrize("k", [5, 17_500])
def test_ties_beyond_an_answer_go_by_id(twenty_thousand, k):
    """17,000 rows are as near as the nearest: more than one answer of Milvus holds."""
    store, rows = twenty_thousand
    queries = rows[[0, int(np.flatnonzero((rows[:, :3] != rows[0, :3]).any(axis=1))[0])]]
    plain = np.ascontiguousarray(rows[:, :3])
    for found, query in zip(store.search(queries, k), queries, strict=True):
        near = [(n.distance, n._record.args[0]) for n in found]
        assert near == wanted("adaptive-hamming:3", query, rows, k)
    for found, query in zip(store.search(queries, k, metric="hamming"), queries, strict=True):
        near = [(n.distance, n._record.args[0]) for n in found]
        assert near == wanted("hamming", query[:3], plain, k)


def test_a_store_survives_a_restart_of_its_server(milvus_server: Server):
    store = MilvusStore.create(milvus_server.uri("killed"), "euclidean", 2)
    rows = np.random.default_rng(2).standard_normal((300, 2)).astype(np.float32)
    many = numbered(300)
    store.add(many[:200], rows[:200])
    store.delete(["00007"])
    before = answers(store, rows[:3], 20)
    milvus_server.kill()
    store._connection.patience = 1
    for change in (
        lambda: len(store),
        lambda: store.search(rows[:1], 3),
        lambda: store.add(many[:1], rows[:1]),
        lambda: MilvusStore.open(milvus_server.uri("killed"), patience=0.5),
    ):
        with pytest.raises(ArchiveError, match=r"milvus://127.*/killed: the server did not answer"):
            change()
    store._connection.patience = 60
    milvus_server.start()
    assert answers(store, rows[:3], 20) == before
    store.add([*many[200:], many[7]], rows[[*range(200, 300), 7]])
    assert len(store) == 300
    for near, query in zip(answers(store, rows[:3], 30), rows[:3], strict=True):
        assert near == wanted("euclidean", query, rows, 30)
    again = MilvusStore.open(milvus_server.uri("killed"))
    assert list(again.records()) == many
    again.drop()
    with pytest.raises(ArchiveError, match="the collection was dropped"):
        store.search(rows[:1], 3)


def test_changes_of_another_store_are_visible_at_once(make):
    writer = make("euclidean", 1)
    query = np.zeros((1, 1), np.float32)
    reader = MilvusStore.open(writer.uri)
    session = MilvusStore.open(writer.uri + "?consistency=session")
    for n in range(5):
        writer.add([record(str(n))], np.array([[n]], np.float32))
        assert len(reader) == n + 1
        assert reader.search(query, 9)[0][-1].record.id == str(n)
        session.add([record(f"own{n}")], np.array([[n]], np.float32))
        assert session.search(query, 20)[0][-1].distance == n
        writer.delete([f"own{n}"])
    assert (writer.metric, writer.dimension) == (reader.metric, reader.dimension)
    assert (reader.metric, reader.dimension) == ("euclidean", 1)


def test_a_hit_that_is_deleted_before_it_is_read(make):
    store = make("euclidean", 1)
    store.add([record("a"), record("b")], np.array([[1], [2]], np.float32))
    found = store.search(np.array([[1]], np.float32), 2)[0]
    store.delete(["a"])
    assert len(store) == 1
    assert [near.distance for near in found] == [0, 1]
    assert found[1].record == record("b")
    with pytest.raises(ArchiveError, match="'a' was deleted after the search"):
        _ = found[0].record


def test_a_collection_that_rsir_did_not_create_is_refused(milvus_server: Server, make):
    store = make("euclidean", 1)
    with pytest.raises(ArchiveError, match="exists already"):
        MilvusStore.create(store.uri, "euclidean", 1)
    with pytest.raises(ArchiveError, match="does not exist"):
        MilvusStore.open(milvus_server.uri("absent"))
    with pytest.raises(ArchiveError, match="there is no database 'nowhere'; create it"):
        MilvusStore.create(milvus_server.uri("nowhere/tiles"), "euclidean", 1, patience=5)
    client = pymilvus().MilvusClient(f"http://127.0.0.1:{milvus_server.port}")
    client.create_collection("foreign", dimension=4)
    with pytest.raises(ArchiveError, match="not a store of rsir"):
        MilvusStore.open(milvus_server.uri("foreign"))
    client.drop_collection("foreign")


def test_a_store_of_another_format_is_refused(milvus_server: Server, monkeypatch):
    uri = milvus_server.uri("older")
    with monkeypatch.context() as patch:
        patch.setattr("rsir.store.milvus.store.FORMAT", "rsir-milvus/0")
        older = MilvusStore.create(uri, "hamming", 8)
    with pytest.raises(ArchiveError, match="format 'rsir-milvus/0', this rsir reads"):
        MilvusStore.open(uri)
    older.drop()


def test_opening_completes_an_interrupted_creation(milvus_server: Server, monkeypatch):
    uri = milvus_server.uri("cut_off")
    with monkeypatch.context() as patch:
        patch.setattr(MilvusStore, "_ready", lambda store: store)
        MilvusStore.create(uri, "cosine", 2)
    store = MilvusStore.open(uri)
    store.add([record("a")], np.ones((1, 2), np.float32))
    assert store.search(np.ones((1, 2), np.float32), 1)[0][0].record == record("a")
    store.drop()


def test_records_that_are_too_long_are_refused_and_large_ones_are_read(make):
    store = make("euclidean", 1)
    with pytest.raises(UsageError, match=r"the id of 'ééé.* has 65536 bytes"):
        store.add([record("a"), record("é" * 32768)], np.ones((2, 1), np.float32))
    with pytest.raises(UsageError, match=r"record as JSON of 'b' has .* takes at most 65535"):
        store.add([record("b", properties={"x": "é" * 33_000})], np.ones((1, 1), np.float32))
    assert len(store) == 0
    # 12 MB of records: more than one answer of this server.
    many = [record(f"{n:05d}{'é' * 500}", properties={"x": "é" * 31_000}) for n in range(200)]
    store.add(many, np.arange(200, dtype=np.float32)[:, None])
    assert [r.id for r in store.records()] == [r.id for r in many]
    assert len(store.get([r.id for r in many])) == 200
    few = store.search(np.zeros((2, 1), np.float32), 300, filter=Filter(where="id < '00007'"))
    assert [[n.record for n in neighbours] for neighbours in few] == [many[:7]] * 2


def test_dimensions_that_milvus_rejects(milvus_server: Server):
    for metric, dimension in (
        ("euclidean", 32_769),
        ("hamming", 32_769),
        ("cosine", 12_288),
        ("adaptive-hamming:12288", 8),
    ):
        with pytest.raises(UsageError, match="Milvus stores at most 32768"):
            MilvusStore.create(milvus_server.uri("wide"), metric, dimension)


def test_filters_by_place_time_and_class_at_their_edges(make):
    """The preselection by Milvus must never lose a record that meets the filter."""
    from datetime import datetime

    from rsir.store.memory import ExactStore

    third = 1 / 3
    point = {"type": "Point", "coordinates": [third, -third]}
    crossing = {"type": "MultiPoint", "coordinates": [[-180, 1], [180, 2]]}
    many = [
        record("a", footprint=point, datetime=datetime(2024, 5, 1, 0, 0, 0, 1)),
        record("b", footprint=crossing, datetime=datetime(1, 1, 1), properties={"class": ""}),
        record("c", properties={"class": "a'b\"\\"}, datetime=datetime(9999, 12, 31)),
        record("d", properties={"class": 5}),
        record("e", footprint={"type": "GeometryCollection", "geometries": []}),
    ]
    rows = np.arange(5, dtype=np.float32)[:, None]
    store, reference = make("euclidean", 1), ExactStore("euclidean", 1)
    for each in (store, reference):
        each.add(many, rows)
    for chosen in (
        Filter(bbox=(third, -1, 1, -third)),
        Filter(bbox=(np.nextafter(third, 1), -1, 1, -third)),
        Filter(bbox=(179.9, -90, -179.9, 90)),
        Filter(bbox=(-180, -90, 180, 90)),
        Filter(bbox=(0, -1, 1, 0), start=datetime(2024, 5, 1)),
        Filter(start=datetime(2024, 5, 1, 0, 0, 0, 1)),
        Filter(start=datetime(2024, 5, 1, 0, 0, 0, 2)),
        Filter(end=datetime(2024, 5, 1, 0, 0, 0, 1)),
        Filter(end=datetime(2024, 5, 1, 0, 0, 0, 0)),
        Filter(start=datetime(1, 1, 1), end=datetime(1, 1, 1)),
        Filter(start=datetime(9999, 12, 31)),
        Filter(classes=["a'b\"\\"]),
        Filter(classes=["", "5"]),
        Filter(classes=[]),
        Filter(geometry={"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, -1], [0, 0]]]}),
    ):
        matches = [r for r in reference.records() if meets(chosen, r)]
        assert list(store.records(chosen)) == matches, chosen
        assert store.count(chosen) == len(matches)
        assert store.search(rows[:1], 3, filter=chosen) == reference.search(
            rows[:1], 3, filter=chosen
        )


def test_a_server_that_shortens_floats_is_refused(make, monkeypatch):
    store = make("cosine", 16)
    rows = np.random.default_rng(3).standard_normal((100, 16)).astype(np.float32)
    store.add(numbered(100), rows)
    true = type(store._connection).call

    def call(self, name, **arguments):
        answer = true(self, name, **arguments)
        if name != "search":
            return answer
        return [[{**hit, "distance": round(hit["distance"], 2)} for hit in hits] for hits in answer]

    monkeypatch.setattr(type(store._connection), "call", call)
    with pytest.raises(ArchiveError, match="less precisely than in float32"):
        store.search(rows[:1], 3)


# Tests without a server.


def test_slots_are_spread_and_keys_need_no_quoting():
    from rsir.store.milvus.rows import Layout

    rows = Layout("euclidean", 1).rows(numbered(4000), np.zeros((4000, 1), np.float32))
    counts = np.bincount([row["slot"] * 8 // SLOTS for row in rows], minlength=8)
    assert len(counts) == 8
    assert counts.min() > 400
    keys = {row["key"] for row in rows}
    assert len(keys) == 4000
    assert all(len(key) == 22 and set(key) <= set(_SAFE) for key in keys)
    assert key_of("00000") in keys


_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("milvus://host/tiles", "milvus://host:19530/tiles"),
        ("milvus://host:7/db/tiles", "milvus://host:7/db/tiles"),
        ("milvus://me:s%2Fecret@host/t?secure=true", "milvus://host:19530/t?secure=true"),
        (
            "milvus://[::1]:8/t?token=abc&consistency=session",
            "milvus://[::1]:8/t?consistency=session",
        ),
    ],
)
def test_an_address_shows_no_secrets(uri, shown):
    address = Address.parse(uri)
    assert str(address) == shown
    assert str(Address.parse(shown)) == shown
    assert "ecret" not in repr(address)
    assert "abc" not in repr(address)
    if "me:" in uri:
        assert (address.user, address.password) == ("me", "s/ecret")
        assert address.hidden("bad s/ecret given") == "bad *** given"


def test_the_environment_supplies_what_the_uri_leaves_out(monkeypatch):
    for name, value in (("USER", "u"), ("PASSWORD", "p"), ("TOKEN", "t"), ("DB", "d")):
        monkeypatch.setenv(f"MILVUS_{name}", value)
    address = Address.parse("milvus://host/tiles")
    found = (address.user, address.password, address.token, address.database)
    assert found == ("u", "p", "t", "d")
    assert Address.parse("milvus://x:y@host/e/tiles").user == "x"
    assert Address.parse("milvus://x:y@host/e/tiles").database == "e"


def test_credentials_go_only_to_a_host_that_the_user_named(monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "t")
    uri = "milvus://host:8/tiles"
    assert Address.parse(uri).token == "t"
    assert Address.parse(uri, by_user=False).token == ""
    for hosts, named in (("host", True), ("a, host:8", True), ("host:9", False), ("", False)):
        monkeypatch.setenv("RSIR_MILVUS_HOSTS", hosts)
        address = Address.parse(uri, by_user=False)
        assert (address.is_named, address.token) == (named, "t" if named else "")


def test_a_strangers_archive_gets_no_credentials_and_no_endless_wait(tmp_path, monkeypatch, caplog):
    """A server that records what it is sent and never answers."""
    received = []

    class Silent(grpc.GenericRpcHandler):
        def service(self, details):
            received.append(dict(details.invocation_metadata))
            return grpc.unary_unary_rpc_method_handler(lambda request, context: over.wait(60))

    over = threading.Event()
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Silent()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("MILVUS_TOKEN", "root:secret")
    monkeypatch.setitem(MilvusStore.open.__func__.__kwdefaults__, "patience", 3)
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    file = archive.path / "archive.json"
    uri = f"milvus://127.0.0.1:{port}/tiles"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"store": uri}))
    try:
        for named in (False, True):
            received.clear()
            monkeypatch.setenv("RSIR_MILVUS_HOSTS", f"127.0.0.1:{port}" if named else "")
            caplog.clear()
            with pytest.raises(ArchiveError, match="did not answer for 3 s"):
                Archive.open(archive.path)
            assert received
            assert any("authorization" in sent for sent in received) == named
            assert (f"asking {uri}" in caplog.text) != named
    finally:
        over.set()
        server.stop(None)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://host/tiles", "it has another form"),
        ("milvus:///tiles", "it has another form"),
        ("milvus://host", "a collection's name"),
        ("milvus://host/a-b", "not 'a-b'"),
        ("milvus://host/a/b/c", "its path is"),
        ("milvus://u:12/secret@host/a", "user or password as %2F"),
        ("milvus://host:99999/a", "its port"),
        ("milvus://u:secret@host/a?speed=2", "no option 'speed'"),
        ("milvus://u:secret@host/a?secure=yes", "secure is true or false"),
        ("milvus://u:secret@host/a?consistency=none", "'strong' or 'session'"),
    ],
)
def test_uris_that_are_refused(uri, why):
    with pytest.raises(UsageError, match=why) as caught:
        Address.parse(uri)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_exist(monkeypatch, caplog):
    """The store waits for the server, and logs a warning."""
    pytest.importorskip("pymilvus")
    monkeypatch.setattr("rsir.store.milvus.connection._CONNECTING", 1)
    with pytest.raises(ArchiveError, match=r"did not answer for 1\.8 s") as caught:
        MilvusStore.open("milvus://me:secret@127.0.0.1:9/tiles", patience=1.8)
    warning = "milvus://127.0.0.1:9/tiles does not answer; trying for 2 s"
    assert [r.getMessage() for r in caplog.records if r.name.startswith("rsir")] == [warning]
    assert "secret" not in str(caught.value)


def test_without_the_extra_the_error_names_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rsir\[milvus\]'"):
        MilvusStore.open("milvus://localhost/tiles")


def test_the_store_is_imported_without_pymilvus():
    code = "import sys, rsir.store.milvus.store; assert not {'pymilvus', 'grpc'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_server_that_cannot_be_set_up_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("RSIR_MILVUS", str(tmp_path))
    (tmp_path / ".ready").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(UnavailableError, match="cannot be set up"):
        Server(tmp_path / "data")
    assert os.environ["RSIR_MILVUS"] == str(tmp_path)
