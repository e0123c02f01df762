"""Describe in sentences the conditions under which the numbers of a reproduced table hold."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rsir.data import splits
from rsir.evaluation.evaluate import DEFINITIONS, PROTOCOLS
from rsir.reproduce.conditions import QUICK_CLASSES, QUICK_IMAGES
from rsir.reproduce.experiment import Experiment
from rsir.reproduce.provenance import machine_text, version_text, weights_name
from rsir.reproduce.side_by_side import COSTS
from rsir.reproduce.table import PaperTable, TableRow, no_method
from rsir.training.settings import TrainingSettings

COST_DEFINITIONS = {
    "parameters": "weights that the embedding depends on (`rsir.cost.count`)",
    "multiply_adds": "of one forward pass; a product and its addition count 1 (`rsir.cost.count`)",
    "bytes_per_image": "of the stored vector or code (`rsir.cost.timing`)",
    "ms_per_image": "median time to encode one image in memory (`rsir.cost.timing`)",
    "ms_per_query": "median time of an exact search for the 100 nearest of one encoded query on "
    "the CPU, among as many random encodings as the searched set has images (`rsir.cost.timing`)",
}


def describe(
    experiment: Experiment, table: PaperTable, rows: Sequence[TableRow], seeds: Sequence[int]
) -> list[tuple[str, str]]:
    """The conditions of our numbers, as (subject, sentence) pairs."""
    evaluations = list(experiment.results)
    epoch = (
        "best epoch on the validation part" if experiment.conditions.validation else "last epoch"
    )
    lines = [
        ("Shared by all rows", _shared_by_all(experiment, table, rows)),
        (
            "Tuning budget",
            f"none for any row: trained once for each of {len(seeds)} "
            f"seed{'s' if len(seeds) > 1 else ''} with one set of settings; the {epoch} is used; "
            "this command chooses nothing by test images",
        ),
    ]
    trained = {(q.training.method, _trained_with(q.training.settings)) for q in evaluations}
    lines += [(f"{method} is trained with", settings) for method, settings in sorted(trained)]
    for (data, labels, share, seed), split in sorted(experiment.splits.items()):
        noun = "labels" if labels else "classes"
        counts = ", ".join(
            f"{len(split.part(part))} {part}" for part in splits.PARTS if len(split.part(part))
        )
        lines.append(
            (
                f"Split of {data}, seed {seed}",
                f"{share:g} of each of {len(split.classes)} {noun} to train on ({counts} images), "
                f"hash {split.hash[:16]}",
            )
        )
    for protocol in sorted({result["protocol"] for result in experiment.results.values()}):
        lines.append((f"Searched {protocol}", PROTOCOLS[protocol]))
    for unseen in sorted({q.unseen for q in evaluations if q.unseen}):
        lines.append(
            (
                f"Searched unseen, {unseen}",
                "all images are searched, and training used none of them; a method that learns "
                "from unlabelled images is adapted to them first",
            )
        )
    rankings = {result["ranking"].partition(":")[0] for result in experiment.results.values()}
    measured = [column.measure for column in table.columns if column.measure]
    keys = [re.sub(r"_at_\d+", "_at_k", measure) for measure in measured]
    keys += ["relevant", "ties", *sorted(rankings)] if evaluations else []
    lines += [(key, DEFINITIONS[key]) for key in dict.fromkeys(keys) if key in DEFINITIONS]
    results = experiment.results.values()
    machines = dict.fromkeys(machine_text(result["trained"]) for result in results)
    lines += [("Run on", machine) for machine in machines]
    versions = dict.fromkeys(version_text(result["evaluated"]) for result in results)
    lines += [("Evaluated with", version) for version in versions]
    left_out = [row.name for row in table.rows if row not in rows]
    if left_out:
        lines.append(("Left out", f"{', '.join(left_out)}: not requested"))
    costs = [column.measure for column in table.columns if column.measure in COSTS]
    lines += [(key, COST_DEFINITIONS[key]) for key in dict.fromkeys(costs)]
    lines += [("Timed on", machine) for machine in sorted(experiment.timed_on)]
    if table.protocol:
        lines.append(("The paper's protocol", " ".join(table.protocol.split())))
    return lines


def _shared_by_all(experiment: Experiment, table: PaperTable, rows: Sequence[TableRow]) -> str:
    """The conditions, then the rows that differ from them."""
    shared = experiment.conditions.values()
    size = shared["image_size"]
    validation = f"{shared['validation']:g} of the training images select the epoch"
    parts = [
        "split, seeds",
        f"backbone {shared['backbone']}",
        f"weights {weights_name(shared['weights'])}",
        f"{size} × {size} pixels",
        f"{shared['epochs']} epoch{'s' if shared['epochs'] != 1 else ''}",
        validation if shared["validation"] else "no validation part",
        f"precision {shared['precision']}",
        *([f"batches of {shared['batch_size']}"] if "batch_size" in shared else []),
        *(f"{name} {value}" for name, value in experiment.conditions.settings.items()),
    ]
    if start := experiment.conditions.start:
        settings = "".join(f", {name} {value}" for name, value in start.settings.items())
        parts.append(f"weights of a {start.method} trained first on the same images{settings}")
    if experiment.quick:
        parts.append(f"{QUICK_CLASSES} classes of {QUICK_IMAGES} images of each set")
    exceptions = {
        f"{row.name}: {name} {value}": None
        for row in rows
        if not no_method(row)
        for column in table.columns
        for name, value in experiment.values(row, column).items()
        if name in shared and value != shared[name]
    }
    return ", ".join(parts) + (f"; but {'; '.join(exceptions)}" if exceptions else "")


def _trained_with(settings: TrainingSettings) -> str:
    momentum = f" (momentum {settings.momentum:g})" if settings.optimizer == "sgd" else ""
    return (
        f"{settings.optimizer}{momentum}, learning rate {settings.lr:g}, of its new layers "
        f"{settings.head_lr:g}, {settings.schedule} schedule, {settings.warmup_epochs:g} epochs of "
        f"warm-up, weight decay {settings.weight_decay:g}, batches of {settings.batch_size}, "
        f"{settings.sampler} sampler"
    )
