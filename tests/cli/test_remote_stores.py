"""The shell with archives on a Milvus cluster and on an object store."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rsir
from rsir.store.milvus.connection import pymilvus
from rsir.store.milvus.store import MilvusStore
from tests.cli.running import Shell
from tests.cli.test_index import same
from tests.cli.test_search import found

SECRET = "s3cr/et-w@rd"
WRITTEN = "s3cr%2Fet-w%40rd"


def remote(shell: Shell, path: Path, uri: str, model: Path, tiles: Path) -> Path:
    """A new archive with the same content as the archive of the scenes' tiles."""
    done = shell("index", path, "--model", model, "--store", uri)
    assert (done.status, done.out.splitlines()[-1]) == (0, f"0 in {path}"), done.err
    done = shell("merge", path, tiles)
    assert done.status == 0, done.err
    assert done.out.startswith("21 added, 0 replaced")
    return path


@pytest.fixture(scope="module", params=["milvus", "s3"])
def stored(request, shell, model, tiles, tmp_path_factory) -> tuple[Path, str]:
    """An archive of the tiles in either store, and its URI; do not change it."""
    if request.param == "s3":
        uri = f"{request.getfixturevalue('bucket')}/shell/items.lance"
    else:
        uri = request.getfixturevalue("milvus_server").uri("shell_tiles")
    path = tmp_path_factory.mktemp(request.param) / "archive"
    return remote(shell, path, uri, model, tiles), uri


def test_results_equal_those_of_a_folder(
    stored: tuple[Path, str], shell: Shell, tiles: Path, scenes: Path, query: Path, tmp_path: Path
) -> None:
    path, uri = stored
    id = next(rsir.open(tiles).records()).id
    for arguments in (
        (query,),
        (query, "-k", 99, "--bbox", "16,44,17,46"),
        ("--id", id, "--datetime", "2024-05-02/..", "--diverse"),
        ("--scene", scenes / "west.tif", "--window", "10,20,50,40", "--min-percentile", "30"),
        ("--like", query, "--unlike", f"id:{id}", "--where", "width = 32", "-k", 5),
        (query, "--source", scenes / "east.tif"),
    ):
        hits = found(shell, path, *arguments)
        assert hits == found(shell, tiles, *arguments)
        assert hits
    info = json.loads(shell("info", path, "--sources", "--json").out)
    of_folder = json.loads(shell("info", tiles, "--sources", "--json").out)
    own = ("path", "store", "bytes", "version", "created")
    assert info["store"] == uri
    assert {k: v for k, v in info.items() if k not in own} == {
        k: v for k, v in of_folder.items() if k not in own
    }
    for name in ("a.parquet", "a.geojson", "a.geojsonl", "a.csv", "a.json"):
        for archive, folder in ((path, "there"), (tiles, "here")):
            (tmp_path / folder).mkdir(exist_ok=True)
            done = shell("export", archive, tmp_path / folder / name, "--bbox", "16,44,17,46")
            assert done.out.startswith("12 images in"), done.err
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_the_approximate_ranking(stored: tuple[Path, str], shell: Shell, query: Path) -> None:
    path, uri = stored
    done = shell("search", path, query, "--ranking", "approximate", "--recall", "--format", "json")
    if uri.startswith("s3"):
        assert (done.status, json.loads(done.out)) == (0, found(shell, path, query))
        assert "recall@10 of approximate: 1.0000" in done.err
    else:
        assert (done.status, done.out) == (2, "")
        assert "leave the ranking out" in done.err


def test_versions(stored: tuple[Path, str], shell: Shell, query: Path, tmp_path: Path) -> None:
    path, uri = stored
    version = rsir.open(path).info()["version"]
    for command in (
        ("info", path, "--versions"),
        ("search", path, query, "--version", version or 1),
        ("export", path, tmp_path / "a.csv", "--version", version or 1),
        ("restore", path, version or 1),
    ):
        done = shell(*command)
        if uri.startswith("s3"):
            assert done.status == 0, done.err
        else:
            assert (done.status, done.out) == (1, "")
            assert "without versions" in done.err


@pytest.mark.parametrize("kind", ["milvus", "s3"])
def test_upkeep(request, kind, shell, model, tiles, scenes, copy, tmp_path) -> None:
    uri = (
        f"{request.getfixturevalue('bucket')}/upkeep/items.lance"
        if kind == "s3"
        else request.getfixturevalue("milvus_server").uri("shell_upkeep")
    )
    folder = shutil.copytree(scenes, tmp_path / "scenes")
    archive = tmp_path / "archive"
    options = ("--tile-size", 32, "--json")
    index = ("index", archive, f"{folder}/*.tif", *options)
    report = json.loads(shell(*index, "--model", model, "--store", uri).out)
    assert (report["added"], report["tiles"], report["skipped"]) == (2, 21, [])
    assert json.loads(shell(*index).out)["unchanged"] == 2
    ids = [record.id for record in rsir.open(archive).records()]
    done = shell("delete", archive, ids[0], ids[1], "--yes")
    assert (done.status, done.out) == (0, "2 images deleted\n")
    assert ("rsir restore" in done.err) == (kind == "s3")
    assert shell("delete", archive, ids[0], "--yes").status == 1
    (folder / "west.tif").unlink()
    gone = json.loads(shell("prune", archive, "--json").out)["deleted"]
    assert 10 <= gone <= 12
    assert shell("optimize", archive).status == 0
    assert shell("optimize", archive, "--keep-days", "-1").status == 2
    (folder / "east.tif").unlink()
    assert shell("prune", archive).status == 1
    assert shell("prune", archive, "--everything").status == 0
    assert len(rsir.open(archive)) == 0
    assert shell("merge", archive, tiles).out.startswith("21 added")
    assert shell("merge", copy, archive).out.startswith("0 added, 0 replaced, 21 unchanged")
    assert same(archive, tiles)

    done = shell("index", tmp_path / "new", "--model", model, "--store", uri)
    assert (done.status, "exists already" in done.err) == (1, True)
    done = shell("index", copy, f"{scenes}/*.tif", "--store", uri)
    assert (done.status, f"not in {uri}" in done.err) == (1, True)


