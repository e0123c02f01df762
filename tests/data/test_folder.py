"""Labelled sets from class folders and multi-label tables, against the files on disk."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.data import folder
from rsir.errors import DataError, UsageError


def put(root: Path, *paths: str) -> Path:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.encode())
    return root


def table(path: Path, *lines: str) -> Path:
    path.write_bytes("\r\n".join(lines).encode())
    return path


def test_class_folders(tmp_path: Path) -> None:
    put(tmp_path, "b/2.jpg", "b/1.PNG", "a-z/x.tif", "a/x.jpeg", "b/notes.txt", "README", ".x.jpg")
    put(tmp_path, "__MACOSX/b/1.png", ".git/c/1.jpg")
    data = folder.load(tmp_path)
    assert data.root == tmp_path
    assert data.paths == ("a-z/x.tif", "a/x.jpeg", "b/1.PNG", "b/2.jpg")
    assert data.classes == ("a", "a-z", "b")
    assert data.targets.dtype == np.int64
    assert data.targets.tolist() == [1, 0, 2, 2]
    assert not data.multi_label
    assert data.ignored == 3
    assert len(data) == 4
    assert data.counts.tolist() == [1, 1, 2]
    assert data.labels(0) == ("a-z",)
    assert data.files[0] == tmp_path / "a-z/x.tif"


def test_the_only_subfolder_with_class_folders_is_loaded(tmp_path: Path) -> None:
    put(tmp_path, "Set/Images/a/1.jpg", "Set/Images/b/1.jpg", "Set/readme.txt")
    (tmp_path / "Set" / "empty").mkdir()
    data = folder.load(tmp_path)
    assert data.root == tmp_path / "Set" / "Images"
    assert data.paths == ("a/1.jpg", "b/1.jpg")
    assert folder.class_root(tmp_path) == data.root
    assert folder.class_root(data.root) == data.root


def test_class_root_of_a_flat_folder_is_itself(tmp_path: Path) -> None:
    assert folder.class_root(put(tmp_path, "1.jpg")) == tmp_path


def test_one_image(tmp_path: Path) -> None:
    data = folder.load(put(tmp_path, "ça va/日本.jpg"))
    assert (data.paths, data.classes) == (("ça va/日本.jpg",), ("ça va",))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no images here; image files end in .*[.]jpg"),
        (["a/notes.txt"], "no images here"),
        (["1.jpg", "2.jpg"], r"2 images \(1.jpg, 2.jpg\) in no class folder"),
        (["a/1.jpg", "1.jpg"], r"1 image \(1.jpg\) beside the class folders"),
        (["a/1.jpg", "a/deep/2.jpg"], r"1 image \(a/deep/2.jpg\) in folders inside"),
        (["a/1.jpg", "lost/x.txt"], r"1 class folder \(lost\) without images; unpack"),
        (["train/a/1.jpg", "test/a/1.jpg"], r"2 folders \(test, train\) hold class folders; name"),
    ],
)
def test_refused_layouts(tmp_path: Path, paths: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        folder.load(put(tmp_path, *paths))


def test_a_message_names_five_images_at_most(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", *(f"{i}.jpg" for i in range(7)))
    with pytest.raises(DataError, match=r"7 images \(0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, …\)"):
        folder.load(tmp_path)


def test_missing_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        folder.load(tmp_path / "nothing")
    with pytest.raises(DataError, match="is a file"):
        folder.load(put(tmp_path, "a.jpg") / "a.jpg")


def test_links(tmp_path: Path) -> None:
    put(tmp_path / "far", "1.jpg")
    root = put(tmp_path / "set", "a/1.jpg")
    (root / "b").symlink_to(tmp_path / "far", target_is_directory=True)
    assert folder.load(root).paths == ("a/1.jpg", "b/1.jpg")
    (root / "a" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"2\.jpg: a broken link"):
        folder.load(root)
    (root / "a" / "2.jpg").unlink()
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    with pytest.raises(DataError, match="leads back"):
        folder.load(root)


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg")
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/a/\xff.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes unicode names only")
    with pytest.raises(DataError, match="not valid UTF-8"):
        folder.load(tmp_path)


def test_subset(tmp_path: Path) -> None:
    data = folder.load(put(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg"))
    some = data.subset([2, 0])
    assert some.paths == ("b/2.jpg", "a/1.jpg")
    assert some.targets.tolist() == [1, 0]
    assert some.classes == data.classes
    assert data.subset(np.array([True, False, True])).paths == ("a/1.jpg", "b/2.jpg")
    assert len(data.subset([])) == 0
    assert data.subset([]).targets.dtype == np.int64
    assert data.subset([]).counts.tolist() == [0, 0]
    for wrong in ([3], [-1], [0.5], [[0]], [True, False]):
        with pytest.raises(UsageError):
            data.subset(wrong)


def test_targets_are_checked() -> None:
    good = np.zeros(1, np.int64)
    folder.LabelledSet(Path(), ("a",), ("x",), good, False)
    for targets, multi in ((good + 1, False), (good.astype(np.int32), False), (good, True)):
        with pytest.raises(DataError, match="targets"):
            folder.LabelledSet(Path(), ("a",), ("x",), targets, multi)


@pytest.mark.parametrize("separator", ["\t", ","])
def test_table(tmp_path: Path, separator: str) -> None:
    put(tmp_path, "Images/x/x1.jpg", "Images/x/x2.jpg", "Images/y/y1.v2.jpg")
    rows = ["IMAGE\\LABEL|sea|air", "x1|1|0", "y1.v2|1|1", "", "x/x2.jpg|0|0"]
    labels = table(tmp_path / "labels.txt", *(row.replace("|", separator) for row in rows))
    data = folder.load(tmp_path, labels=labels)
    assert data.root == tmp_path / "Images"
    assert data.paths == ("x/x1.jpg", "x/x2.jpg", "y/y1.v2.jpg")
    assert data.classes == ("air", "sea")
    assert data.targets.dtype == np.uint8
    assert data.targets.tolist() == [[0, 1], [0, 0], [1, 1]]
    assert data.multi_label
    assert data.labels(2) == ("air", "sea")
    assert data.labels(1) == ()
    assert data.counts.tolist() == [1, 2]
    assert data.subset([2]).targets.tolist() == [[1, 1]]
    assert data.subset([]).targets.shape == (0, 2)


def test_table_of_a_flat_folder(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "2.jpg")
    labels = table(tmp_path / "t.csv", "\ufeffname,a", "1.jpg,1", "2,0")
    assert folder.load(tmp_path, labels=labels).targets.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "empty; the first line"),
        (["name"], "line 1: a header"),
        (["name,a,"], "line 1: a header"),
        (["name,a,a", "1,0,1"], r"line 1: 1 label \(a\) named more than once"),
        (["name,a"], "a header but no rows"),
        (["name,a", "1,1,0"], "line 2: 3 columns, not 2"),
        (["name,a", ",1"], "line 2: no image name"),
        (["name,a", "1,1", "2,yes"], r"line 3 \(2\): values must be 0 or 1, not 'yes'"),
        (["name,a", "1,1", "2,1.0"], "values must be 0 or 1, not '1.0'"),
        (["name,a", "1,1", '2,"1'], "line 3"),
        (["name,a", "1,1", "2,1", "1.jpg,0"], r"1 row \(1.jpg\) for images that had a row"),
        (["name,a", "1,1", "2,1", "3,0", "4,0"], r"2 rows \(3, 4\) without an image"),
        (["name,a", "2,1"], r"1 image \(a/1.jpg\) without a row"),
        (["name,a,b", "1,1,0", "2,1,0"], r"1 label \(b\) on no image"),
    ],
)
def test_refused_tables(tmp_path: Path, lines: list[str], message: str) -> None:
    put(tmp_path, "a/1.jpg", "a/2.jpg")
    with pytest.raises(DataError, match=message):
        folder.load(tmp_path, labels=table(tmp_path / "t.csv", *lines))


def test_ambiguous_stem(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    with pytest.raises(DataError, match=r"'1' could be any of 2 images \(a/1.jpg, b/1.jpg\)"):
        folder.load(tmp_path, labels=table(tmp_path / "t.csv", "name,x", "1,1"))
    clear = table(tmp_path / "t.csv", "name,x", "a/1,1", "b/1.jpg,0")
    assert folder.load(tmp_path, labels=clear).targets.tolist() == [[1], [0]]


def test_unreadable_table(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        folder.load(tmp_path, labels=tmp_path / "none.csv")
    (tmp_path / "t.csv").write_bytes(b"name,\xff\n1,1\n")
    with pytest.raises(DataError, match="not a UTF-8"):
        folder.load(tmp_path, labels=tmp_path / "t.csv")


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text("abAB-_ é", min_size=1, max_size=5).filter(lambda name: name == name.strip()),
        st.sets(st.integers(0, 99), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_loads_what_was_written(images: dict[str, set[int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        put(root, *(f"{name}/{i}.jpg" for name, numbers in images.items() for i in numbers))
        data = folder.load(root)
    assert list(data.paths) == sorted(
        f"{n}/{i}.jpg" for n, numbers in images.items() for i in numbers
    )
    assert list(data.classes) == sorted(images)
    for path, target in zip(data.paths, data.targets, strict=True):
        assert path.startswith(data.classes[target] + "/")


def test_uc_merced(data_root: Path) -> None:
    data = folder.load(data_root / "UCMerced_LandUse")
    assert data.root == data_root / "UCMerced_LandUse" / "Images"
    assert len(data) == 2100
    assert data.counts.tolist() == [100] * 21


def test_uc_merced_multi_label(data_root: Path) -> None:
    labels = data_root / "UCMerced_LandUse" / "LandUse_Multilabeled.txt"
    data = folder.load(data_root / "UCMerced_LandUse", labels=labels)
    assert data.targets.shape == (2100, 17)
    with labels.open(newline="") as file:
        rows = {row.pop("IMAGE\\LABEL"): row for row in csv.DictReader(file, delimiter="\t")}
    for i in range(0, 2100, 97):
        row = rows[Path(data.paths[i]).stem]
        assert data.labels(i) == tuple(sorted(name for name, value in row.items() if value == "1"))
