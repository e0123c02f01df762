"""A full disk, a read-only or deleted folder: the error says so, and nothing is lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rsir.archive import Archive
from rsir.archive.folder.failures import translate_store_errors
from rsir.errors import ArchiveError, RsirError
from tests.durability import durable
from tests.durability.durable_worker import Task

IMAGES = 60
ALMOST_FULL = 64 * 1024
"""Bytes left on the disk; a commit takes some 10 KB."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return durable.paint(tmp_path_factory.mktemp("images"), range(IMAGES))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A separate file system of 16 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that fills the disk, except for a few commits."""
    ballast = folder / "ballast"
    space = os.statvfs(folder)
    ballast.write_bytes(bytes(space.f_bavail * space.f_frsize - ALMOST_FULL))
    return ballast


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `rsir` in another process."""
    command = [sys.executable, "-c", SHELL]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)


# The real shell with the small model of these tests.
SHELL = """
import sys
import types
from tests.support.colour_encoder import ColourEncoder
encoders = types.ModuleType("rsir.models.encoder")
encoders.Encoder = types.SimpleNamespace(load=lambda model, device: ColourEncoder())
sys.modules["rsir.models.encoder"] = encoders
from rsir.cli import main
main()
"""


def test_a_full_disk_keeps_what_was_committed_and_goes_on_with_space(disk, images, tmp_path):
    task = Task("index", disk / "archive", (images,))
    durable.run(Task("index", task.path, (images / "0000.png",)))
    ballast = fill(disk)
    before = durable.contents(task.path)
    messages, status = durable.run(task)
    assert status == RsirError.exit_status
    assert "the disk is full" in messages[-1].error
    assert str(task.path) in messages[-1].error
    must, may = durable.promised(before, messages)
    found = durable.contents(task.path)
    assert found in (must, may)
    assert 0 < len(found) < IMAGES
    durable.assert_searches_like_brute_force(task.path, found)

    done = shell("index", task.path, images)
    assert done.returncode == RsirError.exit_status
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"error: {task.path}: the disk is full")
    assert "Traceback" not in done.stderr

    ballast.unlink()
    messages, status = durable.run(task)
    assert (status, messages[-1].error) == (0, "")
    whole = Task("index", tmp_path / "whole", (images,))
    durable.run(whole)
    assert durable.contents(task.path) == durable.contents(whole.path)


# Writing to a memory map on a full disk would end the process, so this runs in another one.
INDEXING = """
import sys
from pathlib import Path
import numpy as np
from rsir.archive import Archive
from rsir.archive.folder.external import ExternalEncoder
from rsir.store.records.record import Record
from rsir.errors import ArchiveError

vectors = np.random.default_rng(0).standard_normal((5000, 512)).astype(np.float32)
archive = Archive.create(Path(sys.argv[1]), ExternalEncoder("some", "euclidean", 512))
archive.store.add([Record(f"{n:04d}", f"/{n}.png", "c") for n in range(len(vectors))], vectors)
try:
    archive.optimize() if sys.argv[2] == "optimize" else None
    len(archive.search(vectors[0], 1, ranking="approximate"))
except ArchiveError as error:
    print(error)
