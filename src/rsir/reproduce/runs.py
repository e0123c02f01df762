"""The runs that answer a paper's table: trained and measured alike, taken up where they were."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsir.cost.count import cost
from rsir.data import folder, splits
from rsir.data.catalog import entries as catalog
from rsir.data.catalog.locate import locate
from rsir.data.folder import LabelledSet
from rsir.data.splits import Split
from rsir.errors import DataError, RsirError, UsageError
from rsir.evaluation.evaluate import evaluate
from rsir.figures.style import needed
from rsir.methods import method_type
from rsir.models.adapt import adapt_to
from rsir.models.encoder import Encoder
from rsir.models.encoder import load as load_encoder
from rsir.models.model import Model, build_model
from rsir.nn.backbone import Backbone
from rsir.reproduce.conditions import QUICK, QUICK_CLASSES, QUICK_IMAGES, Conditions, described
from rsir.reproduce.provenance import KNOWN, is_old, machine, named, provenance
from rsir.reproduce.side_by_side import ALSO, COSTS, Also, Cell, Comparison, Missing, in_unit
from rsir.reproduce.table import Column, PaperTable, Row, load, no_method
from rsir.training.settings import TrainingSettings, configure
from rsir.training.train import train

log = logging.getLogger("rsir")

Say = Callable[[str], None]
Place = tuple[str, str]
"""The names of a cell's row and column."""

LABEL_TABLES = ("LandUse_Multilabeled.txt", "labels.csv", "labels.txt")
"""Tables of labels, looked for beside the images or up to two folders above: UC Merced's as its
authors named it (Chaudhuri et al. 2018), or one that was made by hand."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Of these nothing can be written any more."""
COUNTED = ("parameters", "multiply_adds")
"""Costs that do not depend on the machine."""


