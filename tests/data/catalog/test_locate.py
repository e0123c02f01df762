"""Finding image sets below a data root."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.data.catalog.check import check
from rsir.data.catalog.entries import ENTRIES, Entry
from rsir.data.catalog.locate import locate
from rsir.errors import DataError
from tests.support.image_sets import TINY, folders, picture


@pytest.mark.parametrize("entry", [e for e in ENTRIES.values() if e.class_folders])
def test_locate_each_layout_among_others(tmp_path: Path, entry: Entry) -> None:
    for layout in entry.layouts:
        root = tmp_path / layout.replace("/", "-")
        folders(root / layout, *(name.title().replace(" ", "") for name in entry.class_folders))
        folders(root / "Other", "cats", "dogs")
        assert locate(entry, root) == root / layout
        assert locate(entry, root / layout) == root / layout


def test_locate_under_any_name(tmp_path: Path) -> None:
    base = folders(tmp_path / "a" / "b" / "c", *ENTRIES["aid"].classes)
    assert locate(ENTRIES["aid"], tmp_path) == base
    folders(tmp_path / "copy", *ENTRIES["aid"].classes)
    assert locate(ENTRIES["aid"], tmp_path) == tmp_path / "copy"
    folders(tmp_path / "copy2", *ENTRIES["aid"].classes)
    with pytest.raises(DataError, match=r"could be 2 folders .*copy, .*copy2"):
        locate(ENTRIES["aid"], tmp_path)


def test_sets_that_share_classes_are_kept_apart(tmp_path: Path) -> None:
    folders(tmp_path / "x", *ENTRIES["aid"].classes)
    with pytest.raises(DataError, match=r"WHU-RS19 is not below .* WHU-RS19/<class>/<image>"):
        locate(ENTRIES["whu-rs19"], tmp_path)
    folders(tmp_path / "y", *ENTRIES["whu-rs19"].classes)
    assert locate(ENTRIES["whu-rs19"], tmp_path) == tmp_path / "y"
    assert locate(ENTRIES["aid"], tmp_path) == tmp_path / "x"


def test_locate_dlrsd_before_uc_merced(tmp_path: Path) -> None:
    ucm, dlrsd = ENTRIES["ucm"], ENTRIES["dlrsd"]
    merced = folders(tmp_path / "UCMerced_LandUse" / "Images", *ucm.classes)
    assert locate(dlrsd, tmp_path) == merced
    images = folders(tmp_path / "DLRSD" / "Images", *ucm.classes)
    folders(tmp_path / "DLRSD" / "Labels", *ucm.classes)
    assert locate(dlrsd, tmp_path) == images
    assert locate(ucm, tmp_path) == merced


def test_locate_and_check_flat_and_unnamed_sets(tmp_path: Path) -> None:
    picture(tmp_path / "WHDLD" / "Images" / "wh0001.png", 0)
    picture(tmp_path / "WHDLD" / "ImagesPNG" / "wh0001.png", 1)
    report = check(ENTRIES["whdld"], tmp_path)
    assert report.root == tmp_path / "WHDLD" / "Images"
    assert report.total == (1, 4940)
    assert not report.missing
    assert not report.extra
    for i in range(19):
        picture(tmp_path / "SATREM" / f"class {i}" / "1.png", i)
    report = check(ENTRIES["satrem"], tmp_path, decode=False)
    assert report.wrong == (("class folders", 19, 20),)
    assert report.total == (19, 3000)


def test_locate_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder"):
        locate(TINY, tmp_path / "gone")
    with pytest.raises(DataError, match=r"Tiny set is not below"):
        locate(TINY, tmp_path)
