"""The runs that answer a paper's table: trained and measured alike, taken up where they were."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rsir
from rsir import model as models
from rsir.adapt import fit_on
from rsir.cost import cost
from rsir.data import catalog, folder, splits
from rsir.data.catalog_locate import locate
from rsir.data.folder import LabelledSet
from rsir.data.splits import Split
from rsir.encode import Encoder
from rsir.errors import DataError, RsirError, UsageError
from rsir.evaluate import DEFINITIONS, PROTOCOLS, evaluate
from rsir.figures.style import needed
from rsir.methods import METHODS, method_type
from rsir.model import Model, file_sha256
from rsir.nn.backbone import Backbone
from rsir.reproduce.side_by_side import COSTS, Cell, Comparison, Missing, in_unit
from rsir.reproduce.table import Column, PaperTable, Row, load
from rsir.settings import Settings, configure
from rsir.training import train

log = logging.getLogger("rsir")

Say = Callable[[str], None]
Place = tuple[str, str]
"""The names of a cell's row and column."""

LABEL_TABLES = ("LandUse_Multilabeled.txt", "labels.csv", "labels.txt")
"""Tables of labels, looked for beside the images or up to two folders above: UC Merced's as its
authors named it (Chaudhuri et al. 2018), or one that was made by hand."""
COUNTED = ("parameters", "multiply_adds")
"""Costs that do not depend on the machine."""
COST_DEFINITIONS = {
    "parameters": "numbers that the embedding depends on (`rsir.cost`)",
    "multiply_adds": "of one forward pass, a product with an addition is 1 (`rsir.cost`)",
    "bytes_per_image": "of the vector or code that is stored and compared (`rsir.timing`)",
    "ms_per_image": "median, one image in memory to its encoding (`rsir.timing`)",
    "ms_per_query": "median, one encoded query to its 100 nearest, exactly, on the CPU, among as "
    "many random encodings as the set has images to be searched (`rsir.timing`)",
}
QUICK_CLASSES, QUICK_IMAGES = 4, 12
"""Of a quick version: classes, and images of each; our choice, the fewest that all samplers and
measures have something to do with."""


@dataclass(frozen=True)
class Conditions:
    """What all rows of a table share; only a row that is about one of these may differ.

    backbone, weights: as for `rsir train`; a backbone of None is the table's, "resnet50" (our
    choice) where it has none. batch_size: None leaves each method its own.
    validation: share of the training images that chooses the best epoch; 0, our choice, for the
    papers name no such part, keeps the last epoch. settings: more that all rows are to share, by
    the names of the trainer's settings.
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

    def values(self) -> dict[str, Any]:
        """All of it, flat, by name."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del own["settings"]
        if self.batch_size is None:
            del own["batch_size"]
        return {**own, "weights": str(self.weights), **self.settings}


QUICK = Conditions("test_resnet", "none", 32, epochs=1, batch_size=16, precision="32", workers=0)
"""A quick version: timm's own tiny net for tests, from random weights."""


@dataclass(frozen=True)
class Training:
    """One model to train: what is equal here is trained once."""

    method: str
    backbone: str
    weights: str
    options: tuple[tuple[str, Any], ...]
    settings: Settings
    data: str
    labels: bool
    share: float


@dataclass(frozen=True)
class Question:
    """One evaluation of a trained model: what is equal here is measured once."""

    training: Training
    search: str
    unseen: str | None
    ranking: str | None


