"""How a tile was cut from its scene, read from the properties of its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from rsir.errors import UsageError
from rsir.geo.footprint import Window
from rsir.scenes.stretch import Stretch


@dataclass(frozen=True, slots=True)
class TileCut:
    """The parameters to read a tile again from its scene, or to read another window like it.

    window: (column, row, width, height) in pixels of the scene; None: the whole scene. bands: as
    `rsir.scenes.scene.Scene.refs`; None: as `Scene.open` chooses. stretch: with its numbers settled
    if it comes from a record. size: (height, width) of the tile in pixels; None: as the window.
    """

    window: Window | None = None
    bands: tuple[str, ...] | None = None
    stretch: Stretch = field(default_factory=Stretch)
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> Self | None:
        """The cut that the properties of a record describe (see `rsir.scenes.tiles.tiles`).

        None for an image that is not a tile of a scene, and for properties that describe no cut.
        """
        match properties:
            case {
                "window": [int(column), int(row), int(width), int(height)],
                "bands": [str(), *_] as bands,
                "stretch": str(text),
            } if min(width, height) > 0 and all(isinstance(band, str) for band in bands):
                try:
                    stretch = Stretch.parse(text)
                except UsageError:
                    return None
            case _:
                return None
        cut = cls((column, row, width, height), tuple(bands), stretch)
        match properties:
            case {"height": int(h), "width": int(w)} if h > 0 and w > 0:
                return replace(cut, size=(h, w))
        return cut

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the tile for each pixel of the scene, (across, down)."""
        if self.window is None or self.size is None:
            return 1.0, 1.0
        return self.size[1] / self.window[2], self.size[0] / self.window[3]
