"""One experiment: image sets, splits, trained runs and results, each made once and then reused."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsir import atomic
from rsir.cost.count import cost
from rsir.data import folder, splits
from rsir.data.catalog import entries as catalog
from rsir.data.catalog.locate import locate
from rsir.data.folder import LabelledSet
from rsir.data.splits import Split
from rsir.errors import DataError, RsirError, UsageError
from rsir.evaluation.evaluate import evaluate
from rsir.methods import method_type
from rsir.models.adapt import adapt_to
from rsir.models.encoder import Encoder
from rsir.models.model import Model, build_model
from rsir.reproduce.conditions import QUICK_CLASSES, QUICK_IMAGES, Conditions
from rsir.reproduce.provenance import KNOWN, is_old, machine, named, provenance
from rsir.reproduce.table import Column, Row
from rsir.training.settings import TrainingSettings, resolve_settings
from rsir.training.train import train

Say = Callable[[str], None]

LABEL_TABLES = ("LandUse_Multilabeled.txt", "labels.csv", "labels.txt")
"""Names of multi-label tables, searched beside the images and up to two folders above: UC Merced's
table as its authors named it (Chaudhuri et al. 2018), or one made by hand."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk, after which nothing can be written."""
COUNTED = ("parameters", "multiply_adds")
"""Costs that do not depend on the machine."""


@dataclass(frozen=True)
class Training:
    """One model to train; equal trainings run once.

    options: all options of the method, sorted by name. share: of each class to train on.
    start: the training whose weights this one starts from; `weights` is then of that one.
    """

    method: str
    backbone: str
    weights: str
    options: tuple[tuple[str, Any], ...]
    settings: TrainingSettings
    data: str
    labels: bool
    share: float
    start: Training | None = None


@dataclass(frozen=True)
class Question:
    """One evaluation of a trained model; equal questions are measured once."""

    training: Training
    search: str
    unseen: str | None
    ranking: str | None


