"""Archives worked on by processes that are killed, and what must be left of them.

An operation is first run to its end: that gives what it must lead to, and when it told of each
step. A moment drawn from that time is "so long after the n-th step", so that a machine that is
busy now does not push all moments to the beginning or the end. At that moment the process gets
SIGKILL. What its last words were says what the archive has to hold.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from rsir.archive import Archive
from rsir.errors import ArchiveError
from rsir.store.memory import ExactStore
from tests.durability import durable_worker as worker
from tests.durability.durable_worker import Begin, Done, End, Opened, Row, Task

PATIENCE = 120.0
"""Seconds until a child that says nothing is taken for hung. Our choice: a hundred times more
than any step takes on a busy machine."""

Rows = dict[str, Row]


def _context() -> multiprocessing.context.ForkServerContext:
    # One process imports the libraries, which takes seconds; the children are forks of it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.durability.durable_worker", "rsir.store.lance.store", "PIL.PngImagePlugin"]
    )
    changes = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        # LanceDB warns that a fork may come amid its work; the server does none.
        "PYTHONWARNINGS": "ignore:lancedb fork support",
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    return context


class Child:
    """A process that does `task`, or reads the archive at a path; leave it as a context."""

    def __init__(self, task: Task | Path) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        target = worker.work if isinstance(task, Task) else worker.read
        self.process = context.Process(target=target, args=(theirs, task), daemon=True)
        self.process.start()
        theirs.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def hear(self) -> object | None:
        """The next message; None when the process is gone."""
        if not self.connection.poll(PATIENCE):
            raise TimeoutError(f"the child said nothing for {PATIENCE:.0f} s")
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            return None

    def rest(self) -> list[object]:
        """All messages until the process is gone."""
        heard = []
        while (message := self.hear()) is not None:
            heard.append(message)
        self.process.join()
        return heard

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)


def run(task: Task) -> tuple[list[object], int]:
    """Do `task` in a process, undisturbed: its messages and exit status."""
    with Child(task) as child:
        heard = child.rest()
        return heard, child.process.exitcode


def paint(folder: Path, numbers: Sequence[int], seed: int = 0) -> Path:
    """Small images, one for each number, other ones for another seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) // 2 + rng.integers(0, 128, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:04d}.png")
    return folder


def contents(path: Path) -> Rows:
    """Everything that the archive at `path` keeps; AssertionError if an id occurs twice."""
    archive = Archive.open(path)
    records = list(archive.records())
    rows = {r.id: r for r in records}
    assert len(rows) == len(records) == len(archive), "an id occurs twice"
    vectors = archive.vectors(list(rows))
    return {id: (rows[id], v.tobytes()) for id, v in zip(rows, vectors, strict=True)}


def assert_searches_like_brute_force(path: Path, rows: Rows) -> None:
    """Searches give what comparing with each of `rows` gives."""
    archive = Archive.open(path)
    exact = ExactStore(archive.metric, archive.dimension)
    if rows:
        vectors = np.stack([np.frombuffer(vector, np.float32) for _, vector in rows.values()])
        exact.add([record for record, _ in rows.values()], vectors)
    for query in np.random.default_rng(0).standard_normal((3, archive.dimension)):
        query = query.astype(np.float32)
        wanted = [(n.record.id, n.distance) for n in exact.search(query[None], 10)[0]]
        found = [(hit.id, hit.distance) for hit in archive.search(query, k=10)]
        assert found == wanted, "a search differs from comparing with each image"


def promised(start: Rows, heard: Sequence[object]) -> tuple[Rows, Rows | None]:
    """What must be there after these messages; and what may be instead, if a call was under way."""
    rows = dict(start)
    under_way = None
    for message in heard:
        if isinstance(message, Begin):
            under_way = dict(rows)
            under_way.update({row[0].id: row for row in message.rows})
            for id in message.ids:
                under_way.pop(id, None)
        elif isinstance(message, Done):
            rows, under_way = under_way, None
    return rows, under_way


