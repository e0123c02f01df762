"""The whole way in one go, offline: images, training, evaluation, archive, searches, a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rsir.archive import Archive
from rsir.archive.pictures.cards import Section, page
from rsir.data import folder, splits
from rsir.data.folder import LabelledSet
from rsir.data.loading import readable
from rsir.data.synthetic import scenes
from rsir.errors import DataError, MissingExtraError
from rsir.evaluation import evaluate
from rsir.models.encoder import Encoder
from rsir.scenes.tiling import Tiling
from rsir.sources.folders import find_images
from rsir.training.settings import TrainingSettings
from rsir.training.train import train

METHOD = "dual-attention"
BACKBONE = "resnet10t"
"""The smallest ResNet in timm: it learns the generated scenes from nothing in about a minute."""
SETTINGS = TrainingSettings(
    epochs=20, image_size=96, batch_size=64, per_class=8, lr=3e-3, head_lr=3e-3, validation=0.1
)
"""Found on the generated scenes; training from nothing wants a higher rate than fine-tuning."""
VIEWS = 12_000
"""Most images seen in training, all epochs together, so that a large folder takes minutes too."""
PER_CLASS = 60
"""Scenes drawn of each land use."""
FIELD = 128
"""Pixels of a field in the large scene, and of its tiles."""
QUERIES = 8
HITS = 8
PAGE = "results.html"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """What the demo leaves: an archive, a page of searches in it, and the images searched with."""

    archive: Path
    page: Path
    queries: list[Path]

    def __str__(self) -> str:
        return (
            f"{len(self.queries)} searches are shown in {self.page.absolute().as_uri()}\n"
            f"search for yourself: rsir search {self.archive} {self.queries[0]}\n"
            f"or on a page with a map: rsir serve {self.archive}"
        )


def run(out: Path, data: Path | None = None, *, say: Say = print) -> Made:
    """Do it all in `out` and tell what was made; `say` gets a line for each step.

    Without `data`: generated scenes of known land use. With it: the images in that folder. Class
    folders are trained on; other folders are searched with a model of the generated scenes.
    Running it again takes up what is there.
    """
    labelled = _generated(out, say) if data is None else _own(data, out, say)
    images = labelled.root if data is None else data
    split = splits.make(labelled, train=0.8, val=SETTINGS.validation, seed=SETTINGS.seed)
    mark = split.hash[:8]

    training_images = len(split.part("train"))
    epochs = max(2, min(SETTINGS.epochs, VIEWS // training_images))
    say(f"training {METHOD} on {training_images} images, from random weights")
    model = train(
        METHOD,
        split,
        labelled.root,
        out / f"run-{mark}",
        backbone=BACKBONE,
        weights="none",
        settings=replace(SETTINGS, epochs=epochs),
        on_epoch=lambda line: say(f"  {line}"),
    )
    encoder = Encoder.load(model)
    test = split.labelled(labelled.root, "test")
    report = evaluate.evaluate(encoder, test)
    say(
        f"on {report.queries} images that it was not trained on: mAP "
        f"{report.metrics['map']:.3f}, R@1 {report.metrics['r_at_1']:.3f} (leave-one-out)"
    )

    archive = Archive.open_or_create(out / f"archive-{mark}", encoder)
    indexed = archive.add(images)
    for skipped in indexed.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    if data is None and (scene := _scene(out)):
        archive.add(scene, tiling=Tiling(size=FIELD, stride=FIELD // 2))
    say(f"{len(archive)} images in the archive, {len(indexed.skipped)} skipped")

    queries = _queries(test, archive)
    page = out / PAGE
    page.write_text(_page(archive, queries, data), "utf-8")
    return Made(archive.path, page, queries)


def _generated(out: Path, say: Say) -> LabelledSet:
    """Scenes in `out`, made if they are not there."""
    place = out / "scenes"
    if not place.exists():
        say("drawing scenes of known land use; they are synthetic")
        # Drawn beside and moved, so that an interrupted drawing is not taken for a whole one.
        partial = out / "scenes.partial"
        scenes.write_scenes(partial, per_class=PER_CLASS)
        partial.rename(place)
    return folder.load(place)


def _scene(out: Path) -> Path | None:
    """A large scene of many fields in `out`, made if it is not there; None without rasterio."""
    place = out / "scene.tif"
    if not place.exists():
        partial = out / "scene.partial.tif"
        try:
            scenes.write_mosaic(partial, size=FIELD)
        except MissingExtraError:
            return None
        partial.rename(place)
    return place


def _own(data: Path, out: Path, say: Say) -> LabelledSet:
    """The class folders in `data`; if it has none, generated scenes to train on instead."""
    try:
        labelled, skipped = readable(folder.load(data))
    except DataError as error:
        if not find_images([data])[0]:
            raise
        say(f"training on generated scenes instead, for there is nothing to learn from: {error}")
        return _generated(out, say)
    for path, reason in skipped:
        say(f"skipped {path}: {reason}")
    return labelled


def _queries(test: LabelledSet, archive: Archive) -> list[Path]:
    """One test image of each of the first classes; any images, if the classes are not theirs."""
    first = {test.labels(i)[0]: file for i, file in reversed(list(enumerate(test.files)))}
    of_classes = [first[name] for name in sorted(first)][:QUERIES]
    sources = [Path(record.source) for record in archive.records()]
    return of_classes if of_classes[0].absolute() in sources else sorted(sources)[:QUERIES]


def _page(archive: Archive, queries: list[Path], data: Path | None) -> str:
    """The page of searches; an image is not shown as its own answer."""
    sections = []
    for query, hits in zip(queries, archive.search_many(queries, k=HITS + 1), strict=True):
        others = [hit for hit in hits if Path(hit.source) != query.absolute()][:HITS]
        sections.append(Section(others, query, hits.seconds, hits.searched))
    what = "generated scenes (synthetic)" if data is None else data.name
    return page(*sections, title=f"rsir demo: {what}")
