"""What an evaluation must not contain: images that the model learnt from, answers that are queries.

By content (SHA-256 of the files); pictures that merely look alike are found by
`rsir.data.near_duplicates`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from rsir.data import splits
from rsir.data.folder import LabelledSet
from rsir.data.splits import Split
from rsir.models.encoder import Encoder

TRAINED = ("train", "val")
"""Parts of a split that a model learnt from: "val" has chosen its epoch."""


@dataclass(frozen=True)
class Leakage:
    """What of an evaluation's images should not be in it; paths relative to their set.

    split_hash: of the split that the model was trained on; None if it was trained on none or does
    not say. known: whether that very split is at hand (the hashes agree), without which the images
    it was trained on are not known. trained_on: queries that it was trained on, or chosen by.
    copies: (query, image of the gallery) pairs of equal content; in leave-one-out each pair once.
    """

    split_hash: str | None
    known: bool
    trained_on: tuple[str, ...]
    copies: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "model_split_hash": self.split_hash,
            "model_split_known": self.known,
            "queries_trained_on": list(self.trained_on),
            "equal_query_and_gallery": [list(pair) for pair in self.copies],
        }

    @property
    def lines(self) -> list[str]:
        """What a person should know of it, a line each; nothing if all is well."""
        found = []
        if self.split_hash is not None and not self.known:
            found.append(
                "not known what the model was trained on: its split is not with it, or is another"
            )
        if self.trained_on:
            found.append(
                f"leakage: the model was trained on {len(self.trained_on)} of the queries, "
                f"e.g. {self.trained_on[0]}: these numbers say nothing of new images"
            )
        if self.copies:
            query, answer = self.copies[0]
            found.append(
                f"leakage: {len(self.copies)} pairs of query and gallery image are the same file, "
                f"e.g. {query} = {answer}"
            )
        return found


def check(
    encoder: Encoder,
    queries: LabelledSet,
    gallery: LabelledSet | None = None,
    split: Split | None = None,
) -> Leakage:
    """The Leakage of an evaluation by `encoder`; without `gallery` of leave-one-out.

    split: one that may be the model's own, if there is no copy of it in the model's folder.
    Reads every file once to hash it.
    """
    split_hash = encoder.model.training.get("split_hash")
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
    """The split that the model remembers by its hash, if it is here."""
    if given is not None and given.hash == split_hash:
        return given
    manifest = None if encoder.folder is None else encoder.folder / "split.csv"
    if manifest is None or not manifest.is_file():
        return None
    found = splits.read(manifest)
    return found if found.hash == split_hash else None
