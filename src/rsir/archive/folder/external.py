"""The model of an archive of external embeddings; it has a name, but cannot encode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsir.atomic import write_json
from rsir.documents import read_object
from rsir.errors import ModelError, UsageError
from rsir.ranking import metric_named
from rsir.types import Encoding, is_unicode

_CARD = "model.json"
_FORMAT = "rsir-external/1"
_PREFIX = "external:"


class ExternalEncoder:
    """Represents a model that rsir cannot run; `Archive.create` takes it like any encoder.

    name: of the model, e.g. "clay-v1.5". Archives with the same name, metric and dimension can be
    merged, so the caller must give different models different names. ranking: a name for
    `rsir.ranking.metric_named`. dimension: D floats, or the number of bits.

    Raises UsageError for an empty name, an unknown metric or a dimension that the metric rejects.
    """

    bands: tuple[str, ...] = ()

    def __init__(self, name: str, ranking: str, dimension: int) -> None:
        if not name.strip():
            raise UsageError("give the name of the model that made the embeddings")
        if not is_unicode(name):
            raise UsageError(f"{name!r} is not valid Unicode; choose another name")
        metric_named(ranking).width(dimension)
        self.name = name
        self.ranking = ranking
        self.dimension = dimension

    @property
    def fingerprint(self) -> str:
        """Equal for equal name, metric and dimension; differs from those of rsir's models."""
        return f"{_PREFIX}{self.name}/{self.ranking}/{self.dimension}"

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Encoding:
        """Raises UsageError: rsir cannot run the model."""
        raise UsageError(
            f"this archive holds embeddings made elsewhere, by {self.name}: search it by id or by "
            "vector, and add to it with `rsir import`"
        )

    def save(self, folder: Path) -> None:
        """Write the card `model.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        card = {
            "format": _FORMAT,
            "method": "external",
            "backbone": self.name,
            "ranking": self.ranking,
            "dimension": self.dimension,
            "fingerprint": self.fingerprint,
        }
        write_json(folder / _CARD, card)

    @classmethod
    def load(cls, folder: Path) -> ExternalEncoder | None:
        """The model that `save` wrote into `folder`; None if the model there is another kind.

        Raises ModelError for a damaged card.
        """
        try:
            card = read_object(folder / _CARD)
        except (OSError, ValueError):
            return None
        if card.get("format") != _FORMAT:
            return None
        try:
            return cls(str(card["backbone"]), str(card["ranking"]), int(card["dimension"]))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise ModelError(f"{folder / _CARD} is damaged ({error}); restore it") from error


def is_external(fingerprint: str) -> bool:
    """Whether a fingerprint belongs to an `ExternalEncoder`."""
    return fingerprint.startswith(_PREFIX)
