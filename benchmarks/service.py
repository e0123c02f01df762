"""The service under load: fifty clients at once on a million codes, then far too many.

    python benchmarks/service.py [--codes 1000000] [--clients 50] [--seconds 60]

Makes an archive of 64-bit codes with class probabilities, starts `rsir serve` for it on loopback,
and lets clients send requests without a pause: searches by vector (60 %), by id (15 %), with a
filter (15 %), and pages of items (10 %). Then four times as many clients as fit into the queue send
requests for ten seconds, to show how the overloaded service answers; then one client shows that it
recovers.

Prints percentiles and the server's memory, and writes benchmarks/results/service.json. The exit
status is 1 for a wrong response or an error, for growing memory, and if the service does not
recover. Clients and server share the machine's cores.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx2
import numpy as np

from rsir.archive import Archive
from rsir.archive.folder.external import ExternalEncoder
from rsir.cost.timing import cpu_name
from rsir.ranking import packed
from rsir.store.records.record import Record

BITS, CLASSES, K, FLIPPED = 64, 30, 20, 0.25
CHUNK = 100_000
FLAT = 1.1
"""Memory is flat if its maximum in the last half is at most this times that in the first half."""
RESULTS = Path(__file__).parent / "results" / "service.json"
SEARCH, ITEMS = "/api/archives/codes/search", "/api/archives/codes/items"


def make(folder: Path, count: int, rng: np.random.Generator) -> np.ndarray:
    """Make an archive of codes in `folder`; returns some of its vectors."""
    encoder = ExternalEncoder("noisy codes of classes", f"adaptive-hamming:{CLASSES}", BITS)
    archive = Archive.create(folder, encoder)
    centres = rng.random((CLASSES, BITS)) < 0.5
    some = []
    for start in range(0, count, CHUNK):
        rows = min(CHUNK, count - start)
        group = rng.integers(CLASSES, size=rows)
        codes = np.packbits(centres[group] ^ (rng.random((rows, BITS)) < FLIPPED), axis=1)
        logits = rng.standard_normal((rows, CLASSES), dtype=np.float32)
        logits[np.arange(rows), group] += 5
        odds = np.exp(logits)
        vectors = packed(codes, odds / odds.sum(axis=1, keepdims=True))
        records = [
            Record(
                f"{n:024x}", f"/archive/{n}.png", f"{n:x}", footprint=_square(n),
                datetime=datetime(2020, 1 + n % 12, 1, tzinfo=UTC),
                properties={"share": n * 7 % 10_000, "class": f"class {g}"},
            )
            for n, g in zip(range(start, start + rows), group.tolist(), strict=True)
        ]  # fmt: skip
        archive.store.add(records, vectors)
        some.append(vectors[:200])
    archive.optimize()
    return np.concatenate(some)


def _square(n: int) -> dict[str, object]:
    x, y = n % 3600 / 10 - 180, n // 3600 % 1700 / 10 - 85
    ring = [[x, y], [x + 0.1, y], [x + 0.1, y + 0.1], [x, y + 0.1], [x, y]]
    return {"type": "Polygon", "coordinates": [ring]}


class Server:
    """`rsir serve` for one archive, and its memory twice a second."""

    def __init__(self, archive: Path, log: Path) -> None:
        command = [sys.executable, "-m", "rsir.cli", "serve", f"codes={archive}", "--port", "0"]
        self._log = log.open("w")
        self.process = subprocess.Popen([*command, "--no-page"], stderr=self._log)
        self.memory: list[tuple[float, float]] = []
        self.url = ""
        while not self.url:
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.1)
            for line in log.read_text().splitlines():
                if "running on http" in line:
                    self.url = line[line.index("http://") :].split()[0]
        while httpx2.get(f"{self.url}/ready").status_code != 200:
            time.sleep(0.2)
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._measure)
        self._watch.start()

    def _measure(self) -> None:
        while not self._stop.wait(0.5):
            self.memory.append((time.monotonic(), self.now()))

    def now(self) -> float:
        """The resident memory in megabytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def stop(self) -> int:
        self._stop.set()
        self._watch.join()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self._log.close()
        return status


