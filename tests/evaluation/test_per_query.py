"""Values per query: the CSV file, and aligning two of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsir.errors import DataError, UsageError
from rsir.evaluation.per_query import PerQuery, paired, read_per_query, write_per_query
from rsir.evaluation.statistics import compare

HOSTILE = (
    "a,b.jpg",
    'say "hi".jpg',
    "two\nlines.jpg",
    "carriage\rreturn.jpg",
    "both\r\nof them.jpg",
    "森林/日本 é.jpg",
    " spaces ",
    "",
    "=1+1",
    "'",
    "nan",
    "1.5",
    "\ufeffbom.jpg",
    "nul\0l.jpg",
)


def table(paths: tuple[str, ...], seed: int = 0) -> PerQuery:
    rng = np.random.default_rng(seed)
    n = len(paths)
    values = {"map": rng.random(n), "p_at_5": rng.integers(6, size=n) / 5}
    return PerQuery(paths, tuple(f"class {i % 3}" for i in range(n)), values)


def write(path: Path, values: PerQuery) -> None:
    write_per_query(path, values.paths, values.classes, values.values)


def test_written_values_are_read_with_full_precision(tmp_path: Path) -> None:
    n = len(HOSTILE)
    extremes = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e22, 1e-7]
    values = {
        'a "measure", quoted\n': np.random.default_rng(0).random(n),
        "extremes": np.resize(np.array(extremes), n),
        "gaps": np.where(np.arange(n) % 2, np.nan, 1.0),
        "path": np.arange(n, dtype=np.float64),
        "": np.ones(n),
    }
    file = tmp_path / "new folder" / "queries.csv"
    write_per_query(file, HOSTILE, HOSTILE[::-1], values)
    found = read_per_query(file)
    assert found.paths == HOSTILE
    assert found.classes == HOSTILE[::-1]
    assert list(found.values) == list(values)
    for name, column in values.items():
        assert found.values[name].dtype == np.float64
        assert found.values[name].tobytes() == column.tobytes()
    assert [p.name for p in file.parent.iterdir()] == ["queries.csv"]


def test_the_file_is_plain_csv(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    write_per_query(file, ["a.jpg"], ["forest"], {"map": np.array([0.1]), "x": np.array([np.nan])})
    assert file.read_text() == '"path","class","map","x"\n"a.jpg","forest",0.1,nan\n'
    file.write_text("\ufeffpath,class,map\r\nb.jpg,sea,1\r\nc.jpg,,nan\r\n", "utf-8")
    found = read_per_query(file)
    assert (found.paths, found.classes) == (("b.jpg", "c.jpg"), ("sea", ""))
    np.testing.assert_array_equal(found.values["map"], [1, np.nan])


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    write(file, table(("a", "b")))
    before = file.read_bytes()
    with pytest.raises(DataError, match="not UTF-8"):
        write(file, table(("a", "\udcff")))
    with pytest.raises(UsageError, match="these occur more often: 1 \\(a\\)"):
        write_per_query(file, ["a", "b", "a"], ["c"] * 3, {"m": np.ones(3)})
    with pytest.raises(UsageError, match="2 queries but 3 values of m"):
        write_per_query(file, ["a", "b"], ["c"] * 2, {"m": np.ones(3)})
    with pytest.raises(UsageError, match="2 queries but 1 classes"):
        write_per_query(file, ["a", "b"], ["c"], {"m": np.ones(2)})
    with pytest.raises(UsageError, match="no queries"):
        write_per_query(file, [], [], {"m": np.empty(0)})
    with pytest.raises(UsageError, match="infinite"):
        write_per_query(file, ["a"], ["c"], {"m": np.array([np.inf])})
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["q.csv"]
    with pytest.raises(DataError, match="cannot be written"):
        write(file / "below", table(("a",)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: the header must begin with path,class"),
        (b"path,set,sha256,labels\n", "line 1: the header"),
        (b"class,path,map\na,b,1\n", "line 1: the header"),
        (b"path,class,map,map\na,b,1,1\n", "line 1: the column 'map' occurs twice"),
        (b"path,class,map\n", "a header but no queries"),
        (b"path,class,map\na,b\n", "line 2: 2 columns, not 3"),
        (b"path,class,map\na,b,1,2\n", "line 2: 4 columns, not 3"),
        (b"path,class,map\na,b,1\n\n", "line 3: 0 columns, not 3"),
        (b"path,class,map\na,b,1\nc,b,1\na,b,0\n", "line 4: a is in line 2 too"),
        (b"path,class,map\na,b,\n", "line 2: '' is no number"),
        (b"path,class,map\na,b,1_0\n", "line 2: '1_0' is no number"),
        (b"path,class,map\na,b, 1\n", "line 2: ' 1' is no number"),
        (b"path,class,map\na,b,1e999\n", "line 2: '1e999' is no number"),
        (b"path,class,map\na,b,inf\n", "line 2: 'inf' is no number"),
        (b"path,class,map\na,b,-\n", "line 2: '-' is no number"),
        (b"path,class,map\na,b,=1+1\n", "line 2: '=1\\+1' is no number"),
        (b"path,class,map\na,b,\xd9\xa1\n", "is no number"),
        (b'path,class,map\n"a,b,1\n', "line 2: "),
        (b'path,class,map\n"a"x,b,1\n', "line 2: "),
        (b"path,class,map\n\xff,b,1\n", "not UTF-8"),
        (b"path,class,map\n" + b"a" * 200_000 + b",b,1\n", "line 2: field larger"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "q.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_per_query(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_per_query(tmp_path / "q.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_per_query(tmp_path)


def test_two_files_are_aligned_by_path(tmp_path: Path) -> None:
    one = table(("c", "a", "b"))
    order = [2, 0, 1]
    moved = PerQuery(
        tuple(one.paths[i] for i in order),
        tuple(one.classes[i] for i in order),
        {"new": np.zeros(3), "map": one.values["map"][order] + 0.25},
    )
    write(tmp_path / "a.csv", one)
    write(tmp_path / "b.csv", moved)
    a, b = paired(read_per_query(tmp_path / "a.csv"), read_per_query(tmp_path / "b.csv"))
    assert a.paths == b.paths == ("c", "a", "b")
    assert a.classes == b.classes == one.classes
    assert list(a.values) == list(b.values) == ["map"]
    np.testing.assert_allclose(b.values["map"] - a.values["map"], 0.25)
    assert compare(a.values, b.values)["map"].better == 1


def test_files_with_other_queries_are_refused() -> None:
    many = tuple(f"q{i}" for i in range(8))
    with pytest.raises(
        UsageError,
        match=r"only in the first: 8 \(q0, q1, q2, q3, q4, …\); only in the second: 1 \(z\)",
    ):
        paired(table(("a", *many)), table(("z", "a")))
    with pytest.raises(UsageError, match=r"same queries; only in the second: 1 \(b\)"):
        paired(table(("a",)), table(("a", "b")))
    with pytest.raises(UsageError, match=r"have different classes: 2 \(a, b\)"):
        paired(table(("a", "b")), table(("b", "a")))
    with pytest.raises(UsageError, match="no measure in common"):
        paired(table(("a",)), PerQuery(("a",), ("class 0",), {"other": np.ones(1)}))
