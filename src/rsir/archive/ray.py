"""Index on a Ray cluster: find the sources once, and distribute them to worker processes.

Ray Data distributes shares of the sources (`rsir.sources.find.Sources.shard`). Each worker opens
the archive and loads its own copy of the model. It indexes its shares like `Archive.add`: it reads,
encodes and commits to the store itself, at the same time as other workers. It returns only reports.
"""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsir.archive.archive import Archive
from rsir.archive.folder.encoder import ImageEncoder
from rsir.archive.indexing.report import IndexReport, sum_reports
from rsir.archive.indexing.run import run_intake
from rsir.archive.ray_worker import DEATHS_FOR_SHARE, DeathCounter, ShareWorker, WorkerTask
from rsir.errors import ArchiveError, MissingExtraError, UsageError
from rsir.scenes.tiling import Tiling
from rsir.sources.find import Sources
from rsir.sources.source import normal

_SHARES_PER_WORKER = 8
_SOURCES_PER_SHARE = 64
_MAX_SHARES = 512
"""There is one share for `_SOURCES_PER_SHARE` sources, but at most `_MAX_SHARES` shares, because
each share queries the store once for its known tiles; and there are at least `_SHARES_PER_WORKER`
shares for each worker, so that all workers end at about the same time. Our choice."""


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
    load: Callable[[], ImageEncoder] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Run `Archive.add` in worker processes on a Ray cluster; returns their common report.

    archive, paths: the archive's folder, its store and the paths must be the same on every machine
    of the cluster, and rsir must be installed there. address: "local" starts processes on this
    machine for this call; "auto" or "host:port" connects to a running cluster; None: the cluster of
    RAY_ADDRESS, else a cluster that runs on this machine, else "local". Ignored if Ray is connected
    already (`ray.init`); it then stays connected. workers: number of processes, each with the model
    in memory; None: as many as the cluster has room for. cpus, gpus: of each worker, fractions
    allowed; the model uses as many threads as CPUs. tiling, batch_size: as in `Archive.add`.
    threads: of each worker, to read files ahead. device: of the model in a worker; "auto": the GPU
    if the worker has one, else its CPUs. load: returns the archive's model in a worker; None: load
    the archive's copy. on_progress: called with (done, total), in files and scenes, after each
    share.

    A source is skipped if two workers died while they indexed only this source. Tiles that a worker
    committed before it died count as unchanged in the report, because the next worker finds them in
    the archive. After an interruption the archive keeps all commits; call this or `Archive.add`
    again to continue.

    Raises MissingExtraError without Ray; UsageError for numbers out of range, if the cluster is not
    found, and if it has no room for a worker; DataError for a path that does not exist;
    ArchiveError if the archive cannot be written, if a worker cannot start or cannot open the
    archive, and if workers die repeatedly.
    """
    _check_installed()
    if min(batch_size or 1, threads, workers or 1) < 1 or 0 in (batch_size, workers):
        raise UsageError("batch_size, threads and workers must be at least 1")
    if cpus < 0 or gpus < 0 or not cpus + gpus:
        raise UsageError("cpus and gpus of a worker must be at least 0, and not both 0")

    def make_runner(
        sources: Sources, roots: Sequence[str | Path], tiling: Tiling | None
    ) -> _RayRunner:
        task = WorkerTask(
            archive.path.absolute(),
            tuple(map(normal, roots)),
            tiling,
            batch_size,
            threads,
            device="cpu" if device == "auto" and not gpus else device,
            load=load,
        )
        return _RayRunner(task, sources, _Resources(address, workers, cpus, gpus), on_progress)

    return run_intake(archive.gallery, paths, make_runner, tiling=tiling)


@dataclass(frozen=True)
class _Resources:
    """The cluster and its workers; as in `index_on_ray`."""

    address: str | None
    workers: int | None
    cpus: float
    gpus: float


class _RayRunner:
    """Indexes sources on a Ray cluster (a `rsir.archive.indexing.run.Runner`)."""

    def __init__(
        self,
        task: WorkerTask,
        sources: Sources,
        resources: _Resources,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._task = task
        self._sources = sources
        self._resources = resources
        self._on_progress = on_progress
        self._reports: list[IndexReport] = []

    def run(self) -> None:
        """Index all sources; ArchiveError with the message of a worker that failed."""
        done, total = 0, len(self._sources.sources) + len(self._sources.unusable)
        with _connected(self._resources.address), closing(self._results()) as results:
            for result in results:
                self._reports.append(pickle.loads(result["report"]))
                if result["error"]:
                    raise ArchiveError(result["error"])
                done += int(result["count"])
                if self._on_progress is not None:
                    self._on_progress(done, total)

    def report(self, seconds: float, complete: bool) -> IndexReport:
        """The sum of the workers' reports so far."""
        return sum_reports(self._reports, seconds, complete)

    def _results(self) -> Generator[dict[str, Any]]:
        """The results of `ShareWorker` for all shares, in the order in which the shares end."""
        import ray.data
        from ray.exceptions import RayActorError

        cpus, gpus = self._resources.cpus, self._resources.gpus
        workers = self._resources.workers or _room(cpus, gpus)
        shares = _shares(self._sources, workers)
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        with ExitStack() as stack:
            stack.enter_context(ray.data.DataContext.current(context))
            stack.enter_context(_quiet_ray())
            # Ray would first try to convert the objects to tables, and log each failure, before it
            # pickles them. Only the processes of this run read these pickles.
            rows = [{"share": pickle.dumps(share)} for share in shares]
            restarting = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
            deaths = restarting(DeathCounter).remote()
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                ShareWorker,  # type: ignore[arg-type]  # Ray makes one callable object per process
                fn_constructor_args=(self._task, deaths, DEATHS_FOR_SHARE),
                # Only one share waits at each worker, because another may be free for it earlier.
                compute=ray.data.ActorPoolStrategy(
                    size=min(workers, len(shares)), max_tasks_in_flight_per_actor=2
                ),
                num_cpus=cpus,
                num_gpus=gpus,
            )
            try:
                yield from dataset.iter_rows()
            except RayActorError as error:
                lines = str(error).strip().splitlines()
                raise ArchiveError(
                    f"{self._task.path}: a worker could not start ({lines[0]} … {lines[-1]}); is "
                    "rsir installed on every machine of the cluster?"
                ) from error


