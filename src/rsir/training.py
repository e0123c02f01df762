"""The one trainer for all methods, on Lightning."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rsir import model as models
from rsir.data.folder import LabelledSet
from rsir.data.loading import Images
from rsir.data.samplers import EpochSampler, PairSampler, PKSampler, ShuffleSampler
from rsir.data.splits import Split
from rsir.data.transforms import Augmentation, InputSpec
from rsir.errors import DataError, UsageError
from rsir.evaluate import score_queries
from rsir.methods.base import Method
from rsir.model import Model

log = logging.getLogger("rsir")

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("cosine", "step", "constant")
SAMPLERS = ("pk", "pairs", "shuffle")
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Settings:
    """How a method is trained. The defaults are our choice, found on UCM; methods override them.

    epochs: 0 keeps the starting weights (the untrained baseline).
    batch_size, per_class: batches of P·K images, K = per_class of each class ("pk" sampler).
    sampler: "pk", "pairs" (half of the pairs similar) or "shuffle".
    optimizer: "adamw", "adam" or "sgd" (with `momentum`).
    lr, head_lr: learning rate of the backbone, and of what the method puts on it, which starts
    from nothing and so learns faster. warmup_epochs: both rise linearly from 0.
    schedule: "cosine" to 0, "step" (×0.1 at one half and at three quarters), or "constant".
    min_area, flips, quarter_turns: the random views, `rsir.data.transforms.Augmentation`.
    image_size: H = W in pixels. precision: "32", "bf16", "16", or "auto" (bf16 on a GPU that has
    it, else 32). validation: share of the training part kept for choosing the best epoch; 0
    keeps the last epoch. patience: stop after so many epochs without a better one; 0 never.
    workers: processes that read images.
    """

    epochs: int = 20
    batch_size: int = 80
    per_class: int = 4
    sampler: str = "pk"
    optimizer: str = "adamw"
    lr: float = 3e-4
    head_lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    min_area: float = 0.5
    flips: bool = True
    quarter_turns: bool = True
    image_size: int = 224
    precision: str = "auto"
    validation: float = 0.1
    patience: int = 0
    seed: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        for name, allowed in (
            ("sampler", SAMPLERS),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", ("auto", *PRECISIONS)),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name}={getattr(self, name)!r}: take one of {', '.join(allowed)}"
                )
        least = {"epochs": 0, "batch_size": 2, "per_class": 1, "image_size": 8, "patience": 0}
        least |= {"workers": 0, "lr": 0, "head_lr": 0, "weight_decay": 0, "warmup_epochs": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise UsageError(f"{name} must be at least {value}, not {getattr(self, name)}")
        if not 0 <= self.validation < 1:
            raise UsageError(f"validation must be in [0, 1), not {self.validation}")
        if self.patience and not self.validation:
            raise UsageError("patience needs a validation share: set validation above 0")


def configure(kind: type[Method], values: Mapping[str, Any]) -> tuple[dict[str, Any], Settings]:
    """The method's options and the Settings out of one flat set of named values.

    Settings start from the trainer's defaults, then the method's own (`Method.settings`), then
    `values`. Raises UsageError for a name that neither has, or a value of another type.
    """
    options = {f.name: f for f in dataclasses.fields(kind.options_type)}
    settings = {f.name: f for f in dataclasses.fields(Settings)}
    unknown = sorted(values.keys() - options.keys() - settings.keys())
    if unknown:
        raise UsageError(
            f"there is no {', '.join(unknown)}; the method has: {', '.join(options)}; "
            f"the trainer has: {', '.join(settings)}"
        )
    for name, value in values.items():
        default = (options.get(name) or settings[name]).default
        wanted = (int, float) if type(default) is float else (type(default),)
        if type(value) not in wanted:
            raise UsageError(f"{name}={value!r}: it must be a {wanted[-1].__name__}")
    return (
        {name: value for name, value in values.items() if name in options},
        Settings(**{**kind.settings, **{k: v for k, v in values.items() if k in settings}}),
    )


def train(
    method: str,
    split: Split,
    root: str | Path,
    out: str | Path,
    *,
    backbone: str,
    weights: str | Path = "none",
    options: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    on_epoch: Callable[[str], None] | None = None,
    progress: bool = False,
) -> Path:
    """Train `method` on the split's training part and save the best epoch; returns `out`.

    split: what to train on; its "val" part, if it has one, chooses the best epoch by whole-ranking
    mAP (leave-one-out); its "test" part is never read. root: folder of the images.
    out: the run's folder: model.safetensors, model.json, split.csv, log.csv (a row per epoch),
    run.json, checkpoints/. If it holds an interrupted run of the same configuration, that run is
    taken up where its last whole epoch ended; if the run is complete, nothing is done; if the
    configuration differs, UsageError says in what.
    on_epoch: called with a line of text after each epoch. progress: show a bar.

    The same arguments give the same weights, also with other `workers`, and, up to floating
    point, after an interruption.
    """
    settings = settings or Settings()
    out = Path(out)
    train_set, val_set = split.labelled(root, "train"), split.labelled(root, "val")
    if len(train_set) == 0:
        raise DataError("the split has no training images")
    config = {
        "method": method,
        "backbone": backbone,
        "weights": str(weights),
        "options": dict(options or {}),
        "settings": dataclasses.asdict(settings),
        "data": Path(root).name,
        "split_hash": split.hash,
    }
    if _state_of(out, config) == "complete":
        log.info("%s is complete already", out)
        return out
    _write_json(out / "run.json", {**config, "complete": False})
    split.write(out / "split.csv")

    torch.manual_seed(settings.seed)
    model = models.build(
        method,
        backbone=backbone,
        spec=settings.image_size,
        classes=train_set.classes,
        options=options,
        weights=weights,
    )
    started = time.perf_counter()
    chosen: dict[str, Any] = {"chosen": "the starting weights"}
    if settings.epochs:
        chosen = _fit(model, train_set, val_set, settings, out, on_epoch, progress)
    trained = dataclasses.replace(
        model,
        training={
            **config,
            "weights": Path(weights).name,
            "train_images": len(train_set),
            "val_images": len(val_set),
            **chosen,
            "seconds": round(time.perf_counter() - started, 1),
            "torch": torch.__version__,
        },
    )
    trained.save(out)
    _write_json(out / "run.json", {**config, "complete": True})
    return out


def _state_of(out: Path, config: Mapping[str, Any]) -> str:
    """What `out` holds: "new", "interrupted" or "complete"; UsageError for another run."""
    file = out / "run.json"
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is not empty and holds no run; choose another folder")
        return "new"
    try:
        earlier = json.loads(file.read_text("utf-8"))
        complete = bool(earlier.pop("complete"))
    except (ValueError, KeyError, AttributeError) as error:
        raise UsageError(f"{file} is damaged ({error}); choose another folder") from error
    plain = json.loads(json.dumps(config))
    differing = sorted(_differences(earlier, plain))
    if differing:
        raise UsageError(
            f"{out} holds a run of another configuration (it differs in "
            f"{', '.join(differing)}); choose another folder, or delete it"
        )
    return "complete" if complete else "interrupted"


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for key in one.keys() | other.keys():
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from (f"{key}.{name}" for name in _differences(a, b))
        elif a != b and key != "workers":
            yield key


def _fit(
    model: Model,
    train_set: LabelledSet,
    val_set: LabelledSet,
    settings: Settings,
    out: Path,
    on_epoch: Callable[[str], None] | None,
    progress: bool,
) -> dict[str, Any]:
    """Train `model` in place, leave it at the chosen epoch, and say which that was."""
    sampler, batch_size = _sampler(train_set, settings)
    augmentation = Augmentation(settings.min_area, settings.flips, settings.quarter_turns)
    loader = DataLoader(
        Images(train_set, model.spec, augmentation),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=True,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
    )
    validate = len(val_set) > 1
    val_loader = DataLoader(
        Images(val_set, model.spec, None),
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
    )
    checkpoints = ModelCheckpoint(
        out / "checkpoints",
        filename="best",
        monitor="val_map" if validate else None,
        mode="max",
        save_last=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [EpochLog(out / "log.csv", on_epoch), checkpoints]
    if settings.patience:
        callbacks.append(EarlyStopping("val_map", mode="max", patience=settings.patience))
    last = out / "checkpoints" / "last.ckpt"
    run = Run(model.module, model.spec, settings, steps_per_epoch=len(loader))
    with _quiet_lightning():
        trainer = lightning.Trainer(
            max_epochs=settings.epochs,
            devices=1,
            precision=PRECISIONS[_precision(settings.precision)],  # type: ignore[arg-type]
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=out,
        )
        try:
            trainer.fit(
                run,
                loader,
                val_loader if validate else None,
                ckpt_path=last if last.exists() else None,
                weights_only=True,
            )
        except SystemExit:
            # Lightning turns Ctrl-C into sys.exit; whoever called us shall see what it was.
            raise KeyboardInterrupt from None
    best = Path(checkpoints.best_model_path)
    state = torch.load(best, map_location="cpu", weights_only=True)
    run.cpu().load_state_dict(state["state_dict"])
    epochs_run = trainer.current_epoch
    if not validate:
        return {"chosen": "the last epoch", "epochs_run": epochs_run}
    return {
        "chosen": "the epoch with the best val_map",
        "chosen_epoch": int(state["epoch"]) + 1,
        "val_map": float(checkpoints.best_model_score or math.nan),
        "epochs_run": epochs_run,
    }


class Run(lightning.LightningModule):
    """A method in training, as Lightning wants it."""

    def __init__(
        self, module: Method, spec: InputSpec, settings: Settings, *, steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.module = module.to(memory_format=torch.channels_last)
        self.spec = spec
        self.settings = settings
        self.steps_per_epoch = steps_per_epoch
        self.validated: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Any:
        """The method's Output for (B, bands, H, W) uint8 images."""
        batch = self.spec.normalise(images).contiguous(memory_format=torch.channels_last)
        return self.module(batch)

    def on_train_epoch_start(self) -> None:
        """Fix what is drawn inside the network (dropout) by seed and epoch: a resume repeats it."""
        torch.manual_seed(self.settings.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The method's loss."""
        images, targets = batch
        loss = self.module.loss(self(images), targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Collect the embeddings."""
        images, targets = batch
        self.validated.append((self(images).embedding.float(), targets))

    def on_validation_epoch_end(self) -> None:
        """Log whole-ranking mAP of the validation part, leave-one-out."""
        embedding, targets = (torch.cat(parts) for parts in zip(*self.validated, strict=True))
        self.validated.clear()
        own = torch.arange(len(embedding), device=embedding.device)
        scores = score_queries(
            embedding, targets, embedding, targets, ranking=self.module.ranking, own=own
        )
        self.log("val_map", float(scores["map"].mean()), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """The optimiser, and its schedule per step."""
        groups = parameter_groups(self.module, self.settings)
        decay = self.settings.weight_decay
        optimizer: torch.optim.Optimizer
        if self.settings.optimizer == "sgd":
            momentum = self.settings.momentum
            optimizer = torch.optim.SGD(groups, momentum=momentum, weight_decay=decay)
        elif self.settings.optimizer == "adam":
            optimizer = torch.optim.Adam(groups, weight_decay=decay)
        else:
            optimizer = torch.optim.AdamW(groups, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _factor(self, step: int) -> float:
        """What the learning rates are multiplied by at `step`."""
        warmup = self.settings.warmup_epochs * self.steps_per_epoch
        done = min(1.0, step / (self.settings.epochs * self.steps_per_epoch))
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if self.settings.schedule == "cosine":
            return rise * 0.5 * (1 + math.cos(math.pi * done))
        if self.settings.schedule == "step":
            return rise * 0.1 ** ((done >= 0.5) + (done >= 0.75))
        return rise


def parameter_groups(module: Method, settings: Settings) -> list[dict[str, Any]]:
    """The backbone's parameters at `lr`, the others at `head_lr`; no decay on vectors.

    Biases, batch-norm weights and scalars (p, α, β) are not decayed: decay would pull p of GeM
    and the scale of normalisations towards 0.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("backbone."), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.lr if of_backbone else settings.head_lr,
            **({} if decayed else {"weight_decay": 0.0}),
        }
        for (of_backbone, decayed), parameters in groups.items()
    ]


