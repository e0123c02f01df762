"""`rsir info`, `delete`, `prune`, `optimize`, `restore`."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import pytest

import rsir
from rsir.archive import Archive
from rsir.cli.upkeep import optimize
from rsir.store.filters.filter import Filter
from tests.cli.running import Shell


def ids(archive: Path) -> list[str]:
    return [record.id for record in rsir.open(archive).records()]


def test_info(shell: Shell, images: Path, tiles: Path, scenes: Path, model: Path) -> None:
    info = json.loads(shell("info", images, "--json").out)
    assert info == rsir.open(images).info()
    assert info["model"]["fingerprint"] in shell("info", images).out
    assert (
        info["model"]["fingerprint"]
        == json.loads((model / "model.json").read_text())["fingerprint"]
    )
    info = json.loads(shell("info", tiles, "--sources", "--versions", "--json").out)
    summaries = rsir.open(tiles).sources()
    assert [source["source"] for source in info["sources"]] == [s.source for s in summaries]
    assert [source["tiles"] for source in info["sources"]] == [9, 12]
    assert all(source["tiled"] for source in info["sources"])
    assert [tuple(source["bounds"]) for source in info["sources"]] == [s.bounds for s in summaries]
    versions = rsir.open(tiles).versions()
    assert [v["version"] for v in info["versions"]] == [v.version for v in versions]
    assert info["versions"][-1]["count"] == 21
    lines = shell("info", tiles, "--sources", "--versions").out.splitlines()
    (west,) = (line for line in lines if str(scenes / "west.tif") in line)
    assert west.split()[:2] == ["12", "tiles"]
    assert f"{summaries[1].bounds[0]:.5f}" in west  # type: ignore[index]  # it has some
    assert sum(line.startswith("version ") and "images" in line for line in lines) == len(versions)
    lines = shell("info", images, "--sources").out.splitlines()
    assert sum(line.split()[1:2] == ["images"] for line in lines) == 48


def test_delete_by_id(shell: Shell, copy: Path) -> None:
    first, second, *rest = ids(copy)
    before = rsir.open(copy).info()["version"]
    done = shell("delete", copy, first, second, first, "--yes")
    assert (done.status, done.out) == (0, "2 images deleted\n")
    assert f"rsir restore {copy} {before}" in done.err
    assert ids(copy) == rest
    done = shell("delete", copy, rest[0], first, "--yes")
    assert (done.status, f"'{first}'" in done.err) == (1, True)
    assert ids(copy) == rest  # all or nothing
    assert json.loads(shell("delete", copy, rest[0], "-y", "--json").out) == {"deleted": 1}


def test_delete_by_filter(shell: Shell, copy: Path, scenes: Path) -> None:
    archive = rsir.open(copy)
    east = [r.id for r in archive.records() if "east" in r.source]
    done = shell("delete", copy, "--source", scenes / "west.tif", answer="n\n")
    assert (done.status, done.out) == (1, "")
    assert "delete 12 of the 21 images" in done.err
    assert "nothing was changed" in done.err
    # stdin is empty, so nobody confirms.
    assert shell("delete", copy, "--source", scenes / "west.tif").status == 1
    assert len(ids(copy)) == 21
    done = shell("delete", copy, "--source", scenes / "west.tif", "--json", answer="y\n")
    assert (done.status, json.loads(done.out)) == (0, {"deleted": 12})
    assert ids(copy) == east
    done = shell("delete", copy, "--bbox", "0,0,1,1")
    assert (done.status, done.out) == (0, "0 images deleted\n")
    assert shell("delete", copy, "--datetime", "2024-05-02", "--yes").out.startswith("9 images")


def test_restore_takes_a_deletion_back(shell: Shell, copy: Path) -> None:
    before = ids(copy)
    version = rsir.open(copy).info()["version"]
    assert shell("delete", copy, "--where", "width > 0", "--yes").status == 0
    assert ids(copy) == []
    done = shell("restore", copy, version)
    assert done.out == f"{copy} is at version {version} again: 21 images\n"
    assert ids(copy) == before
    done = shell("restore", copy, 99)
    assert (done.status, "version 99" in done.err) == (1, True)


def test_prune(shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path) -> None:
    images = shutil.copytree(coloured_classes / "lake", tmp_path / "images")
    assert shell("index", tmp_path / "a", images, "--model", model).status == 0
    gone = [r.id for r in rsir.open(tmp_path / "a").records() if r.source.endswith("lake00.png")]
    (images / "lake00.png").unlink()
    assert json.loads(shell("prune", tmp_path / "a", "--json").out) == {"deleted": 1, "ids": gone}
    assert shell("prune", tmp_path / "a").out == "0 images deleted\n"
    shutil.rmtree(images)
    done = shell("prune", tmp_path / "a")
    assert (done.status, "not mounted" in done.err) == (1, True)
    assert f"rsir prune {tmp_path / 'a'} --everything" in done.err
    assert "everything=True" not in done.err
    assert shell("prune", tmp_path / "a", "--everything").out == "11 images deleted\n"


def test_optimize_forgets_old_versions(shell: Shell, copy: Path) -> None:
    for id in ids(copy)[:3]:
        rsir.open(copy).delete([id])
    before = len(rsir.open(copy).versions())
    assert shell("optimize", copy).status == 0
    assert len(rsir.open(copy).versions()) >= before
    before_ids = ids(copy)
    done = shell("optimize", copy, "--keep-days", 0)
    assert (done.status, "MB now" in done.out) == (0, True)
    assert len(rsir.open(copy).versions()) == 1
    assert ids(copy) == before_ids


def test_defaults_are_those_of_python() -> None:
    shown = inspect.signature(optimize).parameters["keep_days"].default
    assert shown == inspect.signature(Archive.optimize).parameters["keep_days"].default


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("info", "nowhere"), 1, "nowhere"),
        (("info", "D"), 1, "not an archive"),
        (("delete", "nowhere", "x"), 1, "nowhere"),
        (("delete", "A"), 2, "give either ids"),
        (("delete", "A", "x", "--class", "y"), 2, "give either ids"),
        (("delete", "A", "x"), 1, "'x'"),
        (("delete", "A", "--where", "DELETE FROM items"), 2, "not a condition"),
        (("delete", "A", "--bbox", "a,b,c,d"), 2, "W,S,E,N"),
        (("prune", "nowhere"), 1, "nowhere"),
        (("optimize", "nowhere"), 1, "nowhere"),
        (("optimize", "A", "--keep-days", "-1"), 2, "keep_days"),
        (("optimize", "A", "--keep-days", "nan"), 2, "keep_days"),
        (("restore", "A", "x"), 2, "integer"),
        (("restore", "nowhere", "1"), 1, "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_a_message_and_a_status(
    arguments: tuple[str, ...],
    status: int,
    message: str,
    shell: Shell,
    images: Path,
    coloured_classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"D": coloured_classes, "A": images}
    done = shell(*(places.get(argument, argument) for argument in arguments), answer="y\n")
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert rsir.open(images).count(Filter()) == 48
