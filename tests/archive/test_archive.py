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

from rsir.archive import Archive, Hits, Skipped
from rsir.archive.folder.manifest import LAST_INDEX
from rsir.archive.indexing import indexer, reading
from rsir.errors import ArchiveError, DataError, ImageError, UsageError
from rsir.images.read import read_tile
from rsir.ranking import packed, pairwise, score
from rsir.store.records.record import Record
from tests.support.colour_encoder import ColourEncoder


def paint(path: Path, seed: int, size: tuple[int, int] = (9, 7)) -> Path:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, 3)
    pixels = np.clip(base + rng.integers(-40, 40, (*size, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def contents(archive: Archive) -> dict[str, tuple[str, str, bytes]]:
    """Everything kept that does not depend on when it was indexed."""
    records = list(archive.records())
    vectors = archive.vectors([r.id for r in records])
    assert len({r.id for r in records}) == len(records)
    return {r.id: (r.source, r.content, v.tobytes()) for r, v in zip(records, vectors, strict=True)}


def sources(archive: Archive) -> list[str]:
    return sorted(r.source for r in archive.records())


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    for n in range(12):
        paint(folder / ("forest" if n % 2 else "river") / f"{n:02d}.png", n)
    return folder


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive.create(tmp_path / "archive", ColourEncoder())


# Creating and opening


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
    for open_it in (Archive.open, Archive.open_or_create):
        with pytest.raises(ArchiveError, match="belongs to the model colour-euclidean-16-0"):
            open_it(path, ColourEncoder(seed=1))
    assert len(Archive.open_or_create(path, ColourEncoder(seed=0))) == 0


def test_the_copy_of_the_model_is_checked_when_it_is_loaded(tmp_path, monkeypatch):
    Archive.create(tmp_path / "archive", ColourEncoder())
    loaded = []

    class FakeModule:
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


def test_what_is_no_archive_is_refused(tmp_path, images):
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
def test_a_damaged_description_is_refused(archive, text, reason):
    (archive.path / "archive.json").write_text(text)
    with pytest.raises(ArchiveError, match=reason):
        Archive.open(archive.path)


def test_a_description_of_other_items_is_refused(archive):
    about = json.loads((archive.path / "archive.json").read_text())
    (archive.path / "archive.json").write_text(json.dumps(about | {"dimension": 8}))
    with pytest.raises(ArchiveError, match="holds euclidean, 16"):
        Archive.open(archive.path)
    (archive.path / "archive.json").write_text(json.dumps(about))
    shutil.rmtree(archive.path / "items.lance")
    with pytest.raises(ArchiveError, match=r"items\.lance does not exist"):
        Archive.open(archive.path)


@pytest.mark.parametrize("step", ["save", "store", "rename"])
def test_a_creation_that_was_cut_off_is_recognised_and_done_again(
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


# Adding


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


@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_and_workers_change_nothing(tmp_path, images, batch_size, workers):
    plain = Archive.create(tmp_path / "plain", ColourEncoder())
    plain.add(images)
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(images, batch_size=batch_size, workers=workers)
    assert contents(archive) == contents(plain)


def test_indexing_again_reads_and_encodes_nothing(archive, images, monkeypatch):
    archive.add(images)
    before, version = contents(archive), archive.info()["version"]
    monkeypatch.setattr(reading, "read_tile", None)
    report = archive.add(images)
    assert (report.added, report.replaced, report.unchanged) == (0, 0, 12)
    assert archive.encoder.encoded == 12
    assert contents(archive) == before
    assert archive.info()["version"] == version


def test_a_touched_file_is_not_encoded_again(archive, images):
    archive.add(images)
    before = contents(archive)
    os.utime(images / "river" / "00.png", ns=(1, 12345))
    report = archive.add(images)
    assert (report.added, report.replaced, report.unchanged) == (0, 0, 12)
    assert archive.encoder.encoded == 12
    assert contents(archive) == before
    record = next(r for r in archive.records() if r.source.endswith("/00.png"))
    assert record.mtime_ns == 12345


def test_a_changed_file_replaces_what_was_kept_of_it(archive, images):
    archive.add(images)
    before = contents(archive)
    changed = paint(images / "river" / "00.png", 99)
    os.utime(changed, ns=(1, 1))
    report = archive.add(images)
    assert (report.added, report.replaced, report.unchanged) == (0, 1, 11)
    assert len(archive) == 12
    assert archive.search(changed, 1)[0].distance == 0
    assert archive.search(changed, 1)[0].source == changed.as_posix()
    assert len(before.items() & contents(archive).items()) == 11


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


def test_files_that_are_gone_stay_until_prune(archive, images):
    archive.add(images)
    gone = images / "river" / "02.png"
    id = read_tile(gone).id
    gone.unlink()
    shutil.rmtree(images / "forest")
    kept = Record("uri", "s3://bucket/a.png", "c")
    archive.store.add([kept], np.ones((1, 16), np.float32))
    assert archive.add(images).unchanged == 5
    assert len(archive) == 13
    pruned = archive.prune()
    assert len(pruned) == 7
    assert pruned == sorted(pruned)
    assert id in pruned
    assert len(archive) == 6
    assert archive.get(["uri"]) == [kept]
    assert archive.prune() == []


def test_prune_forgets_no_disk_that_is_not_mounted(archive, images, tmp_path):
    assert archive.prune() == []
    archive.add(images)
    archive.store.add([Record("uri", "s3://bucket/a.png", "c")], np.ones((1, 16), np.float32))
    before = contents(archive)
    images.rename(tmp_path / "unmounted")
    with pytest.raises(ArchiveError, match=r"none of the 12 files.*images.*not mounted"):
        archive.prune()
    assert contents(archive) == before
    (tmp_path / "unmounted").rename(images)
    assert archive.prune() == []
    shutil.rmtree(images)
    assert len(archive.prune(everything=True)) == 12
    assert [record.id for record in archive.records()] == ["uri"]


def test_bad_images_are_listed_and_stop_nothing(archive, images, tmp_path):
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


def test_a_file_that_went_bad_keeps_its_old_record(archive, images):
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
            "the model cannot describe it: the zero vector has no direction, so no cosine",
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


def test_loops_of_links_end(archive, images):
    (images / "river" / "up").symlink_to(images, target_is_directory=True)
    (images / "self").symlink_to(images / "self")
    assert archive.add(images).added == 12


def test_an_archive_does_not_index_itself(tmp_path, images):
    archive = Archive.create(images / "archive", ColourEncoder())
    paint(images / "archive" / "model" / "thumbnail.png", 5)
    (images / "notes.txt").touch()
    for _ in range(2):  # the second time its own report lies there too
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
    assert contents(resumed) == contents(whole)


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


def test_killed_at_any_moment_it_keeps_each_committed_record_once(tmp_path):
    images = tmp_path / "images"
    for n in range(120):
        paint(images / f"{n:03d}.png", n)
    whole = Archive.create(tmp_path / "whole", ColourEncoder())
    whole.add(images, batch_size=2)
    wanted = contents(whole)
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
        found = contents(archive)
        assert found.items() <= wanted.items()
    archive.add(images, batch_size=2)
    assert archive.encoder.encoded == 120 - len(found)
    assert contents(archive) == wanted


# Searching


def test_search_finds_the_image_itself_first(archive, images):
    archive.add(images)
    path = images / "forest" / "03.png"
    hits = archive.search(path, k=5)
    assert isinstance(hits, Hits)
    assert (len(hits), hits.searched, hits.query) == (5, 12, path)
    assert hits.seconds > 0
    assert hits[0].source == path.as_posix()
    assert (hits[0].distance, hits[0].score) == (0, 1)
    assert [h.score for h in hits] == [1 / (1 + h.distance) for h in hits]
    assert hits[0].properties["folder"] == "forest"
    assert hits[1:3] == [hits[1], hits[2]]
    assert path.as_posix() in repr(hits)
    assert [h.id for h in Archive.open(archive.path, ColourEncoder()).search(str(path), 5)] == [
        h.id for h in hits
    ]


def test_hits_show_themselves_as_a_gallery(archive, images):
    archive.add(images)
    html = archive.search(images / "forest" / "03.png", k=5)._repr_html_()
    assert html.count("<img") >= 5
    assert "03.png" in html


def test_every_kind_of_query_gives_the_same(archive, images):
    archive.add(images)
    path = images / "river" / "04.png"
    pixels = read_tile(path).pixels
    vector = ColourEncoder().encode([pixels]).embedding[0]
    four = archive.search_many([path, vector, pixels, vector.astype(np.float64)], k=12)
    assert [h.id for h in four[0]] == [h.id for h in four[1]] == [h.id for h in four[3]]
    assert [h.id for h in four[0]] == [h.id for h in four[2]]
    records = list(archive.records())
    far = pairwise("euclidean", vector[None], archive.vectors([r.id for r in records]))[0]
    wanted = sorted(zip(far.tolist(), [r.id for r in records], strict=True))
    assert [(h.distance, h.id) for h in archive.search(vector, 12)] == wanted
    assert [h.id for h in archive.search(vector.tolist(), 12)] == [id for _, id in wanted]
    assert archive.search_many([], 3) == []
    assert "for a vector among 12" in repr(archive.search(vector))
    assert "for an image among 12" in repr(archive.search(pixels))


def test_codes_are_searched_by_code_or_image(tmp_path, images):
    archive = Archive.create(tmp_path / "archive", ColourEncoder("hamming", 32))
    archive.add(images)
    path = images / "river" / "04.png"
    code = ColourEncoder("hamming", 32).encode([read_tile(path).pixels]).code[0]
    hits = archive.search(code, 12)
    assert [(h.id, h.distance) for h in hits] == [
        (h.id, h.distance) for h in archive.search(path, 12)
    ]
    assert [h.score for h in hits] == [1 - h.distance / 32 for h in hits]
    assert hits[0].score == 1
    with pytest.raises(UsageError, match="uint8 codes"):
        archive.search(np.ones(32))


@pytest.mark.parametrize("metric", ["hamming", "adaptive-hamming:3"])
def test_codes_of_odd_lengths_are_searched_the_whole_way(tmp_path, images, metric):
    encoder = ColourEncoder(metric, 13)
    archive = Archive.create(tmp_path / "archive", encoder)
    archive.add(images)
    archive = Archive.open(tmp_path / "archive", encoder)
    assert (archive.metric, archive.dimension) == (metric, 13)
    records = list(archive.records())
    rows = archive.vectors([r.id for r in records])
    assert rows.shape == (12, 2 if metric == "hamming" else 2 + 3 * 4)
    for path in sorted(images.rglob("*.png"))[:3]:
        encoding = encoder.encode([read_tile(path).pixels])
        query = encoding.code
        if metric != "hamming":
            query = packed(encoding.code, encoding.probabilities)
        far = pairwise(metric, query, rows)[0]
        wanted = sorted(zip(far.tolist(), [r.id for r in records], strict=True))
        for hits in (archive.search(path, 12), archive.search(query[0], 12)):
            assert [(h.distance, h.id) for h in hits] == wanted
            assert [h.score for h in hits] == [score(metric, d, bits=13) for d, _ in wanted]


def test_a_model_without_the_probabilities_of_its_ranking_is_refused(tmp_path, images):
    encoder = ColourEncoder("adaptive-hamming:3", 16)
    archive = Archive.create(tmp_path / "archive", encoder)
    whole = encoder.encode
    encoder.encode = lambda images: dataclasses.replace(whole(images), probabilities=None)
    with pytest.raises(ArchiveError, match="the model gave none for codes"):
        archive.add(images)


def test_the_empty_archive_has_no_hits(archive, images):
    hits = archive.search(images / "river" / "04.png")
    assert list(hits) == []
    assert hits.searched == 0


@pytest.mark.parametrize(
    ("query", "k", "reason"),
    [
        (np.ones(16), 0, "k must be at least 1"),
        (np.ones(15), 1, "must have 16 columns, not 15"),
        (np.r_[np.nan, np.ones(15)], 1, "not finite"),
        (np.r_[np.inf, np.ones(15)], 1, "not finite"),
        (np.array(["a"] * 16), 1, "real numbers"),
        (np.ones((2, 16)), 1, "not a 2-D array"),
        (np.ones((3, 8, 8)), 1, "uint8 array of the bands red, green, blue"),
        (np.ones((4, 8, 8), np.uint8), 1, "uint8 array of the bands"),
        (np.ones((3, 0, 8), np.uint8), 1, "uint8 array of the bands"),
    ],
)
def test_wrong_queries_are_refused(archive, query, k, reason):
    with pytest.raises(UsageError, match=reason):
        archive.search(query, k)


def test_a_query_file_that_cannot_be_read_is_an_error(archive, tmp_path):
    with pytest.raises(ImageError, match="absent"):
        archive.search(tmp_path / "absent.png")


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


# What the model says


class Telling(ColourEncoder):
    """An encoder that says of which ground its images were, and how many it takes at once."""

    gsd = 20.0
    batch_size = 5

    def encode(self, images):
        self.most = max(getattr(self, "most", 0), len(images))
        return super().encode(images)


def placed(path: Path) -> Path:
    """A scene of 64 × 64 pixels of 10 m."""
    import rasterio
    from affine import Affine

    pixels = np.random.default_rng(0).integers(1, 250, (3, 64, 64), dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, width=64, height=64, dtype="uint8", photometric="rgb",
        crs="EPSG:32633", transform=Affine(10, 0, 600_000, 0, -10, 5_000_000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


def test_tiles_of_the_models_own_gsd(tmp_path):
    from rsir.scenes.tiling import Tiling

    scene = placed(tmp_path / "scene.tif")
    found = {}
    for gsd in ("model", 20.0):
        archive = Archive.create(tmp_path / str(gsd), Telling())
        assert archive.add(scene, tiling=Tiling(size=16, gsd=gsd)).tiles == 4
        found[gsd] = contents(archive)
        assert {tuple(r.properties["gsd"]) for r in archive.records()} == {(20.0, 20.0)}
    assert found["model"] == found[20.0]
    archive = Archive.create(tmp_path / "silent", ColourEncoder())
    with pytest.raises(UsageError, match="does not say"):
        archive.add(scene, tiling=Tiling(size=16, gsd="model"))
    assert not (archive.path / LAST_INDEX).exists()


def test_as_many_at_once_as_the_model_takes(tmp_path, images):
    for given, most in ((None, 5), (3, 3), (12, 12)):
        encoder = Telling()
        Archive.create(tmp_path / str(given), encoder).add(images, batch_size=given)
        assert encoder.most == most
    with pytest.raises(UsageError, match="batch_size"):
        Archive.create(tmp_path / "none", Telling()).add(images, batch_size=0)


def test_masks_of_scenes_in_other_shards_are_left_out(tmp_path):
    from rsir.scenes.tiling import Tiling

    (tmp_path / "scenes").mkdir()
    for name in ("a", "b"):
        shutil.copyfile(placed(tmp_path / "one.tif"), tmp_path / "scenes" / f"{name}.tif")
        shutil.copyfile(tmp_path / "one.tif", tmp_path / "scenes" / f"{name}_clouds.tif")
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    tiling = Tiling(size=32, cloud_mask="{folder}/{stem}_clouds.tif", max_cloud=1)
    for shard in ((0, 2), (1, 2)):
        archive.add(tmp_path / "scenes", tiling=tiling, shard=shard)
    assert {Path(source).name for source in sources(archive)} == {"a.tif", "b.tif"}


def test_bytes_are_those_of_the_folder_that_has_the_records(tmp_path, images):
    kept = tmp_path / "elsewhere.lance"
    archive = Archive.create(tmp_path / "archive", ColourEncoder(), store=str(kept))
    archive.add(images)
    assert archive.info()["bytes"] is None
    whole = Archive.create(tmp_path / "whole", ColourEncoder())
    whole.add(images)
    assert whole.info()["bytes"] > 1000
