"""Processes that work on an archive and are killed, and what the archive must hold after that.

The tests run an operation to its end first. This run gives the expected result and the time of each
message. A moment drawn from that time is "so many seconds after the n-th message", so that a busy
machine does not move all moments to the beginning or the end. At that moment the process gets
SIGKILL. Its messages until then decide what the archive has to hold.
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
"""Seconds without a message after which a child counts as hung. Our choice: a hundred times what
any step takes on a busy machine."""

Rows = dict[str, Row]


def _context() -> multiprocessing.context.ForkServerContext:
    # One process imports the libraries, which takes seconds, and forks the children.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.durability.durable_worker", "rsir.store.lance.store", "PIL.PngImagePlugin"]
    )
    changes = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        # LanceDB warns of forks while it works; the fork server does no work.
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
    """A process that does `task`, or reads the archive at a path; a context manager."""

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

    def receive(self) -> object | None:
        """The next message; None after the process has ended."""
        if not self.connection.poll(PATIENCE):
            raise TimeoutError(f"the child sent nothing for {PATIENCE:.0f} s")
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            return None

    def rest(self) -> list[object]:
        """All messages until the process ends."""
        messages = []
        while (message := self.receive()) is not None:
            messages.append(message)
        self.process.join()
        return messages

    def kill(self) -> None:
        """Send SIGKILL, if the process still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)


def run(task: Task) -> tuple[list[object], int]:
    """Do `task` in a process to its end: its messages and its exit status."""
    with Child(task) as child:
        messages = child.rest()
        return messages, child.process.exitcode


def paint(folder: Path, numbers: Sequence[int], seed: int = 0) -> Path:
    """A folder with a small image for each number; another seed paints other images."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) // 2 + rng.integers(0, 128, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:04d}.png")
    return folder


def contents(path: Path) -> Rows:
    """All records and vectors of the archive at `path`; AssertionError if an id occurs twice."""
    archive = Archive.open(path)
    records = list(archive.records())
    rows = {r.id: r for r in records}
    assert len(rows) == len(records) == len(archive), "an id occurs twice"
    vectors = archive.vectors(list(rows))
    return {id: (rows[id], v.tobytes()) for id, v in zip(rows, vectors, strict=True)}


def assert_searches_like_brute_force(path: Path, rows: Rows) -> None:
    """AssertionError if a search finds anything but what a comparison with all `rows` finds."""
    archive = Archive.open(path)
    exact = ExactStore(archive.metric, archive.dimension)
    if rows:
        vectors = np.stack([np.frombuffer(vector, np.float32) for _, vector in rows.values()])
        exact.add([record for record, _ in rows.values()], vectors)
    for query in np.random.default_rng(0).standard_normal((3, archive.dimension)):
        query = query.astype(np.float32)
        wanted = [(n.record.id, n.distance) for n in exact.search(query[None], 10)[0]]
        found = [(hit.id, hit.distance) for hit in archive.search(query, k=10)]
        assert found == wanted, "a search differs from the comparison with all images"


def promised(start: Rows, messages: Sequence[object]) -> tuple[Rows, Rows | None]:
    """The rows that must be there after these messages, and those that may be there instead.

    The second are the result of the unfinished call; None if no call is unfinished.
    """
    rows = dict(start)
    possible = None
    for message in messages:
        if isinstance(message, Begin):
            possible = dict(rows)
            possible.update({row[0].id: row for row in message.rows})
            for id in message.ids:
                possible.pop(id, None)
        elif isinstance(message, Done):
            rows, possible = possible, None
    return rows, possible


@dataclass
class Scenario:
    """An operation, the archive that it starts from, and the result of an undisturbed run.

    messages: of that run; times: of each message, in seconds after the first. The last one is the
    end.
    """

    name: str
    start: Path | None
    task: Task
    before: Rows
    wanted: Rows = field(default_factory=dict)
    messages: list[object] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Restore the archive to its state before the operation."""
        shutil.rmtree(self.task.path, ignore_errors=True)
        if self.start is not None:
            shutil.copytree(self.start, self.task.path)

    def rehearse(self) -> "Scenario":
        """Run the operation undisturbed."""
        self.begin()
        with Child(self.task) as child:
            first = None
            while (message := child.receive()) is not None:
                now = time.perf_counter()
                first = now if first is None else first
                self.times.append(now - first)
                self.messages.append(message)
                assert not (isinstance(message, End) and message.error), message
        self.wanted = contents(self.task.path)
        assert_searches_like_brute_force(self.task.path, self.wanted)
        return self

    def moment(self, draw: random.Random) -> tuple[int, float]:
        """A moment, uniform over the run: a number of messages, and seconds after the last."""
        moment = draw.uniform(0, self.times[-1])
        last = max(n for n, second in enumerate(self.times) if second <= moment)
        return last + 1, moment - self.times[last]

    def after_a_call(self, number: int) -> tuple[int, float]:
        """The moment at which the call of this number has just returned."""
        calls = [n for n, message in enumerate(self.messages) if isinstance(message, Done)]
        return calls[number] + 1, 0.0


