"""The papers' systems on real images, beside the papers' numbers; a table by one command.

    python benchmarks/papers.py eara-aid --data-root DIR --weights FILE --runs DIR

A table is a configuration in benchmarks/papers/NAME.toml: the set, the split, the settings and
the rows. Rows may be named with --rows; every seed draws split and training alike. Complete runs
are not trained again, interrupted ones are taken up. Writes results/NAME.json and NAME.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import rsir
from rsir.data import folder, splits
from rsir.data.folder import LabelledSet
from rsir.evaluation.evaluate import evaluate
from rsir.methods import method_type
from rsir.models.encoder import Encoder
from rsir.training.settings import configure
from rsir.training.train import train

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", help="one of " + ", ".join(tables()))
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the image sets")
    parser.add_argument("--weights", type=Path, required=True, help="of the backbone (ImageNet)")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the configuration's")
    parser.add_argument("--threads", type=int, help="of torch; all cores if not given")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    if given.table not in tables():
        parser.error(f"there is no table {given.table}; there are: {', '.join(tables())}")
    if given.threads:
        torch.set_num_threads(given.threads)
    table = Table(given.table, given)
    for seed in given.seeds or table.config["seeds"]:
        for row in table.config["row"]:
            if not given.rows or row["name"] in given.rows:
                print(table.measure(row, seed), flush=True)
    print(table.write(given.out))


def slug(name: str) -> str:
    """The name of a row as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def tables() -> list[str]:
    return sorted(file.stem for file in (HERE / "papers").glob("*.toml"))


class Table:
    """One configuration, and what was measured of it so far."""

    def __init__(self, name: str, given: argparse.Namespace) -> None:
        self.name = name
        self.given = given
        self.config = tomllib.loads((HERE / "papers" / f"{name}.toml").read_text("utf-8"))
        self.rows = {row["name"]: row for row in self.config["row"]}
        unknown = set(given.rows or ()) - self.rows.keys()
        if unknown:
            sys.exit(f"{name} has no row {', '.join(unknown)}; it has: {'; '.join(self.rows)}")
        self.images = self.load(self.config["data"], self.config.get("labels"))

    def load(self, data: str, labels: str | None = None) -> LabelledSet:
        root = self.given.data_root / data
        return folder.load(root, labels=root / labels if labels else None)

    def split(self, seed: int) -> splits.Split:
        return splits.make(self.images, train=self.config["train"], val=0.0, seed=seed)

    def run_of(self, row: dict[str, Any], seed: int) -> Path:
        """The folder of the row's run, or of the row whose run it shares."""
        return self.given.runs / self.name / f"{slug(row.get('run', row['name']))}-{seed}"

    def train(self, row: dict[str, Any], seed: int) -> Path:
        """Train the row, after the row it starts from; nothing if that is done already."""
        if "run" in row:
            return self.train(self.rows[row["run"]], seed)
        run = self.run_of(row, seed)
        weights = self.given.weights
        if "start" in row:
            weights = self.train(self.rows[row["start"]], seed) / "model.safetensors"
        values = {**self.config["settings"], **row.get("settings", {}), "seed": seed}
        backbone = values.pop("backbone")
        options, settings = configure(method_type(row["method"]), values)
        stamp = run.with_name(run.name + ".commit")
        if not stamp.exists():
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(commit() + "\n")
        return train(
            row["method"],
            self.split(seed),
            self.images.root,
            run,
            backbone=backbone,
            weights=weights,
            options=options,
            settings=settings,
            on_epoch=lambda line: print(f"{row['name']} · {seed} · {line}", flush=True),
            progress=sys.stderr.isatty(),
        )

    def measure(self, row: dict[str, Any], seed: int) -> str:
        """Train the row if need be and evaluate it; a line that says what came out."""
        run = self.train(row, seed)
        encoder = rsir.load(run)
        queries, gallery = self.sets(row, seed)
        if row.get("fit"):
            encoder = fitted(encoder, gallery or queries, run.with_name(run.name + "-fitted"))
        started = time.perf_counter()
        report = evaluate(encoder, queries, gallery, ranking=row.get("ranking"))
        result = {
            "row": row["name"],
            "seed": seed,
            "metrics": dict(report.metrics),
            "protocol": report.protocol,
            "ranking": report.ranking,
            "queries": report.queries,
            "gallery": report.gallery,
            "dimension": encoder.dimension,
            "train_seconds": encoder.model.training["seconds"],
            "evaluate_seconds": round(time.perf_counter() - started, 1),
            "commit": run.with_name(run.name + ".commit").read_text().strip(),
            "evaluated_at": commit(),
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "training": dict(encoder.model.training),
        }
        file = run.with_name(f"{slug(row['name'])}-{seed}.result.json")
        file.write_text(json.dumps(result, indent=2) + "\n")
        shown = (f"{name} {report.metrics[name]:.4f}" for name in self.config["measures"])
        return f"{row['name']} · seed {seed}: " + ", ".join(shown)

    def sets(self, row: dict[str, Any], seed: int) -> tuple[LabelledSet, LabelledSet | None]:
        """Queries and gallery; None where each query searches the others."""
        if "unseen" in self.config:
            return self.load(self.config["unseen"]), None
        split = self.split(seed)
        queries = split.labelled(self.images.root, "test")
        if row.get("gallery", self.config.get("gallery")) == "train":
            return queries, split.labelled(self.images.root, "train")
        return queries, None

    def write(self, out: Path) -> str:
        """results/NAME.json and NAME.md of all that is measured; returns the table."""
        found = []
        for row in self.config["row"]:
            files = self.run_of(row, 0).parent.glob(f"{slug(row['name'])}-*.result.json")
            results = [json.loads(file.read_text()) for file in sorted(files)]
            found += [result for result in results if result["row"] == row["name"]]
        out.mkdir(parents=True, exist_ok=True)
        text = markdown(self.config, found)
        command = f"python benchmarks/papers.py {self.name} --data-root DIR --weights FILE"
        result = {
            "table": self.config["title"],
            "command": f"{command} --runs DIR",
            "rsir": rsir.__version__,
            "results": found,
        }
        (out / f"{self.name}.json").write_text(json.dumps(result, indent=2) + "\n")
        (out / f"{self.name}.md").write_text(text + "\n")
        return text


