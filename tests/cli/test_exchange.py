"""`rsir export`, `import`, `merge`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsir
from rsir.archive import Archive
from rsir.archive.exchange import imports
from rsir.archive.exchange.export import FORMATS, export
from rsir.cli.exchange import ExportFormat
from rsir.errors import DataError
from rsir.store.filters.filter import Filter
from tests.cli.running import Shell
from tests.cli.test_index import same


@pytest.fixture
def external_embeddings(tmp_path: Path) -> Path:
    """Six embeddings with columns of unusual names."""
    file = tmp_path / "clay.parquet"
    vectors = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    columns = {
        "chip": [f"chip-{row}" for row in range(6)],
        "numbers": pa.array(list(vectors), pa.list_(pa.float32())),
        "file_name": [f"s3://bucket/{row}.tif" for row in range(6)],
        "seen": ["2024-05-01T10:00:00Z"] * 5 + ["May"],
        "location": [f"POINT ({row} 50)" for row in range(6)],
        "cloud": [row / 10 for row in range(6)],
    }
    pq.write_table(pa.table(columns), file)
    return file


COLUMNS = (
    *("--vector-column", "numbers", "--id-column", "chip", "--source-column", "file_name"),
    *("--datetime-column", "seen", "--geometry-column", "location"),
)


def test_formats_are_those_of_python() -> None:
    assert tuple(ExportFormat) == FORMATS


@pytest.mark.parametrize("name", ["a.parquet", "a.geojson", "a.geojsonl", "a.csv", "a.json"])
def test_the_shell_exports_the_same_as_python(
    name: str, shell: Shell, tiles: Path, tmp_path: Path
) -> None:
    archive = rsir.open(tiles)
    filter = Filter(bbox=(17, 45, 18, 46))
    (tmp_path / "python").mkdir()
    export(archive, tmp_path / "python" / name, archive.records(filter))
    done = shell("export", tiles, tmp_path / name, "--bbox", "17,45,18,46")
    assert done.out == f"9 images in {tmp_path / name}, 0 without a footprint\n"
    assert (tmp_path / name).read_bytes() == (tmp_path / "python" / name).read_bytes()
    done = shell("export", tiles, tmp_path / name)
    assert (done.status, "exists already" in done.err) == (2, True)
    report = json.loads(shell("export", tiles, tmp_path / name, "--overwrite", "--json").out)
    assert (report["written"], report["path"]) == (21, str(tmp_path / name))


def test_an_export_says_what_it_leaves_out(shell: Shell, images: Path, tmp_path: Path) -> None:
    done = shell("export", images, tmp_path / "items", "--format", "stac", "--class", "lake")
    assert done.out.startswith("0 images in")
    assert "12 left out: a STAC item needs a date, e.g. " in done.err
    assert json.loads((tmp_path / "items").read_text())["features"] == []


def test_an_archive_moves_by_geoparquet(
    shell: Shell, copy: Path, model: Path, tmp_path: Path
) -> None:
    version = rsir.open(copy).info()["version"]
    original = shutil.copytree(copy, tmp_path / "original")
    assert shell("delete", copy, "--bbox", "17,45,18,46", "--yes").status == 0
    options = ("--version", version, "--json")
    assert shell("export", copy, tmp_path / "all.parquet", *options).status == 0
    assert shell("index", tmp_path / "new", "--model", model).status == 0
    done = shell("import", tmp_path / "new", tmp_path / "all.parquet")
    assert done.out == (
        f"21 rows read: 21 added, 0 replaced, 0 skipped; 21 images in {tmp_path / 'new'}\n"
    )
    assert same(tmp_path / "new", original)
    report = json.loads(shell("import", tmp_path / "new", tmp_path, "--json").out)
    assert (report["added"], report["replaced"]) == (0, 21)


def test_external_embeddings(shell: Shell, external_embeddings: Path, tmp_path: Path) -> None:
    archive = tmp_path / "clay"
    done = shell("import", archive, external_embeddings, "--name", "clay-v1", *COLUMNS)
    assert done.status == 0, done.err
    assert "6 rows read: 6 added" in done.out
    assert "1 imported incompletely: its date is not understood" in done.err
    opened = rsir.open(archive)
    assert (opened.metric, opened.dimension, len(opened)) == ("cosine", 5, 6)
    (record,) = opened.get(["chip-3"])
    assert record.source == "s3://bucket/3.tif"
    assert record.footprint == {"type": "Point", "coordinates": [3, 50]}
    assert record.properties == {"cloud": 0.3}
    found = shell(
        "search", archive, "--id", "chip-3", "--format", "json", "--where", "cloud < 0.25"
    )
    assert {hit["id"] for hit in json.loads(found.out)} == {"chip-0", "chip-1", "chip-2"}
    # A second import, with or without the name.
    assert "0 added, 6 replaced" in shell("import", archive, external_embeddings, *COLUMNS).out
    done = shell("import", archive, external_embeddings, *COLUMNS, "--name", "clay-v2")
    assert (done.status, "belongs to the model" in done.err) == (1, True)
    done = shell("search", archive, tmp_path / "nothing.png")
    assert done.status in (1, 2)
    done = shell("index", archive, tmp_path)
    assert (done.status, "rsir import" in done.err) == (2, True)
    done = shell("search", archive, "--id", "chip-3", "--format", "html")
    assert (done.status, "not on this machine" in done.out) == (0, True)


def test_external_codes(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "codes.parquet"
    codes = [bytes([value, 255 - value]) for value in (0, 1, 3, 255)]
    pq.write_table(pa.table({"id": list("abcd"), "code": codes}), file)
    new = ("--name", "hashes", "--ranking", "hamming", "--dimension", 16)
    assert shell("import", tmp_path / "a", file, *new).status == 0
    done = shell("search", tmp_path / "a", "--id", "a", "--format", "json")
    found = [(hit["id"], hit["distance"]) for hit in json.loads(done.out)]
    assert found == [("b", 2), ("c", 4), ("d", 16)]


def test_a_failed_import_leaves_no_archive(
    shell: Shell, tiles: Path, external_embeddings: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    for options, status, message in (
        ((), 2, "--name"),
        (("--name", "clay"), 2, "which column"),
        (("--name", "clay", *COLUMNS, "--id-column", "nope"), 2, "nope"),
        (("--name", "clay", *COLUMNS, "--crs", "EPSG:0"), 2, "EPSG:0"),
        (("--name", "clay", *COLUMNS, "--ranking", "magic"), 2, "magic"),
        (("--name", "clay", *COLUMNS, "--dimension", "0"), 2, "dimension"),
        (("--name", " ", *COLUMNS), 2, "name of the model"),
        (("--name", "clay", *COLUMNS, "--fingerprint", "other"), 2, "other"),
    ):
        done = shell("import", new, external_embeddings, *options)
        assert (done.status, done.out, message in done.err) == (status, "", True), done.err
        assert not new.exists(), options
    assert shell("export", tiles, tmp_path / "own.parquet").status == 0
    done = shell("import", new, tmp_path / "own.parquet", "--name", "clay")
    assert (done.status, "embeddings of the model" in done.err) == (2, True)
    assert not new.exists()
    done = shell("import", new, tmp_path / "none.parquet", "--name", "clay")
    assert (done.status, "none.parquet" in done.err) == (1, True)
    assert not new.exists()


def test_an_archive_that_another_process_has_opened_stays(
    shell: Shell, external_embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    others: list[Archive] = []

    def fail(archive: Archive, *_: Any, **__: Any) -> None:
        others.append(rsir.open(new))  # as another process would, which then adds to it
        raise DataError("the disk is damaged")

    monkeypatch.setattr(imports, "import_parquet", fail)
    done = shell("import", new, external_embeddings, "--name", "clay", *COLUMNS)
    assert (done.status, "the disk is damaged" in done.err) == (1, True)
    assert len(others[0]) == len(rsir.open(new)) == 0
    monkeypatch.undo()
    assert shell("import", new, external_embeddings, "--name", "clay", *COLUMNS).status == 0


def test_embeddings_of_another_model_are_refused(
    shell: Shell, copy: Path, external_embeddings: Path
) -> None:
    done = shell("import", copy, external_embeddings, *COLUMNS)
    assert (done.status, "does not say which model" in done.err) == (2, True)
    assert len(rsir.open(copy)) == 21


def test_merge(
    shell: Shell, images: Path, copy: Path, tiles: Path, external_embeddings: Path, tmp_path: Path
) -> None:
    into = shutil.copytree(images, tmp_path / "into")
    assert shell("delete", copy, "--bbox", "17,45,18,46", "--yes").status == 0
    done = shell("merge", into, copy)
    assert done.out == (
        "12 added, 0 replaced, 0 unchanged, 0 kept because they are as new or newer; "
        f"60 images in {into}\n"
    )
    report = json.loads(shell("merge", into, tiles, "--json").out)
    assert (report["added"], report["unchanged"]) == (9, 12)
    wanted = {r.id for path in (images, tiles) for r in rsir.open(path).records()}
    assert {record.id for record in rsir.open(into).records()} == wanted
    assert (
        shell("import", tmp_path / "clay", external_embeddings, "--name", "c", *COLUMNS).status == 0
    )
    for other, message in (
        (tmp_path / "clay", "only archives of the same model"),
        ("none", "none"),
    ):
        done = shell("merge", into, other)
        assert (done.status, done.out, message in done.err) == (1, "", True)


def test_mistakes_of_an_export(shell: Shell, tiles: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    for options, status, message in (
        ((tiles, tmp_path / "a.xyz"), 2, "give the format"),
        ((tiles, tmp_path / "a.csv", "--format", "xml"), 2, "xml"),
        ((tiles, tmp_path, "--format", "csv"), 2, "is a folder"),
        ((tiles, tmp_path / "file" / "a.csv"), 1, "cannot be written"),
        ((tiles, tmp_path / "a.csv", "--version", "99"), 1, "version 99"),
        ((tiles, tmp_path / "a.csv", "--where", "SELECT"), 2, "not a condition"),
        ((tmp_path, tmp_path / "a.csv"), 1, "not an archive"),
    ):
        done = shell("export", *options)
        assert (done.status, done.out) == (status, "")
        assert message in done.err
    assert not (tmp_path / "a.csv").exists()