def test_two_processes_share_the_work(
    milvus_server, shell, model, images, coloured_classes, tmp_path
) -> None:
    """Two processes index one shard each, while this process reads."""
    archive = tmp_path / "archive"
    store = milvus_server.uri("shell_shards")
    assert shell("index", archive, "--model", model, "--store", store).status == 0
    command = [sys.executable, "-m", "rsir.cli", "index", archive, coloured_classes, "--json"]
    jobs = [
        subprocess.Popen(
            [*map(str, command), "--shard", f"{i}/2", "--batch-size", "4"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        reader = rsir.open(archive)
        seen: list[set[str]] = [set()]
        while any(job.poll() is None for job in jobs):
            count = len(reader)
            ids = [record.id for record in reader.records()]
            assert len(ids) == len(set(ids)) >= count
            seen.append(set(ids))
        reports = [json.loads(job.communicate()[0]) for job in jobs]
    finally:
        for job in jobs:
            if job.poll() is None:
                job.kill()
                job.communicate()
    assert [(report["added"], report["skipped"]) for report in reports] == [(24, [])] * 2
    assert all(before <= after for before, after in itertools.pairwise(seen))
    assert same(archive, images)


# Errors


def test_a_missing_server_and_a_dropped_collection(
    milvus_server, shell, model, query, tmp_path, monkeypatch
) -> None:
    archive = tmp_path / "archive"
    uri = milvus_server.uri("shell_gone")
    assert shell("index", archive, query, "--model", model, "--store", uri).status == 0
    MilvusStore.open(uri).drop()
    for command in (("search", archive, query), ("info", archive), ("index", archive, query)):
        done = shell(*command)
        assert (done.status, done.out) == (1, "")
        assert f"{uri} does not exist; check the uri" in done.err
        assert "Traceback" not in done.err
    about = archive / "archive.json"
    about.write_text(about.read_text().replace(uri, "milvus://127.0.0.1:9/nobody"))
    for function in (MilvusStore.open, MilvusStore.create):
        monkeypatch.setitem(function.__func__.__kwdefaults__, "patience", 1)
    done = shell("search", archive, query)
    assert (done.status, done.out) == (1, "")
    assert "milvus://127.0.0.1:9/nobody: the server did not answer for 1 s" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "uri",
    [
        "milvus://me:s3cret@host",
        "milvus://me:s3cret@host/a-b",
        "milvus://me:s3cret@host/name?speed=1",
        "milvus://me:12/s3cret@host/name",
    ],
)
def test_uris_that_are_refused_show_no_secrets(uri, shell, model, tmp_path) -> None:
    done = shell("index", tmp_path / "new", "--model", model, "--store", uri)
    assert (done.status, done.out) == (2, "")
    assert "milvus://localhost:19530/my_archive" in done.err
    assert "s3cret" not in done.err
    assert not (tmp_path / "new" / "archive.json").exists()


def test_secrets_are_neither_written_nor_shown(
    secured_milvus, shell, model, query, tmp_path, monkeypatch
) -> None:
    """A server that asks for a password, which comes from the URI or the environment."""
    plain = secured_milvus.uri("guarded")
    root = pymilvus().MilvusClient(
        uri=f"http://127.0.0.1:{secured_milvus.port}", user="root", password="Milvus"
    )
    root.update_password("root", "Milvus", SECRET)
    root.close()
    secret = plain.replace("//", f"//root:{WRITTEN}@")
    archive = tmp_path / "archive"
    texts = []

    def run(*command, status=0):
        done = shell(*command)
        texts.append(done.out + done.err)
        assert done.status == status, done.err
        assert "Traceback" not in done.err
        return done.err

    refused = "the server refuses the user or the token; give them as MILVUS_USER"
    wrong = plain.replace("//", "//root:another-w%40rd@")
    for uri in (plain, wrong):
        new = ("index", archive, query, "--model", model, "--store", uri)
        assert f"{plain}: {refused}" in run(*new, status=1)
    run("index", archive, query, "--model", model, "--store", secret)
    assert f"{plain}: {refused}" in run("search", archive, query, status=1)
    monkeypatch.setenv("MILVUS_USER", "root")
    monkeypatch.setenv("MILVUS_PASSWORD", SECRET)
    assert "RSIR_MILVUS_HOSTS=" in run("search", archive, query, status=1)
    monkeypatch.setenv("RSIR_MILVUS_HOSTS", f"127.0.0.1:{secured_milvus.port}")
    monkeypatch.setenv("MILVUS_PASSWORD", SECRET)
    run("index", archive, query, "--store", secret)
    run("search", archive, query)
    run("info", archive, "--json")
    monkeypatch.delenv("MILVUS_USER")
    monkeypatch.delenv("MILVUS_PASSWORD")
    monkeypatch.setenv("MILVUS_TOKEN", f"root:{SECRET}")
    run("search", archive, query)

    texts += [file.read_bytes().decode("latin-1") for file in archive.rglob("*") if file.is_file()]
    for word in (SECRET, WRITTEN, "another-w"):
        assert not any(word in text for text in texts)
    assert any(plain in text for text in texts)
