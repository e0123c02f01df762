"""One indexing run: find the sources, index them here or on a cluster, write the report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.folder.manifest import LAST_INDEX, SHARD_REPORTS
from rsir.archive.indexing.indexer import Indexer
from rsir.archive.indexing.report import IndexReport, sum_reports
from rsir.archive.search.gallery import Gallery
from rsir.atomic import write_json
from rsir.documents import read_object
from rsir.errors import ArchiveError, UsageError
from rsir.scenes.tiling import Tiling
from rsir.sources.find import Sources, find_sources


class Runner(Protocol):
    """Indexes the sources of one run."""

    def run(self) -> None:
        """Read, encode and commit all sources; after an error, encoded tiles are committed."""

    def report(self, seconds: float, complete: bool) -> IndexReport:
        """The report of all commits so far, with these `seconds` and `complete`."""


MakeRunner = Callable[[Sources, list[str | Path], Tiling | None], Runner]
"""Makes the Runner of sources, the paths that the user gave, and a tiling."""


def index(
    gallery: Gallery,
    paths: str | Path | Sequence[str | Path],
    *,
    tiling: Tiling | None = None,
    shard: tuple[int, int] | None = None,
    batch_size: int | None = None,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Encode the images in `paths` and store them; see `rsir.archive.Archive.add`."""
    if workers < 1 or (batch_size is not None and batch_size < 1):
        raise UsageError("batch_size and workers must be at least 1")
    make_indexer = partial(
        Indexer, gallery, batch_size=batch_size, workers=workers, on_progress=on_progress
    )
    return run_intake(gallery, paths, make_indexer, tiling=tiling, shard=shard)


def run_intake(
    gallery: Gallery,
    paths: str | Path | Sequence[str | Path],
    make_runner: MakeRunner,
    *,
    tiling: Tiling | None,
    shard: tuple[int, int] | None = None,
) -> IndexReport:
    """Find the sources in `paths`, let a Runner index them, and write its report to the folder.

    tiling, shard, errors: as in `rsir.archive.Archive.add`.
    """
    _check_addable(gallery)
    if tiling is not None and tiling.gsd == "model":
        tiling = tiling.with_model_gsd(getattr(gallery.encoder, "gsd", None))
    start = time.monotonic()
    roots = [paths] if isinstance(paths, str | Path) else list(paths)
    sources = find_sources(roots, exclude=gallery.path)
    sources = sources.without_masks(None if tiling is None else tiling.cloud_mask)
    if shard is not None:
        sources = sources.shard(*shard)
    # If the run is killed, this report stays; and a read-only archive fails before any work.
    _write_report(gallery.path, IndexReport(complete=False), shard)
    runner = make_runner(sources, roots, tiling)
    complete = False
    try:
        runner.run()
        complete = True
    finally:
        report = runner.report(time.monotonic() - start, complete)
        _write_report(gallery.path, report, shard)
    return report


def _check_addable(gallery: Gallery) -> None:
    """ArchiveError for an earlier version, UsageError for an archive of external embeddings."""
    if gallery.version is not None:
        raise ArchiveError(
            f"this is version {gallery.version} of {gallery.path}, which cannot be changed; open "
            "the archive itself"
        )
    if not gallery.bands:
        raise UsageError(
            f"{gallery.path} holds embeddings made elsewhere: add to it with `rsir import`"
        )


def _write_report(path: Path, report: IndexReport, shard: tuple[int, int] | None) -> None:
    """Write the report of a run; of a shard, also the sum of all shards' last reports."""
    folder = path / SHARD_REPORTS
    with translate_store_errors(path):
        if shard is None:
            shutil.rmtree(folder, ignore_errors=True)
            write_json(path / LAST_INDEX, report.to_dict())
            return
        folder.mkdir(exist_ok=True)
        number, count = shard
        write_json(folder / f"{number}-of-{count}.json", report.to_dict())
        # Another shard may have ended since the sum was made, and written its own before ours.
        written = None
        while (total := _sum_of_shards(folder, count)) != written:
            write_json(path / LAST_INDEX, total.to_dict())
            written = total


def _sum_of_shards(folder: Path, count: int) -> IndexReport:
    """The sum of the reports of `count` shards; complete if all shards have ended."""
    reports = []
    for number in range(count):
        with suppress(OSError, ValueError, TypeError, KeyError):
            values = read_object(folder / f"{number}-of-{count}.json")
            reports.append(IndexReport.from_dict(values))
    complete = len(reports) == count and all(report.complete for report in reports)
    return sum_reports(reports, max((r.seconds for r in reports), default=0.0), complete)
