"""Create, open and prune archives, and delete from them."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from rsir.archive import Archive
from rsir.errors import ArchiveError
from rsir.images.read import read_tile
from rsir.store.records.record import Record
from tests.support.archives import source_and_vector_by_id
from tests.support.colour_encoder import ColourEncoder


def test_an_archive_knows_its_model(tmp_path):
    encoder = ColourEncoder("hamming", 24)
    path = tmp_path / "new" / "archive"
    created = Archive.create(path, encoder)
    opened = Archive.open(path)
    for archive in (created, opened):
        assert archive.metric == "hamming"
        assert archive.dimension == 24
        assert archive.bands == ("red", "green", "blue")
        assert archive.fingerprint == encoder.fingerprint
        assert len(archive) == 0
    info = opened.info()
    assert info["model"] == {
        "fingerprint": "colour-hamming-24-0",
        "method": "colour",
        "backbone": "none",
    }
    assert info["count"] == 0
    assert info["bytes"] >= sum(f.stat().st_size for f in path.rglob("*.json"))
    assert json.loads(json.dumps(info)) == info


def test_another_model_is_refused(tmp_path):
    path = tmp_path / "archive"
    Archive.create(path, ColourEncoder(seed=0))
    for function in (Archive.open, Archive.open_or_create):
        with pytest.raises(ArchiveError, match="belongs to the model colour-euclidean-16-0"):
            function(path, ColourEncoder(seed=1))
    assert len(Archive.open_or_create(path, ColourEncoder(seed=0))) == 0


def test_the_copy_of_the_model_is_checked_when_it_is_loaded(tmp_path, monkeypatch):
    Archive.create(tmp_path / "archive", ColourEncoder())
    loaded = []

    class FakeModule:
        class Encoder:
            @staticmethod
            def load(folder):
                loaded.append(folder)
                return ColourEncoder(seed=len(loaded) - 1)

    monkeypatch.setitem(sys.modules, "rsir.models.encoder", FakeModule)
    archive = Archive.open(tmp_path / "archive")
    assert loaded == []
    assert archive.encoder.fingerprint == archive.fingerprint
    assert archive.encoder is archive.encoder
    assert loaded == [tmp_path / "archive" / "model"]
    with pytest.raises(ArchiveError, match="belongs to the model"):
        _ = Archive.open(tmp_path / "archive").encoder


def test_other_files_and_folders_are_refused(tmp_path, images):
    for path in (tmp_path / "absent", images, images / "river" / "00.png"):
        with pytest.raises(ArchiveError, match="is not an archive"):
            Archive.open(path)
    with pytest.raises(ArchiveError, match="other files"):
        Archive.create(images, ColourEncoder())
    with pytest.raises(ArchiveError, match="is a file"):
        Archive.create(images / "river" / "00.png", ColourEncoder())
    Archive.create(tmp_path / "archive", ColourEncoder())
    with pytest.raises(ArchiveError, match="already"):
        Archive.create(tmp_path / "archive", ColourEncoder())
    assert len(list(images.rglob("*.png"))) == 12


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": "rsir-archive/2"}', "rsir-archive/2"),
        ('{"format": "rsir-archive/1"}', "'rsir' is missing"),
        ('{"format": "else"}', "format 'else'"),
    ],
)
def test_a_damaged_manifest_is_refused(archive, text, reason):
    (archive.path / "archive.json").write_text(text)
    with pytest.raises(ArchiveError, match=reason):
        Archive.open(archive.path)


def test_a_manifest_that_does_not_fit_the_store_is_refused(archive):
    manifest = json.loads((archive.path / "archive.json").read_text())
    (archive.path / "archive.json").write_text(json.dumps(manifest | {"dimension": 8}))
    with pytest.raises(ArchiveError, match="holds euclidean, 16"):
        Archive.open(archive.path)
    (archive.path / "archive.json").write_text(json.dumps(manifest))
    shutil.rmtree(archive.path / "items.lance")
    with pytest.raises(ArchiveError, match=r"items\.lance does not exist"):
        Archive.open(archive.path)


@pytest.mark.parametrize("step", ["save", "store", "rename"])
def test_a_creation_that_was_cut_off_is_recognized_and_finished(
    tmp_path, images, monkeypatch, step
):
    path = tmp_path / "archive"
    encoder = ColourEncoder()

    def fail(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "save":
            patch.setattr(encoder, "save", fail)
        elif step == "store":
            patch.setattr("rsir.store.lance.store.LanceStore.create", fail)
        else:
            replace = Path.replace
            patch.setattr(
                Path, "replace", lambda a, b: fail() if b.name == "archive.json" else replace(a, b)
            )
        with pytest.raises(KeyboardInterrupt):
            Archive.create(path, encoder)
    with pytest.raises(ArchiveError, match="cut off"):
        Archive.open(path)
    archive = Archive.open_or_create(path, encoder)
    assert archive.add(images).added == 12
    assert len(Archive.open(path)) == 12


def test_delete_and_get(archive, images):
    archive.add(images)
    ids = [r.id for r in archive.records()]
    assert [r.id for r in archive.get(ids[3:1:-1])] == [ids[3], ids[2]]
    assert archive.delete([ids[0], "absent"]) == 1
    assert len(archive) == 11
    with pytest.raises(ArchiveError, match=ids[0]):
        archive.get([ids[0]])
    assert archive.vectors([]).shape == (0, 16)
    archive.optimize()
    assert [r.id for r in archive.records()] == ids[1:]
    assert archive.add(images).added == 1


def test_files_that_are_gone_stay_until_prune(archive, images):
    archive.add(images)
    gone = images / "river" / "02.png"
    id = read_tile(gone).id
    gone.unlink()
    shutil.rmtree(images / "forest")
    remote = Record("uri", "s3://bucket/a.png", "c")
    archive.store.add([remote], np.ones((1, 16), np.float32))
    assert archive.add(images).unchanged == 5
    assert len(archive) == 13
    pruned = archive.prune()
    assert len(pruned) == 7
    assert pruned == sorted(pruned)
    assert id in pruned
    assert len(archive) == 6
    assert archive.get(["uri"]) == [remote]
    assert archive.prune() == []


def test_prune_removes_nothing_if_a_disk_is_not_mounted(archive, images, tmp_path):
    assert archive.prune() == []
    archive.add(images)
    archive.store.add([Record("uri", "s3://bucket/a.png", "c")], np.ones((1, 16), np.float32))
    before = source_and_vector_by_id(archive)
    images.rename(tmp_path / "unmounted")
    with pytest.raises(ArchiveError, match=r"none of the archive's 12 files.*images.*not mounted"):
        archive.prune()
    assert source_and_vector_by_id(archive) == before
    (tmp_path / "unmounted").rename(images)
    assert archive.prune() == []
    shutil.rmtree(images)
    assert len(archive.prune(everything=True)) == 12
    assert [record.id for record in archive.records()] == ["uri"]


def test_bytes_are_known_only_of_records_in_the_folder(tmp_path, images):
    store = tmp_path / "elsewhere.lance"
    archive = Archive.create(tmp_path / "archive", ColourEncoder(), store=str(store))
    archive.add(images)
    assert archive.info()["bytes"] is None
    whole = Archive.create(tmp_path / "whole", ColourEncoder())
    whole.add(images)
    assert whole.info()["bytes"] > 1000
