"""The training loop, on Lightning: steps, best epoch, log."""

from __future__ import annotations

import csv
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import safetensors.torch
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rsir.atomic import write_bytes
from rsir.data.folder import LabelledSet
from rsir.data.loading import Images
from rsir.data.samplers import EpochSampler, PairSampler, PKSampler, ShuffleSampler
from rsir.data.transforms import Augmentation, InputSpec
from rsir.errors import DataError, ModelError, UsageError
from rsir.evaluation.labelled_embeddings import LabelledEmbeddings
from rsir.evaluation.scoring import score_queries
from rsir.methods.base import Method
from rsir.models.model import Model
from rsir.training.checkpoints import CheckpointFiles, naming_full_disks
from rsir.training.settings import PRECISIONS, TrainingSettings

LAST = "last.ckpt"
"""The checkpoint of the last whole epoch, in the folder of checkpoints."""


def fit(
    model: Model,
    train_set: LabelledSet,
    val_set: LabelledSet,
    settings: TrainingSettings,
    folder: Path,
    log_file: Path,
    *,
    start: Callable[[], None],
    say: Callable[[str], None],
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Train `model` in place; returns the chosen epoch, whose weights the model then has.

    folder: folder of the checkpoints; training resumes from the last one, if any. start: called
    before the first epoch, once all settings are valid. say: gets a line of text per epoch.
    on_progress: called with the numbers of batches done and of all epochs.
    """
    sampler, batch_size = _sampler(train_set, settings)
    augmentation = Augmentation(
        settings.min_area, settings.flips, settings.quarter_turns, settings.jitter
    )
    loader = DataLoader(
        Images(train_set, model.spec, augmentation),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=True,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
    )
    validate = bool((val_set.counts >= 2).any())
    if len(val_set) and not validate:
        say("no two validation images have the same class: the last epoch is kept, not the best")
    if settings.patience and not validate:
        raise UsageError("patience needs a validation part with two images of one class")
    val_loader = DataLoader(
        Images(val_set, model.spec, None),
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
    )
    start()
    best = BestEpoch(folder, patience=settings.patience)
    every = ModelCheckpoint(
        folder,
        filename=Path(LAST).stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    epochs = EpochLog(log_file, say)
    training = TrainingModule(
        model.module, model.spec, settings, sampler, steps_per_epoch=len(loader)
    )
    with _quiet_lightning():
        trainer = lightning.Trainer(
            max_epochs=settings.epochs,
            devices=1,
            precision=PRECISIONS[_precision(settings.precision)],
            plugins=[CheckpointFiles()],
            callbacks=[
                epochs,
                *([best] if validate else []),
                every,
                *([] if on_progress is None else [BatchProgress(on_progress)]),
            ],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        try:
            with naming_full_disks(folder.parent):
                trainer.fit(
                    training,
                    loader,
                    val_loader if validate else None,
                    ckpt_path=folder / LAST if (folder / LAST).exists() else None,
                    weights_only=True,
                )
        except SystemExit:
            # Lightning turns Ctrl-C into SystemExit; the caller must see a KeyboardInterrupt.
            raise KeyboardInterrupt from None
    training.cpu()
    done = {"epochs_run": trainer.current_epoch, "seconds": epochs.total_seconds()}
    if not validate:
        return {"chosen": "the last epoch", **done}
    model.module.load_state_dict(safetensors.torch.load_file(best.file))
    return {
        "chosen": "the epoch with the best val_map",
        "chosen_epoch": best.epoch,
        "val_map": best.score,
        **done,
    }


class TrainingModule(lightning.LightningModule):
    """A method with its loss, validation and optimiser, as a LightningModule."""

    def __init__(
        self,
        module: Method,
        spec: InputSpec,
        settings: TrainingSettings,
        sampler: EpochSampler,
        *,
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self.module = module.to(memory_format=torch.channels_last)
        self.spec = spec
        self.settings = settings
        self.sampler = sampler
        self.steps_per_epoch = steps_per_epoch
        self.validated: list[LabelledEmbeddings] = []
        self.losses = torch.zeros(())

    def forward(self, images: Tensor) -> Any:
        """The method's Output for (B, bands, H, W) uint8 images."""
        return self.module(self.spec.normalise(images))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the sampler's epoch on resume: Lightning requests a batch before it does so."""
        self.sampler.set_epoch(checkpoint["epoch"] + 1)

    def on_train_epoch_start(self) -> None:
        """Seed the network's random numbers (dropout) by epoch, so that a resume repeats them."""
        torch.manual_seed(self.settings.seed * 1_000_003 + self.current_epoch)
        self.losses = torch.zeros((), device=self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The method's loss."""
        images, targets = batch
        loss = self.module.loss(self(images), targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        self.losses += loss.detach()
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Collect the embeddings of a validation batch."""
        images, targets = batch
        output = self(images)
        self.validated.append(
            LabelledEmbeddings(output.embedding.float(), targets, output.probabilities)
        )

    def on_validation_epoch_end(self) -> None:
        """Log whole-ranking mAP of the validation part, leave-one-out.

        An image that is the only one of its class is not a query. Raises ModelError if training
        has diverged so far that the embeddings cannot be ranked.
        """
        epoch = self.current_epoch + 1
        _check_loss(float(self.losses), epoch)
        images = LabelledEmbeddings.joined(self.validated)
        self.validated.clear()
        own = torch.arange(len(images), device=images.embedding.device)
        try:
            scores = score_queries(
                images,
                images,
                ranking=self.module.ranking,
                own=own,
                measures=("map", "relevant"),
            ).per_query
        except DataError as error:
            raise ModelError(f"{error} (epoch {epoch}); lower lr and head_lr") from error
        self.log("val_map", float(scores["map"][scores["relevant"] > 0].mean()))

    def configure_optimizers(self) -> Any:
        """The optimiser with its schedule per step."""
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
        """The factor on the learning rates at `step`."""
        warmup = self.settings.warmup_epochs * self.steps_per_epoch
        done = min(1.0, step / (self.settings.epochs * self.steps_per_epoch))
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if self.settings.schedule == "cosine":
            return rise * 0.5 * (1 + math.cos(math.pi * done))
        if self.settings.schedule == "step":
            return rise * 0.1 ** ((done >= 0.5) + (done >= 0.75))
        return rise


def parameter_groups(module: Method, settings: TrainingSettings) -> list[dict[str, Any]]:
    """The backbone's parameters at `lr`, the others at `head_lr`; no weight decay on vectors.

    Biases, batch-norm weights and scalars (p, α, β) have no weight decay: it would pull p of GeM
    and the scales of normalisations towards 0.
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


class BestEpoch(Callback):
    """Keeps the weights of the epoch with the best val_map; of equal epochs, those of the latest.

    patience: stop after this number of epochs without improvement; 0: never. The checkpoint holds
    the state without absolute paths, so that a run's folder may be moved.
    """

    def __init__(self, folder: Path, *, patience: int) -> None:
        self.folder = folder
        self.patience = patience
        self.score = -math.inf
        self.epoch = 0
        self.improved = 0

    @property
    def file(self) -> Path:
        """The file of the best weights so far."""
        return self.folder / f"best-{self.epoch}.safetensors"

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {"score": self.score, "epoch": self.epoch, "improved": self.improved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.score, self.epoch = state_dict["score"], state_dict["epoch"]
        self.improved = state_dict["improved"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Stop again if the run was interrupted just after it stopped."""
        trainer.should_stop = self._is_over(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Delete earlier best weights, which a resume needs until the last checkpoint is saved."""
        for file in self.folder.glob("best-*.safetensors"):
            if file != self.file:
                file.unlink()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Save the weights if no earlier epoch was better."""
        epoch, score = trainer.current_epoch + 1, float(trainer.callback_metrics["val_map"])
        if score > self.score:
            self.improved = epoch
        if score >= self.score:
            self.score, self.epoch = score, epoch
            self.folder.mkdir(exist_ok=True)
            state = pl_module.module.state_dict()
            weights = {k: v.cpu().contiguous() for k, v in state.items()}
            write_bytes(self.file, safetensors.torch.save(weights))
        trainer.should_stop = trainer.should_stop or self._is_over(epoch)

    def _is_over(self, epoch: int) -> bool:
        return bool(self.patience) and epoch - self.improved >= self.patience > 0


class EpochLog(Callback):
    """Writes a row of a CSV file and a line of text per epoch."""

    COLUMNS = ("epoch", "train_loss", "val_map", "lr", "seconds")

    def __init__(self, file: Path, say: Callable[[str], None]) -> None:
        self.file = file
        self.say = say
        self.started = 0.0

    def total_seconds(self) -> float:
        """The duration of all epochs, including those before an interruption."""
        return round(sum(float(row[-1]) for row in self._rows()), 1)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Delete rows of epochs whose checkpoint an interrupted run did not save."""
        rows = self._rows()[: trainer.current_epoch] if self.file.exists() else []
        with self.file.open("w", newline="") as opened:
            csv.writer(opened).writerows([self.COLUMNS, *rows])

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Write the row; raise ModelError if the loss is not finite."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch + 1
        _check_loss(values["train_loss"], epoch)
        row = {
            "epoch": epoch,
            "train_loss": values["train_loss"],
            "val_map": values.get("val_map", ""),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self.started, 1),
        }
        with self.file.open("a", newline="") as opened:
            csv.DictWriter(opened, self.COLUMNS).writerow(row)
        val = f"  val mAP {values['val_map']:.4f}" if "val_map" in values else ""
        self.say(
            f"epoch {epoch}/{trainer.max_epochs}  loss {values['train_loss']:.4f}{val}"
            f"  {row['seconds']} s"
        )

    def _rows(self) -> list[list[str]]:
        with self.file.open(newline="") as opened:
            return list(csv.reader(opened))[1:]


class BatchProgress(Callback):
    """Tells the numbers of batches done and of all epochs, after each batch."""

    def __init__(self, on_progress: Callable[[int, int], None]) -> None:
        self._on_progress = on_progress

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Tell the numbers."""
        epochs = trainer.max_epochs or 0
        self._on_progress(trainer.global_step, int(trainer.num_training_batches) * epochs)


def _check_loss(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise ModelError(f"the loss is not finite in epoch {epoch}; lower lr and head_lr")


def _sampler(images: LabelledSet, settings: TrainingSettings) -> tuple[EpochSampler, int]:
    """The sampler and the batch size."""
    if len(images) < 2:
        # Batch norm needs the variance of at least two values.
        raise DataError("training needs at least 2 images")
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
    """Silence Lightning's advice: our users cannot act on any of these messages."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",  # it counts logical CPUs; two workers feed two cores
            ".*is smaller than the logging interval.*",  # we log epochs, not steps
            ".*validation_step. but have no .val_dataloader.*",  # validation=0 is a choice
            "Checkpoint directory .* exists and is not empty.*",  # as expected on a resume
            "The dirpath has changed from.*",  # a run that was moved
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
