"""Kill processes at random moments and check that their archives lose and duplicate nothing.

    python benchmarks/durability.py [--kills 50] [--seed 0] [--images 60]

The long version of tests/durability, which documents how a moment is drawn and what is checked.
The kills alternate among indexing, updating, deleting, optimising, pruning, and all of these one
after the other. Then four processes search while one process writes. Prints each kill, and writes
benchmarks/results/durability.json; the exit status is 1 if a check fails.
"""

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from rsir.cost.timing import cpu_name  # noqa: E402
from tests.durability import durable  # noqa: E402
from tests.durability.durable_worker import Begin, Task  # noqa: E402

READERS = 4
RESULTS = ROOT / "benchmarks" / "results" / "durability.json"


def row(number: int, kill: durable.Kill) -> str:
    landed = {None: "", True: "landed", False: "undone"}[kill.landed]
    return (
        f"{number:3d}  {kill.operation:9s} message {kill.steps:3d} of {kill.of_steps:3d} "
        f"+ {kill.delay_ms:7.1f} ms  {kill.under_way:9s} {landed:7s} "
        f"{kill.committed:4d} committed, {kill.found:4d} found  {kill.verdict}"
    )


def kills(folder: Path, count: int, seed: int, images: int) -> list[durable.Kill]:
    scenarios = list(durable.scenarios(folder, images).values())
    for scenario in scenarios:
        print(
            f"undisturbed: {scenario.name:9s} {len(scenario.steps):3d} messages in "
            f"{scenario.steps[-1]:.2f} s, {len(scenario.wanted)} images at the end"
        )
    draw = random.Random(seed)
    done = []
    for number in range(count):
        scenario = scenarios[number % len(scenarios)]
        done.append(durable.kill(scenario, *scenario.moment(draw)))
        print(row(number + 1, done[-1]), flush=True)
    return done


def readers(folder: Path, images: int) -> dict[str, object]:
    folders = [durable.paint(folder / "images" / f"{n}", range(n, images, 10)) for n in range(10)]
    path = folder / "archive"
    durable.run(Task("index", path, (folders[0] / "0000.png",)))
    ids = set(durable.contents(path))
    versions = [frozenset(ids)]
    start = time.perf_counter()
    messages, seen = durable.reading(path, READERS, Task("grow", path, tuple(folders)))
    seconds = time.perf_counter() - start
    for message in messages:
        if isinstance(message, Begin) and message.rows:
            ids |= {record.id for record, _ in message.rows}
            versions.append(frozenset(ids))
    number_of = {version: number for number, version in enumerate(versions)}
    seen_numbers = [[number_of.get(s.ids, -1) for s in searches] for searches in seen]
    return {
        "seconds": seconds,
        "readers": READERS,
        "versions": len(versions),
        "images": len(ids),
        "searches": [len(searches) for searches in seen],
        "searches_of_no_version": sum(n < 0 for numbers in seen_numbers for n in numbers),
        "steps_back": sum(b < a for numbers in seen_numbers for a, b in pairwise(numbers)),
        "writer_error": messages[-1].error,
    }


OPERATIONS = {
    "index": "indexing new images",
    "update": "indexing changed images",
    "delete": "deleting",
    "optimize": "optimising",
    "prune": "pruning",
    "life": "all of them, one after the other",
}


def shown(part: str) -> str:
    """Text for the documents: the table of the "kills", or the "rest" in words."""
    found = json.loads(RESULTS.read_text("utf-8"))
    if part == "rest":
        on, beside = found["machine"], found["readers"]
        return (
            f"{on['cpu']}, {on['cores']} cores, LanceDB {on['lancedb']}, {found['images']} images, "
            f"seed {found['seed']}. {beside['readers']} readers beside a writer "
            f"({beside['images']} images in {beside['versions']} versions, "
            f"{beside['seconds']:.0f} s): {sum(beside['searches'])} searches of the whole archive, "
            f"{beside['searches_of_no_version']} of an incomplete version, "
            f"{beside['steps_back']} of an older version than the search before."
        )
    lines = [
        "| killed while | kills | in a call that was undone | in a call that was carried out "
        "| outside a call, or in a call that changes no image | lost, duplicated, not completed |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, text in {**OPERATIONS, "": "**together**"}.items():
        kills = [kill for kill in found["kills"] if name in ("", kill["operation"])]
        by = Counter(kill["landed"] for kill in kills)
        wrong = sum(kill["verdict"] != "ok" for kill in kills)
        lines.append(f"| {text} | {len(kills)} | {by[False]} | {by[True]} | {by[None]} | {wrong} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=60)
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = kills(Path(folder), options.kills, options.seed, options.images)
        together = readers(Path(folder) / "readers", 4 * options.images)
    wrong = [kill for kill in done if kill.verdict != "ok"]
    print(f"{len(done)} kills, {len(wrong)} with something lost, duplicated or not completed")
    print(f"{READERS} readers beside a writer: {together}")
    faults = len(wrong) + together["searches_of_no_version"] + together["steps_back"]
    results = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("lancedb", "pyarrow")},
        },
        "seed": options.seed,
        "images": options.images,
        "seconds": time.perf_counter() - start,
        "kills_by_operation": Counter(kill.operation for kill in done),
        "call_under_way": Counter(
            {None: "none, or without effect", True: "carried out", False: "undone"}[kill.landed]
            for kill in done
        ),
        "wrong": len(wrong),
        "kills": [asdict(kill) for kill in done],
        "readers": together,
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    return 1 if faults or together["writer_error"] else 0


if __name__ == "__main__":
    sys.exit(main())