@dataclass(frozen=True)
class Kill:
    """One kill: its moment, what the archive held after it, and a verdict.

    committed: number of images that had to be there. landed: whether the unfinished call took
    effect; None if no call was unfinished.
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
    """Kill the operation `delay` seconds after its `steps`-th message, check, and run it again."""
    while True:
        scenario.begin()
        messages: list[object] = []
        with Child(scenario.task) as child:
            while len(messages) < steps and (message := child.receive()) is not None:
                messages.append(message)
            time.sleep(delay)
            child.kill()
            messages += child.rest()
        if not isinstance(messages[-1], End):
            break
        # It was quicker than in the rehearsal and has ended.
        steps, delay = (steps, delay / 2) if delay > 1e-4 else (steps - 1, 0.0)
    must, may = promised(scenario.before, messages)
    last = messages[-1]
    found: Rows = {}
    verdict = "ok"
    try:
        found = checked_after_kill(scenario, messages, must, may)
        _assert_the_next_run_completes(scenario, found)
    except (AssertionError, ArchiveError, RuntimeError) as error:
        verdict = f"{type(error).__name__}: {error}"
    return Kill(
        scenario.name,
        steps,
        len(scenario.times),
        1000 * delay,
        last.call if isinstance(last, Begin) else "",
        len(must),
        len(found),
        # A merge of files changes no row: the archive looks the same with and without it.
        None if may is None or may == must else found == may,
        verdict,
    )


def checked_after_kill(
    scenario: Scenario, messages: list[object], must: Rows, may: Rows | None
) -> Rows:
    """The rows of the archive: `must`, or `may`; AssertionError for any others."""
    try:
        found = contents(scenario.task.path)
    except ArchiveError as error:
        # The kill interrupted the creation of the archive: the error says so.
        says_so = "cut off" in str(error) or "is not an archive" in str(error)
        opened = any(isinstance(message, Opened) for message in messages)
        if not says_so or opened or scenario.start:
            raise
        return {}
    if scenario.task.operation == "index" and isinstance(messages[-1], Begin):
        report = json.loads((scenario.task.path / "last-index.json").read_text("utf-8"))
        assert not report["complete"], "last-index.json claims a complete run"
    lost = must.keys() - found.keys() - (set() if may is None else must.keys() - may.keys())
    assert not lost, f"{len(lost)} committed images are lost"
    assert found in (must, may), "neither the committed rows nor those with the unfinished call"
    assert_searches_like_brute_force(scenario.task.path, found)
    return found


def _assert_the_next_run_completes(scenario: Scenario, found: Rows) -> None:
    messages, status = run(scenario.task)
    assert status == 0, f"the next run ended with status {status}: {messages[-1:]}"
    rows = contents(scenario.task.path)
    assert rows == scenario.wanted, "the next run does not end like an undisturbed one"
    assert_searches_like_brute_force(scenario.task.path, rows)
    if scenario.name == "index":
        again = messages[-1].encoded - (len(rows) - len(found))
        assert again == 0, f"{again} images were encoded again"


def scenarios(folder: Path, images: int = 60) -> dict[str, Scenario]:
    """The operations, each with its own archive below `folder`, run undisturbed once."""
    count = range(images)
    made = {}

    def start(name: str, painted: Path) -> Path:
        path = folder / name / "start"
        messages, status = run(Task("index", path, (painted,)))
        assert status == 0, messages
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

    # A merge of small files, half of whose rows are deleted.
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
    """Do `task` while other processes search the archive at `path`: the messages of all."""
    children = [Child(path) for _ in range(readers)]
    try:
        for child in children:
            assert isinstance(child.receive(), Opened)
        with Child(task) as writer:
            messages, seen = _listen(writer, children)
        for child in children:
            child.connection.send("stop")
        for child, searches in zip(children, seen, strict=True):
            rest = child.rest()
            assert child.process.exitcode == 0, "a reader failed"
            searches.extend(message for message in rest if isinstance(message, worker.Seen))
    finally:
        for child in children:
            child.__exit__()
    return messages, seen


def _listen(writer: Child, readers: list[Child]) -> tuple[list[object], list[list[worker.Seen]]]:
    messages: list[object] = []
    seen: list[list[worker.Seen]] = [[] for _ in readers]
    reader_of: dict[Connection, int] = {child.connection: n for n, child in enumerate(readers)}
    while True:
        ready = multiprocessing.connection.wait([writer.connection, *reader_of], PATIENCE)
        assert ready, "no process sent a message"
        for connection in ready:
            if connection is writer.connection:
                message = writer.receive()
                if message is None:
                    return messages, seen
                messages.append(message)
            else:
                message = readers[reader_of[connection]].receive()
                assert message is not None, "a reader failed"
                seen[reader_of[connection]].append(message)
