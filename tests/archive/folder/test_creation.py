"""Archives that several processes create at once, and creations that were cut off."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock
from PIL import Image

from rsir.archive import Archive
from rsir.archive.folder import creation
from rsir.errors import ArchiveError, UsageError
from rsir.store.lance.store import LanceStore
from rsir.store.open import without_secrets
from rsir.store.records.record import Record
from tests.archive.folder.creation_worker import PROCESSES, SlowEncoder, make, share
from tests.support.archives import contents_by_id
from tests.support.colour_encoder import ColourEncoder

ROUNDS = 3


class Child:
    """A spawned process, because a fork has none of LanceDB's threads."""

    def __init__(self, work, *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self) -> object:
        assert self.connection.poll(120), "the process sends nothing"
        return self.connection.recv()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def test_processes_that_share_a_new_archive_create_it_once(tmp_path, images):
    Archive.create(tmp_path / "whole", ColourEncoder()).add(images)
    whole = contents_by_id(Archive.open(tmp_path / "whole"))
    children = [Child(share, images, number) for number in range(PROCESSES)]
    try:
        for child in children:
            child.receive()
        for turn in range(ROUNDS):
            path = tmp_path / "new" / str(turn)
            for child in children:
                child.connection.send(path)
            assert [child.receive() for child in children] == [len(whole) // PROCESSES] * PROCESSES
            assert contents_by_id(Archive.open(path)) == whole
            assert {file.name for file in path.iterdir()} == {
                "archive.json",
                "items.lance",
                "last-index",
                "last-index.json",
                "model",
            }
    finally:
        for child in children:
            child.end()


def test_only_one_of_several_threads_creates_the_archive(tmp_path):
    def create(_: int) -> str:
        try:
            Archive.create(tmp_path / "new", SlowEncoder())
        except ArchiveError as error:
            return str(error)
        return "made"

    with ThreadPoolExecutor(PROCESSES) as pool:
        results = sorted(pool.map(create, range(PROCESSES)))
    assert results.count("made") == 1
    assert all("is an archive already" in text for text in results[:-1]), results
    with ThreadPoolExecutor(PROCESSES) as pool:
        opened = pool.map(
            lambda _: Archive.open_or_create(tmp_path / "other", SlowEncoder()), range(PROCESSES)
        )
        assert [len(archive) for archive in opened] == [0] * PROCESSES


@pytest.mark.parametrize("step", ["save", "store"])
def test_a_killed_creation_blocks_nobody(tmp_path, images, monkeypatch, step):
    path = tmp_path / "new"
    child = Child(make, path, step)
    try:
        assert child.receive() == step
        monkeypatch.setattr(creation, "PATIENCE", 0.2)
        for begin in (Archive.create, Archive.open_or_create):
            with pytest.raises(ArchiveError, match="another process has been creating it"):
                begin(path, ColourEncoder())
        with pytest.raises(ArchiveError, match="cut off"):
            Archive.open(path)
        monkeypatch.setattr(creation, "PATIENCE", 60.0)
        waiting = threading.Thread(target=Archive.open_or_create, args=(path, ColourEncoder()))
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive()
    finally:
        child.end()
    waiting.join(60)
    assert not waiting.is_alive()
    assert Archive.open(path, ColourEncoder()).add(images).added == 24


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    archive = Archive.create(tmp_path / "new", ColourEncoder())
    assert not (archive.path / creation.LOCK).exists()


def test_a_lock_that_is_refused_is_an_error(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(ArchiveError, match="change its permissions"):
        Archive.create(tmp_path / "new", ColourEncoder())


# After each step, and with object stores


class Cut(BaseException):
    """Stands for the end of the process."""


def cut(*_: object, **_more: object) -> None:
    raise Cut


def cut_after(function):
    def called(*arguments, **more):
        function(*arguments, **more)
        raise Cut

    return called


def cut_when(wanted, function):
    """Wrap `function`: it raises Cut for the arguments that `wanted` accepts."""
    return lambda *a, **more: cut() if wanted(*a) else function(*a, **more)


def steps(patch: pytest.MonkeyPatch, step: str) -> None:
    """End a creation at one of its steps, as a kill would."""
    replace = Path.replace
    real = LanceStore.create.__func__  # type: ignore[attr-defined]
    changes = {
        "before anything": (creation, "write_json", cut),
        "the mark is written": (creation, "write_json", cut_after(creation.write_json)),
        "the model is written": (ColourEncoder, "save", cut_after(ColourEncoder.save)),
        "before the store": (LanceStore, "create", cut),
        "the store is made": (LanceStore, "create", classmethod(cut_after(real))),
        "before the end": (
            Path,
            "replace",
            cut_when(lambda _, new: new.name == "archive.json", replace),
        ),
        "the end": (
            Path,
            "replace",
            lambda old, new: (replace(old, new), cut())[0] if new.name == "archive.json"
            else replace(old, new),
        ),
    }  # fmt: skip
    patch.setattr(*changes[step])


STEPS = (
    "before anything",
    "the mark is written",
    "the model is written",
    "before the store",
    "the store is made",
    "before the end",
    "the end",
)


@pytest.mark.parametrize("store", ["folder", "objects"])
@pytest.mark.parametrize("step", STEPS)
def test_a_creation_cut_off_at_any_step_can_be_repeated(
    tmp_path, images, bucket, monkeypatch, step, store
):
    path = tmp_path / "new"
    uri = None if store == "folder" else f"{bucket}/{step.replace(' ', '-')}/items.lance"
    with monkeypatch.context() as patch:
        steps(patch, step)
        with pytest.raises(Cut):
            Archive.create(path, ColourEncoder(), store=uri)
    archive = Archive.open_or_create(path, ColourEncoder(), store=uri)
    assert archive.add(images).added == 24
    assert len(Archive.open(path)) == 24
    names = {file.name for file in path.iterdir() if file.name != "items.lance"}
    assert names - {".archive.json.new.lock"} == {"archive.json", "last-index.json", "model"}


def cut_with_store(path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        steps(patch, "the store is made")
        with pytest.raises(Cut):
            Archive.create(path, ColourEncoder(), store=uri)


def test_a_store_left_for_another_model_is_not_used(tmp_path, bucket, monkeypatch):
    uri = f"{bucket}/model/items.lance"
    cut_with_store(tmp_path / "new", uri, monkeypatch)
    with pytest.raises(ArchiveError, match=r"delete .*model/items\.lance.*or choose another"):
        Archive.create(tmp_path / "new", ColourEncoder("cosine", 8), store=uri)
    assert len(Archive.create(tmp_path / "new", ColourEncoder(), store=uri)) == 0


def test_a_left_store_that_holds_records_is_not_used(tmp_path, bucket, monkeypatch):
    uri = f"{bucket}/full/items.lance"
    cut_with_store(tmp_path / "new", uri, monkeypatch)
    LanceStore.open(uri).add([Record("a", "a", "a")], np.ones((1, 16), np.float32))
    with pytest.raises(ArchiveError, match=r"holds 1 image"):
        Archive.create(tmp_path / "new", ColourEncoder(), store=uri)
    assert len(LanceStore.open(uri)) == 1


def test_the_store_of_another_archive_is_never_used(tmp_path, bucket, monkeypatch):
    uri = f"{bucket}/other/items.lance"
    Archive.create(tmp_path / "first", ColourEncoder(), store=uri)
    for _ in range(2):  # a failed attempt does not claim the store
        with pytest.raises(ArchiveError, match="exists already"):
            Archive.create(tmp_path / "second", ColourEncoder(), store=uri)
        assert not (tmp_path / "second").exists()
    # Nor if another archive created it after a creation that was cut off.
    late = f"{bucket}/late/items.lance"
    with monkeypatch.context() as patch:
        steps(patch, "the model is written")
        with pytest.raises(Cut):
            Archive.create(tmp_path / "third", ColourEncoder(), store=late)
    Archive.create(tmp_path / "fourth", ColourEncoder(), store=late)
    with pytest.raises(ArchiveError, match="exists already"):
        Archive.create(tmp_path / "third", ColourEncoder(), store=late)
    # Nor if another process creates it at the same moment.
    last = f"{bucket}/last/items.lance"
    create = LanceStore.create.__func__  # type: ignore[attr-defined]

    def later(*arguments):
        create(*arguments)
        return create(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LanceStore, "create", classmethod(later))
        with pytest.raises(ArchiveError, match="exists already"):
            Archive.create(tmp_path / "fifth", ColourEncoder(), store=last)
    with pytest.raises(ArchiveError, match="exists already"):
        Archive.create(tmp_path / "fifth", ColourEncoder(), store=last)


def test_an_unusable_store_fails_before_anything_is_written(tmp_path, bucket):
    with pytest.raises(ArchiveError, match="absent-bucket"):
        Archive.create(tmp_path / "new", ColourEncoder(), store="s3://absent-bucket/items.lance")
    with pytest.raises(UsageError, match="no store is known"):
        Archive.create(tmp_path / "new", ColourEncoder(), store="ftp://there/items.lance")
    assert not (tmp_path / "new").exists()


def test_a_table_is_created_in_one_commit_with_lancedbs_key(tmp_path):
    store = LanceStore.create(tmp_path / "items.lance", "cosine", 4)
    assert [version.version for version in store.versions()] == [1]
    schema = pa.schema([pa.field("id", pa.string(), nullable=False)])
    other = lancedb.connect(tmp_path).create_table("other", schema=schema)
    other.set_unenforced_primary_key("id")
    assert store._handle.table.schema.field("id").metadata == other.schema.field("id").metadata


def drop(uri: str) -> None:
    parent, name = uri.rsplit("/", 1)
    lancedb.connect(parent, storage_options={"allow_http": "true"}).drop_table(name[:-6])


def test_a_store_that_replaced_the_archives_own_is_not_opened(tmp_path, bucket):
    for number, uri in enumerate([None, f"{bucket}/swapped/items.lance"]):
        path, other = tmp_path / f"first-{number}", tmp_path / f"other-{number}"
        archive = Archive.create(path, ColourEncoder(), store=uri)
        written = json.loads((path / "archive.json").read_text("utf-8"))
        assert written["identity"] == archive.store.identity
        assert len(Archive.open(path)) == 0
        if uri is None:
            Archive.create(other, ColourEncoder())
            shutil.rmtree(path / "items.lance")
            shutil.copytree(other / "items.lance", path / "items.lance")
        else:
            drop(uri)
            Archive.create(other, ColourEncoder(), store=uri)
        for begin in (Archive.open, lambda path: Archive.open_or_create(path, ColourEncoder())):
            with pytest.raises(ArchiveError, match="another store has replaced it"):
                begin(path)
        if uri is None:  # an object store is checked again only after some seconds
            with pytest.raises(ArchiveError, match="another store has replaced it"):
                len(archive)
        # An archive of an older version has no identity.
        (path / "archive.json").write_text(
            json.dumps({name: value for name, value in written.items() if name != "identity"})
        )
        assert len(Archive.open(path)) == 0
        (path / "archive.json").write_text(json.dumps(written | {"identity": 5}))
        with pytest.raises(ArchiveError, match="'identity' is of the wrong type"):
            Archive.open(path)


def test_a_copy_of_an_archive_is_the_same_archive(tmp_path, images):
    Archive.create(tmp_path / "original", ColourEncoder()).add(images)
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    assert contents_by_id(Archive.open(tmp_path / "copy")) == contents_by_id(
        Archive.open(tmp_path / "original")
    )


def test_a_store_made_by_others_after_a_creation_was_cut_off_is_not_used(
    tmp_path, bucket, monkeypatch
):
    uri = f"{bucket}/since/items.lance"
    cut_with_store(tmp_path / "new", uri, monkeypatch)
    drop(uri)
    LanceStore.create(uri, "euclidean", 16)
    with pytest.raises(ArchiveError, match="by another process"):
        Archive.create(tmp_path / "new", ColourEncoder(), store=uri)


def test_a_creation_that_was_cut_off_continues_with_another_model(tmp_path, bucket, monkeypatch):
    uri = f"{bucket}/other-model/items.lance"
    cut_with_store(tmp_path / "new", uri, monkeypatch)
    other = ColourEncoder(seed=1)
    Archive.create(tmp_path / "new", other, store=uri)
    assert Archive.open(tmp_path / "new").fingerprint == other.fingerprint


def test_errors_show_no_secrets_of_a_uri(tmp_path):
    for uri in (
        "mulvis://me:secret@host:19530/tiles",
        "me:secret@mulvis://host/tiles",
        "s3://KEY:secret@bucket/items.lance",
        "s3://KEY:sec/secret@bucket/items.lance",
        "gs://secret@bucket/items.lance",
    ):
        with pytest.raises(UsageError) as caught:
            Archive.create(tmp_path / "new", ColourEncoder(), store=uri)
        assert "secret" not in str(caught.value).replace("no secret", "")
        assert "KEY:" not in str(caught.value)
        assert not (tmp_path / "new").exists()
    assert without_secrets("s3://bucket/me@home/items.lance") == "s3://bucket/me@home/items.lance"
