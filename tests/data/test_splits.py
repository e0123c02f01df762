"""Splits: proportions, identical files, determinism, manifests."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.data import folder, splits
from rsir.data.folder import LabelledSet
from rsir.data.splits import Split, SplitRow
from rsir.data.stratify import divide_by_labels, round_shares
from rsir.errors import DataError, LeakageError, UsageError

HASH = hashlib.sha256(b"").hexdigest()


def class_set(root: Path, classes: dict[str, list[int]]) -> LabelledSet:
    """An image for each number; equal numbers are equal contents, also across classes."""
    for name, contents in classes.items():
        (root / name).mkdir(parents=True)
        for i, content in enumerate(contents):
            (root / name / f"{i:04}.jpg").write_bytes(str(content).encode())
    return folder.load(root)


def distinct(**sizes: int) -> dict[str, list[int]]:
    return {name: list(range(1000 * i, 1000 * i + n)) for i, (name, n) in enumerate(sizes.items())}


def multi_set(root: Path, targets: list[list[int]], contents: list[int]) -> LabelledSet:
    root.mkdir(parents=True, exist_ok=True)
    for i, content in enumerate(contents):
        (root / f"{i:04}.jpg").write_bytes(str(content).encode())
    return LabelledSet(
        root=root,
        paths=tuple(f"{i:04}.jpg" for i in range(len(contents))),
        classes=tuple(f"label {i}" for i in range(len(targets[0]))),
        targets=np.array(targets, np.uint8),
        multi_label=True,
    )


def count(split: Split) -> dict[str, dict[str, int]]:
    """{part: {label: images}}, counted the slow way."""
    counts: dict[str, dict[str, int]] = {part: defaultdict(int) for part in splits.PARTS}
    for row in split.rows:
        for label in row.labels:
            counts[row.part][label] += 1
    return {part: dict(of) for part, of in counts.items()}


def test_exact_shares(tmp_path: Path) -> None:
    data = class_set(tmp_path, distinct(a=100, b=50, c=10))
    split = splits.make(data, train=0.8, val=0.1, seed=3)
    assert count(split) == {
        "train": {"a": 72, "b": 36, "c": 7},
        "val": {"a": 8, "b": 4, "c": 1},
        "test": {"a": 20, "b": 10, "c": 2},
    }
    assert {row.path for row in split.rows} == set(data.paths)
    assert not split.multi_label
    assert split.classes == data.classes
    for row in split.rows:
        assert row.labels == (row.path.split("/")[0],)
        assert row.sha256 == hashlib.sha256((tmp_path / row.path).read_bytes()).hexdigest()


def test_the_total_is_right_where_classes_do_not_divide(tmp_path: Path) -> None:
    split = splits.make(class_set(tmp_path, distinct(a=5, b=5, c=5, d=5)), train=0.7, seed=1)
    train = count(split)["train"]
    assert sum(train.values()) == 14
    assert sorted(train.values()) == [3, 3, 4, 4]


@pytest.mark.parametrize("train", [0.01, 0.99])
def test_each_class_is_in_both_parts(tmp_path: Path, train: float) -> None:
    counts = count(splits.make(class_set(tmp_path, distinct(a=2, b=3)), train=train))
    assert set(counts["train"]) == set(counts["test"]) == {"a", "b"}


def test_all_or_nothing(tmp_path: Path) -> None:
    data = class_set(tmp_path, distinct(a=1, b=10))
    assert count(splits.make(data, train=1))["train"] == {"a": 1, "b": 10}
    assert count(splits.make(data, train=0))["test"] == {"a": 1, "b": 10}
    assert count(splits.make(data, train=1, val=0.3))["val"] == {"b": 3}


def test_tiny_classes_are_named(tmp_path: Path) -> None:
    data = class_set(tmp_path, {"a": [1, 2, 3], "one": [4], "same": [5, 5, 5]})
    with pytest.raises(DataError, match=r"2 classes \(one, same\)"):
        splits.make(data)


@pytest.mark.parametrize(
    ("train", "val", "seed"), [(1.1, 0, 0), (-0.1, 0, 0), (float("nan"), 0, 0), (0.8, 1, 0),
                               (0.8, -0.1, 0), (0.8, 0, -1)]
)  # fmt: skip
def test_bad_shares(tmp_path: Path, train: float, val: float, seed: int) -> None:
    with pytest.raises(UsageError):
        splits.make(class_set(tmp_path, distinct(a=4)), train=train, val=val, seed=seed)


def test_nothing_to_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        splits.make(class_set(tmp_path, distinct(a=4)).subset([]))


def test_unreadable_image(tmp_path: Path) -> None:
    data = class_set(tmp_path, distinct(a=4))
    (tmp_path / data.paths[2]).unlink()
    with pytest.raises(DataError, match=r"0002.jpg: cannot be read"):
        splits.make(data)


@pytest.mark.parametrize("seed", range(8))
def test_equal_files_stay_together_and_cost_nothing(tmp_path: Path, seed: int) -> None:
    contents = [*range(98), 7, 7]
    split = splits.make(class_set(tmp_path, {"a": contents}), train=0.8, val=0.25, seed=seed)
    assert {part: of["a"] for part, of in count(split).items()} == {
        "train": 60, "val": 20, "test": 20
    }  # fmt: skip
    assert len({row.part for row in split.rows if row.path[2:6] in ("0007", "0098", "0099")}) == 1


def test_equal_files_across_classes(tmp_path: Path) -> None:
    data = class_set(tmp_path, {"a": [0, 1, 2, 3, 99], "b": [99, 11, 12, 13, 14]})
    parts = set()
    for seed in range(20):
        split = splits.make(data, train=0.6, seed=seed)
        counts = count(split)
        assert counts["train"] == {"a": 3, "b": 3}
        by_path = {row.path: row.part for row in split.rows}
        assert by_path["a/0004.jpg"] == by_path["b/0000.jpg"]
        parts.add(by_path["a/0004.jpg"])
    assert parts == {"train", "test"}


def test_large_groups_bend_the_share_but_keep_both_parts(tmp_path: Path) -> None:
    split = splits.make(class_set(tmp_path, {"a": [1] * 6 + [2]}), train=0.5)
    assert sorted(of["a"] for part, of in count(split).items() if part != "val") == [1, 6]


def test_classes_bound_together(tmp_path: Path) -> None:
    # The classes hold the same two contents, so that a cut divides both or neither.
    split = splits.make(class_set(tmp_path, {"a": [1, 2], "b": [1, 2]}), train=0.5)
    assert count(split)["train"] == count(split)["test"] == {"a": 1, "b": 1}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=2, max_size=12), min_size=1, max_size=3),
    st.floats(0.05, 0.95),
    st.floats(0, 0.9),
    st.integers(0, 2**40),
)
def test_any_split(classes: list[list[int]], train: float, val: float, seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        data = class_set(Path(directory), {f"c{i}": contents for i, contents in enumerate(classes)})
        try:
            split = splits.make(data, train=train, val=val, seed=seed)
        except DataError:
            assert any(len(set(contents)) < 2 for contents in classes) or len(classes) > 1
            return
        assert splits.make(data, train=train, val=val, seed=seed) == split
        split.check()
        split.verify(data.root)
    counts = count(split)
    for i, contents in enumerate(classes):
        name = f"c{i}"
        trained = counts["train"].get(name, 0) + counts["val"].get(name, 0)
        tested = counts["test"].get(name, 0)
        assert trained + tested == len(contents)
        assert trained
        assert tested
        if all(len(set(c)) == len(c) for c in classes) and len(classes) == 1:
            assert trained - 1 <= train * len(contents) <= trained + 1


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=4), st.integers(1, 99))
def test_counts_are_rounded_by_largest_remainder(sizes: list[int], percent: int) -> None:
    share = percent / 100
    got = round_shares(np.array(sizes), share, 1)
    assert all(1 <= n <= size - 1 for n, size in zip(got, sizes, strict=True))
    exact = [percent * size for size in sizes]
    if all(100 <= e <= 100 * size - 100 for e, size in zip(exact, sizes, strict=True)):
        assert sum(got) == (sum(exact) + 50) // 100
        assert all(abs(100 * int(n) - e) < 100 for n, e in zip(got, exact, strict=True))


def test_seeds_differ_and_order_does_not_matter(tmp_path: Path) -> None:
    data = class_set(tmp_path, distinct(a=20, b=20))
    split = splits.make(data, seed=0)
    assert splits.make(data, seed=1).hash != split.hash
    assert splits.make(data.subset(range(39, -1, -1)), seed=0) == split


def test_golden_hash(tmp_path: Path) -> None:
    """If this fails, earlier splits can no longer be made from their seeds."""
    data = class_set(tmp_path / "single", {**distinct(a=10, b=7), "ü": [1, 1, 5000, 5001]})
    assert splits.make(data, train=0.7, val=0.2, seed=42).hash == GOLDEN_SINGLE
    rng = np.random.default_rng(0)
    targets = (rng.random((30, 4)) < 0.4).astype(int).tolist()
    multi = multi_set(tmp_path / "multi", targets, list(range(30)))
    assert splits.make(multi, train=0.7, val=0.2, seed=42).hash == GOLDEN_MULTI


GOLDEN_SINGLE = "e806fae538d8da2b24408bebf57c8410f7d92fd0e362c74b75aaa9d576afef1b"
GOLDEN_MULTI = "d0692e0118a6435b80226dd94620c3a4f54a4c0ff18210de86073e25e1527da4"


def slow_iterative(
    targets: np.ndarray, share: float, order: list[int], draws: np.random.Generator
) -> list[bool]:
    """Algorithm 1 of Sechidis et al. for two parts, with lists, as printed."""
    N, L = targets.shape
    shares = [share, 1 - share]
    want = [s * N for s in shares]
    want_label = []
    for s in shares:
        row = []
        for j in range(L):
            n = sum(int(t[j]) for t in targets)
            row.append(min(max(s * n, min(1, n)), max(n - 1, 0)))
        want_label.append(row)
    first = [False] * N
    left = list(order)

    def assign(i: int, by: list[float]) -> None:
        a, b = (round(by[0], 6), round(want[0], 6)), (round(by[1], 6), round(want[1], 6))
        part = int(draws.integers(2)) if a == b else (0 if a > b else 1)
        first[i] = part == 0
        want[part] -= 1
        for j in range(L):
            want_label[part][j] -= int(targets[i][j])
        left.remove(i)

    while left:
        rest = [sum(int(targets[i][j]) for i in left) for j in range(L)]
        if not any(rest):
            break
        label = min((n, j) for j, n in enumerate(rest) if n)[1]
        for i in [i for i in left if targets[i][label]]:
            assign(i, [want_label[0][label], want_label[1][label]])
    for i in list(left):
        assign(i, want)
    return first


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40), st.integers(1, 5), st.floats(0.1, 0.9))
def test_iterative_stratification_against_lists(seed: int, N: int, L: int, share: float) -> None:
    targets = (np.random.default_rng(seed).random((N, L)) < 0.4).astype(np.int64)
    ours = divide_by_labels(
        targets, np.ones(N, np.int64), share, np.random.default_rng(seed), least=1
    )
    draws = np.random.default_rng(seed)
    order = draws.permutation(N).tolist()
    assert ours.tolist() == slow_iterative(targets, share, order, draws)


def test_multi_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random((200, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]).astype(int)
    data = multi_set(tmp_path, targets.tolist(), [*range(198), 5, 5])
    split = splits.make(data, train=0.7, val=0.2, seed=2)
    counts = count(split)
    for j, name in enumerate(data.classes):
        n = int(targets[:, j].sum())
        assert abs(counts["test"][name] - 0.3 * n) <= 2
    assert (
        len({row.part for row in split.rows if row.path in ("0005.jpg", "0198.jpg", "0199.jpg")})
        == 1
    )
    assert split.multi_label
    train = split.labelled(tmp_path, "train", "val")
    assert train.targets.shape == (len(split.part("train", "val")), 5)
    for i, path in enumerate(train.paths):
        assert train.targets[i].tolist() == targets[int(path[:4])].tolist()


def test_rare_labels_are_in_both_parts_or_named(tmp_path: Path) -> None:
    targets = [[1, 0]] * 18 + [[1, 1]] * 2
    split = splits.make(multi_set(tmp_path / "two", targets, list(range(20))), train=0.9)
    assert count(split)["train"]["label 1"] == count(split)["test"]["label 1"] == 1
    with pytest.raises(DataError, match=r"1 class \(label 1\)"):
        splits.make(multi_set(tmp_path / "one", targets[:19], list(range(19))), train=0.9)


def test_write_and_read(tmp_path: Path) -> None:
    data = class_set(tmp_path / "set", {"a, b": [1, 2], 'say "é"': [3, 4], "日本": [5, 6]})
    split = splits.make(data, train=0.5)
    path = tmp_path / "new folder" / "split.csv"
    split.write(path)
    assert path.read_text(encoding="utf-8").splitlines()[0] == "path,set,sha256,labels"
    again = splits.read(path)
    assert again == split
    assert again.hash == split.hash
    assert [p.name for p in path.parent.iterdir()] == ["split.csv"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert splits.read(path) == split


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0/."), min_size=1
            ),
            st.sampled_from(splits.PARTS),
            st.sets(
                st.text(
                    st.characters(exclude_categories=["Cs"], exclude_characters="|"), min_size=1
                ),
                max_size=3,
            ),
        ),
        min_size=1,
        unique_by=lambda row: row[0],
    )
)
def test_any_manifest_comes_back(rows: list[tuple[str, splits.SplitPart, set[str]]]) -> None:
    split = Split(
        tuple(
            SplitRow(path, part, hashlib.sha256(path.encode()).hexdigest(), tuple(sorted(labels)))
            for path, part, labels in rows
        )
    )
    with tempfile.TemporaryDirectory() as directory:
        split.write(Path(directory) / "s.csv")
        assert splits.read(Path(directory) / "s.csv") == split


def test_hash_depends_on_every_column() -> None:
    row = SplitRow("a.jpg", "train", HASH, ("x",))
    others = [
        SplitRow("b.jpg", "train", HASH, ("x",)),
        SplitRow("a.jpg", "test", HASH, ("x",)),
        SplitRow("a.jpg", "train", hashlib.sha256(b"1").hexdigest(), ("x",)),
        SplitRow("a.jpg", "train", HASH, ("x", "y")),
    ]
    assert len({Split((r,)).hash for r in [row, *others]}) == 5
    pair = (row, SplitRow("b.jpg", "train", HASH, ("y",)))
    assert Split(pair).hash == Split(pair[::-1]).hash


@pytest.mark.parametrize(
    "row",
    [
        SplitRow("/etc/passwd", "train", HASH, ()),
        SplitRow("a/../../b.jpg", "train", HASH, ()),
        SplitRow("", "train", HASH, ()),
        SplitRow("a\0.jpg", "train", HASH, ()),
        SplitRow("a.jpg", "dev", HASH, ()),  # type: ignore[arg-type]
        SplitRow("a.jpg", "train", HASH.upper(), ()),
        SplitRow("a.jpg", "train", HASH[1:], ()),
        SplitRow("a.jpg", "train", HASH, ("a|b",)),
        SplitRow("a.jpg", "train", HASH, ("",)),
        SplitRow("a.jpg", "train", HASH, ("a", "a")),
    ],
)
def test_rows_that_no_manifest_holds(row: SplitRow) -> None:
    with pytest.raises(DataError):
        Split((row,))


def test_empty_and_repeated_rows() -> None:
    row = SplitRow("a.jpg", "train", HASH, ())
    with pytest.raises(DataError, match="at least one"):
        Split(())
    with pytest.raises(DataError, match=r"a.jpg: more than one"):
        Split((row, row))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the header must be path,set,sha256,labels"),
        ("path,set,labels\n", "line 1: the header"),
        ("HEAD\n", "a header but no images"),
        (f"HEAD\na.jpg,train,{HASH}\n", "line 2: 3 columns, not 4"),
        (f"HEAD\na.jpg,train,{HASH},x\nb.jpg,tset,{HASH},x\n", "line 3: 'tset' is not a part"),
        (f"HEAD\na.jpg,train,{HASH[:-1]},x\n", "line 2: a.jpg: .* is not a SHA-256"),
        (
            f"HEAD\n../a.jpg,train,{HASH},x\n",
            "line 2: '../a.jpg': a split needs relative paths below",
        ),
        (f"HEAD\na.jpg,train,{HASH},x||y\n", "line 2: a.jpg: the label ''"),
        (f"HEAD\na.jpg,train,{HASH},x\na.jpg,train,{HASH},x\n", "line 3: a.jpg is in line 2 too"),
        (f'HEAD\na.jpg,train,{HASH},"x"y\n', "line 2"),
        (f'HEAD\na.jpg,train,{HASH},"x\n', "line 2"),
        (f"HEAD\na.jpg,train,{HASH},\xff\n", "after line .: not UTF-8"),
    ],
)
def test_malformed_manifests(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(text.replace("HEAD", ",".join(splits.HEADER)).encode("latin-1"))
    with pytest.raises(DataError, match=message):
        splits.read(path)


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        splits.read(tmp_path / "none.csv")


def test_leakage_is_found(tmp_path: Path) -> None:
    rows = [SplitRow(f"{i}.jpg", "train", HASH, ("x",)) for i in range(4)]
    rows += [SplitRow(f"{i}.jpg", "test", HASH, ("x",)) for i in range(4, 6)]
    split = Split(tuple(rows))
    with pytest.raises(LeakageError, match=r"8 pairs.*0.jpg \(train\) = 4.jpg \(test\).*; …"):
        split.check()
    with pytest.raises(LeakageError):
        split.write(tmp_path / "s.csv")
    assert not list(tmp_path.iterdir())
    lines = [",".join(splits.HEADER), *(f"{r.path},{r.part},{r.sha256},x" for r in rows[3:5])]
    (tmp_path / "s.csv").write_text("\n".join(lines))
    with pytest.raises(LeakageError, match=r"s.csv: 1 pair of .*3.jpg \(train\) = 4.jpg \(test\)"):
        splits.read(tmp_path / "s.csv")
    val = Split((SplitRow("a.jpg", "val", HASH, ("x",)), SplitRow("b.jpg", "train", HASH, ("x",))))
    with pytest.raises(LeakageError, match=r"a.jpg \(val\) = b.jpg \(train\)"):
        val.check()


def test_verify_and_labelled(tmp_path: Path) -> None:
    data = class_set(tmp_path / "set" / "Images", distinct(a=10, b=10))
    split = splits.make(data)
    for root in (data.root, tmp_path / "set", tmp_path):
        split.verify(root)
        test = split.labelled(root, "test")
        assert test.root == data.root
        assert test.classes == ("a", "b")
        assert test.counts.tolist() == [2, 2]
        assert test.targets.dtype == np.int64
    assert len(split.labelled(data.root, "val")) == 0
    assert len(split.labelled(data.root, *splits.PARTS)) == len(split) == 20
    with pytest.raises(UsageError, match="'all' is not a part"):
        split.part("all")  # type: ignore[arg-type]
    shutil.copy(data.root / "a/0001.jpg", data.root / "a/0002.jpg")
    (data.root / "b/0003.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 image \(b/0003.jpg\) missing; 1 image \(a/0002.jpg\) changed"
    ):
        split.verify(data.root)
    with pytest.raises(DataError, match=r"1 image \(b/0003.jpg\) of the split missing"):
        split.labelled(data.root, "train", "test")
    with pytest.raises(DataError, match="no such folder"):
        split.labelled(tmp_path / "gone", "train")


def test_uc_merced(data_root: Path) -> None:
    data = folder.load(data_root / "UCMerced_LandUse")
    split = splits.make(data, train=0.8, seed=0)
    assert set(count(split)["train"].values()) == {80}
    assert set(count(split)["test"].values()) == {20}
    pair = [row for row in split.rows if row.path.endswith(("airplane01.jpg", "airplane02.jpg"))]
    assert pair[0].sha256 == pair[1].sha256
    assert pair[0].part == pair[1].part


@pytest.mark.slow
def test_aid(data_root: Path) -> None:
    data = folder.load(data_root / "AID")
    counts = count(splits.make(data, train=0.8, seed=1))
    for name, n in zip(data.classes, data.counts, strict=True):
        assert counts["train"][name] == 0.8 * n


def test_uc_merced_multi_label(data_root: Path) -> None:
    root = data_root / "UCMerced_LandUse"
    data = folder.load(root, labels=root / "LandUse_Multilabeled.txt")
    split = splits.make(data, train=0.7)
    test = split.labelled(root, "test")
    assert test.classes == data.classes
    assert np.abs(test.counts / data.counts - 0.3).max() < 0.01