def fitted(encoder: Encoder, gallery: LabelledSet, out: Path) -> Encoder:
    """The encoder with what it learns from a gallery without labels."""
    from rsir.models.adapt import adapt_to

    if (out / "model.json").exists():
        shutil.rmtree(out)
    return adapt_to(encoder, gallery.files, out)[0]


def markdown(config: dict[str, Any], found: list[dict[str, Any]]) -> str:
    """Mean over the seeds, ± the sample standard deviation where there are several, in percent."""
    measures = [*config["measures"], *(key for key in ALWAYS if key not in config["measures"])]
    given = {key for row in config["row"] for key in row.get("paper", {})}
    heads = []
    for key in measures:
        heads += [HEADS[key], "paper"] if key in given else [HEADS[key]]
    lines = [f"| | {' | '.join(heads)} | seeds |", "|---|" + "--:|" * (len(heads) + 1)]
    for row in config["row"]:
        results = [r for r in found if r["row"] == row["name"]]
        if not results:
            continue
        cells = []
        for key in measures:
            values = [100 * r["metrics"][key] for r in results]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}")
            if key in given:
                paper = row.get("paper", {}).get(key)
                cells.append("" if paper is None else f"{100 * paper:.2f}")
        seeds = ", ".join(str(r["seed"]) for r in results)
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {seeds} |")
    return "\n".join([*lines, "", config["note"].strip()])


ALWAYS = ("map", *(f"map_at_{k}_found" for k in (5, 10, 20, 100)))
"""Beside every paper's number, for papers mix them up: AP over the whole ranking and over short
lists, divided by the relevant that were found."""
HEADS = {
    "map": "mAP",
    "anmrr": "ANMRR",
    **{f"r_at_{k}": f"R@{k}" for k in (1, 2, 4, 8)},
    **{f"p_at_{k}": f"P@{k}" for k in (5, 10, 50, 100)},
    **{f"map_at_{k}_found": f"AP@{k}" for k in (5, 10, 20, 100)},
}


def commit() -> str:
    """The commit that runs, "-dirty" if anything was changed."""
    describe = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(describe, capture_output=True, text=True, cwd=HERE).stdout.strip()


def machine() -> dict[str, Any]:
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
