from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import rsir
from rsir.cli import demo
from rsir.data.synthetic.scenes import LAND_USES
from rsir.errors import DataError


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(
        demo.SETTINGS, epochs=1, image_size=32, batch_size=16, per_class=2, workers=0
    )
    monkeypatch.setattr(demo, "SETTINGS", settings)
    monkeypatch.setattr(demo, "PER_CLASS", 5)


def test_the_demo_runs_all_steps_and_runs_again(tmp_path: Path) -> None:
    lines: list[str] = []
    result = demo.run(tmp_path, say=lines.append)
    page = tmp_path / "results.html"
    assert page.as_uri() in str(result)
    html = page.read_text()
    assert "synthetic" in html
    # Eight queries with eight hits each, all with a picture and, from their GeoTIFFs, a location.
    assert html.count("data:image/jpeg;base64,") == 8 * 9
    assert html.count("° N, ") >= 8 * 8
    (archive,) = tmp_path.glob("archive-*")
    # The chips, and the tiles of a scene of 12 × 8 fields in steps of half a field.
    assert rsir.open(archive).info()["count"] == 5 * len(LAND_USES) + 23 * 15
    assert f"rsir serve {archive}" in str(result)
    assert any("mAP" in line for line in lines)
    steps = [line[:11] for line in lines if line.startswith("step")]
    assert steps == [f"step {n} of 4" for n in (1, 2, 3, 4)]
    scenes = tmp_path / "scenes"
    before = {file: file.stat().st_mtime_ns for file in scenes.rglob("*.tif")}

    again: list[str] = []
    assert demo.run(tmp_path, say=again.append) == result
    assert not any("epoch" in line for line in again)
    assert before == {file: file.stat().st_mtime_ns for file in scenes.rglob("*.tif")}


def test_a_query_is_not_shown_as_its_own_answer(tmp_path: Path) -> None:
    demo.run(tmp_path, say=lambda _: None)
    html = (tmp_path / "results.html").read_text()
    for section in html.split("<section")[1:]:
        query = section.split("Query: ")[1].split("<")[0]
        assert section.count(query) == 2  # as the query's name and in its picture's alt text


def test_own_class_folders_are_trained_on(coloured_classes: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    demo.run(tmp_path / "out", coloured_classes, say=lines.append)
    assert not (tmp_path / "out" / "scenes").exists()
    (archive,) = (tmp_path / "out").glob("archive-*")
    assert rsir.open(archive).info()["count"] == 48


def test_own_images_without_classes_are_searched_all_the_same(
    coloured_classes: Path, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(coloured_classes / "lake", flat)
    (flat / "broken.png").write_bytes(b"x")
    lines: list[str] = []
    result = demo.run(tmp_path / "out", flat, say=lines.append)
    assert any("generated scenes instead" in line for line in lines)
    assert any("broken.png" in line for line in lines)
    (archive,) = (tmp_path / "out").glob("archive-*")
    assert rsir.open(archive).info()["count"] == 12
    assert "searches: file:" in str(result)


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        demo.run(tmp_path / "out", tmp_path / "empty", say=lambda _: None)
    with pytest.raises(DataError):
        demo.run(tmp_path / "out", tmp_path / "nowhere", say=lambda _: None)