class Experiment:
    """The image sets, splits, runs and results of a table.

    conditions: with a backbone. quick: use few images. say: receives lines of progress.
    results: every evaluation so far, as plain JSON values. splits: every split so far, by set,
    labels, share and seed. timed_on: the machines on which costs were timed, in words.
    """

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
        """The set of that name below the data root; in a quick version, a few of its images.

        Raises DataError if the set is not there.
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
        directory = locate(entry, self.data_root)
        if not labels:
            return folder.load(directory)
        near = (directory, *directory.parents[:2])
        above = [path for path in near if path.is_relative_to(self.data_root)]
        tables = [p / name for p in above for name in LABEL_TABLES if (p / name).is_file()]
        if not tables:
            raise DataError(
                f"{directory}: no table of labels for {entry.title}; put {LABEL_TABLES[0]} "
                f"or {LABEL_TABLES[1]} there (image name, then 0 or 1 for each label)"
            )
        return folder.load(directory, labels=tables[0])

    def split(self, data: str, labels: bool, share: float, seed: int) -> Split:
        """The split of a set that all rows share, for a share to train on and a seed."""
        key = (data, labels, share, seed)
        if key not in self.splits:
            validation = self.conditions.validation
            images = self.images(data, labels)
            self.splits[key] = splits.make(images, train=share, val=validation, seed=seed)
        return self.splits[key]

    def split_of(self, training: Training) -> Split:
        """The split that a training uses."""
        return self.split(training.data, training.labels, training.share, training.settings.seed)

    def values(self, row: Row, column: Column) -> dict[str, Any]:
        """Settings and options by name: the shared ones, overridden by those of the table."""
        shared, own = self.conditions.values(), row.settings_for(column)
        if row.backbone:
            own["backbone"] = row.backbone
        if not self.quick:
            return {**shared, **own}
        epochs = min(own.get("epochs", shared["epochs"]), shared["epochs"])
        return {**own, **shared, "epochs": epochs}

    def training(self, row: Row, column: Column, seed: int) -> Training:
        """The training of a cell. Raises UsageError for settings that the method does not have."""
        assert row.method is not None
        training = self._training(row.method, self.values(row, column), column, seed)
        start = self.conditions.start
        if start is None:
            return training
        values = {**self.conditions.values(), **start.settings}
        first = self._training(start.method, values, column, seed)
        return dataclasses.replace(training, start=first, weights=first.weights)

    def _training(self, method: str, values: dict[str, Any], column: Column, seed: int) -> Training:
        if column.data is None:
            raise UsageError("the table does not say on which set the model is trained")
        values = {**values, "seed": seed}
        values.pop("ranking", None)  # of an evaluation; it needs no training of its own
        backbone, weights = values.pop("backbone"), values.pop("weights")
        kind = method_type(method)
        options, settings = resolve_settings(kind, values)
        whole = dataclasses.asdict(kind.options_type(**options))
        return Training(
            method=method,
            backbone=backbone,
            weights=weights,
            options=tuple(sorted(whole.items())),
            settings=settings,
            data=column.data,
            labels=column.labels,
            share=1.0 if column.train is None else column.train,
        )

    def question(self, row: Row, column: Column, seed: int) -> Question:
        """The evaluation of a cell.

        Raises DataError if a set is missing or cannot be split, UsageError like `training`.
        """
        training = self.training(row, column, seed)
        self.split_of(training)
        if column.unseen is not None:
            self.images(column.unseen, False)
        ranking = row.settings_for(column).get("ranking")
        return Question(training, column.search, column.unseen, ranking)

    def run_of(self, training: Training) -> Path:
        """The folder of a training's run, different for each configuration and split."""
        config = {
            **dataclasses.asdict(training),
            "weights": named(training.weights),
            "split": self.split_of(training).hash,
        }
        del config["settings"]["workers"], config["start"]
        if training.start is not None:
            config["start"] = self.run_of(training.start).name
        readable = f"{training.method}-{training.data}-seed{training.settings.seed}"
        return self.runs / self._name(readable, config)

    def measure(self, question: Question, column: Column, label: str) -> float:
        """The column's measure, from a stored result, or by training and evaluating."""
        assert column.measure is not None
        run = self.run_of(question.training)
        parts = (question.search, question.unseen, question.ranking)
        file = run.with_name(".".join([run.name, *filter(None, parts), "json"]))
        if question not in self.results:
            result = _read_result(file)
            # Another rsir may measure otherwise, and an evaluation is cheap beside a training.
            if result is None or (
                is_old(result["evaluated"])
                and (self._is_complete(run) or _value(result, column) is None)
            ):
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
        """The complete run of a training. A training that failed once is not tried again."""
        if training in self._failed:
            raise UsageError(self._failed[training])
        # The name of the run stands for its configuration and the images' contents.
        if self._is_complete(run):
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
                weights=self._weights(training, label),
                options=dict(training.options),
                settings=training.settings,
                on_epoch=lambda line: self.say(f"{label} · {line}"),
            )
        except (RsirError, OSError, torch.OutOfMemoryError) as error:
            self._failed[training] = reason_of(error)
            raise

    def _weights(self, training: Training, label: str) -> str | Path:
        """Where the weights that a training starts from are, trained first if need be."""
        if training.start is None:
            return training.weights
        first = self.run_of(training.start)
        return self._trained(training.start, first, f"{label} · start") / "model.safetensors"

    def _is_complete(self, run: Path) -> bool:
        return bool((_read(run / "run.json") or {}).get("complete"))

    def _evaluate(self, question: Question, run: Path) -> dict[str, Any]:
        """The result of one evaluation of a complete run, as plain JSON values."""
        encoder = Encoder.load(run)
        queries, gallery = self._searched(question)
        with tempfile.TemporaryDirectory() as scratch:
            if question.unseen is not None and encoder.module.learner() is not None:
                encoder = adapt_to(encoder, queries.files, Path(scratch) / "adapted")[0]
            report = evaluate(encoder, queries, gallery, ranking=question.ranking)
        plain = report.to_dict()
        del plain["curves"], plain["definitions"]
        origin = _read(run.with_name(f"{run.name}.origin.json"), KNOWN)
        return {**plain, "trained": origin, "evaluated": provenance()}

    def _searched(self, question: Question) -> tuple[LabelledSet, LabelledSet | None]:
        """Queries and gallery; the gallery is None if each query searches the other queries."""
        if question.unseen is not None:
            return self.images(question.unseen, False), None
        split, training = self.split_of(question.training), question.training
        root = self.images(training.data, training.labels).root
        queries = split.labelled(root, "test")
        if question.search == "query-gallery":
            return queries, split.labelled(root, "train", "val")
        return queries, None

    def cost(self, row: Row, column: Column) -> float:
        """A cost of a row's network, built for the column's set; training does not change it.

        No images are needed: if the set is missing, the catalogue gives its numbers.
        """
        assert row.method is not None
        assert column.measure is not None
        values = self.values(row, column)
        backbone, _ = values.pop("backbone"), values.pop("weights")
        options, settings = resolve_settings(method_type(row.method), values)
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
        found = _read(file, (column.measure, *([] if counts else ["measured"])))
        if found is None:
            model = build_model(
                row.method,
                backbone=backbone,
                spec=settings.image_size,
                classes=tuple(str(number) for number in range(config["classes"])),
                options=options,
            )
            found = {**config, **(_counted(model) if counts else self._timed(model, config))}
            _write(file, found)
        if not counts:
            self.timed_on.add(machine(found["measured"]))
        return float(found[column.measure])

    def _timed(self, model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
        from rsir.cost import timing

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
        """A file name that is different for each configuration."""
        canonical = json.dumps(config, sort_keys=True, default=str)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
        return f"{'quick-' if self.quick else ''}{prefix}-{digest}"


def few(images: LabelledSet) -> LabelledSet:
    """The few images of a quick version.

    For classes: the first classes, with equally many images of each. For labels: as many images,
    spread evenly over the set, with the labels that several of them have.
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
    """The column's measure in a result, over all queries or those of its class; None if absent."""
    found = result["metrics"]
    if column.class_name is not None:
        entry = catalog.get(column.unseen or column.data or "")
        named = {catalog.find_class(entry, c): values for c, values in result["per_class"].items()}
        found = named.get(column.class_name, {})
    value = found.get(column.measure)
    return None if value is None else float(value)


def _searched_count(column: Column) -> int:
    """How many images a query searches, from the catalogue's numbers."""
    from rsir.cost.timing import GALLERY

    if column.unseen is not None:
        return catalog.get(column.unseen).images
    if column.data is None or column.train is None:
        return GALLERY
    share = column.train if column.search == "query-gallery" else 1 - column.train
    return max(1, round(share * catalog.get(column.data).images))


def _counted(model: Model) -> dict[str, Any]:
    counted = cost(model)
    return {"parameters": counted.parameters, "multiply_adds": counted.multiply_adds}


def _read_result(file: Path) -> dict[str, Any] | None:
    """A stored evaluation, or None without a file. DataError if it is not whole."""
    found = _read(file, ("metrics", "per_class", "protocol", "ranking", "trained", "evaluated"))
    if found is None:
        return None
    origins = [found["evaluated"], *([] if found["trained"] is None else [found["trained"]])]
    if not (found["metrics"] and isinstance(found["metrics"], dict)):
        raise _damaged(file, "it has no metrics")
    if not all(isinstance(made, dict) and made.keys() >= set(KNOWN) for made in origins):
        raise _damaged(file, "it does not say which rsir and machine made it")
    return found


def _damaged(file: Path, what: object) -> DataError:
    return DataError(f"{file} is damaged ({what}); delete it")


def _read(file: Path, keys: Collection[str] = ()) -> dict[str, Any] | None:
    """A JSON object with at least these keys; None without a file. DataError if it is damaged."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(file, error) from error
    if not isinstance(found, dict):
        raise _damaged(file, "it is not a JSON object")
    if lacking := [key for key in keys if key not in found]:
        raise _damaged(file, f"it has no {', '.join(lacking)}")
    return found


def _write(file: Path, values: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(file, values)


def reason_of(error: Exception) -> str:
    """Why a cell failed, in one line. Raises the error of a full disk again."""
    if isinstance(error, OSError):
        if error.errno in FULL:
            raise error
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    return (str(error) or type(error).__name__).splitlines()[0]
