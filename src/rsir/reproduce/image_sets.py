"""The image sets that the rows of a table share, in full or reduced for a quick version."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from rsir.data import folder
from rsir.data.catalog import entries as catalog
from rsir.data.catalog.locate import locate
from rsir.data.folder import LabelledSet
from rsir.errors import DataError
from rsir.reproduce.conditions import QUICK_CLASSES, QUICK_IMAGES

LABEL_TABLES = ("LandUse_Multilabeled.txt", "labels.csv", "labels.txt")
"""File names of multi-label tables: UC Merced's table as its authors named it (Chaudhuri et al.
2018), or a table of your own. They lie beside the images or up to two folders above."""


class ImageSets:
    """The image sets below a data root; each is loaded once. quick: take few images of each set."""

    def __init__(self, data_root: Path, *, quick: bool) -> None:
        self.data_root = data_root
        self.quick = quick
        self._sets: dict[tuple[str, bool], LabelledSet | str] = {}  # or why it is missing

    def get(self, name: str, *, multi_label: bool) -> LabelledSet:
        """The set with this name in the catalogue, with its classes or with its labels.

        Raises DataError if the set or its table of labels is missing.
        """
        key = (name, multi_label)
        if key not in self._sets:
            try:
                images = self._load(name, multi_label)
                self._sets[key] = quick_subset(images) if self.quick else images
            except DataError as error:
                self._sets[key] = str(error)
        result = self._sets[key]
        if isinstance(result, str):
            raise DataError(result)
        return result

    def _load(self, name: str, multi_label: bool) -> LabelledSet:
        entry = catalog.get(name)
        directory = locate(entry, self.data_root)
        if not multi_label:
            return folder.load(directory)
        near = (directory, *directory.parents[:2])
        within = [path for path in near if path.is_relative_to(self.data_root)]
        tables = [path / file for path in within for file in LABEL_TABLES]
        table = next((table for table in tables if table.is_file()), None)
        if table is None:
            raise DataError(
                f"{directory}: no table of labels for {entry.title}; put {LABEL_TABLES[0]} "
                f"or {LABEL_TABLES[1]} there (image name, then 0 or 1 for each label)"
            )
        return folder.load(directory, labels=table)


def quick_subset(images: LabelledSet) -> LabelledSet:
    """The few images of a quick version.

    Of a set with classes: equally many images of each of the first classes. Of a multi-label set:
    as many images, spread evenly over the set, with the labels that several of them have.
    """
    if not images.multi_label:
        count = min(QUICK_CLASSES, len(images.classes))
        chosen = [
            i for c in range(count) for i in np.flatnonzero(images.targets == c)[:QUICK_IMAGES]
        ]
        return dataclasses.replace(images.subset(chosen), classes=images.classes[:count])
    count = min(len(images), QUICK_CLASSES * QUICK_IMAGES)
    part = images.subset(np.linspace(0, len(images) - 1, count).astype(np.int64))
    common = np.flatnonzero(part.counts >= QUICK_IMAGES // 2)
    part = part.subset(part.targets[:, common].any(axis=1))
    classes = tuple(part.classes[i] for i in common)
    return dataclasses.replace(part, classes=classes, targets=part.targets[:, common])