def _shares(sources: Sources, workers: int) -> list[Sources]:
    """The sources in shares; a worker takes one share after another."""
    by_size = min(_MAX_SHARES, len(sources.sources) // _SOURCES_PER_SHARE)
    wanted = max(_SHARES_PER_WORKER * workers, by_size)
    count = max(1, min(wanted, len(sources.sources)))
    return [sources.shard(number, count) for number in range(count)]


def _room(cpus: float, gpus: float) -> int:
    """The number of workers that the cluster has room for; UsageError if there is no room."""
    import ray

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wanted = {"CPU": cpus, "GPU": gpus}
    room = min(int(resources.get(name, 0) / each) for name, each in wanted.items() if each)
    if room < 1:
        available = ", ".join(f"{resources.get(name, 0):g} {name}s" for name in wanted)
        raise UsageError(
            f"a worker with {cpus:g} CPUs and {gpus:g} GPUs has no room in a cluster of "
            f"{available}; request less, or give the number of workers to wait for"
        )
    return room


def _check_installed() -> None:
    try:
        import ray.data  # noqa: F401
    except ImportError:
        raise MissingExtraError("indexing on a Ray cluster", "ray") from None


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster for the block; an existing connection stays."""
    import ray

    if ray.is_initialized():
        yield
        return
    # By default Ray sends usage statistics to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with warnings.catch_warnings():
            # Ray forks its processes, but they execute another program at once.
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
def _quiet_ray() -> Iterator[None]:
    """Silence Ray Data's progress messages and its tracebacks of errors that it also raises."""
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
