"""Indexing on a real Ray cluster of this machine, against `Archive.add`."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsir.archive import Archive
from rsir.archive.indexing import indexer
from rsir.archive.ray import index_on_ray
from rsir.archive.ray_worker import DeathCounter, ShareWorker, WorkerTask, share_name
from rsir.errors import ArchiveError, DataError, MissingExtraError, UsageError
from rsir.geo.georeference import ignore_not_georeferenced
from rsir.scenes.tiling import Tiling
from rsir.sources.find import find_sources
from tests.support.archives import contents_by_id
from tests.support.colour_encoder import ColourEncoder
from tests.support.images import paint

pytestmark = [
    # Ray Data warns of settings that it makes itself.
    pytest.mark.filterwarnings(r"ignore:`use_\w+` is dep:DeprecationWarning:ray.data.context"),
    # Ray forks its processes after other tests imported LanceDB; they execute Ray at once.
    pytest.mark.filterwarnings("ignore:lancedb fork:RuntimeWarning"),
]

CPUS = 2


@pytest.fixture(scope="module")
def cluster(ray_installed: None) -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # With their default niceness, Ray's workers wait on a busy machine.
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(
            "local",
            num_cpus=CPUS,
            object_store_memory=100 << 20,
            include_dashboard=False,
            logging_level="error",
            log_to_driver=False,
        )
        # The workers can import rsir, but not this file.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()


class Mortal(ColourEncoder):
    """Ends its process: for a red image always, for a blue image while files are in `lives`."""

    def __init__(self, lives: Path) -> None:
        super().__init__()
        # Commit each image, so that there are commits before the process ends.
        indexer.COMMIT_TILES = 1
        self.lives = lives

    def encode(self, images):
        means = [image.mean(axis=(1, 2)).tolist() for image in images]
        if [0, 0, 255] in means:
            for life in self.lives.iterdir():
                life.unlink()
                os._exit(1)
        if [255, 0, 0] in means:
            os._exit(1)
        return super().encode(images)


def counts(report: object) -> dict[str, object]:
    return {name: value for name, value in report.to_dict().items() if name != "seconds"}


def last_report(archive: Archive) -> dict[str, object]:
    return json.loads((archive.path / "last-index.json").read_text())


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive.create(tmp_path / "archive", ColourEncoder())


@pytest.fixture
def plain(tmp_path) -> Archive:
    return Archive.create(tmp_path / "plain", ColourEncoder())


@pytest.fixture
def images(tmp_path) -> Path:
    """40 images of two classes, two that cannot be read, two other files."""
    folder = tmp_path / "images"
    for n in range(40):
        paint(folder / ("forest" if n % 3 else "river") / f"{n:02d}.png", n)
    (folder / "river" / "cut.png").write_bytes((folder / "river" / "00.png").read_bytes()[:60])
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("none")
    (folder / "forest" / "Thumbs.db").write_text("none")
    return folder


def test_images_are_indexed_as_by_one_process_also_a_second_time(
    cluster, archive, plain, images, monkeypatch
):
    progress = []
    # The workers have another current folder.
    monkeypatch.chdir(images.parent)
    report = index_on_ray(
        archive, "images", load=ColourEncoder, on_progress=lambda *done: progress.append(done)
    )
    assert counts(report) == counts(plain.add(images))
    assert (report.added, len(report.skipped)) == (40, 2)
    assert report.ignored == {".db": 1, ".txt": 1}
    assert contents_by_id(archive) == contents_by_id(plain)
    assert last_report(archive) == json.loads(json.dumps(report.to_dict()))
    # Several shares for each of the workers.
    assert len(progress) == 8 * CPUS
    assert progress == sorted(progress)
    assert progress[-1] == (42, 42)

    paint(images / "river" / "00.png", 100)
    (images / "forest" / "01.png").unlink()
    paint(images / "sand" / "new.png", 101)
    os.utime(images / "forest" / "02.png", ns=(1, 1))
    again = index_on_ray(archive, images, load=ColourEncoder, workers=1)
    assert counts(again) == counts(plain.add(images))
    assert (again.added, again.replaced, again.unchanged, again.tiles) == (1, 1, 38, 2)
    assert contents_by_id(archive) == contents_by_id(plain)


def test_scenes_are_cut_as_by_one_process(cluster, archive, plain, tmp_path):
    import rasterio
    from rasterio.transform import Affine

    ignore_not_georeferenced()
    random = np.random.default_rng(0)
    folder = tmp_path / "scenes"
    folder.mkdir()
    for n in range(5):
        with rasterio.open(
            folder / f"{n}.tif", "w", driver="GTiff", count=3, width=160, height=96, dtype="uint8",
            photometric="rgb", crs="EPSG:32633", transform=Affine(10, 0, 6e5, 0, -10, 5e6 + n),
        ) as dataset:  # fmt: skip
            dataset.write(random.integers(1, 256, (3, 96, 160), np.uint8))
    tiling = Tiling(size=32, stride=24)
    report = index_on_ray(archive, folder, tiling=tiling, load=ColourEncoder, workers=1)
    assert counts(report) == counts(plain.add(folder, tiling=tiling))
    assert report.tiles == len(archive) == 5 * 7 * 4
    assert contents_by_id(archive) == contents_by_id(plain)
    # Both archives continue alike.
    assert plain.add(folder).replaced == archive.add(folder).replaced == 5
    assert contents_by_id(archive) == contents_by_id(plain)


def test_the_share_of_a_dead_worker_is_repeated_and_a_deadly_file_skipped(
    cluster, archive, plain, images, tmp_path
):
    # Of eight shares, one has both of these and another image before them.
    once, always = sorted(images.rglob("*.png"))[12:21:8]
    Image.new("RGB", (7, 9), (0, 0, 255)).save(once)
    Image.new("RGB", (7, 9), (255, 0, 0)).save(always)
    lives = tmp_path / "lives"
    lives.mkdir()
    (lives / "first").touch()
    report = index_on_ray(archive, images, load=lambda: Mortal(lives), workers=1, batch_size=1)
    assert not list(lives.iterdir()), "no worker has died"
    wanted = plain.add(images)
    expected = contents_by_id(plain)
    deadly = next(id for id, (record, _) in expected.items() if record.source == str(always))
    del expected[deadly]
    assert contents_by_id(archive) == expected
    skipped = {skipped.path: skipped.reason for skipped in report.skipped}
    assert skipped.pop(str(always)) == "2 workers died with it; see Ray's logs"
    assert skipped == {skipped.path: skipped.reason for skipped in wanted.skipped}
    # What the dead workers had committed counts as unchanged.
    assert report.added + report.unchanged == wanted.added - 1
    assert 0 < report.unchanged <= 3
    assert (report.ignored, report.complete) == (wanted.ignored, True)


def test_workers_that_die_again_and_again_end_the_run(cluster, archive, images):
    import ray

    deaths = ray.remote(num_cpus=0)(DeathCounter).remote()
    task = WorkerTask(
        archive.path,
        (str(images),),
        None,
        batch_size=1,
        threads=1,
        device="cpu",
        load=ColourEncoder,
    )
    worker = ShareWorker(task, deaths, max_deaths=2)
    share = find_sources([images]).shard(3, 8)
    for _ in range(2):
        ray.get(deaths.begin.remote(share_name(share)))
    result = worker({"share": pickle.dumps(share)})
    message = f"2 workers died with the same {len(share.sources)} files, such as ['/"
    assert message in result["error"]
    assert pickle.loads(result["report"]).complete is False
    assert len(archive) == 0


def test_an_interrupted_run_keeps_what_is_committed(cluster, archive, plain, images):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_on_ray(archive, images, load=ColourEncoder, workers=1, on_progress=interrupt)
    report = last_report(archive)
    assert report["complete"] is False
    plain.add(images)
    time.sleep(0.5)
    committed = contents_by_id(archive)
    assert 0 < report["added"] <= len(committed) < 40
    assert committed.items() <= contents_by_id(plain).items()
    report = archive.add(images)
    assert (report.unchanged, report.added) == (len(committed), 40 - len(committed))
    assert contents_by_id(archive) == contents_by_id(plain)


def test_the_error_of_a_worker_ends_the_run(cluster, archive, images):
    with pytest.raises(ArchiveError, match=r"belongs to the model .* \(on \S+\)"):
        index_on_ray(archive, images, load=lambda: ColourEncoder(seed=1), workers=1)
    assert last_report(archive)["complete"] is False
    assert len(archive) == 0


def test_a_cluster_without_room_is_an_error(cluster, archive, images):
    with pytest.raises(UsageError, match="no room in a cluster of 2 CPUs, 0 GPUs"):
        index_on_ray(archive, images, gpus=1)
    with pytest.raises(UsageError, match="no room"):
        index_on_ray(archive, images, cpus=2.5)


class BatchEncoder(ColourEncoder):
    """An encoder with the optional attributes, and which checks the size of a batch."""

    gsd = 20.0
    batch_size = 3

    def encode(self, images):
        assert len(images) <= self.batch_size
        return super().encode(images)


def test_gsd_and_batch_size_of_the_model_count_on_a_cluster(cluster, tmp_path):
    import rasterio
    from rasterio.transform import Affine

    ignore_not_georeferenced()
    random = np.random.default_rng(0)
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in ("a", "a_clouds", "b", "b_clouds"):
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", count=3, width=64, height=64,
            dtype="uint8", photometric="rgb", crs="EPSG:32633",
            transform=Affine(10, 0, 6e5, 0, -10, 5e6),
        ) as dataset:  # fmt: skip
            dataset.write(random.integers(1, 256, (3, 64, 64), np.uint8))
    tiling = Tiling(size=16, gsd="model", cloud_mask="{folder}/{stem}_clouds.tif", max_cloud=1)
    archive = Archive.create(tmp_path / "archive", BatchEncoder())
    report = index_on_ray(archive, folder, tiling=tiling, load=BatchEncoder, workers=1)
    assert (report.added, report.tiles, len(report.masks)) == (2, 8, 2)
    assert {tuple(record.properties["gsd"]) for record in archive.records()} == {(20.0, 20.0)}


@pytest.mark.usefixtures("ray_installed")
def test_a_model_without_gsd(archive, images):
    with pytest.raises(UsageError, match="does not say"):
        index_on_ray(archive, images, tiling=Tiling(gsd="model"))


@pytest.mark.usefixtures("ray_installed")
def test_arguments_are_checked_before_any_work(archive, images, monkeypatch):
    for wrong in ({"workers": 0}, {"batch_size": 0}, {"threads": 0}, {"cpus": -1}, {"cpus": 0}):
        with pytest.raises(UsageError, match="at least"):
            index_on_ray(archive, images, **wrong)
    with pytest.raises(DataError, match="no such file"):
        index_on_ray(archive, images / "absent")
    assert not (archive.path / "last-index.json").exists()


def test_without_ray_the_error_names_the_extra(archive, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rsir\[ray\]'"):
        index_on_ray(archive, images)
