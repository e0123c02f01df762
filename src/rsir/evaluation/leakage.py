"""Find leakage: queries that the model was trained on, and equal query and gallery images.

Images are compared by content (SHA-256 of the files); `rsir.data.near_duplicates` finds images
that look alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsir.data import splits
from rsir.data.folder import LabelledSet
from rsir.data.splits import Split
from rsir.models.encoder import Encoder

TRAINED = ("train", "val")
"""The parts of a split that a model learnt from: "val" chose the epoch."""


@dataclass(frozen=True)
class Leakage:
    """Images that should not be in an evaluation; paths are relative to their set.

    split_hash: hash of the split that the model was trained on; None if unknown. known: whether
    that split is available (the hashes agree); without it the training images are unknown.
    trained_on: queries that the model was trained on, or that chose its epoch.
    copies: (query, gallery image) pairs of equal content; in leave-one-out each pair once.
    """

    split_hash: str | None
    known: bool
    trained_on: tuple[str, ...]
    copies: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """The plain JSON values."""
        return {
            "model_split_hash": self.split_hash,
            "model_split_known": self.known,
            "queries_trained_on": list(self.trained_on),
            "equal_query_and_gallery": [list(pair) for pair in self.copies],
        }

    @property
    def lines(self) -> list[str]:
        """One line per warning for the user; empty without leakage."""
        found = []
        if self.split_hash is not None and not self.known:
            found.append(
                "the training images of the model are unknown: its split is missing or differs"
            )
        if self.trained_on:
            found.append(
                f"leakage: the model was trained on {len(self.trained_on)} of the queries, "
                f"e.g. {self.trained_on[0]}: these numbers say nothing about new images"
            )
        if self.copies:
            query, answer = self.copies[0]
            found.append(
                f"leakage: {len(self.copies)} pairs of query and gallery image are the same file, "
                f"e.g. {query} = {answer}"
            )
        return found


def _has_learnt(training: Mapping[str, Any]) -> bool:
    """Whether a model learnt from the images of its split; False for the untrained baseline."""
    settings = training.get("settings")
    epochs = settings.get("epochs") if isinstance(settings, Mapping) else None
    from_elsewhere = training.get("weights") in ("none", "pretrained")
    return not (epochs == 0 and from_elsewhere and "adapted_to" not in training)


def find_leakage(
    encoder: Encoder,
    queries: LabelledSet,
    gallery: LabelledSet | None = None,
    split: Split | None = None,
) -> Leakage:
    """The Leakage of an evaluation of `encoder`; without `gallery` of leave-one-out.

    split: a candidate for the model's own split, if the model's folder has no copy of it.
    Reads and hashes every file once.
    """
    training = encoder.model.training
    split_hash = training.get("split_hash") if _has_learnt(training) else None
    own = _trained_split(encoder, split_hash, split)
    learnt = {row.sha256 for row in own.rows if row.part in TRAINED} if own else set()
    digests = splits.hash_files(list(queries.files))
    by_content: dict[str, list[str]] = defaultdict(list)
    if gallery is not None:
        others = splits.hash_files(list(gallery.files))
        for path, digest in zip(gallery.paths, others, strict=True):
            by_content[digest].append(path)
    copies: list[tuple[str, str]] = []
    for path, digest in zip(queries.paths, digests, strict=True):
        copies += [(path, other) for other in by_content[digest]]
        if gallery is None:
            by_content[digest].append(path)
    return Leakage(
        split_hash,
        own is not None,
        tuple(p for p, digest in zip(queries.paths, digests, strict=True) if digest in learnt),
        tuple(copies),
    )


def _trained_split(encoder: Encoder, split_hash: str | None, given: Split | None) -> Split | None:
    """The split whose hash the model's card records, if it is available."""
    if given is not None and given.hash == split_hash:
        return given
    manifest = None if encoder.folder is None else encoder.folder / "split.csv"
    if manifest is None or not manifest.is_file():
        return None
    found = splits.read(manifest)
    return found if found.hash == split_hash else None
