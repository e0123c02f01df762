"""Indexing on a Ray cluster: the sources are found once and shared out to worker processes.

Ray Data hands out shares of the sources (`rsir.sources.find.Sources.shard`). Each worker opens the
archive, with a model of its own, and does for its share what `Archive.add` does: it reads, encodes
and commits to the store itself, beside the others. Only reports come back.

If a worker dies, its share is done anew: ids are stable, so what had been committed is known then,
and is neither lost nor there twice. It is done in parts, and these in parts if they kill a worker
again, so that a file that kills whoever reads it is found, and skipped.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsir.archive.archive import Archive
from rsir.archive.folder.encoder import Encoder, default_batch_size
from rsir.archive.folder.failures import translate_store_errors
from rsir.archive.folder.manifest import LAST_INDEX, MODEL
from rsir.archive.indexing.run import Indexing, IndexReport, Skipped, with_model_gsd
from rsir.atomic import write_json
from rsir.errors import ArchiveError, MissingExtraError, RsirError, UsageError
from rsir.sources.find import Sources, find_sources, normal

if TYPE_CHECKING:
    from rsir.scenes.tiling import Tiling

_SHARES_A_WORKER = 8
_SHARE = 64
_SHARES = 512
"""Shares: at least so many for each worker, so that the last of them end at about the same time;
else of so many sources; but for that reason never more than so many, for a store of many records
is asked in each of them what it knows. Our choice."""

_PARTS = 8
_DEATHS_OF_ONE = 2
_DEATHS_OF_SHARE = 16
"""A share whose worker died is done in so many parts. A single source is skipped when so many have
died over it alone, for once may be a machine that was taken away. When so many have died over one
share the run ends: it is not the files then. Our choice; a file among 512 is found by 5 deaths."""


def index_on_ray(
    archive: Archive,
    paths: str | Path | Sequence[str | Path],
    *,
    address: str | None = None,
    workers: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
    tiling: Tiling | None = None,
    batch_size: int | None = None,
    threads: int = 2,
    device: str = "auto",
    load: Callable[[], Encoder] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """`Archive.add`, by worker processes on a Ray cluster; says what all of them did together.

    archive: its folder and its store, and the `paths`, must be what they are here on every machine
    of the cluster, where rsir must be installed too.
    address: "local" for processes of this machine, started for this call; "auto" or "host:port" for
    a running cluster; None: the one of RAY_ADDRESS, else one that runs here, else as "local". Not
    looked at if Ray is connected already (`ray.init`), which then it stays.
    workers: processes, each with the model in memory; None: as many as the cluster has room for.
    cpus, gpus: what each of them is given, parts of one included; its threads are as many as its
    CPUs. tiling, batch_size: as of `Archive.add`. threads: of each worker, that read files ahead.
    device: where a worker's model runs; "auto": on its GPU if it is given one, else on its CPUs.
    load: makes the archive's model in a worker; None: from the archive's own copy.
    on_progress: called with (done, in all), in files and scenes, when a share of them is done.

    A source that two workers died over, one after the other, with nothing else at hand, is listed
    as skipped. What a worker that died had committed counts as unchanged in the report, for the one
    that took over found it there. Interrupted, the archive keeps what is committed, and the next
    call, or `Archive.add`, goes on from there.

    Raises MissingExtraError without Ray; UsageError for numbers out of range, and if no such
    cluster is found or if it has no room for a worker; DataError for a path that does not exist;
    ArchiveError if the archive cannot be written, if a worker cannot start or cannot open it,
    and if workers die again and again.
    """
    _check_installed()
    if min(batch_size or 1, threads, workers or 1) < 1 or 0 in (batch_size, workers):
        raise UsageError("batch_size, threads and workers must be at least 1")
    if cpus < 0 or gpus < 0 or not cpus + gpus:
        raise UsageError("cpus and gpus of a worker must be at least 0, and one of them more")
    archive.check_addable()
    tiling = with_model_gsd(tiling, archive.gallery)
    start = time.monotonic()
    roots = [paths] if isinstance(paths, str | Path) else list(paths)
    found = find_sources(roots, exclude=archive.path)
    found = found.without_masks(None if tiling is None else tiling.cloud_mask)
    todo = _Todo(
        archive.path.absolute(),
        tuple(map(normal, roots)),
        tiling=tiling,
        batch_size=batch_size,
        threads=threads,
        device="cpu" if device == "auto" and not gpus else device,
        load=load,
    )
    with translate_store_errors(archive.path):
        write_json(archive.path / LAST_INDEX, IndexReport(complete=False).to_dict())
    total = len(found.sources) + len(found.unusable)
    reports: list[IndexReport] = []
    done, complete = 0, False
    try:
        with ExitStack() as stack:
            stack.enter_context(_connected(address))
            workers = workers or _room(cpus, gpus)
            shares = _shares(found, workers)
            rows = _results(todo, shares, min(workers, len(shares)), cpus, gpus)
            for row in stack.enter_context(closing(rows)):
                reports.append(pickle.loads(row["report"]))
                if row["error"]:
                    raise ArchiveError(row["error"])
                done += int(row["count"])
                if on_progress is not None:
                    on_progress(done, total)
        complete = True
    finally:
        together = _sum(reports, time.monotonic() - start, complete)
        with translate_store_errors(archive.path):
            write_json(archive.path / LAST_INDEX, together.to_dict())
    return together


@dataclass(frozen=True)
class _Todo:
    """What every worker is told; `index_on_ray` says what it means."""

    path: Path
    roots: tuple[str, ...]
    tiling: Tiling | None
    batch_size: int | None
    threads: int
    device: str
    load: Callable[[], Encoder] | None


class _Worker:
    """A process that has the archive open, and does one share after another.

    deaths: a Ray actor of `_Deaths`. most: when so many have died over one share, it is an error.
    """

    def __init__(self, todo: _Todo, deaths: Any, most: int) -> None:
        self._todo = todo
        self._most = most
        self._deaths = deaths

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do the share of a row; says what was done, and what stopped it."""
        share: Sources = pickle.loads(row["share"])
        start = time.monotonic()
        reports: list[IndexReport] = []
        error = ""
        try:
            self._take(share, reports)
        except RsirError as refused:
            # As text, for not every error can be sent.
            error = f"{refused} (on {platform.node()})"
        count = len(share.sources) + len(share.unusable)
        report = _sum(reports, time.monotonic() - start, complete=not error)
        return {"count": count, "report": pickle.dumps(report), "error": error}

    def _take(self, share: Sources, reports: list[IndexReport]) -> None:
        """Index a share, in parts if a worker has died over it; what was done goes to `reports`."""
        import ray

        uris = [source.uri for source in share.sources]
        name = f"{len(uris)} {uris[:1]}"
        deaths: int = ray.get(self._deaths.begin.remote(name))
        if deaths >= self._most:
            raise ArchiveError(
                f"{self._todo.path}: {deaths} workers died over the same {len(uris)} files, such "
                f"as {uris[:1]}; Ray's logs say why: is there memory for so many workers?"
            )
        if deaths and len(uris) > 1:
            parts = min(_PARTS, len(uris))
            for number in range(parts):
                self._take(share.shard(number, parts), reports)
        elif deaths >= _DEATHS_OF_ONE:
            why = f"{deaths} workers died over it; see Ray's logs"
            reports.append(IndexReport(skipped=tuple(Skipped(uri, why) for uri in uris)))
            self._index(replace(share, sources=()), reports)
        else:
            self._index(share, reports)
        ray.get(self._deaths.end.remote(name))

    def _index(self, share: Sources, reports: list[IndexReport]) -> None:
        archive = self._archive
        indexing = Indexing(
            archive.gallery,
            share,
            self._todo.roots,
            tiling=self._todo.tiling,
            on_progress=None,
        )
        try:
            indexing.run(
                self._todo.batch_size or default_batch_size(archive.encoder), self._todo.threads
            )
        finally:
            try:
                indexing.commit()
            finally:
                reports.append(indexing.report(0, complete=True))

    @cached_property
    def _archive(self) -> Archive:
        todo = self._todo
        if todo.load is not None:
            return Archive.open(todo.path, todo.load())
        from rsir.models.encoder import load

        return Archive.open(todo.path, load(todo.path / MODEL, device=todo.device))