@dataclass(frozen=True)
class Training:
    """One model to train: what is equal here is trained once."""

    method: str
    backbone: str
    weights: str
    options: tuple[tuple[str, Any], ...]
    settings: TrainingSettings
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

    What fails is said in `Comparison.missing`, and the rest goes on; but a full disk ends it with
    the OSError. Raises UsageError for an unknown table or method, conditions that nothing could be
    trained under or that `quick` would drop, an `out` that cannot be written; DataError if
    `data_root` is no folder, MissingExtraError if the table could not be drawn in the end.
    """
    needed()
    if isinstance(table, str):
        table = load(table)
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"seeds must be one or more different numbers, not {list(seeds)}")
    if not Path(data_root).is_dir():
        raise DataError(f"{data_root}: no such folder; give the one that the image sets lie in")
    if quick and conditions is not None:
        raise UsageError(
            "a quick version has conditions of its own: leave out --quick, or --backbone, "
            "--weights, --size, --epochs and -s"
        )
    rows = _chosen(table, methods)
    conditions = QUICK if quick else conditions or Conditions()
    if conditions.backbone is None:
        conditions = dataclasses.replace(conditions, backbone=table.backbone or "resnet50")
    _check(conditions, rows)
    _check_writable(Path(out))
    bench = Experiment(Path(data_root), Path(out), conditions, quick=quick, say=on_line or log.info)

    plans: dict[Place, dict[int, Question]] = {}
    ours: dict[Place, list[float]] = {}
    missing: list[Missing] = []
    for row in rows:
        if reason := no_method(row):
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
            except (RsirError, OSError) as error:
                missing.append(Missing(*place, reason_of(error)))

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
            except (RsirError, OSError, torch.OutOfMemoryError) as error:
                failed[place] = reason_of(error)
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
        also=tuple(_also(bench, rows, columns, plans)),
    )


def reason_of(error: Exception) -> str:
    """What is said of a cell that failed, one line. Raises an error of a full disk again."""
    if isinstance(error, OSError):
        if error.errno in FULL:
            raise error
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    return (str(error) or type(error).__name__).splitlines()[0]


def _check(conditions: Conditions, rows: Sequence[Row]) -> None:
    """UsageError for shared settings that no method of the rows takes; some may be of one alone."""
    values = conditions.values()
    del values["backbone"], values["weights"]
    refused: UsageError | None = None
    for method in dict.fromkeys(row.method for row in rows if row.method and not no_method(row)):
        try:
            configure(method_type(method), values)
        except UsageError as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


def _check_writable(out: Path) -> None:
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out / "runs"):
            pass
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written to ({error.strerror or error}); give another folder"
        ) from error


def _also(
    bench: Experiment,
    rows: Sequence[Row],
    columns: Mapping[str, Column],
    plans: Mapping[Place, Mapping[int, Question]],
) -> list[Also]:
    """`ALSO` of every evaluation that there is, row by row; a value for each of its seeds."""
    found: dict[tuple[str, str, str], dict[Question, float]] = {}
    for (row, name), planned in plans.items():
        for question in planned.values():
            metrics = bench.results.get(question, {}).get("metrics", {})
            for key in ALSO:
                if metrics.get(key) is not None:
                    place = (row, _in_words(columns[name]), key)
                    found.setdefault(place, {})[question] = float(metrics[key])
    return [Also(*place, tuple(values.values())) for place, values in found.items()]


def _in_words(column: Column) -> str:
    """What a column searches, whatever it measures."""
    parts = [
        f"{column.data} labels" if column.labels else column.data or "",
        *([] if column.train is None else [f"{column.train:g} trained on"]),
        f"{column.unseen} searched unseen" if column.unseen else column.search,
        *(f"{name} {value}" for name, value in column.settings.items()),
    ]
    return ", ".join(parts)


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


class Experiment:
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
        """TrainingSettings and options, flat: the shared ones, then what the table asks for."""
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
            "weights": named(training.weights),
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
            result = _read_result(file)
            # Other evaluations have other measures, or errors; only a training is costly.
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
        """The complete run; what has failed once is not tried again."""
        if training in self._failed:
            raise UsageError(self._failed[training])
        # Its name stands for its configuration and the images' contents: nothing to compare.
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
                weights=training.weights,
                options=dict(training.options),
                settings=training.settings,
                on_epoch=lambda line: self.say(f"{label} · {line}"),
            )
        except (RsirError, OSError, torch.OutOfMemoryError) as error:
            self._failed[training] = reason_of(error)
            raise

    def _is_complete(self, run: Path) -> bool:
        return bool((_read(run / "run.json") or {}).get("complete"))

    def _evaluate(self, question: Question, run: Path) -> dict[str, Any]:
        """The result of one evaluation of a complete run, as plain JSON values."""
        encoder = load_encoder(run)
        queries, gallery = self._searched(question)
        with tempfile.TemporaryDirectory() as place:
            if question.unseen is not None and encoder.module.learner() is not None:
                encoder = adapt_to(encoder, queries.files, Path(place) / "adapted")[0]
            report = evaluate(encoder, queries, gallery, ranking=question.ranking)
        plain = report.to_dict()
        del plain["curves"], plain["definitions"]
        origin = _read(run.with_name(f"{run.name}.origin.json"), KNOWN)
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


def _searched_count(column: Column) -> int:
    """How many images are searched, by the catalogue's number of images."""
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
    """An evaluation that was kept; None if there is none. DataError if it is not whole."""
    found = _read(file, ("metrics", "per_class", "protocol", "ranking", "trained", "evaluated"))
    if found is None:
        return None
    origins = [found["evaluated"], *([] if found["trained"] is None else [found["trained"]])]
    if not (found["metrics"] and isinstance(found["metrics"], dict)):
        raise _damaged(file, "it has no metrics")
    if not all(isinstance(made, dict) and made.keys() >= set(KNOWN) for made in origins):
        raise _damaged(file, "it does not say what made it")
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
        raise _damaged(file, "it is no JSON object")
    if lacking := [key for key in keys if key not in found]:
        raise _damaged(file, f"it has no {', '.join(lacking)}")
    return found


def _write(file: Path, values: Mapping[str, Any]) -> None:
    """Write JSON; the file appears whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(file)
