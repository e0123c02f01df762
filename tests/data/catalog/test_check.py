"""Image sets on disk against their published facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.data import folder
from rsir.data.catalog import entries as catalog
from rsir.data.catalog.check import check
from rsir.data.catalog.entries import ENTRIES
from tests.support.image_sets import TINY, picture, tiny


def test_check_a_good_set(tmp_path: Path) -> None:
    base = tiny(tmp_path / "Tiny" / "Images")
    report = check(TINY, tmp_path)
    assert report.ok
    assert report.root == base
    assert report.counts == {"dense residential": 2, "storage tanks": 2}
    assert report.sizes == {(8, 6): 4}
    assert report.lines == [f"tiny: ok — 4 images in 2 folders, all decoded: {base}"]
    assert not check(TINY, tmp_path, decode=False).sizes


def test_check_notes(tmp_path: Path) -> None:
    base = tiny(tmp_path / "Tiny" / "Images")
    picture(base / "DenseResidential" / "2.png", 0)
    picture(base / "storage_tank" / "2.png", 9, (4, 5))
    report = check(TINY, tmp_path)
    assert report.ok
    assert report.duplicates == (("DenseResidential/1.png", "DenseResidential/2.png"),)
    assert report.lines[1:] == [
        "note: published at 8×6, found 1 of 4×5",
        "note: same content: DenseResidential/1.png = DenseResidential/2.png",
    ]


def test_check_finds_what_is_wrong(tmp_path: Path) -> None:
    base = tiny(tmp_path / "Tiny" / "Images")
    (base / "DenseResidential" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    for path in (base / "storage_tank").iterdir():
        path.unlink()
    picture(base / "cats" / "1.png", 7)
    picture(base / "DenseResidential" / "3.png", 8)
    report = check(TINY, tmp_path)
    assert not report.ok
    assert report.missing == ("storage tanks",)
    assert report.extra == ("cats",)
    assert report.wrong == (("dense residential", 3, 2),)
    assert report.total == (3, 4)
    assert [path for path, _ in report.corrupt] == ["DenseResidential/2.png"]
    text = "\n".join(report.lines)
    for line in ("tiny: not as published — 3 images", "missing: 1 class (storage tanks)",
                 "not of this set: 1 folder (cats)", "dense residential: 3, 2 expected",
                 "in all: 3 images, 4 expected", "corrupt: DenseResidential/2.png: "):  # fmt: skip
        assert line in text


@pytest.mark.slow
def test_check_aid(data_root: Path) -> None:
    report = check(ENTRIES["aid"], data_root, decode=False)
    assert report.ok
    assert report.counts == ENTRIES["aid"].counts
    assert ("Industrial/industrial_203.jpg", "Industrial/industrial_205.jpg") in report.duplicates


def test_check_ucm(data_root: Path) -> None:
    report = check(ENTRIES["ucm"], data_root, decode=False)
    assert report.ok
    assert report.root == data_root / "UCMerced_LandUse" / "Images"
    assert ("airplane/airplane01.jpg", "airplane/airplane02.jpg") in report.duplicates
    table = folder.load(
        data_root / "UCMerced_LandUse",
        labels=data_root / "UCMerced_LandUse" / "LandUse_Multilabeled.txt",
    )
    dlrsd = ENTRIES["dlrsd"]
    assert [catalog.find_class(dlrsd, name) for name in table.classes] == list(dlrsd.classes)