def reproduce(
    table: str | PaperTable,
    data_root: str | Path,
    out: str | Path,
    *,
    conditions: Conditions | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    quick: bool = False,
    on_line: Say | None = None,
) -> Comparison:
    """Train and measure what a paper's table asks for, as far as its image sets are there.

    table: a name from `rsir.reproduce.table.names()`, or a table. data_root: the folder that the
    image sets lie in, in any layout that the catalogue knows. out: its runs/ keeps each trained
    model, and each evaluation beside it as JSON; what is there, of any table, is not done again,
    and an interrupted training is taken up. methods: only the rows of these. seeds: each draws
    the split and the training. quick: `QUICK` conditions on a few images. on_line: gets a line
    of text for each epoch and each number.

    What fails is said in `Comparison.missing`, and the rest goes on. Raises UsageError for an
    unknown table or method, and for conditions that nothing could be trained under, DataError
    if `data_root` is no folder, MissingExtraError if the table could not be drawn in the end.
    """
    needed()
    if isinstance(table, str):
        table = load(table)
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"seeds must be one or more different numbers, not {list(seeds)}")
    if not Path(data_root).is_dir():
        raise DataError(f"{data_root}: no such folder; give the one that the image sets lie in")
    rows = _chosen(table, methods)
    conditions = QUICK if quick else conditions or Conditions()
    if conditions.backbone is None:
        conditions = dataclasses.replace(conditions, backbone=table.backbone or "resnet50")
    bench = Bench(Path(data_root), Path(out), conditions, quick=quick, say=on_line or log.info)

    plans: dict[Place, dict[int, Question]] = {}
    ours: dict[Place, list[float]] = {}
    missing: list[Missing] = []
    for row in rows:
        if reason := _no_method(row):
            missing.append(Missing(row.name, None, reason))
            continue
        for column in _wanted(row, table):
            place = (row.name, column.name)
            try:
                if column.measure is None:
                    raise UsageError("rsir has no such measure")
                if column.measure in COSTS:
                    ours[place] = [in_unit(bench.cost(row, column), column.unit)]
                else:
                    plans[place] = {seed: bench.question(row, column, seed) for seed in seeds}
            except RsirError as error:
                missing.append(Missing(*place, str(error)))

    asked = [question for planned in plans.values() for question in planned.values()]
    if not all(bench.run_of(question.training).exists() for question in asked):
        # What is wrong with what all rows share is no failure of one of them.
        size, weights = conditions.image_size, conditions.weights
        Backbone(conditions.backbone or "", image_size=size, weights=weights)

    columns = {column.name: column for column in table.columns}
    failed: dict[Place, str] = {}
    for seed in seeds:
        for place, planned in plans.items():
            if place in failed:
                continue
            column = columns[place[1]]
            label = f"{place[0]} · {column.name} · seed {seed}"
            try:
                value = in_unit(bench.measure(planned[seed], column, label), column.unit)
            except (RsirError, torch.OutOfMemoryError) as error:
                failed[place] = str(error).splitlines()[0]
                bench.say(f"{label}: not run, {failed[place]}")
            else:
                ours.setdefault(place, []).append(value)
                bench.say(f"{label}: {value:.4g} {column.unit}")
    missing += [Missing(*place, reason) for place, reason in failed.items()]
    return Comparison(
        name=table.name,
        table=table,
        cells=tuple(
            Cell(row.name, column.name, paper, tuple(ours.get((row.name, column.name), ())))
            for row in rows
            for column, paper in _values(row, table)
        ),
        missing=tuple(missing),
        conditions=tuple(described(bench, table, rows, seeds)),
        seeds=tuple(seeds),
        quick=quick,
    )


def _chosen(table: PaperTable, methods: Sequence[str] | None) -> list[Row]:
    if methods is None:
        return list(table.rows)
    there = dict.fromkeys(row.method for row in table.rows if row.method)
    unknown = [name for name in methods if name not in there]
    if unknown or not methods:
        raise UsageError(
            f"{table.name} has no row of {', '.join(unknown) or 'no method'}; "
            f"its methods are: {', '.join(there) or 'none'}"
        )
    return [row for row in table.rows if row.method in methods]


def _values(row: Row, table: PaperTable) -> list[tuple[Column, float | None]]:
    """Each column with the paper's value, None where it gives none."""
    pairs = zip(table.columns, row.values, strict=True)
    return [(column, None if math.isnan(value) else value) for column, value in pairs]


