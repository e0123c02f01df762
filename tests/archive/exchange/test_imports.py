"""Import of Parquet files: exports of rsir come back exactly; other files give what they have."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import shape

from rsir.archive import Archive
from rsir.archive.exchange import batches
from rsir.archive.exchange.columns import Columns
from rsir.archive.exchange.export import export
from rsir.archive.exchange.imports import dimension_of, import_parquet
from rsir.archive.folder.external import ExternalEncoder, is_external
from rsir.errors import DataError, UsageError
from tests.support.archives import (
    ACROSS,
    DIMENSION,
    HIGH,
    HOLED,
    METRICS,
    SQUARE,
    chip,
    contents,
    in_memory,
    many,
    on_disk,
    vectors,
)
from tests.support.parquet import imported, table

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


# Exports of rsir


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=12, deadline=None)
@given(held=many)
def test_an_export_comes_back_bit_for_bit(tmp_path_factory, metric, held):
    path = tmp_path_factory.mktemp("out") / "a.parquet"
    archive, empty = in_memory(metric, held), in_memory(metric, [])
    export(archive, path)
    report = import_parquet(empty, path)
    assert contents(empty) == contents(archive)
    assert (report.read, report.added, report.replaced) == (len(held), len(held), 0)
    assert (report.skipped.count, report.incomplete.count, report.ignored) == (0, 0, ())


@pytest.mark.parametrize("metric", METRICS)
def test_an_export_goes_from_archive_to_archive(tmp_path, metric):
    held = [
        chip(0, footprint=HOLED, datetime=NOON, properties={"a": [1, {"b": None}], "é": "\n'\""}),
        chip(1, footprint=ACROSS, size=5, mtime_ns=7),
        chip(2, footprint=HIGH),
        chip(3),
    ]
    archive = on_disk(tmp_path / "one", metric, held)
    export(archive, tmp_path / "a.parquet")
    another = on_disk(tmp_path / "two", metric, [replace(held[1], content="old"), chip(9)], 5)
    report = import_parquet(another, tmp_path / "a.parquet")
    assert (report.added, report.replaced) == (3, 1)
    assert contents(another)[:4] == contents(archive)
    assert [r.id for r in another.records()][4:] == [chip(9).id]
    assert import_parquet(another, tmp_path / "a.parquet").added == 0
    assert contents(another)[:4] == contents(archive)


def test_an_export_of_another_model_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    export(in_memory("cosine", [chip(1)], name="another"), path)
    mine = in_memory("cosine", [])
    with pytest.raises(UsageError, match="of the model external:another/cosine/13"):
        import_parquet(mine, path)
    with pytest.raises(UsageError, match="of the model external:another/cosine/13"):
        import_parquet(mine, path, fingerprint=mine.fingerprint)
    assert len(mine) == 0


@pytest.mark.parametrize("name", ["geometry", "embedding", "mtime_ns"])
def test_an_export_that_lost_a_column_is_refused(tmp_path, name):
    path = tmp_path / "a.parquet"
    export(in_memory("cosine", [chip(1)]), path)
    pq.write_table(pq.read_table(path).drop_columns(name), path)
    with pytest.raises(UsageError, match=f"its column {name} is missing"):
        import_parquet(in_memory("cosine", []), path)


def test_an_export_of_a_later_format_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    for metadata in ({"format": "rsir-export/9"}, "{"):
        rows = table(1).replace_schema_metadata({"rsir": json.dumps(metadata)})
        pq.write_table(rows, path)
        with pytest.raises(UsageError, match="damaged"):
            import_parquet(in_memory("cosine", []), path)
    later = {"format": "rsir-export/9", "metric": "cosine", "dimension": 3, "fingerprint": "x"}
    pq.write_table(table(1).replace_schema_metadata({"rsir": json.dumps(later)}), path)
    with pytest.raises(UsageError, match="this rsir reads 'rsir-export/1'"):
        import_parquet(in_memory("cosine", []), path)


def test_damaged_rows_of_an_export_are_counted(tmp_path):
    path = tmp_path / "a.parquet"
    export(in_memory("cosine", [chip(n, footprint=SQUARE) for n in range(4)]), path)
    rows = pq.read_table(path)
    properties = pa.array(["{}", "[1]", "{", "{}"])
    rows = rows.set_column(rows.schema.get_field_index("properties"), "properties", properties)
    geometry = pa.array([b"\0", *rows["geometry"].to_pylist()[1:]])
    rows = rows.set_column(rows.schema.get_field_index("geometry"), "geometry", geometry)
    pq.write_table(rows, path)
    archive = in_memory("cosine", [])
    report = import_parquet(archive, path)
    assert [record.id for record in archive.records()] == [chip(3).id]
    np.testing.assert_array_equal(archive.vectors([chip(3).id]), vectors("cosine", 4)[3:])
    assert dict(report.skipped.reasons) == {
        "its properties are not a JSON object": 2,
        "its geometry is not WKB": 1,
    }


# The model of the embeddings


class Mine(ExternalEncoder):
    """Stands for a model of rsir: its fingerprint is not that of an external model."""

    fingerprint = "0123abcd"


def test_embeddings_of_an_unknown_model_need_a_fingerprint(tmp_path):
    pq.write_table(table(3), tmp_path / "theirs.parquet")
    mine = Archive.create(tmp_path / "mine", Mine("x", "cosine", DIMENSION))
    with pytest.raises(UsageError, match="give its fingerprint, 0123abcd; else"):
        import_parquet(mine, tmp_path / "theirs.parquet")
    with pytest.raises(UsageError, match="embeddings of the model 9, "):
        import_parquet(mine, tmp_path / "theirs.parquet", fingerprint="9")
    report = import_parquet(mine, tmp_path / "theirs.parquet", fingerprint="0123abcd")
    assert report.added == len(mine) == 3


def test_an_archive_of_external_embeddings(tmp_path):
    pq.write_table(table(5), tmp_path / "theirs.parquet")
    assert dimension_of(tmp_path / "theirs.parquet") == DIMENSION
    encoder = ExternalEncoder("clay 1.5/ü", "cosine", dimension_of(tmp_path / "theirs.parquet"))
    archive = Archive.create(tmp_path / "archive", encoder)
    import_parquet(archive, tmp_path / "theirs.parquet")
    archive = Archive.open(tmp_path / "archive")
    assert is_external(archive.fingerprint)
    assert archive.info()["model"]["backbone"] == "clay 1.5/ü"
    loaded = ExternalEncoder.load(tmp_path / "archive" / "model")
    assert loaded.fingerprint == archive.fingerprint
    hits = Archive.open(tmp_path / "archive", loaded).search(vectors("cosine", 5)[3], k=1)
    assert hits[0].id == "t3"
    with pytest.raises(UsageError, match=r"made elsewhere, by clay 1\.5/ü: search it by id or by"):
        loaded.encode([np.zeros((3, 8, 8), np.uint8)])


# Columns


def test_columns_become_records(tmp_path):
    rows = table(
        2,
        id=pa.array([7, 8]),
        href=["s3://a/7.tif", None],
        timestamp=pa.array([NOON, None], pa.timestamp("ns", "UTC")),
        geometry=[shape(SQUARE).wkb, None],
        cloud=[0.5, float("nan")],
        size=pa.array([3, None]),
        tags=[["a", "b"], []],
        scene=[{"row": 1, "note": None}, None],
        price=[Decimal("1.50"), None],
        seen=pa.array([date(2020, 1, 2), None]),
        when=pa.array([datetime(2020, 1, 2, 3), None], pa.timestamp("ns")),
        kind=pa.array(["x", "y"]).dictionary_encode(),
        blob=[b"1", b"2"],
    )
    records, report = imported(tmp_path, rows)
    first, second = records["7"], records["8"]
    assert (first.source, first.content, first.size, first.mtime_ns) == ("s3://a/7.tif", "", 0, 0)
    assert first.datetime == NOON
    assert first.footprint == SQUARE
    assert first.properties == {
        "cloud": 0.5,
        "size": 3,
        "tags": ["a", "b"],
        "scene": {"row": 1, "note": None},
        "price": 1.5,
        "seen": "2020-01-02",
        "when": "2020-01-02 03:00:00.000000000",
        "kind": "x",
    }
    assert second == replace(
        first,
        id="8",
        source=f"{tmp_path}/theirs.parquet#8",
        footprint=None,
        datetime=None,
        properties={"tags": [], "kind": "y"},
    )
    assert report.ignored == ("blob",)
    assert (report.read, report.added, report.incomplete.count) == (2, 2, 0)


def test_columns_have_given_or_usual_names(tmp_path):
    rows = table(3, id=None, embedding=None)
    rows = pa.table(
        {
            "Vector": list(vectors("cosine", 3)),
            "mine": list(vectors("cosine", 3, 5)),
            "ID": ["a", "b", "c"],
            "nr": [1, 2, 3],
            "features": ["x", "y", "z"],
        }
    )
    records, _ = imported(tmp_path, rows)
    assert set(records) == {"a", "b", "c"}
    assert set(records["a"].properties) == {"mine", "nr", "features"}
    records, _ = imported(tmp_path, rows, Columns(vector="mine", id="nr"))
    assert set(records) == {"1", "2", "3"}
    records, _ = imported(tmp_path, rows, Columns(id=""))
    assert set(records) == {f"{tmp_path}/theirs.parquet:{n}" for n in range(3)}
    made = f"{tmp_path}/theirs.parquet:1"
    assert records[made].source == f"{tmp_path}/theirs.parquet#{made}"
    with pytest.raises(UsageError, match="no column 'no'; it has: Vector, mine"):
        imported(tmp_path, rows, Columns(vector="no"))
    with pytest.raises(UsageError, match="'features' cannot be its vector: it is string"):
        imported(tmp_path, rows, Columns(vector="features"))
    with pytest.raises(UsageError, match="which column holds the embeddings"):
        imported(tmp_path, rows.select(["ID", "nr"]))
    with pytest.raises(UsageError, match="which column holds the codes"):
        imported(tmp_path, rows, metric="hamming")


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), DIMENSION),
        pa.list_(pa.float16()),
        pa.list_(pa.int8()),
    ],
    ids=str,
)
def test_vectors_of_any_type_of_numbers(tmp_path, kind):
    given = np.round(vectors("cosine", 4) * 10)
    pq.write_table(table(4, embedding=pa.array(list(given)).cast(kind)), tmp_path / "a.parquet")
    archive = in_memory("cosine", [])
    import_parquet(archive, tmp_path / "a.parquet")
    np.testing.assert_array_equal(archive.vectors([f"t{n}" for n in range(4)]), given)
    assert dimension_of(tmp_path / "a.parquet") == DIMENSION


@pytest.mark.parametrize("kind", [pa.binary(), pa.binary(2), pa.list_(pa.uint8())], ids=str)
def test_codes_as_bytes(tmp_path, kind):
    given = vectors("hamming", 4)
    rows = (
        [bytes(r) for r in given]
        if pa.types.is_binary(kind) or kind == pa.binary(2)
        else list(given)
    )
    pq.write_table(table(4, embedding=None, code=pa.array(rows, kind)), tmp_path / "a.parquet")
    archive = in_memory("hamming", [])
    import_parquet(archive, tmp_path / "a.parquet")
    np.testing.assert_array_equal(archive.vectors([f"t{n}" for n in range(4)]), given)


def test_codes_with_probabilities(tmp_path):
    rows = vectors("adaptive-hamming:3", 4)
    chances = list(np.ascontiguousarray(rows[:, 2:]).view("<f4"))
    chances[1] = chances[1][:2]
    chances[2] = chances[2] * 9
    codes = [bytes(row[:2]) for row in rows]
    given = table(4, embedding=None, code=codes, probabilities=chances)
    records, report = imported(tmp_path, given, metric="adaptive-hamming:3")
    assert set(records) == {"t0", "t3"}
    assert sorted(report.skipped.reasons.values()) == [1, 1]
    with pytest.raises(UsageError, match="no column 'probabilities'"):
        imported(tmp_path, given.drop_columns("probabilities"), metric="adaptive-hamming:3")


# Rows that cannot be imported


@pytest.mark.parametrize("fixed", [False, True])
def test_invalid_vectors_are_counted(tmp_path, fixed):
    good = [row.tolist() for row in vectors("cosine", 9)]
    rows = list(good)
    rows[1] = None
    rows[2] = [float("nan"), *good[2][1:]]
    rows[3] = [float("inf"), *good[3][1:]]
    rows[4] = [0.0] * DIMENSION
    rows[5] = [None, *good[5][1:]]
    rows[6] = [1e300, *good[6][1:]]
    rows[7] = [1e-300] * DIMENSION
    if not fixed:
        rows[8] = good[8][1:]
    kind = pa.list_(pa.float64(), DIMENSION) if fixed else pa.list_(pa.float64())
    records, report = imported(tmp_path, table(9, embedding=pa.array(rows, kind)))
    assert set(records) == {"t0", "t8"} if fixed else {"t0"}
    assert dict(report.skipped.reasons) == {
        "the vector has a value that is not finite (or is beyond float32)": 3,
        "the zero vector has no direction, so no cosine": 2,
        "its vector is missing": 1,
        "its vector has a value that is missing": 1,
    } | ({} if fixed else {"its vector has 12 values, not 13": 1})
    assert [named.id for named in report.skipped.first] == [f"t{n}" for n in range(1, 9 - fixed)]
    assert report.read == 9
    assert json.loads(json.dumps(report.to_dict()))["skipped"]["count"] == 8 - fixed


def test_the_first_of_equal_ids_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "MAX_RECORDS", 2)
    ids = ["a", "b", "b", "a", "c", None, ""]
    rows = table(7, id=ids, note=list(range(7)))
    records, report = imported(tmp_path, rows)
    assert {id: r.properties["note"] for id, r in records.items()} == {
        "a": 0,
        "b": 1,
        "c": 4,
        f"{tmp_path}/theirs.parquet:5": 5,
        "": 6,
    }
    assert dict(report.skipped.reasons) == {"its id occurs twice": 2}


def test_an_invalid_row_does_not_take_the_id_of_a_valid_row(tmp_path):
    rows = [None, *vectors("cosine", 1).tolist()]
    records, _ = imported(tmp_path, table(2, id=["a", "a"], embedding=rows, note=[1, 2]))
    assert records["a"].properties == {"note": 2}


def test_dates_of_all_types(tmp_path):
    texts = ["2020-01-02", "2020-01-02T03:04:05Z", "20200102T030405", "2020-01-02 03:04+02:00"]
    records, report = imported(tmp_path, table(6, datetime=[*texts, "soon", None]))
    day = datetime(2020, 1, 2, tzinfo=UTC)
    wanted = [
        day,
        *[day + timedelta(hours=3, minutes=4, seconds=5)] * 2,
        day + timedelta(hours=1, minutes=4),
        None,
        None,
    ]
    assert [record.datetime for record in records.values()] == wanted
    assert [record.properties for record in records.values()][4:] == [{"datetime": "soon"}, {}]
    assert report.incomplete.first[0].id == "t4"
    assert report.incomplete.count == 1
    here = datetime(2020, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    for values, kind, time in (
        ([date(2020, 1, 2)], pa.date32(), day),
        ([datetime(2020, 1, 2)], pa.timestamp("ms"), day),
        ([here], pa.timestamp("us", "+02:00"), day + timedelta(hours=1)),
        ([2**62], pa.timestamp("us"), None),
    ):
        records, _ = imported(tmp_path, table(1, datetime=pa.array(values, kind)))
        assert records["t0"].datetime == time
        assert ("datetime" in records["t0"].properties) == (time is None)


# Files


def test_folders_and_several_files(tmp_path):
    names = ["in/b.parquet", "in/deep/a.GeoParquet", "c.parquet", "in/spark.parquet/0.parquet"]
    for n, name in enumerate([*names, "in/no.txt"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(2, id=[f"{n}", "shared"]), tmp_path / name)
    archive, seen = in_memory("cosine", []), []
    report = import_parquet(
        archive,
        [tmp_path / "in", tmp_path / "c.parquet", tmp_path / "c.parquet"],
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert [record.id for record in archive.records()] == ["0", "1", "2", "3", "shared"]
    assert report.skipped.count == 3
    assert seen == [(2, 8), (4, 8), (6, 8), (8, 8)]


def test_files_that_are_not_parquet_are_refused(tmp_path):
    archive = in_memory("cosine", [])
    with pytest.raises(DataError, match=r"no.parquet: there is no file"):
        import_parquet(archive, tmp_path / "no.parquet")
    with pytest.raises(DataError, match="there is no Parquet file in it"):
        import_parquet(archive, tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        import_parquet(archive, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        dimension_of(tmp_path / "a.parquet")
    pq.write_table(table(0, embedding=pa.array([], pa.list_(pa.float32()))), tmp_path / "a.parquet")
    assert import_parquet(archive, tmp_path / "a.parquet").read == 0
    with pytest.raises(UsageError, match="has no embeddings"):
        dimension_of(tmp_path / "a.parquet")


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_all_rows_are_imported_or_counted(tmp_path_factory, data):
    wide = st.lists(st.floats(width=32), min_size=DIMENSION, max_size=DIMENSION)
    odd = st.none() | st.lists(st.floats() | st.none(), max_size=DIMENSION + 1)
    rows = data.draw(st.lists(st.tuples(st.sampled_from("abcd"), wide | odd), max_size=8))
    ids, values = [id for id, _ in rows], pa.array([v for _, v in rows], pa.list_(pa.float64()))
    path = tmp_path_factory.mktemp("in") / "a.parquet"
    pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "vector": values}), path)
    archive = in_memory("cosine", [])
    report = import_parquet(archive, path)
    assert report.added + report.skipped.count == report.read == len(rows)
    wanted = {}
    for id, row in rows:
        fit = row is not None and len(row) == DIMENSION and None not in row
        with np.errstate(over="ignore"):
            vector = np.array(row if fit else [0], np.float64).astype(np.float32)
        if np.isfinite(vector).all() and (vector.astype(np.float64) ** 2).sum() > 0:
            wanted.setdefault(id, vector.tobytes())
    assert {record.id: vector for record, vector in contents(archive)} == wanted
