"""One experiment: image sets, splits, trained runs and results, each made once and reused."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rsir.cost.count import cost
from rsir.data import splits
from rsir.data.catalog import entries as catalog
from rsir.data.folder import LabelledSet
from rsir.data.splits import Split
from rsir.errors import DataError, RsirError, UsageError
from rsir.evaluation.evaluate import evaluate
from rsir.methods import method_type
from rsir.models.adapt import adapt_to
from rsir.models.encoder import Encoder
from rsir.models.model import Model, build_model
from rsir.reproduce import stored
from rsir.reproduce.conditions import Conditions
from rsir.reproduce.image_sets import ImageSets
from rsir.reproduce.provenance import (
    PROVENANCE_KEYS,
    is_old,
    machine_text,
    provenance,
    weights_name,
)
from rsir.reproduce.table import TableColumn, TableRow
from rsir.training.settings import TrainingSettings, resolve_settings
from rsir.training.train import train

ReportLine = Callable[[str], None]
"""Called with a line of text about the progress."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk."""
COUNTED_COSTS = ("parameters", "multiply_adds")
"""Costs that do not depend on the machine."""


@dataclass(frozen=True)
class Training:
    """One model to train; equal trainings run once.

    options: all options of the method, sorted by name. share: share of each class to train on.
    start: the training whose weights this training starts from; `weights` then belongs to `start`.
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
class Evaluation:
    """One evaluation of a trained model; equal evaluations are measured once."""

    training: Training
    search: str
    unseen: str | None
    ranking: str | None


class Experiment:
    """The image sets, splits, runs and results of a table.

    conditions: with a backbone. quick: use few images. report: receives lines of progress.
    results: JSON values of every evaluation so far. splits: every split so far, by set, labels,
    share and seed. timed_on: descriptions of the machines that timed costs.
    """

    def __init__(
        self, data_root: Path, out: Path, conditions: Conditions, *, quick: bool, report: ReportLine
    ) -> None:
        self.sets = ImageSets(data_root, quick=quick)
        self.runs = out / "runs"
        self.conditions = conditions
        self.quick = quick
        self.report = report
        self.results: dict[Evaluation, dict[str, Any]] = {}
        self.splits: dict[tuple[str, bool, float, int], Split] = {}
        self.timed_on: set[str] = set()
        self._failed: dict[Training, str] = {}

    def split(self, data: str, labels: bool, share: float, seed: int) -> Split:
        """The split of a set for a share to train on and a seed; all rows use it."""
        key = (data, labels, share, seed)
        if key not in self.splits:
            validation = self.conditions.validation
            images = self.sets.get(data, multi_label=labels)
            self.splits[key] = splits.make(images, train=share, val=validation, seed=seed)
        return self.splits[key]

    def split_of(self, training: Training) -> Split:
        """The split of a training."""
        return self.split(training.data, training.labels, training.share, training.settings.seed)

    def values(self, row: TableRow, column: TableColumn) -> dict[str, Any]:
        """Settings and options by name: those of the conditions, overridden by those of the table.

        In a quick version, the conditions override the table.
        """
        shared, own = self.conditions.values(), row.settings_for(column)
        if row.backbone:
            own["backbone"] = row.backbone
        if not self.quick:
            return {**shared, **own}
        epochs = min(own.get("epochs", shared["epochs"]), shared["epochs"])
        return {**own, **shared, "epochs": epochs}

    def training(self, row: TableRow, column: TableColumn, seed: int) -> Training:
        """The training of a cell. Raises UsageError for settings that the method does not have."""
        assert row.method is not None
        training = self._training(row.method, self.values(row, column), column, seed)
        start = self.conditions.start
        if start is None:
            return training
        values = {**self.conditions.values(), **start.settings}
        first = self._training(start.method, values, column, seed)
        return dataclasses.replace(training, start=first, weights=first.weights)

    def _training(
        self, method: str, values: dict[str, Any], column: TableColumn, seed: int
    ) -> Training:
        if column.data is None:
            raise UsageError("the table names no set to train on")
        values = {**values, "seed": seed}
        values.pop("ranking", None)  # belongs to the evaluation, not to the training
        backbone, weights = values.pop("backbone"), values.pop("weights")
        kind = method_type(method)
        options, settings = resolve_settings(kind, values)
        all_options = dataclasses.asdict(kind.options_type(**options))
        return Training(
            method=method,
            backbone=backbone,
            weights=weights,
            options=tuple(sorted(all_options.items())),
            settings=settings,
            data=column.data,
            labels=column.labels,
            share=1.0 if column.train is None else column.train,
        )

    def evaluation(self, row: TableRow, column: TableColumn, seed: int) -> Evaluation:
        """The evaluation of a cell.

        Raises DataError if a set is missing or cannot be split, and UsageError as `training` does.
        """
        training = self.training(row, column, seed)
        self.split_of(training)
        if column.unseen is not None:
            self.sets.get(column.unseen, multi_label=False)
        ranking = row.settings_for(column).get("ranking")
        return Evaluation(training, column.search, column.unseen, ranking)

    def run_folder(self, training: Training) -> Path:
        """The folder of a training's run; its name depends on the configuration and the split."""
        config = {
            **dataclasses.asdict(training),
            "weights": weights_name(training.weights),
            "split": self.split_of(training).hash,
        }
        del config["settings"]["workers"], config["start"]
        if training.start is not None:
            config["start"] = self.run_folder(training.start).name
        readable = f"{training.method}-{training.data}-seed{training.settings.seed}"
        return self.runs / self._name(readable, config)

    def measure(self, evaluation: Evaluation, column: TableColumn, label: str) -> float:
        """The column's measure, from a stored result or from a new training and evaluation."""
        assert column.measure is not None
        run = self.run_folder(evaluation.training)
        parts = (evaluation.search, evaluation.unseen, evaluation.ranking)
        file = run.with_name(".".join([run.name, *filter(None, parts), "json"]))
        if evaluation not in self.results:
            result = stored.read_evaluation(file)
            # Another rsir may give other values, and an evaluation is cheap beside a training.
            if result is None or (
                is_old(result["evaluated"])
                and (self._is_complete(run) or _value(result, column) is None)
            ):
                result = self._evaluated(evaluation, self._trained(evaluation.training, run, label))
                stored.write(file, result)
            self.results[evaluation] = result
        value = _value(self.results[evaluation], column)
        if value is None and column.measure in self.results[evaluation]["metrics"]:
            raise DataError("no query has this class")
        if value is None:
            raise UsageError(f"rsir does not measure {column.measure} with this ranking")
        return value

    def _trained(self, training: Training, run: Path, label: str) -> Path:
        """Train if necessary; the folder of the complete run. A failed training is not repeated."""
        if training in self._failed:
            raise UsageError(self._failed[training])
        # The run's name depends on its configuration and the contents of the images.
        if self._is_complete(run):
            return run
        origin = run.with_name(f"{run.name}.origin.json")
        if not origin.exists():
            stored.write(origin, provenance())
        try:
            return train(
                training.method,
                self.split_of(training),
                self.sets.get(training.data, multi_label=training.labels).root,
                run,
                backbone=training.backbone,
                weights=self._weights(training, label),
                options=dict(training.options),
                settings=training.settings,
                on_epoch=lambda line: self.report(f"{label} · {line}"),
            )
        except (RsirError, OSError, torch.OutOfMemoryError) as error:
            self._failed[training] = reason_of(error)
            raise

    def _weights(self, training: Training, label: str) -> str | Path:
        """The weights that a training starts from; trains the model that they come from, if any."""
        if training.start is None:
            return training.weights
        run = self.run_folder(training.start)
        return self._trained(training.start, run, f"{label} · start") / "model.safetensors"

    def _is_complete(self, run: Path) -> bool:
        return bool((stored.read(run / "run.json") or {}).get("complete"))

    def _evaluated(self, evaluation: Evaluation, run: Path) -> dict[str, Any]:
        """The result of evaluating a complete run, as JSON values."""
        encoder = Encoder.load(run)
        queries, gallery = self._searched(evaluation)
        with tempfile.TemporaryDirectory() as scratch:
            if evaluation.unseen is not None and encoder.module.learner() is not None:
                encoder = adapt_to(encoder, queries.files, Path(scratch) / "adapted")[0]
            report = evaluate(encoder, queries, gallery, ranking=evaluation.ranking)
        values = report.to_dict()
        del values["curves"], values["definitions"]
        origin = stored.read(run.with_name(f"{run.name}.origin.json"), PROVENANCE_KEYS)
        return {**values, "trained": origin, "evaluated": provenance()}

    def _searched(self, evaluation: Evaluation) -> tuple[LabelledSet, LabelledSet | None]:
        """Queries and gallery; the gallery is None if each query searches the other queries."""
        if evaluation.unseen is not None:
            return self.sets.get(evaluation.unseen, multi_label=False), None
        split, training = self.split_of(evaluation.training), evaluation.training
        root = self.sets.get(training.data, multi_label=training.labels).root
        queries = split.labelled(root, "test")
        if evaluation.search == "query-gallery":
            return queries, split.labelled(root, "train", "val")
        return queries, None

    def cost(self, row: TableRow, column: TableColumn) -> float:
        """A cost of a row's model for the column's set; training does not change it.

        It needs no images: if the set is missing, the catalogue gives its numbers.
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
        is_counted = column.measure in COUNTED_COSTS
        if not is_counted:
            config["gallery"] = _searched_count(column)
        file = self.runs / f"{self._name('cost-' + row.method, config)}.json"
        result = stored.read(file, (column.measure, *([] if is_counted else ["measured"])))
        if result is None:
            model = build_model(
                row.method,
                backbone=backbone,
                spec=settings.image_size,
                classes=tuple(str(number) for number in range(config["classes"])),
                options=options,
            )
            result = {**config, **(_counted(model) if is_counted else self._timed(model, config))}
            stored.write(file, result)
        if not is_counted:
            self.timed_on.add(machine_text(result["measured"]))
        return float(result[column.measure])

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

    def _class_count(self, column: TableColumn) -> int:
        if column.data is None:
            return 1
        try:
            return len(self.sets.get(column.data, multi_label=column.labels).classes)
        except DataError:
            return catalog.get(column.data).class_count

    def _name(self, prefix: str, config: Mapping[str, Any]) -> str:
        """A file name that depends on the configuration."""
        canonical = json.dumps(config, sort_keys=True, default=str)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
        return f"{'quick-' if self.quick else ''}{prefix}-{digest}"


def _value(result: Mapping[str, Any], column: TableColumn) -> float | None:
    """The column's measure, over all queries or those of its class; None if the result lacks it."""
    metrics = result["metrics"]
    if column.class_name is not None:
        entry = catalog.get(column.unseen or column.data or "")
        by_class = {catalog.find_class(entry, c): m for c, m in result["per_class"].items()}
        metrics = by_class.get(column.class_name, {})
    value = metrics.get(column.measure)
    return None if value is None else float(value)


def _searched_count(column: TableColumn) -> int:
    """The number of images that a query searches, by the catalogue."""
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


def reason_of(error: Exception) -> str:
    """Why a cell failed, in one line. If the disk is full, raises `error` again."""
    if isinstance(error, OSError):
        if error.errno in DISK_FULL:
            raise error
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    return (str(error) or type(error).__name__).splitlines()[0]