@dataclass
class Scenario:
    """An operation, the archive that it starts from, and what an undisturbed run made of it.

    told: its messages; steps: when each came, in seconds after the first; the last is the end.
    """

    name: str
    start: Path | None
    task: Task
    before: Rows
    wanted: Rows = field(default_factory=dict)
    told: list[object] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """The archive as it is before the operation."""
        shutil.rmtree(self.task.path, ignore_errors=True)
        if self.start is not None:
            shutil.copytree(self.start, self.task.path)

    def rehearse(self) -> "Scenario":
        """Run it undisturbed."""
        self.begin()
        with Child(self.task) as child:
            clock = None
            while (message := child.hear()) is not None:
                now = time.perf_counter()
                clock = now if clock is None else clock
                self.steps.append(now - clock)
                self.told.append(message)
                assert not (isinstance(message, End) and message.error), message
        self.wanted = contents(self.task.path)
        assert_searches_like_brute_force(self.task.path, self.wanted)
        return self

    def moment(self, draw: random.Random) -> tuple[int, float]:
        """A moment, equally likely anywhere in the run: so many steps, and seconds after them."""
        at = draw.uniform(0, self.steps[-1])
        steps = max(n for n, second in enumerate(self.steps) if second <= at)
        return steps + 1, at - self.steps[steps]

    def after_a_call(self, number: int) -> tuple[int, float]:
        """The moment at which the call of this number has just come back."""
        calls = [n for n, message in enumerate(self.told) if isinstance(message, Done)]
        return calls[number] + 1, 0.0


@dataclass(frozen=True)
class Kill:
    """One kill: when, what was heard until then, what was found, and what is wrong with it.

    committed: images that had to be there. landed: whether the call under way was carried out,
    None if there was none.
    """

    operation: str
    steps: int
    of_steps: int
    delay_ms: float
    under_way: str
    committed: int
    found: int
    landed: bool | None
    verdict: str


def kill(scenario: Scenario, steps: int, delay: float) -> Kill:
    """Kill the operation `delay` seconds after its `steps`-th message, look, and run it again."""
    while True:
        scenario.begin()
        heard: list[object] = []
        with Child(scenario.task) as child:
            while len(heard) < steps and (message := child.hear()) is not None:
                heard.append(message)
            time.sleep(delay)
            child.kill()
            heard += child.rest()
        if not isinstance(heard[-1], End):
            break
        # It was quicker than in the rehearsal, and done.
        steps, delay = (steps, delay / 2) if delay > 1e-4 else (steps - 1, 0.0)
    must, may = promised(scenario.before, heard)
    last = heard[-1]
    found: Rows = {}
    verdict = "ok"
    try:
        found = checked_after_kill(scenario, heard, must, may)
        _assert_the_next_run_completes(scenario, found)
    except (AssertionError, ArchiveError, RuntimeError) as error:
        verdict = f"{type(error).__name__}: {error}"
    return Kill(
        scenario.name,
        steps,
        len(scenario.steps),
        1000 * delay,
        last.what if isinstance(last, Begin) else "",
        len(must),
        len(found),
        # A merge of files changes no row: carried out or not looks the same.
        None if may is None or may == must else found == may,
        verdict,
    )


def checked_after_kill(
    scenario: Scenario, heard: list[object], must: Rows, may: Rows | None
) -> Rows:
    """What the archive holds: `must`, or `may`; AssertionError if it is anything else."""
    try:
        found = contents(scenario.task.path)
    except ArchiveError as error:
        # Cut off while it was made, it says so, and is made again.
        told = "cut off" in str(error) or "is not an archive" in str(error)
        if not told or any(isinstance(message, Opened) for message in heard) or scenario.start:
            raise
        return {}
    if scenario.task.operation == "index" and isinstance(heard[-1], Begin):
        report = json.loads((scenario.task.path / "last-index.json").read_text("utf-8"))
        assert not report["complete"], "last-index.json says that the run was not cut off"
    lost = must.keys() - found.keys() - (set() if may is None else must.keys() - may.keys())
    assert not lost, f"{len(lost)} committed images are lost"
    assert found in (must, may), "neither what was committed nor that with the call under way"
    assert_searches_like_brute_force(scenario.task.path, found)
    return found


