"""The part of indexing on a Ray cluster that runs in the worker processes.

If a worker dies, Ray starts another worker, which indexes the same share again, in parts. If a part
kills a worker again, it is divided further. So a file that kills every worker that reads it is
found and skipped. Ids are stable, so the new worker recognizes the commits of the dead worker:
nothing is lost or stored twice.
"""

from __future__ import annotations

import pickle
import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rsir.archive.archive import Archive
from rsir.archive.folder.encoder import ImageEncoder
from rsir.archive.folder.manifest import MODEL
from rsir.archive.indexing.indexer import Indexer
from rsir.archive.indexing.report import IndexReport, Skipped, sum_reports
from rsir.errors import ArchiveError, RsirError
from rsir.scenes.tiling import Tiling
from rsir.sources.find import Sources

_PARTS = 8
_DEATHS_FOR_ONE_FILE = 2
DEATHS_FOR_SHARE = 16
"""A share whose worker died is indexed in `_PARTS` parts. A single file is skipped after
`_DEATHS_FOR_ONE_FILE` deaths, because one death may be a machine that was switched off. After
`DEATHS_FOR_SHARE` deaths with the same share the run ends, because then files are not the reason.
Our choice; 5 deaths find a file among 512."""


@dataclass(frozen=True)
class WorkerTask:
    """The arguments of `rsir.archive.ray.index_on_ray` that every worker needs."""

    path: Path
    roots: tuple[str, ...]
    tiling: Tiling | None
    batch_size: int | None
    threads: int
    device: str
    load: Callable[[], ImageEncoder] | None


class DeathCounter:
    """A Ray actor that counts, by name, the attempts that have begun but not ended."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Begin an attempt; returns the number of earlier attempts that did not end."""
        self._begun[name] += 1
        return self._begun[name] - 1

    def end(self, name: str) -> None:
        """End the attempt."""
        del self._begun[name]


class ShareWorker:
    """A process with the archive open that indexes one share of the sources after another.

    deaths: the Ray actor of a `DeathCounter`. max_deaths: raise an error after this many deaths
    with the same share.
    """

    def __init__(self, task: WorkerTask, deaths: Any, max_deaths: int) -> None:
        self._task = task
        self._deaths = deaths
        self._max_deaths = max_deaths

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Index the pickled Sources in `row["share"]`.

        Returns their number, "count", a pickled IndexReport, "report", and the message of the error
        that ended the run, "error", or "".
        """
        share: Sources = pickle.loads(row["share"])
        start = time.monotonic()
        reports: list[IndexReport] = []
        message = ""
        try:
            self._index_share(share, reports)
        except RsirError as error:
            # As text, because not every exception can be pickled.
            message = f"{error} (on {platform.node()})"
        count = len(share.sources) + len(share.unusable)
        report = sum_reports(reports, time.monotonic() - start, complete=not message)
        return {"count": count, "report": pickle.dumps(report), "error": message}

    def _index_share(self, share: Sources, reports: list[IndexReport]) -> None:
        """Index a share, in parts if workers died with it; appends to `reports`."""
        import ray

        uris = [source.uri for source in share.sources]
        name = share_name(share)
        deaths: int = ray.get(self._deaths.begin.remote(name))
        if deaths >= self._max_deaths:
            raise ArchiveError(
                f"{self._task.path}: {deaths} workers died with the same {len(uris)} files, such "
                f"as {uris[:1]}; Ray's logs say why: is there memory for so many workers?"
            )
        if deaths and len(uris) > 1:
            parts = min(_PARTS, len(uris))
            for number in range(parts):
                self._index_share(share.shard(number, parts), reports)
        elif deaths >= _DEATHS_FOR_ONE_FILE:
            reason = f"{deaths} workers died with it; see Ray's logs"
            reports.append(IndexReport(skipped=tuple(Skipped(uri, reason) for uri in uris)))
            self._index(replace(share, sources=()), reports)
        else:
            self._index(share, reports)
        ray.get(self._deaths.end.remote(name))

    def _index(self, share: Sources, reports: list[IndexReport]) -> None:
        task = self._task
        indexer = Indexer(
            self._archive.gallery,
            share,
            task.roots,
            task.tiling,
            batch_size=task.batch_size,
            workers=task.threads,
        )
        try:
            indexer.run()
        finally:
            reports.append(indexer.report(0, complete=True))

    @cached_property
    def _archive(self) -> Archive:
        task = self._task
        if task.load is not None:
            return Archive.open(task.path, task.load())
        from rsir.models.encoder import Encoder

        return Archive.open(task.path, Encoder.load(task.path / MODEL, device=task.device))


def share_name(share: Sources) -> str:
    """The name of a share in a `DeathCounter`: its number of sources and the first of them."""
    uris = [source.uri for source in share.sources]
    return f"{len(uris)} {uris[:1]}"
