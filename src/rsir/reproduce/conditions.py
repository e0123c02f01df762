"""What all rows of a table share, and what is said of it beside the numbers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsir.data import splits
from rsir.errors import UsageError
from rsir.evaluation.evaluate import DEFINITIONS, PROTOCOLS
from rsir.reproduce.provenance import machine, named, version
from rsir.reproduce.side_by_side import COSTS
from rsir.reproduce.table import PaperTable, Row, no_method
from rsir.training.settings import TrainingSettings

if TYPE_CHECKING:
    from rsir.reproduce.runs import Experiment

COST_DEFINITIONS = {
    "parameters": "numbers that the embedding depends on (`rsir.cost.count`)",
    "multiply_adds": "of one forward pass, a product with an addition is 1 (`rsir.cost.count`)",
    "bytes_per_image": "of the vector or code that is stored and compared (`rsir.cost.timing`)",
    "ms_per_image": "median, one image in memory to its encoding (`rsir.cost.timing`)",
    "ms_per_query": "median, one encoded query to its 100 nearest, exactly, on the CPU, among as "
    "many random encodings as the set has images to be searched (`rsir.cost.timing`)",
}
QUICK_CLASSES, QUICK_IMAGES = 4, 12
"""Of a quick version: classes, and images of each; our choice, the fewest that all samplers and
measures have something to do with."""


ELSEWHERE = {
    "backbone": "give it with --backbone",
    "weights": "give them with --weights",
    "image_size": "give it with --size",
    "epochs": "give them with --epochs",
    "seed": "say how many with --seeds",
    "ranking": "a row is ranked as the table or its method has it; see `rsir evaluate --ranking`",
}
"""What is no setting that all rows share, and where it is said instead."""


@dataclass(frozen=True)
class Conditions:
    """What all rows of a table share; only a row that is about one of these may differ.

    backbone, weights: as for `rsir train`; a backbone of None is the table's, "resnet50" (our
    choice) where it has none. batch_size: None leaves each method its own.
    validation: share of the training images that chooses the best epoch; 0, our choice, for the
    papers name no such part, keeps the last epoch. settings: more that all rows are to share, by
    the names of the trainer's settings; UsageError for one that has a place of its own.
    """

    backbone: str | None = None
    weights: str | Path = "pretrained"
    image_size: int = 224
    epochs: int = 30
    batch_size: int | None = None
    precision: str = "auto"
    validation: float = 0.0
    workers: int = 2
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own = {f.name: f"it is {f.name} of the conditions" for f in dataclasses.fields(self)}
        for name in self.settings:
            if place := (own | ELSEWHERE).get(name):
                raise UsageError(f"{name} is no further setting that rows can share: {place}")

    def values(self) -> dict[str, Any]:
        """All of it, flat, by name."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del own["settings"]
        if self.batch_size is None:
            del own["batch_size"]
        return {**own, "weights": str(self.weights), **self.settings}


QUICK = Conditions("test_resnet", "none", 32, epochs=1, batch_size=16, precision="32", workers=0)
"""A quick version: timm's own tiny net for tests, from random weights."""