def _assert_the_next_run_completes(scenario: Scenario, found: Rows) -> None:
    heard, status = run(scenario.task)
    assert status == 0, f"the run after it ended with status {status}: {heard[-1:]}"
    rows = contents(scenario.task.path)
    assert rows == scenario.wanted, "the run after it does not end like an undisturbed one"
    assert_searches_like_brute_force(scenario.task.path, rows)
    if scenario.name == "index":
        again = heard[-1].encoded - (len(rows) - len(found))
        assert again == 0, f"{again} images were encoded again"


def scenarios(folder: Path, images: int = 60) -> dict[str, Scenario]:
    """The operations, each from an archive of its own below `folder`, run undisturbed once."""
    count = range(images)
    made = {}

    def start(name: str, painted: Path) -> Path:
        path = folder / name / "start"
        heard, status = run(Task("index", path, (painted,)))
        assert status == 0, heard
        return path

    def scenario(name: str, operation: str, path: Path | None, **task: object) -> None:
        before = {} if path is None else contents(path)
        work = Task(operation, folder / name / "archive", **task)
        made[name] = Scenario(name, path, work, before).rehearse()

    painted = paint(folder / "index" / "images", count)
    scenario("index", "index", None, images=(painted,))

    changing = paint(folder / "update" / "images", count)
    path = start("update", changing)
    paint(changing, count[::3], seed=1)
    scenario("update", "index", path, images=(changing,))

    path = start("delete", painted)
    ids = tuple(sorted(contents(path)))
    scenario("delete", "delete", path, ids=ids[::2])

    # Half of the rows of each small file deleted, as a merge meets them.
    scenario("optimize", "optimize", made["delete"].task.path)

    vanishing = paint(folder / "prune" / "images", count)
    path = start("prune", vanishing)
    for number in count[1::3]:
        (vanishing / f"{number:04d}.png").unlink()
    scenario("prune", "prune", path)

    vanishing = paint(folder / "life" / "images", count[::2])
    path = start("life", vanishing)
    names = {f"{number:04d}.png" for number in count[4::6]}
    ids = tuple(i for i, (record, _) in contents(path).items() if Path(record.source).name in names)
    for number in count[::6]:
        (vanishing / f"{number:04d}.png").unlink()
    paint(vanishing, count[1::2])
    paint(vanishing, count[2::6], seed=1)
    scenario("life", "life", path, images=(vanishing,), ids=ids)
    return made


def reading(path: Path, readers: int, task: Task) -> tuple[list[object], list[list[worker.Seen]]]:
    """Do `task` while so many processes search the archive at `path`: what each of them told."""
    children = [Child(path) for _ in range(readers)]
    try:
        for child in children:
            assert isinstance(child.hear(), Opened)
        with Child(task) as writer:
            told, seen = _listen(writer, children)
        for child in children:
            child.connection.send("stop")
        for child, ones in zip(children, seen, strict=True):
            rest = child.rest()
            assert child.process.exitcode == 0, "a reader failed"
            ones.extend(message for message in rest if isinstance(message, worker.Seen))
    finally:
        for child in children:
            child.__exit__()
    return told, seen


def _listen(writer: Child, readers: list[Child]) -> tuple[list[object], list[list[worker.Seen]]]:
    told: list[object] = []
    seen: list[list[worker.Seen]] = [[] for _ in readers]
    places: dict[Connection, int] = {child.connection: n for n, child in enumerate(readers)}
    while True:
        ready = multiprocessing.connection.wait([writer.connection, *places], PATIENCE)
        assert ready, "nobody said anything"
        for connection in ready:
            if connection is writer.connection:
                message = writer.hear()
                if message is None:
                    return told, seen
                told.append(message)
            else:
                message = readers[places[connection]].hear()
                assert message is not None, "a reader failed"
                seen[places[connection]].append(message)