def _wanted(row: Row, table: PaperTable) -> list[Column]:
    """The columns to answer: those with a number of the paper's to stand beside.

    And all columns of a row, all rows of a column, for which the paper has no number at all.
    """
    given = {
        (one.name, column.name)
        for one in table.rows
        for column, value in _values(one, table)
        if value is not None
    }
    rows, columns = {name for name, _ in given}, {name for _, name in given}
    return [
        column
        for column in table.columns
        if (row.name, column.name) in given or row.name not in rows or column.name not in columns
    ]


def _no_method(row: Row) -> str | None:
    """Why rsir cannot run the row at all."""
    if row.absent:
        return row.absent
    if row.method is None:
        return "not in rsir yet"
    if row.method not in METHODS:
        return f"{row.method} is not in rsir yet"
    return None


class Bench:
    """Image sets, splits, runs and results, each had once."""

    def __init__(
        self, data_root: Path, out: Path, conditions: Conditions, *, quick: bool, say: Say
    ) -> None:
        self.data_root = data_root
        self.runs = out / "runs"
        self.conditions = conditions
        self.quick = quick
        self.say = say
        self.results: dict[Question, dict[str, Any]] = {}
        self.splits: dict[tuple[str, bool, float, int], Split] = {}
        self.timed_on: set[str] = set()
        self._sets: dict[tuple[str, bool], LabelledSet | str] = {}
        self._failed: dict[Training, str] = {}

    def images(self, data: str, labels: bool) -> LabelledSet:
        """The set of that name below the data root; of a quick version a few of its images.

        Raises DataError if it is not there.
        """
        if (data, labels) not in self._sets:
            try:
                found = self._load(data, labels)
            except DataError as error:
                self._sets[data, labels] = str(error)
            else:
                self._sets[data, labels] = few(found) if self.quick else found
        images = self._sets[data, labels]
        if isinstance(images, str):
            raise DataError(images)
        return images

    def _load(self, data: str, labels: bool) -> LabelledSet:
        entry = catalog.get(data)
        place = locate(entry, self.data_root)
        if not labels:
            return folder.load(place)
        above = [p for p in (place, *place.parents[:2]) if p.is_relative_to(self.data_root)]
        tables = [p / name for p in above for name in LABEL_TABLES if (p / name).is_file()]
        if not tables:
            raise DataError(
                f"{place}: no table of labels for {entry.title}; put {LABEL_TABLES[0]} "
                f"or {LABEL_TABLES[1]} there (image name, then 0 or 1 for each label)"
            )
        return folder.load(place, labels=tables[0])

    def split(self, data: str, labels: bool, share: float, seed: int) -> Split:
        """The split that all rows share: of a set, a share to train on and a seed."""
        key = (data, labels, share, seed)
        if key not in self.splits:
            validation = self.conditions.validation
            images = self.images(data, labels)
            self.splits[key] = splits.make(images, train=share, val=validation, seed=seed)
        return self.splits[key]

    def split_of(self, training: Training) -> Split:
        """The split that it is trained on."""
        return self.split(training.data, training.labels, training.share, training.settings.seed)

    def values(self, row: Row, column: Column) -> dict[str, Any]:
        """Settings and options, flat: the shared ones, then what the table asks for."""
        shared, asked = self.conditions.values(), row.settings_for(column)
        if row.backbone:
            asked["backbone"] = row.backbone
        if not self.quick:
            return {**shared, **asked}
        epochs = min(asked.get("epochs", shared["epochs"]), shared["epochs"])
        return {**asked, **shared, "epochs": epochs}

    def training(self, row: Row, column: Column, seed: int) -> Training:
        """What is to be trained for a cell. Raises UsageError for what the method has not."""
        assert row.method is not None
        if column.data is None:
            raise UsageError("the table does not say which set it is trained on")
        values = {**self.values(row, column), "seed": seed}
        # How a model is ranked is asked when it is measured: no other training is needed for it.
        values.pop("ranking", None)
        backbone, weights = values.pop("backbone"), values.pop("weights")
        kind = method_type(row.method)
        options, settings = configure(kind, values)
        whole = dataclasses.asdict(kind.options_type(**options))
        return Training(
            method=row.method,
            backbone=backbone,
            weights=weights,
            options=tuple(sorted(whole.items())),
            settings=settings,
            data=column.data,
            labels=column.labels,
            share=1.0 if column.train is None else column.train,
        )

    def question(self, row: Row, column: Column, seed: int) -> Question:
        """What is to be measured for a cell.

        Raises DataError if a set is missing or cannot be split, UsageError as `training`.
        """
        training = self.training(row, column, seed)
        self.split_of(training)
        if column.unseen is not None:
            self.images(column.unseen, False)
        ranking = row.settings_for(column).get("ranking")
        return Question(training, column.search, column.unseen, ranking)

    def run_of(self, training: Training) -> Path:
        """The folder of its run; another configuration or split has another."""
        config = {
            **dataclasses.asdict(training),
            "weights": _named(training.weights),
            "split": self.split_of(training).hash,
        }
        del config["settings"]["workers"]
        readable = f"{training.method}-{training.data}-seed{training.settings.seed}"
        return self.runs / self._name(readable, config)

    def measure(self, question: Question, column: Column, label: str) -> float:
        """The column's measure, from the result that is there, or by training and evaluating."""
        assert column.measure is not None
        run = self.run_of(question.training)
        asked = (question.search, question.unseen, question.ranking)
        file = run.with_name(".".join([run.name, *filter(None, asked), "json"]))
        if question not in self.results:
            result = _read(file)
            if result is None or (_value(result, column) is None and _is_old(result)):
                result = self._evaluate(question, self._trained(question.training, run, label))
                _write(file, result)
            self.results[question] = result
        value = _value(self.results[question], column)
        if value is None and column.measure in self.results[question]["metrics"]:
            raise DataError("no query is of this class")
        if value is None:
            raise UsageError(f"rsir does not measure {column.measure} with this ranking")
        return value

    def _trained(self, training: Training, run: Path, label: str) -> Path:
        """The complete run; what has failed once is not tried again."""
        if training in self._failed:
            raise UsageError(self._failed[training])
        # Its name stands for its configuration and the images' contents: nothing to compare.
        if (_read(run / "run.json") or {}).get("complete"):
            return run
        origin = run.with_name(f"{run.name}.origin.json")
        if not origin.exists():
            _write(origin, provenance())
        try:
            return train(
                training.method,
                self.split_of(training),
                self.images(training.data, training.labels).root,
                run,
                backbone=training.backbone,
                weights=training.weights,
                options=dict(training.options),
                settings=training.settings,
                on_epoch=lambda line: self.say(f"{label} · {line}"),
            )
        except (RsirError, torch.OutOfMemoryError) as error:
            self._failed[training] = str(error).splitlines()[0]
            raise

    def _evaluate(self, question: Question, run: Path) -> dict[str, Any]:
        """The result of one evaluation of a complete run, as plain JSON values."""
        encoder = rsir.load(run)
        queries, gallery = self._searched(question)
        with tempfile.TemporaryDirectory() as place:
            if question.unseen is not None and encoder.module.learner() is not None:
                encoder = fit_on(encoder, queries.files, Path(place) / "fitted")[0]
            report = evaluate(encoder, queries, gallery, ranking=question.ranking)
        plain = report.to_dict()
        del plain["curves"], plain["definitions"]
        origin = _read(run.with_name(f"{run.name}.origin.json"))
        return {**plain, "trained": origin, "evaluated": provenance()}

    def _searched(self, question: Question) -> tuple[LabelledSet, LabelledSet | None]:
        """Queries and gallery; None where each query searches the other queries."""
        if question.unseen is not None:
            return self.images(question.unseen, False), None
        split, training = self.split_of(question.training), question.training
        root = self.images(training.data, training.labels).root
        queries = split.labelled(root, "test")
        if question.search == "query-gallery":
            return queries, split.labelled(root, "train", "val")
        return queries, None

    def cost(self, row: Row, column: Column) -> float:
        """What a row's net costs, built for the column's set; a trained one costs the same.

        It needs no images: where the set is missing, the catalogue says how many it has.
        """
        assert row.method is not None
        assert column.measure is not None
        values = self.values(row, column)
        backbone, _ = values.pop("backbone"), values.pop("weights")
        options, settings = configure(method_type(row.method), values)
        config: dict[str, Any] = {
            "method": row.method,
            "backbone": backbone,
            "options": options,
            "image_size": settings.image_size,
            "classes": self._class_count(column),
        }
        counts = column.measure in COUNTED
        if not counts:
            config["gallery"] = _searched_count(column)
        file = self.runs / f"{self._name('cost-' + row.method, config)}.json"
        found = _read(file)
        if found is None:
            model = models.build(
                row.method,
                backbone=backbone,
                spec=settings.image_size,
                classes=tuple(str(number) for number in range(config["classes"])),
                options=options,
            )
            found = {**config, **(_counted(model) if counts else self._timed(model, config))}
            _write(file, found)
        if not counts:
            self.timed_on.add(_machine(found["measured"]))
        return float(found[column.measure])

    def _timed(self, model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
        from rsir import timing

        encoder = Encoder(model)
        if self.quick:
            measured = timing.measure(encoder, gallery=100, batch=2, queries=10, seconds=0.01)
        else:
            measured = timing.measure(encoder, gallery=config["gallery"])
        return {
            "ms_per_image": measured.ms_per_image.median,
            "ms_per_query": measured.ms_per_query.median,
            "bytes_per_image": measured.bytes_per_image,
            "timed": measured.to_dict(),
            "measured": provenance(),
        }

    def _class_count(self, column: Column) -> int:
        if column.data is None:
            return 1
        try:
            return len(self.images(column.data, column.labels).classes)
        except DataError:
            return catalog.get(column.data).class_count

    def _name(self, prefix: str, config: Mapping[str, Any]) -> str:
        """A name that another configuration does not have."""
        canonical = json.dumps(config, sort_keys=True, default=str)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
        return f"{'quick-' if self.quick else ''}{prefix}-{digest}"


def few(images: LabelledSet) -> LabelledSet:
    """The few images of a quick version.

    Of classes the first ones, as many images of each; of labels as many images, spread evenly,
    with the labels that several of them have.
    """
    if not images.multi_label:
        kept = range(min(QUICK_CLASSES, len(images.classes)))
        chosen = [i for c in kept for i in np.flatnonzero(images.targets == c)[:QUICK_IMAGES]]
        part = images.subset(chosen)
        return dataclasses.replace(part, classes=images.classes[: len(kept)])
    count = min(len(images), QUICK_CLASSES * QUICK_IMAGES)
    part = images.subset(np.linspace(0, len(images) - 1, count).astype(np.int64))
    common = part.counts >= QUICK_IMAGES // 2
    part = part.subset(part.targets[:, common].any(axis=1))
    classes = tuple(name for name, kept in zip(part.classes, common, strict=True) if kept)
    return dataclasses.replace(part, classes=classes, targets=part.targets[:, common])


def _value(result: Mapping[str, Any], column: Column) -> float | None:
    """The column's measure in a result, of all queries or of its class; None if it is not there."""
    found = result["metrics"]
    if column.class_name is not None:
        entry = catalog.get(column.unseen or column.data or "")
        named = {catalog.find_class(entry, c): values for c, values in result["per_class"].items()}
        found = named.get(column.class_name, {})
    value = found.get(column.measure)
    return None if value is None else float(value)


def _is_old(result: Mapping[str, Any]) -> bool:
    """Whether another rsir evaluated it, which may have had fewer measures."""
    made = result["evaluated"]
    return (made["rsir"], made["commit"]) != (rsir.__version__, _commit())


def _searched_count(column: Column) -> int:
    """How many images are searched, by the catalogue's number of images."""
    from rsir.timing import GALLERY

    if column.unseen is not None:
        return catalog.get(column.unseen).images
    if column.data is None or column.train is None:
        return GALLERY
    share = column.train if column.search == "query-gallery" else 1 - column.train
    return max(1, round(share * catalog.get(column.data).images))


def _counted(model: Model) -> dict[str, Any]:
    counted = cost(model)
    return {"parameters": counted.parameters, "multiply_adds": counted.multiply_adds}


def described(
    bench: Bench, table: PaperTable, rows: Sequence[Row], seeds: Sequence[int]
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
    machines = dict.fromkeys(_machine(result["trained"]) for result in bench.results.values())
    lines += [("Run on", machine) for machine in machines]
    left_out = [row.name for row in table.rows if row not in rows]
    if left_out:
        lines.append(("Left out", f"{', '.join(left_out)}: not asked for"))
    costs = [column.measure for column in table.columns if column.measure in COSTS]
    lines += [(key, COST_DEFINITIONS[key]) for key in dict.fromkeys(costs)]
    lines += [("Timed on", machine) for machine in sorted(bench.timed_on)]
    return [*lines, ("The paper's protocol", " ".join(table.protocol.split()))]


def _shared(bench: Bench, table: PaperTable, rows: Sequence[Row]) -> str:
    """The conditions, and which rows differ in one because the table is about that."""
    shared = bench.conditions.values()
    size = shared["image_size"]
    validation = f"{shared['validation']:g} of the training images to choose the epoch by"
    parts = [
        "split, seeds",
        f"backbone {shared['backbone']}",
        f"weights {_named(shared['weights'])}",
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
        if not _no_method(row)
        for column in table.columns
        for name, value in bench.values(row, column).items()
        if name in shared and value != shared[name]
    }
    but = f"; but {'; '.join(others)}" if others else ""
    return ", ".join(parts) + but


def _trained_with(settings: Settings) -> str:
    momentum = f" (momentum {settings.momentum:g})" if settings.optimizer == "sgd" else ""
    return (
        f"{settings.optimizer}{momentum}, learning rate {settings.lr:g}, of its own layers "
        f"{settings.head_lr:g}, {settings.schedule} schedule, {settings.warmup_epochs:g} epochs of "
        f"warm-up, weight decay {settings.weight_decay:g}, batches of {settings.batch_size}, "
        f"{settings.sampler} sampler"
    )


def provenance() -> dict[str, Any]:
    """Where and when something was made: rsir, torch, commit (None outside a checkout), machine."""
    from rsir.timing import cpu_name

    return {
        "rsir": rsir.__version__,
        "torch": torch.__version__,
        "commit": _commit(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _machine(made: Mapping[str, Any]) -> str:
    commit = f", commit {made['commit']}" if made["commit"] else ""
    return (
        f"{made['cpu']}, {made['cores']} cores, {made['gpu'] or 'no GPU'}; rsir {made['rsir']}, "
        f"torch {made['torch']}{commit}"
    )


def _commit() -> str | None:
    """The commit of the checkout that this file belongs to, "-dirty" if anything was changed."""
    here = Path(__file__).resolve()
    # An installed rsir may lie inside another project's checkout, whose commit says nothing.
    for command in (
        ["ls-files", "--error-unmatch", rsir.__file__],
        ["describe", "--always", "--dirty"],
    ):
        try:
            done = subprocess.run(
                ["git", *command], cwd=here.parent, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
    return done.stdout.strip()


@functools.cache
def _named(weights: str) -> str:
    """Weights by what is in the file, so that it may lie anywhere."""
    file = Path(weights)
    return f"{file.name} {file_sha256(file)[:16]}" if file.is_file() else weights


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}); delete it") from error
    return found


def _write(file: Path, values: Mapping[str, Any]) -> None:
    """Write JSON; the file appears whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(file)