class _Deaths:
    """How many workers have begun something and not ended it, by its name."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """How many have begun it before and never ended it."""
        self._begun[name] += 1
        return self._begun[name] - 1

    def end(self, name: str) -> None:
        """It is done."""
        del self._begun[name]


def _results(
    todo: _Todo, shares: Sequence[Sources], workers: int, cpus: float, gpus: float
) -> Generator[dict[str, Any]]:
    """What the workers return, share by share, in the order in which they end."""
    import ray.data
    from ray.exceptions import RayActorError

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    with ExitStack() as stack:
        stack.enter_context(ray.data.DataContext.current(context))
        stack.enter_context(_quiet())
        # As bytes, or Ray tries to make tables of them first, and says each time that it cannot;
        # it pickles what it cannot, too. Only this run's own processes read them.
        rows = [{"share": pickle.dumps(share)} for share in shares]
        always = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
        deaths = always(_Deaths).remote()
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Worker,  # type: ignore[arg-type]  # a class whose objects are called, made once each
            fn_constructor_args=(todo, deaths, _DEATHS_OF_SHARE),
            # One share waits at each worker, no more: another may be free for it earlier.
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        try:
            yield from dataset.iter_rows()
        except RayActorError as error:
            reason = str(error).strip().splitlines()
            raise ArchiveError(
                f"{todo.path}: a worker could not start ({reason[0]} … {reason[-1]}); is rsir "
                "installed on every machine of the cluster?"
            ) from error


def _shares(found: Sources, workers: int) -> list[Sources]:
    """The sources in parts that workers take one after another."""
    wanted = max(_SHARES_A_WORKER * workers, min(_SHARES, len(found.sources) // _SHARE))
    count = max(1, min(wanted, len(found.sources)))
    return [found.shard(number, count) for number in range(count)]


def _room(cpus: float, gpus: float) -> int:
    """For how many workers the cluster has room; UsageError if for none."""
    import ray

    has = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wanted = {"CPU": cpus, "GPU": gpus}
    room = min(int(has.get(name, 0) / each) for name, each in wanted.items() if each)
    if room < 1:
        there = ", ".join(f"{has.get(name, 0):g} {name}s" for name in wanted)
        raise UsageError(
            f"a worker with {cpus:g} CPUs and {gpus:g} GPUs has no room in a cluster of {there}; "
            "ask for less, or say how many workers to wait for"
        )
    return room


def _sum(reports: Sequence[IndexReport], seconds: float, complete: bool) -> IndexReport:
    """What was done by all together; the other arguments are the report's."""
    together: dict[str, Any] = {}
    for field in fields(IndexReport):
        parts = [getattr(report, field.name) for report in (IndexReport(), *reports)]
        if isinstance(parts[0], tuple):
            together[field.name] = tuple(sorted(chain(*parts), key=lambda skipped: skipped.path))
        elif isinstance(parts[0], Mapping):
            counted = sum(map(Counter, parts), Counter[str]())
            together[field.name] = dict(sorted(counted.items()))
        else:
            together[field.name] = sum(parts)
    return replace(IndexReport(**together), seconds=seconds, complete=complete)


def _check_installed() -> None:
    try:
        import ray.data  # noqa: F401
    except ImportError:
        raise MissingExtraError("indexing on a Ray cluster", "ray") from None


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster, left as it was found."""
    import ray

    if ray.is_initialized():
        yield
        return
    # What Ray starts by itself tells its makers that it is used, unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with warnings.catch_warnings():
            # Ray's processes are started by a fork that executes something else at once.
            warnings.filterwarnings("ignore", "lancedb fork", RuntimeWarning)
            ray.init(address, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"no Ray cluster at {address!r} ({str(error).splitlines()[0]}); give 'local', or "
            "'auto' or HOST:PORT of one that `ray start --head` has started"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Ray Data's word on how it goes, and its tracebacks of errors that are raised too."""
    levels = {
        "ray.data._internal.execution": logging.WARNING,
        "ray.data._internal.progress": logging.ERROR,
        "ray.data.exceptions": logging.CRITICAL + 1,
    }
    loggers = {name: logging.getLogger(name) for name in levels}
    before = {name: logger.level for name, logger in loggers.items()}
    for name, level in levels.items():
        loggers[name].setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            loggers[name].setLevel(level)
