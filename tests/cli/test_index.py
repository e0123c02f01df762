"""`rsir index`: the images that it adds, the cutting of scenes, and its messages."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import rsir
from rsir.archive import Archive
from rsir.cli.index import index
from rsir.scenes.stretch import Stretch
from rsir.scenes.tiling import Tiling
from tests.cli.running import TRAIN, Shell


def same(first: Path, second: Path) -> bool:
    """Whether two archives have equal records and, up to rounding by batch size, equal vectors."""
    a, b = rsir.open(first), rsir.open(second)
    records = list(a.records())
    ids = [record.id for record in records]
    return records == list(b.records()) and np.allclose(a.vectors(ids), b.vectors(ids), atol=1e-5)


def test_a_second_run_adds_nothing_and_lists_skipped_files(
    shell: Shell, images: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    archive = shutil.copytree(images, tmp_path / "archive")
    files = tmp_path / "files"
    files.mkdir()
    (files / "bad.png").write_bytes(b"nothing")
    (files / "notes.txt").write_text("hello")
    done = shell("index", archive, coloured_classes, files)
    assert done.status == 0
    assert done.out.splitlines() == [
        "0 added, 0 replaced, 48 unchanged, 1 skipped, 1 other files ignored",
        "0 images and tiles encoded",
        f"48 in {archive}",
    ]
    assert "bad.png" in done.err
    report = json.loads(shell("index", archive, coloured_classes, files, "--json").out)
    assert report["unchanged"] == 48
    assert [Path(entry["path"]).name for entry in report["skipped"]] == ["bad.png"]


def test_options_are_those_of_a_tiling(
    shell: Shell, model: Path, scenes: Path, tmp_path: Path
) -> None:
    done = shell(
        "index", tmp_path / "shell", scenes / "west.tif", scenes / "east.tif", "--model", model,
        "--tile-size", 320, "--stride", 160, "--unit", "metres", "--gsd", 20, "--edges", "pad",
        "--bands", "red=3, green ,blue=1", "--stretch", "range:10,240", "--resampling", "average",
        "--min-valid", 0.75, "--cloud-mask", "{folder}/masks/{stem}_scl.tif",
        "--cloud-classes", "8,9", "--max-cloud", 0.4, "--json", "--batch-size", 5,
    )  # fmt: skip
    assert done.status == 0, done.err
    tiling = Tiling(
        320, 160, "metres", 20, "pad", ("red=3", "green", "blue=1"), Stretch("range", (10, 240)),
        "average", 0.75, "{folder}/masks/{stem}_scl.tif", (8, 9), 0.4,
    )  # fmt: skip
    archive = Archive.create(tmp_path / "python", rsir.load(model))
    report = archive.add(sorted(scenes.glob("*.tif")), tiling=tiling)
    printed = json.loads(done.out)
    assert (printed["added"], printed["tiles"]) == (report.added, report.tiles) == (2, len(archive))
    assert printed["left_out"] == report.left_out
    assert set(report.left_out) == {"nodata", "cloud"}
    assert same(tmp_path / "shell", tmp_path / "python")


@pytest.mark.parametrize(
    ("options", "tiling"),
    [
        (("--tile-size", 32), Tiling(32)),
        (("--tile-size", 48, "--stride", 24), Tiling(48, 24)),
        (("--tile-size", 480, "--unit", "metres", "--gsd", 20), Tiling(480, None, "metres", 20)),
        (("--tile-size", 50, "--edges", "pad"), Tiling(50, edges="pad")),
        (("--bands", "3,2,1"), Tiling(bands=("3", "2", "1"))),
        (("--min-valid", 1), Tiling(min_valid=1)),
        (
            ("--tile-size", 32, "--cloud-mask", "{folder}/masks/{stem}_scl.tif"),
            Tiling(32, cloud_mask="{folder}/masks/{stem}_scl.tif"),
        ),
        (
            ("--tile-size", 32, "--cloud-mask", "{folder}/masks/{stem}_scl.tif", "--max-cloud", 0),
            Tiling(32, cloud_mask="{folder}/masks/{stem}_scl.tif", max_cloud=0),
        ),
        ((), None),
    ],
    ids=str,
)
def test_scenes_are_cut_as_python_cuts_them(
    options: tuple[object, ...],
    tiling: Tiling | None,
    shell: Shell,
    model: Path,
    scenes: Path,
    tmp_path: Path,
) -> None:
    pattern = f"{scenes}/*.tif"
    done = shell("index", tmp_path / "shell", pattern, "--model", model, *options)
    assert done.status == 0, done.err
    archive = Archive.create(tmp_path / "python", rsir.load(model))
    report = archive.add(pattern, tiling=tiling)
    assert same(tmp_path / "shell", tmp_path / "python")
    assert f"{report.tiles} images and tiles encoded" in done.out
    left_out = sum(report.left_out.values())
    assert ("windows left out" in done.out) == bool(left_out)
    for reason, count in report.left_out.items():
        assert f"{left_out} windows left out" in done.out
        assert f"{count} {reason}" in done.out


def test_left_out_windows_are_counted_by_reason(
    shell: Shell, model: Path, scenes: Path, tmp_path: Path
) -> None:
    mask = "{folder}/masks/{stem}_scl.tif"
    done = shell(
        "index", tmp_path / "a", f"{scenes}/*.tif", "--model", model, "--tile-size", 32,
        "--cloud-mask", mask, "--max-cloud", 0.1,
    )  # fmt: skip
    assert done.out.splitlines()[:2] == [
        "2 added, 0 replaced, 0 unchanged, 0 skipped, 0 other files ignored",
        # Of 24: the first column of the east, and the clouded field of both.
        "19 images and tiles encoded, 5 windows left out: 2 cloud, 3 nodata",
    ]


def test_shards_share_the_work(
    shell: Shell, images: Path, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    done = shell("index", archive, "--model", model)
    assert (done.status, done.out.splitlines()[-1]) == (0, f"0 in {archive}")
    (tmp_path / "notes.txt").write_text("hello")
    paths = (coloured_classes, tmp_path / "notes.txt")
    names = sorted(path.as_posix() for path in (*coloured_classes.rglob("*.png"), paths[1]))
    for shard in range(5):
        report = json.loads(shell("index", archive, *paths, "--shard", f"{shard}/5", "--json").out)
        mine = names[shard::5]
        assert report["added"] == sum(name.endswith(".png") for name in mine)
        assert [s["path"] for s in report["skipped"]] == [n for n in mine if n.endswith("txt")]
        assert {record.source for record in rsir.open(archive).records()} >= set(mine) - {names[-1]}
    assert same(archive, images)


def test_an_empty_archive_is_made_once(shell: Shell, model: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert shell("index", tmp_path / "a", "--model", model).status == 0
    done = shell("index", tmp_path / "a")
    assert (done.status, "give paths to index" in done.err) == (2, True)


def test_another_models_archive_is_refused(
    shell: Shell, images: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    train = ("train", "pooled", "--data", coloured_classes, "--out", tmp_path / "other", *TRAIN)
    assert shell(*train, "--epochs", 0).status == 0
    done = shell("index", images, coloured_classes, "--model", tmp_path / "other")
    assert done.status == 1
    assert "belongs to the model" in done.err


def test_defaults_are_those_of_python() -> None:
    shown, meant = inspect.signature(index), inspect.signature(Archive.add)
    for name in ("batch_size", "workers", "shard", "tiling"):
        default = None if name == "tiling" else shown.parameters[name].default
        assert default == meant.parameters[name].default
    # The help shows the defaults of Tiling.
    fields = Tiling.__dataclass_fields__
    helps = {name: str(p.annotation) for name, p in shown.parameters.items()}
    for option, name in (("tile_size", "size"), ("min_valid",) * 2, ("max_cloud",) * 2,
                         ("unit",) * 2, ("edges",) * 2, ("resampling",) * 2):  # fmt: skip
        assert f"Default: {fields[name].default}" in helps[option], option


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("new", "D"), 2, "--model"),
        (("A", "nowhere"), 1, "nowhere"),
        (("A", "nowhere/*.png"), 1, "matches no file"),
        (("A", "ftp://host/a.tif"), 1, "ftp"),
        (("D", "D", "--model", "M"), 1, "other files"),
        (("D", "D"), 1, "is not an archive"),
        (("new", "nowhere", "--model", "M"), 1, "nowhere"),
        (("new", "nowhere/*.tif", "--model", "M"), 1, "matches no file"),
        (("new", "D", "--model", "nowhere"), 1, "nowhere"),
        (("new", "D", "--model", "M", "--store", "ftp://x/y"), 2, "milvus://"),
        (("A", "D", "--store", "s3://bucket/x.lance"), 1, "not in s3://bucket/x.lance"),
        (("A", "D", "--shard", "5/3"), 2, "5"),
        (("A", "D", "--shard", "3/3"), 2, "3"),
        (("A", "D", "--shard", "0/0"), 2, "0"),
        (("A", "D", "--shard", "-1/3"), 2, "--shard"),
        (("A", "D", "--shard", "1"), 2, "I/N"),
        (("A", "D", "--tile-size", "0"), 2, "size"),
        (("A", "D", "--tile-size", "x"), 2, "--tile-size"),
        (("A", "D", "--tile-size", "nan"), 2, "size"),
        (("A", "D", "--tile-size", "64", "--stride", "65"), 2, "stride"),
        (("A", "D", "--unit", "feet"), 2, "feet"),
        (("A", "D", "--edges", "round"), 2, "round"),
        (("A", "D", "--stretch", "loud"), 2, "loud"),
        (("A", "D", "--stretch", "range:9,1"), 2, "range"),
        (("A", "D", "--resampling", "magic"), 2, "magic"),
        (("A", "D", "--min-valid", "2"), 2, "min_valid"),
        (("A", "D", "--cloud-classes", "3,x"), 2, "--cloud-classes"),
        (("A", "D", "--cloud-classes", "3.5"), 2, "whole numbers"),
        (("A", "D", "--max-cloud", "-1"), 2, "max_cloud"),
        (("A", "D", "--batch-size", "0"), 2, "at least 1"),
        (("A", "D", "--workers", "0"), 2, "at least 1"),
        (("A", "D", "--device", "abacus"), 2, "abacus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_a_message_and_a_status(
    arguments: tuple[str, ...],
    status: int,
    message: str,
    shell: Shell,
    model: Path,
    images: Path,
    coloured_classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    values = {"D": coloured_classes, "M": model, "A": images}
    done = shell("index", *(values.get(argument, argument) for argument in arguments))
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert "Traceback" not in done.err
    if "--store" not in arguments:
        assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_tiles_are_of_the_gsd_that_the_model_learnt_from(
    shell: Shell, coloured_classes: Path, scenes: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train = ("train", "pooled", "--data", coloured_classes, "--out", run, "--epochs", 1, *TRAIN)
    assert shell(*train, "-s", "gsd=20").status == 0
    archive = tmp_path / "archive"
    options = ("--tile-size", 16, "--gsd", "model")
    done = shell("index", archive, scenes / "west.tif", "--model", run, *options)
    assert done.status == 0, done.err
    records = list(rsir.open(archive).records())
    assert len(records) == 12
    assert {tuple(record.properties["gsd"]) for record in records} == {(20.0, 20.0)}
    assert shell("index", archive, scenes / "west.tif", "--tile-size", 16, "--gsd", 20).status == 0
    assert list(rsir.open(archive).records()) == records


def test_a_folder_without_images_is_named_as_such(
    shell: Shell, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    archive = shutil.copytree(images, tmp_path / "archive")
    done = shell("index", archive, tmp_path / "empty")
    assert done.status == 0
    assert "nothing to index there: no image or scene; other files: 1 .txt" in done.err