class Load:
    """Clients that send requests, and the statuses and durations of the responses."""

    def __init__(self, url: str, vectors: np.ndarray, count: int) -> None:
        self.url = url
        self.vectors = vectors
        self.count = count
        self.times: dict[str, list[float]] = {}
        self.statuses: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def client(self, http: httpx2.AsyncClient, number: int, until: float) -> None:
        rng = np.random.default_rng(number)
        while time.monotonic() < until:
            kind = rng.choice(["vector", "id", "filter", "items"], p=[0.6, 0.15, 0.15, 0.1])
            start = time.perf_counter()
            try:
                response = await self.send(http, str(kind), rng)
            except httpx2.HTTPError as error:
                self.statuses[type(error).__name__] += 1
                continue
            seconds = time.perf_counter() - start
            self.statuses[str(response.status_code)] += 1
            if response.status_code == 200:
                self.times.setdefault(str(kind), []).append(seconds)
                self.check(str(kind), response.json())
            elif response.status_code == 503 and "retry-after" not in response.headers:
                self.wrong.append("503 without Retry-After")

    async def send(
        self, http: httpx2.AsyncClient, kind: str, rng: np.random.Generator
    ) -> httpx2.Response:
        if kind == "items":
            after = f"{int(rng.integers(self.count)):024x}"
            return await http.get(ITEMS, params={"after": after, "limit": 20})
        vector = {"vector": self.vectors[rng.integers(len(self.vectors))].tolist()}
        body: dict[str, object] = {"query": vector, "k": K}
        if kind == "id":
            body["query"] = {"id": f"{int(rng.integers(self.count)):024x}"}
        if kind == "filter":
            share = int(rng.integers(1, 11)) * 500
            body["filter"] = {"where": f"share < {share}"}
        return await http.post(SEARCH, json=body)

    def check(self, kind: str, body: dict) -> None:
        if kind == "items":
            return
        distances = [hit["distance"] for hit in body["hits"]]
        if len(distances) != K or distances != sorted(distances):
            self.wrong.append(f"{kind}: {len(distances)} hits, {distances}")
        if kind == "vector" and distances[0] > 1e-6:  # the archive has this vector
            self.wrong.append(f"nearest at {distances[0]}")

    async def run(self, clients: int, seconds: float) -> None:
        limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
        until = time.monotonic() + seconds
        async with httpx2.AsyncClient(base_url=self.url, timeout=60, limits=limits) as http:
            await asyncio.gather(*(self.client(http, n, until) for n in range(clients)))


def summary(load: Load, seconds: float) -> dict[str, object]:
    everything = np.concatenate([np.array(times) for times in load.times.values()])

    def row(times: np.ndarray) -> dict[str, float]:
        shares = (50, 90, 99, 100)
        return {
            "count": len(times),
            **{f"p{p}_ms": 1000 * float(np.percentile(times, p)) for p in shares},
        }

    return {
        "answers_per_second": len(everything) / seconds,
        "statuses": dict(load.statuses),
        "wrong": load.wrong[:10],
        "all": row(everything),
        **{kind: row(np.array(times)) for kind, times in sorted(load.times.items())},
    }


def table(results: dict) -> str:
    """The percentiles as Markdown."""
    lines = ["| | answers | median ms | 90 % | 99 % | slowest |", "|---|--:|--:|--:|--:|--:|"]
    names = {"vector": "by vector", "id": "by id", "filter": "with a filter", "items": "items"}
    for kind, name in {**names, "all": "all"}.items():
        if kind in results["load"]:
            row = results["load"][kind]
            cells = [f"{row[f'p{p}_ms']:.0f}" for p in (50, 90, 99, 100)]
            lines.append(f"| {name} | {row['count']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    machine = {
        "cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("fastapi", "uvicorn", "faiss-cpu", "lancedb")},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        vectors = make(Path(folder) / "archive", options.codes, np.random.default_rng(0))
        print(f"{options.codes:,} codes, {machine['cpu']}, {machine['cores']} cores", flush=True)
        server = Server(Path(folder) / "archive", Path(folder) / "log")
        load = Load(server.url, vectors, options.codes)
        asyncio.run(load.run(options.clients, min(5.0, options.seconds)))  # warms up
        load = Load(server.url, vectors, options.codes)
        begun = time.monotonic()
        asyncio.run(load.run(options.clients, options.seconds))
        ended = time.monotonic()
        memory = [mb for at, mb in server.memory if begun <= at <= ended]
        first, last = memory[: len(memory) // 2], memory[len(memory) // 2 :]
        storm = Load(server.url, vectors, options.codes)
        asyncio.run(storm.run(300, 10))
        after = Load(server.url, vectors, options.codes)
        asyncio.run(after.run(1, 2))
        stopped = server.stop()
        lines = [json.loads(line) for line in (Path(folder) / "log").read_text().splitlines()]
    results = {
        "load": summary(load, options.seconds),
        "memory_mb": {"first_half": max(first), "last_half": max(last), "end": memory[-1]},
        "overload": summary(storm, 10),
        "after": summary(after, 2),
        "exit_status": stopped,
        "errors_in_the_log": sum(line["level"] == "error" for line in lines),
    }
    print(table(results))
    print(f"{results['load']['answers_per_second']:.0f} answers a second; {load.statuses}")
    print(f"memory of the server: {max(first):.0f} MB, then {max(last):.0f} MB at most")
    print(f"overload, 300 clients: {storm.statuses}; afterwards {after.statuses}")
    good = (
        set(load.statuses) == {"200"}
        and set(storm.statuses) <= {"200", "503"}
        and set(after.statuses) == {"200"}
        and not (load.wrong or storm.wrong or after.wrong)
        and max(last) <= FLAT * max(first)
        and stopped == 0
        and not results["errors_in_the_log"]
    )
    command = f"python benchmarks/service.py --codes {options.codes} --clients {options.clients}"
    size = {"codes": options.codes, "clients": options.clients, "seconds": options.seconds, "k": K}
    RESULTS.parent.mkdir(exist_ok=True)
    report = {
        "command": command,
        "machine": machine,
        "size": size,
        "good": good,
        "results": results,
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print("good" if good else f"not good: {load.wrong[:3] or 'see ' + RESULTS.name}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
