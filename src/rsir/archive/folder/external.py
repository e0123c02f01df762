"""The model of an archive whose embeddings were made elsewhere: a name, and no way to encode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsir.errors import ModelError, UsageError
from rsir.ranking import metric_named
from rsir.types import Encoding

FORMAT = "rsir-external/1"
CARD = "model.json"
_PREFIX = "external:"


class ExternalEncoder:
    """Stands for a model that rsir cannot run; `Archive.create` takes it as any other encoder.

    name: of the model, e.g. "clay-v1.5": archives of equal name, metric and dimension may be
    merged, and whoever gives the name answers for it. ranking: a name for
    `rsir.ranking.metric_named`. dimension: D floats, or bits.

    Raises UsageError for an empty name, an unknown metric or a dimension that it cannot have.
    """

    bands: tuple[str, ...] = ()

    def __init__(self, name: str, ranking: str, dimension: int) -> None:
        if not name.strip():
            raise UsageError("name the model that made the embeddings")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{name!r} is not valid Unicode; name the model otherwise") from error
        metric_named(ranking).width(dimension)
        self.name = name
        self.ranking = ranking
        self.dimension = dimension

    @property
    def fingerprint(self) -> str:
        """Equal for equal name, metric and dimension; never that of a model of rsir."""
        return f"{_PREFIX}{self.name}/{self.ranking}/{self.dimension}"

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Encoding:
        """Raises UsageError: the model is not here."""
        raise UsageError(
            f"this archive holds embeddings made elsewhere, by {self.name}: search it by id or by "
            "vector, and add to it with `rsir import`"
        )

    def save(self, folder: Path) -> None:
        """Write the card `model.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        card = {
            "format": FORMAT,
            "method": "external",
            "backbone": self.name,
            "ranking": self.ranking,
            "dimension": self.dimension,
            "fingerprint": self.fingerprint,
        }
        text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
        (folder / CARD).write_text(text, "utf-8")

    @classmethod
    def load(cls, folder: Path) -> ExternalEncoder | None:
        """What `save` wrote into `folder`; None if the model there is no foreign one.

        Raises ModelError for a card that says it is one and is damaged.
        """
        try:
            card: Any = json.loads((folder / CARD).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(card, dict) or card.get("format") != FORMAT:
            return None
        try:
            return cls(str(card["backbone"]), str(card["ranking"]), int(card["dimension"]))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise ModelError(f"{folder / CARD} is damaged ({error}); restore it") from error


def is_foreign(fingerprint: str) -> bool:
    """Whether an archive of this fingerprint is for embeddings made elsewhere."""
    return fingerprint.startswith(_PREFIX)