def described(
    bench: Experiment, table: PaperTable, rows: Sequence[Row], seeds: Sequence[int]
) -> list[tuple[str, str]]:
    """What our numbers hold for: (subject, sentence) each."""
    asked = list(bench.results)
    kept = "best epoch on the validation part" if bench.conditions.validation else "last epoch"
    lines = [
        ("Shared by all rows", _shared(bench, table, rows)),
        (
            "Tuning budget",
            f"none for any row: trained once for each of {len(seeds)} "
            f"seed{'s' if len(seeds) > 1 else ''} with the method's own settings, the {kept} "
            "kept; no test image chose anything",
        ),
    ]
    trained = {(q.training.method, _trained_with(q.training.settings)) for q in asked}
    lines += [(f"{method} is trained with", how) for method, how in sorted(trained)]
    for (data, labels, share, seed), split in sorted(bench.splits.items()):
        what = "labels" if labels else "classes"
        counts = ", ".join(
            f"{len(split.part(part))} {part}" for part in splits.PARTS if len(split.part(part))
        )
        lines.append(
            (
                f"Split of {data}, seed {seed}",
                f"{share:g} of each of {len(split.classes)} {what} to train on ({counts} images), "
                f"hash {split.hash[:16]}",
            )
        )
    for protocol in sorted({result["protocol"] for result in bench.results.values()}):
        lines.append((f"Searched {protocol}", PROTOCOLS[protocol]))
    for unseen in sorted({q.unseen for q in asked if q.unseen}):
        lines.append(
            (
                f"Searched unseen, {unseen}",
                "all of it, of which nothing was trained on; what learns from a gallery without "
                "labels is fitted to it",
            )
        )
    rankings = {result["ranking"].partition(":")[0] for result in bench.results.values()}
    measured = [column.measure for column in table.columns if column.measure]
    keys = [re.sub(r"_at_\d+", "_at_k", measure) for measure in measured]
    keys += ["relevant", "ties", *sorted(rankings)] if asked else []
    lines += [(key, DEFINITIONS[key]) for key in dict.fromkeys(keys) if key in DEFINITIONS]
    machines = dict.fromkeys(machine(result["trained"]) for result in bench.results.values())
    lines += [("Run on", made_on) for made_on in machines]
    evaluations = dict.fromkeys(version(result["evaluated"]) for result in bench.results.values())
    lines += [("Evaluated with", made_with) for made_with in evaluations]
    left_out = [row.name for row in table.rows if row not in rows]
    if left_out:
        lines.append(("Left out", f"{', '.join(left_out)}: not asked for"))
    costs = [column.measure for column in table.columns if column.measure in COSTS]
    lines += [(key, COST_DEFINITIONS[key]) for key in dict.fromkeys(costs)]
    lines += [("Timed on", made_on) for made_on in sorted(bench.timed_on)]
    return [*lines, ("The paper's protocol", " ".join(table.protocol.split()))]


def _shared(bench: Experiment, table: PaperTable, rows: Sequence[Row]) -> str:
    """The conditions, and which rows differ in one because the table is about that."""
    shared = bench.conditions.values()
    size = shared["image_size"]
    validation = f"{shared['validation']:g} of the training images to choose the epoch by"
    parts = [
        "split, seeds",
        f"backbone {shared['backbone']}",
        f"weights {named(shared['weights'])}",
        f"{size} × {size} pixels",
        f"{shared['epochs']} epoch{'s' if shared['epochs'] != 1 else ''}",
        validation if shared["validation"] else "no validation part",
        f"precision {shared['precision']}",
        *([f"batches of {shared['batch_size']}"] if "batch_size" in shared else []),
        *(f"{name} {value}" for name, value in bench.conditions.settings.items()),
    ]
    if bench.quick:
        parts.append(f"{QUICK_CLASSES} classes of {QUICK_IMAGES} images of each set")
    others = {
        f"{row.name}: {name} {value}": None
        for row in rows
        if not no_method(row)
        for column in table.columns
        for name, value in bench.values(row, column).items()
        if name in shared and value != shared[name]
    }
    but = f"; but {'; '.join(others)}" if others else ""
    return ", ".join(parts) + but


def _trained_with(settings: TrainingSettings) -> str:
    momentum = f" (momentum {settings.momentum:g})" if settings.optimizer == "sgd" else ""
    return (
        f"{settings.optimizer}{momentum}, learning rate {settings.lr:g}, of its own layers "
        f"{settings.head_lr:g}, {settings.schedule} schedule, {settings.warmup_epochs:g} epochs of "
        f"warm-up, weight decay {settings.weight_decay:g}, batches of {settings.batch_size}, "
        f"{settings.sampler} sampler"
    )
