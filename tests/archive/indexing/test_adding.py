"""Add images: which are read, encoded, replaced and skipped, and how a run resumes."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsir.archive import Archive, Skipped
from rsir.archive.folder.manifest import LAST_INDEX
from rsir.archive.indexing import indexer, reading
from rsir.errors import ArchiveError, DataError, ImageError, UsageError
from rsir.images.read import read_tile
from rsir.scenes.tiling import Tiling
from tests.support.archives import source_and_vector_by_id
from tests.support.colour_encoder import ColourEncoder
from tests.support.images import land, paint, write_scene


def sources(archive: Archive) -> list[str]:
    return sorted(r.source for r in archive.records())


def test_folders_and_files_are_added_once(archive, images):
    report = archive.add(
        [images, images / "river" / "00.png", images / "river" / ".." / "forest" / "01.png"]
    )
    assert (report.added, report.replaced, report.unchanged, report.skipped) == (12, 0, 0, ())
    assert len(archive) == 12
    record = next(r for r in archive.records() if r.source.endswith("forest/01.png"))
    tile = read_tile(images / "forest" / "01.png")
    stat = (images / "forest" / "01.png").stat()
    assert (record.id, record.source, record.content) == (tile.id, tile.source, tile.content)
    assert (record.size, record.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert record.properties["folder"] == "forest"
    assert (record.properties["width"], record.properties["height"]) == (7, 9)
    alone = ColourEncoder().encode([tile.pixels]).embedding[0]
    np.testing.assert_array_equal(archive.vectors([record.id])[0], alone)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_and_workers_change_nothing(tmp_path, images, batch_size, workers):
    plain = Archive.create(tmp_path / "plain", ColourEncoder())
    plain.add(images)
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(images, batch_size=batch_size, workers=workers)
    assert source_and_vector_by_id(archive) == source_and_vector_by_id(plain)


def test_indexing_again_reads_and_encodes_nothing(archive, images, monkeypatch):
    archive.add(images)
    before, version = source_and_vector_by_id(archive), archive.info()["version"]
    monkeypatch.setattr(reading, "read_tile", None)
    report = archive.add(images)
    assert (report.added, report.replaced, report.unchanged) == (0, 0, 12)
    assert archive.encoder.encoded == 12
    assert source_and_vector_by_id(archive) == before
    assert archive.info()["version"] == version


def test_a_touched_file_is_not_encoded_again(archive, images):
    archive.add(images)
    before = source_and_vector_by_id(archive)
    os.utime(images / "river" / "00.png", ns=(1, 12345))
    report = archive.add(images)
    assert (report.added, report.replaced, report.unchanged) == (0, 0, 12)
    assert archive.encoder.encoded == 12
    assert source_and_vector_by_id(archive) == before
    record = next(r for r in archive.records() if r.source.endswith("/00.png"))
    assert record.mtime_ns == 12345


def test_a_changed_file_replaces_its_record(archive, images):
    archive.add(images)
    before = source_and_vector_by_id(archive)
    changed = paint(images / "river" / "00.png", 99)
    os.utime(changed, ns=(1, 1))
    report = archive.add(images)
    assert (report.added, report.replaced, report.unchanged) == (0, 1, 11)
    assert len(archive) == 12
    assert archive.search(changed, 1)[0].distance == 0
    assert archive.search(changed, 1)[0].source == changed.as_posix()
    assert len(before.items() & source_and_vector_by_id(archive).items()) == 11


def test_a_kill_between_the_new_record_and_the_deletion_is_repaired(archive, images, monkeypatch):
    archive.add(images)
    changed = paint(images / "river" / "00.png", 99)
    os.utime(changed, ns=(1, 1))

    def fail(*_args):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(archive.store, "delete", fail)
        with pytest.raises(SystemExit):
            archive.add(images)
    assert len(archive) == 13
    reopened = Archive.open(archive.path, ColourEncoder())
    report = reopened.add(images)
    assert (report.added, report.replaced, report.unchanged) == (0, 0, 12)
    assert reopened.encoder.encoded == 0
    assert len(reopened) == 12
    assert reopened.search(changed, 1)[0].distance == 0


def test_bad_images_are_listed_and_are_not_fatal(archive, images, tmp_path):
    (images / "river" / "not.png").write_bytes(b"not an image")
    (images / "river" / "empty.jpg").write_bytes(b"")
    whole = (images / "river" / "00.png").read_bytes()
    (images / "river" / "cut.png").write_bytes(whole[: len(whole) // 2])
    paint(images / "river" / "tiny.png", 1, size=(2, 2))
    (images / "notes.txt").write_text("x")
    (images / "forest" / "more.TXT").write_text("x")
    (images / "README").write_text("x")
    report = archive.add(images, batch_size=4)
    assert report.added == 12
    assert [Path(s.path).name for s in report.skipped] == [
        "cut.png",
        "empty.jpg",
        "not.png",
        "tiny.png",
    ]
    assert all(s.reason and not s.reason.startswith(s.path) for s in report.skipped)
    assert report.skipped[3].reason == "is smaller than 4 × 4"
    assert report.ignored == {"": 1, ".txt": 2}
    assert report.complete
    assert json.loads((archive.path / "last-index.json").read_text()) == json.loads(
        json.dumps(report.to_dict())
    )
    assert archive.add(images).unchanged == 12


def test_the_record_of_a_file_that_is_now_damaged_stays(archive, images):
    archive.add(images)
    (images / "river" / "00.png").write_bytes(b"broken")
    report = archive.add(images)
    assert [Path(s.path).name for s in report.skipped] == ["00.png"]
    assert len(archive) == 12


def test_an_image_that_the_metric_cannot_rank_is_skipped(tmp_path, images):
    class Blind(ColourEncoder):
        def encode(self, images):
            encoding = super().encode(images)
            for row, image in enumerate(images):
                if image.max() == 0:
                    encoding.embedding[row] = 0
            return encoding

    Image.new("RGB", (8, 8)).save(images / "black.png")
    archive = Archive.create(tmp_path / "archive", Blind("cosine"))
    report = archive.add(images)
    assert report.added == 12
    assert report.skipped == (
        Skipped(
            (images / "black.png").as_posix(),
            "the model's vector for it is not valid: the zero vector has no direction, so "
            "no cosine",
        ),
    )


def test_other_bands_are_refused(tmp_path, images):
    class Infrared(ColourEncoder):
        bands = ("nir", "red", "green")

    archive = Archive.create(tmp_path / "archive", Infrared())
    report = archive.add(images / "river" / "00.png")
    assert report.added == 0
    assert "takes nir, red, green" in report.skipped[0].reason
    with pytest.raises(ImageError, match="takes nir, red, green"):
        archive.search(images / "river" / "00.png")


def test_a_path_that_does_not_exist_is_an_error_before_any_work(archive, images):
    with pytest.raises(DataError, match="absent"):
        archive.add([images, images / "absent"])
    assert len(archive) == 0
    assert archive.encoder.encoded == 0


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}])
def test_sizes_below_one_are_refused(archive, images, wrong):
    with pytest.raises(UsageError, match="at least 1"):
        archive.add(images, **wrong)


def test_links_that_form_a_loop_are_followed_once(archive, images):
    (images / "river" / "up").symlink_to(images, target_is_directory=True)
    (images / "self").symlink_to(images / "self")
    assert archive.add(images).added == 12


def test_an_archive_does_not_index_itself(tmp_path, images):
    archive = Archive.create(images / "archive", ColourEncoder())
    paint(images / "archive" / "model" / "thumbnail.png", 5)
    (images / "notes.txt").touch()
    for _ in range(2):  # the second time with its own report in the folder
        report = archive.add([images, images / "archive" / "model"])
        assert (report.added + report.unchanged, report.ignored) == (12, {".txt": 1})


def test_names_that_are_not_unicode_or_hold_quotes(archive, images):
    paint(images / 'it\'s "new"; --.png', 40)
    paint(images / "流 é.png", 41)
    paint(images / "x.png", 42).rename(images / os.fsdecode(b"bad\xff.png"))
    report = archive.add(images)
    assert report.added == 14
    assert [Path(s.path).name for s in report.skipped] == ["bad\\udcff.png"]
    assert "UTF-8" in report.skipped[0].reason
    (images / 'it\'s "new"; --.png').unlink()
    assert len(archive.prune()) == 1
    assert len(archive) == 13


def test_progress_counts_every_file_once(archive, images):
    (images / "bad.png").write_bytes(b"bad")
    archive.add(images / "forest")
    calls = []
    archive.add(images, batch_size=2, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 13) for done in range(1, 14)]


class Interrupted(ColourEncoder):
    """Fails in its n-th batch."""

    def __init__(self, n: int, error: type[BaseException]) -> None:
        super().__init__()
        self.left = n
        self.error = error

    def encode(self, images):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().encode(images)


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize("commit", [1, 3, 1000])
def test_an_interrupted_run_keeps_its_work_and_resumes(
    tmp_path, images, monkeypatch, batches, commit, error
):
    monkeypatch.setattr(indexer, "COMMIT_TILES", commit)
    whole = Archive.create(tmp_path / "whole", ColourEncoder())
    whole.add(images, batch_size=2)
    path = tmp_path / "archive"
    cut = Archive.create(path, Interrupted(batches, error))
    with pytest.raises(error):
        cut.add(images, batch_size=2)
    assert len(cut) == 2 * batches
    assert not json.loads((path / "last-index.json").read_text())["complete"]
    resumed = Archive.open(path, ColourEncoder())
    report = resumed.add(images, batch_size=2)
    assert (report.added, report.unchanged) == (12 - 2 * batches, 2 * batches)
    assert resumed.encoder.encoded == 12 - 2 * batches
    assert source_and_vector_by_id(resumed) == source_and_vector_by_id(whole)


INDEXER = """
import sys
from tests.support.colour_encoder import ColourEncoder
from rsir.archive.archive import Archive
from rsir.archive.indexing import indexer
indexer.COMMIT_TILES = 3
archive = Archive.open(sys.argv[1], ColourEncoder())
print("ready", flush=True)
archive.add(sys.argv[2], batch_size=2)
"""


def test_a_run_killed_at_any_moment_keeps_each_committed_record_once(tmp_path):
    images = tmp_path / "images"
    for n in range(120):
        paint(images / f"{n:03d}.png", n)
    whole = Archive.create(tmp_path / "whole", ColourEncoder())
    whole.add(images, batch_size=2)
    wanted = source_and_vector_by_id(whole)
    path = tmp_path / "archive"
    Archive.create(path, ColourEncoder())
    pause = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", INDEXER, str(path), str(images)],
            stdout=subprocess.PIPE,
        )
        with process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(pause.uniform(0.02, 0.3))
            process.send_signal(signal.SIGKILL)
        archive = Archive.open(path, ColourEncoder())
        found = source_and_vector_by_id(archive)
        assert found.items() <= wanted.items()
    archive.add(images, batch_size=2)
    assert archive.encoder.encoded == 120 - len(found)
    assert source_and_vector_by_id(archive) == wanted


def test_a_model_without_the_probabilities_of_its_ranking_is_refused(tmp_path, images):
    encoder = ColourEncoder("adaptive-hamming:3", 16)
    archive = Archive.create(tmp_path / "archive", encoder)
    whole = encoder.encode
    encoder.encode = lambda images: dataclasses.replace(whole(images), probabilities=None)
    with pytest.raises(ArchiveError, match="the model returned none for codes"):
        archive.add(images)


class EncoderWithGsd(ColourEncoder):
    """An encoder that knows the ground sampling distance of its images, and its batch size."""

    gsd = 20.0
    batch_size = 5

    def encode(self, images):
        self.most = max(getattr(self, "most", 0), len(images))
        return super().encode(images)


def test_tiles_get_the_gsd_of_the_model(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", land(height=64, width=64))
    found = {}
    for gsd in ("model", 20.0):
        archive = Archive.create(tmp_path / str(gsd), EncoderWithGsd())
        assert archive.add(scene, tiling=Tiling(size=16, gsd=gsd)).tiles == 4
        found[gsd] = source_and_vector_by_id(archive)
        assert {tuple(r.properties["gsd"]) for r in archive.records()} == {(20.0, 20.0)}
    assert found["model"] == found[20.0]
    archive = Archive.create(tmp_path / "silent", ColourEncoder())
    with pytest.raises(UsageError, match="does not say"):
        archive.add(scene, tiling=Tiling(size=16, gsd="model"))
    assert not (archive.path / LAST_INDEX).exists()


def test_the_default_batch_size_is_that_of_the_model(tmp_path, images):
    for given, most in ((None, 5), (3, 3), (12, 12)):
        encoder = EncoderWithGsd()
        Archive.create(tmp_path / str(given), encoder).add(images, batch_size=given)
        assert encoder.most == most
    with pytest.raises(UsageError, match="batch_size"):
        Archive.create(tmp_path / "none", EncoderWithGsd()).add(images, batch_size=0)


def test_masks_of_scenes_in_other_shards_are_left_out(tmp_path):
    (tmp_path / "scenes").mkdir()
    for name in ("a", "b"):
        shutil.copyfile(
            write_scene(tmp_path / "one.tif", land(height=64, width=64)),
            tmp_path / "scenes" / f"{name}.tif",
        )
        shutil.copyfile(tmp_path / "one.tif", tmp_path / "scenes" / f"{name}_clouds.tif")
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    tiling = Tiling(size=32, cloud_mask="{folder}/{stem}_clouds.tif", max_cloud=1)
    for shard in ((0, 2), (1, 2)):
        archive.add(tmp_path / "scenes", tiling=tiling, shard=shard)
    assert {Path(source).name for source in sources(archive)} == {"a.tif", "b.tif"}