class EpochLog(Callback):
    """One row of a CSV file, and one line of text, per epoch."""

    COLUMNS = ("epoch", "train_loss", "val_map", "lr", "seconds")

    def __init__(self, file: Path, on_epoch: Callable[[str], None] | None) -> None:
        self.file = file
        self.on_epoch = on_epoch or log.info
        self.started = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Drop rows of epochs that an interrupted run had begun but not saved."""
        rows = []
        if self.file.exists() and trainer.current_epoch:
            with self.file.open(newline="") as opened:
                rows = list(csv.reader(opened))[1 : trainer.current_epoch + 1]
        with self.file.open("w", newline="") as opened:
            csv.writer(opened).writerows([self.COLUMNS, *rows])

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Write the row."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items()}
        row = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": values["train_loss"],
            "val_map": values.get("val_map", ""),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self.started, 1),
        }
        with self.file.open("a", newline="") as opened:
            csv.DictWriter(opened, self.COLUMNS).writerow(row)
        val = f"  val mAP {values['val_map']:.4f}" if "val_map" in values else ""
        self.on_epoch(
            f"epoch {row['epoch']}/{trainer.max_epochs}  loss {values['train_loss']:.4f}{val}"
            f"  {row['seconds']} s"
        )


def _sampler(images: LabelledSet, settings: Settings) -> tuple[EpochSampler, int]:
    """The sampler of an epoch, and the size of its batches."""
    if settings.sampler == "shuffle":
        size = min(settings.batch_size, len(images))
        return ShuffleSampler(len(images), batch_size=size, seed=settings.seed), size
    if settings.sampler == "pairs":
        pairs = PairSampler(images.targets, batch_size=settings.batch_size, seed=settings.seed)
        return pairs, min(settings.batch_size, len(pairs))
    pk = PKSampler(
        images.targets,
        batch_size=settings.batch_size,
        per_class=settings.per_class,
        seed=settings.seed,
    )
    return pk, pk.batch_size


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning without its advice: each message here is one that our users cannot act on."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",  # it counts logical CPUs; two feed two cores
            ".*is smaller than the logging interval.*",  # we log epochs, not steps
            ".*validation_step. but have no .val_dataloader.*",  # validation=0 is a choice
            "Checkpoint directory .* exists and is not empty.*",  # as it should, on a resume
            ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning's own use of torch
        ):
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            logger.setLevel(level)


def _precision(name: str) -> str:
    if name != "auto":
        return name
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32"


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file that appears whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    partial.replace(file)
