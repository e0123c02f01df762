"""Run all steps offline: draw images, train, evaluate, index, search, write a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rsir.archive import Archive
from rsir.archive.pictures.cards import Section, page
from rsir.cli.printing import progress, waiting
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
"""The smallest ResNet in timm. It learns the generated scenes from random weights in a minute."""
SETTINGS = TrainingSettings(
    epochs=20, image_size=96, batch_size=64, per_class=8, lr=3e-3, head_lr=3e-3, validation=0.1
)
"""Chosen on the generated scenes. Random weights need a higher learning rate than fine-tuning."""
VIEWS = 12_000
"""Largest number of training images over all epochs, so that a large folder takes minutes too."""
PER_CLASS = 60
"""Number of scenes for each land use."""
FIELD = 128
"""Side of a field in the large scene, and of its tiles, in pixels."""
QUERIES = 8
HITS = 8
PAGE = "results.html"

Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoResult:
    """The results of the demo: an archive, a page of searches, and the query images."""

    archive: Path
    page: Path
    queries: list[Path]

    def __str__(self) -> str:
        return (
            f"see {len(self.queries)} searches: {self.page.absolute().as_uri()}\n"
            f"search yourself: rsir search {self.archive} {self.queries[0]}\n"
            f"open a page with a map: rsir serve {self.archive}"
        )


def run(out: Path, data: Path | None = None, *, say: Say = print) -> DemoResult:
    """Run all steps in `out` and return the results; `say` receives a line for each step.

    Without `data`, it generates scenes of known land use. With `data`, it uses the images in that
    folder: it trains on class folders, and searches other folders with a model of the generated
    scenes. A second run continues from existing results.
    """
    say(f"step 1 of 4: {'drawing synthetic scenes' if data is None else f'reading {data}'}")
    labelled = _generated(out) if data is None else _own(data, out, say)
    images = labelled.root if data is None else data
    split = splits.make(labelled, train=0.8, val=SETTINGS.validation, seed=SETTINGS.seed)
    mark = split.hash[:8]

    training_images = len(split.part("train"))
    epochs = max(2, min(SETTINGS.epochs, VIEWS // training_images))
    say(f"step 2 of 4: training {METHOD} on {training_images} images, from random weights")
    model = train(
        METHOD,
        split,
        labelled.root,
        out / f"run-{mark}",
        backbone=BACKBONE,
        weights="none",
        settings=replace(SETTINGS, epochs=epochs),
        on_epoch=lambda line: say(f"  {line}"),
        progress=progress,
    )
    encoder = Encoder.load(model)
    test = split.labelled(labelled.root, "test")
    with progress("testing (images)") as tick:
        report = evaluate.evaluate(encoder, test, on_progress=tick)
    say(
        f"on {report.queries} test images: mAP "
        f"{report.metrics['map']:.3f}, R@1 {report.metrics['r_at_1']:.3f} (leave-one-out)"
    )

    say("step 3 of 4: indexing")
    archive = Archive.open_or_create(out / f"archive-{mark}", encoder)
    with progress("indexing (files)") as tick:
        indexed = archive.add(images, on_progress=tick)
    for skipped in indexed.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    if data is None and (scene := _scene(out)):
        with progress("indexing (tiles of a scene)") as tick:
            tiling = Tiling(size=FIELD, stride=FIELD // 2)
            archive.add(scene, tiling=tiling, on_progress=tick)
    say(f"{len(archive)} images in the archive, {len(indexed.skipped)} skipped")

    say(f"step 4 of 4: {QUERIES} searches")
    queries = _queries(test, archive)
    page = out / PAGE
    with waiting("searching"):
        page.write_text(_page(archive, queries, data), "utf-8")
    return DemoResult(archive.path, page, queries)


def _generated(out: Path) -> LabelledSet:
    """The labelled scenes in `out`, generated if missing."""
    directory = out / "scenes"
    if not directory.exists():
        # The folder gets its name when it is complete, so a second run repeats interrupted drawing.
        partial = out / "scenes.partial"
        with progress("drawing") as tick:
            scenes.write_scenes(partial, per_class=PER_CLASS, on_progress=tick)
        partial.rename(directory)
    return folder.load(directory)


def _scene(out: Path) -> Path | None:
    """A large scene of many fields in `out`, generated if missing; None without rasterio."""
    file = out / "scene.tif"
    if not file.exists():
        partial = out / "scene.partial.tif"
        try:
            scenes.write_mosaic(partial, size=FIELD)
        except MissingExtraError:
            return None
        partial.rename(file)
    return file


def _own(data: Path, out: Path, say: Say) -> LabelledSet:
    """The class folders in `data`; without any, generated scenes to train on instead."""
    try:
        labelled, skipped = readable(folder.load(data))
    except DataError as error:
        if not find_images([data])[0]:
            raise
        say(f"training on generated scenes instead, because {error}")
        return _generated(out)
    for path, reason in skipped:
        say(f"skipped {path}: {reason}")
    return labelled


def _queries(test: LabelledSet, archive: Archive) -> list[Path]:
    """A test image of each of the first classes; any images if the archive lacks these."""
    first = {test.labels(i)[0]: file for i, file in reversed(list(enumerate(test.files)))}
    of_classes = [first[name] for name in sorted(first)][:QUERIES]
    sources = [Path(record.source) for record in archive.records()]
    return of_classes if of_classes[0].absolute() in sources else sorted(sources)[:QUERIES]


def _page(archive: Archive, queries: list[Path], data: Path | None) -> str:
    """The page of searches; no image on it is its own hit."""
    sections = []
    for query, hits in zip(queries, archive.search_many(queries, k=HITS + 1), strict=True):
        others = [hit for hit in hits if Path(hit.source) != query.absolute()][:HITS]
        sections.append(Section(others, query, hits.seconds, hits.searched))
    images = "generated scenes (synthetic)" if data is None else data.name
    return page(*sections, title=f"rsir demo: {images}")