print(*[hit.id for hit in archive.search(vectors[7], 2)][:1])
print(*[path.name for path in Path(sys.argv[1], "items.index").glob("*")])
"""


@pytest.mark.parametrize("when", ["optimize", "search"])
def test_without_room_for_an_index_there_is_an_error_and_no_index(disk, when):
    command = [sys.executable, "-c", INDEXING, str(disk / "archive"), when]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done
    message, exact, left = done.stdout.splitlines()
    assert "the disk is full" in message
    assert (exact, left) == ("0007", "")


@pytest.mark.parametrize("limit", [2048, 4096, 8192])
def test_a_limit_on_the_size_of_files_is_like_a_full_disk(tmp_path, images, limit):
    whole = Task("index", tmp_path / "whole", (images,))
    assert durable.run(whole)[1] == 0
    wanted = durable.contents(whole.path)
    path = tmp_path / "archive"
    messages, status = durable.run(Task("index", path, (images,), file_limit=limit))
    assert (status, "the disk is full" in messages[-1].error) == (RsirError.exit_status, True)
    try:
        found = durable.contents(path)
    except ArchiveError as error:
        assert "cut off" in str(error)  # noqa: PT017
        found = {}
    assert found in durable.promised({}, messages)
    assert len(found) < IMAGES
    assert durable.run(Task("index", path, (images,)))[1] == 0
    assert durable.contents(path) == wanted


def test_a_disk_full_before_the_archive_is_made(disk, images):
    ballast = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_bytes(bytes(2**24))
    task = Task("index", disk / "archive", (images,))
    messages, status = durable.run(task)
    assert (status, "the disk is full" in messages[-1].error) == (RsirError.exit_status, True)
    ballast.unlink()
    assert durable.run(task)[1] == 0
    assert len(durable.contents(task.path)) == IMAGES


def read_only_disk(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def test_a_read_only_disk_is_searched_and_refuses_the_rest(disk, images):
    path = disk / "archive"
    durable.run(Task("index", path, (images / "0000.png", images / "0001.png")))
    rows = durable.contents(path)
    read_only_disk(disk)
    assert_read_only(path, images, rows)
    done = shell("index", path, images)
    assert done.returncode == RsirError.exit_status
    assert done.stderr.splitlines()[-1].startswith(f"error: {path}: cannot be written")
    assert "Traceback" not in done.stderr
    new = Task("index", disk / "new", (images,))
    messages, status = durable.run(new)
    assert (status, "cannot be written" in messages[-1].error) == (RsirError.exit_status, True)


def test_a_folder_without_permission_is_searched_and_refuses_the_rest(tmp_path, images):
    path = tmp_path / "archive"
    durable.run(Task("index", path, (images / "0000.png", images / "0001.png")))
    rows = durable.contents(path)
    folders = [path, *(folder for folder in path.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        if os.access(path, os.W_OK):
            pytest.skip("this user may write into any folder")
        assert_read_only(path, images, rows)
    finally:
        for folder in folders:
            folder.chmod(0o755)


def assert_read_only(path: Path, images: Path, rows: durable.Rows) -> None:
    durable.assert_searches_like_brute_force(path, rows)
    encoder = durable.worker.ColourEncoder()
    archive = Archive.open(path, encoder)
    changes: list[Callable[[], object]] = [
        lambda: archive.add(images),
        lambda: archive.delete(list(rows)[:1]),
    ]
    for change in changes:
        with pytest.raises(ArchiveError, match="cannot be written") as caught:
            change()
        assert str(path) in str(caught.value)
    assert encoder.encoded == 0, "the refusal comes before any work"
    assert durable.contents(path) == rows


@pytest.mark.parametrize("event", ["deleted", "moved"])
def test_a_folder_that_goes_while_it_is_open(tmp_path, images, event):
    path = tmp_path / "archive"
    encoder = durable.worker.ColourEncoder()
    archive = Archive.create(path, encoder)
    archive.add([images / "0000.png", images / "0001.png"])
    query = np.ones(archive.dimension, np.float32)
    assert len(archive.search(query)) == 2
    rows = durable.contents(path)
    if event == "deleted":
        shutil.rmtree(path)
    else:
        path.rename(tmp_path / "elsewhere")
    uses: list[Callable[[], object]] = [
        lambda: len(archive),
        lambda: archive.search(query),
        lambda: list(archive.records()),
        lambda: archive.get(list(rows)),
        lambda: archive.vectors(list(rows)),
        lambda: archive.add(images),
        lambda: archive.delete(list(rows)),
        lambda: archive.prune(),
        lambda: archive.optimize(),
        lambda: archive.info(),
    ]
    for use in uses:
        with pytest.raises(ArchiveError, match="was deleted or moved") as caught:
            use()
        assert str(path) in str(caught.value)
    assert not path.exists()
    if event == "moved":
        assert durable.contents(tmp_path / "elsewhere") == rows


def test_the_error_says_that_a_part_is_gone(tmp_path, images):
    path = tmp_path / "archive"
    durable.run(Task("index", path, (images / "0000.png",)))
    for file in (path / "items.lance" / "data").iterdir():
        file.unlink()
    archive = Archive.open(path)
    with pytest.raises(ArchiveError, match="a part of it is missing"):
        archive.search(np.ones(archive.dimension, np.float32))


def test_errors_of_the_model_are_not_those_of_the_archive(tmp_path, images):
    class Broken(durable.worker.ColourEncoder):
        def encode(self, images):
            raise RuntimeError("out of memory (os error 28)")

    with pytest.raises(RuntimeError, match="out of memory"):
        Archive.create(tmp_path / "archive", Broken()).add(images)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (
            RuntimeError("lance error: IO: No space left on device (os error 28), /a/b.rs:1:2"),
            "full",
        ),
        (OSError(122, "Disk quota exceeded"), "the disk is full"),
        (RuntimeError("lance error: Retryable commit conflict for version 7: x"), "the same again"),
        (RuntimeError("lance error: Too many concurrent writers"), "the same again"),
        (RuntimeError("lance error: odd, /a/b/commit.rs:653:26"), r"its store failed .*odd\)$"),
    ],
)
def test_what_a_failure_means(tmp_path, error, meaning):
    with pytest.raises(ArchiveError, match=meaning) as caught, translate_store_errors(tmp_path):
        raise error
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert caught.value.__cause__ is error
